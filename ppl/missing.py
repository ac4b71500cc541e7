"""Missing data: which elements of a value are known, and what becomes of the others.

A value with gaps is divided into an array without gaps and booleans that say which elements are known. Both are
data, so that another pattern of gaps compiles nothing. The gaps are filled before anything is traced, with a point
inside of the support, so that no NaN reaches a gradient. With ``"marginalize"`` the site's factor is that of the known
elements alone; with ``"impute"`` the others are the elements of a latent site ``<site>_missing``. Both are right where
the reason for a gap does not depend on what is missing (Little and Rubin, 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import space
from .errors import ModelError, at, suggest, user_line
from .sites import Learned, SiteInfo
from .values import FILLED, IMPUTE, MARGINALIZE, MASK, PLACES, site_of

Array = Any
POLICIES = ("error", IMPUTE, MARGINALIZE)
HINT = (
    '; or say what the gaps are: condition(..., missing="marginalize") leaves these elements out of the density, '
    'missing="impute" makes them latent variables.'
)


def latent_name(name: str) -> str:
    """The latent site of a site's imputed elements."""
    return f"{name}_missing"


# ---------------------------------------------------------------------------------------------- what users hand in


def markers(value: Any) -> tuple[Any, np.ndarray | None]:
    """Divide a value into numbers and booleans that say which of them are known.

    NaN, None, NA and NaT of pandas and the masked entries of NumPy mark a gap.

    Args:
        value: An array, a (nested) list, a column or a table.

    Returns:
        The value and None where nothing is missing; else an array with any numbers in the gaps, and booleans of its
        shape.

    Example:
        >>> markers([1, None, 3])[1].tolist()
        [True, False, True]
    """
    if isinstance(value, jax.core.Tracer):
        return value, None
    gaps: Any = np.zeros((), bool)
    if isinstance(value, np.ma.MaskedArray):
        gaps, value = np.ma.getmaskarray(value), np.ma.getdata(value)
    try:
        host = np.asarray(value)
    except ValueError:  # rows of different lengths, which the check of the shape explains
        return value, None
    if host.dtype == object:
        absent = np.fromiter((_absent(x) for x in host.ravel()), bool, host.size).reshape(host.shape)
        filled = [0 if gap else x for gap, x in zip(absent.ravel(), host.ravel(), strict=True)]
        try:
            numbers = np.asarray(filled)
        except ValueError:
            return value, None
        if not absent.any() or numbers.dtype.kind not in "biuf" or numbers.size != host.size:
            return value, None
        host, gaps = numbers.reshape(host.shape), gaps | absent
    if host.dtype.kind == "f":
        gaps = gaps | np.isnan(host)
    return (host, ~gaps) if gaps.any() else (value, None)


def _absent(x: Any) -> bool:
    """Whether an entry of a column stands for no value."""
    if x is None or type(x).__name__ in ("NAType", "NaTType", "MaskedConstant"):
        return True
    return isinstance(x, (float, np.floating)) and x != x


def policies(missing: Any, values: Mapping[str, Any]) -> dict[str, str]:
    """The policy of every site of a call of ``condition``.

    Raises:
        ModelError: A policy, or a site, that does not exist.
    """
    given = missing if isinstance(missing, Mapping) else dict.fromkeys(values or (None,), missing)
    for name, policy in given.items():
        if name is not None and name not in values:
            raise ModelError(
                f"condition(missing=...): {name!r} is not among the values of this call.{suggest(name, values)}"
                f"\n{at(user_line())}"
            )
        if not isinstance(policy, str) or policy not in POLICIES:
            raise ModelError(
                f'condition(missing=...): a policy is "error", "impute" or "marginalize", not {policy!r}:'
                f'\n{at(user_line())}\n  A site called "missing" is conditioned on by condition({{"missing": value}}).'
            )
    return {name: given.get(name, "error") for name in values}


def filled(info: SiteInfo, host: np.ndarray, known: np.ndarray) -> np.ndarray:
    """A value with a point of the support in its gaps, where the support is fixed; else zeros, replaced in the run."""
    point: Any = 0
    if info.support is not None:
        point = np.asarray(space.inner_point(info.support, info.full_shape)).astype(np.result_type(host, float))
        if info.discrete and host.dtype.kind != "f":
            point = point.astype(host.dtype if host.dtype.kind != "b" else int)
    return np.where(known, host, point)


