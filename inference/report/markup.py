"""HTML whose text is escaped unless it says that it is markup already.

Every string that enters a page goes through ``tag``: what is not ``Markup`` is text, whatever it looks like, so a
site named ``<script>`` is shown, not run.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

VOID = ("br", "hr", "meta", "path", "line", "rect", "circle")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Markup(str):
    """Text that is markup, and is not escaped again."""

    __slots__ = ()


def escape(value: Any) -> Markup:
    """A value as inert text; control characters, half surrogates and changes of direction become a mark.

    Example:
        >>> escape("<script>alert(1)</script>")
        '&lt;script&gt;alert(1)&lt;/script&gt;'
        >>> escape(escape("a & b"))
        'a &amp; b'
    """
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(_CONTROL.sub("\ufffd", str(value)), quote=True))


def join(parts: Iterable[Any], between: str = "") -> Markup:
    """Markup of several parts, None left out."""
    return Markup(between.join(escape(part) for part in parts if part is not None))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """One element.

    Args:
        name: Its name.
        *children: Markup, or values that are escaped; None is left out.
        **attributes: Values are escaped; ``class_`` is ``class``, other underscores are hyphens, None is left out.

    Example:
        >>> tag("p", "1 < 2", class_="note")
        '<p class="note">1 &lt; 2</p>'
    """
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    opening = name + "".join(f' {key}="{escape(value)}"' for key, value in pairs)
    if name in VOID:
        return Markup(f"<{opening}/>")
    return Markup(f"<{opening}>{join(children)}</{name}>")


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]], caption: str, words: int = 1) -> Markup:
    """A table; the first cell of a row names it.

    Args:
        header: Names of the columns.
        rows: Cells.
        caption: What the table shows.
        words: Number of leading columns that hold words rather than numbers.
    """

    def kind(place: int) -> str | None:
        return None if place < words else "number"

    head = tag("tr", *(tag("th", cell, scope="col", class_=kind(i)) for i, cell in enumerate(header)))
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", c, class_=kind(i)) for i, c in enumerate(row[1:], 1)))
        for row in rows
    ]
    inner = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body))
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def bullets(items: Iterable[Any]) -> Markup:
    """A list, or nothing."""
    items = list(items)
    return tag("ul", *(tag("li", item) for item in items)) if items else Markup("")


def code(text: Any) -> Markup:
    """A name or a snippet as it would be typed."""
    return tag("code", text)


def figure(drawing: Markup, caption: Any) -> Markup:
    """A drawing and the sentence that says what to look for in it."""
    return tag("figure", drawing, tag("figcaption", caption))


def number(x: float, digits: int = 3) -> str:
    """A number for a table.

    Example:
        >>> number(0.00012345), number(1234567.0), number(float("nan")), number(12.0)
        ('0.000123', '1.23e+06', '-', '12')
    """
    x = float(x)
    if x != x:
        return "-"
    whole = 10**digits <= abs(x) < 1e6
    return f"{x:.0f}" if whole else f"{x:.{digits}g}"
