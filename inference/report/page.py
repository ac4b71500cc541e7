"""The page: verdict first, then the sections, in one file that asks nothing of a network and runs no script."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from . import facts
from .bounded import bounded
from .convergence import convergence
from .divergences import divergences
from .energy import energies
from .loo import loo
from .markup import Markup, tag
from .predictive import predictive
from .quantities import quantities
from .section import Concern, Section, guarded
from .style import STYLE
from .traces import traces

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a browser may do for the page: apply its style, and nothing else."""


def write(fit: Any, path: Any, title: str | None = None) -> Path:
    """Write the report of a fit; see ``Fit.report``."""
    path = Path(path)
    text = render(fit, title)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)  # never half a page under the name
    except BaseException:
        os.unlink(name)
        raise
    return path


def render(fit: Any, title: str | None = None) -> str:
    """The report as HTML.

    Args:
        fit: The fit.
        title: Heading; the model's name by default.
    """
    found = sections(fit)
    name = title or f"Report on {_name(fit)}"
    chains, draws = fit.draws.shape[:2]
    facts_line = f"{chains} chains of {draws:,} draws, {fit.manifest.get('engine', 'unknown engine')}, "
    links = tag("ul", *(tag("li", tag("a", s.title, href=f"#{s.slug}")) for s in found))
    head = tag(
        "head",
        Markup('<meta charset="utf-8"/>'),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", name),
        Markup(f"<style>{STYLE}</style>"),
    )
    body = tag(
        "body",
        tag("header", tag("h1", name), tag("p", facts_line + str(fit.manifest.get("created_at", "")), class_="muted")),
        tag("main", verdict(fit, found), tag("nav", links, aria_label="Sections"), *(s.markup() for s in found)),
        tag("footer", tag("p", f"Written by ppl {fit.manifest.get('inference_library_version', '')}.")),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def sections(fit: Any) -> list[Section]:
    """All sections that the fit has something for."""
    whole, (fit, step) = fit, bounded(fit)
    q = quantities(fit)
    made = [
        guarded("plan", "Plan and model", partial(facts.plan, whole)),
        guarded("convergence", "Convergence", partial(convergence, q, step)),
        guarded("traces", "Traces and ranks of the worst quantities", partial(traces, q)),
        guarded("energy", "Energy", partial(energies, whole)),
        guarded("divergences", "Divergences", partial(divergences, fit, whole)),
        guarded("predictive", "Posterior predictive checks", partial(predictive, fit)),
        guarded("loo", "Leave-one-out cross-validation", partial(loo, fit)),
        guarded("timing", "Timing", partial(facts.timing, fit, q)),
        guarded("notes", "Notes and versions", partial(facts.notes, fit)),
    ]
    return [section for section in made if section is not None]


def verdict(fit: Any, found: list[Section]) -> Markup:
    """What to think of the fit, in plain words."""
    concerns: list[tuple[Concern, Section]] = [(c, s) for s in found for c in s.concerns]
    concerns.sort(key=lambda pair: not pair[0].grave)
    grave = sum(c.grave for c, _ in concerns)
    if grave:
        kind, words = "bad", "\u2717 Do not use these draws yet"
    elif any(c.draws for c, _ in concerns):
        kind, words = "care", "! Usable with care"
    elif concerns:
        kind, words = "care", "\u2713 The draws can be used; look at the checks of the model"
    else:
        kind, words = "good", "\u2713 Nothing speaks against these draws"
    going = fit.manifest.get("status")
    state = {
        "running": "The run is still going on; this is what it has so far.",
        "stopped": f"The run was stopped ({fit.manifest.get('stopped', 'early')}) and can be resumed.",
        "failed": "The run failed; these are the draws that it left.",
    }.get(str(going))
    if concerns:
        items = [
            tag("li", tag("strong", "Grave. ") if c.grave else None, c.text, " ", c.advice, " ",
                tag("a", f"({s.title})", href=f"#{s.slug}"))
            for c, s in concerns
        ]  # fmt: skip
        said = tag("ul", *items)
    else:
        said = tag("p", "The chains agree, every quantity has enough effective draws, no transition diverged, and the "
                   "checks below found nothing.")  # fmt: skip
    what = tag("p", state) if state else None
    return tag("section", tag("h2", words), what, said, class_=f"verdict {kind}", aria_label="Verdict")


def _name(fit: Any) -> str:
    if fit.program is not None:
        return str(fit.program.model.__name__)
    return str(fit.manifest.get("model") or "a log density")
