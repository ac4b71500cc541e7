"""NumPyro models as log densities: equal to NumPyro's own, to ours, and labelled."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.reparam import LocScaleReparam

import ppl
from ppl.inference import infer, mcmc
from ppl.inference.interop import from_numpyro

pytestmark = pytest.mark.standard_promotion

Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
SCHOOLS = list("ABCDEFGH")


def schools(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(sigma)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)
        numpyro.deterministic("effect", theta - mu)
    numpyro.deterministic("spread", jnp.max(theta) - jnp.min(theta))


@ppl.model
def ours(sigma):
    mu = ppl.sample("mu", ppl.dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", ppl.dist.HalfCauchy(5.0))

    @ppl.plate("school", sigma, coords=SCHOOLS)
    def theta(s):
        theta = ppl.sample("theta", ppl.dist.Normal(mu, tau))
        ppl.sample("y", ppl.dist.Normal(theta, s))
        return theta


def test_the_log_density_of_eight_schools_is_ours():
    theirs, mine = from_numpyro(schools, SIGMA, y=Y), ppl.compile(ours(SIGMA).condition(y=Y))
    assert theirs.labels == mine.labels
    zs = 0.7 * np.random.default_rng(0).standard_normal((50, 10))
    a = jax.jit(jax.vmap(jax.value_and_grad(theirs)))(zs)
    b = jax.jit(jax.vmap(jax.value_and_grad(mine)))(zs)
    np.testing.assert_allclose(a[0], b[0], rtol=1e-12, atol=1e-10)  # both with the log-determinant of exp
    np.testing.assert_allclose(a[1], b[1], rtol=1e-10, atol=1e-10)
    for method in ("pointwise", "log_prior", "generated"):
        x, y = getattr(theirs, method)(zs[0]), getattr(mine, method)(zs[0])
        for name in y:
            np.testing.assert_allclose(x[name], y[name], rtol=1e-12, atol=1e-12)


def test_its_posterior_is_labelled_and_equal_to_ours():
    theirs = from_numpyro(schools, SIGMA, y=Y).labelled(coords={"school": SCHOOLS})
    fits = [infer(x, seed=3, draws=600, progress=False) for x in (theirs, ours(SIGMA).condition(y=Y))]
    a, b = fits
    assert list(a.posterior.data_vars) == ["mu", "tau", "theta", "effect", "spread"]
    assert a.posterior["theta"].dims == a.posterior["effect"].dims == ("chain", "draw", "school")
    assert a.posterior.coords["school"].values.tolist() == SCHOOLS
    assert a.log_likelihood["y"].dims == ("chain", "draw", "school")
    np.testing.assert_array_equal(a.observed_data["y"], Y)
    tables = [fit.summary(["mu", "tau", "theta"]) for fit in fits]
    assert tables[0].labels == tables[1].labels == ("mu", "tau", *(f"theta[{s}]" for s in SCHOOLS))
    # means of two independent runs; |z| < 4.5 for ten quantities, false alarm below 1e-4
    error = np.hypot(tables[0]["mcse_mean"], tables[1]["mcse_mean"])
    assert np.all(np.abs(tables[0]["mean"] - tables[1]["mean"]) < 4.5 * error)


def test_a_run_directory_keeps_the_labels(tmp_path):
    density = from_numpyro(schools, SIGMA, y=Y).labelled(coords={"school": SCHOOLS})
    fit = infer(density, mcmc.PooledHMC(draws=40, max_draws=40), path=tmp_path / "run", progress=False)
    read = infer.open(tmp_path / "run")
    assert read.posterior["theta"].dims == ("chain", "draw", "school")
    assert read.summary(["theta"]).labels == tuple(f"theta[{s}]" for s in SCHOOLS)
    np.testing.assert_array_equal(read.values["effect"], fit.values["effect"])
    np.testing.assert_array_equal(read.log_likelihood["y"], fit.log_likelihood["y"])


def test_new_data_of_equal_shapes_compile_nothing():
    evaluate = jax.jit(lambda density, z: density(z))
    first = from_numpyro(schools, SIGMA, y=Y)
    second = from_numpyro(schools, SIGMA + 1.0, y=Y - 2.0).labelled(coords={"school": SCHOOLS})
    z = np.zeros(10)
    values = [float(evaluate(density, z)) for density in (first, second)]
    assert evaluate._cache_size() == 1
    np.testing.assert_allclose(values[1], ppl.compile(ours(SIGMA + 1.0).condition(y=Y - 2.0))(z), rtol=1e-12)


def test_constrained_sites_of_all_kinds_go_there_and_back():
    def model(x, y):
        rho = numpyro.sample("rho", dist.Beta(2.0, 3.0))
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([2]).to_event(1))
        cut = numpyro.sample("cut", dist.TransformedDistribution(dist.Normal(0.0, 1.0).expand([2]).to_event(1),
                                                                dist.transforms.OrderedTransform()))  # fmt: skip
        upper = numpyro.sample("upper", dist.Uniform(rho, 3.0))  # a support that depends on another site
        with numpyro.plate("row", len(x), dim=-2), numpyro.plate("column", 3):
            numpyro.sample("y", dist.Normal(upper * x + cut[0] + weights, scale[1]), obs=y)

    rng = np.random.default_rng(1)
    density = from_numpyro(model, rng.normal(size=(4, 1)), rng.normal(size=(4, 3)))
    assert density.dim == 1 + 2 + 2 + 2 + 1
    assert density.pointwise(np.zeros(8))["y"].shape == (4, 3)
    assert density.dims["y"] == ("row", "column")
    z = rng.normal(size=density.dim)
    values = density.generated(z)
    np.testing.assert_allclose(density.unconstrain(values), z, rtol=1e-8)
    np.testing.assert_allclose(values["weights"].sum(), 1.0, rtol=1e-12)
    # the definition: log joint at constrained values plus log-determinants of the transforms
    supports = {"rho": dist.constraints.unit_interval, "weights": dist.constraints.simplex,
                "scale": dist.constraints.positive, "cut": dist.constraints.ordered_vector,
                "upper": dist.constraints.interval(values["rho"], 3.0)}  # fmt: skip
    total = sum(float(x) for x in density.log_prior(z).values()) + float(density.pointwise(z)["y"].sum())
    for name, slot in density.layout.items():
        transform = dist.biject_to(supports[name])
        free = z[slot.start : slot.stop].reshape(slot.shape)
        total += float(jnp.sum(transform.log_abs_det_jacobian(free, transform(free))))
    np.testing.assert_allclose(density(z), total, rtol=1e-10)


def test_plates_name_the_axes_before_those_of_one_event():
    def model():
        with numpyro.plate("outer", 4, dim=-2), numpyro.plate("inner", 3):
            w = numpyro.sample("w", dist.Dirichlet(jnp.ones(2)))
            numpyro.deterministic("first", w[..., 0])
            numpyro.deterministic("both", 2.0 * w)

    density = from_numpyro(model)
    assert density.dims == {
        "w": ("outer", "inner", "w_dim_2"),
        "first": ("outer", "inner"),
        "both": ("outer", "inner", "both_dim_2"),
    }
    assert (density.dim, density.layout["w"].shape) == (12, (4, 3, 1))


def test_draws_from_the_prior():
    def model(y):
        low = numpyro.sample("low", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Uniform(low, low + 2.0))
        numpyro.sample("y", dist.Normal(low, 1.0), obs=y)

    density = from_numpyro(model, 3.0)
    draw = jax.jit(jax.vmap(lambda key: density.generated(density.prior(key))))
    draws = draw(jax.random.split(jax.random.key(1), 4000))
    share = (draws["x"] - draws["low"]) / 2.0
    # uniform and independent of y: means within four standard errors, false alarm 1e-4
    assert abs(float(share.mean()) - 0.5) < 4 * 12**-0.5 / 4000**0.5
    assert abs(float(draws["low"].mean())) < 4 / 4000**0.5
    improper = from_numpyro(lambda: numpyro.sample("a", dist.ImproperUniform(dist.constraints.real, (), ())))
    with pytest.raises(ppl.ImproperPrior):
        improper.prior(jax.random.key(0))


def test_handlers_factors_and_choices_that_read_the_data():
    reparam = handlers.reparam(schools, config={"theta": LocScaleReparam(0.0)})
    density = from_numpyro(reparam, SIGMA, y=Y)
    assert density.labels[2] == "theta_decentered[0]"
    assert density.dims["theta"] == ("school",)
    assert density.generated(np.zeros(10))["theta"].shape == (8,)

    def counts(codes, y):
        groups = int(codes.max()) + 1  # reads values
        a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([groups]).to_event(1))
        numpyro.factor("tilt", -jnp.sum(a**2))
        numpyro.sample("y", dist.Normal(a[codes], 1.0), obs=y)

    density = from_numpyro(counts, np.array([0, 1, 1]), np.zeros(3))
    assert (density.labels, list(density.pointwise(np.zeros(2)))) == (["a[0]", "a[1]"], ["y"])
    z = np.array([0.5, -1.0])
    expected = dist.Normal(0, 1).log_prob(z).sum() - (z**2).sum() + dist.Normal(z[[0, 1, 1]], 1.0).log_prob(0.0).sum()
    np.testing.assert_allclose(density(z), expected, rtol=1e-12)


def test_a_frame_with_text_is_handed_to_the_model_as_it_is():
    pd = pytest.importorskip("pandas")

    def model(frame):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([frame["g"].nunique()]).to_event(1))
        codes = frame["g"].astype("category").cat.codes.to_numpy()
        numpyro.sample("y", dist.Normal(a[codes], 1.0), obs=frame["y"].to_numpy())

    density = from_numpyro(model, pd.DataFrame({"g": ["u", "v", "u"], "y": [1.0, 2.0, 3.0]}))
    z = np.array([0.5, -1.0])
    expected = dist.Normal(0, 1).log_prob(z).sum() + dist.Normal(z[[0, 1, 0]], 1.0).log_prob(np.arange(1.0, 4.0)).sum()
    np.testing.assert_allclose(density(z), expected, rtol=1e-12)


def discrete():
    numpyro.sample("k", dist.Bernoulli(0.5))


def subsampled(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", 10, subsample_size=2) as i:
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[i])


def parameter():
    numpyro.sample("x", dist.Normal(numpyro.param("loc", 0.0), 1.0))


def nothing(y):
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        (discrete, (), "site 'k' .* is a discrete latent"),
        (subsampled, (np.zeros(10),), "plate 'row' is subsampled"),
        (parameter, (), "numpyro.param 'loc'"),
        (nothing, (0.0,), "no latent site"),
        (3, (), "takes a NumPyro model"),
    ],
)
def test_what_is_no_density_is_refused(model, args, message):
    with pytest.raises(ppl.ModelError, match=message):
        from_numpyro(model, *args)


def test_starting_values_by_name_and_unknown_labels():
    density = from_numpyro(schools, SIGMA, y=Y)
    init = {"mu": 1.0, "tau": 2.0, "theta": np.linspace(-1.0, 1.0, 8)}
    z = density.unconstrain(init)
    np.testing.assert_allclose(z[:2], [1.0, np.log(2.0)], rtol=1e-12)
    fit = infer(density, mcmc.PooledHMC(chains=4, draws=20, max_draws=20), init=init, progress=False)
    assert fit.draws.positions.shape == (4, 20, 10)
    with pytest.raises(ppl.ModelError, match="there is no axis 'schol'"):
        density.labelled(coords={"schol": SCHOOLS})
    with pytest.raises(ppl.ModelError, match="'theta' has 1 axes"):
        density.labelled(dims={"theta": ("a", "b")})
