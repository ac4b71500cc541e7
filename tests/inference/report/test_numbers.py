"""The numbers on the page against independent computations."""

import warnings

import numpy as np
import pytest
from scipy import stats

from ppl.inference.report.convergence import convergence
from ppl.inference.report.energy import ebfmi, energies
from ppl.inference.report.predictive import bins_of, complete
from ppl.inference.report.quantities import MOST, quantities
from ppl.inference.report.separation import mann_whitney
from ppl.inference.report.svg import Plot, span, ticks
from ppl.inference.report.traces import rank_counts, uneven

pytestmark = pytest.mark.standard_promotion


def test_quantities_are_those_of_the_summary(fine):
    q, table = quantities(fine), fine.summary()
    assert q.labels == table.labels
    np.testing.assert_allclose(q.numbers, table.values, rtol=1e-12)
    np.testing.assert_array_equal(q.draws(q.labels.index("theta[C]")), fine.values["theta"][:, :, 2])


def test_the_worst_come_first(hand):
    z = np.random.default_rng(0).normal(size=(4, 400, 3))
    z[0, :, 2] += 3.0  # one chain elsewhere
    z[:, :, 1] = np.repeat(z[:, ::20, 1], 20, axis=1)  # slow
    q = quantities(hand(["fine", "slow", "split"], positions=z))
    assert [q.labels[i] for i in q.order] == ["split", "slow", "fine"]
    body, concerns = convergence(q)
    assert concerns[0].grave and "split" in concerns[0].text
    assert "slow" in concerns[1].text or "split" in concerns[1].text


def test_many_quantities_are_thinned_and_counted(hand):
    import xarray as xr

    wide = np.broadcast_to(np.arange(5.0)[None, :, None], (2, 5, 3 * MOST))
    fit = hand(["a"], chains=2, draws=5)
    fit.stored["posterior"] = xr.Dataset({"wide": (("chain", "draw", "row"), wide)})
    q = quantities(fit)
    assert q.total == 3 * MOST and len(q.labels) == MOST
    assert q.places[-1] == ("wide", 3 * MOST - 1)
    assert "15,000" in convergence(q)[0]


def test_energy_fraction_is_arviz(funnel):
    import arviz as az

    energy = funnel.draws.stats["energy"]
    np.testing.assert_allclose(ebfmi(energy), np.asarray(az.bfmi(energy)), rtol=1e-10)
    assert "E-BFMI is" in energies(funnel)[1][0].text


def test_rank_counts_against_scipy():
    x = np.random.default_rng(2).poisson(3.0, size=(3, 200)).astype(float)  # many ties
    ranks = stats.rankdata(x).reshape(x.shape)
    expected = [np.histogram((r - 0.5) / x.size, np.linspace(0, 1, 11))[0] for r in ranks]
    np.testing.assert_array_equal(rank_counts(x, 10), expected)
    x[1] += 10.0
    assert uneven(rank_counts(x, 10)).tolist() == [0, 1, 2]
    assert 3 in uneven(rank_counts(np.vstack([np.tile(x[:1], (9, 1)) * 0.0 + np.arange(9)[:, None], x[1:2]]), 10))


def test_mann_whitney_against_scipy():
    rng = np.random.default_rng(3)
    a, b = rng.poisson(2.0, (50, 4)).astype(float), rng.poisson(3.0, (70, 4)).astype(float)
    expected = [stats.mannwhitneyu(a[:, j], b[:, j]).statistic / (50 * 70) for j in range(4)]
    np.testing.assert_allclose(mann_whitney(a, b), expected)


def test_ticks_are_round_and_inside():
    rng = np.random.default_rng(4)
    for _ in range(300):
        low = rng.normal() * 10.0 ** rng.integers(-8, 8)
        high = low + abs(rng.normal()) * 10.0 ** rng.integers(-3, 3) * max(abs(low), 1e-9)
        low, high = span([low, high])
        found = ticks(low, high)
        slack = 1e-6 * (high - low)
        assert 1 <= len(found) <= 8
        assert all(low - slack <= t <= high + slack for t in found)
        assert len(set(found)) == len(found)


def test_places_in_a_plot():
    plot = Plot(200, 100, (0.0, 1.0), (0.0, 2.0))
    np.testing.assert_allclose(plot.px([0.0, 1.0]), [56.0, 188.0])
    np.testing.assert_allclose(plot.py([0.0, 2.0]), [60.0, 26.0])
    plot.line([0.0, 0.5, 1.0], [0.0, np.nan, 2.0], "solid")
    assert 'd="M56 60M188 26"' in plot.svg("n", "title", "words")


def test_bins_hold_every_value():
    rng = np.random.default_rng(5)
    y, rep = rng.poisson(4.0, 60).astype(float), rng.poisson(4.0, (50, 60)).astype(float)
    edges = bins_of(y, rep, discrete=True)
    assert np.all(np.diff(edges) == 1.0) and edges[0] < y.min() and edges[-1] > y.max()
    edges = bins_of(y * 1e6, rep * 1e6, discrete=True)
    assert len(edges) <= 64
    assert len(bins_of(np.zeros(3), np.zeros((4, 3)), discrete=False)) >= 2


def test_gaps_are_left_out():
    masked = np.ma.masked_array([1.0, 2.0, 3.0], mask=[False, True, False])
    y, rep = complete(masked, np.arange(6.0).reshape(2, 3))
    assert y.tolist() == [1.0, 3.0] and rep.tolist() == [[0.0, 2.0], [3.0, 5.0]]


def test_one_chain_raises_no_warning(hand):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        q = quantities(hand(["a"], chains=1))
        assert q.badness.shape == (1,)


def test_a_large_fit_is_looked_at_in_part(hand, tmp_path, monkeypatch):
    import ppl
    from ppl import dist
    from ppl.inference import infer, mcmc, store
    from ppl.inference.report import bounded, render

    monkeypatch.setattr(store, "CHUNK_BYTES", 40_000)
    monkeypatch.setattr(bounded, "NUMBERS", 2400)
    monkeypatch.setattr(bounded, "PIECE", 70)

    @ppl.model
    def normal(x):
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0).expand([3]), dims="axis")
        ppl.plate("row", lambda v: ppl.sample("y", dist.Normal(mu.sum() * v, 1.0)), x)

    program = normal(np.ones(2)).condition(y=np.array([0.3, 0.5]))
    streamed = infer(program, mcmc.NUTS(), chains=2, draws=800, warmup=100, progress=False, path=tmp_path / "a")
    held = infer(program, mcmc.NUTS(), chains=2, draws=800, warmup=100, progress=False)
    for fit in (streamed, infer.open(tmp_path / "a"), held):
        few, step = bounded.bounded(fit)
        assert step == 4 and few.draws.shape == (2, 200, 3)
        np.testing.assert_array_equal(few.draws.positions, held.draws.positions[:, ::4])
        np.testing.assert_array_equal(few.values["mu"], held.values["mu"][:, ::4])
        np.testing.assert_array_equal(few.draws.stats["energy"], held.draws.stats["energy"][:, ::4])
    page = render(infer.open(tmp_path / "a", program))
    assert "could not be computed" not in page and "One draw in 4 is used here" in page
    assert "2 chains of 800 draws" in page
    assert f"{held.divergences:,} of 1,600 draws" in page or not held.divergences
    small = hand(["a"])
    assert bounded.bounded(small) == (small, 1)
