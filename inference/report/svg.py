"""Plots as inline SVG, from NumPy alone: scales with round ticks, lines, steps, bars, points, crosses and bands.

Colours come from the style sheet of the page, by class, so that a plot follows a dark or a light page and prints
black; what matters is also said by shape (dashes, crosses, thickness) and in words (``title``, ``desc``).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .markup import Markup, join, tag

Array = Any
LEFT, RIGHT, TOP, BOTTOM = 56.0, 12.0, 26.0, 40.0
_INSIDE = 0.04
"""Free share of a range at either end."""


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within a range.

    Example:
        >>> ticks(0.0, 1.0)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def span(*values: Array, margin: float = _INSIDE) -> tuple[float, float]:
    """A range that holds the finite values, never empty.

    Example:
        >>> span([0.5], margin=0.0)
        (0.0, 1.0)
    """
    every = np.concatenate([np.asarray(v, float).ravel() for v in values]) if values else np.zeros(0)
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if every.size else (0.0, 1.0)
    width = high - low
    if not width > 1e-12 * max(abs(low), abs(high), 1e-300):
        half = 0.5 * max(abs(low), 1.0) if abs(low) > 1 else 0.5
        return low - half, high + half
    return low - margin * width, high + margin * width


class Plot:
    """A pair of axes that collects marks.

    Args:
        width: In units of the view box, which are pixels at full size.
        height: Likewise.
        x: Range of the horizontal axis.
        y: Range of the vertical axis.
        xlabel: Name of the horizontal axis.
        ylabel: Name of the vertical axis.
        heading: Text above.
        xticks: Places and texts instead of round numbers.
        yticks: Likewise.
    """

    def __init__(
        self,
        width: float,
        height: float,
        x: tuple[float, float],
        y: tuple[float, float],
        xlabel: str = "",
        ylabel: str = "",
        heading: str = "",
        xticks: list[tuple[float, str]] | None = None,
        yticks: list[tuple[float, str]] | None = None,
    ) -> None:
        """Draw the axes."""
        self.width, self.height, self.x, self.y = width, height, x, y
        self.marks: list[Markup] = []
        self._axes(xticks, yticks)
        middle = (LEFT + width - RIGHT) / 2
        self.marks += [
            tag("text", heading, x=_n(LEFT), y="15", class_="heading") if heading else Markup(""),
            _text(xlabel, middle, height - 6, "middle"),
            _text(ylabel, 13, (TOP + height - BOTTOM) / 2, "middle", turn=True),
        ]

    def px(self, x: Array) -> Array:
        """Horizontal places in the view box, kept near the axes."""
        low, high = self.x
        share = np.clip((np.asarray(x, float) - low) / (high - low), -0.2, 1.2)
        return LEFT + share * (self.width - LEFT - RIGHT)

    def py(self, y: Array) -> Array:
        """Vertical places, kept near the axes."""
        low, high = self.y
        share = np.clip((np.asarray(y, float) - low) / (high - low), -0.2, 1.2)
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)

    def line(self, x: Array, y: Array, style: str) -> None:
        """A line through points; a value that is not finite interrupts it."""
        self._path(_lines(self.px(x), self.py(y), np.isfinite(np.asarray(y, float))), style)

    def steps(self, edges: Array, heights: Array, style: str) -> None:
        """The outline of a histogram, down to zero at the ends."""
        y = np.concatenate([[0.0], np.repeat(np.asarray(heights, float), 2), [0.0]])
        self.line(np.repeat(np.asarray(edges, float), 2), y, style)

    def bars(self, left: Array, right: Array, heights: Array, style: str, base: Array = 0.0) -> None:
        """Bars from a base to their heights."""
        top, bottom = self.py(heights), self.py(np.broadcast_to(base, np.shape(heights)))
        edges = zip(self.px(left), self.px(right), top, bottom, strict=True)
        self._path("".join(f"M{_n(a)} {_n(d)}V{_n(c)}H{_n(b)}V{_n(d)}Z" for a, b, c, d in edges if d != c), style)

    def points(self, x: Array, y: Array, style: str) -> None:
        """Dots, whose size is the width of the style's stroke."""
        self._path("".join(f"M{_n(a)} {_n(b)}h0" for a, b in self._pairs(x, y)), style)

    def crosses(self, x: Array, y: Array, style: str, size: float = 3.0) -> None:
        """Diagonal crosses."""
        mark = (
            f"m{_n(-size)} {_n(-size)}l{_n(2 * size)} {_n(2 * size)}m0 {_n(-2 * size)}l{_n(-2 * size)} {_n(2 * size)}"
        )
        self._path("".join(f"M{_n(a)} {_n(b)}{mark}" for a, b in self._pairs(x, y)), style)

    def intervals(self, x: Array, low: Array, high: Array, style: str) -> None:
        """Vertical lines from low to high."""
        ends = zip(self.px(x), self.py(low), self.py(high), strict=True)
        self._path("".join(f"M{_n(a)} {_n(b)}V{_n(c)}" for a, b, c in ends), style)

    def level(self, y: float, style: str, label: str = "") -> None:
        """A horizontal line across."""
        self.line(list(self.x), [y, y], style)
        if label:
            self.marks.append(_text(label, self.width - RIGHT - 2, float(self.py(y)) - 4, "end", "small"))

    def label(self, x: float, y: float, text: str, anchor: str = "start") -> None:
        """Words at a point."""
        self.marks.append(_text(text, float(self.px(x)), float(self.py(y)), anchor, "small"))

    def svg(self, name: str, title: str, description: str) -> Markup:
        """The finished drawing.

        Args:
            name: Unique within the page.
            title: What it is.
            description: What it shows, for those who do not see it.
        """
        return drawing(name, title, description, self.width, self.height, self.marks)

    def _pairs(self, x: Array, y: Array) -> Any:
        x, y = np.asarray(x, float), np.asarray(y, float)
        seen = np.isfinite(x) & np.isfinite(y)
        return zip(self.px(x[seen]), self.py(y[seen]), strict=True)

    def _path(self, d: str, style: str) -> None:
        if d:
            self.marks.append(tag("path", d=d, class_=style))

    def _axes(self, xticks: list[tuple[float, str]] | None, yticks: list[tuple[float, str]] | None) -> None:
        bottom, right = self.height - BOTTOM, self.width - RIGHT
        across = [(t, label_of(t)) for t in ticks(*self.x)] if xticks is None else xticks
        up = [(t, label_of(t)) for t in ticks(*self.y)] if yticks is None else yticks
        frame = f"M{_n(LEFT)} {_n(TOP)}V{_n(bottom)}H{_n(right)}"
        small = "".join(f"M{_n(self.px(t))} {_n(bottom)}v4" for t, _ in across)
        small += "".join(f"M{_n(LEFT)} {_n(self.py(t))}h-4" for t, _ in up)
        self._path(frame + small, "axis")
        self.marks += [_text(text, float(self.px(t)), bottom + 16, "middle", "tick") for t, text in across]
        self.marks += [_text(text, LEFT - 7, float(self.py(t)) + 4, "end", "tick") for t, text in up]


