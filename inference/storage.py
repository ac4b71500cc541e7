"""Save a fit to a Zarr directory and load it again; arrays and JSON text only, nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from . import groups as known
from . import kept, noisy
from . import precision as floats
from .core import Draws
from .export import without_slashes
from .results import Fit

_TEXT = "ppl_manifest"
"""Attribute of the root that holds the manifest and the notes."""


def save(fit: Fit, path: Any, groups: Iterable[str] | str | None = None) -> None:
    """Write the groups of a fit to a Zarr directory.

    Args:
        fit: The fit.
        path: A directory that does not exist.
        groups: Heavy groups to compute and write, or ``"all"``; by default those that were read already.

    Raises:
        FileExistsError: Rather than overwrite.
    """
    import xarray as xr

    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; a fit is saved to a new directory")
    if groups is None:
        wanted = set(fit._groups) | set(fit.stored)
    elif groups == "all":
        wanted = set(known.HEAVY)
    else:
        from .summary import choose

        wanted = set(choose(known.LIGHT + known.HEAVY, groups))
    cheap = ("warmup_sample_stats",)
    nodes = {name: fit.dataset(name) for name in known.LIGHT + known.HEAVY if name in wanted.union(known.LIGHT, cheap)}
    nodes = {name: data for name, data in nodes.items() if data.data_vars}
    if fit.draws.warmup_positions is not None:
        nodes["warmup_unconstrained"] = xr.Dataset(
            {"z": (("chain", "draw", "unconstrained"), fit.draws.warmup_positions)}
        )
    order = {name: list(data.data_vars) for name, data in nodes.items()}
    renamed = {name: without_slashes(data) for name, data in nodes.items()}
    text = json.dumps({"manifest": fit.manifest, "notes": list(fit.notes), "order": order, "renamed": renamed})
    root = xr.Dataset(attrs={_TEXT: text})
    tree = xr.DataTree.from_dict({"/": root, **{n: _storable(data.rename(renamed[n])) for n, data in nodes.items()}})
    tree.to_zarr(path, consolidated=False, zarr_format=3)


def load(path: Any, program: Any = None) -> Fit:
    """Read a fit.

    Args:
        path: The directory given to ``save``.
        program: The conditioned program of the fit, needed to predict and for groups that were not saved.

    Raises:
        FileNotFoundError: If there is no such directory.
        ppl.ModelError: If the program is not the one that was fitted.
    """
    import xarray as xr

    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no saved fit at {path}")
    with xr.open_datatree(path, engine="zarr", consolidated=False, chunks=None) as tree:
        text = json.loads(tree.attrs[_TEXT])
        order = text["order"]
        found = {name: _readable(node.to_dataset().load()) for name, node in tree.children.items()}
    names = {name: {new: old for old, new in few.items()} for name, few in text.get("renamed", {}).items()}
    stored = {name: data.rename(names.get(name, {}))[order[name]] for name, data in found.items()}
    warm = stored.pop("warmup_unconstrained", None)
    draws = Draws(
        positions=stored["unconstrained_posterior"]["z"].values,
        stats=_arrays(stored.get("sample_stats")),
        warmup_positions=None if warm is None else warm["z"].values,
        warmup_stats=_arrays(stored.get("warmup_sample_stats")),
        info=text["manifest"].get("info") or {},
    )
    density = None
    if program is not None:
        density = _matching(program, stored, draws, text["manifest"])
    return Fit(program, density, draws, text["manifest"], tuple(text["notes"]), stored)


def _matching(program: Any, stored: dict[str, Any], draws: Draws, about: dict[str, Any]) -> Any:
    """Compile the program, and refuse one whose posterior is another."""
    import ppl

    with floats.context(about.get("precision", "float64")):
        options = {"reparameterize": about.get("reparameterize", True)}
        density = ppl.compile(program, marginalize=kept.summed(program, about.get("codes") or ()), **options)
        density, estimate = noisy.parted(density, wanted=True)
        labels = list(stored["unconstrained_posterior"].coords["unconstrained"].values)
        if list(density.labels) != labels:
            raise ppl.ModelError(
                f"the saved fit has the coordinates {_few(labels)}, the program {_few(density.labels)}"
            )
        if "lp" in draws.stats and estimate is None:
            here, there = float(density(draws.positions[0, -1])), float(draws.stats["lp"][0, -1])
            if abs(here - there) > 1e-3 * (1 + abs(there)):
                raise ppl.ModelError(
                    f"the log density of the program at a saved draw is {here:.6g}, but was {there:.6g}: "
                    "it is not the program, or not the data, of this fit"
                )
    return density


def _storable(data: Any) -> Any:
    """Without attributes (the root has them), encodings of an earlier file and object arrays."""
    data = data.drop_attrs().drop_encoding()
    # Zarr has a specification for text of any length, and none for text of a fixed one.
    text = {
        name: (c.dims, c.values.astype(np.dtypes.StringDType()))
        for name, c in data.coords.items()
        if c.dtype.kind in "OUT"
    }
    return data.assign_coords(text)


def _readable(data: Any) -> Any:
    """Text as NumPy's ordinary strings."""
    text = {
        name: (c.dims, np.array(c.values.tolist(), dtype=str))
        for name, c in data.coords.items()
        if c.dtype.kind in "OT"
    }
    return data.assign_coords(text)


def _arrays(data: Any) -> dict[str, np.ndarray]:
    return {} if data is None else {name: value.values for name, value in data.data_vars.items()}


def _few(labels: Any) -> str:
    labels = list(labels)
    return ", ".join(map(str, labels[:5])) + (f", ... ({len(labels)})" if len(labels) > 5 else "")
