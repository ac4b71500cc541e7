"""The engine of ensembles: answers, honest errors, starts, resuming, nested R-hat and lowering."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import diagnostics, ess, infer, mcmc, status
from ppl.inference.core import as_density
from ppl.inference.mcmc import lanes
from ppl.inference.mcmc.chain_moments import ChainMoments
from ppl.inference.mcmc.start import StartError


@ppl.model
def gammas():
    ppl.sample("a", dist.Gamma(3.0, 2.0))
    ppl.sample("b", dist.Gamma(np.array([1.5, 8.0]), 1.0))


@pytest.mark.parametrize("kernel", [mcmc.Stretch(), pytest.param(mcmc.DifferentialEvolution(), marks=pytest.mark.slow)])
def test_a_program_gets_its_posterior(kernel):
    """Means within 4.5 standard errors, a false alarm in 1.5e5 for each of three."""
    fit = infer(gammas(), kernel, seed=1, warmup=300, draws=300, progress=False)
    assert fit.values["b"].shape == (128, 300, 2)
    table = fit.summary()
    for label, mean in (("a", 1.5), ("b[0]", 1.5), ("b[1]", 8.0)):
        assert abs(table[label]["mean"] - mean) < 4.5 * table[label]["mcse_mean"], label
        assert table[label]["r_hat"] < 1.02 and table[label]["ess_bulk"] > 400
    assert fit.draws.info["superchains"] == 4 and not fit.warnings()
    assert set(fit.draws.stats) == {"lp", "acceptance_rate"}
    assert np.allclose(fit.draws.stats["lp"][7, 3], fit.density(fit.draws.positions[7, 3]))


def moments(kernel, d, walkers, steps, runs):
    """First two coordinates of ensembles that start in equilibrium, shape (runs, walkers, steps, 2)."""

    @jax.jit
    def go(keys):
        def one(key):
            state = kernel.init(jax.random.normal(jax.random.fold_in(key, 0), (walkers, d)), density)

            def body(state, i):
                state, _ = kernel.step(jax.random.fold_in(key, i + 1), state, density)
                return state, state.position[:, :2]

            return jax.lax.scan(body, state, jnp.arange(steps))[1]

        return jax.vmap(one)(keys)

    density = lambda z: -0.5 * jnp.sum(z**2)  # noqa: E731
    return np.moveaxis(np.asarray(go(jax.random.split(jax.random.key(0), runs))), 2, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("d", "walkers", "steps"), [(2, 32, 400), (20, 42, 2000)])
@pytest.mark.parametrize(
    "kernel", [mcmc.Stretch(), mcmc.Walk(), mcmc.DifferentialEvolution()], ids=lambda k: str(k)[:4]
)
def test_walkers_as_chains_give_honest_standard_errors(kernel, d, walkers, steps):
    """The squared error of an ensemble's mean over the squared standard error that its walkers, as chains, report.

    It is a chi-square over its degrees of freedom, 200, with a standard deviation of 0.1; above 1.4 would be dishonest.
    """
    draws = moments(kernel, d, walkers, steps, 100)
    for values, truth in ((draws, 0.0), (draws**2, 1.0)):
        reported = np.mean([diagnostics.mcse_mean(v) ** 2 for v in values[:12]])
        ratio = np.mean((values.mean((1, 2)) - truth) ** 2) / reported
        assert 0.4 < ratio < 1.4, ratio


def test_ensembles_that_disagree_are_reported():
    """Two modes far apart, each ensemble in one of them: every walker's own chain looks fine."""
    target = as_density(lambda z: jnp.logaddexp(-0.5 * jnp.sum((z - 50) ** 2), -0.5 * jnp.sum((z + 50) ** 2)), 2)
    starts = np.repeat([-50.0, 50.0], 20)[:, None] + np.random.default_rng(0).normal(size=(40, 2))
    engine = mcmc.Ensemble(mcmc.Stretch(), walkers=20, ensembles=2, warmup=50, draws=100)
    fit = infer(target, engine, init=starts, progress=False)
    assert min(fit.draws.info["nested_rhat"]) > 5
    assert any("do not agree" in text for text in fit.warnings())
    assert fit.summary()["z[0]"]["r_hat"] > 2


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path):
    engine = mcmc.Ensemble(mcmc.DifferentialEvolution(), walkers=8, ensembles=2, warmup=120, draws=150)
    whole = infer(gammas(), engine, seed=5, progress=False)
    with pytest.raises(TimeoutError):
        infer(gammas(), engine, seed=5, progress=False, path=tmp_path / "run", time_budget=0.0)
    while status(tmp_path / "run")["status"] != "finished":
        with contextlib.suppress(TimeoutError):
            rest = infer.resume(tmp_path / "run", gammas(), time_budget=0.0)
    np.testing.assert_array_equal(rest.draws.positions, whole.draws.positions)
    assert rest.draws.info["nested_rhat"] == whole.draws.info["nested_rhat"]


