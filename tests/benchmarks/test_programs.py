"""Densities of the posteriors against formulas, where a mistake would not show in the draws' moments."""

from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import integrate, special, stats

import ppl
from benchmarks.posteriordb.programs import OF_INTEREST, PROGRAMS, hierarchical, latent, mechanistic

pytestmark = pytest.mark.standard_promotion


def test_there_are_twenty_three():
    assert len(PROGRAMS) == 23 and set(OF_INTEREST) <= set(PROGRAMS)


def test_garch_sums_the_recursion_from_the_first_observation():
    y, mu, alpha0, weights = np.array([0.3, -0.5, 1.1, 0.2]), 0.1, 0.2, np.array([0.3, 0.5, 0.2])
    variance, expected = 0.25, np.log(2.0)  # the Dirichlet(1, 1, 1) has density 2
    for value in y:
        expected += stats.norm.logpdf(value, mu, np.sqrt(variance))
        variance = alpha0 + weights[0] * (value - mu) ** 2 + weights[1] * variance
    program = PROGRAMS["garch-garch11"]({"y": y, "sigma1": 0.5})
    got = program.log_prob({"mu": mu, "alpha0": alpha0, "weights": weights})
    np.testing.assert_allclose(float(got), expected, rtol=1e-10)


def test_forward_recursion_equals_the_sum_over_all_paths():
    rng = np.random.default_rng(3)
    emission, P = rng.normal(size=(5, 2)), rng.dirichlet(np.ones(2), size=2)
    paths = []
    for code in range(2**5):
        states = [(code >> t) & 1 for t in range(5)]
        moves = sum(np.log(P[a, b]) for a, b in zip(states, states[1:], strict=False))
        paths.append(moves + sum(emission[t, s] for t, s in enumerate(states)))
    got = latent.forward_log_likelihood(emission, np.log(P))
    np.testing.assert_allclose(float(got), special.logsumexp(paths), rtol=1e-10)


@pytest.mark.parametrize("score", [-40.0, -1.0, 3.0, 40.0])
@pytest.mark.parametrize("categories", [2, 3, 5])
def test_graded_response_probabilities(score, categories):
    thresholds = np.array([-1.5, 0.2, 1.0, 2.5])
    logs = np.asarray(hierarchical.graded_log_probs(score, thresholds, categories))
    tail = np.concatenate([[1.0], special.expit(score - thresholds[: categories - 1]), [0.0]])
    upper = np.concatenate([[0.0], special.expit(-(score - thresholds[: categories - 1])), [1.0]])
    exact = np.where(score < 0, tail[:-1] - tail[1:], upper[1:] - upper[:-1])
    np.testing.assert_allclose(np.exp(logs[:categories]), exact, rtol=1e-8)
    assert (logs[categories:] == -1e30).all()
    slope = jax.grad(lambda s: hierarchical.graded_log_probs(s, thresholds, categories)[0])(score)
    assert np.isfinite(slope)


def solved(field, start, times):
    return integrate.solve_ivp(field, (times[0], times[-1]), start, t_eval=times[1:], rtol=1e-10, atol=1e-12).y.T


def test_predator_and_prey_follow_an_adaptive_solver():
    a, b, c, d = theta = np.array([0.55, 0.028, 0.8, 0.024])
    z0, sigma, times = np.array([34.0, 5.9]), np.array([0.25, 0.25]), np.arange(21.0)
    exact = solved(lambda t, s: [(a - b * s[1]) * s[0], (d * s[0] - c) * s[1]], z0, times)
    y = exact * 1.1
    program = PROGRAMS["hudson_lynx_hare-lotka_volterra"]({"ts": times[1:], "y_init": z0, "y": y})
    factors = program.factors({"theta": theta, "z_init": z0, "sigma": sigma})
    expected = stats.lognorm.logpdf(y, sigma, scale=exact)
    np.testing.assert_allclose(np.asarray(factors["y"]), expected, atol=2e-4)


def test_drug_concentration_follows_an_adaptive_solver():
    k_a, K_m, V_m, times = 0.8, 1.0, 0.9, np.arange(0.0, 10.5, 0.5)
    exact = solved(lambda t, c: k_a * 15 * np.exp(-k_a * t) - V_m / 2 * c / (K_m + c), [0.0], times)[:, 0]
    data = {"t0": 0, "D": 30, "V": 2, "times": times[1:], "C_hat": exact}
    factors = PROGRAMS["one_comp_mm_elim_abs-one_comp_mm_elim_abs"](data).factors(
        {"k_a": k_a, "K_m": K_m, "V_m": V_m, "sigma": 0.1}
    )
    np.testing.assert_allclose(np.asarray(factors["C_hat"]), stats.lognorm.logpdf(exact, 0.1, scale=exact), atol=1e-4)


