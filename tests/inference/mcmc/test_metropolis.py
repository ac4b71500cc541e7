"""MALA, Barker, random walk, slice, elliptical slice and independence Metropolis: formulas, guards and real models.

That each leaves its target invariant is in test_battery.py, that wrong ones are noticed in test_kernel_mutations.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ppl
from ppl import dist
from ppl.inference import infer, laplace
from ppl.inference.core import as_density
from ppl.inference.diagnostics import ess_bulk
from ppl.inference.mcmc import (
    MALA,
    MAMS,
    MCLMC,
    Barker,
    Block,
    Chains,
    Cycle,
    EllipticalSlice,
    Independence,
    RandomWalk,
    Slice,
    StudentT,
    elliptical,
    lanes,
)
from ppl.inference.mcmc.chains import default_for
from ppl.inference.mcmc.euclidean import Dense, Diagonal
from ppl.inference.mcmc.metropolis import Point, decide, uniforms
from ppl.models import datasets
from ppl.models.eight_schools import eight_schools_noncentred

FACTOR = np.linalg.cholesky(np.diag([1.0, 4.0, 2.0]) + 0.5)
METRICS = [Diagonal(np.array([0.5, 2.0, 1.3])), Dense(FACTOR)]
PROPOSAL = StudentT(np.zeros(3), 1.5 * np.eye(3))
KERNELS = [
    MALA(),
    Barker(),
    RandomWalk(),
    Slice(),
    EllipticalSlice(0.0, 2.0),
    Independence(PROPOSAL),
    MAMS(),
    MCLMC(),
]
SOME = [pytest.param(k, marks=() if i in (1, 3, 4) else pytest.mark.slow) for i, k in enumerate(KERNELS)]


def name(kernel):
    return type(kernel).__name__


def log_density(z):
    """Asymmetric and not separable."""
    return -jnp.sum(jnp.exp(0.5 * z)) + jnp.sum(z) - 0.25 * (z[0] * z[1] - z[2]) ** 2


# ------------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("metric", METRICS, ids=["diagonal", "dense"])
def test_mala_ratio_is_that_of_the_normal_proposal_densities(metric):
    kernel, density = MALA(0.6, metric), as_density(log_density)
    factor = np.diag(metric.scale) if isinstance(metric, Diagonal) else metric.factor
    state, noise = kernel.init(jnp.array([0.3, -0.4, 0.8]), density), np.array([0.5, -1.0, 0.3])
    moved, ratio = jax.jit(kernel.trial)(noise, state, density)
    covariance = 0.36 * factor @ factor.T

    def q(here, there):
        return stats.multivariate_normal(here.position + 0.5 * covariance @ here.gradient, covariance).logpdf(
            there.position
        )

    expected = log_density(moved.position) - log_density(state.position) + q(moved, state) - q(state, moved)
    np.testing.assert_allclose(ratio, expected, rtol=1e-10)
    np.testing.assert_allclose(
        moved.position - state.position - 0.5 * covariance @ state.gradient, 0.6 * factor @ noise
    )


@pytest.mark.parametrize("width", [1.0, 0.1])
def test_barker_ratio_is_that_of_the_skewed_proposal_densities(width):
    metric, step = METRICS[1], 0.8
    kernel, density = Barker(step, metric, width), as_density(log_density)
    state, change = kernel.init(jnp.array([0.3, -0.4, 0.8]), density), np.array([0.7, -0.9, 0.75])
    moved, ratio = jax.jit(kernel.propose)(change, state, density)
    centre = step * np.sqrt(1 - width**2)

    def q(here, there):
        """The density of the increment: both noises that give it, each with the chance of its sign."""
        delta = np.linalg.solve(metric.factor, np.asarray(there.position - here.position))
        slope = metric.factor.T @ np.asarray(here.gradient)
        forwards = stats.norm(centre, step * width).pdf(delta) / (1 + np.exp(-delta * slope))
        backwards = stats.norm(centre, step * width).pdf(-delta) * (1 - 1 / (1 + np.exp(delta * slope)))
        return np.log(forwards + backwards).sum()

    expected = log_density(moved.position) - log_density(state.position) + q(moved, state) - q(state, moved)
    np.testing.assert_allclose(ratio, expected, rtol=1e-8)


def test_barker_goes_forwards_as_often_as_it_says():
    """Each coordinate's share of moves along the gradient, |z| < 4.5; nothing is rejected on a linear density."""
    slope = np.array([0.0, 1.0, -3.0])
    density, kernel = as_density(lambda z: slope @ z), Barker(0.5)
    state = kernel.init(jnp.zeros(3), density)
    keys = jax.random.split(jax.random.key(0), 40_000)
    moved, info = jax.jit(jax.vmap(lambda k: kernel.step(k, state, density)))(keys)
    np.testing.assert_allclose(info.acceptance_rate, np.minimum(1.0, info.acceptance_rate))
    change = 0.5 * np.random.default_rng(0).normal(size=400_000)[:, None]
    # P(the proposal goes up in coordinate i) = E[1 / (1 + exp(-|w| c))], and acceptance is one where q is symmetric
    share = (1 / (1 + np.exp(-np.abs(change) * slope))).mean(0)
    up = np.asarray(moved.position > 0)[np.asarray(moved.position != 0).all(1)]
    assert abs(up[:, 0].mean() - share[0]) < 4.5 * 0.5 / np.sqrt(len(up))
    assert up[:, 1].mean() > 0.5 > up[:, 2].mean()


