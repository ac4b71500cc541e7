"""A program from ``model.py:name`` and the columns of a table.

The name may be that of
* a conditioned or unconditioned program, taken as it is;
* a model: each parameter is the column of its name (or the one that ``--column`` says, or a setting of ``--set``);
* a function: it is called with the columns, a dict of arrays, and returns a program. This is the place for anything
  else that data need before they enter a model.

A model that has parameters ``x`` and ``x_labels`` gets integer codes and the list of labels of column x; a text column
can enter a model in no other way.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..summary import nearest
from .errors import UserError, listed
from .table import Table


def load(reference: str) -> tuple[Any, str]:
    """Run a model file and find the object in it.

    Args:
        reference: ``model.py:name``; the name may be left out where the file has one model or program.

    Returns:
        The object and its name.

    Raises:
        UserError: If there is no such file or name, with the closest one.
    """
    file, _, name = reference.rpartition(":") if re.search(r":[^/\\]*$", reference) else (reference, "", "")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"there is no file {file}; a model is given as file.py:name.")
    module = load_file(path)
    found = {n: v for n, v in vars(module).items() if _useful(v) and not n.startswith("_")}
    if not name:
        own = [n for n, v in found.items() if not inspect.isfunction(v)]
        if len(own) != 1:
            raise UserError(f"{file} has the models and programs {listed(own)}; say which: {file}:name.")
        name = own[0]
    if not hasattr(module, name):
        raise UserError(f"{file} has no {name!r}{nearest(name, found)}; it has {listed(found)}.")
    thing = getattr(module, name)
    if not _useful(thing):
        raise UserError(f"{reference} is a {type(thing).__name__}; a model, a program or a function is needed.")
    return thing, name


def load_file(path: Path) -> Any:
    """Run a file as the module of its name, so that a resumed run finds it again."""
    stem = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else f"model_{abs(hash(path)):x}"
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[stem] = module
    spec.loader.exec_module(module)
    return module


def _useful(value: Any) -> bool:
    from ppl import Model, Program

    return isinstance(value, Model | Program) or inspect.isfunction(value)


def build(
    thing: Any,
    name: str,
    table: Table | None,
    columns: Mapping[str, str],
    settings: Mapping[str, Any],
    conditions: Mapping[str, str],
    missing: Mapping[str, str],
) -> tuple[Any, list[str]]:
    """The conditioned program, and what was made of the columns in words.

    Args:
        thing: What ``load`` found.
        name: Its name, for messages.
        table: The data, or None.
        columns: Columns by parameter, where they are not of the same name.
        settings: Values of parameters that are no columns.
        conditions: Columns by site; empty for all columns that are named like a site.
        missing: Policies for gaps by site.

    Raises:
        UserError: If a column, a parameter or a site is not there, with the closest name.
    """
    from ppl import Model, Program

    said: list[str] = []
    used: set[str] = set()
    program = thing
    if isinstance(thing, Model):
        arguments, used = _arguments(thing, name, table, columns, settings, said)
        program = thing(**arguments)
    elif columns or settings:
        raise UserError(
            f"--column and --set fill the parameters of a model, but {name} is a {type(thing).__name__.lower()}."
        )
    elif inspect.isfunction(thing):
        if table is None:
            raise UserError(f"{name} is a function of the table's columns: give the table by --data.")
        program = thing(dict(table.columns))
        used = set(table.columns)
        if not isinstance(program, Program):
            raise UserError(f"{name} returned a {type(program).__name__}; it must return a program, such as model(x).")
    if table is not None:
        program = _condition(program, table, conditions, missing, used, said, inspect.isfunction(thing))
    elif conditions:
        raise UserError("--condition names columns: give the table by --data.")
    return program, said


def _arguments(
    model: Any, name: str, table: Table | None, columns: Mapping[str, str], settings: Mapping[str, Any], said: list[str]
) -> tuple[dict[str, Any], set[str]]:
    parameters = inspect.signature(model.function).parameters
    known = [n for n, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    for flag, given in (("--column", columns), ("--set", settings)):
        for parameter in given:
            if parameter not in known:
                close = nearest(parameter, known)
                raise UserError(f"{flag} {parameter}: {name} has no such parameter{close}; it has {listed(known)}.")
    arguments, used = dict(settings), set()
    for parameter in sorted(known, key=lambda n: n.endswith("_labels")):
        if parameter in arguments:
            continue
        source = columns.get(parameter, parameter)
        what = f"parameter {parameter!r} of {name}"
        there = table is not None and source in table.columns
        if not there and parameters[parameter].default is not inspect.Parameter.empty and parameter not in columns:
            continue
        if table is None:
            raise UserError(f"{what} has no value: give a table by --data, or the value by --set {parameter}=VALUE.")
        if f"{parameter}_labels" in set(known) - set(settings) and table.column(source, what).dtype.kind in "Ui":
            arguments[parameter], arguments[f"{parameter}_labels"] = _codes(table, source)
            said.append(f"{parameter}, {parameter}_labels <- codes and labels of column {source!r}")
        elif table.column(source, what).dtype.kind == "U":
            raise UserError(
                f"{table.name}: column {source!r}, needed for {what}, holds text ({table.texts[source]}). Give the "
                f"model a parameter {parameter}_labels too, and it gets codes and labels; or name a function."
            )
        else:
            arguments[parameter] = table.numbers(source, what)
            said.append(f"{parameter} <- column {source!r}")
        used.add(source)
    return arguments, used


def _codes(table: Table, name: str) -> tuple[np.ndarray, list[str]]:
    from ppl import index

    values = table.columns[name]
    if values.dtype.kind == "U" and (values == "").any():
        row = int(np.flatnonzero(values == "")[0])
        line = table.lines[row]
        raise UserError(f"{table.name}, line {line}: the text column {name!r} is empty there; write a label.")
    codes, labels = index(values)
    return codes, labels.tolist()


def _condition(
    program: Any,
    table: Table,
    conditions: Mapping[str, str],
    missing: Mapping[str, str],
    used: set[str],
    said: list[str],
    whole: bool,
) -> Any:
    """Condition on columns: those of ``conditions``, or else all that are named like a random variable."""
    sites = {n: site for n, site in program.sites.items() if site.kind in ("latent", "observed")}
    for flag, given in (("--condition", conditions), ("--missing", missing)):
        for site in given:
            if site not in sites:
                close = nearest(site, sites)
                raise UserError(f"{flag} {site}: the model has no such random variable{close}; it has {listed(sites)}.")
    chosen = dict(conditions)
    if not chosen and not whole:
        chosen = {name: name for name in table.columns if name in sites and sites[name].kind == "latent"}
    values = {site: table.numbers(column, f"site {site!r}") for site, column in chosen.items()}
    for site, column in chosen.items():
        line = table.gap(column)
        if line is not None and site not in missing:
            raise UserError(
                f"{table.name}, line {line}: column {column!r} has no value there. Say what becomes of the gaps of "
                f"site {site!r}: --missing {site}=marginalize leaves them out of the density, --missing {site}=impute "
                "draws them."
            )
    said += [f"condition {site} <- column {column!r}" for site, column in chosen.items()]
    unused = [name for name in table.columns if name not in used and name not in chosen.values()]
    if unused:
        said.append(f"not used: {listed(unused)}")
    if not values:
        return program
    return program.condition(values, missing=dict(missing)) if missing else program.condition(values)
