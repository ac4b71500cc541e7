"""The density of a program with subsampled plates: an unbiased estimate of the log density.

With a minibatch S_k of m_k of the N_k elements of plate k, drawn without replacement,

    l(key, z) = sum of the other log factors and log-determinants + sum_k (N_k / m_k) sum_{i in S_k} log f_ki,

whose expectation over the key is the log density, and whose gradient has the gradient as its expectation. Its
exponential is not an unbiased estimate of the density.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from . import space
from .density import Density
from .errors import ModelError, at
from .host import surfacing
from .minibatch import Minibatch
from .program import Program

Array = Any


@partial(jax.tree_util.register_dataclass, data_fields=["data"], meta_fields=["compiled", "plates", "labelling"])
@dataclass(frozen=True, eq=False)
class SubsampledDensity:
    """An unbiased estimate of a log density over flat unconstrained vectors; a pytree of its data.

    Attributes:
        data: The program's arrays and the fixed sites' values.
        compiled: The traced model, all elements of all plates in it.
        plates: Name, padded or true size and number of drawn elements of the subsampled plates.
    """

    unbiased: ClassVar[str] = "logarithm"  # see ``inference.core.StochasticDensity``

    data: tuple[Array, ...]
    compiled: Any
    plates: tuple[tuple[str, int, int], ...]
    labelling: Any = None

    def __call__(self, key: Array, z: Array | None = None) -> Array:
        """Estimate of the log density at ``z`` of shape (dim,) with the minibatches of a random key.

        Raises:
            ModelError: No key is given, as by an algorithm that needs the log density itself.
        """
        if z is None:
            raise ModelError(needs_exact(self.program, "this algorithm"))
        return self._estimate(key, {}, z)

    def estimate(self, indices: Mapping[str, Array], z: Array) -> Array:
        """Estimate with given minibatches, such as the parts of an epoch's permutation.

        Args:
            indices: For each subsampled plate the elements to compute, with leading axes for the plates around it.
            z: Position, shape (dim,).

        Example:
            >>> import numpy as np, ppl
            >>> from ppl import dist
            >>> @ppl.model
            ... def f(x):
            ...     mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
            ...     ppl.plate("row", lambda _: ppl.factor("t", -mu), x, subsample=2)
            >>> density = ppl.compile(f(np.zeros(10)))
            >>> parts = [density.estimate({"row": np.array([i, i + 1])}, np.ones(1)) for i in range(0, 10, 2)]
            >>> bool(np.isclose(np.mean(parts), density.full()(np.ones(1))))
            True
        """
        names = [name for name, _, _ in self.plates]
        if sorted(indices) != sorted(names):
            raise ModelError(f"estimate needs indices for the plates {', '.join(names)}, not for {sorted(indices)}")
        chosen = {name: jnp.asarray(index, jnp.int32) for name, index in indices.items()}
        return self._estimate(None, chosen, z)

    def _estimate(self, key: Array | None, chosen: Mapping[str, Array], z: Array) -> Array:
        self._density()._check(z)
        key = jax.random.key(0) if key is None else key
        z = jnp.asarray(z)
        z = z if jnp.issubdtype(z.dtype, jnp.inexact) else z.astype(jnp.result_type(float))
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree_util.tree_leaves((self.data, key, chosen, z))):
            return self._total(key, chosen, z)
        with jax.enable_x64(self.compiled.x64):
            return _compiled_estimate(self, key, dict(chosen), z)

    def _total(self, key: Array, chosen: Mapping[str, Array], z: Array) -> Array:
        density = self._density()
        program, fixed = density._play_inputs()
        settings = {
            "given": fixed,
            "free": space.split(z, self.layout),
            "known": self.compiled.sites,
            "keep": ("factor", "logdet"),
            "minibatch": Minibatch(key, dict(chosen)),
        }
        out = program.play(density._arguments(), **settings)[1].out
        total = jnp.zeros((), z.dtype)
        for channel in ("factor", "logdet"):
            for term in out.get(channel, {}).values():
                total = total + jnp.sum(term).astype(z.dtype)
        return total

    def full(self) -> Density:
        """The log density itself, with all elements."""
        return self.compiled.bind(self.data, self.program)

    def _density(self) -> Density:
        """All that can be asked without evaluating the log density."""
        return Density(self.compiled, self.data, (), self.labelling)

    @property
    def dim(self) -> int:
        """Length of the unconstrained vector."""
        return self.compiled.dim

    @property
    def layout(self) -> dict[str, space.Slot]:
        """Places of the latent sites in the unconstrained vector."""
        return self.compiled.slots

    @property
    def program(self) -> Program:
        """The program, with this density's labels."""
        return self._density().program

    @property
    def labels(self) -> list[str]:
        """A name for every entry of the unconstrained vector."""
        return self._density().labels

    def constrain(self, z: Array) -> dict[str, Array]:
        """Values of the latent sites."""
        return self._density().constrain(z)

    def unconstrain(self, values: dict[str, Array]) -> Array:
        """The flat vector at which the latent sites have the given values."""
        return self._density().unconstrain(values)

    def prior(self, key: Array) -> Array:
        """A draw of the latent sites from the prior, unconstrained."""
        return self._density().prior(key)


