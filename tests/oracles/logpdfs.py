"""Log densities as their textbook formulas, one scalar (or one vector) at a time; arrays are summed."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, i0e, ndtr

LOG_2PI = float(np.log(2.0 * np.pi))


def normal(x, m, s):
    return jnp.sum(-0.5 * ((x - m) / s) ** 2 - jnp.log(s * jnp.ones_like(x - m)) - 0.5 * LOG_2PI)


def half_normal(x, s):
    return jnp.sum(-0.5 * (x / s) ** 2 + np.log(2.0 / np.pi) / 2.0 - jnp.log(s))


def half_cauchy(x, s):
    return jnp.sum(np.log(2.0 / np.pi) - jnp.log(s) - jnp.log1p((x / s) ** 2))


def cauchy(x, m, s):
    return jnp.sum(-np.log(np.pi) - jnp.log(s) - jnp.log1p(((x - m) / s) ** 2))


def student(x, nu, m, s):
    c = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * jnp.log(nu * np.pi) - jnp.log(s)
    return jnp.sum(c - (nu + 1) / 2 * jnp.log1p(((x - m) / s) ** 2 / nu))


def lognormal(x, m, s):
    return normal(jnp.log(x), m, s) - jnp.sum(jnp.log(x))


def exponential(x, rate):
    return jnp.sum(jnp.log(rate) - rate * x)


def gamma(x, a, rate):
    return jnp.sum(a * jnp.log(rate) - gammaln(a) + (a - 1) * jnp.log(x) - rate * x)


def inverse_gamma(x, a, scale):
    return jnp.sum(a * jnp.log(scale) - gammaln(a) - (a + 1) * jnp.log(x) - scale / x)


def beta(x, a, b):
    return jnp.sum(gammaln(a + b) - gammaln(a) - gammaln(b) + (a - 1) * jnp.log(x) + (b - 1) * jnp.log1p(-x))


def uniform(x, low, high):
    return jnp.sum(-jnp.log(high - low) * jnp.ones_like(x))


def pareto(x, scale, alpha):
    return jnp.sum(jnp.log(alpha) + alpha * jnp.log(scale) - (alpha + 1) * jnp.log(x))


def weibull(x, scale, k):
    return jnp.sum(jnp.log(k / scale) + (k - 1) * jnp.log(x / scale) - (x / scale) ** k)


def gumbel(x, m, s):
    t = (x - m) / s
    return jnp.sum(-t - jnp.exp(-t) - jnp.log(s))


def laplace(x, m, s):
    return jnp.sum(-jnp.abs(x - m) / s - jnp.log(2.0 * s))


def von_mises(x, m, k):
    return jnp.sum(k * jnp.cos(x - m) - LOG_2PI - (jnp.log(i0e(k)) + k))


def dirichlet(x, a):
    return gammaln(jnp.sum(a)) - jnp.sum(gammaln(a)) + jnp.sum((a - 1) * jnp.log(x))


def mvn(x, m, cov):
    """By an explicit inverse and determinant."""
    d = x - m
    return -0.5 * d @ jnp.linalg.inv(cov) @ d - 0.5 * jnp.linalg.slogdet(cov)[1] - 0.5 * x.shape[0] * LOG_2PI


def log_multigamma(a, n):
    return n * (n - 1) / 4 * np.log(np.pi) + sum(gammaln(a - j / 2) for j in range(n))


def wishart(S, nu, V):
    n = V.shape[0]
    return (
        (nu - n - 1) / 2 * jnp.linalg.slogdet(S)[1]
        - jnp.trace(jnp.linalg.inv(V) @ S) / 2
        - nu * n / 2 * np.log(2.0)
        - nu / 2 * jnp.linalg.slogdet(V)[1]
        - log_multigamma(nu / 2, n)
    )


def lkj_constant(n, eta):
    """Log of the integral of det(C)^(eta - 1) over correlation matrices (Lewandowski et al., 2009)."""
    total = 0.0
    for k in range(1, n):
        a = eta + (n - 1 - k) / 2
        beta_log = 2 * gammaln(a) - gammaln(2 * a)
        total = total + (n - k) * ((2 * eta - 2 + n - k) * np.log(2.0) + beta_log)
    return total


def lkj(C, eta):
    n = C.shape[0]
    return (eta - 1) * jnp.linalg.slogdet(C)[1] - lkj_constant(n, eta)


def lkj_cholesky(L, eta):
    """The density of C times |dC/dL| = prod_j L_jj^(n - 1 - j)."""
    n = L.shape[0]
    d = jnp.diagonal(L)
    return lkj(L @ L.T, eta) + jnp.sum((n - 1 - np.arange(n)) * jnp.log(d))


def bernoulli(y, p):
    return jnp.sum(jnp.where(y == 1, jnp.log(p), jnp.log1p(-p)))


def bernoulli_logit(y, t):
    return jnp.sum(y * t - jnp.logaddexp(0.0, t))


def log_choose(n, k):
    return gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)


def binomial(y, n, p):
    return jnp.sum(log_choose(n, y) + y * jnp.log(p) + (n - y) * jnp.log1p(-p))


def beta_binomial(y, n, a, b):
    def log_beta(u, v):
        return gammaln(u) + gammaln(v) - gammaln(u + v)

    return jnp.sum(log_choose(n, y) + log_beta(y + a, n - y + b) - log_beta(a, b))


def poisson(y, rate):
    return jnp.sum(y * jnp.log(rate) - rate - gammaln(y + 1.0))


def negative_binomial(y, mean, phi):
    c = gammaln(y + phi) - gammaln(phi) - gammaln(y + 1.0)
    return jnp.sum(c + phi * jnp.log(phi / (phi + mean)) + y * jnp.log(mean / (phi + mean)))


def geometric(y, p):
    return jnp.sum(jnp.log(p) + y * jnp.log1p(-p))


def categorical(y, p):
    return jnp.log(p[y])


def multinomial(y, p):
    n = jnp.sum(y)
    return gammaln(n + 1.0) - jnp.sum(gammaln(y + 1.0)) + jnp.sum(y * jnp.log(p))


def ordered_logistic(y, eta, cuts):
    """P(y = k) = s(c_k - eta) - s(c_(k-1) - eta)."""
    below = jnp.concatenate([jnp.zeros(1), 1.0 / (1.0 + jnp.exp(eta - cuts)), jnp.ones(1)])
    return jnp.log(below[y + 1] - below[y])


def normal_cdf(x, m, s):
    return ndtr((x - m) / s)
