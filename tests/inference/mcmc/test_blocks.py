"""Blocks of a flat vector: which coordinates move, what is refused, what is adapted, and what a run stores of it."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import checkpoint, infer
from ppl.inference.core import as_density
from ppl.inference.mcmc import HMC, NUTS, Block, Chains, Cycle, Gibbs, Mixture, RandomWalk, Stretch, composite, lanes
from ppl.inference.mcmc.coordinates import Conditional, Span, indices, selection

COVARIANCE = np.array([[1.0, 0.8, 0.1], [0.8, 1.0, 0.0], [0.1, 0.0, 4.0]])
PRECISION = np.linalg.inv(COVARIANCE)
TARGET = as_density(lambda z: -0.5 * z @ PRECISION @ z, 3)


@ppl.model
def schools(sigma):
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.LogNormal(0.0, 0.5))

    @ppl.plate("school", sigma)
    def _(s):
        theta = ppl.sample("theta", dist.Normal(mu, tau))
        ppl.sample("y", dist.Normal(theta, s))


SIGMA = np.array([15.0, 10.0, 16.0, 0.05])
PROGRAM = schools(SIGMA).condition(y=np.array([28.0, 8.0, -3.0, 7.0]))


@pytest.mark.parametrize(
    "names, chosen",
    [
        (slice(0, 2), [0, 1]),
        (slice(None, None, 2), [0, 2]),
        ([2, 0], [0, 2]),
        (np.array([1]), [1]),
        (1, [1]),
        (-1, [2]),
        (range(2), [0, 1]),
    ],
)
def test_only_the_chosen_coordinates_move(names, chosen):
    kernel = Block(names, RandomWalk(step_size=0.1))
    assert indices(kernel.names, TARGET, 3).tolist() == chosen
    start = jnp.array([0.3, -0.2, 1.0])

    @jax.jit
    def run(key):
        move = lambda i, state: kernel.step(jax.random.fold_in(key, i), state, TARGET)[0]  # noqa: E731
        return jax.lax.fori_loop(0, 5, move, kernel.init(start, TARGET))

    state = run(jax.random.key(0))
    assert np.flatnonzero(np.asarray(state.position != start)).tolist() == chosen
    np.testing.assert_allclose(state.log_density, TARGET(state.position), rtol=1e-12)


def test_a_conditional_is_the_density_along_its_coordinates():
    z = jnp.array([0.3, -0.2, 1.0, 2.0])
    density = as_density(lambda z: -jnp.sum(z**4) + z[0] * z[3], 4, finite=(3, 2))
    given = Conditional(density, z, (0, 3))
    assert (given.dim, given.continuous, given.finite) == (2, 1, (2,))
    x = jnp.array([5.0, 1.0])
    assert given.merge(x).tolist() == [5.0, -0.2, 1.0, 1.0] and given.start().tolist() == [0.3, 2.0]
    assert float(given(x)) == float(density(given.merge(x)))
    np.testing.assert_allclose(jax.grad(given)(x), jax.grad(density)(given.merge(x))[jnp.array([0, 3])])


@pytest.mark.parametrize("target", [TARGET, ppl.compile(PROGRAM)], ids=["function", "program"])
@pytest.mark.parametrize(
    "wrap", [lambda k: k, lambda k: Block(slice(None), k), lambda k: Cycle(k)], ids=["", "block", "cycle"]
)
def test_a_composite_of_one_kernel_is_that_kernel(target, wrap):
    """Its moves are those of the kernel from the same point with the key that it hands on."""
    kernel, z = HMC(0.3, steps=4), jnp.asarray(np.random.default_rng(0).normal(size=target.dim))
    key, whole = jax.random.key(3), wrap(HMC(0.3, steps=4))
    run = jax.jit(lambda kernel, key, target: kernel.step(key, kernel.init(z, target), target))
    new, info = run(whole, key, target)
    truth, report = run(kernel, jax.random.fold_in(key, 0) if isinstance(whole, Cycle) else key, target)
    np.testing.assert_allclose(new.position, truth.position, rtol=1e-12)
    np.testing.assert_allclose(new.log_density, truth.log_density, rtol=1e-9)
    np.testing.assert_allclose(info.acceptance_rate, report.acceptance_rate, rtol=1e-9)


def test_a_mixture_takes_its_parts_as_often_as_its_weights_say():
    kernel = Mixture([Block([i], RandomWalk(step_size=0.5)) for i in range(3)], weights=[2.0, 0.0, 6.0])
    start = kernel.init(jnp.zeros(3), TARGET)
    keys = jax.random.split(jax.random.key(0), 4000)
    states, infos = jax.jit(jax.vmap(lambda key: kernel.step(key, start, TARGET)))(keys)
    moved, used = np.asarray(states.position != 0.0), np.asarray(infos.used)
    assert np.all(moved.sum(1) <= 1) and np.all(moved <= used) and np.all(used.sum(1) == 1)
    assert abs(used[:, 0].mean() - 0.25) < 4.5 * np.sqrt(0.1875 / 4000) and not used[:, 1].any()
    with pytest.raises(ValueError, match="3 kernels and weights"):
        Mixture((HMC(), HMC(), HMC()), weights=(1.0, 2.0))
    with pytest.raises(ValueError, match="no part of Mixture updates 1"):
        composite.check(kernel, TARGET, 3)


# ---------------------------------------------------------------------------------------------- refusals


def start(kernel, target):
    return Chains(kernel, chains=1, warmup=0, draws=1).start(0, target)


@pytest.mark.parametrize(
    "kernel, message",
    [
        (Cycle(Block("mu", HMC()), Block("thetta", HMC())), "'thetta'.*Did you mean 'theta'.*mu, tau, theta"),
        (Cycle(Block("mu", HMC()), Block("theta", HMC())), "no part of Cycle updates tau"),
        (Block(["mu", "tau"], HMC()), "no part of Block updates theta: .*Block('theta'"),
        (Block(["mu", "tau", "theta"], Block([0, 1, 2], HMC())), "no part of Block updates theta"),
        (Cycle(Block(slice(0, 9), HMC()), Block([6], HMC())), "index 6 is out of range for a vector of 6"),
        (Cycle(HMC(), Block(slice(9, 12), HMC())), "holds no coordinate of a vector of 6"),
        (Cycle(HMC(), Block([0, -6], HMC())), "names a coordinate twice"),
        (Cycle(HMC(), Block("mu", HMC(), each="school")), "'mu' does not stand in a plate"),
    ],
)
def test_what_no_block_means_is_refused_before_anything_runs(kernel, message):
    with pytest.raises(ValueError) as caught:
        start(kernel, ppl.compile(PROGRAM))
    assert re.search(message.replace("(", r"\("), str(caught.value), re.DOTALL), str(caught.value)


def test_names_and_plates_need_a_density_that_has_them():
    with pytest.raises(ValueError, match="does not name its coordinates"):
        start(Cycle(HMC(), Block("mu", HMC())), TARGET)
    with pytest.raises(ValueError, match="knows its plates"):
        start(Cycle(HMC(), Block([0], HMC(), each="school")), TARGET)
    for wrong in ([0, 0], ["a", "a"], [], ()):
        with pytest.raises(ValueError, match="twice|at least one"):
            selection(wrong)
    for wrong in ([0.5], [True], ["a", 1], 1.5):
        with pytest.raises(TypeError, match="names, or indices, or a slice"):
            selection(wrong)
    assert hash(selection(slice(0, 3))) == hash(Span(0, 3))


def test_codes_of_finite_variables_need_a_kernel_for_codes():
    density = as_density(lambda z: -(z[0] ** 2) - z[1], 2, finite=(4,))
    for kernel in (HMC(), Cycle(RandomWalk(), Gibbs()), Cycle(Block([0, 1], HMC()), Gibbs())):
        with pytest.raises(ValueError, match="moves real coordinates.*last 1 are codes.*Gibbs"):
            composite.expanded(kernel, 2, density)
    composite.expanded(Cycle(Block([0], HMC()), Block([1], Gibbs())), 2, density)


def test_parts_are_kernels_of_one_position():
    with pytest.raises(ValueError, match="ensemble of walkers"):
        start(Cycle(HMC(), Stretch()), TARGET)
    with pytest.raises(TypeError, match=r"the class HMC: write HMC\(\)"):
        start(Cycle(Block([0, 1, 2], HMC)), TARGET)
    with pytest.raises(TypeError, match="a part is a kernel"):
        start(Cycle(HMC(), Chains(HMC())), TARGET)


# ---------------------------------------------------------------------------------------------- running


def warmed(kernel, target, warmup=600, chains=2):
    engine = Chains(kernel, chains=chains, warmup=warmup, draws=1)
    carry = engine.start(0, target)
    while carry.iteration < warmup:
        carry = engine.advance(carry, target, warmup)[0]
    return carry


def test_every_part_and_every_element_adapts_by_itself():
    density = ppl.compile(PROGRAM)
    kernel = Cycle(Block(["mu", "tau"], HMC(dense=True)), Block("theta", RandomWalk(), each="school"))
    carry = warmed(kernel, density)
    hmc, walk = (part.kernel for part in carry.kernel.kernels)
    assert hmc.metric.factor.shape == (2, 2, 2) and hmc.step_size.shape == (2,)
    assert walk.metric.scale.shape == (2, 4, 1) and walk.step_size.shape == (2, 4)
    reach = np.asarray(walk.step_size * walk.metric.scale[..., 0])
    assert np.all(reach[:, 3] < 0.3) and np.all(reach[:, :3] > 0.5)  # 2.4 times 0.05, and 2.4 times about one
    assert not np.allclose(walk.step_size[:, 0], walk.step_size[:, 1])


def test_a_part_that_rests_learns_nothing():
    kernel = Mixture((Block([0], RandomWalk(step_size=1.0)), Block([1, 2], HMC(0.1))), weights=(1.0, 0.0))
    kernel = composite.expanded(kernel, 3, TARGET)
    adapter = kernel.adapters()[2]
    assert adapter.part == 1
    state = kernel.init(jnp.ones(3), TARGET)
    memory = adapter.init(kernel, state)
    state, info = kernel.step(jax.random.key(0), state, TARGET)
    after, same = adapter.update(memory, kernel, state, info)
    assert float(after.count) == 0.0
    jax.tree.map(np.testing.assert_array_equal, same, kernel)


@pytest.fixture(scope="module")
def fit():
    kernel = Cycle(
        Block(["mu", "tau"], HMC()), Mixture((Block("theta", RandomWalk(), each="school"), NUTS(max_depth=3)))
    )
    return infer(PROGRAM, Chains(kernel, chains=2, warmup=200, draws=300), seed=2, progress=False)


def test_statistics_name_the_parts(fit):
    stats = fit.sample_stats
    assert {"acceptance_rate", "acceptance_rate_mu+tau", "step_size_mu+tau", "diverging", "n_steps"} <= set(stats)
    inner = "(theta,NUTS)"
    assert {f"acceptance_rate_{inner}", f"acceptance_rate_theta_{inner}", f"step_size_NUTS_{inner}"} <= set(stats)
    theirs = np.asarray(stats[f"acceptance_rate_theta_{inner}"])
    assert 0.3 < np.isnan(theirs).mean() < 0.7 and np.nanmax(theirs) <= 1.0
    assert not np.isnan(np.asarray(stats["acceptance_rate"])).any()
    density = ppl.compile(PROGRAM)
    assert stats["lp"].shape == (2, 300) and np.isfinite(np.asarray(stats["lp"])).all()
    assert "theta" in str(fit.summary()) and density.dim == 6


def test_draws_do_not_depend_on_blocks_of_work_and_survive_a_checkpoint(tmp_path):
    kernel = Cycle(Block([0, 1], HMC()), Mixture((Block([2], RandomWalk()), RandomWalk())))
    engine = Chains(kernel, chains=2, warmup=60, draws=30)

    def run(sizes, stored):
        carry, pieces, done = engine.start(4, TARGET), [], False
        while not done:
            carry, block, done = engine.advance(carry, TARGET, sizes)
            pieces.append(block.positions)
            if stored:
                checkpoint.write(tmp_path / "state", carry)
                carry = checkpoint.read(tmp_path / "state", checkpoint.classes_in(engine))
        return np.concatenate(pieces, axis=1)

    np.testing.assert_array_equal(run(90, False), run(17, True))


def test_a_block_of_iterations_lowers_for_accelerators():
    density = ppl.compile(PROGRAM)
    kernel = Cycle(Block(["mu", "tau"], HMC()), Mixture((Block("theta", RandomWalk(), each="school"), RandomWalk())))
    engine = Chains(kernel, chains=2, warmup=20, draws=5, lane=2)
    target = density
    full = jax.tree.map(
        lambda x: np.broadcast_to(np.asarray(x, float), (2, *np.shape(x))), composite.expanded(kernel, 6, target)
    )
    state = jax.eval_shape(jax.vmap(lambda k, z: k.init(z, target)), full, np.zeros((2, 6)))
    memories = [jax.eval_shape(jax.vmap(adapter.init), full, state) for adapter in engine._adapters()]
    keys, span = np.zeros((2, 2), np.uint32), np.array([0, 3, 1, 1], np.int32)
    shapes = jax.eval_shape(lanes._one_report, full, state, keys, target)
    buffers = {name: np.zeros((4, *s.shape), s.dtype) for name, s in shapes.items()}
    traced = lanes.plain_block.trace(buffers, engine._adapters(), full, memories, state, keys, target, span)
    text = traced.lower(lowering_platforms=("cuda", "tpu")).as_text()
    assert "stablehlo.while" in text and "f64[" not in text.replace("xf64", "")
    assert dataclasses.is_dataclass(kernel)
