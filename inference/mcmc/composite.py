r"""What kernels made of other kernels have in common.

If K_1, ..., K_m leave pi invariant so does every way of taking turns that does not look at the state: ``K_1 ... K_m``
(``Cycle``) and ``sum_i w_i K_i`` (``Mixture``); a kernel for the full conditional of some coordinates, moving these
alone, leaves pi invariant too (``Block``). A part starts each of its turns from the current position, where it
evaluates whatever it needs: nothing is kept from its last turn that the other parts' moves could have made false.

Composites have ``kernels``, their parts. Their states and infos have ``parts``, the states and infos of these after
their last turns, for adapters to learn from (``adapt.within``).

References: Tierney, "Markov chains for exploring posterior distributions" (1994); Geman and Geman (1984).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any


@dataclass(frozen=True)
class State:
    """A position, its log density, the parts' states after their last turns.

    Attributes:
        position: Full position.
        log_density: Log density there; while an outer composite is at work, that of an earlier position.
        parts: States of the parts.
        noise: Where the density is an estimate, the two words of its key (``pseudo_marginal``); else ().
    """

    position: Array
    log_density: Array
    parts: tuple[Any, ...]
    noise: Any = ()


@dataclass(frozen=True)
class Info:
    """What a composite reports.

    Attributes:
        acceptance_rate: Mean over the parts that were at work and accept or reject.
        diverging: Whether any of them diverged.
        n_steps: Sum of their numbers of steps.
        parts: What each part reports.
        used: Whether each part was at work, shape (parts,).
        titles: Short names of the parts; empty for the only one.
    """

    acceptance_rate: Array
    diverging: Array
    n_steps: Array
    parts: tuple[Any, ...]
    used: Array
    titles: tuple[str, ...]

    def statistics(self, kernel: Any) -> dict[str, Array]:
        """Scalars to be stored of every draw: those of the whole, and of each part under ``name_part``.

        Args:
            kernel: The composite as it was when it moved.
        """
        found = {"acceptance_rate": self.acceptance_rate}
        found |= {name: getattr(self, name) for name in ("diverging", "n_steps") if reports(self, name)}
        for i, title in enumerate(self.titles):
            suffix = f"_{title}" if title else ""
            found |= {name + suffix: value for name, value in self._part(kernel, i).items()}
        return found

    def _part(self, kernel: Any, i: int) -> dict[str, Array]:
        info, part, found = self.parts[i], kernel.kernels[i], {}
        if hasattr(info, "statistics") and info.acceptance_rate.ndim == 0:
            found = info.statistics(part)
        else:
            if hasattr(info, "acceptance_rate"):
                found["acceptance_rate"] = jnp.mean(info.acceptance_rate)
            if hasattr(part, "step_size"):
                found["step_size"] = jnp.mean(jnp.asarray(part.step_size))
        off = ~self.used[i]
        return {
            name: jnp.where(off, jnp.nan, value) if jnp.issubdtype(jnp.result_type(value), jnp.inexact) else value
            for name, value in found.items()
        }


jax.tree_util.register_dataclass(State, ["position", "log_density", "parts", "noise"], [])
jax.tree_util.register_dataclass(Info, ["acceptance_rate", "diverging", "n_steps", "parts", "used"], ["titles"])


def reports(info: Any, name: str) -> bool:
    """Whether a kernel, or a part of it, reports a statistic."""
    return any(reports(part, name) for part in info.parts) if isinstance(info, Info) else hasattr(info, name)


def adapters(kernel: Any) -> tuple[Any, ...]:
    """The standard adapters of every part, each for its own part."""
    from ..adapt.within import Within
    from .chains import default_for

    each = getattr(kernel, "each", None) is not None
    return tuple(Within(i, a, each) for i, part in enumerate(kernel.kernels) for a in default_for(part))


def adapter_names(found: Iterable[Any]) -> list[str]:
    """Names of adapters, those of parts once each."""
    names: dict[str, None] = {}
    for adapter in found:
        while hasattr(adapter, "part"):
            adapter = adapter.adapter
        names[type(adapter).__name__] = None
    return list(names)


def is_composite(kernel: Any) -> bool:
    """Whether a kernel is made of others."""
    return hasattr(kernel, "kernels") and hasattr(kernel, "with_part")


def is_stochastic(kernel: Any) -> bool:
    """Whether a kernel works with an estimate of the density, and moves its key."""
    return bool(getattr(kernel, "stochastic", False))


def first_noise(position: Array) -> Array:
    """The key of the first estimate at a position, two words, other ones at other positions."""
    bits = jnp.sum(position.astype(jnp.float32) * jnp.arange(1, position.size + 1, dtype=jnp.float32))
    return jax.random.key_data(jax.random.fold_in(_key(0), jax.lax.bitcast_convert_type(bits, jnp.uint32)))


def _key(seed: int) -> Array:
    return jax.random.key(seed, impl="threefry2x32")


def start(kernel: Any, position: Array, density: Any) -> Any:
    """The state of a part before its first turn."""
    return kernel.init(position, density)


def turn(kernel: Any, key: Array, memory: Any, position: Array, density: Any, noise: Any) -> tuple[Any, Any, Any]:
    """One turn of a part, from the current position.

    Args:
        kernel: The part.
        key: Random key.
        memory: The part's state after its last turn.
        position: Current position.
        density: The density, or its estimate where ``noise`` is a key.
        noise: Key of the current estimate, or ().

    Returns:
        The part's state, with the new position, its info, and the key of the estimate.
    """
    if is_stochastic(kernel):
        state, info = move(kernel, key, kernel.resume(memory, position, density, noise), density)
        return state, info, state.noise
    target = density if isinstance(noise, tuple) else Held(density, noise)
    state, info = move(kernel, key, resumed(kernel, memory, position, target), target)
    return state, info, noise


def resumed(kernel: Any, memory: Any, position: Array, density: Any) -> Any:
    """The state of a kernel at a position to which others moved: evaluated there, what it remembers kept."""
    if is_composite(kernel):
        return replace(memory, position=position)
    if hasattr(kernel, "resume"):
        return kernel.resume(memory, position, density)
    return kernel.init(position, density)


def move(kernel: Any, key: Array, state: Any, density: Any) -> tuple[Any, Any]:
    """A step; of a composite without the log density of its new position, which only the outermost one needs."""
    return (kernel.move if is_composite(kernel) else kernel.step)(key, state, density)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Held:
    """The log density that an estimate is at a key which is held fixed.

    Attributes:
        density: A ``StochasticDensity``.
        noise: The two words of the key.
    """

    density: Any
    noise: Array

    def __call__(self, position: Array) -> Array:
        """The estimate."""
        return self.density(wrapped(self.noise), position)

    def __getattr__(self, name: str) -> Any:
        """Layout, numbers of states and the like, as the estimate has them."""
        if name.startswith("_") or name in ("restrict", "unbiased"):
            raise AttributeError(name)
        return getattr(self.density, name)


def wrapped(noise: Array) -> Array:
    """The key of two words."""
    return jax.random.wrap_key_data(noise, impl="threefry2x32")


def value(density: Any, position: Array, noise: Any) -> Array:
    """Log density at a position, or its estimate with a key."""
    return density(position) if isinstance(noise, tuple) else density(wrapped(noise), position)


def rate(info: Any) -> Array | None:
    """Mean acceptance of a part, None where it neither accepts nor rejects."""
    found = getattr(info, "acceptance_rate", None)
    return None if found is None else jnp.mean(found)


def summary(infos: tuple[Any, ...], used: Array, titles: tuple[str, ...], dtype: Any) -> Info:
    """Put what the parts report together."""
    weights, total = jnp.zeros((), dtype), jnp.zeros((), dtype)
    diverging, steps = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    for i, info in enumerate(infos):
        mean = rate(info)
        if mean is not None:
            on = used[i].astype(dtype)
            weights, total = weights + on, total + jnp.where(used[i], mean, 0.0).astype(dtype)
        diverging = diverging | (used[i] & jnp.any(getattr(info, "diverging", False)))
        number = jnp.sum(jnp.asarray(getattr(info, "n_steps", 0))).astype(jnp.int32)
        steps = steps + jnp.where(used[i], number, 0)
    accepted = jnp.where(weights > 0, total / jnp.maximum(weights, 1.0), 1.0)
    return Info(accepted, diverging, steps, infos, used, titles)


def titles(kernels: Iterable[Any]) -> tuple[str, ...]:
    """Short names of parts, all different.

    Example:
        >>> from ppl.inference.mcmc import HMC
        >>> titles([HMC(), HMC()])
        ('HMC', 'HMC_2')
    """
    found: list[str] = []
    for kernel in kernels:
        name = getattr(kernel, "title", None) or type(kernel).__name__
        count = sum(known == name or known.startswith(f"{name}_") for known in found)
        found.append(f"{name}_{count + 1}" if count else name)
    return tuple(found)


def describe(kernel: Any) -> str:
    """A kernel in words, for the plan of a run.

    Example:
        >>> from ppl.inference.mcmc import HMC, Block, Cycle, RandomWalk
        >>> describe(Cycle(Block("mu", HMC()), Block("theta", RandomWalk(), each="school")))
        'Cycle(mu by HMC, theta in each school by RandomWalk)'
    """
    if not is_composite(kernel):
        return type(kernel).__name__
    inner = ", ".join(describe(part) for part in kernel.kernels)
    if not hasattr(kernel, "names"):
        return f"{type(kernel).__name__}({inner})"
    each = f" in each {kernel.each}" if kernel.each else ""
    return f"{kernel.title}{each} by {inner}"


def covered(kernel: Any, density: Any, dim: int) -> np.ndarray:
    """Which coordinates a kernel can move, shape (dim,)."""
    return kernel.covers(density, dim) if hasattr(kernel, "covers") else np.ones(dim, bool)


def expanded(kernel: Any, dim: int, density: Any = None) -> Any:
    """A kernel with its tuning in full shape; a composite's parts each in the shape of its own coordinates."""
    if is_composite(kernel):
        return kernel.expand(dim, density)
    suits(kernel, density)
    return kernel.expand(dim) if hasattr(kernel, "expand") else kernel


