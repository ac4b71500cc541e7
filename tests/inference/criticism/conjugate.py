"""Models whose evidence, posterior and leave-one-out predictive densities have closed forms.

Each has a program and ``log_evidence(y)``; leaving out rows is a difference of two evidences.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

import ppl
from ppl import dist

needs_old_arviz = pytest.mark.skipif(
    int(importlib.metadata.version("arviz").split(".")[0]) >= 1,
    reason="ArviZ from 1.0 on has other signatures, and a tail of another length",
)


@dataclass(frozen=True)
class Case:
    """A conditioned program, its log evidence and exact posterior draws by site."""

    program: Any
    log_evidence: float
    draw: Any = None


@ppl.model
def normal_mean(n, prior_sd, noise):
    mu = ppl.sample("mu", dist.Normal(0.5, prior_sd))
    ppl.plate("row", lambda _: ppl.sample("y", dist.Normal(mu, noise)), n)


def mean_evidence(y, prior_sd, noise):
    n = len(y)
    return stats.multivariate_normal(np.full(n, 0.5), noise**2 * np.eye(n) + prior_sd**2).logpdf(y)


@ppl.model
def regression(X, spread, a, b):
    """beta | s2 ~ N(0, s2 spread^2 I), s2 ~ InverseGamma(a, b), y ~ N(X beta, s2)."""
    s2 = ppl.sample("s2", dist.InverseGamma(a, b))
    sd = s2**0.5
    beta = ppl.sample("beta", dist.Normal(0.0, sd * spread).expand([X.shape[1]]).to_event(1), dims="covariate")
    ppl.plate("row", lambda x: ppl.sample("y", dist.Normal(x @ beta, sd)), X)


def regression_evidence(y, X, spread, a, b):
    """Multivariate t: location 0, scale (b / a) (I + spread^2 X X'), 2 a degrees of freedom."""
    n = len(y)
    shape = b / a * (np.eye(n) + spread**2 * X @ X.T)
    return stats.multivariate_t(np.zeros(n), shape, df=2 * a).logpdf(y)


def leave_one_out(evidence, y, *columns):
    """log p(y_i | y_{-i}) for each i; ``columns`` are the arrays with a row per observation."""
    full = evidence(y, *columns)
    return np.array([full - evidence(*(np.delete(c, i, axis=0) for c in (y, *columns))) for i in range(len(y))])


@ppl.model
def bernoulli(n):
    p = ppl.sample("p", dist.Beta(2.0, 5.0))
    ppl.plate("row", lambda _: ppl.sample("y", dist.Bernoulli(p)), n)


def bernoulli_evidence(y):
    return special.betaln(2.0 + y.sum(), 5.0 + len(y) - y.sum()) - special.betaln(2.0, 5.0)


@ppl.model
def counts(n):
    rate = ppl.sample("rate", dist.Gamma(1.5, 0.5))
    ppl.plate("row", lambda _: ppl.sample("y", dist.Poisson(rate)), n)


def counts_evidence(y):
    a, b, n, total = 1.5, 0.5, len(y), y.sum()
    gammas = special.gammaln(a + total) - special.gammaln(a) - special.gammaln(y + 1.0).sum()
    return gammas + a * np.log(b) - (a + total) * np.log(b + n)


@ppl.model
def categories(alpha, total):
    p = ppl.sample("p", dist.Dirichlet(alpha))
    ppl.sample("y", dist.Multinomial(total, p))


def categories_evidence(y, alpha):
    def log_beta(x):
        return special.gammaln(x).sum() - special.gammaln(x.sum())

    ways = special.gammaln(y.sum() + 1.0) - special.gammaln(y + 1.0).sum()
    return ways + log_beta(alpha + y) - log_beta(alpha)


@ppl.model
def exponential_waits(n):
    """Pareto evidence: rate ~ Gamma(a, b), y ~ Exp(rate); skewed, few data."""
    rate = ppl.sample("rate", dist.Gamma(0.8, 2.0))
    ppl.plate("row", lambda _: ppl.sample("y", dist.Exponential(rate)), n)


def waits_evidence(y):
    a, b, n = 0.8, 2.0, len(y)
    return special.gammaln(a + n) - special.gammaln(a) + a * np.log(b) - (a + n) * np.log(b + y.sum())


def evidence_cases() -> dict[str, Case]:
    rng = np.random.default_rng(3)
    y = rng.normal(1.0, 2.0, size=12)
    X = np.column_stack([np.ones(15), rng.normal(size=(15, 2))])
    t = X @ [1.0, -2.0, 0.5] + rng.normal(size=15)
    b = np.array([0, 0, 1, 0, 0, 0, 0, 0])
    c = np.array([0, 3, 1, 2])
    alpha, m = np.array([0.5, 1.0, 2.0, 4.0]), np.array([9, 0, 2, 1])
    w = np.array([0.3, 4.0])
    return {
        "normal mean": Case(normal_mean(12, 3.0, 2.0).condition(y=y), mean_evidence(y, 3.0, 2.0)),
        "regression": Case(regression(X, 2.0, 2.0, 1.5).condition(y=t), regression_evidence(t, X, 2.0, 2.0, 1.5)),
        "beta-bernoulli": Case(bernoulli(8).condition(y=b), bernoulli_evidence(b)),
        "gamma-poisson": Case(counts(4).condition(y=c), counts_evidence(c)),
        "dirichlet-multinomial": Case(categories(alpha, 12).condition(y=m), categories_evidence(m, alpha)),
        "gamma-exponential": Case(exponential_waits(2).condition(y=w), waits_evidence(w)),
    }
