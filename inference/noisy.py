"""Targets that are estimates of a log density, and who takes them.

``unbiased`` of a target says what it estimates: the ``"density"`` (a particle filter's likelihood), for
``PseudoMarginal``, or its ``"logarithm"`` (subsampled plates), for stochastic-gradient kernels, which say
``estimate = "logarithm"``. Where the log density itself can be had, ``full()``, results are made of it: labels, values,
pointwise log likelihoods of all data.
"""

from __future__ import annotations

from typing import Any


def wanted(engine: Any) -> bool:
    """Whether an engine, or the kernel that it runs, follows an estimate of the log density.

    Example:
        >>> from ppl.inference import mcmc
        >>> wanted(mcmc.Chains(mcmc.SGLD(0.1))), wanted(mcmc.NUTS()), wanted(None)
        (True, False, False)
    """
    return getattr(getattr(engine, "kernel", engine), "estimate", None) == "logarithm"


def parted(density: Any, wanted: bool) -> tuple[Any, Any]:
    """The log density that results are made of, and the estimate that is sampled, None where both are one.

    Args:
        density: A density, or an estimate of its logarithm.
        wanted: Whether the engine takes an estimate.

    Raises:
        ppl.ModelError: If it does not, and the density has subsampled plates.
    """
    import ppl
    from ppl.subsample import needs_exact

    if getattr(density, "unbiased", None) != "logarithm" or not hasattr(density, "full"):
        return density, None
    if not wanted and isinstance(density, ppl.SubsampledDensity):
        raise ppl.ModelError(needs_exact(density.program, "this engine (like NUTS, HMC, PooledHMC and laplace)"))
    density = _in_precision(density)
    return density.full(), density


def _in_precision(density: Any) -> Any:
    """An estimate that was compiled outside of the run, in the run's floating point numbers."""
    import jax

    import ppl

    from .mcmc.sgmcmc_control import Controlled, control_variates

    if isinstance(density, Controlled):
        inner = _in_precision(density.density)
        return density if inner is density.density else control_variates(inner, density.centre)
    if isinstance(density, ppl.SubsampledDensity) and density.compiled.x64 != jax.config.jax_enable_x64:
        return ppl.compile(density.program)
    return density


def check(engine: Any, target: Any, shard: Any = None) -> None:
    """Refuse an estimate for an engine that needs the density itself, or an estimate of another kind.

    Raises:
        TypeError: With what to write instead.
    """
    kernel, kind = getattr(engine, "kernel", engine), getattr(target, "unbiased", None)
    name = type(kernel).__name__
    for part in _parts(kernel):
        if getattr(part, "estimate", None) == "logarithm":
            raise TypeError(
                f"{type(part).__name__} follows an estimate with noise and cannot be a part of {name}, whose other "
                f"parts need the log density: run it alone, infer(program, mcmc.{type(part).__name__}(...))."
            )
    if kind == "density" and not getattr(kernel, "stochastic", False):
        raise TypeError(
            f"{name} needs the log density itself, and this target is an estimate of it with noise, a "
            "function of a key and a position. Wrap the kernel: infer(target, mcmc.PseudoMarginal(mcmc.RandomWalk()))."
        )
    if kind == "logarithm" and not wanted(engine):
        raise TypeError(
            f"{name} needs the log density itself, and this target is an unbiased estimate of it with noise, whose "
            "exponential is biased. Use a stochastic-gradient kernel, infer(target, mcmc.SGLD(step)), or the density "
            "that it estimates."
        )
    if kind == "logarithm" and shard:
        raise TypeError("shard= lays out all data over devices, and a stochastic-gradient kernel reads minibatches")


def _parts(kernel: Any) -> list[Any]:
    """The parts of a composite, and theirs."""
    return [inner for part in getattr(kernel, "kernels", ()) for inner in (part, *_parts(part))]


def remarks(target: Any) -> list[str]:
    """What the plan says of an estimate."""
    if getattr(target, "unbiased", None) != "logarithm":
        return []
    plates = ", ".join(f"{count} of {size} elements of {name!r}" for name, size, count in getattr(target, "plates", ()))
    what = f"computes {plates}" if plates else "is an estimate with noise"
    return [f"a gradient {what}; no move is refused, so the draws have a bias of the order of the step"]
