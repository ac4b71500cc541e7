"""What a program observes, also inside the programs that it calls, and the same program observing nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from .sites import in_order

Array = Any


def observed(program: Any) -> dict[str, Any]:
    """Values of all observed sites, by ``condition`` or inside a called program."""
    inner = [n for n, info in program.learned().items() if info.role == "observed" and n not in program.fixed]
    if not inner:
        return program.conditions

    def build() -> Callable:
        def run(data: list[Any], given: dict[str, Any]) -> dict[str, Array]:
            out = program.play(data, given=given, known=program.learned(), keep=("value", "known"))[1].out
            gaps = {name: ~known for name, known in out.get("known", {}).items()}
            return {n: jnp.where(gaps[n], jnp.nan, out["value"][n]) if n in gaps else out["value"][n] for n in inner}

        return run

    found = program._compiled("observed", build)(list(program.arguments.data), program.fixed)
    return in_order(program.learned(), {**program.tidy.unpacked(found), **program.conditions})


def release(program: Any) -> Any:
    """The program with nothing observed; what ``do`` has fixed stays.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def f():
        ...     ppl.sample("y", dist.Normal(0.0, 1.0))
        >>> release(f().condition(y=1.0)).sites["y"].kind
        'latent'
    """
    done = {name: value for name, value in program.fixed.items() if program.roles[name] == "done"}
    inner = {name for name, info in program.learned().items() if info.role == "observed"}
    return replace(program, fixed=done, roles=dict.fromkeys(done, "done"), released=program.released | inner)
