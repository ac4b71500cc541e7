"""The engine of independent chains: bit-identity, compilation, starts, adaptation and lowering."""

import json
from dataclasses import dataclass, is_dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.inference.adapt.metric import Variance
from ppl.inference.adapt.step_size import StepSize
from ppl.inference.core import as_density
from ppl.inference.mcmc import HMC, NUTS, Chains, lanes
from ppl.inference.mcmc.start import StartError


@dataclass(frozen=True)
class Line:
    """A log density with data: two positive scales and a straight line."""

    x: np.ndarray
    y: np.ndarray
    dim: int = 3

    def __call__(self, z):
        fit = z[0] + z[1] * self.x
        return -0.5 * jnp.sum((self.y - fit) ** 2) * jnp.exp(-2 * z[2]) - len(self.x) * z[2] - 0.05 * jnp.sum(z**2)


jax.tree_util.register_dataclass(Line, ["x", "y"], ["dim"])


def line(seed=0, number=40):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=number) + 2.0
    return Line(x, 1.0 + 0.5 * x + 0.3 * rng.normal(size=number))


def run(engine, target, seed=0, block=1000, init=None):
    carry, blocks, done = engine.start(seed, target, init), [], False
    while not done:
        carry, out, done = engine.advance(carry, target, block)
        blocks.append(out)
    return engine.finish(carry, blocks, target)


ENGINE = Chains(NUTS(max_depth=6), chains=4, warmup=160, draws=40, capacity=64)


@pytest.mark.parametrize("lane", [1, 2])
def test_draws_do_not_depend_on_number_of_chains_or_blocks(lane):
    """Bit for bit, for 1, 3, 4 and 8 chains and three block sizes."""
    engine = replace(ENGINE, lane=lane)
    base = run(engine, line())
    for chains, block in [(1, 1000), (3, 37), (8, 1000), (4, 37), (4, 1)][: 5 if lane == 1 else 3]:
        other = run(replace(engine, chains=chains), line(), block=block)
        n = min(chains, 4)
        np.testing.assert_array_equal(other.positions[:n], base.positions[:n])
        np.testing.assert_array_equal(other.warmup_positions[:n], base.warmup_positions[:n])
        for name, values in base.stats.items():
            np.testing.assert_array_equal(other.stats[name][:n], values[:n])
    assert len(np.unique(base.positions[:, 0, 0])) == 4
    assert not np.array_equal(run(engine, line(), seed=1).positions, base.positions)


def test_threads_do_not_matter(monkeypatch):
    base = run(ENGINE, line())
    monkeypatch.setattr("ppl.inference.mcmc.chains._threads", lambda: 1)
    np.testing.assert_array_equal(run(ENGINE, line()).positions, base.positions)


def test_new_data_of_equal_shape_do_not_compile():
    run(ENGINE, line())
    programs = (lanes.plain_block, lanes.compact_block, lanes.trial_lane)
    before = [p._cache_size() for p in programs]
    first = run(ENGINE, line(1))
    second = run(replace(ENGINE, chains=2, kernel=NUTS(max_depth=6, target_accept=0.9)), line(2), block=17)
    assert [p._cache_size() for p in programs] == before
    assert not np.array_equal(first.positions[:2], second.positions[:2])


def test_compact_and_plain_programs_agree():
    """The one-piece program gives the same draws up to rounding, over a few transitions."""
    engine, target = replace(ENGINE, warmup=0, draws=10, kernel=NUTS(0.05, max_depth=5)), line()
    carry = engine.start(0, target, np.array([1.0, 0.5, -1.0]))
    assert carry.refused == ""
    compact = engine.advance(carry, target, 5)[1]
    plain = engine.advance(replace(carry, refused="for comparison"), target, 5)[1]
    np.testing.assert_allclose(compact.positions, plain.positions, rtol=1e-6)
    np.testing.assert_array_equal(compact.stats["n_steps"], plain.stats["n_steps"])


def test_every_kernel_and_the_functions_of_densities_are_one_piece():
    """Names that another JAX gives to element-wise work must be known: the fallback is silent, and twice as slow."""

    def target(z):
        a, b = z
        rows = jnp.stack([jnp.tanh(z), jax.nn.softplus(z), jax.scipy.stats.norm.logcdf(z), jnp.tile(a, 2)])
        scan = jax.lax.scan(lambda c, x: (c * x, None), a, jnp.repeat(z, 2))[0]
        return -0.5 * jnp.sum(z**2) - 1e-3 * (jnp.sum(rows**2) + jnp.log2(1 + scan**2) + jax.lax.lgamma(1 + b**2))

    for kernel in (HMC(0.5, steps=3), NUTS(max_depth=3)):
        assert Chains(kernel, chains=1, warmup=20, draws=10).start(0, as_density(target, 2)).refused == ""


