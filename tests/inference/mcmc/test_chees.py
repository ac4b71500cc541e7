"""Many-chain HMC with learned lengths: invariance, the gradient of its criterion, answers, convergence, resuming."""

import contextlib
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import ess, infer, mcmc, status
from ppl.inference.calibration.rank import rank_invariance
from ppl.inference.core import as_density
from ppl.inference.mcmc import chees_block as program
from ppl.inference.mcmc.start import StartError
from tests.inference.mcmc.chees_kernel import tuned
from tests.oracles.targets import BY_NAME

TARGET = as_density(lambda z: -0.5 * jnp.sum((z / jnp.array([1.0, 0.1, 20.0])) ** 2), 3)


def invariance(name, replications=2048):
    target = BY_NAME[name]

    def functions(z):
        return jnp.concatenate([z[0], z[0] ** 2, z[0] * z[1], jnp.round(target.log_density(z[1]), 6)[None]])

    return rank_invariance(
        tuned(target),
        as_density(lambda z: target.log_density(z)),
        lambda key: jax.vmap(target.sample)(jax.random.split(key, 2)),
        functions,
        replications=replications,
        steps=4,
        seed=1,
    )


@pytest.mark.parametrize(
    "name", ["funnel", *(pytest.param(n, marks=pytest.mark.slow) for n in ("banana", "simplex", "heavy", "positive"))]
)
def test_a_transition_leaves_the_target_invariant(name):
    """False alarm 1e-4."""
    result = invariance(name)
    assert result.passed(1e-4), str(result)


@pytest.mark.slow
def test_a_transition_without_metropolis_is_caught(monkeypatch):
    right = program.trajectory
    accepting = lambda *args: replace(right(*args), acceptance_rate=jnp.ones(2))  # noqa: E731
    monkeypatch.setattr(program, "trajectory", accepting)
    result = invariance("funnel")
    assert not result.passed(1e-6), str(result)


def ended(tuning, state, momentum, steps):
    moved = jax.jit(program.trajectory)(tuning, jnp.int32(steps), state, momentum, TARGET)
    return moved, float(tuning.step_size) * steps


@pytest.mark.parametrize("criterion", ["chees", "snaper"])
def test_the_slope_is_the_derivative_of_the_criterion(criterion):
    """Against differences of the criterion itself between trajectories of neighbouring lengths, same momenta."""
    rng = np.random.default_rng(0)
    chains = 20_000
    tuning = replace(
        program.first_tuning(0.01, 3, np.float64),
        scale=np.array([1.0, 0.2, 12.0]),
        direction=np.array([0.6, 0.0, 0.8]),
    )
    state = program.evaluate(rng.normal(size=(chains, 3)) * np.array([1.0, 0.1, 20.0]), TARGET)
    momentum = rng.normal(size=(chains, 3))

    def value(steps):
        moved, _ = ended(tuning, state, momentum, steps)
        x, y = (np.asarray(s.position) / tuning.scale for s in (state, moved.state))
        x, y = x - x.mean(0), y - y.mean(0)
        if criterion == "snaper":
            x, y = x @ tuning.direction, y @ tuning.direction
            return np.mean((y**2 - x**2) ** 2)
        return np.mean((np.sum(y**2, 1) - np.sum(x**2, 1)) ** 2) / 4

    for steps in (40, 150):
        moved, length = ended(tuning, state, momentum, steps)
        found = float(program.slope(tuning, criterion, state.position, moved, length))
        up, down = value(steps + 1), value(steps - 1)
        exact = (up - down) / 2 * steps  # derivative by the logarithm of the length
        if criterion == "snaper":
            exact = exact / value(steps) - 1.0
        assert abs(found - exact) < 0.03 * abs(exact) + 0.01


def test_lengths_are_spread_evenly():
    h = np.sort([float(program.corput(jnp.uint32(i), jnp.float64)) for i in range(255)])
    np.testing.assert_allclose(h, np.arange(1, 256) / 256, atol=1e-6)


@ppl.model
def gammas():
    ppl.sample("a", dist.Gamma(3.0, 2.0))
    ppl.sample("b", dist.Gamma(np.array([1.5, 8.0]), 1.0))


@pytest.mark.parametrize("criterion", ["chees", pytest.param("snaper", marks=pytest.mark.slow)])
def test_a_program_gets_its_posterior(criterion):
    """Means within 4.5 standard errors, a false alarm in 1.5e5 for each of three."""
    engine = mcmc.ChEES(chains=128, warmup=200, draws=60, criterion=criterion)
    fit = infer(gammas(), engine, seed=1, progress=False)
    table = fit.summary()
    for label, mean in (("a", 1.5), ("b[0]", 1.5), ("b[1]", 8.0)):
        assert abs(table[label]["mean"] - mean) < 4.5 * table[label]["mcse_mean"], label
        assert table[label]["r_hat"] < 1.02
    assert not fit.warnings() and fit.divergences == 0
    assert set(fit.draws.stats) >= {"lp", "acceptance_rate", "energy", "diverging", "n_steps", "step_size"}
    assert np.allclose(fit.draws.stats["lp"][7, 3], fit.density(fit.draws.positions[7, 3]))
    assert 0.5 < fit.draws.stats["acceptance_rate"].mean() < 0.95


