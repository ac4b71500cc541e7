"""What a page is made of: sections, and the concerns that they raise for the verdict."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .markup import Markup, bullets, join, tag


@dataclass(frozen=True)
class Concern:
    """Something that speaks against the draws or the model.

    Attributes:
        grave: Whether the numbers must not be used before it is mended; otherwise care is enough.
        text: What was found.
        advice: What to do about it.
        draws: Whether it speaks against the draws, rather than against the model or a check of it.
    """

    grave: bool
    text: Any
    advice: Any = ""
    draws: bool = True


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        slug: Its anchor.
        title: Its heading.
        body: Its markup.
        concerns: What it found.
    """

    slug: str
    title: str
    body: Markup
    concerns: tuple[Concern, ...] = ()

    def markup(self) -> Markup:
        """The section as an element."""
        heading = tag("h2", self.title, id=f"{self.slug}-heading")
        return tag("section", heading, self.body, id=self.slug, aria_labelledby=f"{self.slug}-heading")


def guarded(slug: str, title: str, build: Callable[[], tuple[Markup, list[Concern]] | None]) -> Section | None:
    """Build a section; a failure is said in the page and never breaks it, warnings are quoted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            made = build()
        except Exception as error:
            # Whatever goes wrong in one part, a diverging model's or a library's fault, the others are still of use.
            reason = tag("p", f"This part could not be computed. {type(error).__name__}: {error}", class_="failed")
            made = reason, [Concern(False, f"The part “{title}” could not be computed.", "See there for the reason.")]
    if made is None:
        return None
    body, concerns = made
    said = dict.fromkeys(str(w.message).strip() for w in caught if not issubclass(w.category, FutureWarning))
    quoted = tag("div", tag("p", "Warnings on the way:"), bullets(list(said)[:8]), class_="aside") if said else None
    return Section(slug, title, join([body, quoted]), tuple(concerns))
