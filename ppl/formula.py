"""Formulas: a regression, with or without groups, from one line and a table.

    y ~ 1 + x + (1 + x | g)

    g(E y) = a + x b + u_0[g] + x u_1[g],    u[g] ~ N(0, D L L' D),   D = diag(sd)

The result is an ordinary program, whose text can be printed, copied and edited. Group effects are written
non-centred, u[g] = D L z[g] with z ~ N(0, 1), and columns are centred at their means.

References: Wilkinson and Rogers (1973), Symbolic description of factorial models; Bates, Maechler, Bolker and Walker
(2015), Fitting linear mixed-effects models using lme4 (the bars); Papaspiliopoulos, Roberts and Skold (2007) for the
parameterisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._later import later
from .errors import ModelError, at, user_line
from .program import Program

if TYPE_CHECKING:
    from . import formula_design as designs
    from . import formula_families as families
    from . import formula_priors as own_priors
    from . import formula_source as sources
    from . import formula_text as texts
else:
    designs = later("ppl.formula_design")
    families = later("ppl.formula_families")
    own_priors = later("ppl.formula_priors")
    sources = later("ppl.formula_source")
    texts = later("ppl.formula_text")


def formula(
    text: str | None = None,
    data: Any = None,
    *,
    family: str = "gaussian",
    link: str | None = None,
    priors: Any = "weak",
    trials: Any = None,
    offset: str | None = None,
    missing: str = "error",
    functions: Mapping[str, Any] | None = None,
    like: Any = None,
) -> Program:
    """Make a program from a formula and a table, conditioned on the response.

    Sites: ``Intercept`` and ``b`` (dimension ``coefficient``), and for a group term by ``g`` the standard deviations
    ``g_sd``, the correlations ``g_correlation`` and the effects ``g_offset`` by label of the group.

    Args:
        text: Such as ``"y ~ 1 + x + (1 + x | g)"``. Left of the tilde a column or a transformation of one; right of
            it what formulaic reads, and group terms ``(1 | g)``, ``(x | g)``, ``(0 + x | g)``, ``(x || g)`` (without
            correlation), ``(1 | a:b)``, ``(1 | a/b)``.
        data: A frame of pandas, polars or pyarrow, or a dict of columns. Booleans count 0 and 1.
        family: ``gaussian``, ``student_t``, ``bernoulli``, ``binomial``, ``poisson``, ``negativebinomial``, ``gamma``.
        link: ``identity``, ``log``, ``logit``, ``probit`` or ``cloglog``, where the family has it.
        priors: ``"weak"`` (see ``ppl.formula_priors``), ``"flat"`` (flat on coefficients and on all scales), or a
            mapping from sites and coefficients to distributions that replaces some of the weak ones.
        trials: Of a binomial response: a column, or the number.
        offset: A column that is added to the linear predictor.
        missing: ``"error"``, or ``"drop"`` to leave out, with a warning, rows that lack a value.
        functions: Functions that the formula may call, by name, beside those of formulaic and ``np``.
        like: A program made by ``formula``, or its fit: the table is coded as its table was (categories, means of
            ``center``, bases of ``poly``; labels of new groups are appended), for ``fit.predict``. The program records
            the mean of the response too, and is conditioned if the table has the response.

    Returns:
        The program. ``ppl.formula.source(program)`` is its text, ``ppl.formula.new(program, data)`` the same with
        other data.

    Raises:
        ModelError: The formula cannot be read, or the data do not fit it.
        ImportError: formulaic is not installed.

    Example:
        >>> data = {"y": [1.0, 2.0, 2.5, 4.5], "x": [0.0, 1.0, 2.0, 3.0], "g": ["a", "a", "b", "b"]}
        >>> program = formula("y ~ x + (1 | g)", data)
        >>> list(program.sites)
        ['level', 'b', 'Intercept', 'g_sd', 'g_z', 'g_offset', 'sigma', 'y']
        >>> formula.new(program, {"x": [5.0], "g": ["c"]}).coords["g"].tolist()
        ['a', 'b', 'c']
    """
    if data is None:
        raise ModelError(f"ppl.formula needs a table: ppl.formula('y ~ x', data=frame):\n{at(user_line())}")
    if like is not None:
        return _like(text, data, like, missing, trials)
    if text is None:
        raise ModelError(f"ppl.formula needs a formula, such as 'y ~ x':\n{at(user_line())}")
    kind, link = families.choose(family, link)
    if (trials is None) == (kind.name == "binomial"):
        wanted = "needs trials=, a column or a number" if trials is None else "has no trials"
        raise ModelError(f"the {kind.name} family {wanted}:\n{at(user_line())}")
    design, arrays = designs.learn(texts.parse(text), data, missing, trials, offset, functions)
    source = sources.write(design, kind, link)
    chosen = own_priors.priors_for(design, arrays, kind, link, priors)
    model = sources.FormulaModel(source, design, kind.name, link, chosen)
    means = arrays.X.mean(axis=0)
    return _bind(model, arrays, means, False)


def _bind(model: sources.FormulaModel, arrays: designs.Matrices, means: Any, mean: bool) -> Program:
    """Call the model on its data; condition on the response where there is one."""
    design = model.design
    data: dict[str, Any] = {"X": arrays.X, "means": means, "codes": arrays.codes, "Z": arrays.Z}
    data |= {name: value for name in ("trials", "offset") if (value := getattr(arrays, name)) is not None}
    labels = {"coefficient": design.coefficients, **design.levels}
    for block in design.blocks:
        if len(block.effects) > 1:
            labels[f"{block.name}_effect"] = block.effects
            pairs = zip(*np.tril_indices(len(block.effects), -1), strict=True)
            labels[f"{block.name}_pair"] = tuple(f"{block.effects[j]}, {block.effects[i]}" for i, j in pairs)
    program = model(data, model.prior, labels, mean=mean)
    if arrays.response is None:
        return program
    return program.condition({sources.response_name(design): arrays.response})


def _like(text: str | None, data: Any, like: Any, missing: str, trials: Any) -> Program:
    """A program for other data, coded as those of ``like``."""
    old = getattr(like, "program", like)
    model = getattr(old, "model", None)
    if not isinstance(model, sources.FormulaModel):
        raise ModelError(f"like= is {like!r}, which was not made by ppl.formula:\n{at(user_line())}")
    if text is not None and " ".join(text.split()) != model.design.parsed.text:
        raise ModelError(f"the formula {text!r} is not that of like=, {model.design.parsed.text!r}:\n{at(user_line())}")
    design, arrays = designs.apply(model.design, data, missing, trials)
    again = sources.FormulaModel(model.source, design, model.family, model.link, model.prior)
    return _bind(again, arrays, np.asarray(old.inputs["data"]["means"]), True)


def source(program: Program) -> str:
    """The text of a formula's model with its priors, to be copied and edited.

    Args:
        program: A program made by ``ppl.formula``.

    Example:
        >>> text = source(formula("y ~ x", {"y": [1.0, 2.0, 4.0], "x": [0.0, 1.0, 2.0]}))
        >>> 'ppl.sample("b", prior["b"]' in text
        True
    """
    return sources.listing(program)


def new(program: Any, data: Any, missing: str = "error", trials: Any = None) -> Program:
    """The program of a formula for other data, coded as the first; ``ppl.formula(data=data, like=program)``.

    Args:
        program: A program made by ``ppl.formula``, or its fit.
        data: A table with the columns that the formula reads; the response may be absent.
        missing: As for ``ppl.formula``.
        trials: Trials of the new rows, where they are no column.
    """
    return formula(None, data, like=program, missing=missing, trials=trials)


formula.source = source  # type: ignore[attr-defined]
formula.new = new  # type: ignore[attr-defined]


def of_matrix(X: np.ndarray, y: Any, names: tuple[str, ...], family: str, link: str | None, priors: Any) -> Program:
    """The program of ``y ~ 1 + every column`` for a matrix: no formula is read, constant columns keep their priors.

    Args:
        X: Columns, shape (rows, columns).
        y: Response, shape (rows,).
        names: Names of the columns.
        family: As for ``ppl.formula``.
        link: Likewise.
        priors: Likewise.

    Example:
        >>> of_matrix(np.eye(3), np.arange(3.0), ("a", "b", "c"), "gaussian", None, "weak").sites["b"].shape
        (3,)
    """
    kind, link = families.choose(family, link)
    parsed = texts.parse("y ~ 1")
    design = designs.Design(parsed, None, names, True, {}, (), {})
    arrays = designs.Matrices(np.asarray(X, float), {}, {}, np.asarray(y), None, None)
    prior = own_priors.priors_for(design, arrays, kind, link, priors, checked=False)
    model = sources.FormulaModel(sources.write(design, kind, link), design, kind.name, link, prior)
    return _bind(model, arrays, X.mean(axis=0), False)
