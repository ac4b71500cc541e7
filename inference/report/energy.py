r"""Energy: can the sampler move between levels of the density?

A fresh momentum changes the energy E by about the square root of d/2. Where the energies of the posterior vary much
more than these changes do, the chain walks slowly between levels. Per chain,
E-BFMI = sum_t (E_t - E_{t-1})^2 / sum_t (E_t - mean E)^2; below 0.3 is a warning.

Reference: Betancourt (2016), Diagnosing suboptimal cotangent disintegrations in Hamiltonian Monte Carlo.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .markup import Markup, figure, join, table, tag
from .section import Concern
from .svg import Plot, span

LOW = 0.3


def ebfmi(energy: np.ndarray) -> np.ndarray:
    """E-BFMI of every chain.

    Args:
        energy: Shape (chains, draws).

    Example:
        >>> e = np.random.default_rng(0).normal(size=(2, 1000))
        >>> np.round(ebfmi(e))
        array([2., 2.])
    """
    energy = np.asarray(energy, float)
    with np.errstate(all="ignore"):
        around = np.square(energy - energy.mean(axis=1, keepdims=True)).sum(axis=1)
        return np.square(np.diff(energy, axis=1)).sum(axis=1) / around


def energies(fit: Any) -> tuple[Markup, list[Concern]] | None:
    """Both distributions and the number of every chain; None for engines without an energy."""
    energy = fit.draws.stats.get("energy")
    if energy is None or np.shape(energy)[1] < 4:
        return None
    energy = np.asarray(energy, float)
    fractions = ebfmi(energy)
    worst = int(np.nanargmin(fractions)) if np.isfinite(fractions).any() else 0
    body = join([
        figure(_plot(energy, fractions), "Solid: energies of the draws, less their mean. Dashed: changes of the energy "
               "from draw to draw. The dashed outline should be about as wide as the solid one, or wider."),
        _table(fractions),
    ])  # fmt: skip
    concerns = []
    if fractions[worst] < LOW:
        text = f"The energy moves slowly: E-BFMI is {fractions[worst]:.2f} in chain {worst}, below {LOW}."
        concerns.append(Concern(False, text, "Heavy tails or a funnel: reparametrise (see divergences), draw longer."))
    return body, concerns


def _plot(energy: np.ndarray, fractions: np.ndarray) -> Markup:
    level = (energy - energy.mean(axis=1, keepdims=True)).ravel()
    change = np.diff(energy, axis=1).ravel()
    level, change = level[np.isfinite(level)], change[np.isfinite(change)]
    reach = np.quantile(np.abs(np.concatenate([level, change])), 0.999)
    edges = np.linspace(*span([-reach, reach], margin=0.0), 51)
    heights = [np.histogram(v, edges, density=True)[0] for v in (level, change)]
    plot = Plot(640, 240, (edges[0], edges[-1]), (0.0, 1.08 * max(h.max() for h in heights)), "energy", "density",
                "Energies and their changes", yticks=[])  # fmt: skip
    plot.steps(edges, heights[0], "solid fill")
    plot.steps(edges, heights[1], "dashed")
    words = f"Standard deviation of the energies {level.std():.3g}, of their changes {change.std():.3g}; "
    return plot.svg("energy-plot", "Energies and their changes", words + f"least E-BFMI {np.nanmin(fractions):.2f}.")


def _table(fractions: np.ndarray) -> Markup:
    if len(fractions) > 8:
        low = int((fractions < LOW).sum())
        ends = f"from {np.nanmin(fractions):.2f} to {np.nanmax(fractions):.2f}"
        return tag("p", f"E-BFMI of {len(fractions)} chains: {ends}; {low} below {LOW}.")
    rows = [("E-BFMI", *(f"{f:.2f}" for f in fractions))]
    return table(("", *(f"chain {i}" for i in range(len(fractions)))), rows, f"E-BFMI; below {LOW} is a warning")
