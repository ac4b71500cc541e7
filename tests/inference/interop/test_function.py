"""Plain JAX functions as labelled log densities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints

import ppl
from ppl import dist
from ppl.inference import infer
from ppl.inference.interop import from_function, to_blackjax

X = np.array([[1.0, 0.0, 2.0], [0.5, -1.0, 1.0], [1.5, 1.0, -1.0], [0.0, 2.0, 0.3]])
Y = np.array([1.0, 2.0, -0.5, 0.3])


def regression(values, data):
    x, y = data
    prior = dist.Normal(0.0, 1.0).log_prob(values["beta"]).sum() + dist.Exponential(1.0).log_prob(values["sigma"])
    return prior + dist.Normal(x @ values["beta"], values["sigma"]).log_prob(y).sum()


def target(x=X, y=Y, **options):
    like = {"beta": np.zeros(3), "sigma": 1.0}
    return from_function(regression, like, data=(x, y), constraints={"sigma": constraints.positive}, **options)


@ppl.model
def program(x):
    beta = ppl.sample("beta", dist.Normal(0.0, 1.0).expand([3]))
    sigma = ppl.sample("sigma", dist.Exponential(1.0))
    ppl.sample("y", dist.Normal(x @ beta, sigma))


def test_the_log_density_has_the_determinants_of_the_constraints():
    density, ours = target(), ppl.compile(program(X).condition(y=Y))
    assert density.labels == ours.labels == ["beta[0]", "beta[1]", "beta[2]", "sigma"]
    zs = np.random.default_rng(0).normal(size=(20, 4))
    np.testing.assert_allclose(jax.jit(jax.vmap(density))(zs), jax.jit(jax.vmap(ours))(zs), rtol=1e-12)
    values = density.generated(zs[0])
    np.testing.assert_allclose(values["sigma"], np.exp(zs[0, 3]), rtol=1e-12)
    np.testing.assert_allclose(density.unconstrain(values), zs[0], rtol=1e-12)


def test_the_posterior_is_labelled():
    names = {"coef": ["a", "b", "c"]}
    density = target(
        generated=lambda values, data: {"fitted": data[0] @ values["beta"]},
        dims={"beta": "coef", "fitted": "row"},
        coords=names,
    )
    fit = infer(density, seed=1, draws=300, progress=False)
    exact = infer(program(X).condition(y=Y), seed=1, draws=300, progress=False)
    assert list(fit.posterior.data_vars) == ["beta", "sigma", "fitted"]
    assert fit.posterior["beta"].dims == ("chain", "draw", "coef")
    assert fit.posterior["fitted"].dims == ("chain", "draw", "row")
    assert fit.summary().labels[:4] == ("beta[a]", "beta[b]", "beta[c]", "sigma")
    # equal densities, equal seeds: the very same draws up to rounding
    a, b = fit.summary(["beta", "sigma"]), exact.summary()
    assert np.all(np.abs(a["mean"] - b["mean"]) < 4.5 * np.hypot(a["mcse_mean"], b["mcse_mean"]))
    np.testing.assert_allclose(fit.values["fitted"], fit.values["beta"] @ X.T, rtol=1e-10)


def test_new_data_and_labels_of_equal_shapes_compile_nothing():
    evaluate = jax.jit(lambda density, z: density(z))
    z = np.zeros(4)
    values = [float(evaluate(d, z)) for d in (target(), target(X + 1.0, Y - 1.0, coords={"beta_dim_0": [1, 2, 3]}))]
    assert evaluate._cache_size() == 1
    np.testing.assert_allclose(values[1], ppl.compile(program(X + 1.0).condition(y=Y - 1.0))(z), rtol=1e-12)


def test_a_vector_whole_or_with_named_entries():
    plain = from_function(lambda z: -0.5 * z @ z, 2)
    assert (plain.labels, float(plain(np.ones(2)))) == (["z[0]", "z[1]"], -1.0)
    named = from_function(
        lambda z: -0.5 * z @ z, 2, names=["mu", "rate"], constraints={"rate": constraints.interval(0.0, 2.0)}
    )
    assert named.labels == ["mu", "rate"]
    assert {k: float(v) for k, v in named.generated(np.zeros(2)).items()} == {"mu": 0.0, "rate": 1.0}
    np.testing.assert_allclose(named(np.zeros(2)), -0.5 + np.log(2.0 * 0.25), rtol=1e-12)
    fit = to_blackjax(named).fit(np.zeros((3, 2)))
    assert list(fit.posterior.data_vars) == ["mu", "rate"]


def test_a_simplex_has_fewer_coordinates_than_entries():
    like = {"p": np.full(3, 1 / 3)}
    density = from_function(
        lambda v: dist.Dirichlet(jnp.array([2.0, 3.0, 4.0])).log_prob(v["p"]),
        like,
        constraints={"p": constraints.simplex},
    )
    ours = ppl.model(lambda: ppl.sample("p", dist.Dirichlet(jnp.array([2.0, 3.0, 4.0]))))
    z = np.array([0.3, -1.0])
    np.testing.assert_allclose(density(z), ppl.compile(ours())(z), rtol=1e-12)


def test_external_functions_inside_are_known():
    density = from_function(lambda v: ppl.external("sim", lambda x: -x * x, v["x"]), {"x": 0.0})
    assert (density.external, density.differentiable) == (("sim",), False)
    with pytest.raises(ppl.ModelError, match="external function 'sim'"):
        infer(density, progress=False)
    assert from_function(lambda v: -(v["x"] ** 2), {"x": 0.0}).differentiable


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: target(dims={"alpha": "coef"}), "dims: 'alpha' is unknown"),
        (lambda: from_function(lambda z: 0.0, 2, names=["a"]), "2 different names"),
        (lambda: from_function(lambda z: 0.0, {"a": "text"}), "str at 'a'"),
        (lambda: from_function(lambda z: 0.0, {}), "nothing to infer"),
        (lambda: from_function(lambda z: 0.0, 2, constraints={"y": constraints.positive}), "'y' is unknown"),
        (lambda: from_function(jax.tree_util.Partial(lambda w, z: w @ z, np.ones(2)), 2), "arrays of its own"),
        (lambda: from_function(lambda z: z, 2)(np.zeros(2)), r"returned shape \(2,\)"),
        (lambda: from_function(lambda z: z.sum(), 2)(np.zeros(3)), r"shape \(2,\), not \(3,\)"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ppl.ModelError, match=message):
        make()
