"""Coordinates of hierarchical effects by hand: the traced program in other free values (``reparameterize``).

Everything that is asked of a density is computed from the traced program, so that all of it then speaks of the new
coordinates; only the way from values to free values needs the inverse of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import _jax
from ..errors import ModelError, at, suggest
from ..location import INFORMATION
from .reparameterize import Moves, find

Array = Any


@dataclass(frozen=True, eq=False)
class Hand:
    """Coordinates that were chosen by hand.

    Attributes:
        moves: The effects whose coordinates are not those of the model's text.
        k: Information of the data about each of their elements.
        t: The data's estimate of each.
        names: Latent sites in the order of the traced program.
    """

    moves: Moves
    k: np.ndarray
    t: np.ndarray
    names: tuple[str, ...]

    def invert(self, data: Sequence[Array], pieces: dict[str, Array]) -> dict[str, Array]:
        """From the free values of the model's text to the chosen ones."""
        pieces = {name: jnp.asarray(pieces[name]) for name in self.names}
        return self.moves.invert(data, pieces, *self._parameters())

    def apply(self, data: Sequence[Array], pieces: dict[str, Array]) -> dict[str, Array]:
        """From the chosen free values to those of the model's text."""
        return self.moves.apply(data, pieces, *self._parameters())[0]

    def _parameters(self) -> tuple[Array, Array]:
        dtype = jnp.result_type(float)
        return jnp.asarray(self.k, dtype), jnp.asarray(self.t, dtype)


def choose(compiled: Any) -> Hand | None:
    """Which effects of a traced program get other coordinates by hand; None for none.

    Raises:
        ModelError: A name that is no latent site, or one without a location and a scale.
    """
    choice = compiled.passes.reparameterize
    forms = {} if isinstance(choice, bool) else dict(choice)
    everywhere = forms.pop("*", None)
    for name in forms:
        if name not in compiled.slots:
            raise ModelError(
                f"reparameterize: {name!r} is not a latent site of this density.{suggest(name, compiled.slots)}"
            )
    moves = find(compiled, None if everywhere else set(forms))
    if everywhere and moves is not None:
        forms = {e.name: everywhere for e in moves.effects} | forms
    effects = {} if moves is None else {e.name: e for e in moves.effects}
    for name in forms:
        if name not in effects:
            _refuse(compiled, name)
    written = {True: "noncentred", False: "centred"}
    moved = {n: f for n, f in forms.items() if f not in (written[effects[n].standard], "learned")}
    chosen = None if moves is None else moves.only(moved)
    if chosen is None:
        return None
    chosen = replace(chosen, effects=tuple(replace(e, centred=moved[e.name] == "centred") for e in chosen.effects))
    pairs = [_parameters(e.name, moved[e.name], s) for e, s in zip(chosen.effects, chosen.shapes, strict=True)]
    k, t = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return Hand(chosen, k, t, tuple(compiled.slots))


def _parameters(name: str, form: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(form, str):
        return np.zeros(int(np.prod(shape))), np.zeros(int(np.prod(shape)))
    k, t = (np.asarray(values).reshape(own) for own, values in form)
    try:
        return np.broadcast_to(k, shape).ravel(), np.broadcast_to(t, shape).ravel()
    except ValueError:
        raise ModelError(
            f"reparameterize: k and t of site {name!r} have shapes {k.shape} and {t.shape}, its free value {shape}"
        ) from None


def _refuse(compiled: Any, name: str) -> None:
    info = compiled.sites[name]
    if info.family not in INFORMATION:
        why = f"its distribution {info.family} is none of {', '.join(INFORMATION)}"
    elif compiled.find("location", sites={name}):
        why = "its location or scale is computed from itself (as along a chain), or from sites that are summed out"
    elif compiled.find("standard", sites={name}):
        why = "the model does not use it as location + scale * (a standard variable)"
    else:
        why = "it lies in a branch or a subsampled plate, or only some of its elements are unknown"
    what = f"reparameterize: site {name!r} cannot be moved between centred and non-centred"
    raise ModelError(f"{what}; {why}:\n{at(info.source)}")


def rewritten(compiled: Any, hand: Hand) -> _jax.Code:
    """The traced program in the chosen coordinates: the same outputs, with the map's log-determinants added."""
    code, count = compiled.code, compiled.inputs
    avals = [v.aval for v in code.jaxpr.invars[len(code.consts) :]]
    names = [*compiled.slots, *compiled.summed]

    def moved(data: list[Array], free: list[Array]) -> list[Array]:
        pieces, logdets, _ = hand.moves.apply(data, dict(zip(names, free, strict=True)), *hand._parameters())
        out = code.run(*data, *pieces.values())
        for i, (channel, name) in enumerate(compiled.names):
            if channel == "logdet" and name in logdets:
                full = jnp.broadcast_to(logdets[name], avals[count + names.index(name)].shape)
                out[i] = out[i] + full.sum(tuple(range(jnp.ndim(out[i]), full.ndim)))
        return out

    return _jax.trace(moved, avals[:count], avals[count:])[0]
