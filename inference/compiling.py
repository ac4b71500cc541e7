"""How programs are compiled: quickly, where they will not run for long.

Most of a cold run of a small model is XLA's compiler. On a CPU its newer code generator for fused loops takes half
of that and buys 0-30% of running time, and the splitting of a program into pieces compiled in parallel
spends CPU seconds to save none. Options are a matter of the compiler's version: they are given only to versions of
JAX that know them, and a version not listed compiles as usual.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

_QUICK: dict[tuple[int, ...], dict[str, Any]] = {
    (0, 10): {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1},
    (0, 12): {"xla_cpu_parallel_codegen_split_count": 1},
}


def quick_options(platform: str, version: tuple[int, ...] = jax.__version_info__) -> dict[str, Any]:
    """Compiler options that favour a short compilation; empty where none are known.

    Args:
        platform: Name of the backend, such as ``"cpu"``.
        version: JAX's version.

    Example:
        >>> quick_options("gpu")
        {}
    """
    return dict(_QUICK.get(version[:2], {})) if platform == "cpu" else {}


def jit_quick(function: Callable[..., Any], **options: Any) -> Any:
    """``jax.jit`` for a program that compiling costs more than running; backends are looked up at the first call.

    ``compiled(platform)`` of the result is the jitted function itself.

    Example:
        >>> float(jit_quick(lambda x: 2.0 * x)(1.5))
        3.0
    """

    @functools.cache
    def compiled(platform: str) -> Callable[..., Any]:
        return jax.jit(function, compiler_options=quick_options(platform), **options)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return function(*args, **kwargs)  # options belong to the outermost program
        return compiled(jax.default_backend())(*args, **kwargs)

    call.compiled = compiled  # type: ignore[attr-defined]
    return call
