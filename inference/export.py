"""Labelled containers: an xarray DataTree of all groups, and what the installed ArviZ wants.

Heavy groups are lazy arrays: they have their shapes, dims and coordinates at once and their numbers when
somebody reads them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from . import groups, naming

Labels = Mapping[str, tuple[str, ...]]


def tree(fit: Any) -> Any:
    """All groups of a fit as an ``xarray.DataTree``."""
    import xarray as xr

    found = {name: fit.dataset(name) for name in (*groups.LIGHT, *groups.HEAVY)}
    nodes = {name: data.rename(without_slashes(data)) for name, data in found.items() if data.data_vars}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=flat(fit.manifest)), **nodes})


def without_slashes(data: Any) -> dict[str, str]:
    """New names where a DataTree takes none: those of variables and dims with a slash, ``a/x`` as ``a.x``.

    Example:
        >>> import xarray as xr
        >>> without_slashes(xr.Dataset({"a/x": 1.0, "b": 2.0}))
        {'a/x': 'a.x'}
    """
    names = dict.fromkeys(map(str, (*data.variables, *data.dims)))
    found: dict[str, str] = {}
    for name in (name for name in names if "/" in name):
        new = name.replace("/", ".")
        while new in names or new in found.values():
            new += "_"
        found[name] = new
    return found


def dataset(fit: Any, group: str) -> Any:
    """One group as an ``xarray.Dataset``; empty where the fit has no such group."""
    if group in fit.stored:
        return fit.stored[group]
    leading: tuple[str, ...] = ("chain", "draw")
    if group == "posterior":
        arrays: Mapping[str, Any] = fit.values
    elif group == "sample_stats":
        arrays = fit.draws.stats
    elif group == "unconstrained_posterior":
        arrays = {"z": fit.draws.positions}
    elif group in ("observed_data", "constant_data"):
        leading = ()
        data = group == "observed_data"
        arrays = groups.observed(fit.program, fit.density) if data else groups.constants(fit.program)
    else:
        arrays = lazy_arrays(fit, group)
    free = group == "unconstrained_posterior"
    labels = {"z": ("unconstrained",)} if free else naming.dims(fit.program, fit.density)
    labels |= naming.factor_dims(fit.program) if group == "log_likelihood" else {}
    coords = naming.coords(fit.program, fit.density)
    coords["unconstrained"] = np.asarray(fit.labels)
    return labelled(arrays, labels, coords, leading, flat(fit.manifest))


def labelled(
    arrays: Mapping[str, Any],
    dims: Labels,
    coords: Mapping[str, Any],
    leading: tuple[str, ...],
    attrs: Mapping[str, Any],
) -> Any:
    """Put names on the axes of arrays.

    Args:
        arrays: By variable; NumPy arrays or xarray's lazy ones.
        dims: Names of a variable's own axes; a variable with fewer axes has the first of them.
        coords: Labels by dim; dims without labels count from zero.
        leading: Names of the axes in front.
        attrs: Attributes of the dataset.
    """
    import xarray as xr

    sizes: dict[str, int] = {}
    variables = {}
    for name, value in arrays.items():
        own = len(value.shape) - len(leading)
        names = list(leading) + list(dims.get(name, ()))[:own]
        names += [f"{name}_dim_{axis}" for axis in range(len(names) - len(leading), own)]
        for axis, (dim, size) in enumerate(zip(names, value.shape, strict=True)):
            # A factor of a joint site, or an argument, may have an axis that is not the site's: rename it.
            if sizes.get(dim, size) != size or (dim in coords and len(coords[dim]) != size):
                names[axis] = f"{name}_dim_{axis - len(leading)}"
        sizes |= dict(zip(names, value.shape, strict=True))
        variables[name] = xr.Variable(tuple(names), value)
    index = {dim: np.asarray(coords[dim]) if dim in coords else np.arange(size) for dim, size in sizes.items()}
    return xr.Dataset(variables, coords=index, attrs=dict(attrs))


def lazy_arrays(fit: Any, group: str) -> dict[str, Any]:
    """The variables of a heavy group, not yet computed."""
    import ppl

    try:
        shapes = groups.shapes(fit, group)
    except (ppl.ModelError, NotImplementedError):
        # For example a prior that cannot be simulated: the group does not exist.
        return {}
    return {name: _lazy(shape, partial(_member, fit, group, name)) for name, shape in shapes.items()}


def _member(fit: Any, group: str, name: str) -> np.ndarray:
    return fit.group(group)[name]


def _lazy(shape: Any, read: Callable[[], np.ndarray]) -> Any:
    from xarray.backends import BackendArray
    from xarray.core import indexing

    class Deferred(BackendArray):
        """An array that is computed when it is indexed."""

        def __init__(self) -> None:
            self.shape, self.dtype = tuple(shape.shape), np.dtype(shape.dtype)

        def __getitem__(self, key: Any) -> np.ndarray:
            def get(index: Any) -> np.ndarray:
                return np.asarray(read()[index])

            support = indexing.IndexingSupport.BASIC
            return indexing.explicit_indexing_adapter(key, self.shape, support, get)

    return indexing.LazilyIndexedArray(Deferred())


def dims_of(program: Any) -> dict[str, tuple[str, ...]]:
    """Names of the axes of every site of a program."""
    return naming.dims(program, None)


def flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that every file format can hold: numbers, strings, and JSON text for the rest.

    Example:
        >>> flat({"a": True, "b": {"c": None}, "d": ["x"]})
        {'a': 1, 'b': '{"c": null}', 'd': ['x']}
    """
    return {name: _attribute(value) for name, value in facts.items()}


def _attribute(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float | str):
        return value
    if isinstance(value, list) and value and all(isinstance(entry, str) for entry in value):
        return value
    return json.dumps(value)


def to_arviz(fit: Any) -> Any:
    """What the installed ArviZ works on: ``InferenceData`` before 1.0, a ``DataTree`` from then on."""
    import importlib.metadata

    if int(importlib.metadata.version("arviz").split(".")[0]) >= 1:
        return fit.data
    import arviz

    data = fit.data
    nodes = {name: node.to_dataset() for name, node in data.children.items()}
    warm = {name: nodes.pop(name) for name in list(nodes) if name.startswith("warmup_")}
    return arviz.InferenceData(attrs=dict(data.attrs), save_warmup=True, **nodes, **warm)