def suits(kernel: Any, density: Any, place: str = "") -> None:
    """Refuse a kernel that cannot move what it is given.

    Raises:
        TypeError: No kernel.
        ValueError: Codes of finite variables for a kernel of real ones, no gradient for one that follows it, or a
            kernel of ensembles.
    """
    if isinstance(kernel, type) or not (hasattr(kernel, "init") and hasattr(kernel, "step")):
        what = f"the class {kernel.__name__}: write {kernel.__name__}()" if isinstance(kernel, type) else repr(kernel)
        raise TypeError(f"{place}a part is a kernel, with init and step, not {what}")
    name = f"{place}{type(kernel).__name__}"
    if getattr(kernel, "ensemble", False):
        raise ValueError(
            f"{name} moves an ensemble of walkers together, not one position: it cannot be a part. Run it alone."
        )
    finite = tuple(getattr(density, "finite", None) or ())
    if finite and not getattr(kernel, "finite", False):
        raise ValueError(
            f"{name} moves real coordinates, and of those that it is given the last {len(finite)} are codes of finite "
            "variables. Give them a block of their own, Block(names, Gibbs()), and the real ones another."
        )
    if getattr(kernel, "gradient", False) and not getattr(density, "differentiable", True):
        raise ValueError(
            f"{name} follows the gradient of the log density, and the conditional of its block has none, because it "
            "calls a function outside of JAX. Give the block a kernel without gradients, or the function its gradient."
        )


def check(kernel: Any, density: Any, dim: int) -> None:
    """Refuse a composite that leaves coordinates unmoved.

    Raises:
        ValueError: Naming them.
    """
    moved = covered(kernel, density, dim)
    if moved.all():
        return
    layout = getattr(density, "layout", None)
    if layout:
        left = [name for name, slot in layout.items() if not moved[slot.start : slot.stop].all()]
        example = f"Block({left[0]!r}, mcmc.NUTS())"
    else:
        left = [str(i) for i in np.flatnonzero(~moved)[:8]]
        example = f"Block([{', '.join(left)}], mcmc.NUTS())"
    raise ValueError(
        f"no part of {type(kernel).__name__} updates {', '.join(left)}: the chains would leave "
        f"{'it' if len(left) == 1 else 'them'} where they start.\n  Add {example}, or condition on a value."
    )