def test_uniforms_are_uniform_and_independent():
    u = np.asarray(jax.jit(jax.vmap(lambda k: uniforms(k, jnp.zeros(5))))(jax.random.split(jax.random.key(1), 20_000)))
    assert np.all(u > 0) and np.all(u <= 1)
    assert min(stats.kstest(column, "uniform").pvalue for column in u.T) > 1e-5
    assert np.abs(np.corrcoef(u.T)[np.triu_indices(5, 1)]).max() < 4.5 / np.sqrt(len(u))


@pytest.mark.parametrize("bad", [jnp.nan, -jnp.inf, jnp.inf])
def test_what_is_not_finite_is_rejected(bad):
    state, proposed = Point(jnp.zeros(2), jnp.array(0.0)), Point(jnp.ones(2), jnp.array(bad))
    new, info = decide(jnp.array(1e-6), proposed.log_density - state.log_density, proposed, state)
    assert float(info.acceptance_rate) == 0.0 and float(new.position[0]) == 0.0


@pytest.mark.parametrize("kernel", SOME, ids=name)
def test_no_kernel_leaves_the_support(kernel):
    """NaN beyond one: the states of many short chains stay finite and inside, and most of them move."""
    density = as_density(lambda z: jnp.where(jnp.all(z < 1), -0.5 * jnp.sum(z**2), jnp.nan), 3)
    kernel = kernel.expand(3) if hasattr(kernel, "expand") else kernel

    @jax.jit
    @jax.vmap
    def run(key):
        state = kernel.init(jnp.full(3, 0.9), density)
        step = lambda i, s: kernel.step(jax.random.fold_in(key, i), s, density)[0]  # noqa: E731
        return jax.lax.fori_loop(0, 20, step, state)

    state = run(jax.random.split(jax.random.key(0), 200))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert np.all(state.position < 1) and np.mean(np.all(state.position != 0.9, axis=1)) > 0.5


def test_slice_counts_every_evaluation_and_always_moves():
    kernel, density = Slice(width=0.3, lines=2), as_density(lambda z: -0.5 * jnp.sum(z**2))
    state = kernel.init(jnp.ones(4), density)
    new, info = jax.jit(jax.vmap(lambda k: kernel.step(k, state, density)))(jax.random.split(jax.random.key(0), 500))
    assert np.all(info.acceptance_rate == 1) and np.all(np.any(new.position != 1, axis=1))
    assert info.n_steps.min() >= 2 * 3 and info.n_steps.mean() > 2 * 6  # narrow: it steps out


