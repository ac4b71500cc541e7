"""The text of a formula: response, common terms, group terms.

    y ~ 1 + x + (1 + x | g)

is the response ``y``, the common terms ``1 + x`` and one group term, in which intercept and slope vary by ``g``. The
common terms, and those left of a bar, are Wilkinson formulas (Wilkinson and Rogers, 1973), which formulaic reads; the
bars (Bates et al., 2015) are read here: ``(1 | a/b)`` stands for ``(1 | a) + (1 | a:b)``, and two bars for effects
without correlation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import ModelError, at, user_line

_NAME = r"(?:[^\W\d]\w*|`[^`]+`)"


@dataclass(frozen=True)
class GroupTerm:
    """One term in bars.

    Attributes:
        text: As it was written.
        effects: What varies, a formula.
        factors: Names of the columns whose combinations are the groups.
        correlated: Whether the effects of a group are correlated.
    """

    text: str
    effects: str
    factors: tuple[str, ...]
    correlated: bool


@dataclass(frozen=True)
class Parsed:
    """A formula in parts.

    Attributes:
        text: The whole, with single spaces.
        response: Left of the tilde.
        common: The common terms.
        groups: The group terms.
    """

    text: str
    response: str
    common: str
    groups: tuple[GroupTerm, ...]


def parse(text: str) -> Parsed:
    """Read a formula.

    Raises:
        ModelError: Saying what is wrong with the text.

    Example:
        >>> found = parse("y ~ 1 + x + (x || a/b)")
        >>> found.common, [(g.factors, g.correlated) for g in found.groups]
        ('1 + x', [(('a',), False), (('a', 'b'), False)])
    """
    whole = " ".join(str(text).split())
    sides = _split(whole, "~")
    if len(sides) != 2 or not sides[0].strip() or not sides[1].strip():
        raise _wrong(whole, "it needs one tilde between response and terms, such as  y ~ 1 + x")
    if len(_split(sides[0], "|")) > 1:
        raise _wrong(whole, "a bar stands left of the tilde; trials are given as  ppl.formula(..., trials='column')")
    common, groups = "", []
    for sign, term in _terms(sides[1]):
        inner = term[1:-1] if _enclosed(term) else ""
        if len(_split(inner, "|")) > 1:
            if sign == "-":
                raise _wrong(whole, f"the group term {term} is subtracted")
            groups += _group(whole, term, inner)
        elif len(_split(term, "|")) > 1:
            raise _wrong(whole, f"a group term stands in parentheses: ({term.strip()})")
        elif term:
            common += f" {sign} {term}" if common or sign == "-" else term
        else:
            raise _wrong(whole, "two signs follow each other, or one ends it")
    return Parsed(whole, sides[0].strip(), common.strip() or "1", tuple(groups))


def _wrong(text: str, why: str) -> ModelError:
    return ModelError(f"the formula {text!r} cannot be read: {why}:\n{at(user_line())}")


def _group(whole: str, term: str, inner: str) -> list[GroupTerm]:
    effects, _, by = inner.partition("|")
    correlated = not by.startswith("|")
    by = by.lstrip("|").strip()
    if not effects.strip() or not re.fullmatch(rf"{_NAME}(\s*[:/]\s*{_NAME})*", by) or ("/" in by and ":" in by):
        raise _wrong(
            whole, f"{term} is no group term; those are (1 | g), (1 + x | g), (x || g), (1 | a:b) and (1 | a/b)"
        )
    names = [name.strip().strip("`") for name in re.split("[:/]", by)]
    depths = range(1, len(names) + 1) if "/" in by else [len(names)]
    return [GroupTerm(term, effects.strip(), tuple(names[:depth]), correlated) for depth in depths]


def _enclosed(term: str) -> bool:
    """Whether one pair of parentheses holds the whole term."""
    return term.startswith("(") and term.endswith(")") and len(_pieces(term[1:-1], "")) == 1 and _closed(term[1:-1])


def _closed(text: str) -> bool:
    depth = 0
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth < 0:
            return False
    return depth == 0


def _terms(text: str) -> list[tuple[str, str]]:
    """Signs and terms of a sum."""
    pieces = _pieces(text, "+-")
    if pieces and not pieces[0][1].strip():
        pieces = pieces[1:]
    return [(sign or "+", piece.strip()) for sign, piece in pieces]


def _split(text: str, mark: str) -> list[str]:
    return [piece for _, piece in _pieces(text, mark)]


def _pieces(text: str, marks: str) -> list[tuple[str, str]]:
    """Cut at marks that stand outside of parentheses, brackets, quotes and backticks."""
    found, depth, quote, start, sign = [], 0, "", 0, ""
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'`":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif depth == 0 and letter in marks:
            found.append((sign, text[start:i]))
            start, sign = i + 1, letter
    return [*found, (sign, text[start:])]


def names_in(text: str) -> set[str]:
    """Everything in a formula that could be the name of a column.

    Example:
        >>> sorted(names_in("log(y) ~ `a b` + x"))
        ['a b', 'log', 'x', 'y']
    """
    quoted = set(re.findall(r"`([^`]+)`", text))
    return quoted | set(re.findall(r"[^\W\d]\w*", re.sub(r"`[^`]+`", " ", text)))