@pytest.mark.parametrize(
    "extra, reason",
    [
        (lambda z: jnp.sum(jnp.sort(z)), "sort"),
        (lambda z: jnp.sum(z[np.array([0, 0, 1])] ** 2), "scatter"),
        (lambda z: jnp.sum(jnp.linalg.cholesky(jnp.eye(2) * (1 + z[0] ** 2))), "cholesky"),
    ],
)
def test_what_cannot_be_one_piece_is_compiled_as_usual(extra, reason):
    target = as_density(lambda z: -0.5 * jnp.sum(z**2) - 1e-3 * extra(z) ** 2, 2)
    engine = Chains(HMC(0.5, steps=3), chains=1, warmup=20, draws=10)
    assert reason in engine.start(0, target).refused
    assert np.isfinite(run(engine, target).positions).all()


def test_data_that_the_compiler_drops_are_harmless():
    """An unused or cancelled argument of a one-piece program must not upset the compiler."""

    @dataclass(frozen=True)
    class Idle:
        used: np.ndarray
        cancelled: np.ndarray
        unused: np.ndarray
        dim: int = 2

        def __call__(self, z):
            return -0.5 * jnp.sum((z - self.used) ** 2) + jnp.sum(self.cancelled * 0).astype(z.dtype)

    jax.tree_util.register_dataclass(Idle, ["used", "cancelled", "unused"], ["dim"])
    target = Idle(np.ones(2), np.arange(5), np.ones(7))
    engine = Chains(NUTS(max_depth=4), chains=2, warmup=50, draws=50)
    assert engine.start(0, target).refused == ""
    assert abs(run(engine, target).positions.mean() - 1.0) < 0.8


@pytest.mark.parametrize("kernel", [NUTS(), NUTS(dense=True), HMC()], ids=["nuts", "dense", "hmc"])
def test_recovers_an_anisotropic_correlated_gaussian(kernel):
    """Means and covariance within 5 Monte Carlo errors (by effective sizes of at least 800), and a learned metric."""
    mean, scale = np.array([3.0, -1.0, 100.0]), np.array([0.01, 1.0, 30.0])
    rho = np.array([[1.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 1.0]])
    covariance = rho * np.outer(scale, scale)
    precision = np.linalg.inv(covariance)
    target = as_density(lambda z: -0.5 * (z - mean) @ precision @ (z - mean), 3)
    draws = run(Chains(kernel, warmup=600, draws=1000), target)
    z = (draws.positions.reshape(-1, 3) - mean) / scale
    assert np.all(np.abs(z.mean(0)) < 5 / np.sqrt(800))
    np.testing.assert_allclose(z.T @ z / len(z), rho, atol=5 * np.sqrt(2 / 800))
    assert 0.6 < draws.stats["acceptance_rate"].mean() < 0.97
    assert draws.stats["diverging"].sum() == 0
    assert np.all(np.ptp(draws.stats["step_size"], axis=1) == 0)  # frozen in sampling
    assert np.all(np.ptp(draws.warmup_stats["step_size"], axis=1) > 0)


def test_metric_is_learned_from_the_last_window():
    engine, target = replace(ENGINE, warmup=400), line()
    carry = engine.start(0, target)
    warm = []
    while carry.iteration < 400:
        carry, block, _ = engine.advance(carry, target, 90)
        warm.append(block.positions)
    window = np.concatenate(warm, 1)[2, 150:350]  # Stan's windows for 400: 75, 100, 150, 350, 400
    variance = 200 / 205 * window.var(0, ddof=1) + 1e-3 * 5 / 205
    np.testing.assert_allclose(carry.kernel.metric.scale[2] ** 2, variance, rtol=1e-10)


def test_pooled_metric_is_shared_and_announced():
    engine = replace(ENGINE, adapt=(StepSize(), Variance(pooled=True)))
    carry = engine.start(0, line())
    while carry.iteration < 160:
        carry, _, _ = engine.advance(carry, line(), 200)
    assert np.all(carry.kernel.metric.scale == carry.kernel.metric.scale[0])
    assert len(np.unique(carry.kernel.step_size)) == 4
    assert any("number of chains" in text for text in engine.plan(line()))
    assert not any("number of chains" in text for text in ENGINE.plan(line()))


def test_no_adapters_keep_the_kernel():
    engine = replace(ENGINE, adapt=(), warmup=30, kernel=NUTS(0.05, max_depth=5))
    draws = run(engine, line())
    assert np.all(draws.stats["step_size"] == 0.05) or np.all(draws.warmup_stats["step_size"] == 0.05)


