"""Do the chains agree, and are there enough effective draws? Numbers for the worst quantities, then for all."""

from __future__ import annotations

import numpy as np

from .markup import Markup, code, join, number, table, tag
from .quantities import RHAT, Quantities
from .section import Concern

SHOWN, LISTED = 12, 500
HEADER = ("quantity", "mean", "sd", "5%", "95%", "MCSE of mean", "ESS bulk", "ESS tail", "R-hat")


def convergence(q: Quantities, step: int = 1) -> tuple[Markup, list[Concern]]:
    """The table of the extremes, the worst quantities, and a folded table of the others."""
    if not q.labels:
        return tag("p", "The fit has no numeric quantities."), []
    parts = [_extremes(q)]
    if step > 1:
        words = (
            f"One draw in {step} is used here and in the plots, for there are very many; all have more effective draws."
        )
        parts.append(tag("p", words))
    if q.total > len(q.labels):
        parts.append(tag("p", f"{len(q.labels):,} of {q.total:,} quantities were judged, evenly spaced among all."))
    shown = min(SHOWN, len(q.labels))
    parts.append(table(HEADER, [_row(q, i) for i in q.order[:shown]], f"The {shown} worst quantities, the worst first"))
    if len(q.labels) > shown:
        listed = min(LISTED, len(q.labels))
        every = table(HEADER, [_row(q, i) for i in range(listed)], f"{listed} of {len(q.labels)} quantities, in order")
        parts.append(tag("details", tag("summary", "All quantities in the order of the model"), every))
    return join(parts), _concerns(q)


def _extremes(q: Quantities) -> Markup:
    free = np.flatnonzero(~q.constant)
    if not len(free):
        return tag("p", "No quantity varies.")
    with np.errstate(all="ignore"):
        share = q.column("mcse") / q.column("sd")
    rows = []
    for title, values, worst, bound in (
        ("R-hat", q.column("rhat"), np.nanargmax, f"at most {RHAT}"),
        ("ESS bulk", q.column("bulk"), np.nanargmin, f"at least {q.needed}"),
        ("ESS tail", q.column("tail"), np.nanargmin, f"at least {q.needed}"),
        ("MCSE of the mean, in standard deviations", share, np.nanargmax, "at most 0.05"),
    ):
        if np.isnan(values[free]).all():
            rows.append((title, "not defined for these draws", "-", bound))
            continue
        i = free[worst(values[free])]
        text = f"{values[i]:.3f}" if title == "R-hat" else number(values[i], 2 if "MCSE" in title else 3)
        rows.append((title, code(q.labels[i]), text, bound))
    return table(("", "where", "worst", "wanted"), rows, "The worst of every diagnostic", 2)


def _row(q: Quantities, i: int) -> list[str | Markup]:
    mean, sd, low, high, mcse, bulk, tail, rhat = q.numbers[i]
    name = code(q.labels[i])
    if q.constant[i]:
        return [name, number(mean, 4), "0", *(["-"] * 6)]
    bad = rhat > RHAT or min(bulk, tail) < q.needed or not np.isfinite([bulk, tail]).all()
    if bad:
        name = join([name, tag("span", " \u25b2", class_="flag", title="misses a bound")])
    effective = [f"{x:.0f}" if np.isfinite(x) else "-" for x in (bulk, tail)]
    rounded = f"{rhat:.3f}" if np.isfinite(rhat) else "-"
    return [name, *(number(x) for x in (mean, sd, low, high)), f"{mcse:#.2g}", *effective, rounded]


def _concerns(q: Quantities) -> list[Concern]:
    found = []
    free = ~q.constant
    broken = int(np.sum(~np.isfinite(q.column("mean"))))
    if broken:
        first = q.labels[int(np.flatnonzero(~np.isfinite(q.column("mean")))[0])]
        text = join([f"{broken} quantities have draws that are not finite, such as ", code(first), "."])
        found.append(Concern(True, text, "Look at how it is computed."))
    still = np.flatnonzero(np.ptp(q.fit.draws.positions, axis=(0, 1)) == 0)
    if len(still) and q.fit.draws.shape[1] > 1:
        which = f"{len(still):,} coordinates" if len(still) > 1 else "One coordinate"
        text = join([f"{which} never moved, such as ", code(q.fit.labels[int(still[0])]), "."])
        found.append(Concern(True, text, "The sampler is stuck: look at the scale of the model, and warm up longer."))
    if q.fit.draws.shape[0] < 2:
        found.append(Concern(False, "There is only one chain, so agreement cannot be judged.", "Run at least four."))
    rhat = np.nan_to_num(np.where(free, q.column("rhat"), 1.0), nan=1.0)
    if rhat.size and rhat.max() > RHAT:
        worst, count = int(rhat.argmax()), int((rhat > RHAT).sum())
        which = f"{count} of {int(free.sum())} quantities" if count > 1 else "one quantity"
        text = join([f"The chains do not agree: R-hat is above {RHAT} for {which}, worst {rhat[worst]:.3f} for ",
                     code(q.labels[worst]), "."])  # fmt: skip
        remedy = "Draw longer; if it stays, look for several modes or a funnel (see divergences)."
        found.append(Concern(bool(rhat.max() > 1.05), text, remedy))
    least = np.fmin(q.column("bulk"), q.column("tail"))
    least = np.where(free & np.isfinite(least), least, np.inf)
    if least.size and least.min() < q.needed:
        worst, count = int(least.argmin()), int((least < q.needed).sum())
        which = f"{count} quantities have" if count > 1 else "One quantity has"
        text = join([f"{which} fewer than {q.needed} effective draws, fewest {least[worst]:.0f} for ",
                     code(q.labels[worst]), "."])  # fmt: skip
        found.append(Concern(bool(least.min() < 100), text, "Draw longer, or stop on until=ess(400)."))
    return found
