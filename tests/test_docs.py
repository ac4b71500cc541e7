"""Everything that the documentation shows is run: doctests of all modules, Python blocks of all pages."""

from __future__ import annotations

import doctest
import importlib
import linecache
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"ppl": "ppl", "inference": "ppl.inference", "models": "ppl.models"}
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Documentation is code that a user would write.
pytestmark = pytest.mark.standard_promotion


def module_names() -> list[str]:
    names = []
    for folder, prefix in FOLDERS.items():
        for directory, _, files in os.walk(ROOT / folder, followlinks=False):
            for file in files:
                if file.endswith(".py"):
                    parts = Path(directory, file).relative_to(ROOT / folder).with_suffix("").parts
                    names.append(".".join([prefix, *(part for part in parts if part != "__init__")]))
    return sorted(names)


def run_doctests(module) -> tuple[int, list[str]]:
    """Run a module's examples; return how many there were and what went wrong."""
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__):
        runner.run(test, out=report.append)
    return runner.tries, report if runner.failures else []


def run_blocks(text: str, name: str) -> int:
    """Execute the Python blocks of a page in order, in one namespace; return how many there were."""
    namespace = {"__name__": "__main__"}
    blocks = list(FENCE.finditer(text))
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    for block in blocks:
        line = text.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block.group(1), name, "exec"), namespace)
    return len(blocks)


@pytest.mark.parametrize("name", module_names())
def test_doctests(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, report = run_doctests(importlib.import_module(name))
    if report:
        pytest.fail("".join(report), pytrace=False)


@pytest.mark.parametrize("page", PAGES)
def test_pages(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_blocks((ROOT / page).read_text("utf-8"), str(ROOT / page))


def test_the_readme_has_a_block_to_run():
    assert FENCE.search((ROOT / "README.md").read_text("utf-8"))


def test_a_wrong_doctest_is_found(monkeypatch, tmp_path):
    (tmp_path / "planted_examples.py").write_text('"""Sum.\n\n>>> 1 + 1\n2\n>>> 1 + 2\n4\n"""\n')
    monkeypatch.syspath_prepend(tmp_path)
    tries, report = run_doctests(importlib.import_module("planted_examples"))
    assert tries == 2
    assert "Got:\n    3" in "".join(report)


def test_a_wrong_block_is_found_at_its_line():
    page = "Words.\n\n```python\nx = 1\n```\n\n```text\nnot code\n```\n\n```python\nassert x == 2\n```\n"
    assert run_blocks(page.replace("x == 2", "x == 1"), "page.md") == 2
    with pytest.raises(AssertionError) as caught:
        run_blocks(page, "page.md")
    assert caught.traceback[-1].lineno == page[: page.index("assert")].count("\n")