@surfacing
@jax.jit
def _compiled_estimate(density: SubsampledDensity, key: Array, chosen: dict[str, Array], z: Array) -> Array:
    return density._total(key, chosen, z)


def subsampled(program: Program) -> tuple[tuple[str, int, int], ...]:
    """Name, size and number of drawn elements of a program's subsampled plates; none where they draw all."""
    learned = program._learn()
    sizes = {name: size for info in learned.sites.values() for name, size, _ in info.plates}
    found = ((name, sizes.get(name, 0), count) for name, (count, _) in learned.subsampled.items())
    return tuple((name, size, count) for name, size, count in found if count < size)


def subsampled_density(compiled: Any, data: tuple[Any, ...], labelling: Any, program: Program) -> SubsampledDensity:
    """The estimate of a program's log density.

    Raises:
        ModelError: A latent site inside of a subsampled plate.
    """
    plates = subsampled(program)
    lines = program._learn().subsampled
    names = {name for name, _, _ in plates}
    if compiled.summed:
        name = min(compiled.summed)
        raise ModelError(
            f"site {name!r} is summed out of the density, but a program with a subsampled plate has an estimate of it "
            f"only:\n{at(program.learned()[name].source)}\n{at(lines[min(names)][1])}\n"
            "  Leave subsample= out, or write the sum as a mixture, dist.mixture(weights, components)."
        )
    for name, info in program.learned().items():
        inside = [plate for plate, _, _ in info.plates if plate in names]
        imputed = f"{name}_missing" in program.learned() and program.role(name) == "observed"
        if inside and info.kind == "sample" and (program.role(name) == "latent" or imputed):
            raise ModelError(
                f"site {name!r} is {'imputed' if imputed else 'latent'} inside of plate {inside[0]!r}, which is "
                f"subsampled:\n{at(info.source)}\n{at(lines[inside[0]][1])}\n"
                "  An evaluation would compute only some of its elements. Leave subsample= out, or sum the site out."
            )
    return SubsampledDensity(data, compiled, plates, labelling)


def needs_exact(program: Program, what: str) -> str:
    """Why a subsampled program cannot be given to an algorithm, and what to do."""
    name, size, count = subsampled(program)[0]
    return (
        f"{what} needs the log density itself, but plate {name!r} draws {count} of its {size} elements for every "
        f"evaluation, which gives an estimate with noise:\n{at(program._learn().subsampled[name][1])}\n"
        "  Leave subsample= out (subsample=None), so that all elements count, or sample with stochastic gradients, "
        "infer(program, mcmc.SGLD(step)). ppl.compile(program) is the estimate, (key, z) -> value, its full() exact."
    )
