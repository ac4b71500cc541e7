"""Match the latent sites of a new program with the draws of a fit, by name, shape and label.

A site whose labels are those of the fit takes its draws as they are. Along a plate whose labels differ, known
labels take their draws and new labels are drawn from the population: given its parents, an element of a plate
is independent of the others, so both can stand side by side. Along a chain that is longer than the fit's, the fit's
steps come first and the rest is drawn: a step does not read the steps after it. Everything else is refused: a wrong
guess here would return the prior under the name of the posterior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .summary import nearest


@dataclass(frozen=True)
class Known:
    """What a fit knows: draws of latent sites, and the meaning of their axes.

    Attributes:
        draws: Latent sites, shape (chains, draws, ...).
        dims: Names of a site's axes.
        coords: Labels by dim, for labelled dims only.
        observed: Names of the sites that were conditioned on.
        sizes: Sizes of dims.
        rows: For the rows of a ragged table, by dim, the group and the place in it of each.
    """

    draws: dict[str, np.ndarray]
    dims: dict[str, tuple[str, ...]]
    coords: dict[str, np.ndarray]
    observed: frozenset[str]
    sizes: dict[str, int]
    rows: Mapping[str, list[tuple[Any, int]]] = field(default_factory=dict)

    def grown(self, program: Any) -> dict[str, int]:
        """Chains that are longer in a program than in the fit, with the number of steps in the fit."""
        plates = [plate for info in program.tidy.sites.values() for plate in info.plates]
        chains = {name: n for name, n, kind in plates if kind == "markov"}
        return {name: self.sizes[name] for name, size in chains.items() if size > self.sizes.get(name, size)}


@dataclass(frozen=True)
class Places:
    """Where the elements of a site come from.

    Attributes:
        index: For every axis, the place in the fit of each new element, -1 where it has none.
    """

    index: tuple[np.ndarray, ...]

    @property
    def mask(self) -> np.ndarray:
        """True where an element takes the fit's draws."""
        known = np.ones((), bool)
        for axis in self.index:
            known = known[..., None] & (axis >= 0)
        return known

    def take(self, draws: np.ndarray) -> np.ndarray:
        """Draws of shape (rows, ...) in the new places; what stands at new elements has no meaning."""
        for axis, index in enumerate(self.index):
            draws = np.take(draws, np.maximum(index, 0), axis=axis + 1)
        return draws


@dataclass(frozen=True)
class Match:
    """How a new program takes its latent sites.

    Attributes:
        whole: Sites that take the fit's draws as they are.
        partial: Sites that take some of their elements from the fit.
        new: Sites that are drawn.
        notes: What has to be said about it.
    """

    whole: tuple[str, ...]
    partial: dict[str, Places]
    new: tuple[str, ...]
    notes: tuple[str, ...]


def match(known: Known, program: Any) -> Match:
    """Match every latent site of an unconditioned program.

    Raises:
        ppl.ModelError: If a site can neither take draws nor be drawn honestly.
    """
    whole, partial, new, notes = [], {}, [], []
    labels, infos = program.coords, program.tidy.sites
    grown, rows = known.grown(program), rows_of(program)
    for name, site in program.sites.items():
        if site.kind != "latent" or name in known.observed:
            continue
        if name not in known.draws:
            _new_site(name, site, known, labels)
            new.append(name)
            notes.append(f"'{name}' has no posterior draws: it is drawn from its prior given the rest")
            continue
        places, unseen = places_of(site, infos[name], known.draws[name].shape[2:], known, labels, grown, rows)
        if places is None:
            whole.append(name)
            continue
        partial[name] = places
        if unseen:
            told = ", ".join(map(str, unseen[:5])) + (f", ... ({len(unseen)} in all)" if len(unseen) > 5 else "")
            notes.append(f"'{name}' is drawn from its population for the new labels {told}")
    return Match(tuple(whole), partial, tuple(new), tuple(notes))


def _new_site(name: str, site: Any, known: Known, labels: dict[str, Any]) -> None:
    """Allow a site without draws only where its plate has labels that the fit does not know."""
    from ppl import ModelError

    for plate in site.plates:
        if plate in labels and not set(_texts(labels[plate])) <= set(_texts(known.coords.get(plate, ()))):
            return
    raise ModelError(
        f"the fit has no draws of '{name}' ({site.source}){nearest(name, known.draws)}; it has "
        f"{', '.join(known.draws)}. Prediction would draw '{name}' from its prior."
    )