# ------------------------------------------------------------------------------------------- adaptation and models


def test_default_adapters_and_targets():
    names = {name(k): [type(a).__name__ for a in default_for(k)] for k in KERNELS}
    assert names["RandomWalk"] == ["StepSize", "Variance"] and names["Slice"] == ["Variance"]
    assert names["MALA"] == names["Barker"] == ["StepSize", "GradientVariance"]
    assert names["EllipticalSlice"] == names["Independence"] == []
    assert (RandomWalk().expand(1).target_accept, RandomWalk().expand(3).target_accept) == (0.44, 0.234)


def run_chains(kernel, target, warmup=1000, draws=1000, seed=0):
    return infer(target, Chains(kernel, warmup=warmup, draws=draws), seed=seed, progress=False)


def z_scores(fit, mean):
    z = fit.draws.positions
    return (z.mean((0, 1)) - mean) / (z.std((0, 1)) / np.sqrt(ess_bulk(z)))


@ppl.model
def dose_response(x):
    a = ppl.sample("a", dist.Normal(1.0, 2.0))
    b = ppl.sample("b", dist.Normal(0.0, 2.0))

    @ppl.plate("row", x)
    def _(x):
        ppl.sample("y", dist.Bernoulli(logits=a + b * x))


X = np.linspace(-1.0, 3.0, 15)
DOSE = dose_response(X).condition(y=(X > 0.7).astype(int) ^ (np.arange(15) % 6 == 0))


def quadrature(density):
    """Means of a two-dimensional density by the trapezoidal rule."""
    a, b = np.linspace(-8, 8, 401), np.linspace(-6, 10, 401)
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2)
    value = np.asarray(jax.jit(jax.vmap(density))(grid))
    weight = np.exp(value - value.max())
    return weight @ grid / weight.sum()


@pytest.mark.parametrize(
    "kernel",
    [
        RandomWalk(),
        EllipticalSlice(np.array([1.0, 0.0]), 2.0),
        *(pytest.param(k, marks=pytest.mark.slow) for k in (RandomWalk(dense=True), Slice())),
    ],
    ids=name,
)
def test_logistic_regression_against_quadrature(kernel):
    """Means from U(-2, 2) starts, |z| < 4."""
    fit = run_chains(kernel, DOSE, draws=2000)
    assert np.all(np.abs(z_scores(fit, quadrature(ppl.compile(DOSE)))) < 4)
    assert ess_bulk(fit.draws.positions).min() > 300
    if isinstance(kernel, RandomWalk):
        assert 0.12 < fit.draws.stats["acceptance_rate"].mean() < 0.35


@pytest.mark.slow
def test_independence_from_a_laplace_approximation():
    """Means |z| < 4, with heavier tails than the Gaussian's; and the Gaussian itself as the proposal."""
    approximation, exact = laplace(DOSE), quadrature(ppl.compile(DOSE))
    for proposal in (StudentT.of(approximation), approximation):
        fit = run_chains(Independence(proposal), DOSE, warmup=50)
        assert np.all(np.abs(z_scores(fit, exact)) < 4)
        assert fit.draws.stats["acceptance_rate"].mean() > 0.5


def schools_means():
    """Posterior means of mu and log tau, the effects integrated out, by quadrature over (mu, log tau)."""
    data = datasets.load("eight_schools")
    y, s = data["effect"][:, None, None], data["standard_error"][:, None, None]
    mu, t = np.meshgrid(np.linspace(-20, 30, 501), np.linspace(-12, 6, 901), indexing="ij")
    tau = np.exp(t)
    value = stats.norm.logpdf(mu, 0, 5) + stats.halfcauchy.logpdf(tau, 0, 5) + t
    value += stats.norm.logpdf(y, mu, np.sqrt(s**2 + tau**2)).sum(0)
    weight = np.exp(value - value.max())
    return np.array([(weight * mu).sum(), (weight * t).sum()]) / weight.sum()


