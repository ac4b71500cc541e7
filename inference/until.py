"""Stopping rules: sample until the draws are good enough.

A rule looks at all sampling draws so far, on the unconstrained scale, and says whether they suffice.
``ess(n)`` asks that the bulk and the tail effective sample size of every coordinate reach n and that the
rank-normalised R-hat is at most 1.01. Rules combine with ``&`` and ``|``; any function of the draws joins.

Reference: Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021), Rank-normalization, folding, and
localization: an improved R-hat. Bayesian Analysis 16(2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

SLACK, FEW = 0.7, 10
"""The ESS of the means, without ranks, screens with this slack; then the worst few coordinates are ranked first."""


MARGIN = 0.8
"""Share of R-hat's distance from one that the coordinates may use, the rest being left for what is derived of them."""


@dataclass(frozen=True)
class Verdict:
    """Whether a rule is met, and the numbers that say so.

    Attributes:
        met: Whether to stop.
        text: The numbers.
        growth: By how much the draws must grow, by a guess, to meet it; saves judging in vain.
    """

    met: bool
    text: str
    growth: float = 1.0


@dataclass(frozen=True)
class Rule:
    """A predicate on draws of shape (chains, draws, dim).

    Attributes:
        name: What the rule asks for, in words.
        judge: Function from the draws to a :class:`Verdict`.
        converged: Whether it asks that the chains agree, so that an engine need not.
        spec: The rule as JSON values, by which a run directory remembers it; None for a user's own function.
        nested: Whether ``judge`` also takes the number of superchains, of an engine that runs many short chains.

    Example:
        >>> enough = Rule("100 draws", lambda z: Verdict(z.shape[1] >= 100, f"{z.shape[1]} draws"))
        >>> (enough | ess(50))(np.zeros((2, 100, 1))).met
        True
    """

    name: str
    judge: Callable[..., Verdict]
    converged: bool = False
    spec: Any = None
    nested: bool = False

    def __call__(self, positions: np.ndarray, superchains: int | None = None) -> Verdict:
        """Judge the draws."""
        return self.judge(positions, superchains) if self.nested else self.judge(positions)

    def __and__(self, other: Any) -> Rule:
        """Both rules."""
        return _join(self, as_rule(other), "and", all)

    def __or__(self, other: Any) -> Rule:
        """Either rule."""
        return _join(self, as_rule(other), "or", any)


def ess(n: float, rhat: float = 1.01) -> Rule:
    """Stop when every coordinate has ``n`` effective draws, in bulk and tails, and R-hat is small.

    Args:
        n: Least bulk and tail effective sample size.
        rhat: Greatest rank-normalised R-hat of any quantity: coordinates must come within 0.8 of its distance from
            one, for what is computed of them may mix a little worse. ``float("inf")`` leaves it out.

    Example:
        >>> z = np.random.default_rng(0).normal(size=(4, 500, 2))
        >>> ess(400)(z).met, ess(40_000)(z).met
        (True, False)
    """
    if not n > 0:
        raise ValueError(f"ess(n) needs n > 0, not {n!r}")

    def judge(positions: np.ndarray, superchains: int | None = None) -> Verdict:
        from . import diagnostics

        if positions.shape[1] < 4:
            return Verdict(False, f"{positions.shape[1]} draws per chain")
        # The dear quantities only when the others are fine: judging can cost more than sampling.
        plain = np.nan_to_num(np.asarray(diagnostics.ess_mean(positions)), nan=0.0)
        if plain.min() < SLACK * n:
            return Verdict(False, f"least ESS of a mean {plain.min():.0f}", n / max(plain.min(), 1.0))
        bulk = _least(diagnostics.ess_bulk(positions[..., np.argsort(plain)[:FEW]]))
        if bulk < n:
            return Verdict(False, f"least bulk ESS {bulk:.0f}", n / max(bulk, 1.0))
        bulk = _least(diagnostics.ess_bulk(positions))
        if bulk < n:
            return Verdict(False, f"least bulk ESS {bulk:.0f}", n / max(bulk, 1.0))
        tail = _least(diagnostics.ess_tail(positions))
        if tail < n:
            return Verdict(False, f"least tail ESS {tail:.0f}", n / max(tail, 1.0))
        worst = _greatest(diagnostics.rhat_rank(positions, superchains))
        text = f"least ESS {min(bulk, tail):.0f}, largest R-hat {worst:.3f}"
        # what is computed from the coordinates, such as a group's effect, may mix a little worse than they do
        return Verdict(bool(worst <= 1.0 + MARGIN * (rhat - 1.0)), text)

    wanted = f"ESS >= {n:g}" + (f" and R-hat <= {rhat:g}" if np.isfinite(rhat) else "")
    return Rule(wanted, judge, bool(np.isfinite(rhat)), {"ess": [float(n), float(rhat)]}, nested=True)


def as_rule(rule: Any) -> Rule:
    """Make a rule of a function of the draws that returns a truth value.

    Example:
        >>> as_rule(lambda z: z.shape[0] > 1)(np.zeros((2, 3, 1))).met
        True
    """
    if isinstance(rule, Rule):
        return rule
    if not callable(rule):
        raise TypeError(f"until= takes a rule such as ess(400) or a function of the draws, not {rule!r}")
    name = getattr(rule, "__name__", "rule")
    return Rule(name, lambda positions: Verdict(bool(rule(positions)), name))


def _join(a: Rule, b: Rule, word: str, combine: Callable[..., bool]) -> Rule:
    def judge(positions: np.ndarray, superchains: int | None = None) -> Verdict:
        first, second = a(positions, superchains), b(positions, superchains)
        growth = (max if combine is all else min)(first.growth, second.growth)
        return Verdict(combine((first.met, second.met)), f"{first.text}; {second.text}", growth)

    converged = (any if combine is all else all)((a.converged, b.converged))
    spec = None if a.spec is None or b.spec is None else {word: [a.spec, b.spec]}
    return Rule(f"({a.name}) {word} ({b.name})", judge, converged, spec, nested=True)


def from_spec(spec: Any) -> Rule:
    """The rule of a ``spec``.

    Example:
        >>> from_spec((ess(100) & ess(200)).spec).name
        '(ESS >= 100 and R-hat <= 1.01) and (ESS >= 200 and R-hat <= 1.01)'
    """
    ((word, inner),) = spec.items()
    if word == "ess":
        return ess(*inner)
    a, b = (from_spec(part) for part in inner)
    return a & b if word == "and" else a | b


def _least(value: np.ndarray) -> float:
    # A coordinate that never moves has no effective sample size (NaN): it must not count as enough.
    return float(np.min(np.nan_to_num(np.asarray(value), nan=0.0)))


def _greatest(value: np.ndarray) -> float:
    return float(np.max(np.nan_to_num(np.asarray(value), nan=np.inf)))
