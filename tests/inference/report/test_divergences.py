"""Divergences: planted ones are found where they were planted, a funnel's get the non-centred form."""

import numpy as np
import pytest

from ppl.inference.report.divergences import advice, divergences, sites_of
from ppl.inference.report.loo import loo
from ppl.inference.report.predictive import predictive
from ppl.inference.report.separation import CLEAR, separate

pytestmark = pytest.mark.standard_promotion


def text_of(parts):
    return " ".join(str(part) for part in parts if part is not None)


def test_a_funnel_is_named_with_its_scale_its_members_and_the_remedy(funnel):
    found = separate(funnel)
    tau = funnel.labels.index("tau")
    assert found.order[0] == tau and found.shift[tau] < 0
    assert len(found.scales[tau]) >= 6
    body, (concern,) = divergences(funnel)
    assert concern.grave
    assert "at small values of <code>tau</code>" in body
    assert "<code>theta[A]</code>" in body  # the plate's labels, not numbers
    assert "Write <code>theta</code> in its non-centred form" in body
    assert "theta = ppl.record(&quot;theta&quot;, location + tau * z)" in body
    assert str((funnel.draws.stats["diverging"]).sum()) in body


def test_no_divergence_no_alarm(fine):
    body, concerns = divergences(fine)
    assert fine.divergences == 0 and not concerns and "None among" in body


@pytest.mark.parametrize("end", [-1.0, 1.0])
def test_a_planted_end_is_found(hand, end):
    rng = np.random.default_rng(7)
    z = rng.normal(size=(4, 500, 6))
    flags = end * z[:, :, 4] > 1.8
    fit = hand([f"x{i}" for i in range(6)], positions=z, diverging=flags)
    found = separate(fit)
    assert found.order[0] == 4 and found.strength[4] > CLEAR
    where = text_of(advice(found, fit.labels, sites_of(fit)))
    assert f"at {'small' if end < 0 else 'large'} values of <code>x4</code>" in where
    assert "<code>x4</code>" in where and "target_accept" in where


def test_planted_both_ends_are_found(hand):
    z = np.random.default_rng(8).normal(size=(4, 500, 3))
    fit = hand(["a", "b", "c"], positions=z, diverging=np.abs(z[:, :, 1]) > 2.0)
    found = separate(fit)
    assert "at both ends of <code>b</code>" in text_of(advice(found, fit.labels, sites_of(fit)))


def test_scattered_divergences_blame_no_coordinate(hand):
    """A coordinate is named by chance with probability 6e-5 each; three coordinates, twenty seeds: 0.4% in all."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(4, 200, 3))
        fit = hand(["a", "b", "c"], positions=z, diverging=rng.random((4, 200)) < 0.05)
        where = text_of(advice(separate(fit), fit.labels, sites_of(fit)))
        assert "no coordinate tells them clearly" in where, seed


@pytest.mark.parametrize("count", [1, 1200])
def test_one_or_all_divergent(hand, count):
    flags = np.zeros(1200, bool)
    flags[:count] = True
    body, concerns = divergences(hand(["a", "b"], diverging=flags.reshape(4, 300)))
    assert concerns[0].grave == (count > 1)


def test_engines_without_divergences_have_no_section(hand):
    fit = hand(["a"])
    fit.draws.stats.pop("diverging")
    assert divergences(fit) is None


def test_predictive_checks_see_a_planted_misfit(fine):
    body, concerns = predictive(fine)
    assert not concerns and "share above observed" in body
    from dataclasses import replace

    stretched = replace(fine, program=fine.program.condition(y=20.0 * np.asarray(fine.program.conditions["y"])))
    _, concerns = predictive(stretched)
    assert "standard deviation" in concerns[0].text and "<code>y</code>" in concerns[0].text


def test_censored_times_are_not_compared_with_uncensored_replications():
    import ppl
    from ppl import dist
    from ppl.inference import infer

    @ppl.model
    def lifetimes(event):
        rate = ppl.sample("rate", dist.Gamma(2.0, 2.0))
        ppl.plate("unit", lambda e: ppl.sample("t", dist.right_censored(dist.Exponential(rate), e)), event)

    program = lifetimes(np.array([1, 0, 0, 0, 1, 0])).condition(t=np.array([0.4, 0.5, 0.5, 0.5, 0.1, 0.5]))
    body, concerns = predictive(infer(program, draws=30, progress=False))
    assert "cannot be compared" in body and not concerns


def test_loo_is_that_of_criticism(fine):
    import warnings

    from ppl.inference.criticism import loo as leave_one_out

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = leave_one_out(fine, method="moment_match")
    body, concerns = loo(fine)
    assert f"{expected.elpd:.4g}" in body
    assert f"{np.max(expected.k):.2f}" in body
    assert bool(concerns) == bool(len(expected.bad))
    worst = expected.labels[int(np.argmax(expected.k))]
    assert f"<code>{worst}</code>" in body
