"""What a user hands to ``infer``, as a density that an engine understands.

A program is checked against its data and compiled. A plain function of a flat vector, or any object that
is already a log density with a ``dim``, passes through; its variable is then called ``z``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import kept, noisy
from .core import as_density, host_rng

_JITTER, _DRAWN = 77, 78
"""Purposes of the random numbers that spread the chains around one starting point, and that draw from a proposal."""


@dataclass(frozen=True)
class Subject:
    """A target of inference.

    Attributes:
        program: The program, or None for a bare log density.
        density: Log density over flat unconstrained vectors.
        dim: Length of those vectors.
        laid: The density with data over the devices of several processes, all of which must evaluate it together.
        estimate: What is sampled in its place, an estimate of it with noise (``noisy``).
    """

    program: Any
    density: Any
    dim: int
    laid: Any = None
    estimate: Any = None

    @property
    def target(self) -> Any:
        """The density that the engine samples."""
        if self.estimate is not None:
            return self.estimate
        return self.density if self.laid is None else self.laid


def is_program(target: Any) -> bool:
    """Whether a target is a program of the language (and not a bare log density)."""
    return hasattr(target, "sites") and hasattr(target, "condition")


def make_subject(
    target: Any,
    init: Any = None,
    codes: Collection[str] = (),
    estimate: bool = False,
    collapse: bool = True,
    reparameterize: Any = "auto",
) -> Subject:
    """Check and compile a target.

    Args:
        target: A program or a log density.
        init: Starting positions, which tell the dimension of a plain function.
        codes: Finite sites of a program that stay in the flat vector (``kept``); the others are summed out.
        estimate: Whether an estimate of the log density will do, as subsampled plates make it.
        collapse: Whether likelihoods may be replaced by sufficient statistics.
        reparameterize: Coordinates of hierarchical effects, as ``ppl.compile`` takes them.

    Raises:
        ppl.ModelError: If the program has nothing to infer, or a discrete latent site that cannot be summed out.
        TypeError: If the target is neither a program nor a log density of known dimension.
    """
    if is_program(target):
        import ppl

        _refuse(target)
        summed = kept.summed(target, codes)
        made = ppl.compile(target, marginalize=summed, collapse=collapse, reparameterize=reparameterize)
        density, noisy_one = noisy.parted(made, estimate)
        _refuse_summed(target, density)
        return Subject(target, density, int(density.dim), estimate=noisy_one)
    if not callable(target):
        raise TypeError(f"infer takes a program or a log density, not {type(target).__name__}; call the model first")
    if hasattr(target, "condition") or _is_model(target):
        raise TypeError("infer takes a program: call the model with its arguments, model(...).condition(...)")
    target, noisy_one = noisy.parted(target, estimate)
    dim = getattr(target, "dim", None)
    if dim is None:
        if init is None:
            raise TypeError("a plain log density needs init=, an array of shape (dim,) or (chains, dim)")
        dim = np.shape(_drawn(init, 1, 0) if is_proposal(init) else init)[-1]
    program = None if noisy_one is None else getattr(noisy_one, "program", None)
    return Subject(program, as_density(target, int(dim)), int(dim), estimate=noisy_one)


def coordinates(choice: Any) -> Any:
    """What a user says of the coordinates of effects, for the manifest of a run; ``ppl.compile`` takes it again.

    Example:
        >>> coordinates({"theta": (np.ones(2), 0.0), "beta": "noncentred"})
        {'theta': [[1.0, 1.0], 0.0], 'beta': 'noncentred'}
    """
    if not isinstance(choice, Mapping):
        return choice if isinstance(choice, str) else bool(choice)
    forms = {str(name): form for name, form in choice.items()}
    return {n: f if isinstance(f, str) else [np.asarray(x, float).tolist() for x in f] for n, f in forms.items()}


def starts(subject: Subject, init: Any, chains: int | None, seed: int) -> np.ndarray | None:
    """Starting positions of shape (chains, dim), or None where the engine finds its own.

    One point is spread a little per chain: chains that start at one point make R-hat blind. Of a proposal each chain
    gets a draw.
    """
    if init is None:
        return None
    if is_proposal(init):
        init = _drawn(init, chains or 1, seed)
    if isinstance(init, Mapping):
        init = _unconstrain(subject, init)
    init = np.asarray(init, dtype=float)
    if init.ndim not in (1, 2) or init.shape[-1] != subject.dim:
        raise ValueError(f"init has shape {init.shape}, not ({subject.dim},) or (chains, {subject.dim})")
    if init.ndim == 1:
        noise = host_rng(seed, _JITTER).normal(size=(chains or 1, subject.dim))
        noise[:, subject.dim - len(getattr(subject.density, "finite", None) or ()) :] = 0.0  # codes stay what they are
        return init + 0.1 * (1 + np.abs(init)) * noise
    if chains is not None and init.shape[0] != chains:
        raise ValueError(f"init has {init.shape[0]} rows for {chains} chains")
    return init


def is_proposal(init: Any) -> bool:
    """Whether starting positions are to be drawn (``core.Proposal``)."""
    return callable(getattr(init, "sample", None)) and callable(getattr(init, "log_prob", None))


def _drawn(proposal: Any, count: int, seed: int) -> np.ndarray:
    """Draws of a proposal over unconstrained positions, shape (count, dim)."""
    import jax

    words = [host_rng(seed, _DRAWN, i).integers(2**32, size=2, dtype=np.uint32) for i in range(count)]
    keys = jax.random.wrap_key_data(np.stack(words), impl="threefry2x32")
    return np.asarray(jax.jit(jax.vmap(proposal.sample))(keys))


def _unconstrain(subject: Subject, values: Mapping[str, Any]) -> Any:
    import ppl

    if not (hasattr(subject.density, "layout") and hasattr(subject.density, "unconstrain")):
        raise TypeError("init= is an array for a plain log density")
    latents = set(subject.density.layout)
    if set(values) != latents:
        missing, unknown = sorted(latents - set(values)), sorted(set(values) - latents)
        raise ppl.ModelError(f"init= must give every latent site: missing {missing}, unknown {unknown}")
    return subject.density.unconstrain(dict(values))


def _refuse(program: Any) -> None:
    import ppl

    latents = [site for site in program.sites.values() if site.kind == "latent"]
    if not latents:
        raise ppl.ModelError(
            f"{_name(program)} has no latent site: there is nothing to infer. To draw from it use program.sample(seed)."
        )


def _refuse_summed(program: Any, density: Any) -> None:
    import ppl

    if not density.dim and density.compiled.summed:
        names = ", ".join(density.compiled.summed)
        raise ppl.ModelError(
            f"{_name(program)} has finite latent sites only ({names}), which are summed out exactly, so that nothing "
            "is left to sample. With density = ppl.compile(program), density.probabilities(np.zeros(0)) has their "
            "posterior and density.recover(key, np.zeros(0)) draws from it."
        )


def _is_model(target: Any) -> bool:
    import ppl

    model = getattr(ppl, "Model", None)
    return isinstance(model, type) and isinstance(target, model)


def _name(program: Any) -> str:
    return f"program '{getattr(program.model, '__name__', None) or getattr(program.model, 'name', 'program')}'"
