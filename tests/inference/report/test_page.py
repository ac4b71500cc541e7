"""The page as a whole: well-formed, self-contained, inert, accessible, small; and a failing part fails alone."""

import re
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from ppl.inference.report import page as pages
from ppl.inference.report.markup import escape, tag
from ppl.inference.report.section import Concern, Section

HOSTILE = '<script>alert("1")</script>'
NAMES = [HOSTILE, '" onload="x', "a&b", "</style>", "\u202eabc", "x\x00y", "\ud800", "theta[<b>]", "]]>", "ü\u4e2d"]

pytestmark = pytest.mark.standard_promotion


def tree(text):
    """The page as XML: what is well-formed here is read alike by every browser."""
    return ElementTree.fromstring(text.removeprefix("<!doctype html>\n"))


def test_page_is_well_formed_and_asks_for_nothing(funnel, fine):
    for fit in (funnel, fine):
        text = pages.render(fit)
        root = tree(text)
        assert "could not be computed" not in text
        assert len(text) < 3_000_000
        assert not list(root.iter("script")) and not list(root.iter("link")) and not list(root.iter("img"))
        for element in root.iter():
            assert "src" not in element.attrib and not any(name.startswith("on") for name in element.attrib)
            assert element.attrib.get("href", "#").startswith("#")
        assert not re.search(r"https?:|url\(|@import|//", text.replace("<!doctype html>", ""))


def test_every_drawing_and_anchor_has_its_words(funnel):
    root = tree(pages.render(funnel))
    ids = [e.attrib["id"] for e in root.iter() if "id" in e.attrib]
    assert len(ids) == len(set(ids))
    drawings = list(root.iter("svg"))
    assert len(drawings) >= 16  # six pairs, energy, two of divergences, a predictive check, leave-one-out
    for element in root.iter():
        for name in element.attrib.get("aria-labelledby", "").split():
            assert name in ids
        if element.attrib.get("href"):
            assert element.attrib["href"][1:] in ids
    for drawing in drawings:
        assert drawing.attrib["role"] == "img" and drawing.attrib["aria-labelledby"]
        assert len(drawing.find("title").text) > 5 and len(drawing.find("desc").text) > 20
    for table in root.iter("table"):
        assert table.find("caption").text
        widths = {len(list(row)) for row in table.iter("tr")}
        assert len(widths) == 1


def test_hostile_names_are_shown_and_inert(hand, tmp_path):
    flags = np.zeros((4, 300), bool)
    flags[:, :20] = True
    fit = hand(NAMES, diverging=flags, notes=[HOSTILE], plan=[HOSTILE], engine=HOSTILE)
    path = fit.report(tmp_path / "report.html", title=HOSTILE)
    root = tree(path.read_text("utf-8"))
    assert not list(root.iter("script"))
    assert root.find("body/header/h1").text == HOSTILE
    shown = {"".join(e.itertext()) for e in root.iter("code")}
    assert {HOSTILE, "a&b", "</style>", "\ufffdabc", "x\ufffdy", "]]>"} <= shown
    assert not [e for e in root.iter() if "onload" in e.attrib]


def test_a_part_that_fails_is_said_and_the_others_stay(hand, monkeypatch):
    def broken(q):
        raise RuntimeError(f"no {HOSTILE}")

    def warned(fit):
        warnings.warn("mind the step", stacklevel=1)
        return tag("p", "fine"), []

    monkeypatch.setattr(pages, "traces", broken)
    monkeypatch.setattr(pages, "energies", warned)
    text = pages.render(hand(["a", "b"]))
    tree(text)
    assert f"RuntimeError: no {escape(HOSTILE)}" in text
    assert "mind the step" in text
    assert "Convergence" in text and "Notes and versions" in text
    assert "Usable with care" in text  # a part that nobody saw may hide something


def test_verdict_follows_the_gravest_concern(hand):
    fit = hand(["a"])

    def words(*concerns, **facts):
        section = Section("s", "S", tag("p", ""), tuple(concerns))
        fit.manifest.update(facts)
        return pages.verdict(fit, [section])

    assert "Nothing speaks against" in words()
    assert "with care" in words(Concern(False, "a"))
    assert "The draws can be used; look at the checks" in words(Concern(False, "a", draws=False))
    grave = words(Concern(False, "lesser"), Concern(True, "greater"))
    assert "Do not use" in grave and grave.index("greater") < grave.index("lesser")
    assert "still going on" in words(status="running")
    assert "stopped (SIGTERM)" in words(status="stopped", stopped="SIGTERM")


def test_verdicts_of_a_funnel_and_of_a_fine_fit(funnel, fine):
    bad, good = pages.render(funnel), pages.render(fine)
    assert "Do not use these draws yet" in bad
    assert "R-hat is above 1.01" in bad and "E-BFMI" in bad
    assert "Do not use" not in good


def test_a_fit_without_a_model_has_what_can_be_had(hand):
    text = pages.render(hand(["a", "b"]))
    tree(text)
    assert "could not be computed" not in text
    assert "Nothing speaks against these draws" in text
    assert "does not know its model" in text


@pytest.mark.parametrize("shape", [(1, 3), (1, 50), (2, 4), (40, 30)])
def test_odd_sizes(hand, shape):
    z = np.random.default_rng(1).normal(size=(*shape, 2))
    z[..., 1] = 3.0  # never moves
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = pages.render(hand(["free", "fixed"], positions=z))
    tree(text)
    assert "could not be computed" not in text
    assert "One coordinate never moved, such as <code>fixed</code>" in text
    if shape[0] == 1:
        assert "only one chain" in text


def test_draws_that_are_not_finite(hand):
    z = np.random.default_rng(1).normal(size=(4, 100, 2))
    z[0, 3, 1] = np.nan
    text = pages.render(hand(["a", "b"], positions=z))
    tree(text)
    assert "1 quantities have draws that are not finite" in text or "not finite" in text
    assert "Do not use these draws yet" in text


def test_the_file_is_replaced_at_once(hand, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("before")
    fit = hand(["a"])

    def full(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(pages.os, "replace", full)
        with pytest.raises(OSError, match="disk full"):
            fit.report(path)
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert fit.report(path) == path
    assert path.read_text("utf-8").startswith("<!doctype html>")
