"""Design matrices of a formula, and what new data need to be coded as the old ones were.

formulaic evaluates terms and keeps what transformations have learned (the mean in ``center``, the basis of ``poly``,
the categories of a factor); names of groups are kept here. Rows of ``X`` are observations, its columns coefficients;
the intercept has no column.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import frames
from .coding import index
from .errors import ModelError, at, suggest, user_line
from .formula_text import GroupTerm, Parsed, names_in

INTERCEPT = "Intercept"
MISSING = ("error", "drop")


@dataclass(frozen=True, eq=False)
class Block:
    """Effects that vary by group.

    Attributes:
        term: The term in bars.
        name: Prefix of its sites, and of its dims.
        plate: Name of the groups' dimension.
        spec: What formulaic needs to build ``Z`` from new data.
        effects: Names of the columns of ``Z``.
    """

    term: GroupTerm
    name: str
    plate: str
    spec: Any
    effects: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Design:
    """What was learned from the data of a formula.

    Attributes:
        parsed: The formula.
        spec: What formulaic needs to build ``X`` from new data.
        coefficients: Names of the columns of ``X``.
        intercept: Whether there is an intercept.
        categories: Categories of the text columns that were read.
        blocks: The group terms.
        levels: Labels of the groups, by plate.
        trials: Name of the column of trials, or the number of them.
        offset: Name of the column that is added to the linear predictor.
        functions: Functions that the formula may call.
        dropped: Number of rows left out because a value was missing.
    """

    parsed: Parsed
    spec: Any
    coefficients: tuple[str, ...]
    intercept: bool
    categories: dict[str, tuple[Any, ...]]
    blocks: tuple[Block, ...]
    levels: dict[str, tuple[Any, ...]]
    trials: Any = None
    offset: str | None = None
    functions: Mapping[str, Any] | None = None
    dropped: int = 0


@dataclass(frozen=True)
class Matrices:
    """Arrays of one data set.

    Attributes:
        X: Common effects, (rows, coefficients).
        codes: Group of each row, by plate.
        Z: Group effects by block, (rows, effects).
        response: The response, or None where the data have none.
        trials: Number of trials, or None.
        offset: Offset, or None.
    """

    X: np.ndarray
    codes: dict[str, np.ndarray]
    Z: dict[str, np.ndarray]
    response: np.ndarray | None
    trials: np.ndarray | None
    offset: np.ndarray | None


def learn(parsed: Parsed, data: Any, missing: str, trials: Any, offset: str | None, functions: Any) -> Any:
    """Build the design of new text and its first data.

    Returns:
        ``(design, matrices)``.
    """
    empty = Design(parsed, None, (), True, {}, (), {}, trials, offset, functions)
    name = parsed.response.strip("`")
    columns, rows, dropped = _complete(empty, data, missing, response=True)
    if name in columns and name in _right(empty):
        raise ModelError(f"the response {name!r} stands right of the tilde too:\n{at(user_line())}")
    table, categories = _table(empty, columns, rows)
    X, spec = _matrix(empty, parsed.common, table, None)
    names = tuple(spec.column_names)
    intercept = INTERCEPT in names
    empty = replace(empty, spec=spec, categories=categories, dropped=dropped, intercept=intercept)
    blocks: list[Block] = []
    for term in parsed.groups:
        plate = ":".join(term.factors)
        _, effects = _matrix(empty, term.effects, table, None)
        taken = [block.name for block in blocks]
        name = next(n for n in [plate, *(f"{plate}_{i}" for i in range(2, 99))] if n not in taken)
        blocks.append(Block(term, name, plate, effects, tuple(effects.column_names)))
    design = replace(empty, blocks=tuple(blocks), coefficients=tuple(n for n in names if n != INTERCEPT))
    return _matrices(design, columns, table, True)


def apply(design: Design, data: Any, missing: str, trials: Any = None) -> Any:
    """Build the matrices of other data as those of the first; labels of new groups are appended.

    Returns:
        ``(design, matrices)``, the design with the new labels.
    """
    design = design if trials is None else replace(design, trials=trials)
    columns, rows, dropped = _complete(design, data, missing, response=False)
    table, _ = _table(design, columns, rows)
    return _matrices(replace(design, dropped=dropped), columns, table, False)


def _matrices(design: Design, columns: dict[str, frames.Column], table: Any, needed: bool) -> tuple[Design, Matrices]:
    X, spec = _matrix(design, design.parsed.common, table, design.spec)
    keep = [i for i, name in enumerate(spec.column_names) if name != INTERCEPT]
    codes, levels = {}, dict(design.levels)
    for block in design.blocks:
        if block.plate not in codes:
            values, order = _groups(block.term.factors, columns)
            codes[block.plate], labels = index(values, levels.get(block.plate, order))
            levels[block.plate] = tuple(labels.tolist())
    Z = {block.name: _matrix(design, block.term.effects, table, block.spec)[0] for block in design.blocks}
    size = len(X)
    trials = None if design.trials is None else _counts(design.trials, columns, size)
    offset = None if design.offset is None else _numeric(design.offset, columns, "offset=")
    response = _response(design, columns, table, needed)
    if response is not None:
        _check_response(design, response, trials)
    return replace(design, levels=levels), Matrices(X[:, keep], codes, Z, response, trials, offset)


def used(design: Design) -> set[str]:
    """Names in the formula that could be columns."""
    parsed = design.parsed
    extra = {name for name in (design.offset, design.trials) if isinstance(name, str)}
    return names_in(parsed.text) | extra


def _complete(design: Design, data: Any, missing: str, response: bool) -> tuple[dict[str, Any], int, int]:
    """The columns that the formula reads, without the rows in which one has no value; rows kept and dropped."""
    if missing not in MISSING:
        raise ModelError(f"missing={missing!r} is neither 'error' nor 'drop':\n{at(user_line())}")
    columns = frames.read(data, "the table", used(design))
    rows = len(next(iter(columns.values())).values)
    read = used(design) if response else used(design) - (names_in(design.parsed.response) - _right(design))
    found = {name: column for name, column in columns.items() if name in used(design)}
    bad = {name: column.missing for name, column in found.items() if name in read}
    gone = np.any(list(bad.values()), axis=0) if bad else np.zeros(0, bool)
    if gone.any() and missing == "error":
        name = next(name for name, mask in bad.items() if mask.any())
        column, mask = columns[name], bad[name]
        raise ModelError(
            f"column {name!r} has no value in {column.row(int(np.argmax(mask)))} ({int(gone.sum())} of {len(gone)} "
            f"rows lack a value that the formula reads):\n{at(user_line())}\n"
            "  Fill them in, or leave these rows out with   ppl.formula(..., missing='drop')."
        )
    if gone.all() and len(gone):
        raise ModelError(f"every row lacks a value that the formula reads:\n{at(user_line())}")
    if gone.any():
        warnings.warn(
            f"ppl.formula: {int(gone.sum())} of {len(gone)} rows were dropped, which lack a value that the formula "
            f"reads ({', '.join(f'{name}: {int(mask.sum())}' for name, mask in bad.items() if mask.any())})",
            stacklevel=5,
        )
        found = {
            name: replace(
                column,
                values=column.values[~gone],
                missing=column.missing[~gone],
                index=None if column.index is None else [v for v, no in zip(column.index, gone, strict=True) if not no],
            )
            for name, column in found.items()
        }
    return found, rows - int(gone.sum()), int(gone.sum())


def _right(design: Design) -> set[str]:
    extra = {name for name in (design.offset, design.trials) if isinstance(name, str)}
    return names_in(design.parsed.text.partition("~")[2]) | extra


def _table(design: Design, columns: dict[str, frames.Column], rows: int) -> tuple[Any, dict[str, tuple[Any, ...]]]:
    """The columns as formulaic wants them, and the categories of text columns."""
    import pandas as pd

    categories, built = dict(design.categories), {}
    for name, column in columns.items():
        if column.kind == "number":
            built[name] = column.values if column.values.dtype.kind in "iu" else column.values.astype(float)
            continue
        if column.kind != "label":
            built[name] = column.values
            continue
        if name not in categories:
            present = set(column.values.tolist())
            order = column.categories if column.categories is not None else sorted(present)
            categories[name] = tuple(v for v in order if v in present)
            if name in names_in(design.parsed.common) and 2 < len(present) == rows:
                raise ModelError(
                    f"column {name!r} holds text, another one in each of the {rows} rows, such as "
                    f"{categories[name][0]!r}: no common effect can be learned:\n{at(user_line())}\n"
                    f"  If these are numbers, bring them to floats; effects by group are written (1 | {name})."
                )
        elif name in names_in(design.parsed.common) | names_in(" ".join(b.term.effects for b in design.blocks)):
            unknown = [i for i, v in enumerate(column.values.tolist()) if v not in set(categories[name])]
            if unknown:
                shown = column.values.tolist()[unknown[0]]
                raise ModelError(
                    f"column {name!r} is {shown!r} in {column.row(unknown[0])}, which the data of the fit do not have "
                    f"(they have {', '.join(map(repr, categories[name][:8]))}):\n"
                    f"{at(user_line())}\n  A common effect of an unseen category is not known; a group term "
                    f"(1 | {name}) draws it from its population."
                )
        present = set(categories[name])
        known = [v if v in present else None for v in column.values.tolist()]
        built[name] = pd.Categorical(known, categories=list(categories[name]))
    return pd.DataFrame(built, index=range(rows)), categories


def _matrix(design: Design, text: str, table: Any, spec: Any) -> tuple[np.ndarray, Any]:
    """A design matrix by formulaic, and what it has learned."""
    try:
        from formulaic import Formula
        from formulaic.errors import DataMismatchWarning, FormulaicError
    except ImportError:
        raise ImportError("ppl.formula needs formulaic: pip install 'ppl-jax[formula]'") from None
    context = {"np": np, **(design.functions or {})}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", DataMismatchWarning)
        try:
            maker = Formula(text) if spec is None else spec
            found = maker.get_model_matrix(table, context=context, na_action="ignore", output="numpy")
        except (FormulaicError, DataMismatchWarning, SyntaxError, ValueError, TypeError) as error:
            cause = error.__cause__ or error
            told = re.sub(r"\x1b\[[0-9;]*m|[⧛⧚]", "", " ".join(str(error).split()))
            hint = next((suggest(n, table.columns) for n in names_in(text) if f"`{n}` is not present" in told), "")
            days = [n for n in names_in(text) if n in table and table[n].dtype.kind == "M"]
            hint += f" Column {days[0]!r} holds dates; pass a number, such as days since the first." if days else ""
            raise ModelError(
                f"the terms {text!r} cannot be computed: {told or cause}{hint.replace('The model has', 'There are')}"
                f"\n{at(user_line())}"
            ) from error
    values = np.asarray(found, float)
    values = values.reshape(len(table), -1)
    names = list(found.model_spec.column_names)
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = np.unravel_index(int(np.argmax(bad)), bad.shape)
        raise ModelError(
            f"the term {names[int(column)]!r} is {values[row, column]} in row {int(row)} ({int(bad.sum())} values):"
            f"\n{at(user_line())}\n  Look for a logarithm of zero or a division by it."
        )
    return values, found.model_spec


def _groups(factors: tuple[str, ...], columns: dict[str, frames.Column]) -> tuple[Any, list[Any] | None]:
    """The group of every row (the value of one column, or several joined by a colon), and the order of categories."""
    for name in factors:
        if name not in columns:
            raise ModelError(f"the table has no column {name!r} to group by:\n{at(user_line())}")
    if len(factors) > 1:
        parts = [_whole(columns[name].values).tolist() for name in factors]
        return [":".join(map(str, row)) for row in zip(*parts, strict=True)], None
    column = columns[factors[0]]
    if column.categories is not None:
        present = set(column.values.tolist())
        return column.values.tolist(), [v for v in column.categories if v in present]
    return _whole(column.values) if column.values.dtype != object else column.values.tolist(), None


def _whole(values: np.ndarray) -> np.ndarray:
    """Group numbers as integers, also where gaps in the column made doubles of them."""
    whole = values.dtype.kind == "f" and (values == np.round(values)).all() and np.abs(values).max() < frames.EXACT
    return values.astype(np.int64) if whole else values


def _check_response(design: Design, response: np.ndarray, trials: np.ndarray | None) -> None:
    name = design.parsed.response
    values = np.asarray(response, float)
    bad = ~(np.abs(values) < 1e100)
    if bad.any():
        row = int(np.argmax(bad))
        raise ModelError(f"the response {name!r} is {response[row]} in row {row}:\n{at(user_line())}")
    if trials is None:
        return
    bad = (trials < 0) | (trials != np.round(trials)) | (values > trials)
    if bad.any():
        row = int(np.argmax(bad))
        raise ModelError(
            f"the response {name!r} is {values[row]:g} of {trials[row]:g} trials in row {row}:\n{at(user_line())}"
        )


def _counts(trials: Any, columns: dict[str, frames.Column], size: int) -> np.ndarray:
    if isinstance(trials, str):
        return _numeric(trials, columns, "trials=")
    values = np.full(size, trials, float) if np.ndim(trials) == 0 else np.asarray(trials, float)
    if values.shape != (size,):
        raise ModelError(f"trials= has shape {values.shape}, but there are {size} rows:\n{at(user_line())}")
    return values


def _numeric(name: str, columns: dict[str, frames.Column], what: str) -> np.ndarray:
    if name not in columns:
        raise ModelError(f"{what}{name!r} is no column of the table:\n{at(user_line())}")
    column = columns[name]
    if column.kind != "number":
        raise ModelError(f"{frames.complaint(column, f'column {name!r}')}\n{at(user_line())}")
    return column.values.astype(float)


def _response(design: Design, columns: dict[str, frames.Column], table: Any, needed: bool) -> np.ndarray | None:
    """The response; None where new data do not have it in every row."""
    text = design.parsed.response
    column = columns.get(text.strip("`"))
    if column is not None:
        if column.kind != "number":
            raise ModelError(f"the response: {frames.complaint(column, f'column {text!r}')}\n{at(user_line())}")
        return None if column.missing.any() else column.values
    if not needed:
        return None
    values, _ = _matrix(design, f"0 + {text}", table, None)
    if values.shape[1] != 1:
        raise ModelError(f"the response {text!r} has {values.shape[1]} columns, not one:\n{at(user_line())}")
    return values[:, 0]