def drawing(name: str, title: str, description: str, width: float, height: float, marks: Any) -> Markup:
    """An SVG element with its words for those who do not see it."""
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", description, id=f"{name}-desc"),
        join(marks, "\n"),
        viewBox=f"0 0 {_n(width)} {_n(height)}",
        width=_n(width),
        height=_n(height),
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def label_of(x: float) -> str:
    """A tick's text, with a proper minus sign.

    Example:
        >>> label_of(-0.5), label_of(20000.0), label_of(3.0)
        ('\u22120.5', '2e4', '3')
    """
    text = f"{x:.6g}" if abs(x) < 10_000 and (abs(x) >= 1e-3 or x == 0) else f"{x:.4g}"
    if abs(x) >= 10_000:
        mantissa, _, power = f"{x:.3e}".partition("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
    return text.replace("e-0", "e-").replace("-", "\u2212")


def clip(text: str, most: int = 28) -> str:
    """A name that fits its place.

    Example:
        >>> clip("abcdefgh", 5)
        'abcd\u2026'
    """
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def _n(value: Any) -> str:
    text = f"{float(value):.1f}"
    return text[:-2] if text.endswith(".0") else text


def _lines(x: Array, y: Array, seen: Array) -> str:
    parts, drawing_on = [], False
    for a, b, there in zip(x.tolist(), y.tolist(), seen.tolist(), strict=True):
        if there:
            parts.append(f"{'L' if drawing_on else 'M'}{_n(a)} {_n(b)}")
        drawing_on = there
    return "".join(parts)


def _text(text: str, x: float, y: float, anchor: str, style: str = "label", turn: bool = False) -> Markup:
    if not text:
        return Markup("")
    turned = f"rotate(-90 {_n(x)} {_n(y)})" if turn else None
    return tag("text", text, x=_n(x), y=_n(y), text_anchor=anchor, class_=style, transform=turned)