def places_of(
    site: Any, info: Any, shape: tuple[int, ...], known: Known, labels: Mapping[str, Any], grown: Mapping[str, int],
    rows: Mapping[str, Any],
) -> tuple[Places | None, list]:
    """Places of a site's elements in an array of the fit.

    Args:
        site: The site in the new program.
        info: What is learned about it.
        shape: Shape of the array in the fit.
        known: What the fit knows.
        labels: Labels by dim in the new program.
        grown: Chains that are longer than the fit's, with the fit's number of steps.
        rows: The rows of the program's ragged tables, as in ``Known.rows``.

    Returns:
        The places, None where they are the fit's own; and the labels that the fit does not have.

    Raises:
        ppl.ModelError: If no labels tell which elements are the same, or they may not be rearranged.
    """
    from ppl import ModelError

    name, dims = site.name, known.dims.get(site.name, ())
    if len(shape) != len(site.shape):
        raise ModelError(f"'{name}' has shape {site.shape} in the new program and {shape} in the fit ({site.source})")
    index, unseen, same = [], [], True
    for axis, (dim, size) in enumerate(zip(site.dims, site.shape, strict=True)):
        old = known.coords.get(dims[axis]) if axis < len(dims) else None
        new = labels.get(dim)
        if dim in rows and dim in known.rows and _kind(info, axis) == "markov":
            index.append(_later_rows(site, dim, known.rows[dim], rows[dim]))
            same = same and np.array_equal(index[-1], np.arange(shape[axis]))
            continue
        if _kind(info, axis) != "own" and dims[axis : axis + 1] == (dim,) and grown.get(dim) == shape[axis]:
            _continues(dim, old, new, site)
            index.append(np.where(np.arange(size) < shape[axis], np.arange(size), -1))
            same = False
            continue
        if old is None or new is None:
            if size != shape[axis]:
                raise ModelError(
                    f"'{name}' has shape {site.shape} in the new program and {shape} in the fit, and no labels tell "
                    f"which elements are the same ({site.source}). Give the plate labels, in both programs: "
                    f"ppl.plate('{dim}', ..., coords=labels)."
                )
            index.append(np.arange(size))
            continue
        position = {label: i for i, label in enumerate(_texts(old))}
        places = np.array([position.get(label, -1) for label in _texts(new)])
        if not np.array_equal(places, np.arange(len(old))):
            same = False
            _independent(site, info, axis)
        unseen += [label for label, place in zip(_texts(new), places, strict=True) if place < 0]
        index.append(places)
    return (None if same else Places(tuple(index))), unseen


def rows_of(program: Any) -> dict[str, list[tuple[Any, int]]]:
    """For the rows of a program's ragged tables, by dim, the group and the place in it of each."""
    found = {}
    for name, axis in program.tidy.axes.items():
        packing = program.tidy.packings[axis.places[0]]
        if axis.level == "row" and packing.n_groups is not None:
            groups, places = np.divmod(packing.flat, packing.mask.shape[-1])
            groups = groups if packing.labels is None else np.asarray(packing.labels)[groups]
            found[name] = list(zip(_texts(groups), places.tolist(), strict=True))
    return found


def _later_rows(site: Any, dim: str, old: list[tuple[Any, int]], new: list[tuple[Any, int]]) -> np.ndarray:
    """Places of rows of chains along ragged groups: the first rows of a group are those of the fit."""
    from ppl import ModelError

    position = {row: i for i, row in enumerate(old)}
    groups = {group for group, _ in new}
    gone = [row for row in old if row[0] in groups and row not in set(new)]
    if gone:
        group, place = gone[0]
        raise ModelError(
            f"'{site.name}' runs along '{dim}', which has no row {place} of group {group!r} in the new program, "
            f"although the fit has ({site.source}): chains go on after their ends, they are not shortened."
        )
    return np.array([position.get(row, -1) for row in new])


def _kind(info: Any, axis: int) -> str:
    """What an axis of a site is: a plate, a chain, or the site's own."""
    return info.plates[axis][2] if axis < len(info.plates) else "own"


def _continues(chain: str, old: Any, new: Any, site: Any) -> None:
    """Refuse a longer chain whose first steps are not labelled as the fit's."""
    from ppl import ModelError

    if old is None or new is None or _texts(new)[: len(old)] == _texts(old):
        return
    first = next(i for i, (a, b) in enumerate(zip(_texts(old), _texts(new), strict=False)) if a != b)
    raise ModelError(
        f"the chain '{chain}' has {len(new)} steps in the new program and {len(old)} in the fit, but step {first} is "
        f"labelled {_texts(new)[first]!r} there and {_texts(old)[first]!r} here ({site.source}): a longer chain is a "
        "forecast and begins with the steps of the fit."
    )


def _independent(site: Any, info: Any, axis: int) -> None:
    """Refuse to rearrange an axis along which the elements depend on each other."""
    from ppl import ModelError

    if _kind(info, axis) != "plate":
        raise ModelError(
            f"'{site.name}' has other labels than the fit along '{site.dims[axis]}', whose elements are not "
            f"independent of each other ({site.source}): leaving some out or adding some is no prediction."
        )


def _texts(labels: Any) -> list[Any]:
    """Labels as plain Python values, whatever array type they came in."""
    labels = np.asarray(labels)
    return (labels.astype("M8[us]") if labels.dtype.kind == "M" else labels).tolist()
