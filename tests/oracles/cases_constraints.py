"""Models whose latent sites have every kind of support."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist

from . import bijections as b
from . import logpdfs as lp
from .cases import Case, Reader, case


@case
def scalar_families():
    y = np.random.default_rng(1).normal(size=6)

    @ppl.model
    def m(x):
        loc = ppl.sample("loc", dist.StudentT(4.0, 0.5, 2.0))
        a = ppl.sample("a", dist.Gamma(2.0, 3.0))
        c = ppl.sample("c", dist.LogNormal(0.2, 0.8))
        d = ppl.sample("d", dist.HalfCauchy(1.5))
        e = ppl.sample("e", dist.InverseGamma(3.0, 2.0))
        f = ppl.sample("f", dist.Exponential(0.7))
        g = ppl.sample("g", dist.Weibull(1.3, 1.7))
        h = ppl.sample("h", dist.HalfNormal(2.0))
        p = ppl.sample("p", dist.Beta(2.0, 3.5))
        q = ppl.sample("q", dist.Gumbel(0.3, 1.2))
        r = ppl.sample("r", dist.Laplace(-0.3, 0.9))
        k = ppl.sample("k", dist.Cauchy(0.1, 2.5))
        ppl.sample("y", dist.Normal(loc * p + r * x + q + k, a + c + d + e + f + g + h), dims="row")

    x = np.linspace(-1.0, 1.0, 6)

    def hand(z):
        u = Reader(z)
        loc = u()
        s = [b.positive(u()) for _ in range(7)]
        (a, c, d, e, f, g, h), dets = [v for v, _ in s], sum(det for _, det in s)
        p, det_p = b.unit(u())
        q, r, k = u(), u(), u()
        u.done()
        joint = (
            lp.student(loc, 4.0, 0.5, 2.0)
            + lp.gamma(a, 2.0, 3.0)
            + lp.lognormal(c, 0.2, 0.8)
            + lp.half_cauchy(d, 1.5)
            + lp.inverse_gamma(e, 3.0, 2.0)
            + lp.exponential(f, 0.7)
            + lp.weibull(g, 1.3, 1.7)
            + lp.half_normal(h, 2.0)
            + lp.beta(p, 2.0, 3.5)
            + lp.gumbel(q, 0.3, 1.2)
            + lp.laplace(r, -0.3, 0.9)
            + lp.cauchy(k, 0.1, 2.5)
        )
        for i in range(6):
            joint = joint + lp.normal(y[i], loc * p + r * x[i] + q + k, a + c + d + e + f + g + h)
        return joint, dets + det_p, {"loc": loc, "a": a, "h": h, "p": p, "k": k}

    free = {n: set() for n in ["loc", *"acdefghpqrk"]}
    return Case(m(x).condition(y=y), hand, {"y": (6,)}, {**free, "y": set(free)})


@case
def intervals():
    """Constant bounds, arrays of bounds, bounds that are other sites, an observation with a latent bound."""
    low, high = np.array([-3.0, 0.0, 1.0]), np.array([-1.0, 0.5, 9.0])
    y = np.array([0.3, 0.9, 0.05])

    @ppl.model
    def m(low, high):
        a = ppl.sample("a", dist.Uniform(-2.0, 3.0))
        v = ppl.sample("v", dist.Uniform(low, high), dims="edge")
        w = ppl.sample("w", dist.HalfNormal(2.0))
        c = ppl.sample("c", dist.Uniform(a - w, a + 2.0 * w))
        t = ppl.sample("t", dist.Uniform(c, v[2] + 10.0))
        ppl.sample("y", dist.Uniform(-2.0 - w, t + 20.0).expand([3]))

    def hand(z):
        u = Reader(z)
        a, d1 = b.interval(u(), -2.0, 3.0)
        v, d2 = b.interval(u(3), low, high)
        w, d3 = b.positive(u())
        c, d4 = b.interval(u(), a - w, a + 2 * w)
        t, d5 = b.interval(u(), c, v[2] + 10.0)
        u.done()
        joint = (
            lp.uniform(a, -2.0, 3.0)
            + lp.uniform(v, low, high)
            + lp.half_normal(w, 2.0)
            + lp.uniform(c, a - w, a + 2 * w)
            + lp.uniform(t, c, v[2] + 10.0)
            + lp.uniform(y, -2.0 - w, t + 20.0)
        )
        return joint, d1 + d2 + d3 + d4 + d5, {"a": a, "v": v, "w": w, "c": c, "t": t}

    parents = {"a": set(), "v": set(), "w": set(), "c": {"a", "w"}, "t": {"c", "v"}, "y": {"w", "t"}}
    return Case(m(low, high).condition(y=y), hand, {"y": (3,)}, parents, scale=0.3)


@case
def one_sided():
    """Half-lines that start or end at other sites."""
    y = np.array([30.0, 42.0])

    @ppl.model
    def m():
        a = ppl.sample("a", dist.LogNormal(0.0, 0.5))
        x = ppl.sample("x", dist.Pareto(a, 2.5))
        lower = ppl.sample("lower", dist.TruncatedNormal(0.5, 1.5, low=a))
        upper = ppl.sample("upper", dist.TruncatedNormal(0.5, 1.5, high=x))
        both = ppl.sample("both", dist.TruncatedNormal(0.0, 2.0, low=upper - 1.0, high=upper + 2.0))
        ppl.sample("y", dist.Pareto(jnp.exp(0.1 * both) + lower, 1.5).expand([2]))

    def hand(z):
        u = Reader(z)
        a, d1 = b.positive(u())
        x, d2 = b.above(u(), a)
        lower, d3 = b.above(u(), a)
        upper, d4 = b.below(u(), x)
        both, d5 = b.interval(u(), upper - 1.0, upper + 2.0)
        u.done()
        joint = (
            lp.lognormal(a, 0.0, 0.5)
            + lp.pareto(x, a, 2.5)
            + lp.normal(lower, 0.5, 1.5)
            - jnp.log(1 - lp.normal_cdf(a, 0.5, 1.5))
            + lp.normal(upper, 0.5, 1.5)
            - jnp.log(lp.normal_cdf(x, 0.5, 1.5))
            + lp.normal(both, 0.0, 2.0)
            - jnp.log(lp.normal_cdf(upper + 2.0, 0.0, 2.0) - lp.normal_cdf(upper - 1.0, 0.0, 2.0))
            + lp.pareto(y, jnp.exp(0.1 * both) + lower, 1.5)
        )
        return joint, d1 + d2 + d3 + d4 + d5, {"x": x, "lower": lower, "upper": upper, "both": both}

    parents = {"a": set(), "x": {"a"}, "lower": {"a"}, "upper": {"x"}, "both": {"upper"}, "y": {"both", "lower"}}
    return Case(m().condition(y=y), hand, {"y": (2,)}, parents, scale=0.4)


@case
def simplexes():
    a = np.array([1.5, 2.0, 0.7, 1.0])
    counts = np.array([[3, 0, 4, 1], [1, 2, 2, 3]])
    labels = np.array([0, 3, 2, 0, 1])

    @ppl.model
    def m(a):
        p = ppl.sample("p", dist.Dirichlet(a), dims="level")

        @ppl.plate("doc", 2)
        def q():
            q = ppl.sample("q", dist.Dirichlet(3.0 * p))
            ppl.sample("counts", dist.Multinomial(8, q))
            return q

        @ppl.plate("word", 5)
        def _():
            ppl.sample("label", dist.Categorical(0.5 * (q[0] + p)))

    def hand(z):
        u = Reader(z)
        p, det = b.simplex(u(3))
        joint, qs = lp.dirichlet(p, a), []
        for i in range(2):
            q, d = b.simplex(u(3))
            qs.append(q)
            det = det + d
            joint = joint + lp.dirichlet(q, 3.0 * p) + lp.multinomial(counts[i], q)
        for y in labels:
            joint = joint + lp.categorical(y, 0.5 * (qs[0] + p))
        u.done()
        return joint, det, {"p": p, "q": jnp.stack(qs)}

    parents = {"p": set(), "q": {"p"}, "counts": {"q"}, "label": {"p", "q"}}
    return Case(m(a).condition(counts=counts, label=labels), hand, {"counts": (2,), "label": (5,)}, parents)


@case
def ordered_cutpoints():
    x, y = np.random.default_rng(2).normal(size=7), np.array([0, 1, 2, 3, 3, 0, 1])

    @ppl.model
    def m(x):
        cuts = ppl.sample(
            "cuts", dist.TransformedDistribution(dist.Normal(0.0, 1.5).expand([3]), dist.transforms.OrderedTransform())
        )
        beta = ppl.sample("beta", dist.Normal(0.0, 1.0))

        @ppl.plate("row", x)
        def _(x):
            ppl.sample("y", dist.OrderedLogistic(beta * x, cuts))

    def hand(z):
        u = Reader(z)
        free = u(3)
        cuts, det = b.ordered(free)
        beta = u()
        u.done()
        # the base vector is `free` itself: its density divided by the determinant
        joint = lp.normal(free, 0.0, 1.5) - det + lp.normal(beta, 0.0, 1.0)
        for i in range(7):
            joint = joint + lp.ordered_logistic(y[i], beta * x[i], cuts)
        return joint, det, {"cuts": cuts, "beta": beta}

    return Case(m(x).condition(y=y), hand, {"y": (7,)}, {"cuts": set(), "beta": set(), "y": {"cuts", "beta"}})


@case
def flats():
    """Improper flats on the line, the half-line, ordered positive vectors and the l1 ball, with a factor."""
    y = np.array([0.4, 1.1, 2.2])
    c = dist.constraints

    @ppl.model
    def m():
        mu = ppl.sample("mu", dist.Flat())
        s = ppl.sample("s", dist.FlatPositive())
        rates = ppl.sample("rates", dist.flat(c.positive_ordered_vector, (3,)), dims="k")
        w = ppl.sample("w", dist.flat(c.l1_ball, (3,)))
        ppl.factor("shrink", -2.0 * rates - 0.1 * rates**2)
        ppl.sample("y", dist.Normal(mu + w, s))

    def hand(z):
        u = Reader(z)
        mu = u()
        s, d1 = b.positive(u())
        rates, d2 = b.positive_ordered(u(3))
        w, d3 = b.l1_ball(u(3))
        u.done()
        joint = jnp.sum(-2 * rates - 0.1 * rates**2) + lp.normal(y, mu + w, s)
        return joint, d1 + d2 + d3, {"mu": mu, "s": s, "rates": rates, "w": w}

    parents = {"mu": set(), "s": set(), "rates": set(), "w": set(), "shrink": {"rates"}, "y": {"mu", "s", "w"}}
    return Case(m().condition(y=y), hand, {"y": (3,)}, parents, simulable=False)


@case
def lkj_cholesky():
    x = np.random.default_rng(3).normal(size=(4, 3))

    @ppl.model
    def m(n):
        L = ppl.sample("L", dist.LKJCholesky(3, 2.0))
        s = ppl.sample("s", dist.HalfNormal(2.0).expand([3]))

        @ppl.plate("row", n)
        def _():
            ppl.sample("x", dist.MultivariateNormal(jnp.zeros(3), scale_tril=s[:, None] * L))

    def hand(z):
        u = Reader(z)
        L, d1 = b.corr_cholesky(u(3), 3)
        s, d2 = b.positive(u(3))
        u.done()
        cov = jnp.diag(s) @ L @ L.T @ jnp.diag(s)
        joint = lp.lkj_cholesky(L, 2.0) + sum(lp.half_normal(s[i], 2.0) for i in range(3))
        joint = joint + sum(lp.mvn(x[i], jnp.zeros(3), cov) for i in range(4))
        return joint, d1 + d2, {"L": L, "s": s}

    return Case(m(4).condition(x=x), hand, {"x": (4,)}, {"L": set(), "s": set(), "x": {"L", "s"}})


@case
def correlation_matrix():
    x = np.random.default_rng(4).normal(size=3)

    @ppl.model
    def m():
        C = ppl.sample("C", dist.LKJ(3, 1.5))
        ppl.sample("x", dist.MultivariateNormal(jnp.zeros(3), covariance_matrix=C))

    def hand(z):
        u = Reader(z)
        C, det = b.corr_matrix(u(3), 3)
        u.done()
        return lp.lkj(C, 1.5) + lp.mvn(x, jnp.zeros(3), C), det, {"C": C}

    return Case(m().condition(x=x), hand, {"x": ()}, {"C": set(), "x": {"C"}}, scale=0.5)


@case
def covariance_matrices():
    """Wishart on positive definite matrices and its Cholesky factor on lower triangular ones."""
    x = np.random.default_rng(5).normal(size=(3, 2))
    V = np.array([[1.0, 0.3], [0.3, 0.8]])

    @ppl.model
    def m(V, x):
        S = ppl.sample("S", dist.Wishart(5.0, scale_matrix=V))
        L = ppl.sample("L", dist.WishartCholesky(4.0, scale_matrix=V))

        @ppl.plate("row", 3)
        def _():
            ppl.sample("x", dist.MultivariateNormal(jnp.zeros(2), covariance_matrix=S + L @ L.T))

    def hand(z):
        u = Reader(z)
        S, d1 = b.positive_definite(u(3), 2)
        L, d2 = b.lower_cholesky(u(3), 2)
        u.done()
        # density of L: that of L L' times |d(LL')/dL| = 2^n prod L_ii^(n - i)
        change = 2 * np.log(2.0) + 2 * jnp.log(L[0, 0]) + jnp.log(L[1, 1])
        joint = lp.wishart(S, 5.0, V) + lp.wishart(L @ L.T, 4.0, V) + change
        joint = joint + sum(lp.mvn(x[i], jnp.zeros(2), S + L @ L.T) for i in range(3))
        return joint, d1 + d2, {"S": S, "L": L}

    return Case(m(V, x).condition(x=x), hand, {"x": (3,)}, {"S": set(), "L": set(), "x": {"S", "L"}}, scale=0.4)


@case
def circle():
    y = np.array([0.3, -2.0, 3.0, 1.0])

    @ppl.model
    def m():
        mu = ppl.sample("mu", dist.VonMises(0.5, 1.3))
        k = ppl.sample("k", dist.Gamma(2.0, 1.0))
        ppl.sample("y", dist.VonMises(mu, k).expand([4]))

    def hand(z):
        u = Reader(z)
        mu, d1 = b.interval(u(), -np.pi, np.pi)
        k, d2 = b.positive(u())
        u.done()
        joint = lp.von_mises(mu, 0.5, 1.3) + lp.gamma(k, 2.0, 1.0) + sum(lp.von_mises(v, mu, k) for v in y)
        return joint, d1 + d2, {"mu": mu, "k": k}

    return Case(m().condition(y=y), hand, {"y": (4,)}, {"mu": set(), "k": set(), "y": {"mu", "k"}})


@case
def sum_to_zero():
    group = np.array([0, 3, 1, 1, 2])
    y = np.array([0.1, 0.5, -0.3, 0.9, 2.0])

    @ppl.model
    def m(group):
        s = ppl.sample("s", dist.HalfNormal(1.0))
        e = ppl.sample("e", dist.ZeroSumNormal(s, (4,)), dims="group")

        @ppl.plate("row", group)
        def _(g):
            ppl.sample("y", dist.Normal(e[g], 0.7))

    def hand(z):
        u = Reader(z)
        s, d1 = b.positive(u())
        free = u(3)
        e, d2 = b.zero_sum(free)
        u.done()
        # the normal density on the plane of dimension 3
        joint = lp.half_normal(s, 1.0) - 0.5 * jnp.sum(e**2) / s**2 - 3 * jnp.log(s) - 1.5 * lp.LOG_2PI
        joint = joint + sum(lp.normal(y[i], e[group[i]], 0.7) for i in range(5))
        return joint, d1 + d2, {"s": s, "e": e}

    return Case(m(group).condition(y=y), hand, {"y": (5,)}, {"s": set(), "e": {"s"}, "y": {"e"}})
