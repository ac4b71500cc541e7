"""Trace and rank plots of the worst quantities.

Under agreement every chain's share of the pooled ranks is uniform: each bar of a rank plot is near the dashed line.

Reference: Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021), Rank-normalization, folding, and localization.
"""

from __future__ import annotations

import numpy as np

from .markup import Markup, code, figure, join, tag
from .quantities import Quantities
from .section import Concern
from .svg import BOTTOM, LEFT, RIGHT, TOP, Plot, _n, clip, drawing, span

SHOWN = 6
CHAINS, POINTS, BINS = 6, 400, 20
"""Chains that a pair of plots shows (of more those whose ranks deviate most), points of a trace, bins of ranks."""

HELP = (
    "Left, the draws in time: chains should overlap and look like noise; the bold dashed chain is the one whose mean "
    "is farthest from that of all. Right, how each chain's draws rank among all draws: every bar should end near its "
    "dashed line."
)


def traces(q: Quantities) -> tuple[Markup, list[Concern]]:
    """A pair of plots for each of the worst quantities."""
    worst = [int(i) for i in q.order[:SHOWN] if not q.constant[i]]
    if not worst:
        return tag("p", "No quantity varies."), []
    words = HELP
    chains = q.fit.draws.shape[0]
    if chains > CHAINS:
        words += f" Of {chains} chains the {CHAINS} whose ranks are least even are shown."
    pairs = []
    for place, i in enumerate(worst):
        x = q.draws(i)
        counts = rank_counts(x, int(np.clip(x.shape[1] // 10, 5, BINS)))
        shown = uneven(counts)
        label, rhat = q.labels[i], q.column("rhat")[i]
        caption = join([code(label), f": R-hat {rhat:.3f}, bulk ESS {q.column('bulk')[i]:.0f}"])
        both = (trace_plot(x, shown, label, f"trace-{place}"), rank_plot(counts, shown, label, f"rank-{place}"))
        pairs.append(figure(tag("div", *both, class_="pair"), caption))
    return join([tag("p", words), *pairs]), []


def uneven(counts: np.ndarray) -> np.ndarray:
    """The chains whose ranks are least even, in their order."""
    deviation = ((counts - counts.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return np.sort(np.argsort(-deviation, kind="stable")[:CHAINS])


def trace_plot(x: np.ndarray, shown: np.ndarray, label: str, name: str) -> Markup:
    """Draws (chains, draws) of some chains against their number."""
    chains, draws = x.shape
    keep = np.unique(np.linspace(0, draws - 1, min(draws, POINTS)).round().astype(int))
    plot = Plot(470, 230, (0.0, float(max(draws - 1, 1))), span(x[shown]), "draw", "", clip(label, 44))
    away = np.abs(x.mean(axis=1) - x.mean())
    odd = int(shown[np.nan_to_num(away[shown], nan=-1.0).argmax()])
    for c in shown:
        if c != odd:
            plot.line(keep, x[c, keep], f"chain c{c % 6}")
    plot.line(keep, x[odd, keep], "chain odd")
    text = (
        f"{len(shown)} of {chains} chains of {draws} draws, between {np.nanmin(x):.4g} and {np.nanmax(x):.4g}; the "
        f"dashed chain {odd} has mean {x[odd].mean():.4g} against {x.mean():.4g} overall."
    )
    return plot.svg(name, f"Trace of {label}", text)


def rank_counts(x: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Counts of every chain's ranks among all draws, shape (chains, bins); ties share their mean rank.

    Example:
        >>> rank_counts(np.arange(8.0).reshape(2, 4), bins=2)
        array([[4, 0],
               [0, 4]])
    """
    flat = x.ravel()
    _, inverse, count = np.unique(flat, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count + 1) / 2  # mean of the ranks 0, 1, ... of equal values
    slot = np.minimum((middle[inverse] + 0.5) / flat.size * bins, bins - 1).astype(int).reshape(x.shape)
    return np.stack([np.bincount(row, minlength=bins) for row in slot])


def rank_plot(counts: np.ndarray, shown: np.ndarray, label: str, name: str) -> Markup:
    """One row of bars for each of some chains."""
    bins = counts.shape[1]
    expected = float(counts[0].sum()) / bins
    width, height = 470.0, 230.0
    left, right, top, bottom = LEFT, width - RIGHT, TOP, height - BOTTOM
    step = (bottom - top) / len(shown)
    edges = np.linspace(left, right, bins + 1)
    unit = step * 0.92 / max(1.6 * expected, float(counts[shown].max()))
    marks = [tag("text", "ranks by chain", x=_n(left), y="15", class_="heading")]
    for place, chain in enumerate(shown):
        base = top + (place + 1) * step
        bars = "".join(
            f"M{_n(a + 0.5)} {_n(base)}V{_n(base - unit * n)}H{_n(b - 0.5)}V{_n(base)}Z"
            for a, b, n in zip(edges[:-1], edges[1:], counts[chain], strict=True)
            if n
        )
        line = f"M{_n(left)} {_n(base - unit * expected)}H{_n(right)}"
        marks += [tag("path", d=bars, class_=f"bar c{chain % 6}"), tag("path", d=line, class_="expected")]
        marks.append(tag("text", str(chain), x=_n(left - 6), y=_n(base - step * 0.2), text_anchor="end", class_="tick"))
    marks.append(tag("path", d=f"M{_n(left)} {_n(top)}V{_n(bottom)}H{_n(right)}", class_="axis"))
    under = "rank among all draws, from lowest to highest"
    middle = _n((left + right) / 2)
    marks.append(tag("text", under, x=middle, y=_n(height - 14), text_anchor="middle", class_="label"))
    over = float(np.abs(counts / expected - 1.0).max())
    text = f"Bars of {len(shown)} of {len(counts)} chains; the most uneven bin differs from its share by {over:.0%}."
    return drawing(name, f"Ranks of {label} by chain", text, width, height, marks)