@pytest.mark.slow
def test_scales_and_lengths_are_learned():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    precision = axes @ np.diag(np.geomspace(1.0, 1e4, 10)) @ axes.T
    covariance = np.linalg.inv(precision)
    engine = mcmc.ChEES(chains=64, warmup=400, draws=100)
    fit = infer(as_density(lambda z: -0.5 * z @ precision @ z, 10), engine, seed=2, progress=False)
    assert fit.draws.info["length"] > 2.0  # a quarter of the longest period is far more than one step
    z = fit.draws.positions.reshape(-1, 10)
    assert np.all(np.abs(z.var(0) / np.diag(covariance) - 1.0) < 0.15)


def test_sampling_goes_on_until_superchains_agree_or_the_limit():
    """No warm-up and superchains 20 standard deviations apart: they agree only after a while."""
    target = as_density(lambda z: -0.5 * jnp.sum(z**2), 2)
    starts = np.repeat([-10.0, 10.0], 16)[:, None] * np.ones(2)
    options = {"chains": 32, "warmup": 0, "draws": 5, "superchains": 2, "max_steps": 1}
    fit = infer(target, mcmc.ChEES(**options, max_draws=20_000), init=starts, seed=1, progress=False)
    assert fit.draws.positions.shape[1] > 100 and max(fit.draws.info["nested_rhat"]) <= 1.01
    short = infer(target, mcmc.ChEES(**options, max_draws=20), init=starts, seed=1, progress=False)
    assert short.draws.positions.shape[1] == 20 and any("do not agree" in text for text in short.warnings())


@pytest.mark.slow
def test_a_rule_judges_superchains():
    engine = mcmc.ChEES(chains=64, warmup=150)
    fit = infer(gammas(), engine, seed=3, until=ess(1000), progress=False)
    assert fit.draws.info["superchains"] == 16 and not fit.notes
    assert fit.summary()["r_hat"].max() < 1.01 and fit.draws.positions.shape[1] < 400


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path):
    engine = mcmc.ChEES(chains=16, warmup=120, draws=150)
    whole = infer(gammas(), engine, seed=5, progress=False)
    with pytest.raises(TimeoutError):
        infer(gammas(), engine, seed=5, progress=False, path=tmp_path / "run", time_budget=0.0)
    while status(tmp_path / "run")["status"] != "finished":
        with contextlib.suppress(TimeoutError):
            rest = infer.resume(tmp_path / "run", gammas(), time_budget=0.0)
    np.testing.assert_array_equal(rest.draws.positions, whole.draws.positions)
    assert rest.draws.info["nested_rhat"] == whole.draws.info["nested_rhat"]


def test_chains_of_a_superchain_start_together():
    engine, target = mcmc.ChEES(chains=12, superchains=3, warmup=5, draws=5), TARGET
    z = engine.start(0, target).state.position.reshape(3, 4, 3)
    assert np.all(z == z[:, :1]) and len(np.unique(z[:, 0, 0])) == 3
    with pytest.raises(StartError, match="superchain 0"):
        engine.start(0, as_density(lambda z: jnp.log(-jnp.sum(z**2)), 2))


@pytest.mark.parametrize("options", [{"chains": 7}, {"chains": 10, "superchains": 3}, {"criterion": "longest"}])
def test_options_that_do_not_fit_are_refused(options):
    with pytest.raises(ValueError, match="superchains=16|neither"):
        infer(TARGET, mcmc.ChEES(**options), progress=False)


@pytest.mark.parametrize("x64", [True, False])
def test_the_block_lowers_for_accelerators(x64):
    with jax.enable_x64(x64):
        dtype = np.float64 if x64 else np.float32
        state = program.evaluate(np.zeros((64, 3), dtype), TARGET)
        tuning, span = program.first_tuning(0.1, 3, dtype), np.zeros(3, np.int32)
        options = ("snaper", 0.65, 64)
        traced = program.block.trace(tuning, state, np.zeros(2, np.uint32), TARGET, span, 4, options)
        text = traced.lower(lowering_platforms=("cuda", "tpu")).as_text()
        assert "stablehlo.while" in text and "custom_call" not in text.replace("@Sharding", "")
        assert traced.out_info[1].position.dtype == dtype
