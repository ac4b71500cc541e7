"""Divergences: how many, where, and what to write instead.

A divergent transition left the part of the space where the step size fits the curvature, so the draws may miss
what lies there. What is kept of it is its starting or an early point, near the trouble rather than in it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ..summary import element_labels
from .markup import Markup, code, figure, join, number, table, tag
from .section import Concern
from .separation import CLEAR, Separation, even, separate
from .svg import Plot, clip, span

AXES, LINES = 8, 120
"""Coordinates and draws of each kind in the plot of parallel coordinates."""

SHARE = 1e-3
"""Share of divergent draws above which the draws are not to be used."""


def divergences(fit: Any, whole: Any = None) -> tuple[Markup, list[Concern]] | None:
    """Where divergent draws lie, and what to do; None for engines that have none.

    Args:
        fit: The fit that is looked at.
        whole: The fit whose divergences are counted, where that is another.
    """
    flag = (fit if whole is None else whole).draws.stats.get("diverging")
    if flag is None:
        return None
    flag = np.asarray(flag, bool)
    if not flag.any():
        return tag("p", f"None among {flag.size:,} draws."), []
    count, share = int(flag.sum()), float(flag.mean())
    counted = f"{count:,} of {flag.size:,} draws ended a divergent transition ({share:.2g} of all). By chain: "
    by_chain = ", ".join(map(str, flag.sum(axis=1)[:40].tolist())) + (", ..." if len(flag) > 40 else "")
    found = separate(fit)
    labels = labels_of(fit)
    story = advice(found, labels, sites_of(fit))
    parts = [
        tag("p", counted + by_chain + "."),
        tag("div", tag("p", tag("strong", "Where: "), story[0]), tag("p", tag("strong", "What to do: "), story[1]),
            story[2], class_="advice"),
        _pair(found, labels), _parallel(found, labels), _table(found, labels),
    ]  # fmt: skip
    counted = f"{count:,} divergent transitions" if count > 1 else "One divergent transition"
    concern = Concern(share > SHARE, join([counted, ": ", story[0]]), "What to write instead is said there.")
    return join(parts), [concern]


def sites_of(fit: Any) -> list[str]:
    """The site of every unconstrained coordinate."""
    layout = getattr(fit.density, "layout", None)
    if layout is None:
        return [label.split("[")[0] for label in fit.labels]
    names = [""] * fit.draws.shape[2]
    for name, slot in layout.items():
        names[slot.start : slot.stop] = [name] * (slot.stop - slot.start)
    return names


def labels_of(fit: Any) -> list[str]:
    """Names of the unconstrained coordinates, with the labels of plates where a coordinate is an element."""
    labels = list(fit.labels)
    for name, slot in (getattr(fit.density, "layout", None) or {}).items():
        names = element_labels(fit, name) if name in fit.values else []
        if len(names) == slot.stop - slot.start:
            labels[slot.start : slot.stop] = names
    return labels


def advice(found: Separation, labels: list[str], sites: list[str]) -> tuple[Markup, Markup, Markup | None]:
    """Where the divergent draws lie, what to do about it, and code if there is any."""
    best = int(found.order[0]) if len(found.order) else None
    scale = _scale(found)
    if scale is not None:
        return _funnel(found, scale, labels, sites)
    stronger = "Raise the acceptance target (mcmc.NUTS(target_accept=0.95), then 0.99), which shortens the steps"
    if best is None or found.strength[best] < CLEAR:
        where = "no coordinate tells them clearly from the other draws."
        return tag("span", where), tag("span", stronger + ", and warm up longer."), None
    where = tag("span", _side(found, best, labels), ".")
    what = tag("span", "Look at the site ", code(sites[best]), ": a prior that reaches where the density is flat, "
               "infinite or sharply bent there, or a parameter that the data leave open. A tighter prior, or another "
               "parametrisation of it, removes the cause. ", stronger, ".")  # fmt: skip
    return where, what, None


def _scale(found: Separation) -> int | None:
    """The log scale whose neck holds the divergent draws, else the one with most members."""
    low = [k for k in found.scales if found.shift[k] < -CLEAR * found.error]
    if low:
        return min(low, key=lambda k: found.shift[k])
    return None


def _funnel(found: Separation, k: int, labels: list[str], sites: list[str]) -> tuple[Markup, Markup, Markup | None]:
    members = found.scales[k]
    counted = Counter(sites[j] for j in members)
    member, scale = counted.most_common(1)[0][0], sites[k]
    members = [j for j in members if sites[j] == member]  # a common mean is bent by the scale too, but is no cause
    few = [code(labels[j]) for j in members[:3]]
    more = f" and {len(members) - 3} more" if len(members) > 3 else ""
    where = tag("span", _side(found, k, labels), ". It acts as the scale of ", join(few, ", "), more,
                ": the neck of a funnel.")  # fmt: skip
    what = tag("span", "Write ", code(member), " in its non-centred form, as a location plus ", code(scale),
               " times a standard variable; the width of the neck then no longer depends on it:")  # fmt: skip
    bare = member.rpartition("/")[2]
    text = (
        f'z = ppl.sample("{bare}_z", dist.Normal(0.0, 1.0))\n'
        f'{_word(bare)} = ppl.record("{bare}", location + {_word(scale.rpartition("/")[2])} * z)'
    )
    return where, what, tag("pre", code(text))


def _word(name: str) -> str:
    """A name as a Python variable."""
    word = "".join(c if c.isalnum() else "_" for c in name)
    return word if word.isidentifier() else "x_" + word


def _side(found: Separation, k: int, labels: list[str]) -> Markup:
    if abs(found.shift[k]) >= abs(found.spread[k]):
        small = bool(found.shift[k] < 0)
        middle = float(np.median(found.divergent[:, k]))
        rank = float((found.others[:, k] < middle).mean()) if len(found.others) else 0.5
        share = min(1 - rank if small else rank, 0.99)
        how = f"{'below' if small else 'above'} {share:.0%}"
        end = f"at {'small' if small else 'large'} values of "
        return join([end, code(labels[k]), f" (half of them are {how} of the other draws)"])
    return join(["near the centre of " if found.spread[k] < 0 else "at both ends of ", code(labels[k])])


def _best_pair(found: Separation) -> tuple[int, int] | None:
    if len(found.order) < 2:
        return None
    scale = _scale(found)
    if scale is not None:
        members = found.scales[scale]
        return max(members, key=lambda j: abs(found.spread[j])), scale
    return int(found.order[1]), int(found.order[0])


def _pair(found: Separation, labels: list[str]) -> Markup | None:
    pair = _best_pair(found)
    if pair is None:
        return None
    a, b = pair
    others = found.others[even(len(found.others), 1500)]
    both = np.concatenate([others, found.divergent])
    plot = Plot(640, 380, span(both[:, a]), span(both[:, b]), clip(labels[a], 60), clip(labels[b], 36),
                "Two coordinates, unconstrained scale")  # fmt: skip
    plot.points(others[:, a], others[:, b], "dot")
    shown = found.divergent[:600]
    plot.crosses(shown[:, a], shown[:, b], "divergent")
    text = (
        f"{labels[b]} of divergent draws: median {np.median(found.divergent[:, b]):.3g}; of the others "
        f"{np.median(others[:, b]) if len(others) else np.nan:.3g}."
    )
    drawn = plot.svg("divergence-pair", f"Divergent draws by {labels[a]} and {labels[b]}", text)
    return figure(drawn, "Crosses: divergent draws. Dots: other draws. Crosses in one place show where the step is too "
                  "long; crosses everywhere mean that it is too long in general.")  # fmt: skip


def _parallel(found: Separation, labels: list[str]) -> Markup | None:
    axes = [int(j) for j in found.order[:AXES]]
    if len(axes) < 2 or not len(found.others):
        return None
    center = np.median(found.others[:, axes], axis=0)
    low, high = np.quantile(found.others[:, axes], (0.05, 0.95), axis=0)
    below, above = np.where(center > low, center - low, 1.0), np.where(high > center, high - center, 1.0)
    chosen = (x[even(len(x), LINES)][:, axes] for x in (found.others, found.divergent))
    others, divergent = ((x - center) / np.where(x < center, below, above) for x in chosen)
    names = [(float(i), clip(labels[j], 12)) for i, j in enumerate(axes)]
    plot = Plot(640, 280, (-0.3, len(axes) - 0.7), (-2.2, 2.2), "", "quantile of others",
                "Coordinates that separate best",
                xticks=names, yticks=[(-1.0, "5%"), (0.0, "50%"), (1.0, "95%")])  # fmt: skip
    place = np.arange(len(axes), dtype=float)
    for row in np.clip(others, -2.2, 2.2):
        plot.line(place, row, "thread")
    for row in np.clip(divergent, -2.2, 2.2):
        plot.line(place, row, "thread divergent-thread")
    text = "; ".join(f"{labels[j]}: {found.strength[j]:.1f} standard errors apart" for j in axes)
    drawn = plot.svg("divergence-parallel", "Parallel coordinates of divergent and other draws", text + ".")
    return figure(
        drawn, "Each line is a draw; heavy dashed lines are divergent. Where these bundle, there is the cause."
    )


def _table(found: Separation, labels: list[str]) -> Markup:
    def row(j: int) -> list[Any]:
        numbers = [np.median(x[:, j]) if len(x) else np.nan for x in (found.divergent, found.others)]
        acts = f"{len(found.scales[j])} coordinates" if j in found.scales else "-"
        return [code(labels[j]), *(number(x) for x in numbers), f"{found.strength[j]:.1f}", acts]

    header = ("coordinate", "median, divergent", "median, others", "standard errors apart", "acts as log scale of")
    return table(header, [row(int(j)) for j in found.order[:AXES]], "Coordinates by how well they separate")
