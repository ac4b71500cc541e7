"""Statistics over all draws of a prediction, in a bounded part of memory.

Exact: all draws of some elements of a plate are in memory at once, then those of the next elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .groups import Arrays
from .simulate import Simulation
from .streams import MEMORY, Piece, pieces

Statistic = Callable[[np.ndarray], Any]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_SIMPLE: dict[str, Statistic] = {
    "mean": lambda x: np.mean(x, axis=0, dtype=float),
    "sd": lambda x: np.std(x, axis=0, dtype=float, ddof=1),
    "median": lambda x: np.median(x, axis=0),
    "min": lambda x: np.min(x, axis=0),
    "max": lambda x: np.max(x, axis=0),
}


def statistic(reduce: Any) -> tuple[Statistic, dict[str, Any]]:
    """A function of draws, and its new axes with their labels.

    Args:
        reduce: ``"mean"``, ``"sd"``, ``"median"``, ``"min"``, ``"max"`` or several of them; ``"quantiles"``, or
            probabilities; or a function of an array (draws, ...).

    Raises:
        ValueError: Something else.

    Example:
        >>> function, axes = statistic([0.25, 0.75])
        >>> function(np.arange(5.0)).tolist(), axes["quantile"].tolist()
        ([1.0, 3.0], [0.25, 0.75])
    """
    if callable(reduce):
        return reduce, {}
    if isinstance(reduce, str) and reduce in _SIMPLE:
        return _SIMPLE[reduce], {}
    reduce = QUANTILES if isinstance(reduce, str) and reduce == "quantiles" else reduce
    items = list(reduce) if isinstance(reduce, Sequence | np.ndarray) and not isinstance(reduce, str) else []
    if items and all(isinstance(item, str) and item in _SIMPLE for item in items):
        return lambda x: np.stack([np.asarray(_SIMPLE[n](x), float) for n in items]), {"statistic": np.array(items)}
    numbers = all(isinstance(item, int | float | np.number) and not isinstance(item, bool) for item in items)
    if items and numbers and all(0 <= item <= 1 for item in items):
        levels = np.array(items, float)
        return lambda x: np.quantile(x, levels, axis=0), {"quantile": levels}
    raise ValueError(
        f"reduce is one or several of {', '.join(map(repr, _SIMPLE))}, or 'quantiles', probabilities, or a function of "
        f"an array (draws, ...), not {reduce!r}"
    )


def reduced(simulation: Simulation, reduce: Any, memory: int | None) -> tuple[Arrays, dict[str, Any]]:
    """A statistic of every site.

    Args:
        simulation: The simulation of every draw.
        reduce: See ``statistic``.
        memory: Bytes that this may take.

    Returns:
        By site arrays with the statistic's axes in front, and the labels of these.

    Raises:
        MemoryError: If not even one element, or one simulation, fits.
        ValueError: If a function does not keep the axes after the first.
    """
    function, axes = statistic(reduce)
    quarter = (MEMORY if memory is None else int(memory)) // 4
    found: Arrays = {}
    for piece in pieces(simulation):
        found |= _reduced(piece, function, quarter)
    extra = max((x.ndim - len(_own(simulation, name)) for name, x in found.items()), default=0)
    if not axes and extra:
        axes = {f"reduce_dim_{axis}": None for axis in range(extra)}
    return {name: found[name] for name in simulation.names}, axes


def _own(simulation: Simulation, name: str) -> tuple[int, ...]:
    return tuple(simulation.program.sites[name].shape)


def _reduced(piece: Piece, function: Statistic, quarter: int) -> Arrays:
    rows = len(piece.simulation.rows)
    width = quarter // max(rows * piece.element, 1)
    if width == 0 or (not piece.length and rows * piece.element > quarter):
        raise MemoryError(
            f"all {rows} draws of one element of {', '.join(piece.simulation.names)} take "
            f"{rows * piece.element / 2**20:.0f} MiB, a quarter of memory= is {quarter / 2**20:.0f} MiB; give "
            f"memory={5 * rows * piece.element} bytes or more, or fewer draws="
        )
    piece = piece.within(quarter // 2, width)
    found: Arrays = {}
    held: Arrays = {}
    for start in piece.starts():
        for first, stop, values in piece.blocks(start, 0, rows):
            for name, x in values.items():
                if name not in held:
                    held[name] = np.empty((rows, *x.shape[1:]), x.dtype)
                held[name][first:stop] = x
        for name, draws in held.items():
            value = _checked(function, name, draws)
            extra = value.ndim - (draws.ndim - 1)
            shape = (*value.shape[:extra], *piece.shapes[name].shape)
            place = found.setdefault(name, np.empty(shape, value.dtype))
            window = (slice(None),) * extra + ((slice(start, start + piece.width),) if piece.length else ())
            place[window] = value
    return found


def _checked(function: Statistic, name: str, draws: np.ndarray) -> np.ndarray:
    value = np.asarray(function(draws))
    inner = draws.shape[1:]
    if value.shape[value.ndim - len(inner) :] != inner or value.ndim < len(inner):
        raise ValueError(
            f"reduce: the function was given draws of '{name}' of shape {draws.shape} and returned {value.shape}; it "
            f"has to reduce the first axis and keep the others at the end, here {inner}, of which it sees a part at a "
            "time"
        )
    return value