def test_carry_holds_only_plain_data():
    def plain(value):
        if is_dataclass(value):
            return all(plain(getattr(value, name)) for name in value.__dataclass_fields__)
        if isinstance(value, dict):
            return all(isinstance(k, str) and plain(v) for k, v in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or isinstance(value, np.ndarray | float | int | str | bool)

    carry = ENGINE.start(0, line())
    assert plain(carry)
    carry, _, _ = ENGINE.advance(carry, line(), 100)
    assert plain(carry)
    json.dumps(carry.facts)
    json.dumps(carry.spec)


def test_advance_goes_on_after_the_plan():
    engine = replace(ENGINE, draws=5)
    carry, blocks = engine.start(0, line()), []
    for _ in range(4):
        carry, block, done = engine.advance(carry, line(), 100)
        blocks.append(block)
    assert done and [b.phase for b in blocks] == ["warmup", "warmup", "sampling", "sampling"]
    assert engine.finish(carry, blocks, line()).positions.shape == (4, 105, 3)


def test_starts_depend_on_seed_and_chain_and_are_redrawn_until_finite():
    """A density of which a sixteenth of U(-2, 2)^2 is admissible."""

    def corner(z):
        return jnp.where(jnp.all(z > 1.0), -0.5 * jnp.sum(z**2), -jnp.inf)

    target = as_density(corner, 2)
    four, eight = (replace(ENGINE, chains=n).start(3, target).state.position for n in (4, 8))
    assert np.all(eight > 1.0)
    np.testing.assert_array_equal(eight[:4], four)
    assert len(np.unique(eight)) == 16


def test_starts_fall_back_on_the_prior():
    @dataclass(frozen=True)
    class Far:
        dim: int = 2

        def __call__(self, z):
            return jnp.where(jnp.all(z > 50.0), -0.5 * jnp.sum((z - 60.0) ** 2), -jnp.inf)

        def prior(self, key):
            return 60.0 + jax.random.normal(key, (2,))

    jax.tree_util.register_dataclass(Far, [], ["dim"])
    assert np.all(ENGINE.start(0, Far()).state.position > 50.0)


def test_hopeless_start_says_so():
    target = as_density(lambda z: jnp.sum(z) * jnp.nan, 2)
    with pytest.raises(StartError, match="chain 0 tried"):
        ENGINE.start(0, target)
    with pytest.raises(StartError, match="init"):
        ENGINE.start(0, target, np.zeros(2))


def test_flat_density_is_called_improper():
    with pytest.raises(ValueError, match="improper"):
        ENGINE.start(0, as_density(lambda z: 0.0 * jnp.sum(z), 2))


def test_any_kernel_with_a_position_runs():
    @dataclass(frozen=True)
    class Walk:
        width: float = 1.0

        def init(self, position, density):
            return Place(position)

        def step(self, key, state, density):
            first, second = jax.random.split(key)
            new = state.position + self.width * jax.random.normal(first, state.position.shape)
            ratio = density(new) - density(state.position)
            take = jnp.log(jax.random.uniform(second)) < ratio
            return Place(jnp.where(take, new, state.position)), Moved(jnp.minimum(1.0, jnp.exp(ratio)))

    @dataclass(frozen=True)
    class Place:
        position: object

    @dataclass(frozen=True)
    class Moved:
        acceptance_rate: object

    for cls, names in ((Walk, ["width"]), (Place, ["position"]), (Moved, ["acceptance_rate"])):
        jax.tree_util.register_dataclass(cls, names, [])
    target = as_density(lambda z: -0.5 * jnp.sum((z - 2.0) ** 2), 1)
    draws = run(Chains(Walk(2.0), warmup=200, draws=2000), target)
    assert abs(draws.positions.mean() - 2.0) < 0.2
    assert set(draws.stats) == {"lp", "acceptance_rate"}


def test_single_precision_stays_single():
    with jax.enable_x64(False):
        draws = run(ENGINE, line())
    assert draws.positions.dtype == np.float32 and draws.stats["lp"].dtype == np.float32
    assert np.abs(draws.positions.mean((0, 1))[:2] - [1.0, 0.5]).max() < 0.3


@pytest.mark.parametrize("kernel", [NUTS(dense=True), HMC()], ids=["nuts", "hmc"])
def test_block_lowers_for_accelerators(kernel):
    engine, target = Chains(kernel, chains=4, lane=4), line()
    kernel = jax.tree.map(lambda x: np.broadcast_to(x, (4, *np.shape(x))), kernel.expand(3))
    state, _ = lanes.evaluate(kernel, np.zeros((4, 3)), target, 4)
    adapters = engine._adapters()
    memories = [jax.vmap(a.init)(kernel, state) for a in adapters]
    keys, span = np.zeros((4, 2), np.uint32), np.zeros(4, np.int32)
    shapes = jax.eval_shape(lanes._one_report, kernel, state, keys, target)
    buffers = {name: np.zeros((8, *s.shape), s.dtype) for name, s in shapes.items()}
    traced = lanes.plain_block.trace(buffers, adapters, kernel, memories, state, keys, target, span)
    text = traced.lower(lowering_platforms=("cuda", "tpu")).as_text()
    assert "stablehlo.while" in text and "custom_call" not in text.replace("@Sharding", "")
