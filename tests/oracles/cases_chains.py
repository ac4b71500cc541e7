"""Chains: state spaces, chains in plates in chains, and deterministic recursions inside a model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist

from . import bijections as b
from . import logpdfs as lp
from .cases import Case, Reader, case


@case
def state_space():
    y = np.random.default_rng(21).normal(size=6)

    @ppl.model
    def m(n):
        phi = ppl.sample("phi", dist.Uniform(-1.0, 1.0))
        q = ppl.sample("q", dist.HalfNormal(1.0))
        r = ppl.sample("r", dist.HalfNormal(1.0))

        def start():
            return ppl.sample("x0", dist.Normal(0.0, 2.0))

        @ppl.markov("time", init=start, xs=n)
        def xs(x, _):
            x = ppl.sample("x", dist.Normal(phi * x, q))
            ppl.sample("y", dist.Normal(x, r))
            return x

        ppl.record("last", xs[-1])

    def hand(z):
        u = Reader(z)
        (phi, d1), (q, d2), (r, d3) = b.interval(u(), -1.0, 1.0), b.positive(u()), b.positive(u())
        x0, x = u(), u(6)
        u.done()
        joint = lp.uniform(phi, -1.0, 1.0) + lp.half_normal(q, 1.0) + lp.half_normal(r, 1.0) + lp.normal(x0, 0.0, 2.0)
        before = x0
        for t in range(6):
            joint = joint + lp.normal(x[t], phi * before, q) + lp.normal(y[t], x[t], r)
            before = x[t]
        return joint, d1 + d2 + d3, {"phi": phi, "x0": x0, "x": x, "last": x[5]}

    parents = {
        "phi": set(), "q": set(), "r": set(), "x0": set(), "x": {"x", "x0", "phi", "q"}, "y": {"x", "r"}, "last": {"x"},
    }  # fmt: skip
    return Case(m(6).condition(y=y), hand, {"y": (6,)}, parents)


@case
def local_trend():
    """A tuple of carries from given values, inputs in a pytree, and a record."""
    rng = np.random.default_rng(22)
    xs = {"step": rng.uniform(0.5, 2.0, size=5), "shock": rng.normal(size=(5, 2))}
    y = rng.normal(size=(5, 2))

    @ppl.model
    def m(xs, first):
        s = ppl.sample("s", dist.LogNormal(0.0, 0.5).expand([2]))

        def step(carry, x):
            level, (slope,) = carry
            slope = ppl.sample("slope", dist.Normal(slope, s[0] * jnp.sqrt(x["step"])))
            level = ppl.record("level", level + slope * x["step"])
            ppl.sample("y", dist.Normal(level + x["shock"], s[1]))
            return level, (slope,)

        level, (slope,) = ppl.markov("time", step, init=(first, (0.0,)), xs=xs)
        ppl.factor("end", -0.5 * (level[-1] + slope[0]) ** 2)

    def hand(z):
        u = Reader(z)
        (s, det), slope = b.positive(u(2)), u(5)
        joint, level, before, levels = lp.lognormal(s, 0.0, 0.5), 1.5, 0.0, []
        for t in range(5):
            joint = joint + lp.normal(slope[t], before, s[0] * np.sqrt(xs["step"][t]))
            level = level + slope[t] * xs["step"][t]
            joint = joint + lp.normal(y[t], level + xs["shock"][t], s[1])
            before = slope[t]
            levels.append(level)
        return joint - 0.5 * (level + slope[0]) ** 2, det, {"slope": slope, "level": jnp.stack(levels)}

    parents = {"s": set(), "slope": {"slope", "s"}, "level": {"slope"}, "y": {"slope", "s"}, "end": {"slope"}}
    return Case(m(xs, 1.5).condition(y=y), hand, {"y": (5, 2)}, parents, simulable=False)


@case
def plate_markov_plate():
    """Regions, each with a chain over years, each year with sites: three levels of explicit loops."""
    rng = np.random.default_rng(23)
    base, y = rng.normal(size=2), rng.poisson(3.0, size=(2, 3, 4))
    effort = rng.uniform(1.0, 2.0, size=(2, 3, 4))

    @ppl.model
    def m(base, effort):
        rho = ppl.sample("rho", dist.Beta(4.0, 2.0))

        @ppl.plate("region", base, effort)
        def path(base, effort):
            q = ppl.sample("q", dist.HalfNormal(0.5))

            @ppl.markov("year", init=lambda: ppl.sample("n0", dist.Normal(base, 1.0)), xs=effort)
            def path(n, effort):
                n = ppl.sample("n", dist.Normal(rho * n, q))

                @ppl.plate("place", effort)
                def e(effort):
                    e = ppl.sample("e", dist.Normal(0.2 * n, 1.0))
                    ppl.sample("y", dist.Poisson(effort * jnp.exp(n + 0.5 * e)))
                    return e

                return n + 0.1 * jnp.mean(e)

            return path

        ppl.record("final", path[:, -1])

    def hand(z):
        u = Reader(z)
        (rho, d1), (q, d2), n0, n, e = b.unit(u()), b.positive(u(2)), u(2), u(2, 3), u(2, 3, 4)
        u.done()
        joint, final = lp.beta(rho, 4.0, 2.0), []
        for i in range(2):
            joint = joint + lp.half_normal(q[i], 0.5) + lp.normal(n0[i], base[i], 1.0)
            before = n0[i]
            for t in range(3):
                joint = joint + lp.normal(n[i, t], rho * before, q[i])
                for j in range(4):
                    rate = effort[i, t, j] * jnp.exp(n[i, t] + 0.5 * e[i, t, j])
                    joint = joint + lp.normal(e[i, t, j], 0.2 * n[i, t], 1.0) + lp.poisson(y[i, t, j], rate)
                before = n[i, t] + 0.1 * (e[i, t, 0] + e[i, t, 1] + e[i, t, 2] + e[i, t, 3]) / 4
            final.append(before)
        return joint, d1 + d2, {"q": q, "n0": n0, "n": n, "e": e, "final": jnp.stack(final)}

    parents = {
        "rho": set(), "q": set(), "n0": set(), "n": {"n", "n0", "e", "rho", "q"}, "e": {"n"}, "y": {"n", "e"},
        "final": {"n", "e"},
    }  # fmt: skip
    return Case(m(base, effort).condition(y=y), hand, {"y": (2, 3, 4)}, parents, scale=0.4)


@case
def chain_in_chain():
    """Days of hours: the inner chain starts where the day before ended; a plate around an inner chain beside it."""
    y = np.random.default_rng(24).normal(size=(3, 4))

    @ppl.model
    def m():
        s = ppl.sample("s", dist.HalfNormal(1.0))

        def day(carry, d):
            drift = ppl.sample("drift", dist.Normal(0.0, 0.5))

            @ppl.markov("hour", init=carry, xs=4)
            def hours(x, h):
                x = ppl.sample("x", dist.Normal(x + drift * h, s))
                ppl.sample("y", dist.Normal(x, 1.0 + 0.1 * d))
                return x

            return hours[-1]

        ppl.markov("day", day, init=0.5, xs=3)

        @ppl.plate("line", 2)
        def _():
            def step(carry, _):
                return ppl.sample("v", dist.StudentT(4.0, 0.5 * carry, s))

            ppl.markov("step", step, init=0.0, xs=2)

    def hand(z):
        u = Reader(z)
        (s, det), drift, x, v = b.positive(u()), u(3), u(3, 4), u(2, 2)
        u.done()
        joint, before = lp.half_normal(s, 1.0), 0.5
        for d in range(3):
            joint = joint + lp.normal(drift[d], 0.0, 0.5)
            for h in range(4):
                joint = joint + lp.normal(x[d, h], before + drift[d] * h, s) + lp.normal(y[d, h], x[d, h], 1 + 0.1 * d)
                before = x[d, h]
        for i in range(2):
            joint = joint + lp.student(v[i, 0], 4.0, 0.0, s) + lp.student(v[i, 1], 4.0, 0.5 * v[i, 0], s)
        return joint, det, {"drift": drift, "x": x, "v": v}

    parents = {"s": set(), "drift": set(), "x": {"x", "drift", "s"}, "y": {"x"}, "v": {"v", "s"}}
    return Case(m().condition(y=y), hand, {"y": (3, 4)}, parents)


@case
def hidden_markov():
    """Two hidden states summed by the forward recursion in a plain scan: a factor."""
    y = np.array([-1.2, -0.8, 1.4, 0.9, -1.0])

    @ppl.model
    def m(y):
        P = ppl.sample("P", dist.Dirichlet(jnp.array([2.0, 1.0])).expand([2]))
        mu = ppl.sample("mu", dist.Normal(jnp.array([-1.0, 1.0]), 1.0))
        s = ppl.sample("s", dist.HalfNormal(1.0))

        def step(alpha, y):
            alpha = jax.nn.logsumexp(alpha[:, None] + jnp.log(P), axis=0) + dist.Normal(mu, s).log_prob(y)
            return alpha, None

        alpha, _ = jax.lax.scan(step, jnp.log(jnp.full(2, 0.5)) + dist.Normal(mu, s).log_prob(y[0]), y[1:])
        ppl.factor("y", jax.nn.logsumexp(alpha))
        ppl.record("filtered", jax.nn.softmax(alpha))

    def hand(z):
        u = Reader(z)
        rows = [b.simplex(u(1)) for _ in range(2)]
        P, mu = jnp.stack([v for v, _ in rows]), u(2)
        s, d = b.positive(u())
        joint = sum(lp.dirichlet(P[k], np.array([2.0, 1.0])) for k in range(2))
        joint = joint + lp.normal(mu, np.array([-1.0, 1.0]), 1.0) + lp.half_normal(s, 1.0)
        path = np.array(list(np.ndindex(*(2,) * 5)))  # all 32 of them
        emission = -0.5 * ((y - mu[path]) / s) ** 2 - jnp.log(s) - 0.5 * lp.LOG_2PI
        steps = jnp.log(P[path[:, :-1], path[:, 1:]])
        joint = joint + jnp.log(jnp.sum(0.5 * jnp.exp(jnp.sum(emission, 1) + jnp.sum(steps, 1))))
        return joint, rows[0][1] + rows[1][1] + d, {"P": P, "mu": mu, "s": s}

    every = {"P", "mu", "s"}
    parents = {**{n: set() for n in every}, "y": every, "filtered": every}
    return Case(m(y), hand, {}, parents, simulable=False)


@case
def volatility():
    """A chain whose carry is computed from the observed past: GARCH(1, 1)."""
    y = np.random.default_rng(25).normal(size=6)

    @ppl.model
    def m(n):
        a0 = ppl.sample("a0", dist.FlatPositive())
        a1 = ppl.sample("a1", dist.Uniform(0.0, 1.0))
        b1 = ppl.sample("b1", dist.Uniform(0.0, 1.0 - a1))

        def step(carry, _):
            before, s = carry
            s = jnp.sqrt(a0 + a1 * before**2 + b1 * s**2)
            return ppl.sample("y", dist.Normal(0.3, s)), s

        ppl.markov("time", step, init=(0.0, 1.0), xs=n)

    def hand(z):
        u = Reader(z)
        (a0, d0), (a1, d1) = b.positive(u()), b.unit(u())
        b1, d2 = b.interval(u(), 0.0, 1.0 - a1)
        joint, before, s = -jnp.log(1.0 - a1), 0.0, 1.0
        for t in range(6):
            s = jnp.sqrt(a0 + a1 * before**2 + b1 * s**2)
            joint = joint + lp.normal(y[t], 0.3, s)
            before = y[t]
        return joint, d0 + d1 + d2, {"a0": a0, "a1": a1, "b1": b1}

    parents = {"a0": set(), "a1": set(), "b1": {"a1"}, "y": {"y", "a0", "a1", "b1"}}
    return Case(m(6).condition(y=y), hand, {"y": (6,)}, parents, simulable=False)
