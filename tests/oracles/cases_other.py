"""Branches, interventions, counts, censoring, mixtures, Gaussian processes, supports that depend on data."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist

from . import bijections as b
from . import logpdfs as lp
from .cases import Case, Reader, case


@case
def branches():
    """Latents in both arms keep their priors; observations count on the side that is taken; nested; in a plate."""
    y, w = np.array([0.4, -0.2]), np.array([0.3, -1.0, 2.0, 0.1])
    flags = np.array([True, False, True, True])

    @ppl.model
    def m(flags):
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        a = ppl.sample("a", dist.Normal(1.0, 1.0))

        def left():
            ppl.sample("y", dist.Normal(a, 1.0).expand([2]))
            ppl.factor("f", -jnp.abs(a))
            return ppl.sample("b", dist.Normal(a, 2.0))

        def right():
            c = ppl.sample("c", dist.Exponential(2.0))

            def deep():
                ppl.sample("v", dist.Normal(c, 0.5))
                return c

            return ppl.branch("inner", a > -0.5, deep, lambda: c + 1.0)

        chosen = ppl.branch("side", x > -0.5, left, right)

        @ppl.plate("row", flags)
        def _(flag):
            def on():
                s = ppl.sample("s", dist.HalfNormal(1.0))
                ppl.sample("w", dist.Normal(chosen, s))
                return s

            s = ppl.branch("flag", flag, on, lambda: 7.0)
            ppl.record("used", s)

    def hand(z):
        u = Reader(z)
        x, a, left, (c, d1), (s, d2) = u(), u(), u(), b.positive(u()), b.positive(u(4))
        u.done()
        joint = lp.normal(x, 0.0, 1.0) + lp.normal(a, 1.0, 1.0) + lp.normal(left, a, 2.0) + lp.exponential(c, 2.0)
        joint = joint + sum(lp.half_normal(s[i], 1.0) for i in range(4))
        joint = joint + jnp.where(x > -0.5, lp.normal(y, a, 1.0) - jnp.abs(a), 0.0)
        joint = joint + jnp.where((x <= -0.5) & (a > -0.5), lp.normal(0.9, c, 0.5), 0.0)
        chosen = jnp.where(x > -0.5, left, jnp.where(a > -0.5, c, c + 1.0))
        for i in range(4):
            joint = joint + (lp.normal(w[i], chosen, s[i]) if flags[i] else 0.0)
        return joint, d1 + d2, {"c": c, "s": s, "used": jnp.where(flags, s, 7.0)}

    pick = {"x", "a", "b", "c"}
    parents = {
        "x": set(), "a": set(), "b": {"a"}, "y": {"x", "a"}, "f": {"x", "a"}, "c": set(), "v": {"x", "a", "c"},
        "s": set(), "w": pick | {"s"}, "used": {"s"},
    }  # fmt: skip
    observed = {"y": (2,), "v": (), "w": (4,)}
    return Case(m(flags).condition(y=y, v=0.9, w=w), hand, observed, parents, scale=1.2, simulable=False)


@case
def intervention():
    """A done site has no factor, and its children still read it; records between; a factor without latents."""
    y = np.array([0.5, 1.5])

    @ppl.model
    def m(y0):
        u = ppl.sample("u", dist.Normal(0.0, 1.0))
        t = ppl.sample("t", dist.Normal(2.0 * u, 1.0))
        k = ppl.sample("k", dist.Poisson(3.0))
        mean = ppl.record("mean", t + u * k)
        ppl.factor("constant", 3.0 * jnp.ones(2) * y0)
        ppl.sample("y", dist.Laplace(mean, 2.0).expand([2]))

    def hand(z):
        u = Reader(z)()
        joint = lp.normal(u, 0.0, 1.0) + 6.0 * 0.25 + lp.laplace(y, 1.7 + 4 * u, 2.0)
        return joint, 0.0, {"u": u, "mean": 1.7 + 4 * u}

    parents = {"u": set(), "t": set(), "k": set(), "mean": {"t", "u", "k"}, "constant": set(), "y": {"t", "u", "k"}}
    return Case(m(0.25).condition(y=y).do(t=1.7, k=4), hand, {"y": (2,)}, parents, scale=1.0)


@case
def counts():
    x, n = np.random.default_rng(31).normal(size=5), np.array([5, 3, 0, 4, 5])
    # at arguments from 8 on, the log beta function in use is good to seven digits only
    data = {
        "poisson": np.array([0, 3, 1, 7, 2]),
        "binomial": np.array([4, 3, 0, 0, 2]),
        "negative": np.array([2, 0, 5, 1, 4]),
        "bernoulli": np.array([0, 1, 1, 0, 1]),
        "betabinomial": np.array([5, 1, 0, 3, 2]),
        "geometric": np.array([0, 2, 5, 1, 0]),
        "zip": np.array([0, 0, 3, 1, 0]),
        "probit": np.array([1, 0, 0, 1, 1]),
    }

    @ppl.model
    def m(x, n):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        p = ppl.sample("p", dist.Beta(2.0, 2.0))
        phi = ppl.sample("phi", dist.Gamma(2.0, 0.5))

        @ppl.plate("row", x, n)
        def _(x, n):
            t = a + 0.5 * x
            ppl.sample("poisson", dist.Poisson(jnp.exp(t)))
            ppl.sample("binomial", dist.Binomial(n, logits=t))
            ppl.sample("negative", dist.NegativeBinomial2(jnp.exp(t), phi))
            ppl.sample("bernoulli", dist.Bernoulli(logits=t))
            ppl.sample("betabinomial", dist.BetaBinomial(phi, 1.5, total_count=n))
            ppl.sample("geometric", dist.Geometric(probs=p))
            ppl.sample("zip", dist.ZeroInflatedPoisson(p, rate=phi))
            ppl.sample("probit", dist.Bernoulli(probs=p))

    def hand(z):
        u = Reader(z)
        a, (p, d1), (phi, d2) = u(), b.unit(u()), b.positive(u())
        joint = lp.normal(a, 0.0, 1.0) + lp.beta(p, 2.0, 2.0) + lp.gamma(phi, 2.0, 0.5)
        k = {name: value.astype(float) for name, value in data.items()}
        t = a + 0.5 * x
        joint = joint + lp.poisson(k["poisson"], jnp.exp(t)) + lp.bernoulli_logit(k["bernoulli"], t)
        joint = joint + lp.binomial(k["binomial"], n.astype(float), 1 / (1 + jnp.exp(-t)))
        joint = joint + lp.negative_binomial(k["negative"], jnp.exp(t), phi)
        joint = joint + lp.beta_binomial(k["betabinomial"], n.astype(float), phi, 1.5)
        joint = joint + lp.geometric(k["geometric"], p) + lp.bernoulli(k["probit"], p)
        for v in (0, 1, 3):
            mass = p * (v == 0) + (1 - p) * jnp.exp(-phi) * phi**v / math.factorial(v)
            joint = joint + np.sum(data["zip"] == v) * jnp.log(mass)
        return joint, d1 + d2, {"a": a, "p": p, "phi": phi}

    latent = {"a": set(), "p": set(), "phi": set()}
    reads = {
        "poisson": {"a"}, "binomial": {"a"}, "negative": {"a", "phi"}, "bernoulli": {"a"}, "betabinomial": {"phi"},
        "geometric": {"p"}, "zip": {"p", "phi"}, "probit": {"p"},
    }  # fmt: skip
    return Case(m(x, n).condition(data), hand, dict.fromkeys(data, (5,)), {**latent, **reads})


@case
def censoring():
    """Limits of detection, survival times of which some are lower bounds, a truncated family."""
    time = np.array([1.2, 0.4, 3.0, 2.2])
    event = np.array([True, False, True, False])
    y, t = np.array([-1.0, 0.3, 2.0, 1.9, -1.0]), np.array([0.2, 1.5, 3.3])

    @ppl.model
    def m(event):
        mu = ppl.sample("mu", dist.Normal(0.0, 2.0))
        s = ppl.sample("s", dist.truncated(dist.Normal(0.5, 1.0), low=0.1))
        ppl.sample("y", dist.censored(dist.Normal(mu, s), lower=-1.0, upper=2.0).expand([5]))
        ppl.sample("time", dist.right_censored(dist.Weibull(s, 1.5), event))
        ppl.sample("t", dist.truncated(dist.Normal(mu, s), low=-0.5, high=3.5).expand([3]))

    def hand(z):
        u = Reader(z)
        mu, (s, det) = u(), b.above(u(), 0.1)
        joint = lp.normal(mu, 0.0, 2.0) + lp.normal(s, 0.5, 1.0) - jnp.log(1 - lp.normal_cdf(0.1, 0.5, 1.0))
        for v in y:
            if v == -1.0:
                joint = joint + jnp.log(lp.normal_cdf(-1.0, mu, s))
            elif v == 2.0:
                joint = joint + jnp.log(1 - lp.normal_cdf(2.0, mu, s))
            else:
                joint = joint + lp.normal(v, mu, s)
        for v, seen in zip(time, event, strict=True):
            joint = joint + (lp.weibull(v, s, 1.5) if seen else -((v / s) ** 1.5))
        mass = lp.normal_cdf(3.5, mu, s) - lp.normal_cdf(-0.5, mu, s)
        return joint + lp.normal(t, mu, s) - 3 * jnp.log(mass), det, {"mu": mu, "s": s}

    parents = {"mu": set(), "s": set(), "y": {"mu", "s"}, "time": {"s"}, "t": {"mu", "s"}}
    program = m(event).condition(y=y, time=time, t=t)
    return Case(program, hand, {"y": (5,), "time": (4,), "t": (3,)}, parents)


@case
def mixtures():
    y, z2 = np.array([-1.0, 0.2, 3.0]), np.array([[0.1, 0.2], [2.0, -1.0]])

    @ppl.model
    def m():
        w = ppl.sample("w", dist.Dirichlet(jnp.ones(2)))
        mu = ppl.sample("mu", dist.Normal(jnp.array([-1.0, 2.0]), 1.0))

        @ppl.plate("row", 3)
        def _():
            ppl.sample("y", dist.mixture(w, [dist.Normal(mu[0], 0.5), dist.StudentT(3.0, mu[1], 1.0)]))

        parts = dist.MultivariateNormal(mu[:, None] * jnp.ones(2), jnp.eye(2))
        ppl.sample("v", dist.MixtureSameFamily(dist.Categorical(w), parts).expand([2]))

    def hand(z):
        u = Reader(z)
        (w, det), mu = b.simplex(u(1)), u(2)
        joint = lp.dirichlet(w, np.ones(2)) + lp.normal(mu, np.array([-1.0, 2.0]), 1.0)
        for v in y:
            parts = w[0] * jnp.exp(lp.normal(v, mu[0], 0.5)) + w[1] * jnp.exp(lp.student(v, 3.0, mu[1], 1.0))
            joint = joint + jnp.log(parts)
        for v in z2:
            joint = joint + jnp.log(sum(w[k] * jnp.exp(lp.normal(v, mu[k], 1.0)) for k in range(2)))
        return joint, det, {"w": w, "mu": mu}

    parents = {"w": set(), "mu": set(), "y": {"w", "mu"}, "v": {"w", "mu"}}
    return Case(m().condition(y=y, v=z2), hand, {"y": (3,), "v": (2,)}, parents)


@case
def gaussian_process():
    """A latent function by a Cholesky factor, and an observed one with a full covariance."""
    x, y = np.linspace(0.0, 2.0, 5), np.array([0.1, 0.5, 0.2, -0.4, -0.3])
    counts = np.array([1, 0, 2, 3, 1])

    @ppl.model
    def m(x):
        scale = ppl.sample("scale", dist.InverseGamma(3.0, 2.0))
        width = ppl.sample("width", dist.HalfNormal(1.0))
        gap = (x[:, None] - x) ** 2
        K = width**2 * jnp.exp(-0.5 * gap / scale**2) + 1e-6 * jnp.eye(5)
        eta = ppl.sample("eta", dist.Normal(0.0, 1.0).expand([5]).to_event(1), dims="x")
        f = ppl.record("f", jnp.linalg.cholesky(K) @ eta, dims="x")
        ppl.sample("counts", dist.Poisson(jnp.exp(f)).to_event(1))
        ppl.sample("y", dist.MultivariateNormal(jnp.mean(f) * jnp.ones(5), K + 0.25 * jnp.eye(5)))

    def hand(z):
        u = Reader(z)
        (scale, d1), (width, d2), eta = b.positive(u()), b.positive(u()), u(5)
        K = jnp.stack([width**2 * jnp.exp(-0.5 * (x[i] - x) ** 2 / scale**2) for i in range(5)]) + 1e-6 * jnp.eye(5)
        f = jnp.linalg.cholesky(K) @ eta
        joint = lp.inverse_gamma(scale, 3.0, 2.0) + lp.half_normal(width, 1.0) + lp.normal(eta, 0.0, 1.0)
        joint = joint + sum(lp.poisson(counts[i], jnp.exp(f[i])) for i in range(5))
        return joint + lp.mvn(y, jnp.sum(f) / 5, K + 0.25 * jnp.eye(5)), d1 + d2, {"eta": eta, "f": f}

    every = {"scale", "width", "eta"}
    parents = {**{n: set() for n in every}, "f": every, "counts": every, "y": every}
    return Case(m(x).condition(y=y, counts=counts), hand, {"y": (), "counts": ()}, parents, scale=0.3)


@case
def moving_support():
    """An observation that falls outside of its latent support makes the density -inf, inside it counts."""
    y = np.array([0.3, 0.9])

    @ppl.model
    def m():
        top = ppl.sample("top", dist.Gamma(2.0, 2.0))
        start = ppl.sample("start", dist.Normal(0.0, 1.0))

        @ppl.plate("row", 2)
        def _():
            ppl.sample("y", dist.Uniform(0.0, top))
            ppl.sample("w", dist.Pareto(jnp.exp(start), 2.0))

    def hand(z):
        u = Reader(z)
        (top, det), start = b.positive(u()), u()
        joint = lp.gamma(top, 2.0, 2.0) + lp.normal(start, 0.0, 1.0)
        for v, w in zip(y, (1.5, 0.8), strict=True):
            inside = (v <= top) & (w > jnp.exp(start))
            joint = joint + jnp.where(inside, -jnp.log(top) + lp.pareto(w, jnp.exp(start), 2.0), -jnp.inf)
        return joint, det, {"top": top, "start": start}

    parents = {"top": set(), "start": set(), "y": {"top"}, "w": {"start"}}
    program = m().condition(y=y, w=np.array([1.5, 0.8]))
    return Case(program, hand, {"y": (2,), "w": (2,)}, parents, scale=0.8)
