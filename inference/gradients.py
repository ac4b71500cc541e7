"""Which engines can take a target: one without a gradient only those that follow none.

A density knows the functions that it calls outside of JAX (``external``) and whether it has a gradient all the same
(``differentiable``); an engine or a kernel says ``gradient = True`` where it needs one. Both are asked before
anything runs.
"""

from __future__ import annotations

import dataclasses
from typing import Any


def needed(engine: Any) -> bool:
    """Whether an engine, or the kernel that it runs, follows gradients.

    Example:
        >>> from ppl.inference import mcmc
        >>> needed(mcmc.PooledHMC()), needed(mcmc.Chains(mcmc.NUTS())), needed(object())
        (True, True, False)
    """
    return bool(getattr(engine, "gradient", False) or getattr(getattr(engine, "kernel", None), "gradient", False))


def check(engine: str, density: Any) -> None:
    """Refuse a density that has no gradient.

    Args:
        engine: Name of what would follow it.
        density: The log density; one that says nothing passes.

    Raises:
        ppl.ModelError: With the function, the site that calls it, and what can be done.
    """
    if getattr(density, "differentiable", True):
        return
    import ppl

    sites = getattr(getattr(density, "compiled", None), "external_sites", {})
    infos = getattr(getattr(density, "compiled", None), "sites", {})
    culprits = [
        f"    the external function {name!r}"
        + "".join(f", in site {site!r} at {infos[site].source}" for site in members if site in infos)
        for name, members in sites.items()
    ] or [f"    the external function {name!r}" for name in getattr(density, "external", ())]
    raise ppl.ModelError(
        f"{engine} follows the gradient of the log density, and this one has none: it calls a function outside of JAX "
        "without a derivative.\n" + "\n".join(culprits) + "\n  Give the function its gradient, ppl.external(..., "
        "grad=), or use a kernel without gradients, such as mcmc.Slice() or mcmc.RandomWalk(): infer(program, kernel)."
    )


def suited(engine: Any, density: Any) -> Any:
    """The engine with what it leaves to the density decided; calls of the host serve all chains at once."""
    engine = engine.suited(density) if hasattr(engine, "suited") else engine
    if not getattr(density, "external", ()):
        return engine
    names = {f.name for f in dataclasses.fields(engine)} if dataclasses.is_dataclass(engine) else set()
    if {"lane", "chains"} <= names and engine.lane is None:
        return dataclasses.replace(engine, lane=engine.chains)
    if {"lanes", "chains"} <= names and engine.lanes is None:
        return dataclasses.replace(engine, lanes=1)
    return engine


def remarks(density: Any) -> list[str]:
    """What the plan says of calls of the host."""
    names = getattr(density, "external", ())
    if not names:
        return []
    return [
        f"calls {', '.join(names)} outside of JAX, once for all chains of a lane (unless lane= says otherwise, of all "
        "chains: the last bits of draws may follow their number); compiled anew in every process"
    ]