@pytest.mark.parametrize(
    "kernel", [Barker(), *(pytest.param(k, marks=pytest.mark.slow) for k in (MALA(), MAMS(), Slice()))], ids=name
)
def test_eight_schools_against_quadrature(kernel):
    """Means of mu and log tau from U(-2, 2) starts, |z| < 4."""
    data = datasets.load("eight_schools")
    program = eight_schools_noncentred(data["standard_error"]).condition(y=data["effect"])
    fit = run_chains(kernel, program, draws=2000)
    assert np.all(np.abs(z_scores(fit, np.pad(schools_means(), (0, 8)))[:2]) < 4)
    assert ess_bulk(fit.draws.positions)[:2].min() > 100


@pytest.mark.parametrize(
    "kernel",
    [RandomWalk(), *(pytest.param(k, marks=pytest.mark.slow) for k in (Slice(), EllipticalSlice(0.0, 2.0)))],
    ids=name,
)
def test_densities_without_gradient(kernel):
    """A likelihood outside of JAX without a derivative; the posterior is normal, |z| < 4."""

    @ppl.model
    def model(y):
        theta = ppl.sample("theta", dist.Normal(0.0, 2.0))
        ppl.factor("like", ppl.external("like", lambda t, y: -0.5 * ((y - t) ** 2).sum(), theta, y))

    program = model(np.array([1.0, 2.5]))
    with pytest.raises(ppl.ModelError, match="gradient"):
        infer(program, MALA(), progress=False)
    fit = infer(program, Chains(kernel, chains=4, warmup=150, draws=250), progress=False)
    assert abs(z_scores(fit, 3.5 / 2.25)[0]) < 4


# ------------------------------------------------------------------------------------------- elliptical slices


def test_gaussian_prior_is_read_from_the_density():
    @ppl.model
    def field(n):
        level = ppl.sample("level", dist.Normal(0.0, 2.0))
        f = ppl.sample("f", dist.Normal(level * jnp.ones(n), 0.5).to_event(1))
        ppl.sample("y", dist.Poisson(jnp.exp(f)).to_event(1))

    density = ppl.compile(field(3).condition(y=np.array([1, 4, 2])))
    for level in (-1.0, 2.5):
        z = jnp.array([level, 0.1, 0.2, 0.3])
        mean, factor = jax.jit(lambda d, z: elliptical.gaussian_prior(d.restrict("f", z)))(density, z)
        np.testing.assert_allclose(mean, level, atol=1e-8)
        np.testing.assert_allclose(factor, 0.5 * np.eye(3), atol=1e-8)
    mean, factor = jax.jit(elliptical.gaussian_prior)(density)
    joint = 4.0 * np.ones((4, 4)) + np.pad(0.25 * np.eye(3), ((1, 0), (1, 0)))
    np.testing.assert_allclose(factor @ factor.T, joint, atol=1e-8)
    np.testing.assert_array_equal(factor, np.tril(factor))
    with pytest.raises(TypeError, match="mean="):
        elliptical.gaussian_prior(as_density(log_density, 3))


@ppl.model
def nested():
    mu = ppl.sample("mu", dist.Normal(2.0, 3.0))
    x = ppl.sample("x", dist.Normal(mu, 1.0))
    ppl.sample("y", dist.Normal(x, 0.5))


def held_mean(density):
    """The prior mean of x is the value of mu that the conditional holds."""
    return density.position[:1], 1.0


