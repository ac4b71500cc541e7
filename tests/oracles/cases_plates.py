"""Models with plates, calls of sub-models, and priors on trees."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist

from . import bijections as b
from . import logpdfs as lp
from .cases import Case, Reader, case


@case
def eight_schools():
    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    @ppl.model
    def m(sigma):
        mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
        tau = ppl.sample("tau", dist.HalfCauchy(5.0))

        @ppl.plate("school", sigma)
        def theta(s):
            theta = ppl.sample("theta", dist.Normal(mu, tau))
            ppl.sample("y", dist.Normal(theta, s))
            return theta

        ppl.record("best", jnp.max(theta))

    def hand(z):
        u = Reader(z)
        mu, (tau, det), theta = u(), b.positive(u()), u(8)
        joint = lp.normal(mu, 0.0, 5.0) + lp.half_cauchy(tau, 5.0)
        for j in range(8):
            joint = joint + lp.normal(theta[j], mu, tau) + lp.normal(y[j], theta[j], sigma[j])
        return joint, det, {"mu": mu, "tau": tau, "theta": theta, "best": jnp.max(theta)}

    parents = {"mu": set(), "tau": set(), "theta": {"mu", "tau"}, "y": {"theta"}, "best": {"theta"}}
    return Case(m(sigma).condition(y=y), hand, {"y": (8,)}, parents)


@case
def nested_plates():
    """Rows in columns, columns in rows, and the same plate names again beside them."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=(3, 2))
    y, w = rng.normal(size=(3, 2)), rng.normal(size=(2, 3, 2))

    @ppl.model
    def m(x):
        s = ppl.sample("s", dist.Gamma(3.0, 2.0))

        @ppl.plate("a", x)
        def left(row):
            m_a = ppl.sample("m_a", dist.Normal(0.0, s))

            @ppl.plate("b", row)
            def cell(v):
                c = ppl.sample("c", dist.Exponential(jnp.exp(0.1 * m_a)))
                ppl.sample("y", dist.Normal(m_a + v * c, s))
                return c

            return m_a, cell

        m_a, c = left

        @ppl.plate("b", c.T)
        def _(column):
            t = ppl.sample("t", dist.Normal(jnp.sum(column), 1.0))

            @ppl.plate("a", column)
            def _(v):
                ppl.sample("w", dist.Normal(v * t, 2.0).expand([2]), dims="pair")

    def hand(z):
        u = Reader(z)
        s, det = b.positive(u())
        m_a = u(3)
        c, d = b.positive(u(3, 2))
        t = u(2)
        u.done()
        joint = lp.gamma(s, 3.0, 2.0)
        for i in range(3):
            joint = joint + lp.normal(m_a[i], 0.0, s)
            for j in range(2):
                joint = joint + lp.exponential(c[i, j], jnp.exp(0.1 * m_a[i]))
                joint = joint + lp.normal(y[i, j], m_a[i] + x[i, j] * c[i, j], s)
        for j in range(2):
            joint = joint + lp.normal(t[j], c[0, j] + c[1, j] + c[2, j], 1.0)
            for i in range(3):
                joint = joint + lp.normal(w[j, i], c[i, j] * t[j], 2.0)
        return joint, det + d, {"m_a": m_a, "c": c, "t": t}

    parents = {"s": set(), "m_a": {"s"}, "c": {"m_a"}, "y": {"m_a", "c", "s"}, "t": {"c"}, "w": {"c", "t"}}
    return Case(m(x).condition(y=y, w=w), hand, {"y": (3, 2), "w": (2, 3, 2)}, parents)