def test_an_ensemble_depends_on_its_number_only():
    target = as_density(lambda z: -0.5 * jnp.sum(z**2), 2)
    few, many = (
        infer(target, mcmc.Ensemble(mcmc.Stretch(), walkers=6, ensembles=n, warmup=20, draws=30), progress=False)
        for n in (2, 3)
    )
    np.testing.assert_array_equal(few.draws.positions, many.draws.positions[:12])


@pytest.mark.slow
def test_a_rule_stops_by_nested_rhat():
    fit = infer(gammas(), mcmc.Walk(), seed=2, warmup=200, draws=50, until=ess(800), progress=False)
    assert "met" not in "".join(fit.notes) and fit.draws.positions.shape[1] < 500


def test_starts_are_replaced_until_they_are_finite():
    target = as_density(lambda z: jnp.where(jnp.all(z > 1), -jnp.sum(z), -jnp.inf), 2)
    engine = mcmc.Ensemble(mcmc.Stretch(), walkers=8, ensembles=2, warmup=10, draws=10)
    fit = infer(target, engine, progress=False)
    assert np.all(fit.draws.positions > 1)
    with pytest.raises(StartError, match=r"walker 0 of ensemble 0"):
        infer(as_density(lambda z: -jnp.inf * z[0] ** 2, 1), engine, progress=False)
    spread = infer(target, engine, init=np.full(2, 9.0), progress=False).draws.warmup_positions
    assert 0.1 < np.std(spread[:, 0]) < 3


@pytest.mark.parametrize(
    ("options", "message"),
    [({"walkers": 7}, "even"), ({"walkers": 4}, "more than 5"), ({"ensembles": 1}, "at least 2")],
)
def test_too_small_ensembles_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        infer(as_density(lambda z: -jnp.sum(z**2), 5), mcmc.Ensemble(mcmc.Stretch(), **options), progress=False)


def test_a_kernel_of_single_positions_is_refused():
    with pytest.raises(TypeError, match=r"RandomWalk moves one position: mcmc\.Chains"):
        infer(as_density(lambda z: -jnp.sum(z**2), 2), mcmc.Ensemble(mcmc.RandomWalk()), progress=False)
    with pytest.raises(ValueError, match="ensemble of walkers|set of walkers"):
        infer(as_density(lambda z: -jnp.sum(z**2), 2), mcmc.Chains(mcmc.Walk()), progress=False)


def test_moments_are_those_of_all_draws_however_they_come():
    x = np.random.default_rng(0).normal(size=(12, 40, 3)) + 100.0
    parts = ChainMoments.empty(12, 3).add(x[:, :7]).add(x[:, 7:]).nested_rhat(4)
    whole = ChainMoments.empty(12, 3).add(x).nested_rhat(4)
    np.testing.assert_array_equal(parts, whole)
    np.testing.assert_allclose(whole, diagnostics.rhat_nested(x, 4), rtol=1e-12)
    # one chain in each superchain: 1 + variance of means / mean variance, as in plain R-hat
    plain = np.sqrt(1 + x.mean(1).var(0, ddof=1) / x.var(1, ddof=1).mean(0))
    np.testing.assert_allclose(diagnostics.rhat_nested(x, 12), plain, rtol=1e-12)
    with pytest.raises(ValueError, match="12 chains cannot be divided into 5"):
        diagnostics.rhat_nested(x, 5)


@pytest.mark.parametrize(
    "kernel", [mcmc.Stretch(), mcmc.Walk(), mcmc.DifferentialEvolution()], ids=lambda k: str(k)[:4]
)
def test_block_lowers_for_accelerators(kernel):
    target, keys, span = (
        as_density(lambda z: -0.5 * jnp.sum(z**2), 3),
        np.zeros((4, 2), np.uint32),
        np.zeros(4, np.int32),
    )
    kernel = jax.tree.map(lambda x: np.broadcast_to(x, (4,)), kernel)
    state, _ = lanes.evaluate(kernel, np.zeros((4, 8, 3)), target, 4)
    shapes = jax.eval_shape(lanes._one_report, kernel, state, keys, target)
    buffers = {name: np.zeros((8, *s.shape), s.dtype) for name, s in shapes.items()}
    traced = lanes.plain_block.trace(buffers, (), kernel, [], state, keys, target, span)
    text = traced.lower(lowering_platforms=("cuda", "tpu")).as_text()
    assert "stablehlo.while" in text and "custom_call" not in text.replace("@Sharding", "")
