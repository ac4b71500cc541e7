"""Finite sites that a sampler moves, and that are therefore kept in the flat vector as codes, not summed out.

A kernel that moves codes says so, ``finite = True``; one for some sites (``Block``) moves those that it names. All
other finite sites are summed out exactly, so that a gradient serves the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np


def kept(engine: Any, program: Any) -> tuple[str, ...]:
    """Names of the finite latent sites of a program that an engine, or the kernel that it runs, moves.

    Example:
        >>> import ppl
        >>> from ppl.inference import mcmc
        >>> @ppl.model
        ... def f():
        ...     k = ppl.sample("k", ppl.dist.Bernoulli(0.3))
        ...     ppl.sample("x", ppl.dist.Normal(k * 1.0, 1.0))
        >>> kept(mcmc.Cycle(mcmc.Block("k", mcmc.Gibbs()), mcmc.Block("x", mcmc.HMC())), f()), kept(mcmc.NUTS(), f())
        (('k',), ())
    """
    finite = [name for name, info in program.learned().items() if info.discrete and program.role(name) == "latent"]
    moved = moves(getattr(engine, "kernel", engine), finite)
    return tuple(name for name in finite if name in moved)


def moves(kernel: Any, finite: Iterable[str]) -> set[str]:
    """Which of some finite sites a kernel moves."""
    finite, parts = set(finite), getattr(kernel, "kernels", None)
    if parts is None:
        return finite if getattr(kernel, "finite", False) else set()
    names = getattr(kernel, "names", None)
    if isinstance(names, tuple) and all(isinstance(name, str) for name in names):
        finite &= set(names)
    elif names is not None:
        return set()  # indices of a vector whose finite sites are summed out
    return set().union(*(moves(part, finite) for part in parts))


def summed(program: Any, codes: Collection[str]) -> Any:
    """The argument ``marginalize`` of ``ppl.compile`` that keeps some finite sites as codes."""
    if not codes:
        return True
    learned = program.learned()
    return {n for n in program.latent() if learned[n].discrete and learned[n].states is not None} - set(codes)


def plan(codes: Iterable[str]) -> list[str]:
    """What the plan of a run says of them."""
    names = list(codes)
    return [f"kept as codes, not summed out, because the kernel moves them: {', '.join(names)}"] if names else []


def check(kernel: Any, density: Any) -> None:
    """Refuse a kernel of real coordinates for a density that has codes among them.

    Raises:
        ValueError: Naming the kernel and what to write instead.
    """
    states = tuple(getattr(density, "finite", None) or ())
    if not states:
        return
    parts = getattr(kernel, "kernels", None)
    if parts is None and not getattr(kernel, "finite", False):
        name, count = type(kernel).__name__, len(states)
        raise ValueError(
            f"{name} moves real coordinates, and the last {count} of this density's coordinates are codes of finite "
            f"variables (with {', '.join(map(str, states[:8]))}{', ...' if count > 8 else ''} states).\n"
            f"  Give each its own block: mcmc.Cycle(mcmc.Block(..., mcmc.Gibbs()), mcmc.Block(..., mcmc.{name}()))"
        )
    if hasattr(kernel, "conditional"):
        check(kernel.kernel, kernel.conditional(density, np.zeros(int(density.dim))))
        return
    for part in parts or ():
        check(part, density)


def judged(positions: np.ndarray, density: Any) -> np.ndarray:
    """The coordinates by which a stopping rule judges: codes that never change may be certain, and are left out.

    Example:
        >>> from ppl.inference.core import as_density
        >>> draws = np.zeros((2, 5, 3))
        >>> draws[1, 2, 2] = 1.0
        >>> judged(draws, as_density(lambda z: z[0], 3, (4, 4))).shape
        (2, 5, 2)
    """
    count = len(getattr(density, "finite", None) or ())
    if not count:
        return positions
    use = np.arange(positions.shape[2]) < positions.shape[2] - count
    return positions[..., use | np.any(positions != positions[:1, :1], axis=(0, 1))]