@case
def group_effects():
    """Slices of pytrees, an index plate, a plate of size one, effects gathered by code, settings and floats."""
    rng = np.random.default_rng(12)
    n, groups = 9, 4
    rows = {"x": rng.normal(size=(n, 2)), "g": np.array([0, 1, 3, 3, 2, 0, 1, 1, 0]), "pair": (rng.normal(size=n),)}
    y = rng.normal(size=n)

    @ppl.model
    def m(rows, groups, width, robust=False):
        beta = ppl.sample("beta", dist.Normal(0.0, width).expand([2]), dims="covariate")

        @ppl.plate("only", 1)
        def tau():
            return ppl.sample("tau", dist.HalfNormal(1.0))

        @ppl.plate("group", groups)
        def effect(i):
            e = ppl.sample("e", dist.Normal(0.1 * i, tau[0]))
            return {"e": e, "twice": ppl.record("twice", 2 * e)}

        @ppl.plate("row", rows)
        def _(row):
            mean = row["x"] @ beta + effect["e"][row["g"]] + row["pair"][0]
            ppl.sample("y", dist.StudentT(5.0, mean, 1.0) if robust else dist.Normal(mean, 1.0))

    def hand(z):
        u = Reader(z)
        beta, (tau, det), e = u(2), b.positive(u()), u(groups)
        joint = sum(lp.normal(beta[k], 0.0, 2.5) for k in range(2)) + lp.half_normal(tau, 1.0)
        for i in range(groups):
            joint = joint + lp.normal(e[i], 0.1 * i, tau)
        for i in range(n):
            mean = rows["x"][i] @ beta + e[rows["g"][i]] + rows["pair"][0][i]
            joint = joint + lp.student(y[i], 5.0, mean, 1.0)
        return joint, det, {"beta": beta, "tau": tau[None], "e": e, "twice": 2 * e}

    parents = {"beta": set(), "tau": set(), "e": {"tau"}, "twice": {"e"}, "y": {"beta", "e"}}
    program = m(rows, groups, 2.5, robust=True).condition(y=y)
    return Case(program, hand, {"y": (n,)}, parents)


@case
def varying_slopes():
    """Vectors per group with a latent covariance, and a second plate that gathers whole vectors."""
    rng = np.random.default_rng(13)
    X, g, y = rng.normal(size=(6, 2)), np.array([0, 1, 2, 2, 1, 0]), rng.normal(size=6)

    @ppl.model
    def m(X, g):
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0).expand([2]).to_event(1), dims="coef")
        s = ppl.sample("s", dist.Exponential(1.0).expand([2]))
        L = ppl.sample("L", dist.LKJCholesky(2, 1.5))

        @ppl.plate("group", 3)
        def beta():
            return ppl.sample("beta", dist.MultivariateNormal(mu, scale_tril=s[:, None] * L), dims="coef")

        @ppl.plate("row", X, g)
        def _(x, g):
            ppl.sample("y", dist.Normal(x @ beta[g], 0.5))

    def hand(z):
        u = Reader(z)
        mu, (s, d1), (L, d2), beta = u(2), b.positive(u(2)), b.corr_cholesky(u(1), 2), u(3, 2)
        cov = (s[:, None] * L) @ (s[:, None] * L).T
        joint = lp.normal(mu, 0.0, 1.0) + lp.exponential(s, 1.0) + lp.lkj_cholesky(L, 1.5)
        joint = joint + sum(lp.mvn(beta[i], mu, cov) for i in range(3))
        joint = joint + sum(lp.normal(y[i], X[i] @ beta[g[i]], 0.5) for i in range(6))
        return joint, d1 + d2, {"mu": mu, "L": L, "beta": beta}

    parents = {"mu": set(), "s": set(), "L": set(), "beta": {"mu", "s", "L"}, "y": {"beta"}}
    return Case(m(X, g).condition(y=y), hand, {"y": (6,)}, parents)