def whole_chain(info: SiteInfo, value: Any, policy: str) -> tuple[Any, str]:
    """A value of the first steps of a chain as a value of all of them, whose last are missing.

    Args:
        info: The site.
        value: What the user hands in; anything but the first steps of a chain is left as it is.
        policy: The site's policy for gaps; where none was chosen, the steps without a value are marginalised.

    Returns:
        The value, and the policy.
    """
    numbers, known = markers(value)
    try:
        shape, full = np.shape(numbers), info.full_shape
    except ValueError:  # rows of different lengths, which are refused where the value becomes an array
        return value, policy
    differ = [axis for axis, (n, size) in enumerate(zip(shape, full, strict=False)) if n != size]
    if isinstance(numbers, jax.core.Tracer) or len(shape) != len(full) or len(differ) != 1:
        return value, policy
    axis = differ[0]
    if axis >= len(info.plates) or info.plates[axis][2] != "markov" or not 0 < shape[axis] < full[axis]:
        return value, policy
    host = np.asarray(numbers)
    after = [(0, size - n) for n, size in zip(shape, full, strict=True)]
    known = np.pad(np.ones(shape, bool) if known is None else known, after)
    policy = MARGINALIZE if policy == "error" and known.sum() == host.size else policy
    return np.ma.array(np.pad(host, after), mask=~known), policy


def whole_rows(info: SiteInfo, known: np.ndarray) -> np.ndarray:
    """Which rows are wholly known, a row being what the distribution scores as one."""
    own = len(info.shape) - info.batch
    return np.asarray(known.all(axis=tuple(range(known.ndim - own, known.ndim))))


# ---------------------------------------------------------------------------------------------- what a program keeps


def forget(fixed: dict[str, Any], roles: dict[str, str], name: str) -> None:
    """Forget what was known of the gaps of a site."""
    for mark in (MASK, PLACES):
        fixed.pop(name + mark, None)
        roles.pop(name + mark, None)