def test_epidemic_follows_an_adaptive_solver():
    beta, gamma, xi, delta = 1.0, 0.2, 10.0, 0.35
    times = np.arange(0.0, 147.0, 7.0)

    def field(t, state):
        S, infected, _, B = state
        new = beta * S * B / (B + 1e6)
        return [-new, new - gamma * infected, gamma * infected, xi * infected - delta * B]

    exact = solved(field, [10000.0, 0.0, 0.0, 10000.0], times)
    S = np.concatenate([[10000.0], exact[:, 0]])
    counts = np.round(-np.diff(S)).astype(int)
    data = {"t": times[1:], "y0": [10000, 0, 0, 10000], "stoi_hat": counts, "B_hat": exact[:, 3]}
    factors = PROGRAMS["sir-sir"](data).factors({"beta": beta, "gamma": gamma, "xi": xi, "delta": delta})
    expected = stats.poisson.logpmf(counts, -np.diff(S))
    np.testing.assert_allclose(np.asarray(factors["stoi_hat"]), expected, atol=2e-3)
    np.testing.assert_allclose(
        np.asarray(factors["B_hat"]), stats.lognorm.logpdf(exact[:, 3], 0.15, scale=exact[:, 3]), atol=1e-3
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("hudson_lynx_hare-lotka_volterra", {"ts": range(1, 6), "y_init": [30, 4], "y": np.full((5, 2), 20.0)}),
        (
            "one_comp_mm_elim_abs-one_comp_mm_elim_abs",
            {"t0": 0, "D": 30, "V": 2, "times": [0.5, 1.0, 1.5], "C_hat": [5.0, 7.0, 6.0]},
        ),
        ("sir-sir", {"t": [7, 14], "y0": [10000, 0, 0, 10000], "stoi_hat": [70, 90], "B_hat": [9e3, 1e4]}),
    ],
)
def test_hopeless_parameters_get_a_finite_density(name, data):
    density = ppl.compile(PROGRAMS[name](data))
    z = np.random.default_rng(0).uniform(-5, 5, size=(200, density.dim))
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(lambda z, d: d(z)), (0, None)))(z, density)
    assert np.isfinite(np.asarray(values)).all() and np.isfinite(np.asarray(gradients)).all()


def test_area_effects_use_every_edge_once():
    data = {"E": [10.0, 20.0, 30.0], "node1": [1, 2], "node2": [2, 3], "y": [1, 2, 3], "scaling_factor": 0.5}
    program = PROGRAMS["traffic_accident_nyc-bym2_offset_only"](data)
    phi = np.array([0.5, -0.2, 0.4])
    factors = program.factors({"beta0": 0.1, "sigma": 0.5, "rho": 0.3, "phi": phi, "theta": np.zeros(3)})
    np.testing.assert_allclose(float(factors["smooth"]), -0.5 * (0.7**2 + 0.6**2))
    np.testing.assert_allclose(float(factors["sum_to_zero"]), stats.norm.logpdf(0.7, 0, 0.003))
    rate = np.array(data["E"]) * np.exp(0.1 + 0.5 * np.sqrt(0.3 / 0.5) * phi)
    np.testing.assert_allclose(np.asarray(factors["y"]), stats.poisson.logpmf(data["y"], rate), rtol=1e-8)


def test_horseshoe_degrees_of_freedom_choose_the_family():
    assert type(hierarchical.half_t(1, 2.0)).__name__ == "HalfCauchy"
    got = hierarchical.half_t(3, 2.0).log_prob(1.0)
    np.testing.assert_allclose(float(got), np.log(2) + stats.t.logpdf(1.0, 3, 0, 2), rtol=1e-8)


def test_solver_has_order_four():
    def error(steps):
        exact = np.exp(-np.array([1.0, 2.0]))
        out = mechanistic.rk4(lambda t, x: -x, np.ones(1), np.array([0.0, 1.0, 2.0]), steps)
        return np.abs(np.asarray(out)[:, 0] - exact).max()

    assert 14 < error(4) / error(8) < 18


def test_pack_is_not_in_the_repository():
    assert not list((Path(__file__).parents[2] / "benchmarks").rglob("data.json*"))
