"""Parallel tempering: evidences against closed forms, modes and their weights, the ladder, resumption.

Statistical tests are seeded; |z| < 4 for evidences (standard errors are estimated, so about 2e-4 each).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import ppl
from ppl import dist
from ppl.inference import infer, mcmc
from ppl.inference.adapt import ladder
from ppl.inference.core import as_density
from ppl.inference.mcmc import tempering, tempering_block

SIDE = np.arange(5.0) * 4 - 8
MEANS = np.stack(np.meshgrid(SIDE, SIDE), -1).reshape(-1, 2)
WEIGHTS = np.random.default_rng(0).dirichlet(3 * np.ones(25))


def run(engine, target, seed=0, n=500):
    """Drive an engine to its end, in double precision."""
    with jax.enable_x64(True):
        carry, blocks, done = engine.start(seed, target), [], False
        while not done:
            carry, block, done = engine.advance(carry, target, n)
            blocks.append(block)
        return engine.finish(carry, blocks, target)


def grid(z):
    """Twenty-five narrow modes of unequal weight; the log of its integral is 1.7."""
    kernels = -0.5 * jnp.sum((z - MEANS) ** 2, -1) / 0.3**2
    return jax.scipy.special.logsumexp(jnp.log(WEIGHTS) + kernels) - np.log(2 * np.pi * 0.09) + 1.7


def wide(scale, dim=2):
    return mcmc.GaussianProposal(np.zeros(dim), scale * np.eye(dim))


@pytest.fixture(scope="module")
def modes():
    engine = mcmc.Tempering(reference=wide(7.0), copies=2, warmup=500, draws=4000)
    return run(engine, as_density(grid, 2))


def test_it_visits_all_of_twenty_five_modes_with_their_weights(modes):
    near = ((modes.positions[..., None, :] - MEANS) ** 2).sum(-1).argmin(-1)
    for chain in near:
        assert len(np.unique(chain)) == 25
    share = np.bincount(near.ravel(), minlength=25) / near.size
    tours = sum(modes.info["tours"])  # each is an independent draw of a mode, nearly
    z = (share - WEIGHTS) / np.sqrt(WEIGHTS * (1 - WEIGHTS) / tours)
    assert np.abs(z).max() < 4.5, z  # 25 of them


def test_nuts_does_not_visit_them():
    engine = mcmc.Chains(mcmc.NUTS(), chains=2, warmup=300, draws=700)
    near = ((run(engine, as_density(grid, 2)).positions[..., None, :] - MEANS) ** 2).sum(-1).argmin(-1)
    assert max(len(np.unique(chain)) for chain in near) < 15


def test_evidence_of_twenty_five_modes(modes):
    assert abs(modes.info["log_evidence"] - 1.7) < 4 * modes.info["log_evidence_se"]
    assert modes.info["log_evidence_se"] < 0.1


@ppl.model
def coin():
    p = ppl.sample("p", dist.Beta(0.7, 3.0))
    ppl.sample("y", dist.Binomial(30, p))


@ppl.model
def line(x):
    b = ppl.sample("b", dist.Normal(0.0, 3.0).expand([3]))
    ppl.sample("y", dist.Normal(x @ b, 0.5).to_event(1))


@ppl.model
def counts(n):
    rate = ppl.sample("rate", dist.Gamma(2.0, 0.5))
    ppl.plate("i", lambda _: ppl.sample("y", dist.Poisson(rate)), n)


def _coin():
    exact = stats.betabinom.logpmf(24, 30, 0.7, 3.0)
    return coin().condition(y=24), exact


def _line():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(40, 3))
    y = x @ np.array([1.0, -2.0, 0.5]) + 0.5 * rng.normal(size=40)
    exact = stats.multivariate_normal.logpdf(y, np.zeros(40), 9.0 * x @ x.T + 0.25 * np.eye(40))
    return line(x).condition(y=y), exact


def _counts():
    y = np.array([3, 0, 5, 2, 2, 9, 1])
    a, b = 2.0, 0.5
    exact = a * np.log(b) - special.gammaln(a) + special.gammaln(a + y.sum()) - special.gammaln(y + 1).sum()
    return counts(7).condition(y=y), exact - (a + y.sum()) * np.log(b + 7)


@pytest.mark.parametrize("case", [_coin, _line, _counts])
def test_evidence_of_conjugate_models(case):
    program, exact = case()
    fit = infer(program, mcmc.Tempering(warmup=250, draws=800, copies=2), seed=1)
    assert abs(fit.log_evidence - exact) < 4 * fit.log_evidence_se
    assert fit.log_evidence_se < 0.2


def test_evidence_of_a_heavy_skewed_density():
    """Log-gamma in one direction, Student in the other; no gradient in the kernel."""
    def density(z):
        return 0.7 * z[0] - 2.0 * jnp.exp(z[0]) - 2.5 * jnp.log1p(z[1] ** 2 / 4)

    exact = special.gammaln(0.7) - 0.7 * np.log(2.0) - stats.t(4).logpdf(0.0)
    engine = mcmc.Tempering(mcmc.RandomWalk(), wide(4.0), copies=2, warmup=500, draws=4000)
    info = run(engine, as_density(density, 2)).info
    assert abs(info["log_evidence"] - exact) < 4 * info["log_evidence_se"]
    assert info["log_evidence_se"] < 0.15


@pytest.mark.slow
def test_standard_errors_of_evidences_are_calibrated():
    target, engine = as_density(grid, 2), mcmc.Tempering(reference=wide(7.0), copies=2, warmup=250, draws=1000)
    infos = [run(engine, target, seed).info for seed in range(40)]
    z = np.array([(i["log_evidence"] - 1.7) / i["log_evidence_se"] for i in infos])
    assert abs(z.mean()) < 4 / np.sqrt(40) * 1.2
    assert stats.chi2.ppf(1e-4, 40) * 0.7 < (z**2).sum() < stats.chi2.ppf(1 - 1e-4, 40) * 1.4


def test_draws_do_not_depend_on_the_size_of_blocks():
    target, engine = as_density(grid, 2), mcmc.Tempering(reference=wide(7.0), copies=2, warmup=100, draws=150)
    one, other = run(engine, target, 3, 1000), run(engine, target, 3, 37)
    assert np.array_equal(one.positions, other.positions)
    assert one.info["log_evidence"] == other.info["log_evidence"]


def test_swaps_keep_the_joint_law():
    """Exact draws of each rung, swapped, are exact draws again; the two kinds of pairs differ by parity."""
    betas, rng = np.array([0.2, 0.5, 1.0]), np.random.default_rng(4)
    z = rng.normal(size=(40_000, 3)) / np.sqrt(betas)
    value = -0.5 * z**2

    def one(key, z, v):
        return tempering_block.swapped(key, z[:, None], v, betas, jnp.uint32(0))

    keys = jax.random.split(jax.random.key(0), len(z))
    moved, order = jax.vmap(one)(keys, z, value)
    moved = np.asarray(moved)[..., 0]
    assert 0.2 < np.mean(np.asarray(order)[:, 0] == 1) < 0.9
    assert np.all(np.asarray(order)[:, 2] == 2)
    for rung, beta in enumerate(betas):
        assert stats.kstest(moved[:, rung] * np.sqrt(beta), "norm").pvalue > 1e-4
    assert abs(np.corrcoef(moved.T)[0, 1]) < 4 / np.sqrt(len(z))


def test_rungs_are_placed_at_equal_rejection():
    betas = np.array([0.0, 0.1, 0.3, 1.0])
    new = ladder.placed(betas, np.array([0.3, 0.3, 0.6]), 5)
    assert np.allclose(new, [0, 0.1, 0.3, 0.65, 1.0])


def test_the_bridge_is_exact_for_gaussians():
    """Ratios of normalising constants of N(0, 1/b): half the difference of log b; |z| < 4."""
    betas, rng = np.array([0.25, 1.0]), np.random.default_rng(5)
    values = -0.5 * (rng.normal(size=(200_000, 2)) / np.sqrt(betas)) ** 2
    centres = ladder.centre(values[:1000], betas)
    terms = ladder.bridge_terms(values, betas, centres)
    found = ladder.log_ratios(terms.mean(0), centres)[0]
    rest = terms[..., 0] / terms[..., 0].mean() - terms[..., 1] / terms[..., 1].mean()
    assert abs(found + np.log(2.0)) < 4 * rest.std() / np.sqrt(len(values))


def test_a_region_without_mass_is_no_nan():
    """The target is zero on one side of a wall, where its likelihood is -inf."""
    def density(z):
        return jnp.where(z[0] > 0.5, -0.5 * z[0] ** 2, -jnp.inf)

    engine = mcmc.Tempering(mcmc.RandomWalk(), wide(2.0, 1), copies=2, warmup=300, draws=4000)
    draws = run(engine, as_density(density, 1))
    exact = stats.norm.logsf(0.5) + 0.5 * np.log(2 * np.pi)
    assert (draws.positions > 0.5).all()
    assert abs(draws.info["log_evidence"] - exact) < 4 * draws.info["log_evidence_se"]


def test_a_plain_density_needs_a_reference():
    with pytest.raises(TypeError, match="reference to temper from"):
        mcmc.Tempering().start(0, as_density(grid, 2))


def test_few_tours_are_reported():
    carry = mcmc.Tempering(reference=wide(7.0), copies=2).start(0, as_density(grid, 2))
    assert "travelled" in tempering._advice(carry)[0]


def test_blocks_lower_for_cuda_and_tpu():
    target, engine = as_density(grid, 2), mcmc.Tempering(reference=wide(7.0), copies=2)
    carry = engine.start(0, target)
    args = (
        {n: np.zeros((4, 2, *s[1:]), s[0]) for n, s in carry.spec.items()}, engine._adapters(), carry.kernel,
        carry.memories, carry.positions, carry.betas.astype(carry.positions.dtype), np.zeros((2, 2), np.uint32),
        engine._ends(target), np.array([0, 4, 1], np.int32),
    )  # fmt: skip
    for platform in ("cuda", "tpu"):
        assert tempering_block.block.trace(*args).lower(lowering_platforms=(platform,)).as_text()