def remember(
    program: Any, info: SiteInfo, known: np.ndarray, policy: str, also: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Data and roles by which a program knows the gaps of a site, refused where the policy would be wrong.

    Args:
        program: The program.
        info: The site.
        known: Which of its elements are known.
        policy: What becomes of the others.
        also: The same of all sites whose gaps are marginalised.
    """
    from .exactness import refuse_imputation, refuse_marginal

    if policy == MARGINALIZE:
        refuse_marginal(program, info, known, also)
        return {info.name + MASK: known}, {info.name + MASK: MARGINALIZE}
    refuse_imputation(program, info)
    places = np.flatnonzero(~known).astype(np.int32)
    marks = {info.name + MASK: known, info.name + PLACES: places}
    return marks, dict.fromkeys(marks, IMPUTE)


def extended(learned: Learned, fixed: Mapping[str, Any]) -> Learned:
    """The sites of a model and, after each that has imputed elements, the latent site of these."""
    marks = {site_of(mark): value for mark, value in fixed.items() if mark.endswith(PLACES)}
    if not marks:
        return learned
    sites: dict[str, SiteInfo] = {}
    for name, info in learned.sites.items():
        sites[name] = info
        if name in marks:
            shape = (int(np.size(marks[name])),)
            support = None if info.support is None else space.each_support(info.support)
            empty: Any = {"plates": (), "dims": None, "role": None, "branches": (), "batch": 1, "joint": 0}
            sites[latent_name(name)] = replace(
                info, name=latent_name(name), shape=shape, free_shape=shape, support=support, **empty
            )
    return replace(learned, sites=sites)


def labels(program: Any) -> dict[str, np.ndarray]:
    """For each site of imputed elements their places as text, by the name of its axis."""
    from .check import place_text

    found = {}
    for mark, places in program.fixed.items():
        if mark.endswith(PLACES):
            info = program.tidy.sites[site_of(mark)]
            coords = {**program._learn().coords, **program.tidy.labels}
            places = program.tidy.places(info.name, np.asarray(places))
            index = np.stack(np.unravel_index(places, info.full_shape or (1,)), axis=-1)
            rows = index[:, : len(info.full_shape)].tolist()
            texts = [",".join(place_text(info, tuple(row), coords)) or info.name for row in rows]
            found[f"{latent_name(info.name)}_dim_0"] = np.array(texts)
    return found


def with_imputed(program: Any, parents: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Parents in a graph, where who reads a site reads its imputed elements, which have the site's own parents."""
    found = dict(parents)
    for name in (site_of(mark) for mark in program.fixed if mark.endswith(PLACES)):
        latent = latent_name(name)
        found = {child: reads | {latent} if name in reads else reads for child, reads in found.items()}
        found[latent] = parents[name] | {name} if name in parents[name] else parents[name]
    return found


def shown(program: Any, name: str, value: Any) -> Any:
    """The value of a fixed site as the user handed it in: NaN in the gaps."""
    known = program.fixed.get(name + MASK)
    return value if known is None else np.where(known, value, np.nan)


def among(fixed: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Fixed and given values together; a value that is given whole has no gaps."""
    given = {**fixed, **values}
    for name in values:
        if name + MASK in fixed and name + MASK not in values and name in fixed:
            forget(given, {}, name)
            given.pop(latent_name(name), None)
    return given


def needless(fixed: Mapping[str, Any], values: Mapping[str, Any]) -> set[str]:
    """Sites of imputed elements that need no value because the sites that they belong to are given."""
    return {latent_name(site_of(mark)) for mark in fixed if mark.endswith(PLACES) and site_of(mark) in values}


# ---------------------------------------------------------------------------------------------- around a run


def expand(given: dict[str, Any], free: dict[str, Any], roles: dict[str, str]) -> tuple[dict, dict, dict]:
    """Put imputed elements where they belong in their sites' full arrays, so that plates and chains can slice them."""
    marks = [mark for mark in given if mark.endswith(PLACES)]
    if not marks:
        return given, free, roles
    given, free, roles = dict(given), dict(free), dict(roles)
    for mark in marks:
        places, name = given.pop(mark), site_of(mark)
        if name not in given:  # it is drawn as a whole
            continue
        latent, shape = latent_name(name), np.shape(given[name])
        if latent in given:
            value = jnp.asarray(given.pop(latent))
            given[name] = _put(jnp.asarray(given[name]).astype(value.dtype), places, value)
            roles[name + MASK] = FILLED
        elif latent in free:
            value = free.pop(latent)
            free[name] = _put(jnp.zeros(shape, value.dtype), places, value)
    return given, free, roles


def _put(array: Array, places: Array, values: Array) -> Array:
    flat = array.reshape(-1).at[places].set(values, unique_indices=True)
    return flat.reshape(array.shape)


def collect(out: dict[str, dict[str, Array]], given: Mapping[str, Any]) -> None:
    """Name what a run kept of imputed elements by their own sites."""
    for mark in given:
        if not mark.endswith(PLACES):
            continue
        places, name = given[mark], site_of(mark)
        latent = latent_name(name)
        likelihood, prior = out.get("likelihood", {}), out.setdefault("prior", {})
        for channel, kept in out.items():
            if channel == "value" and name in kept:
                kept[latent] = kept[name].reshape(-1)[places]
            elif channel == "free" and name in kept:
                kept[latent] = kept.pop(name).reshape(-1)[places]
            elif channel == "logdet" and name in kept:
                kept[latent] = kept.pop(name)
            elif channel == "factor" and name + MASK in kept:
                factor = kept.pop(name + MASK)
                if name in likelihood:  # of a joint family: the rest of its density is that of the gaps given the data
                    prior[latent] = factor.sum() + kept[name].sum() - likelihood[name].sum()
                whole = factor.shape == np.shape(given[name + MASK])
                kept[latent] = factor.reshape(-1)[places] if whole else factor.sum()


def refuse_called(program: Any, scope: str) -> None:
    """Imputed elements belong to the program that is compiled, not to one that it calls."""
    for mark in program.fixed:
        if mark.endswith(PLACES):
            name = site_of(mark)
            raise ModelError(
                f"ppl.call({scope!r}, ...): the program imputes missing elements of {name!r}, which would be hidden "
                f"latents:\n{at(user_line())}\n  Condition the outer program instead: "
                f'program.condition({{"{scope}/{name}": value}}, missing="impute").'
            )
