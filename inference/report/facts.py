"""What was run: plan, model, data, timing, options, versions and notes, from the fit and its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from .markup import Markup, bullets, code, join, number, table, tag
from .quantities import Quantities
from .section import Concern

VERSIONS = ("inference_library_version", "jax_version", "numpy_version", "python_version", "device", "precision")


def plan(fit: Any) -> tuple[Markup, list[Concern]]:
    """The plan of the run and the sites of the model."""
    chains, draws, dim = fit.draws.shape
    lines = list(fit.manifest.get("plan") or ["The fit does not say how it was planned."])
    parts = [tag("p", f"{chains} chains of {draws:,} draws in {dim:,} unconstrained dimensions."), bullets(lines)]
    if fit.program is not None:
        parts.append(_sites(fit.program))
    return join(parts), []


def _sites(program: Any) -> Markup:
    rows = [
        (code(site.name), site.kind, "\u00d7".join(map(str, site.shape)) or "scalar", ", ".join(site.dims) or "-",
         site.source.replace("\\", "/").rpartition("/")[2])
        for site in list(program.sites.values())[:200]
    ]  # fmt: skip
    return table(("site", "kind", "shape", "dims", "line"), rows, f"Sites of the model {program.model.__name__}", 5)


def timing(fit: Any, q: Quantities) -> tuple[Markup, list[Concern]]:
    """Seconds by phase, and what they bought."""
    seconds = {str(k): float(v) for k, v in (fit.manifest.get("seconds") or {}).items()}
    if not seconds:
        return tag("p", "The fit has no timings."), []
    rows = [(name, f"{value:.3g}") for name, value in seconds.items()] + [("all", f"{sum(seconds.values()):.3g}")]
    parts = [table(("phase", "seconds"), rows, "Seconds in the engine, compilation included")]
    sampling = seconds.get("sampling", 0.0)
    effective = np.where(q.constant, np.nan, q.column("bulk"))
    if sampling > 0 and np.isfinite(effective).any():
        worst = int(np.nanargmin(effective))
        per = f"{number(effective[worst] / sampling)} per second of sampling"
        parts.append(tag("p", "Effective draws of the slowest quantity, ", code(q.labels[worst]), f": {per}."))
    return join(parts), []


def notes(fit: Any) -> tuple[Markup, list[Concern]]:
    """How the run ended, its tuning, options and versions."""
    facts = fit.manifest
    said = [*fit.notes, *map(str, fit.draws.info.get("warnings", ()))]
    ended = [f"{name}: {facts[name]}" for name in ("status", "stopped", "until") if facts.get(name)]
    versions = [(name.replace("_", " "), str(facts[name])) for name in VERSIONS if name in facts]
    rows = [("made", str(facts.get("created_at", "-"))), ("seed", str(facts.get("seed", "-"))), *versions]
    engine = {"engine": facts.get("engine"), "options": facts.get("engine_options"), "tuning": _tuning(fit.draws.info)}
    parts = [
        bullets(dict.fromkeys([*said, *ended])) or tag("p", "The run has nothing to remark."),
        table(("", "value"), rows, "Origin", 2),
        tag("details", tag("summary", "Engine, options and final tuning"), tag("pre", _text(engine))),
    ]
    # what an engine says of divergences and R-hat is judged elsewhere
    advice = [text for text in said if "diverged" not in text and "split R-hat" not in text]
    return join(parts), [Concern(facts.get("status") == "failed", text) for text in dict.fromkeys(advice)]


def _tuning(info: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in info.items() if name not in ("plan", "warnings")}


def _text(value: Any, most: int = 6000) -> str:
    text = json.dumps(value, indent=1, default=str, ensure_ascii=False)
    return text if len(text) <= most else text[:most] + "\n..."
