"""The log density of every construct and constraint against independent hand-written ones, in value and gradient."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import ppl
from ppl import dist
from tests.oracles import bijections
from tests.oracles.evaluate import NAMES, built, evaluated, largest

pytestmark = pytest.mark.standard_promotion
# special functions take XLA long to compile
SLOW = {"counts", "one_sided", "censoring", "covariance_matrices"}
every = pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in NAMES])


def test_enough_models():
    assert len(NAMES) == 30 and len(set(NAMES) - SLOW) == 26


@every
def test_value_and_gradient_equal_the_hand_written_density(name):
    found = evaluated(name)
    assert largest(found["ours"][0], found["hand"][0]) < 1e-10
    finite = np.isfinite(found["hand"][0])
    assert finite.any()
    assert np.isfinite(found["hand"][1][finite]).all()
    assert largest(found["ours"][1][finite], found["hand"][1][finite]) < 1e-10


@every
def test_hoisting_changes_neither_value_nor_gradient(name):
    found = evaluated(name)
    finite = np.isfinite(found["hand"][0])
    assert largest(found["hoisted"][0], found["ours"][0]) < 1e-12
    assert largest(found["hoisted"][1][finite], found["ours"][1][finite]) < 1e-12


@pytest.mark.parametrize("name", ["eight_schools", "state_space", "simplexes", "moving_support", "intervention"])
def test_called_by_itself_it_gives_the_same(name):
    _, density = built(name)
    found = evaluated(name)
    value = density(found["z"][1])
    assert value.shape == () and value.dtype == np.float64
    assert largest(value, found["hand"][0][1]) < 1e-10


@every
def test_values_and_records_equal_the_hand_written_ones(name):
    found = evaluated(name)
    for site, value in found["values"].items():
        assert largest(found["generated"][site], value) < 1e-12, site


@every
def test_constrain_and_unconstrain_are_inverse(name):
    found = evaluated(name)
    assert largest(found["round"], found["z"]) < 1e-8


@every
def test_log_prob_and_the_factors_equal_the_joint_without_determinants(name):
    case, _ = built(name)
    found = evaluated(name)
    total = sum(v.reshape(len(v), -1).sum(1) for v in found["factors"].values())
    assert largest(total, found["joint"]) < 1e-10
    values = {n: found["generated"][n][0] for n in case.program.latent()}
    factors = case.program.factors(values)
    assert set(factors) == set(found["factors"])
    for site, factor in factors.items():
        assert largest(factor, found["factors"][site][0]) < 1e-10, site
    assert largest(case.program.log_prob(values), found["joint"][0]) < 1e-10


@every
def test_prior_and_likelihood_sum_to_the_density(name):
    found = evaluated(name)
    prior, likelihood = found["split"]
    assert largest(prior + likelihood, found["ours"][0]) < 1e-12
    logs = sum(found["log_prior"].values()) + found["logdet"]
    assert largest(prior, logs) < 1e-10


@every
def test_a_restriction_differs_from_the_density_by_a_constant(name):
    found = evaluated(name)
    full = found["ours"][0]
    if not np.isfinite(full[0]):
        pytest.skip("the first point lies outside of the support")
    for site, row in found["moves"]:
        a, b = found["restricted"][site]
        assert largest(b - a, full[row] - full[0]) < 1e-10, site


@every
def test_pointwise_has_the_shape_of_the_plates_and_the_batch(name):
    case, density = built(name)
    found = evaluated(name)
    assert {n: v.shape[1:] for n, v in found["pointwise"].items()} == case.pointwise
    for site, factor in found["pointwise"].items():
        assert largest(factor, found["factors"][site]) == 0.0


@every
def test_generated_holds_latents_and_records_of_the_declared_shapes(name):
    case, density = built(name)
    found = evaluated(name)
    sites = case.program.sites
    wanted = {n for n, s in sites.items() if s.kind in ("latent", "record")}
    assert set(found["generated"]) == wanted
    for site in wanted:
        assert found["generated"][site].shape[1:] == sites[site].shape, site
        assert len(sites[site].dims) == len(sites[site].shape)
    assert len(density.labels) == density.dim == found["z"].shape[1]


@every
def test_parents_are_exact(name):
    case, _ = built(name)
    parents = case.program.graph().parents
    assert {n: set(p) for n, p in parents.items()} == case.parents


class Careless(dist.Distribution):
    """Exponential from a start, whose formula goes on below it."""

    arg_constraints = {}

    def __init__(self, start):
        self.start = start
        super().__init__(np.shape(start), ())

    @property
    def support(self):
        return dist.constraints.greater_than(self.start)

    def log_prob(self, value):
        return self.start - value

    def sample(self, key, sample_shape=()):
        return self.start + jax.random.exponential(key, sample_shape + self.batch_shape)


def test_an_observation_outside_of_a_latent_support_is_impossible_whatever_the_family_says():
    @ppl.model
    def m():
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        ppl.plate("row", lambda: ppl.sample("y", Careless(a)), 2)

    program = m().condition(y=np.array([0.5, 2.0]))
    density = ppl.compile(program)
    constant = -0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(density(np.array([0.1])), constant - 0.005 + 0.2 - 2.5, rtol=1e-12)
    assert density(np.array([1.0])) == -np.inf
    np.testing.assert_array_equal(density.pointwise(np.array([1.0]))["y"], [-np.inf, -1.0])
    assert program.log_prob({"a": 1.0}) == -np.inf


@pytest.mark.parametrize("name", sorted(bijections.CATALOGUE))
def test_log_determinants_by_hand_equal_those_of_the_jacobian(name):
    bijection, size, free = bijections.CATALOGUE[name]
    u = np.random.default_rng(5).normal(size=size)
    _, logdet = jax.jit(bijection)(u)
    jacobian = jax.jit(jax.jacfwd(lambda u: free(bijection(u)[0])))(u)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-12)


def test_zero_sum_is_an_isometry_onto_its_plane():
    u = np.random.default_rng(6).normal(size=4)
    jacobian = jax.jit(jax.jacfwd(lambda u: bijections.zero_sum(u)[0]))(u)
    np.testing.assert_allclose(jacobian.T @ jacobian, np.eye(4), atol=1e-14)
    np.testing.assert_allclose(jacobian.sum(0), 0, atol=1e-14)