@pytest.mark.parametrize(
    "prior",
    [elliptical.gaussian_prior, *(pytest.param(p, marks=pytest.mark.slow) for p in (held_mean, None))],
    ids=["read", "given", "stale"],
)
def test_prior_that_depends_on_another_site_is_never_stale(prior):
    """x | mu ~ N(mu, 1) with mu moved by another block: means and variances of both, |z| < 4 (Turing.jl, issue 2873).

    With the density divided by the Gaussian even a Gaussian that belongs to no state of mu is harmless.
    """
    inner = EllipticalSlice(prior=prior) if prior else EllipticalSlice(mean=-1.0, factor=2.0)
    kernel = Cycle(Block("mu", Slice()), Block("x", inner))
    fit = run_chains(kernel, nested().condition(y=4.0), warmup=100, draws=2000)
    precision = np.array([[1 / 9 + 1, -1.0], [-1.0, 1 + 4]])
    covariance = np.linalg.inv(precision)
    assert np.all(np.abs(z_scores(fit, covariance @ np.array([2 / 9, 16.0]))) < 4)
    np.testing.assert_allclose(fit.draws.positions.std((0, 1)), np.sqrt(np.diag(covariance)), rtol=0.1)


def test_separate_likelihood_is_the_same_kernel():
    likelihood = lambda z: -jnp.sum(jnp.abs(z - 1.0))  # noqa: E731
    mean, factor = np.array([0.5, -0.5]), np.array([[1.0, 0.0], [0.7, 0.4]])

    def joint(z):
        return likelihood(z) - 0.5 * jnp.sum(jnp.linalg.solve(factor, z - mean) ** 2)

    density, key = as_density(joint), jax.random.key(4)
    ends = []
    for kernel in (EllipticalSlice(mean, factor), EllipticalSlice(mean, factor, likelihood=likelihood)):
        ends.append(jax.jit(kernel.step)(key, kernel.init(jnp.zeros(2), density), density)[0].position)
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-12)


def test_proposals_without_a_density_are_refused():
    class Half:
        def sample(self, key):
            return jnp.zeros(2)

    with pytest.raises(TypeError, match="no log_prob"):
        Independence(Half()).init(jnp.zeros(2), as_density(log_density))


def test_student_t_draws_have_its_law():
    """Kolmogorov-Smirnov of a coordinate and of the distance, false alarm 1e-5 each."""
    proposal = StudentT(np.array([1.0, -2.0]), np.array([[2.0, 0.0], [1.0, 0.5]]), 4.0)
    z = np.asarray(jax.jit(jax.vmap(proposal.sample))(jax.random.split(jax.random.key(0), 20_000)))
    assert stats.kstest((z[:, 0] - 1.0) / 2.0, stats.t(4).cdf).pvalue > 1e-5
    white = np.linalg.solve(proposal.factor, (z - proposal.mean).T)
    assert stats.kstest((white**2).sum(0) / 2, stats.f(2, 4).cdf).pvalue > 1e-5


# ------------------------------------------------------------------------------------------- compilation


@pytest.mark.parametrize("kernel", SOME, ids=name)
def test_kernels_are_one_piece_or_refused_cleanly(kernel):
    reason = Chains(kernel, chains=1, warmup=30, draws=10).start(0, as_density(log_density, 3)).refused
    # A proposal samples and scores by whatever library calls it likes.
    assert (reason == "") == (name(kernel) != "Independence"), reason


@pytest.mark.parametrize("kernel", KERNELS, ids=name)
def test_block_lowers_for_accelerators(kernel):
    engine, target = Chains(kernel, chains=2, lane=2), as_density(log_density, 3)
    kernel = kernel.expand(3) if hasattr(kernel, "expand") else kernel
    kernel = jax.tree.map(lambda x: np.broadcast_to(x, (2, *np.shape(x))), kernel)
    state = jax.eval_shape(lanes.init_lane, kernel, np.zeros((2, 3)), target)
    adapters = engine._adapters()
    memories = [jax.eval_shape(jax.vmap(a.init), kernel, state) for a in adapters]
    keys, span = np.zeros((2, 2), np.uint32), np.zeros(4, np.int32)
    shapes = jax.eval_shape(lanes._one_report, kernel, state, keys, target)
    buffers = {name: np.zeros((8, *s.shape), s.dtype) for name, s in shapes.items()}
    traced = lanes.plain_block.trace(buffers, adapters, kernel, memories, state, keys, target, span)
    assert "stablehlo.while" in traced.lower(lowering_platforms=("cuda", "tpu")).as_text()
