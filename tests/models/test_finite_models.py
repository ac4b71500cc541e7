"""Models with finite latent sites: their densities against enumeration and against formulas, and their posteriors."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import ppl
from benchmarks.posteriordb import pack
from benchmarks.posteriordb.programs import latent
from ppl import dist
from ppl.inference import diagnostics, infer, mcmc
from ppl.models.capture_recapture import closed_population, cormack_jolly_seber
from ppl.models.dawid_skene import dawid_skene
from ppl.models.hidden_markov import hidden_markov
from tests.oracles.finite import enumerated

pytestmark = pytest.mark.standard_promotion
GIBBS = {
    "hidden Markov": lambda: hidden_markov(12, 2, 0.0, 1.0).condition(y=np.repeat([-1.2, 1.0, -0.9], 4)),
    "closed population": lambda: closed_population(12, 5).condition(y=np.array([2, 1, 4, 1, 1, 3, 0, 0, 0, 0, 0, 0])),
}
RNG = np.random.default_rng(9)
ITEM, ANNOTATOR = np.array([0, 0, 0, 1, 1, 2, 3, 3]), np.array([0, 1, 2, 0, 2, 1, 0, 1])
PROGRAMS = {
    "hidden Markov": lambda: hidden_markov(5, 3, 0.0, 1.0).condition(y=RNG.normal(size=5)),
    "closed population": lambda: closed_population(6, 4).condition(y=np.array([2, 1, 4, 0, 0, 0])),
    "Cormack-Jolly-Seber": lambda: cormack_jolly_seber(np.array([0, 1, 2]), 4).condition(
        y=np.array([[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    ),
    "Dawid-Skene": lambda: dawid_skene(ITEM, ANNOTATOR, 4, 3, 2).condition(y=np.array([0, 0, 1, 1, 1, 0, 1, 0])),
}


SOON = ("Cormack-Jolly-Seber", "Dawid-Skene")


@pytest.mark.parametrize("name", [n if n in SOON else pytest.param(n, marks=pytest.mark.slow) for n in PROGRAMS])
def test_density_gradient_and_probabilities_are_those_of_enumeration(name):
    program = PROGRAMS[name]()
    density = ppl.compile(program)
    z = np.random.default_rng(1).normal(size=density.dim)
    value, gradient = jax.jit(lambda d, z: jax.value_and_grad(lambda z: d(z))(z))(density, z)
    expected, slope, codes, terms = enumerated(program, z)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    np.testing.assert_allclose(gradient, slope, rtol=1e-10, atol=1e-10)
    weights = np.exp(terms - np.logaddexp.reduce(terms))
    (site,) = density.compiled.summed
    count = density.compiled.sites[site].states[1]
    one_hot = np.eye(count)[codes.astype(int)].reshape(-1, *density.compiled.summed[site].shape, count)
    table = density.probabilities(z)[site]
    np.testing.assert_allclose(table, np.tensordot(weights, one_hot, 1), rtol=1e-10, atol=1e-12)


def test_survival_is_scored_by_the_chance_of_never_being_seen_again():
    # Animal seen last at l of T: phi^(l-f) x captures x chi(l), chi(T) = 1, chi(t) = 1 - phi + phi (1 - p) chi(t+1).
    first, y = np.array([0, 1]), np.array([[0, 1, 0, 0], [0, 0, 0, 0]])
    density = ppl.compile(cormack_jolly_seber(first, 4).condition(y=y))
    phi, p = 0.7, 0.4
    z = density.unconstrain({"phi": phi, "p": p})
    chi = [1.0]
    for _ in range(3):
        chi.insert(0, 1 - phi + phi * (1 - p) * chi[0])
    expected = np.log(phi * p * chi[1]) + np.log(chi[1]) + np.log(phi * (1 - phi)) + np.log(p * (1 - p))
    np.testing.assert_allclose(density(z), expected, rtol=1e-8)


def test_a_closed_population_is_scored_by_zero_inflated_binomials():
    y = np.array([2, 1, 4, 0, 0, 0])
    density = ppl.compile(closed_population(6, 4).condition(y=y))
    psi, p = 0.6, 0.3
    z = density.unconstrain({"psi": psi, "p": p})
    zero = (y == 0) * (1 - psi)
    expected = np.log(psi * stats.binom.pmf(y, 4, p) + zero).sum() + np.log(psi * (1 - psi) * p * (1 - p))
    np.testing.assert_allclose(density(z), expected, rtol=1e-8)


def test_the_hidden_chain_is_scored_by_the_forward_recursion():
    y = RNG.normal(size=7)
    density = ppl.compile(hidden_markov(7, 2, 0.0, 1.0).condition(y=y))
    values = {"P": np.array([[0.8, 0.2], [0.3, 0.7]]), "low": -1.0, "gap": np.array([2.0]), "sigma": 0.8}
    z = density.unconstrain(values)
    emission = stats.norm.logpdf(y[:, None], [-1.0, 1.0], 0.8)
    alpha = np.log(0.5) + emission[0]
    for row in emission[1:]:
        alpha = row + special.logsumexp(alpha[:, None] + np.log(values["P"]), axis=0)
    part = density.split()[0](z)
    np.testing.assert_allclose(density(z) - part, special.logsumexp(alpha), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*GIBBS, "Cormack-Jolly-Seber", "Dawid-Skene"])
def test_the_summed_posterior_is_that_of_gibbs_steps_on_the_unsummed_model(name):
    # |z| < 4.5 for at most 40 means a model, standard errors by batch means of both: false alarm below 1e-3.
    program = {**PROGRAMS, **GIBBS}[name]()
    density = ppl.compile(program)
    (site,) = density.compiled.summed
    real = tuple(density.layout)
    summed = infer(program, mcmc.PooledHMC(chains=8, draws=1000, max_draws=1000), seed=3, progress=False)
    kernel = mcmc.Cycle(mcmc.Block(site, mcmc.Gibbs()), mcmc.Block(real, mcmc.HMC()))
    gibbs = infer(program, mcmc.Chains(kernel, chains=8, warmup=500, draws=4000), seed=4, progress=False)
    assert gibbs.density.finite and not summed.density.finite
    for label, ours, theirs in [
        *((n, summed.values[n], gibbs.values[n]) for n in real),
        (site, summed.values[site], gibbs.values[site]),
        (f"{site} by probabilities", summed.probabilities(site, draws=True)[..., 1], gibbs.values[site] == 1),
    ]:
        x, y = (np.asarray(v, float).reshape(*v.shape[:2], -1) for v in (ours, theirs))
        spread = np.concatenate([x.reshape(-1, x.shape[2]), y.reshape(-1, y.shape[2])]).std(0)
        error = np.hypot(*(np.nan_to_num(diagnostics.mcse_mean(v)) for v in (x, y))) + 1e-3 * spread + 1e-9
        z = (x.mean((0, 1)) - y.mean((0, 1))) / error
        assert np.abs(z).max() < 4.5, (label, z)


@ppl.model
def two_states(steps):
    """The posterior hmm_example of posteriordb with its states as sites; their first one is uniform."""
    theta1 = ppl.sample("theta1", dist.Dirichlet(jnp.ones(2)))
    theta2 = ppl.sample("theta2", dist.Dirichlet(jnp.ones(2)))
    mu = ppl.sample("mu", dist.flat(dist.constraints.positive_ordered_vector, (2,)))
    ppl.factor("mu_prior", dist.Normal(jnp.array([3.0, 10.0]), 1.0).log_prob(mu).sum())
    rows = jnp.stack([theta1, theta2, jnp.full(2, 0.5)])

    def step(z, _):
        z = ppl.sample("z", dist.Categorical(rows[z]))
        ppl.sample("y", dist.Normal(mu[z], 1.0))
        return z

    ppl.markov("time", step, init=2, xs=steps)


def test_states_as_sites_have_the_density_of_a_recursion_written_by_hand():
    y = np.random.default_rng(6).normal(np.repeat([3.0, 9.0], 20), 1.0)
    ours, theirs = ppl.compile(two_states(40).condition(y=y)), ppl.compile(latent.hidden_markov(y))
    both = jax.jit(jax.value_and_grad(lambda z, d: d(z)))
    for seed in range(3):
        z = np.random.default_rng(seed).normal(size=4)
        (value, slope), (expected, gradient) = both(z, ours), both(z, theirs)
        np.testing.assert_allclose(value, expected - np.log(2.0), rtol=1e-10)
        np.testing.assert_allclose(slope, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.skipif("PPL_POSTERIORDB" not in os.environ, reason="PPL_POSTERIORDB names a selection of posteriordb")
def test_the_hidden_markov_example_agrees_with_its_reference_draws():
    # 6 means and 6 standard deviations of two samples of thousands: |z| < 4.5, false alarm 1e-4.
    folder, name = Path(os.environ["PPL_POSTERIORDB"]), "hmm_example-hmm_example"
    y = np.asarray(pack.load_data(folder, name)["y"])
    fit = infer(two_states(len(y)).condition(y=y), mcmc.PooledHMC(chains=16, draws=500, max_draws=500), seed=1,
                progress=False)  # fmt: skip
    reference = pack.load_reference(folder, name)
    for scalar, draws in reference.items():
        site, index = scalar.rstrip("]").split("[")
        ours = fit.values[site][..., int(index) - 1]
        for centre, power in ((0.0, 1), (draws.mean(), 2)):
            a, b = (ours - centre) ** power, (np.asarray(draws) - centre) ** power
            error = np.hypot(diagnostics.mcse_mean(a[..., None]), diagnostics.mcse_mean(b[..., None]))
            assert abs(a.mean() - b.mean()) < 4.5 * error, scalar
    states = fit.probabilities("z").values
    assert np.abs(states.sum(-1) - 1).max() < 1e-9
