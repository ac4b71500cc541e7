"""Fix sites of a program at values: ``condition`` keeps their factors, ``do`` drops them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .check import check_value
from .errors import MissingSite, ModelError, at, suggest, user_line
from .exactness import refuse_marginal
from .missing import forget, policies, remember, whole_chain
from .sites import SiteInfo
from .values import MARGINALIZE, MASK, PLACES, site_of


def fix(program: Any, values: Mapping[str, Any], role: str, missing: Any = "error") -> Any:
    """The program with some sites fixed at values that are checked on the host.

    Args:
        program: The program.
        values: Values by site name.
        role: ``"observed"`` or ``"done"``.
        missing: The policy for gaps, or a mapping from sites to policies.

    Raises:
        ModelError: Naming site, element, value and line.
    """
    verb = "condition" if role == "observed" else "do"
    chosen = policies(missing, values)
    fixed, roles = dict(program.fixed), dict(program.roles)
    gaps: dict[str, Any] = {}
    for name, value in values.items():
        info = _site(program, name, verb)
        info = program.tidy.sites[name]
        if role == "observed":
            value, chosen[name] = whole_chain(info, value, chosen[name])
        host, known = check_value(info, value, program.coords, verb, chosen[name])
        forget(fixed, roles, name)
        fixed[name], roles[name] = program.tidy.pack(name, host), role
        if known is not None:
            gaps[name] = known
    also = {name: known for name, known in gaps.items() if chosen[name] == MARGINALIZE}
    for name, known in gaps.items():
        marks, policy = remember(program, program.tidy.sites[name], known, chosen[name], also)
        fixed |= program.tidy.packed_marks(name, marks)
        roles |= policy
    found = replace(program, fixed=fixed, roles=roles)
    if role == "observed" and any(program.roles.get(name) == "done" for name in values):
        _check_again(found, [name for name in values if program.roles.get(name) == "done"])
    return found


def _check_again(program: Any, values: list[str]) -> None:
    """Refuse sites that ``do`` had fixed, and that now read elements that were left out."""
    left_out = {site_of(mark): known for mark, known in program.fixed.items() if mark.endswith(MASK)}
    left_out = {name: known for name, known in left_out.items() if program.roles[name + MASK] == MARGINALIZE}
    for name, known in left_out.items():
        if name not in values:
            refuse_marginal(program, program.learned()[name], np.asarray(known), left_out)


def _site(program: Any, name: str, verb: str) -> SiteInfo:
    """The random variable of a name."""
    learned = program.learned()
    info = learned.get(name)
    if info is None or info.kind != "sample":
        names = [n for n, i in learned.items() if i.kind == "sample"]
        what = f"is a {info.kind}, not a random variable" if info else "is not a site of the model"
        raise MissingSite(f"program.{verb}: {name!r} {what}.{suggest(name, names)}\n{at(user_line())}")
    whole = name.removesuffix("_missing")
    if whole + PLACES in program.fixed and whole != name:
        raise ModelError(
            f"program.{verb}: {name!r} are the missing elements of {whole!r}:\n{at(info.source)}\n{at(user_line())}"
            f"\n  Give {whole!r} a value without gaps instead."
        )
    return info
