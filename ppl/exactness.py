"""Where a policy for missing data is exact, and what is said where it is not.

Leaving a factor out is exact if it integrates to one over the element that is missing: for a proper distribution, of
an element that nothing else reads, or in a chain from which on nothing is known. A missing element can be a latent
variable if it has a density and a bijection of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .check import element
from .errors import ModelError, at, user_line
from .missing import latent_name
from .sites import SiteInfo
from .values import IMPUTE, MARGINALIZE, MASK, PLACES


def _where(program: Any, info: SiteInfo, bad: np.ndarray) -> str:
    place = tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))
    return element(info, place, program.coords)


def _refuse(info: SiteInfo, policy: str, why: str, fix: str) -> ModelError:
    return ModelError(f'missing="{policy}": {why}:\n{at(info.source)}\n{at(user_line())}\n  {fix}')


def refuse_marginal(program: Any, info: SiteInfo, known: np.ndarray, also: Mapping[str, np.ndarray]) -> None:
    """Leaving factors out is exact only for what integrates to one and is read by nothing else."""
    if info.improper:
        why = f"site {info.name!r} ({info.family}) is improper, so that its factor does not integrate to one"
        raise _refuse(info, MARGINALIZE, why, 'Give it a proper distribution, or write missing="impute".')
    if not info.marginalizes:
        rows = known.any(axis=tuple(range(known.ndim - info.joint, known.ndim)))
        partly = np.asarray(rows & ~known.all(axis=tuple(range(known.ndim - info.joint, known.ndim))))
        if partly.any():
            why = (
                f"{_where(program, info, partly)} is known in part ({int(partly.sum())} of {partly.size} are), and the "
                f"density of a part of a {info.family} is not known here"
            )
            raise _refuse(info, MARGINALIZE, why, "Leave out the whole of it, or write the site as a normal one.")
    graph = program.graph()
    sites = program.tidy.sites
    readers = [
        name
        for name in sorted(graph.children(info.name) - {info.name})
        if name not in also or not _ends_with(info, known, sites[name], also[name])
    ]
    advice = 'Write missing="impute": the missing elements become latent variables, which may be read.'
    if info.discrete:
        advice = "Sum the missing values out in the model, by dist.mixture(weights, components)."
    if readers:
        source = program.learned()[readers[0]].source
        why = (
            f"{graph.kinds[readers[0]]} {readers[0]!r} reads site {info.name!r}, so that leaving out the missing "
            f"elements of {info.name!r} would not be exact:\n{at(source)}"
        )
        raise ModelError(f'missing="{MARGINALIZE}": {why}\n{at(info.source)}\n{at(user_line())}\n  {advice}')
    if info.name in graph.children(info.name) and not _ends(info, known):
        why = (
            f"{_where(program, info, ~known)} is missing, and later elements of {info.name!r} along its chain read it, "
            "so that leaving it out would not be exact"
        )
        raise _refuse(info, MARGINALIZE, why, f"{advice} A chain that is known up to some step may be left out after.")


def _ends(info: SiteInfo, known: np.ndarray) -> bool:
    """Whether, along the one chain around a site, all is missing after the first gap."""
    chains = [axis for axis, plate in enumerate(info.plates) if plate[2] == "markov"]
    if len(chains) != 1:
        return False
    axis = chains[0]
    inner = tuple(range(axis + 1, known.ndim))
    complete, empty = known.all(axis=inner), ~known.any(axis=inner)
    started = np.cumsum(~complete, axis=axis) > 0
    rest = empty.take(range(1, started.shape[axis]), axis)
    return bool(np.all(rest | ~started.take(range(started.shape[axis] - 1), axis)))


def _ends_with(info: SiteInfo, known: np.ndarray, reader: SiteInfo, theirs: np.ndarray) -> bool:
    """Whether a site of the same chain, which reads this one, is missing from this one's first gap on."""
    if not (_ends(info, known) and _ends(reader, theirs)):
        return False
    axis = next(axis for axis, plate in enumerate(info.plates) if plate[2] == "markov")
    if info.plates[: axis + 1] != reader.plates[: axis + 1]:
        return False
    started = np.cumsum(~known.all(axis=tuple(range(axis + 1, known.ndim))), axis=axis) > 0
    return not bool(np.any(started & theirs.any(axis=tuple(range(axis + 1, theirs.ndim)))))


def refuse_imputation(program: Any, info: SiteInfo) -> None:
    """A missing element can be a latent variable where it is continuous and free of the others' supports."""
    if info.discrete:
        why = f"site {info.name!r} ({info.family}) is discrete, and so its missing elements would be discrete latents"
        fix = 'Write missing="marginalize" where nothing else reads them, or sum them out by dist.mixture.'
        raise _refuse(info, IMPUTE, why, fix)
    if info.atoms or info.family == "HalfCensored":
        why = f"site {info.name!r} ({info.family}) has point masses or censored values, and so its gaps have no density"
        raise _refuse(info, IMPUTE, why, 'Write missing="marginalize", or the value before censoring as the site.')
    if not info.elementwise:
        why = f"the elements of a value of site {info.name!r} ({info.family}) constrain each other"
        fix = 'Leave the whole of it out: missing="marginalize" with all of its elements missing.'
        raise _refuse(info, IMPUTE, why, fix)
    other = program.learned().get(latent_name(info.name))
    if other is not None and info.name + PLACES not in program.fixed:
        why = f"the missing elements of {info.name!r} would be called {other.name!r}, which is another site"
        raise _refuse(info, IMPUTE, f"{why}:\n{at(other.source)}", "Rename one of them.")


def refuse_draw(program: Any, name: str) -> None:
    """Refuse to draw the rest of a vector given a part of it where that law is not known."""
    info, known = program.learned()[name], program.fixed.get(name + MASK)
    if known is None or info.marginalizes:
        return
    axes = tuple(range(known.ndim - info.joint, known.ndim))
    partly = np.asarray(known).any(axis=axes) & ~np.asarray(known).all(axis=axes)
    if np.any(partly):
        raise ModelError(
            f"site {name!r} is known in part, and how a {info.family} is distributed given a part of it is not known "
            f"here, so that it cannot be simulated:\n{at(info.source)}\n{at(user_line())}\n  Its imputed elements have "
            "posterior draws; or write the site as a MultivariateNormal."
        )
