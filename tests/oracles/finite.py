"""Models with finite latent sites, small enough that all their codes can be enumerated."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist

NOISE = np.random.default_rng(20).normal(size=24)
ROWS = np.array([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2]])


def configurations(density):
    """All codes of a density that keeps them, as an array (number, codes)."""
    return np.array(list(itertools.product(*map(range, density.finite))), dtype=float).reshape(-1, len(density.finite))


@jax.jit
def _all(density, z, codes):
    def total(z):
        terms = jax.vmap(lambda c: density(jnp.concatenate([z, c])))(codes)
        return jax.nn.logsumexp(terms), terms

    (value, terms), gradient = jax.value_and_grad(total, has_aux=True)(z)
    return value, gradient, terms


def enumerated(program, z):
    """Log density, its gradient, and the log weight of every configuration of codes, by brute force."""
    density = ppl.compile(program, marginalize=False, collapse=False)
    codes = configurations(density)
    value, gradient, terms = _all(density, jnp.asarray(z), jnp.asarray(codes))
    return float(value), np.asarray(gradient), codes, np.asarray(terms)


@ppl.model
def mixture(n):
    w = ppl.sample("w", dist.Dirichlet(jnp.ones(3)))
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0).expand([3]))

    @ppl.plate("i", n)
    def row(_):
        k = ppl.sample("k", dist.Categorical(w))
        ppl.sample("y", dist.Normal(mu[k], 1.0))


@ppl.model
def vector(n):
    w = ppl.sample("w", dist.Dirichlet(jnp.ones(3)))
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0).expand([3]))
    k = ppl.sample("k", dist.Categorical(w).expand([n]))
    ppl.sample("y", dist.Normal(mu[k], 1.0))


@ppl.model
def long_format(group):
    w = ppl.sample("w", dist.Dirichlet(jnp.ones(3)))
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0).expand([3]))
    k = ppl.plate("g", lambda: ppl.sample("k", dist.Categorical(w)), 3)

    @ppl.plate("i", group)
    def row(g):
        ppl.sample("y", dist.Normal(mu[k[g]], 1.0))


@ppl.model
def long_format_nested(group):
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0).expand([3]))
    k = ppl.plate("g", lambda: ppl.sample("k", dist.Categorical(jnp.asarray(ROWS[0]))), 3)

    @ppl.plate("i", group)
    def row(g):
        m = ppl.sample("m", dist.Bernoulli(0.3 + 0.1 * k[g]))
        ppl.sample("y", dist.Normal(mu[k[g]], 1.0 + m))


@ppl.model
def nested():
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0).expand([2]))
    s = ppl.sample("s", dist.Bernoulli(0.3))

    @ppl.plate("g", 2)
    def group(_):
        k = ppl.sample("k", dist.Categorical(jnp.asarray(ROWS[0])))

        @ppl.plate("i", 2)
        def row(_):
            m = ppl.sample("m", dist.Bernoulli(0.1 + 0.2 * k))
            ppl.sample("y", dist.Normal(mu[m] + k * s, 1.0))


@ppl.model
def joint(n):
    z = ppl.sample("z", dist.Bernoulli(0.3).expand([3]))
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0))

    @ppl.plate("i", n)
    def row(_):
        ppl.sample("y", dist.Normal(mu + z.sum(), 1.0))


@ppl.model
def ordinal(n):
    p = ppl.sample("p", dist.Beta(1.0, 1.0))

    @ppl.plate("i", n)
    def row(_):
        k = ppl.sample("k", dist.DiscreteUniform(2, 4))
        x = ppl.sample("x", dist.Normal(1.0 * k, 1.0))
        ppl.sample("y", dist.Binomial(4, p ** (k - 1)))
        ppl.record("gap", x - k)


@ppl.model
def hmm(n):
    p = ppl.sample("p", dist.Dirichlet(jnp.ones(3)).expand([3]))
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0).expand([3]))

    def step(z, _):
        z = ppl.sample("z", dist.Categorical(p[z]))
        ppl.sample("y", dist.Normal(mu[z], 1.0))
        return z

    ppl.markov("t", step, init=lambda: ppl.sample("z0", dist.Categorical(jnp.ones(3) / 3)), xs=n)


@ppl.model
def second_order(n):
    p = ppl.sample("p", dist.Beta(1.0, 1.0).expand([2, 2]))

    def step(carry, _):
        a, b = carry
        z = ppl.sample("z", dist.Bernoulli(p[a, b]))
        ppl.sample("y", dist.Normal(1.0 * z, 1.0))
        return z, a

    ppl.markov("t", step, init=(0, 1), xs=n)


@ppl.model
def factorial(n):
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0).expand([2]))

    def step(carry, _):
        a, b = carry
        u = ppl.sample("u", dist.Bernoulli(0.2 + 0.5 * a))
        v = ppl.sample("v", dist.Categorical(jnp.asarray(ROWS)[b]))
        ppl.sample("y", dist.Normal(mu[0] * u + mu[1] * v, 1.0))
        return u, v

    ppl.markov("t", step, init=(0, 1), xs=n)


@ppl.model
def panel(subjects, n):
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0).expand([2]))
    rows = jnp.array([[0.7, 0.3], [0.2, 0.8]])

    @ppl.plate("s", subjects)
    def subject(_):
        c = ppl.sample("c", dist.Bernoulli(0.4))

        def step(a, _):
            z = ppl.sample("z", dist.Categorical(rows[a]))

            @ppl.plate("r", 2)
            def replicate(_):
                m = ppl.sample("m", dist.Bernoulli(0.3 + 0.1 * z))
                ppl.sample("y", dist.Normal(mu[z] + m + c, 1.0))

            return z

        ppl.markov("t", step, init=lambda: ppl.sample("z0", dist.Bernoulli(0.5)), xs=n)


@ppl.model
def crossed():
    ppl.sample("mu", dist.Normal(0.0, 1.0))
    a = ppl.plate("a", lambda: ppl.sample("r", dist.Bernoulli(0.3)), 2)
    b = ppl.plate("b", lambda: ppl.sample("c", dist.Bernoulli(0.4)), 3)

    @ppl.plate("x", a)
    def x(one):
        @ppl.plate("y_", b)
        def y(two):
            ppl.sample("y", dist.Normal(1.0 * one * two, 1.0))


@ppl.model
def reversed_reading(n):
    mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
    k = ppl.plate("i", lambda i: ppl.sample("k", dist.Bernoulli(0.1 + 0.2 * i)), n)

    @ppl.plate("i", k[::-1])
    def row(k):
        ppl.sample("y", dist.Normal(mu + 2.0 * k, 1.0))


@ppl.model
def late_observations(times):
    """Observations of a chain at some times, in long format."""
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0).expand([2]))
    rows = jnp.array([[0.7, 0.3], [0.2, 0.8]])
    states = ppl.markov("t", lambda z, _: ppl.sample("z", dist.Categorical(rows[z])), init=0, xs=4)

    @ppl.plate("i", times)
    def row(t):
        ppl.sample("y", dist.Normal(mu[states[t]], 1.0))


@ppl.model
def hierarchical(n):
    """A continuous site whose prior and bijection depend on a finite one."""
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0).expand([2]))

    @ppl.plate("i", n)
    def row(_):
        k = ppl.sample("k", dist.Bernoulli(0.4))
        x = ppl.sample("x", dist.Normal(mu[k], 1.0 + k))
        u = ppl.sample("u", dist.Uniform(0.0, 1.0 + k))
        ppl.sample("y", dist.Normal(x + u, 0.5))


CASES = {
    "mixture": lambda: mixture(4).condition(y=NOISE[:4]),
    "vector": lambda: vector(4).condition(y=NOISE[:4]),
    "long format": lambda: long_format(np.array([0, 2, 2, 1, 0])).condition(y=NOISE[:5]),
    "long format, nested": lambda: long_format_nested(np.array([0, 2, 2, 1])).condition(y=NOISE[:4]),
    "nested": lambda: nested().condition(y=NOISE[:4].reshape(2, 2)),
    "joint": lambda: joint(4).condition(y=NOISE[:4]),
    "ordinal": lambda: ordinal(3).condition(y=np.array([0, 3, 4])),
    "hmm": lambda: hmm(4).condition(y=NOISE[:4]),
    "hmm of one step": lambda: hmm(1).condition(y=NOISE[:1]),
    "second order": lambda: second_order(4).condition(y=NOISE[:4]),
    "factorial": lambda: factorial(3).condition(y=NOISE[:3]),
    "panel": lambda: panel(1, 2).condition(y=NOISE[:4].reshape(1, 2, 2)),
    "panel of two": lambda: panel(2, 1).condition(y=NOISE[:4].reshape(2, 1, 2)),
    "crossed": lambda: crossed().condition(y=NOISE[:6].reshape(2, 3)),
    "reversed": lambda: reversed_reading(4).condition(y=NOISE[:4]),
    "late observations": lambda: late_observations(np.array([0, 0, 3])).condition(y=NOISE[:3]),
    "hierarchical": lambda: hierarchical(3).condition(y=NOISE[:3]),
}
