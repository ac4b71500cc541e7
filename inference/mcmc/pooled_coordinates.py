"""Pooled HMC in coordinates of hierarchical effects that warm-up learns (``adapt.kappa``).

A target that has ``movable`` (``core.Movable``) says which entries of its vector z are effects, and gives the density
of other coordinates x of them with their parameters as data, so that nothing is compiled anew. The chains move in x,
which starts non-centred; at the end of every warm-up window the parameters are learned, draws, gradients, chains and
metric go over to the new coordinates, and all that leaves the engine is in z.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ..adapt import kappa, kinds
from ..adapt.fisher import Metric
from ..adapt.lowrank import LowRank
from ..core import Block
from ..devices import current
from .pooled_block import SIZE, Lanes, Rows, precision
from .pooled_stuck import find_wall, stuck_chains
from .pooled_warmup import Carry
from .start import StartError

MANY = 1000
"""Effects of which the result of a run says the coordinates."""

CLOSE = 0.05
"""Coordinates that would change by less, in units of one standard deviation, stay as they are."""


def of(target: Any, wanted: bool) -> Any:
    """What a target says about its effects; None without any, or where data are laid out over several devices."""
    return getattr(target, "movable", None) if wanted and current().mesh is None else None


class Coordinates:
    """The maps between the coordinates x of the chains and those of the model, z.

    Attributes:
        movable: What the target says.
        values: k and t of each effect, shape (2, effects).
        chains: Number of chains.
    """

    def __init__(self, movable: Any, values: np.ndarray, chains: int) -> None:
        """Set the parameters."""
        self.movable, self.values, self.chains = movable, values, chains

    def density(self) -> Any:
        """The density of x."""
        return self.movable.at(*self.values.astype(precision()))

    def places(self, positions: np.ndarray, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Locations and scales at positions z of shape (n, C, d).

        One compiled function serves blocks of SIZE trajectories. ``first``, the running index of the first trajectory,
        gives each the place in its block that it has however a run is cut, so that no rounding depends on that.
        """
        n, chains, dim = positions.shape
        skip = first % SIZE
        blocks = -(-(skip + n) // SIZE)
        rows = np.zeros((blocks * SIZE, chains, dim), precision())
        rows[skip : skip + n] = positions
        parts = [self.movable.places(part.reshape(-1, dim)) for part in np.split(rows, blocks)]
        shape = (blocks * SIZE, chains, -1)
        m, s = (np.concatenate(column).reshape(shape)[skip : skip + n] for column in zip(*parts, strict=True))
        return m.astype(np.float64), s.astype(np.float64)

    def base(self, x: np.ndarray, first: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Positions z of x, both (n, C, d); log |dz / dx|, (n, C); locations and scales, (n, C, effects)."""
        z, levels = np.array(x, np.float64), self.movable.levels
        effects = z[..., self.movable.columns]
        with np.errstate(all="ignore"):
            for level in range(int(levels.max()) + 1):
                m, s = self.places(z, first)
                e = kappa.standardised(effects, m, s, self.values)
                now = np.where(self.movable.standard, e, m + s * e)
                z[..., self.movable.columns] = np.where(levels <= level, now, z[..., self.movable.columns])
            q = 1.0 + self.values[0] * s * s
            logdet = np.where(self.movable.standard, 0.0, np.log(np.abs(s))) - 0.5 * np.log(q)
        return z, logdet.sum(axis=-1), m, s

    def inverse(self, z: np.ndarray) -> np.ndarray:
        """Positions x of z, both of shape (n, C, d)."""
        m, s = self.places(z)
        x, effects = np.array(z, np.float64), z[..., self.movable.columns]
        with np.errstate(all="ignore"):
            e = np.where(self.movable.standard, effects, (effects - m) / s)
            x[..., self.movable.columns] = kappa.moved(e, m, s, self.values)
        return x

    def few(self, positions: np.ndarray, back: bool = False) -> np.ndarray:
        """The z of any number of positions x, or with ``back`` the x of z, shape (k, d)."""
        count, dim = positions.shape
        padded = np.resize(positions, (-(-count // self.chains), self.chains, dim)) if count else positions
        moved = (self.inverse(padded) if back else self.base(padded)[0]) if count else padded
        return moved.reshape(-1, dim)[:count]

    def shown(self, rows: Rows, first: int) -> Rows:
        """Rows with positions and log densities of z in place of those of x."""
        z, logdet, _, _ = self.base(rows.positions, first)
        values = rows.values.copy()
        values[..., : rows.dim], values[..., 2 * rows.dim] = z, rows.log_density - logdet
        return Rows(values, rows.dim)

    def names(self) -> str:
        """The sites, in words."""
        return ", ".join(self.movable.names)


def begin(target: Any, wanted: bool, state: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """First coordinates of a run, non-centred, and its first state with positions that a user gave in them."""
    movable = of(target, wanted)
    if movable is None:
        return None, state
    here = Coordinates(movable, np.zeros((2, len(movable.columns))), len(state))
    dim = (state.shape[1] - 1) // 2
    if np.isnan(state[0, -1]):
        state[:, :dim] = here.few(state[:, :dim], back=True)
    return here.values, state


def at(carry: Carry, target: Any) -> Coordinates | None:
    """The coordinates of a run."""
    if carry.coordinates is None:
        return None
    return Coordinates(target.movable, carry.coordinates, len(carry.state))


@contextmanager
def explained(here: Coordinates | None) -> Iterator[None]:
    """A start that was not found is reported in the model's coordinates."""
    try:
        yield
    except StartError as error:
        if here is not None:
            error.position = here.few(np.asarray(error.position)[None])[0]
        raise


def facts(carry: Carry, target: Any) -> dict[str, Any]:
    """What a run has learned, by site, for its result; nothing of thousands of effects."""
    here = at(carry, target)
    if here is None or here.values.shape[1] > MANY:
        return {}
    return {"coordinates": here.movable.described(*here.values)}


def lines(target: Any, wanted: bool) -> list[str]:
    """What will be learned, for the plan."""
    movable = of(target, wanted)
    return [] if movable is None else [f"{', '.join(movable.names)}: learned between centred and non-centred"]


def centred(carry: Carry, block: Block) -> Carry:
    """The moments of draws about the mean of the last block of warm-up, in the model's coordinates."""
    assert carry.moments is not None and block.positions is not None  # noqa: S101 - made at the end of warm-up
    return replace(carry, moments=replace(carry.moments, centre=block.positions.mean(axis=(0, 1), dtype=np.float64)))


def relearn(carry: Carry, here: Coordinates, lanes: Lanes) -> Carry:
    """Learn coordinates from a finished window and go over to them.

    Args:
        carry: With the rows of the window, in the coordinates at hand.
        here: The coordinates at hand.
        lanes: The lanes of its density.

    Returns:
        The carry, in the same coordinates where nothing can be learned or the new ones are close to them.
    """
    assert carry.rows is not None and carry.metric is not None  # noqa: S101 - called at the end of a window
    dim = (carry.state.shape[1] - 1) // 2
    length = len(carry.rows)
    kept = Rows(carry.rows[length // 3 :].astype(np.float64), dim)
    good = ~stuck_chains(kept, crude=carry.window < 2)[0]
    if not good.any() or carry.wall or find_wall(kept, carry.log_step)[1]:
        return carry
    _, _, m, s = here.base(kept.positions)
    columns, q = here.movable.columns, 1.0 + here.values[0] * s * s
    e = kappa.standardised(kept.positions[..., columns], m, s, here.values)
    gradients = kept.gradients[..., columns] * np.sqrt(q / here.movable.information)
    flat = [np.where(np.isfinite(v), v, 0.0)[:, good].reshape(-1, len(columns)) for v in (e, gradients, m, s)]
    values = kappa.learn(flat[0], flat[1], flat[2], flat[3], here.movable.groups)
    change = kappa.apart(here.values, values, flat[2], flat[3])
    spread = values[0] * np.median(flat[3] ** 2, axis=0)
    line = f"window {carry.window + 1}: information of the data on {here.names()}, over that of the prior, "
    line += f"{spread.min():.2g}...{spread.max():.2g}" + (" (coordinates kept)" if change < CLOSE else "")
    carry = replace(carry, log=[*carry.log, line])
    if change < CLOSE:
        return carry
    there = Coordinates(here.movable, values, here.chains)
    return _gone_over(carry, here, there, kept, good, lanes.over(there.density()))


def _gone_over(
    carry: Carry, here: Coordinates, there: Coordinates, kept: Rows, good: np.ndarray, lanes: Lanes
) -> Carry:
    """Rows, states, metric and height of a carry in new coordinates; densities and gradients are computed anew."""
    assert carry.rows is not None and carry.metric is not None  # noqa: S101
    dim = kept.dim
    metric = moved_metric(carry.metric, here, there, kept.positions[:, good].reshape(-1, dim))
    device = lanes.put_metric(metric)
    positions = np.concatenate([kept.positions, carry.state[None, :, :dim]])
    positions = there.inverse(here.base(positions)[0])
    found = [lanes.evaluate(x, device) for x in positions]
    log_density, gradients = (np.stack(column) for column in zip(*found, strict=True))
    packed = np.concatenate([positions, gradients, log_density[..., None]], axis=2).astype(carry.rows.dtype)
    rows = carry.rows.copy()
    rows[len(rows) - len(kept.values) :, :, : 2 * dim + 1] = packed[:-1]
    height = carry.height
    if height is not None:  # heights of two windows are compared
        height += float(packed[:-1][:, good, -1].mean(dtype=np.float64) - kept.log_density[:, good].mean())
    return replace(
        carry,
        rows=rows,
        state=packed[-1],
        metric=metric,
        diagonal=None,  # it was learned in the old coordinates
        height=height,
        coordinates=there.values,
        leapfrogs=carry.leapfrogs + len(found),
    )


def moved_metric(
    metric: kinds.AnyMetric, here: Coordinates, there: Coordinates, positions: np.ndarray
) -> kinds.AnyMetric:
    """The metric with factor J F, J = dx_new / dx_old at the mean of some positions x (its diagonal, if not dense)."""
    centre, spread = positions.mean(axis=0), positions.std(axis=0) + 1e-12
    if isinstance(metric, LowRank) or not metric.dense:
        _, _, _, s = here.base(np.broadcast_to(centre, (1, here.chains, len(centre))))
        ratio = np.ones(len(centre))
        roots = [np.sqrt(1.0 + c.values[0] * s[0, 0] ** 2) for c in (here, there)]
        ratio[here.movable.columns] = roots[1] / roots[0]
        if isinstance(metric, LowRank):
            return replace(metric, scale=metric.scale * ratio)
        return Metric(metric.factor * ratio, metric.inverse / ratio)
    step = 1e-2 * np.diag(spread)
    ends = there.few(here.few(np.concatenate([centre + step, centre - step])), back=True)
    jacobian = ((ends[: len(centre)] - ends[len(centre) :]) / (2e-2 * spread[:, None])).T
    return Metric(jacobian @ metric.factor, metric.inverse @ np.linalg.inv(jacobian))
