r"""Logarithms of the incomplete gamma and beta integrals, accurate and differentiable in the tails.

With :math:`K = x^a e^{-x} / \Gamma(a+1)` the lower integral is the power series

    P(a, x) = K \sum_n x^n / ((a+1) ... (a+n)),

the upper one Q(a, x) the continued fraction a K / (x + 1 - a - 1 (1-a) / (x + 3 - a - ...)); likewise the
beta integral I_x(a, b) = x^a y^b / (a B(a, b)) times a continued fraction. The prefactors are written as
saddle-point deviances, so no large terms cancel in single precision, and all stays on the log scale, so
nothing underflows. Derivatives in the shape parameters differentiate the loops forward, derivatives in x are
densities; they are linear in the tangents, hence reverse mode works too.

References: Press et al. (2007), Numerical Recipes, sections 6.2 and 6.4; Loader (2000), Fast and accurate
computation of binomial probabilities.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

__all__ = ["log1mexp", "log_betainc", "log_diff", "log_gammainc", "log_gammaincc", "log_student_sf"]

_LIMIT = 20_000  # loop bound; about 6 sqrt(a) turns are needed at the worst place, x = a


def log1mexp(x):
    """Return log(1 - exp(x)) for x <= 0, with finite gradients at x = -inf.

    >>> round(float(log1mexp(-0.5)), 4)
    -0.9328
    """
    near = x > -math.log(2.0)
    low = jnp.where(near | (x == -jnp.inf), -1.0, x)
    high = jnp.where(near & (x < 0), x, -0.5)
    value = jnp.where(near, jnp.log(-jnp.expm1(high)), jnp.log1p(-jnp.exp(low)))
    return jnp.where(x >= 0, -jnp.inf, jnp.where(x == -jnp.inf, 0.0, value))


def log_diff(big, small):
    """Return log(exp(big) - exp(small)) for big >= small, safe when either is -inf.

    >>> import math
    >>> round(float(log_diff(math.log(3.0), math.log(1.0))), 4)
    0.6931
    """
    big, small = jnp.asarray(big), jnp.asarray(small)
    empty = big <= small
    gap = jnp.where(empty | (small == -jnp.inf), -1.0, small - jnp.where(empty, 0.0, big))
    value = big + jnp.where(small == -jnp.inf, 0.0, log1mexp(gap))
    return jnp.where(empty, -jnp.inf, value)


def _float(*args):
    dtype = jnp.result_type(float, *args)
    return jnp.broadcast_arrays(*(jnp.asarray(a, dtype) for a in args))


def _stirling(z):
    """lgamma(z) minus its leading Stirling terms (z - 1/2) log z - z + log(2 pi) / 2."""
    big = z > 20.0
    s = jnp.where(big, z, 20.0)
    r = 1.0 / (s * s)
    series = (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r / 1188)))) / s
    t = jnp.where(big, 1.0, z)
    exact = lax.lgamma(t) - (t - 0.5) * jnp.log(t) + t - 0.5 * math.log(2 * math.pi)
    return jnp.where(big, series, exact)


def _log_ratio(x, a, difference):
    """log(x / a) given x - a, by log1p where the two are close."""
    mu = difference / a
    close = jnp.abs(mu) < 0.5
    return jnp.where(close, jnp.log1p(jnp.where(close, mu, 0.0)), jnp.log(x) - jnp.log(a))


def _gamma_kernel(a, x):
    """Log of x^a e^-x / Gamma(a + 1)."""
    d = x - a
    return a * _log_ratio(x, a, d) - d - 0.5 * jnp.log(2 * math.pi * a) - _stirling(a)


def _loop(turn, state, done):
    """Run `turn(i, state)` until `done(state)` holds everywhere (or the bound is met)."""

    def open_(carry):
        i, s = carry
        return (i < _LIMIT) & ~jnp.all(done(s))

    return lax.while_loop(open_, lambda c: (c[0] + 1, turn(c[0].astype(c[1][0].dtype), c[1])), (1, state))[1]


def _gamma_series(a, x):
    eps = jnp.finfo(x.dtype).eps / 8

    def turn(i, s):
        term, total = s
        term = term * x / (a + i)
        return term, total + term

    one = jnp.ones_like(x)
    return jnp.log(_loop(turn, (one, one), lambda s: ~(s[0] > eps * s[1]))[1])


def _lentz_turn(step, i, state, params):
    """One turn of the modified Lentz recursion; the state is (c, d, h, last factor of h)."""
    c, d, h, _ = state
    tiny = jnp.asarray(jnp.finfo(h.dtype).tiny * 1e10, h.dtype)
    an, bn = step(i, *params)
    d, c = an * d + bn, bn + an / c
    d = 1.0 / jnp.where(jnp.abs(d) < tiny, tiny, d)
    c = jnp.where(jnp.abs(c) < tiny, tiny, c)
    return c, d, h * c * d, c * d


def _lentz_start(step, params):
    b0 = step(jnp.zeros((), params[0].dtype), *params)[1]
    d = 1.0 / b0
    return jnp.full_like(b0, 1e28), d, d, jnp.full_like(b0, 2.0)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _lentz(step, params):
    """Evaluate 1 / (b_0 + a_1 / (b_1 + a_2 / ...)), where `step(i, *params)` gives (a_i, b_i) and b_0 > 0."""
    eps = jnp.finfo(params[0].dtype).eps
    state = _lentz_start(step, params)

    def done(s):
        return ~(jnp.abs(s[3] - 1.0) > eps)

    return _loop(lambda i, s: _lentz_turn(step, i, s, params), state, done)[2]


@_lentz.defjvp
def _lentz_rule(step, primals, tangents):
    # The derivative converges by its own count: at whole shapes the fraction ends, its derivative does not.
    (params,), (moves,) = primals, tangents
    eps = jnp.finfo(params[0].dtype).eps

    def turn(i, both):
        state, move = both[:4], both[4:]
        out, move = jax.jvp(lambda s, p: _lentz_turn(step, i, s, p), (state, params), (move, moves))
        return (*out, *move)

    def done(both):
        scale = jnp.maximum(1.0, jnp.abs(both[6] / both[2]))
        return ~(jnp.abs(both[3] - 1.0) > eps) & ~(jnp.abs(both[7]) > eps * scale)

    state, move = jax.jvp(lambda p: _lentz_start(step, p), (params,), (moves,))
    # The value is computed apart: it must not depend on the tangents, which may be batched.
    return _lentz(step, params), _loop(turn, (*state, *move), done)[6]


def _gamma_step(i, a, x):
    return i * (a - i), x + 1.0 - a + 2.0 * i


def _log_gamma_pair(a, x):
    """(log P, log Q) at 0 < x < inf."""
    upper = x > jnp.maximum(a, 1.0)
    kernel = _gamma_kernel(a, x)
    series = kernel + _gamma_series(jnp.where(upper, 1.0, a), jnp.where(upper, 0.5, x))
    fraction = _lentz(_gamma_step, (jnp.where(upper, a, 1.0), jnp.where(upper, x, 2.0)))
    fraction = kernel + jnp.log(a) + jnp.log(fraction)
    small = jnp.where(upper, fraction, series)
    other = log1mexp(jnp.minimum(small, -jnp.finfo(x.dtype).tiny))
    return jnp.where(upper, other, small), jnp.where(upper, small, other)


def _inner(x, low, high, middle):
    """Replace x outside the open interval by `middle`."""
    return jnp.where((x > low) & (x < high), x, middle)


def _partials(value_fn, shapes, tangents, value_tangent):
    """Tangent of `value_fn(*shapes)`: forward derivatives in the shape arguments that move, plus the rest."""
    out = value_tangent
    for k, (s, t) in enumerate(zip(shapes, tangents, strict=True)):
        if isinstance(t, SymbolicZero):
            continue

        def one(v, k=k):
            return value_fn(*shapes[:k], v, *shapes[k + 1 :])

        out = out + jax.jvp(one, (s,), (jnp.ones_like(s),))[1] * t
    return out


def _gamma_rule(index, sign):
    def rule(primals, tangents):
        a, x = primals
        out = _log_gamma(a, x, index)
        dx = tangents[1]
        rest = jnp.zeros_like(out)
        if not isinstance(dx, SymbolicZero):
            safe = _inner(x, 0.0, jnp.inf, 1.0)
            density = _gamma_kernel(a, safe) + jnp.log(a) - jnp.log(safe)
            slope = sign * jnp.exp(density - jnp.where(out > -jnp.inf, out, 0.0))
            rest = jnp.where((x > 0) & (x < jnp.inf) & (out > -jnp.inf), slope, 0.0) * dx
        return out, _partials(lambda v: _log_gamma(v, x, index), (a,), tangents[:1], rest)

    return rule


def _log_gamma(a, x, index):
    value = _log_gamma_pair(a, _inner(x, 0.0, jnp.inf, 1.0))[index]
    low, high = ((-jnp.inf, 0.0), (0.0, -jnp.inf))[index]
    return jnp.where(x <= 0, low, jnp.where(x == jnp.inf, high, value))


_log_p = jax.custom_jvp(lambda a, x: _log_gamma(a, x, 0))
_log_q = jax.custom_jvp(lambda a, x: _log_gamma(a, x, 1))
_log_p.defjvp(_gamma_rule(0, 1.0), symbolic_zeros=True)
_log_q.defjvp(_gamma_rule(1, -1.0), symbolic_zeros=True)


def log_gammainc(a, x):
    """Return log P(a, x), the log distribution function of a Gamma(a, 1) variable.

    >>> round(float(log_gammainc(1.0, 1.0)), 4)        # log(1 - 1/e)
    -0.4587
    """
    return _log_p(*_float(a, x))


def log_gammaincc(a, x):
    """Return log Q(a, x) = log(1 - P(a, x)), right also where Q underflows.

    >>> round(float(log_gammaincc(1.0, 2000.0)), 4)    # log exp(-2000)
    -2000.0
    """
    return _log_q(*_float(a, x))


def _beta_kernel(a, b, x, y):
    """Log of x^a y^b / B(a, b)."""
    n = a + b
    cross = x * b - y * a
    main = a * _log_ratio(x * n, a, cross) + b * _log_ratio(y * n, b, -cross)
    root = 0.5 * (jnp.log(a) + jnp.log(b) - jnp.log(2 * math.pi * n))
    return main + root + _stirling(n) - _stirling(a) - _stirling(b)


def _beta_step(i, a, b, x):
    m = jnp.floor(i / 2)
    even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    return jnp.where(i % 2 == 0, even, odd), jnp.ones_like(x)


def _log_beta(a, b, x, y):
    inside = (x > 0) & (y > 0)
    xs, ys = jnp.where(inside, x, 0.5), jnp.where(inside, y, 0.5)
    low = xs * (a + b + 2.0) < a + 1.0
    p, q, u = jnp.where(low, a, b), jnp.where(low, b, a), jnp.where(low, xs, ys)
    part = _beta_kernel(a, b, xs, ys) - jnp.log(p) + jnp.log(_lentz(_beta_step, (p, q, u)))
    part = jnp.minimum(part, -jnp.finfo(xs.dtype).tiny)
    return jnp.where(inside, jnp.where(low, part, log1mexp(part)), jnp.where(x <= 0, -jnp.inf, 0.0))


@jax.custom_jvp
def _log_i(a, b, x, y):
    return _log_beta(a, b, x, y)


def _beta_rule(primals, tangents):
    a, b, x, y = primals
    out = _log_beta(a, b, x, y)
    rest = jnp.zeros_like(out)
    if not isinstance(tangents[2], SymbolicZero):
        inside = (x > 0) & (y > 0) & (out > -jnp.inf)
        xs, ys = jnp.where(inside, x, 0.5), jnp.where(inside, y, 0.5)
        slope = jnp.exp(_beta_kernel(a, b, xs, ys) - jnp.log(xs) - jnp.log(ys) - jnp.where(inside, out, 0.0))
        rest = jnp.where(inside, slope, 0.0) * tangents[2]
    return out, _partials(lambda p, q: _log_beta(p, q, x, y), (a, b), tangents[:2], rest)


_log_i.defjvp(_beta_rule, symbolic_zeros=True)


def log_betainc(a, b, x, y=None):
    """Return log I_x(a, b), the log distribution function of a Beta(a, b) variable.

    Args:
        a: first shape.
        b: second shape.
        x: upper limit in [0, 1].
        y: 1 - x, to be given where it is known more precisely than by subtraction.

    >>> round(float(log_betainc(2.0, 1.0, 0.5)), 4)    # log 0.5^2
    -1.3863
    """
    return _log_i(*_float(a, b, x, 1.0 - x if y is None else y))


def _student(df, t):
    square = t * t
    x, y = df / (df + square), square / (df + square)
    half = _log_beta(0.5 * df, jnp.full_like(df, 0.5), x, y) - math.log(2.0)
    return jnp.where(t > 0, half, log1mexp(half))


@jax.custom_jvp
def _log_student(df, t):
    return _student(df, t)


def _student_rule(primals, tangents):
    df, t = primals
    out = _student(df, t)
    rest = jnp.zeros_like(out)
    if not isinstance(tangents[1], SymbolicZero):
        square = t * t
        x, y = df / (df + square), square / (df + square)
        # density = x^(df/2) y^(1/2) / (B |t|); the kernel without its y^(1/2) / |t| = (df + t^2)^(-1/2)
        one = jnp.ones_like(x)
        safe = jnp.where(square > 0, y, 1.0)
        kernel = _beta_kernel(0.5 * df, 0.5 * one, x, safe) - 0.5 * jnp.log(safe) - 0.5 * jnp.log(df + square)
        centre = lax.lgamma(0.5 * df + 0.5) - lax.lgamma(0.5 * df) - 0.5 * jnp.log(math.pi * df)
        density = jnp.where(square > 0, kernel, centre)
        rest = -jnp.exp(density - out) * tangents[1]
    return out, _partials(lambda v: _student(v, t), (df,), tangents[:1], rest)


_log_student.defjvp(_student_rule, symbolic_zeros=True)


def log_student_sf(df, t):
    """Return log P(T > t) for Student's t with `df` degrees of freedom.

    >>> round(float(log_student_sf(1.0, 1.0)), 4)      # Cauchy: log(1/4)
    -1.3863
    """
    return _log_student(*_float(df, t))
