"""Every scalar quantity of a fit with the numbers that judge its draws, computed in pieces of bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .. import diagnostics
from ..summary import element_labels

MOST, PIECE = 5000, 256
"""Quantities that are judged, evenly spaced among all; quantities judged at a time."""

RHAT, ESS_PER_CHAIN, ESS_LEAST = 1.01, 50, 400
"""R-hat above and effective draws below which draws are not to be used (Vehtari et al., 2021)."""

COLUMNS = ("mean", "sd", "q05", "q95", "mcse", "bulk", "tail", "rhat")


@dataclass(frozen=True)
class Quantities:
    """Quantities and how far their draws can be trusted.

    Attributes:
        fit: The fit.
        labels: Names, such as ``theta[Choate]``.
        places: For each, the site and the number of the element.
        numbers: Shape (quantities, columns), the columns being ``COLUMNS``.
        total: Number of quantities that the fit has.
    """

    fit: Any
    labels: tuple[str, ...]
    places: tuple[tuple[str, int], ...]
    numbers: np.ndarray
    total: int

    def column(self, name: str) -> np.ndarray:
        """One column of the numbers."""
        return self.numbers[:, COLUMNS.index(name)]

    def draws(self, i: int) -> np.ndarray:
        """Draws of the i-th quantity, shape (chains, draws)."""
        name, element = self.places[i]
        value = np.asarray(self.fit.values[name])
        return value.reshape(*value.shape[:2], -1)[:, :, element].astype(float)

    @cached_property
    def constant(self) -> np.ndarray:
        """Which quantities never vary; for them the diagnostics mean nothing."""
        return ~(self.column("sd") > 0) & np.isfinite(self.column("mean"))

    @cached_property
    def needed(self) -> int:
        """Effective draws that every quantity should have."""
        return max(ESS_LEAST, ESS_PER_CHAIN * self.fit.draws.shape[0])

    @cached_property
    def badness(self) -> np.ndarray:
        """The greatest of the ratios by which R-hat and effective draws miss their bounds; above one is bad."""
        with np.errstate(all="ignore"):
            ratios = [
                (self.column("rhat") - 1.0) / (RHAT - 1.0),
                self.needed / self.column("bulk"),
                self.needed / self.column("tail"),
            ]
        if self.fit.draws.shape[0] < 2:
            ratios = ratios[1:]  # one chain has no R-hat
        worst = np.max([np.nan_to_num(r, nan=np.inf) for r in ratios], axis=0)
        return np.where(self.constant, -1.0, worst)

    @cached_property
    def order(self) -> np.ndarray:
        """Indices, the worst first."""
        return np.argsort(-self.badness, kind="stable")


def quantities(fit: Any) -> Quantities:
    """Judge the latent sites and records of a fit."""
    values = {n: np.asarray(v) for n, v in fit.values.items() if np.asarray(v).dtype.kind in "fiub"}
    sizes = {name: int(np.prod(value.shape[2:])) for name, value in values.items()}
    total = sum(sizes.values())
    keep = np.unique(np.linspace(0, total - 1, min(total, MOST)).round().astype(int)) if total else np.zeros(0, int)
    labels: list[str] = []
    places: list[tuple[str, int]] = []
    rows: list[np.ndarray] = []
    first = 0
    for name, value in values.items():
        mine = keep[(keep >= first) & (keep < first + sizes[name])] - first
        first += sizes[name]
        if not len(mine):
            continue
        names = element_labels(fit, name)
        labels += [names[i] for i in mine]
        places += [(name, int(i)) for i in mine]
        flat = value.reshape(*value.shape[:2], -1)
        pieces = [flat[:, :, mine[i : i + PIECE]].astype(float) for i in range(0, len(mine), PIECE)]
        rows += [_judge(piece, fit.draws.info.get("superchains")) for piece in pieces]
    numbers = np.concatenate(rows) if rows else np.zeros((0, len(COLUMNS)))
    return Quantities(fit, tuple(labels), tuple(places), numbers, total)


def _judge(x: np.ndarray, superchains: int | None) -> np.ndarray:
    flat = x.reshape(-1, x.shape[2])
    with np.errstate(all="ignore"):
        sd = flat.std(axis=0, ddof=1) if len(flat) > 1 else np.full(flat.shape[1], np.nan)
        sd = np.where(np.ptp(flat, axis=0) == 0, 0.0, sd)
        columns = [
            flat.mean(axis=0), sd, *np.quantile(flat, (0.05, 0.95), axis=0), diagnostics.mcse_mean(x),
            diagnostics.ess_bulk(x), diagnostics.ess_tail(x), diagnostics.rhat_rank(x, superchains),
        ]  # fmt: skip
    return np.stack([np.broadcast_to(np.asarray(c, float), x.shape[2:]) for c in columns], axis=1)
