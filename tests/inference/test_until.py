"""Stopping rules."""

from __future__ import annotations

import numpy as np
import pytest

from ppl.inference import diagnostics, ess
from ppl.inference.until import Rule, Verdict, as_rule


def white(chains=4, draws=500, dim=2):
    return np.random.default_rng(3).normal(size=(chains, draws, dim))


def test_ess_asks_for_the_least_of_bulk_and_tail_over_all_coordinates():
    z = white()
    least = min(diagnostics.ess_bulk(z).min(), diagnostics.ess_tail(z).min())
    assert ess(np.floor(least))(z).met
    assert not ess(np.ceil(least + 1e-9))(z).met


def test_ess_asks_for_a_small_rank_normalised_rhat():
    z = white()
    z[0, :, 1] += 0.5
    worst = diagnostics.rhat_rank(z).max()
    assert worst > 1.01
    assert not ess(10)(z).met
    # the coordinates may use 0.8 of the distance from one, the rest is left for what is derived of them
    assert not ess(10, rhat=1.0 + (worst - 1.0) / 0.81)(z).met
    assert ess(10, rhat=1.0 + (worst - 1.0) / 0.79)(z).met
    assert ess(10, rhat=np.inf)(z).met


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_a_coordinate_that_never_moves_or_is_no_number_is_not_enough(value):
    z = white()
    z[..., 1] = value
    assert not ess(1)(z).met
    if np.isnan(value):
        assert not ess(1, rhat=np.inf)(z).met


def test_the_guess_of_the_growth_is_what_is_missing():
    z = white()
    least = diagnostics.ess_mean(z).min()
    verdict = ess(20_000)(z)
    assert verdict.growth == pytest.approx(20_000 / least)
    # just above what the means have: the screen lets it pass, and the ranks decide
    assert ess(1.2 * least)(z).growth == pytest.approx(1.2 * least / diagnostics.ess_bulk(z).min())
    assert (ess(20_000) | ess(5_000))(z).growth == pytest.approx(verdict.growth / 4)
    assert (ess(20_000) & ess(5_000))(z).growth == verdict.growth


def test_few_draws_are_never_enough():
    assert not ess(1)(white(draws=3)).met


def test_rules_combine():
    yes = Rule("yes", lambda z: Verdict(True, "fine"))
    no = Rule("no", lambda z: Verdict(False, "poor"))
    z = white(draws=4)
    assert [(yes & no)(z).met, (yes | no)(z).met, (yes & yes)(z).met, (no | no)(z).met] == [False, True, True, False]
    assert (yes & no).name == "(yes) and (no)"
    assert (yes | no)(z).text == "fine; poor"


def test_a_function_is_a_rule():
    def long(z):
        return z.shape[1] > 100

    assert as_rule(long)(white()).met
    assert (ess(10) & long)(white()).met
    assert as_rule(long).name == "long"
    with pytest.raises(TypeError, match="until="):
        as_rule(400)


@pytest.mark.parametrize("n", [0, -1, float("nan")])
def test_ess_of_nothing_is_refused(n):
    with pytest.raises(ValueError, match="n > 0"):
        ess(n)
