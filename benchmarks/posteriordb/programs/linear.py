"""Gaussian regressions: kid scores, earnings, party identification, mesquite, diamonds, sblri and AR(5).

All are y[n] ~ N(intercept + x[n] . beta, sigma); they differ in priors and in conditioning (correlated,
badly scaled or collinear columns).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist

from .common import columns

Data = Mapping[str, Any]


@ppl.model
def kid_score(mom_hs, mom_iq):
    """Flat beta on R^3, sigma ~ HalfCauchy(2.5); score ~ N(beta . (1, hs, iq), sigma)."""
    beta = ppl.sample("beta", dist.Flat((3,)))
    sigma = ppl.sample("sigma", dist.HalfCauchy(2.5))

    @ppl.plate("child", mom_hs, mom_iq)
    def child(hs, iq):
        ppl.sample("kid_score", dist.Normal(beta[0] + beta[1] * hs + beta[2] * iq, sigma))


def kid_score_program(data: Data) -> Any:
    """Kid scores on the mother's schooling and IQ."""
    y, hs, iq = columns(data, "kid_score", "mom_hs", "mom_iq")
    return kid_score(hs, iq).condition(kid_score=y)


@ppl.model
def kid_score_interaction(mom_hs, mom_iq):
    """As `kid_score`, with the product of the raw columns as fourth covariate."""
    beta = ppl.sample("beta", dist.Flat((4,)))
    sigma = ppl.sample("sigma", dist.HalfCauchy(2.5))

    @ppl.plate("child", mom_hs, mom_iq)
    def child(hs, iq):
        mean = beta[0] + beta[1] * hs + beta[2] * iq + beta[3] * hs * iq
        ppl.sample("kid_score", dist.Normal(mean, sigma))


def kid_score_interaction_program(data: Data) -> Any:
    """Kid scores with interaction."""
    y, hs, iq = columns(data, "kid_score", "mom_hs", "mom_iq")
    return kid_score_interaction(hs, iq).condition(kid_score=y)


@ppl.model
def log_earnings(height, male):
    """Flat beta on R^3, sigma flat on (0, inf); log earnings ~ N(beta . (1, height, male), sigma)."""
    beta = ppl.sample("beta", dist.Flat((3,)))
    sigma = ppl.sample("sigma", dist.FlatPositive())

    @ppl.plate("person", height, male)
    def person(height, male):
        ppl.sample("log_earn", dist.Normal(beta[0] + beta[1] * height + beta[2] * male, sigma))


def log_earnings_program(data: Data) -> Any:
    """Log earnings on height and sex."""
    earn, height, male = columns(data, "earn", "height", "male")
    return log_earnings(height, male).condition(log_earn=np.log(earn))


@ppl.model
def regression_flat(X):
    """Flat beta on R^p, sigma flat on (0, inf); y[n] ~ N(X[n] . beta, sigma), X (n, p)."""
    beta = ppl.sample("beta", dist.Flat((X.shape[1],)))
    sigma = ppl.sample("sigma", dist.FlatPositive())

    @ppl.plate("observation", X)
    def observation(x):
        ppl.sample("y", dist.Normal(x @ beta, sigma))


def nes_program(data: Data) -> Any:
    """Party identification; age enters as indicators of categories 2, 3 and 4."""
    y, ideology, race, age, educ, gender, income = columns(
        data, "partyid7", "real_ideo", "race_adj", "age_discrete", "educ1", "gender", "income"
    )
    ages = [(age == k).astype(float) for k in (2, 3, 4)]
    X = np.stack([np.ones_like(y), ideology, race, *ages, educ, gender, income], axis=1)
    return regression_flat(X).condition(y=y)


def mesquite_program(data: Data) -> Any:
    """Log weight of mesquite bushes on log dimensions and a group indicator."""
    names = ("diam1", "diam2", "canopy_height", "total_height", "density")
    logs = [np.log(column) for column in columns(data, *names)]
    weight, group = columns(data, "weight", "group")
    X = np.stack([np.ones_like(weight), *logs, group], axis=1)
    return regression_flat(X).condition(y=np.log(weight))


@ppl.model
def sblri(X):
    """Prior beta ~ N(0, 10), sigma ~ HalfN(10); y[n] ~ N(X[n] . beta, sigma)."""
    beta = ppl.sample("beta", dist.Normal(0.0, 10.0).expand([X.shape[1]]))
    sigma = ppl.sample("sigma", dist.HalfNormal(10.0))

    @ppl.plate("observation", X)
    def observation(x):
        ppl.sample("y", dist.Normal(x @ beta, sigma))


def sblri_program(data: Data) -> Any:
    """A regression with columns in the hundreds and a noise of one."""
    X, y = columns(data, "X", "y")
    return sblri(X).condition(y=y)


@ppl.model
def diamonds(X):
    """Prior b ~ N(0, 1), Intercept ~ StudentT(3, 8, 10), sigma ~ HalfT(3, 10); X (n, 24) centred columns."""
    b = ppl.sample("b", dist.Normal(0.0, 1.0).expand([X.shape[1]]))
    intercept = ppl.sample("Intercept", dist.StudentT(3.0, 8.0, 10.0))
    sigma = ppl.sample("sigma", half_student_t(3.0, 10.0))

    @ppl.plate("diamond", X)
    def diamond(x):
        ppl.sample("Y", dist.Normal(intercept + x @ b, sigma))


def half_student_t(df: float, scale: float) -> Any:
    """StudentT(df, 0, scale) restricted to the positive numbers."""
    return dist.truncated(dist.StudentT(df, 0.0, scale), low=0.0)


def diamonds_program(data: Data) -> Any:
    """Log price of diamonds; strongly collinear columns, centred, without the column of ones."""
    X, y = columns(data, "X", "Y")
    X = X[:, 1:] - X[:, 1:].mean(axis=0)
    return diamonds(X).condition(Y=y)


@ppl.model
def autoregression(lags):
    """Prior alpha, beta ~ N(0, 10), sigma ~ HalfCauchy(2.5); y[t] ~ N(alpha + lags[t] . beta, sigma)."""
    alpha = ppl.sample("alpha", dist.Normal(0.0, 10.0))
    beta = ppl.sample("beta", dist.Normal(0.0, 10.0).expand([lags.shape[1]]))
    sigma = ppl.sample("sigma", dist.HalfCauchy(2.5))

    @ppl.plate("time", lags)
    def time(lag):
        ppl.sample("y", dist.Normal(alpha + jnp.dot(lag, beta), sigma))


def autoregression_program(data: Data) -> Any:
    """AR(5) given its first five values; lag 1 is the first column."""
    (y,) = columns(data, "y")
    order = int(data["K"])
    lags = np.stack([y[order - k : len(y) - k] for k in range(1, order + 1)], axis=1)
    return autoregression(lags).condition(y=y[order:])


PROGRAMS = {
    "kidiq-kidscore_momhsiq": kid_score_program,
    "kidiq-kidscore_interaction": kid_score_interaction_program,
    "earnings-logearn_height_male": log_earnings_program,
    "nes1980-nes": nes_program,
    "mesquite-logmesquite": mesquite_program,
    "sblri-blr": sblri_program,
    "diamonds-diamonds": diamonds_program,
    "arK-arK": autoregression_program,
}
