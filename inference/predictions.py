"""Predictions on a disk: draws written piece by piece to a Zarr store, and opened lazily."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from .storage import _readable, _storable
from .streams import CHUNK, MEMORY, Piece, pieces


def written(prediction: Any, path: Any, memory: int | None) -> Any:
    """Write all draws of a prediction, and open them.

    Args:
        prediction: A ``predict.Prediction``.
        path: A directory that does not exist.
        memory: Bytes that this may take.

    Raises:
        FileExistsError: Rather than overwrite.
        MemoryError: If not even one simulation fits.
    """
    import zarr

    path = Path(path)
    part = path.with_name(path.name + ".partial")
    for there, what in ((path, "a prediction is written to a new directory"), (part, "it was not finished: remove it")):
        if there.exists():
            raise FileExistsError(f"{there} exists; {what}")
    eighth = (MEMORY if memory is None else int(memory)) // 8
    found = [_sized(piece, prediction.size[1], eighth) for piece in pieces(prediction.simulation)]
    shapes = {name: shape for piece in found for name, shape in piece.shapes.items()}
    whole = {
        name: np.broadcast_to(np.zeros((), shapes[name].dtype), (*prediction.size, *shapes[name].shape))
        for name in prediction.simulation.names
    }
    frame = prediction.labelled(whole)
    axes = _renamed(_storable(frame.drop_vars(list(whole))), quoted)
    axes.assign_attrs(frame.attrs).to_zarr(part, zarr_format=3, consolidated=False)
    root = zarr.open_group(part, mode="r+")
    for piece in found:
        for name in piece.simulation.names:
            root.create_array(
                quoted(name),
                shape=whole[name].shape,
                dtype=whole[name].dtype,
                chunks=(1, piece.draws, *((piece.width,) if piece.length else ()), *piece.shapes[name].shape[1:]),
                dimension_names=[quoted(str(dim)) for dim in frame[name].dims],
            )
        _write(piece, root, prediction.size)
    part.rename(path)
    return opened(path, prediction.simulation.names)


def _sized(piece: Piece, draws: int, memory: int) -> Piece:
    """Pieces that are chunks of the store: of one chain, and not larger than ``CHUNK``."""
    largest = max(1, CHUNK // max(piece.element, 1))
    piece = piece.within(memory, max(1, largest // min(draws, 64)))
    width = piece.width if piece.length else 1
    return piece.sized(piece.width, min(piece.draws, draws, max(1, largest // width)))


def _write(piece: Piece, root: Any, size: tuple[int, int]) -> None:
    chains, draws = size
    step = max(piece.width, 1)
    for chain in range(chains):
        for begin in range(0, max(piece.length, 1), step):
            start = min(begin, max(piece.length - piece.width, 0))  # the last window repeats, its chunk does not
            for first, stop, values in piece.blocks(start, chain * draws, (chain + 1) * draws):
                for name, x in values.items():
                    place: tuple = (chain, slice(first - chain * draws, stop - chain * draws))
                    if piece.length:
                        x, place = x[:, begin - start :], (*place, slice(begin, start + piece.width))
                    root[quoted(name)][place] = x


def opened(path: Any, names: tuple[str, ...] | None = None) -> Any:
    """A prediction on a disk as an ``xarray.Dataset``; numbers are read when they are used.

    Args:
        path: The directory that ``predict(path=)`` has written.
        names: The order of its variables.
    """
    import xarray as xr

    data = _renamed(_readable(xr.open_zarr(path, consolidated=False, chunks=None)), unquote)
    return data if names is None else data[list(names)]


def quoted(name: str) -> str:
    """A name without the slash of a scope, which would make a folder of the store.

    Example:
        >>> quoted("school/y")
        'school%2Fy'
    """
    return quote(name, safe=" ")


def _renamed(data: Any, name: Callable[[str], str]) -> Any:
    found = {str(n) for n in (*data.variables, *data.dims)}
    return data.rename({n: name(n) for n in found if name(n) != n})
