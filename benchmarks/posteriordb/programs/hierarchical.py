"""Hierarchical and generalised linear posteriors, from eight schools to a map of 1921 areas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist

from .common import columns

Data = Mapping[str, Any]


@ppl.model
def eight_schools(sigma):
    """Prior mu ~ N(0, 5), tau ~ HalfCauchy(5), theta = mu + tau t, t ~ N(0, 1); y ~ N(theta, sigma)."""
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfCauchy(5.0))

    @ppl.plate("school", sigma)
    def school(s):
        t = ppl.sample("t", dist.Normal(0.0, 1.0))
        theta = ppl.record("theta", mu + tau * t)
        ppl.sample("y", dist.Normal(theta, s))


def eight_schools_program(data: Data) -> Any:
    """The eight schools, non-centred."""
    y, sigma = columns(data, "y", "sigma")
    return eight_schools(sigma).condition(y=y)


@ppl.model
def radon(county, log_uppm, floor, counties):
    """County intercepts alpha = mu_alpha + sigma_alpha r, r ~ N(0, 1), and two slopes."""
    sigma_alpha = ppl.sample("sigma_alpha", dist.HalfNormal(1.0))
    sigma_y = ppl.sample("sigma_y", dist.HalfNormal(1.0))
    mu_alpha = ppl.sample("mu_alpha", dist.Normal(0.0, 10.0))
    beta = ppl.sample("beta", dist.Normal(0.0, 10.0).expand([2]))

    @ppl.plate("county", counties)
    def alpha(_):
        r = ppl.sample("r", dist.Normal(0.0, 1.0))
        return ppl.record("alpha", mu_alpha + sigma_alpha * r)

    @ppl.plate("house", county, log_uppm, floor)
    def house(county, log_uppm, floor):
        mean = alpha[county] + beta[0] * log_uppm + beta[1] * floor
        ppl.sample("log_radon", dist.Normal(mean, sigma_y))


def radon_program(data: Data) -> Any:
    """Radon in Minnesota houses, 85 counties."""
    y, log_uppm, floor = columns(data, "log_radon", "log_uppm", "floor_measure")
    county = np.asarray(data["county_idx"]) - 1
    return radon(county, log_uppm, floor, int(data["J"])).condition(log_radon=y)


@ppl.model
def wells(X):
    """Flat alpha and beta; switched[n] ~ BernLogit(alpha + X[n] . beta)."""
    alpha = ppl.sample("alpha", dist.Flat())
    beta = ppl.sample("beta", dist.Flat((X.shape[1],)))

    @ppl.plate("household", X)
    def household(x):
        ppl.sample("switched", dist.Bernoulli(logits=alpha + x @ beta))


def wells_program(data: Data) -> Any:
    """Switching of wells in Bangladesh: centred distance, arsenic, their product, association, education."""
    distance, arsenic, assoc, educ = columns(data, "dist", "arsenic", "assoc", "educ")
    d, a = (distance - distance.mean()) / 100.0, arsenic - arsenic.mean()
    X = np.stack([d, a, d * a, assoc, educ / 4.0], axis=1)
    return wells(X).condition(switched=np.asarray(data["switched"]))


@ppl.model
def item_response(items, persons):
    """Two-parameter logistic items, centred hierarchies: y[i, j] ~ BernLogit(a[i] (theta[j] - b[i]))."""
    sigma_theta = ppl.sample("sigma_theta", dist.HalfCauchy(2.0))
    sigma_a = ppl.sample("sigma_a", dist.HalfCauchy(2.0))
    mu_b = ppl.sample("mu_b", dist.Normal(0.0, 5.0))
    sigma_b = ppl.sample("sigma_b", dist.HalfCauchy(2.0))

    @ppl.plate("person", persons)
    def theta(_):
        return ppl.sample("theta", dist.Normal(0.0, sigma_theta))

    @ppl.plate("item", items)
    def item(_):
        a = ppl.sample("a", dist.LogNormal(0.0, sigma_a))
        b = ppl.sample("b", dist.Normal(mu_b, sigma_b))

        @ppl.plate("person", theta)
        def answer(ability):
            ppl.sample("y", dist.Bernoulli(logits=a * (ability - b)))


def item_response_program(data: Data) -> Any:
    """Twenty items answered by a hundred persons."""
    y = np.asarray(data["y"])
    return item_response(int(data["I"]), int(data["J"])).condition(y=y)


@ppl.model
def seeds(trials, x1, x2):
    """Binomial counts with an overdispersion b[i] ~ N(0, 1/sqrt(tau)), tau ~ Gamma(0.001, 0.001)."""
    alpha0 = ppl.sample("alpha0", dist.Normal(0.0, 1000.0))
    alpha1 = ppl.sample("alpha1", dist.Normal(0.0, 1000.0))
    alpha2 = ppl.sample("alpha2", dist.Normal(0.0, 1000.0))
    alpha12 = ppl.sample("alpha12", dist.Normal(0.0, 1000.0))
    tau = ppl.sample("tau", dist.Gamma(0.001, 0.001))
    sigma = ppl.record("sigma", 1.0 / jnp.sqrt(tau))

    @ppl.plate("plate", trials, x1, x2)
    def plate(trials, x1, x2):
        b = ppl.sample("b", dist.Normal(0.0, sigma))
        logits = alpha0 + alpha1 * x1 + alpha2 * x2 + alpha12 * x1 * x2 + b
        ppl.sample("n", dist.Binomial(trials, logits=logits))


def seeds_program(data: Data) -> Any:
    """Germination of seeds on 21 plates; ``n`` are successes, ``N`` trials."""
    x1, x2 = columns(data, "x1", "x2")
    return seeds(np.asarray(data["N"]), x1, x2).condition(n=np.asarray(data["n"]))


def graded_log_probs(score, thresholds, categories):
    """Log probabilities of grades 1..K of a graded response item, -1e30 beyond its categories.

    P(grade > k) = 1/(1 + exp(-score_k)) with score_k = score - thresholds_k; differences of two logistic
    functions are s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), which does not underflow.
    """
    k = jnp.arange(thresholds.shape[0] + 1)
    far = 1e6
    scores = score - thresholds
    upper = jnp.where(k == 0, far, jnp.concatenate([jnp.full(1, far), scores]))
    lower = jnp.where(k + 1 >= categories, -far, jnp.concatenate([scores, jnp.full(1, -far)]))
    inside = k < categories
    gap = jnp.where(inside, upper - lower, 1.0)
    log_p = jax.nn.log_sigmoid(upper) + jax.nn.log_sigmoid(-lower) + jnp.log(-jnp.expm1(-gap))
    return jnp.where(inside, log_p, -1e30)


@ppl.model
def bones(thresholds, slope, categories, present):
    """Prior theta[i] ~ N(0, 36); grades follow a graded response model with known items.

    thresholds are slope-scaled (items, 4); slope and categories (items,); present (children, items) masks
    the missing cells.
    """

    @ppl.plate("child", present)
    def child(present):
        theta = ppl.sample("theta", dist.Normal(0.0, 36.0))

        @ppl.plate("item", thresholds, slope, categories, present)
        def item(thresholds, slope, categories, present):
            logits = graded_log_probs(slope * theta, thresholds, categories)
            ppl.sample("grade", dist.Categorical(logits=logits).mask(present))


def bones_program(data: Data) -> Any:
    """Skeletal age of 13 children from 34 indicators."""
    gamma, delta = columns(data, "gamma", "delta")
    categories = np.asarray(data["ncat"])
    grade = np.asarray(data["grade"])
    padded = np.arange(1, gamma.shape[1] + 1) >= categories[:, None]
    thresholds = np.where(padded, 0.0, delta[:, None] * gamma)
    present = grade >= 1
    return bones(thresholds, delta, categories, present).condition(grade=np.where(present, grade - 1, 0))


@ppl.model
def horseshoe(x, scale_icept, scale_global, nu_global, nu_local, slab_scale, slab_df):
    """Logistic regression with a regularised horseshoe (Piironen and Vehtari, 2017), x (n, d)."""
    d = x.shape[1]
    beta0 = ppl.sample("beta0", dist.Normal(0.0, scale_icept))
    z = ppl.sample("z", dist.Normal(0.0, 1.0).expand([d]))
    local = ppl.sample("lambda", half_t(nu_local, 1.0).expand([d]))
    tau = ppl.sample("tau", half_t(nu_global, 2.0 * scale_global))
    caux = ppl.sample("caux", dist.InverseGamma(0.5 * slab_df, 0.5 * slab_df))
    c2 = slab_scale**2 * caux
    shrunk = jnp.sqrt(c2 * local**2 / (c2 + tau**2 * local**2))
    beta = ppl.record("beta", z * shrunk * tau)

    @ppl.plate("patient", x)
    def patient(row):
        ppl.sample("y", dist.Bernoulli(logits=beta0 + row @ beta))


def half_t(df: int, scale: Any) -> Any:
    """The Student distribution on the positive numbers; one degree of freedom is the half-Cauchy."""
    if df == 1:
        return dist.HalfCauchy(scale)
    return dist.truncated(dist.StudentT(df, 0.0, scale), low=0.0)


def horseshoe_program(data: Data) -> Any:
    """Ovarian cancer from 1536 gene expressions in 54 patients."""
    (x,) = columns(data, "x")
    icept, scale, slab, slab_df = (
        float(data[name]) for name in ("scale_icept", "scale_global", "slab_scale", "slab_df")
    )
    degrees = int(data["nu_global"]), int(data["nu_local"])  # integers are fixed parts of a program
    return horseshoe(x, icept, scale, *degrees, slab, slab_df).condition(y=np.asarray(data["y"]))


@ppl.model
def bym2(exposure, first, second, scaling):
    """Besag-York-Mollie model: structured phi and unstructured theta effects mixed by rho."""
    areas = exposure.shape[0]
    beta0 = ppl.sample("beta0", dist.Normal(0.0, 1.0))
    sigma = ppl.sample("sigma", dist.HalfNormal(1.0))
    rho = ppl.sample("rho", dist.Beta(0.5, 0.5))
    phi = ppl.sample("phi", dist.Flat((areas,)))
    ppl.factor("smooth", -0.5 * jnp.sum((phi[first] - phi[second]) ** 2))
    ppl.factor("sum_to_zero", dist.Normal(0.0, 0.001 * areas).log_prob(phi.sum()))

    @ppl.plate("area", exposure, phi)
    def area(exposure, phi):
        theta = ppl.sample("theta", dist.Normal(0.0, 1.0))
        effect = jnp.sqrt(1.0 - rho) * theta + jnp.sqrt(rho / scaling) * phi
        ppl.sample("y", dist.Poisson(jnp.exp(jnp.log(exposure) + beta0 + sigma * effect)))


def bym2_program(data: Data) -> Any:
    """Traffic accidents in 1921 areas of New York City."""
    (exposure,) = columns(data, "E")
    first, second = np.asarray(data["node1"]) - 1, np.asarray(data["node2"]) - 1
    return bym2(exposure, first, second, float(data["scaling_factor"])).condition(y=np.asarray(data["y"]))


PROGRAMS = {
    "eight_schools-eight_schools_noncentered": eight_schools_program,
    "radon_mn-radon_hierarchical_intercept_noncentered": radon_program,
    "wells_data-wells_daae_c_model": wells_program,
    "irt_2pl-irt_2pl": item_response_program,
    "seeds_data-seeds_model": seeds_program,
    "bones_data-bones_model": bones_program,
    "ovarian-logistic_regression_rhs": horseshoe_program,
    "traffic_accident_nyc-bym2_offset_only": bym2_program,
}
