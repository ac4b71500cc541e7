"""Columns of a CSV file, read with the standard library and never changed silently.

A column holds whole numbers, numbers, truth values, or else text. Empty cells and ``NA`` are gaps: a column of numbers
with gaps has NaN there. A column whose cells would not come back as they were (``007``, whole numbers of more than 64
bits) is text, and so is one with a single cell that is no number; where such a column is used as numbers, an error
shows that cell.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..summary import nearest
from .errors import UserError, listed

GAPS = ("", "NA", "N/A", "NaN", "nan", "null", "None", "<NA>")
WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)")
NUMBER = re.compile(r"[+-]?(((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[iI]nf(inity)?)")
TRUTH = {"true": True, "false": False}
BITS = 2**63


@dataclass(frozen=True)
class Table:
    """A table of columns.

    Attributes:
        name: The file, for messages.
        columns: Arrays by column name: integers, floats, truth values or text.
        texts: Why a column is text: its first cell that is no number, with the line of the file.
        lines: The line of the file on which each row ends.
    """

    name: str
    columns: Mapping[str, np.ndarray]
    texts: Mapping[str, str]
    lines: Sequence[int]

    def gap(self, name: str) -> int | None:
        """The line of the first gap of a column of numbers, None where it has none."""
        values = self.columns[name]
        gaps = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
        return self.lines[int(gaps.argmax())] if gaps.any() else None

    def column(self, name: str, what: str) -> np.ndarray:
        """A column.

        Args:
            name: Its name.
            what: What it is needed for, as in "parameter 'x' of the model".

        Raises:
            UserError: If there is none, with the closest name.
        """
        if name not in self.columns:
            close = nearest(name, self.columns)
            raise UserError(
                f"{self.name} has no column {name!r}{close}, needed for {what}; it has {listed(self.columns)}."
            )
        return self.columns[name]

    def numbers(self, name: str, what: str) -> np.ndarray:
        """A column of numbers or truth values.

        Raises:
            UserError: If it is missing or text, with the first cell that is no number.
        """
        values = self.column(name, what)
        if values.dtype.kind == "U":
            raise UserError(
                f"{self.name}: column {name!r}, needed as numbers for {what}, holds text: {self.texts[name]}."
            )
        return values


def read_table(path: Any) -> Table:
    """Read a CSV file (or a TSV file, by its name) with a header.

    Raises:
        UserError: If it cannot be read, is empty, names a column twice or has rows of different lengths.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text: {error}.") from None
    return parse(text, str(path), "\t" if path.suffix.lower() in (".tsv", ".tab") else ",")


def parse(text: str, name: str = "the table", delimiter: str = ",") -> Table:
    r"""The table of a CSV text; see ``read_table``.

    Example:
        >>> table = parse("who,x\nann,1\nbob,\n")
        >>> table.columns["x"].tolist(), table.columns["who"].tolist()
        ([1.0, nan], ['ann', 'bob'])
    """
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if row:
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: {error}.") from None
    if len(rows) < 2:
        raise UserError(f"{name} needs a line of column names and at least one row of values.")
    header = rows[0]
    for i, title in enumerate(header):
        if not title:
            raise UserError(f"{name}: column {i + 1} has no name in the first line.")
        if title in header[:i]:
            raise UserError(f"{name} has two columns named {title!r}.")
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(header):
            raise UserError(f"{name}, line {line}: {len(row)} cells, but there are {len(header)} columns.")
    columns, texts = {}, {}
    for title, cells in zip(header, zip(*rows[1:], strict=True), strict=True):
        values, why = _column(cells, lines[1:])
        columns[title] = values
        if why:
            texts[title] = why
    return Table(name, columns, texts, lines[1:])


def _column(cells: Sequence[str], lines: Sequence[int]) -> tuple[np.ndarray, str]:
    """The values of a column, and why it is text if it is."""
    gaps = [cell in GAPS for cell in cells]
    known = [cell for cell, gap in zip(cells, gaps, strict=True) if not gap]
    if known and all(cell.lower() in TRUTH for cell in known) and not any(gaps):
        return np.array([TRUTH[cell.lower()] for cell in cells]), ""
    for cell, gap, line in zip(cells, gaps, lines, strict=True):
        if not gap and (why := _no_number(cell)):
            return np.array(cells, dtype=str), f"{cell!r} on line {line} {why}"
    if known and not any(gaps) and all(WHOLE.fullmatch(cell) for cell in cells):
        return np.array([int(cell) for cell in cells], dtype=np.int64), ""
    return np.array([np.nan if gap else float(cell) for cell, gap in zip(cells, gaps, strict=True)]), ""


def _no_number(cell: str) -> str:
    if WHOLE.fullmatch(cell):
        return "" if -BITS <= int(cell) < BITS else "is a whole number of more than 64 bits"
    if NUMBER.fullmatch(cell):
        return ""
    return "begins with a zero, as labels do" if re.fullmatch(r"[+-]?0\d+", cell) else "is not a number"