@case
def calls():
    """Scopes, nested scopes, sub-programs with a condition and with an intervention, calls inside a plate."""
    rng = np.random.default_rng(14)
    y, v = rng.normal(size=3), rng.normal(size=(2, 4))

    @ppl.model
    def location(width):
        return ppl.sample("m", dist.Normal(0.0, width))

    @ppl.model
    def scale(k):
        r = ppl.sample("r", dist.Gamma(2.0, 1.0))
        s = ppl.sample("s", dist.LogNormal(ppl.call("shift", location(k)), r))
        return s

    @ppl.model
    def m(x):
        a = ppl.call("a", location(2.0))
        s = ppl.call("b", scale(0.5).condition(r=0.8))
        t = ppl.call("c", scale(0.25).do(r=1.3))

        @ppl.plate("unit", x)
        def part(x):
            inner = ppl.call("in", location(s))
            ppl.sample("v", dist.Normal(inner * x, t).expand([4]))
            return inner

        @ppl.plate("row", 3)
        def _():
            ppl.sample("y", dist.Normal(a + jnp.sum(part), 1.0))

    x = np.array([1.5, -0.5])

    def hand(z):
        u = Reader(z)
        a, shift_b, (s, d1), shift_c, (t, d2), inner = u(), u(), b.positive(u()), u(), b.positive(u()), u(2)
        u.done()
        joint = (
            lp.normal(a, 0.0, 2.0)
            + lp.gamma(0.8, 2.0, 1.0)
            + lp.normal(shift_b, 0.0, 0.5)
            + lp.lognormal(s, shift_b, 0.8)
            + lp.normal(shift_c, 0.0, 0.25)
            + lp.lognormal(t, shift_c, 1.3)
        )
        for i in range(2):
            joint = joint + lp.normal(inner[i], 0.0, s) + lp.normal(v[i], inner[i] * x[i], t)
        return joint + lp.normal(y, a + inner[0] + inner[1], 1.0), d1 + d2, {"a/m": a, "b/s": s, "in/m": inner}

    parents = {
        "a/m": set(), "b/r": set(), "b/shift/m": set(), "b/s": {"b/r", "b/shift/m"}, "c/r": set(),
        "c/shift/m": set(), "c/s": {"c/r", "c/shift/m"}, "in/m": {"b/s"}, "v": {"in/m", "c/s"}, "y": {"a/m", "in/m"},
    }  # fmt: skip
    return Case(m(x).condition(y=y, v=v), hand, {"y": (3,), "v": (2, 4), "b/r": ()}, parents)


@case
def trees():
    """Priors on the leaves of nested containers and of an Equinox module."""
    rng = np.random.default_rng(15)
    X, y = rng.normal(size=(5, 2)), rng.normal(size=5)
    net = eqx.nn.MLP(2, 1, 3, 1, activation=jnp.tanh, key=jax.random.key(0), dtype=jnp.float64)
    template = {"w": np.zeros(2), "parts": [np.zeros(()), (np.zeros((1, 2)), 3, "label")]}

    @ppl.model
    def m(X, net, template):
        t = ppl.sample_tree("t", template, lambda path, leaf: dist.Laplace(0.0, 2.0 if path == "w" else 1.0))
        f = ppl.sample_tree("net", net, dist.Normal(0.0, 0.5))

        @ppl.plate("row", X)
        def _(x):
            extra = t["parts"][0] + t["parts"][1][0][0] @ x
            ppl.sample("y", dist.Normal(f(x)[0] + t["w"] @ x + extra, 0.3))

    def hand(z):
        u = Reader(z)
        t0, t1, w = u(), u(1, 2), u(2)
        W1, b1, W2, b2 = u(3, 2), u(3), u(1, 3), u(1)
        u.done()
        joint = lp.laplace(t0, 0.0, 1.0) + lp.laplace(t1, 0.0, 1.0) + lp.laplace(w, 0.0, 2.0)
        joint = joint + sum(lp.normal(v, 0.0, 0.5) for v in (W1, b1, W2, b2))
        for i in range(5):
            f = (W2 @ jnp.tanh(W1 @ X[i] + b1) + b2)[0]
            joint = joint + lp.normal(y[i], f + w @ X[i] + t0 + t1[0] @ X[i], 0.3)
        return joint, 0.0, {"t/w": w, "t/parts/0": t0, "t/parts/1/0": t1, "net/layers/0/weight": W1}

    names = ["t/parts/0", "t/parts/1/0", "t/w"] + [f"net/layers/{i}/{k}" for i in (0, 1) for k in ("weight", "bias")]
    parents = {**{n: set() for n in names}, "y": set(names)}
    return Case(m(X, net, template).condition(y=y), hand, {"y": (5,)}, parents)
