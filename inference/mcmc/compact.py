"""One machine function for a whole compiled block, where XLA's CPU compiler can make one.

XLA's CPU runtime dispatches each fused loop by itself, at about 0.1 us: ten times the arithmetic of a
transition of a small model. A call marked as small becomes a single function instead, which takes half the
time to compile. Such a function may hold element-wise arithmetic, reductions, gathers, products and loops, but no
scatter, sort, transform or call into a library, and every argument must stay in use, so the arguments are
passed through as results too. Where the block holds anything else it is compiled as usual.

Reference: XLA, ``SmallWhileLoopHoistingPass`` (2025), which does the same to loops below a kilobyte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata

_ALLOWED = frozenset(
    """abs acos acosh add add_any and argmax argmin asin asinh atan atan2 atanh bitcast_convert_type
    broadcast_in_dim cbrt ceil clamp clz concatenate cond convert_element_type copy cos cosh
    cumlogsumexp cummax cumprod cumsum custom_jvp_call custom_vjp_call digamma div dot_general
    dynamic_slice dynamic_update_slice eq erf erf_inv erfc exp exp2 expand_dims expm1 floor gather
    ge gt igamma igammac integer_pow iota is_finite jit le lgamma log log1p log2 logistic lt max min
    mul ne neg nextafter not one_minus_square or pad pjit platform_index polygamma polynomial
    population_count pow random_bits random_fold_in random_unwrap random_wrap reduce_and reduce_max
    reduce_min reduce_or reduce_prod reduce_sum rem reshape rev round rsqrt scan select_n shift_left
    shift_right_arithmetic shift_right_logical sign sin sinh slice split sqrt square squeeze stack
    stop_gradient sub tan tanh threefry2x32 tile transpose unstack while xor""".split()
)


def primitives(jaxpr: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and equation of everything a jaxpr does, inner jaxprs included."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from primitives(inner)


_TESTED = ((0, 10), (0, 12))
"""Versions of JAX whose compilers have run the tests of this module; others compile as usual, for safety."""


def refused(jaxpr: Any) -> str:
    """Name what keeps a computation from being compiled as one piece; empty when nothing does.

    Example:
        >>> import jax.numpy as jnp
        >>> refused(jax.make_jaxpr(jnp.sort)(jnp.zeros(3)).jaxpr)
        'sort'
    """
    if jax.__version_info__[:2] not in _TESTED:
        return f"JAX {jax.__version__}, not among the versions tested"
    for name, equation in primitives(jaxpr):
        if name not in _ALLOWED:
            return name
        if name == "dot_general" and any(equation.params["dimension_numbers"][1]):
            return "dot_general over a batch"
    return ""


def marked(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return a jitted form of ``function`` that XLA's CPU compiler makes into one piece."""
    inner = jax.jit(lambda *args: (function(*args), args))

    def outer(*args: Any) -> Any:
        with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
            return inner(*args)

    return jax.jit(outer, **options)
