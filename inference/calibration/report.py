"""``SBC``: ranks of true values among posterior draws, and what they say.

Under a correct sampler each column of ranks is uniform. The verdict uses the exact p-values of the simultaneous
band of the empirical distribution (``bands``), with Bonferroni's correction over the quantities, so a correct
sampler with independent draws fails with probability at most alpha, whatever the dependence between quantities.

Reference: Säilynoja, Bürkner and Vehtari (2022), Graphical test for discrete uniformity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from . import bands

_SHOWN = 20  # rows of the summary


@dataclass(frozen=True, eq=False)
class SBC:
    """Ranks of a simulation-based calibration.

    Attributes:
        ranks: Number of draws below the truth, shape (replications, quantities).
        labels: Names of the quantities.
        draws: Number of draws L; ranks are in 0, ..., L.
        thin: Iterations per draw.
        tau: Autocorrelation time of kept draws for each quantity; 1 means independent.
        divergences: Divergent iterations of each replication.
        sampler: What was checked.
        seed: Seed of the run.
        seconds: Duration of the run.
        notes: What to know before believing the verdict.

    Example:
        >>> ranks = np.random.default_rng(0).integers(0, 20, (200, 1))
        >>> result = SBC(ranks, ("mu",), draws=19)
        >>> result.passes(0.01), round(float(result.pvalues()["ecdf"][0]), 3)
        (True, 0.427)
    """

    ranks: np.ndarray
    labels: tuple[str, ...]
    draws: int
    thin: int = 1
    tau: np.ndarray | None = None
    divergences: np.ndarray | None = None
    sampler: str = ""
    seed: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @cached_property
    def _pvalues(self) -> dict[str, np.ndarray]:
        return {
            "chi2": bands.chi2_pvalues(self.ranks, self.draws),
            "ecdf": bands.ecdf_pvalues(self.ranks, self.draws),
        }

    def pvalues(self) -> dict[str, np.ndarray]:
        """P-values of every quantity: ``chi2`` of the histogram (asymptotic), ``ecdf`` of the band (exact)."""
        return dict(self._pvalues)

    @cached_property
    def comparisons(self) -> int:
        """Number of different quantities: increasing functions of another one have its ranks and cost nothing."""
        return int(np.unique(self.ranks, axis=1).shape[1])

    def failures(self, alpha: float = 0.01) -> list[str]:
        """Labels of the quantities whose ranks leave the simultaneous band at level alpha / comparisons."""
        small = self._pvalues["ecdf"] < alpha / self.comparisons
        return [label for label, bad in zip(self.labels, small, strict=True) if bad]

    def passes(self, alpha: float = 0.01) -> bool:
        """Whether no quantity fails; false alarms have probability at most ``alpha`` over all quantities."""
        return not self.failures(alpha)

    def direction(self, label: str) -> str:
        """In words, what the ranks of a quantity say of the draws, if anything."""
        values = (self.ranks[:, self.labels.index(label)] + 0.5) / (self.draws + 1) - 0.5
        size = len(values)
        shift = float(values.mean()) * math.sqrt(12 * size)
        spread = (float((values**2).mean()) * 12 - 1) * math.sqrt(size / 0.8)
        words = [] if abs(shift) < 3 else ["draws are too low" if shift > 0 else "draws are too high"]
        if abs(spread) >= 3 and abs(spread) > abs(shift) / 2:
            words.append("draws are too narrow" if spread > 0 else "draws are too wide")
        return ", ".join(words)

    def summary(self, alpha: float = 0.01) -> str:
        """A table of the quantities with the smallest p-values, and the verdict."""
        pvalues, bad = self.pvalues(), set(self.failures(alpha))
        order = np.argsort(pvalues["ecdf"], kind="stable")
        width = max(8, *(len(self.labels[i]) for i in order[:_SHOWN]))
        tau = np.full(len(self.labels), np.nan) if self.tau is None else self.tau
        lines = [f"{'quantity':<{width}}  mean rank/L   p (ecdf)   p (chi2)    tau"]
        for i in order[:_SHOWN]:
            label, mean = self.labels[i], self.ranks[:, i].mean() / self.draws
            remark = f"  {self.direction(label) or 'not uniform'}" if label in bad else ""
            numbers = f"{mean:11.3f}  {pvalues['ecdf'][i]:9.3g}  {pvalues['chi2'][i]:9.3g}  {tau[i]:5.2f}"
            lines.append(f"{label:<{width}}  {numbers}{remark}")
        if len(order) > _SHOWN:
            lines.append(f"... and {len(order) - _SHOWN} more")
        return "\n".join([self._title(), *lines, self._verdict(alpha, len(bad)), *self.notes])

    def _title(self) -> str:
        title = f"Simulation-based calibration{f' of {self.sampler}' if self.sampler else ''}: "
        title += f"{len(self.ranks)} replications, {self.draws} draws, one of {self.thin} iterations"
        if self.divergences is not None and self.divergences.any():
            count = int((self.divergences > 0).sum())
            title += f"; {int(self.divergences.sum())} divergences in {count} replications"
        return title

    def _verdict(self, alpha: float, bad: int) -> str:
        level = f"false-alarm rate at most {alpha:g} over {self.comparisons} different quantities"
        return f"{'FAILED: ' + str(bad) + ' not uniform' if bad else 'passed'} ({level})"

    def __repr__(self) -> str:
        """The summary."""
        return self.summary()

    def plot(self, labels: Sequence[str] | None = None, kind: str = "histogram", probability: float = 0.95) -> Any:
        """Draw rank histograms or empirical distributions (less the uniform one) with their bands.

        Args:
            labels: Quantities to draw; by default the twelve with the smallest p-values.
            kind: ``"histogram"`` (pointwise bands) or ``"ecdf"`` (simultaneous bands).
            probability: Of the bands, for one quantity.

        Returns:
            A Matplotlib figure.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        if kind not in ("histogram", "ecdf"):
            raise ValueError(f"kind is 'histogram' or 'ecdf', not {kind!r}")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plots need Matplotlib: pip install 'ppl-jax[plots]'") from error
        if labels is None:
            labels = [self.labels[i] for i in np.argsort(self._pvalues["ecdf"], kind="stable")[:12]]
        columns = min(4, len(labels))
        rows = math.ceil(len(labels) / columns)
        figure = Figure(figsize=(3.2 * columns, 2.4 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        draw = self._draw_histogram if kind == "histogram" else self._draw_ecdf
        for axis, label in zip(axes, labels, strict=False):
            draw(axis, self.ranks[:, self.labels.index(label)], probability)
            axis.set_title(label, fontsize=9)
        for axis in axes[len(labels) :]:
            axis.set_visible(False)
        return figure

    def _draw_histogram(self, axis: Any, ranks: np.ndarray, probability: float) -> None:
        from scipy.stats import binom

        edges, number, share = bands.histogram(ranks, self.draws)
        low, high = binom.interval(probability, len(ranks), share)
        axis.stairs(high, edges, baseline=low, fill=True, color="0.85")
        axis.stairs(number, edges, color="C0")
        axis.set_xlabel("rank", fontsize=8)

    def _draw_ecdf(self, axis: Any, ranks: np.ndarray, probability: float) -> None:
        limits, size = bands.band(len(ranks), self.draws, probability), len(ranks)
        share = limits.points / (self.draws + 1)
        axis.fill_between(share, limits.lower / size - share, limits.upper / size - share, color="0.85", step="mid")
        axis.step(share, bands.counts(ranks, self.draws) / size - share, where="mid", color="C0")
        axis.set_xlabel("rank / (L + 1)", fontsize=8)
