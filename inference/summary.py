"""The table of a fit: location, spread, and how far the numbers can be trusted.

Quantiles are those of the draws; the effective sample sizes, R-hat and the Monte Carlo standard error of
the mean are the rank-normalised ones of Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021),
Rank-normalization, folding, and localization. Bayesian Analysis 16(2).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

COLUMNS = ("mean", "sd", "5%", "95%", "mcse_mean", "ess_bulk", "ess_tail", "r_hat")

SHOWN = 60
"""Rows that are printed; the rest is in ``to_dataframe()``."""


@dataclass(frozen=True)
class Summary:
    """A table of numbers with labelled rows.

    Attributes:
        labels: One per row, such as ``theta[Choate]``.
        values: Shape (rows, columns).
        notes: What speaks against the draws.
    """

    labels: tuple[str, ...]
    values: np.ndarray
    notes: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Any:
        """A row as a dict by its label, or a column as an array by its name.

        Example:
            >>> Summary(("mu",), np.arange(8.0)[None])["mu"]["sd"]
            1.0
        """
        if key in COLUMNS:
            return self.values[:, COLUMNS.index(key)]
        if key not in self.labels:
            from ppl import ModelError

            raise ModelError(f"the summary has no row or column {key!r}{nearest(key, (*self.labels, *COLUMNS))}")
        return dict(zip(COLUMNS, map(float, self.values[self.labels.index(key)]), strict=True))

    def to_dataframe(self) -> Any:
        """The whole table as a pandas data frame."""
        import pandas as pd

        return pd.DataFrame(self.values, index=list(self.labels), columns=list(COLUMNS))

    def __str__(self) -> str:
        """The table as text."""
        rows: list[tuple[str, ...]] = [("", *COLUMNS)]
        for label, row in zip(self.labels[:SHOWN], self.values[:SHOWN], strict=True):
            sd, error = row[1], row[4]
            rows.append((label, *(_text(x, column, sd, error) for x, column in zip(row, COLUMNS, strict=True))))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        if len(self.labels) > SHOWN:
            lines.append(
                f"... and {len(self.labels) - SHOWN} more rows; summary(names) chooses, .to_dataframe() has all"
            )
        return "\n".join([*lines, *(f"! {note}" for note in self.notes)])

    __repr__ = __str__


def summarize(fit: Any, names: Iterable[str] | None = None) -> Summary:
    """Summarize the latent sites and records of a fit.

    Raises:
        ppl.ModelError: If a name is unknown.
    """
    from . import diagnostics

    chosen = choose(fit.values, names)
    labels: list[str] = []
    blocks = []
    for name in chosen:
        value = np.asarray(fit.values[name])
        if value.dtype.kind not in "fiub":
            continue
        labels += element_labels(fit, name)
        blocks.append(value.reshape(*value.shape[:2], -1).astype(float))
    if not blocks:
        return Summary((), np.zeros((0, len(COLUMNS))), tuple(fit.warnings()))
    draws = np.concatenate(blocks, axis=2)
    flat = draws.reshape(-1, draws.shape[2])
    with np.errstate(all="ignore"):
        columns = [
            flat.mean(0),
            flat.std(0, ddof=1) if len(flat) > 1 else np.full(flat.shape[1], np.nan),
            *np.quantile(flat, (0.05, 0.95), axis=0),
            diagnostics.mcse_mean(draws),
            diagnostics.ess_bulk(draws),
            diagnostics.ess_tail(draws),
            diagnostics.rhat_rank(draws, fit.draws.info.get("superchains")),
        ]
    return Summary(tuple(labels), np.stack([np.asarray(c, float) for c in columns], axis=1), tuple(fit.warnings()))


def element_labels(fit: Any, name: str) -> list[str]:
    """Labels of the elements of a site: ``theta[Choate]``, or ``theta[0]`` where a dim has no labels."""
    shape = np.shape(fit.values[name])[2:]
    dims: tuple[str, ...] = ()
    coords: dict[str, Any] = {}
    if "posterior" in fit.stored:
        data = fit.stored["posterior"]
        dims = data[name].dims[2:]
        coords = {dim: data.coords[dim].values for dim in dims if dim in data.coords}
    else:
        from . import naming

        dims = naming.dims(fit.program, fit.density).get(name, ())
        coords = naming.coords(fit.program, fit.density)
    axes: list[list[str]] = []
    for axis, size in enumerate(shape):
        labels = coords.get(dims[axis]) if axis < len(dims) else None
        axes.append(
            [str(x) for x in labels] if labels is not None and len(labels) == size else list(map(str, range(size)))
        )
    return [name + (f"[{', '.join(index)}]" if index else "") for index in itertools.product(*axes)]


def dataframe(fit: Any) -> Any:
    """One row per draw: chain, draw, quantities by label, statistics."""
    import pandas as pd

    chains, draws = fit.draws.shape[:2]
    chain, draw = np.divmod(np.arange(chains * draws), draws)
    columns: dict[str, np.ndarray] = {"chain": chain, "draw": draw}
    for name, value in fit.values.items():
        flat = np.asarray(value).reshape(chains * draws, -1)
        columns |= {label: flat[:, i] for i, label in enumerate(element_labels(fit, name))}
    for name, value in fit.draws.stats.items():
        if np.ndim(value) == 2:
            columns[name if name not in columns else f"stat_{name}"] = np.asarray(value).reshape(-1)
    return pd.DataFrame(columns)


def choose(known: Iterable[str], names: Iterable[str] | None) -> list[str]:
    """The wanted names, checked.

    Raises:
        ppl.ModelError: If a name is unknown, with the nearest known one.

    Example:
        >>> choose(["mu", "tau"], "tau")
        ['tau']
    """
    known = list(known)
    if names is None:
        return known
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in known:
            from ppl import ModelError

            raise ModelError(f"unknown site {name!r}{nearest(name, known)}; known are {', '.join(known)}")
    return names


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` if some known name is close.

    Example:
        >>> nearest("thta", ["theta", "mu"])
        " (did you mean 'theta'?)"
    """
    import difflib

    close = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _text(x: float, column: str, sd: float, error: float) -> str:
    if not np.isfinite(x):
        return "-"
    if column.startswith("ess"):
        return f"{x:.0f}"
    if column == "r_hat":
        return f"{x:.3f}"
    if column == "mcse_mean":
        return f"{x:.2g}"
    # No more digits than the Monte Carlo error supports.
    scale = error if np.isfinite(error) and error > 0 else sd
    digits = 3 if not np.isfinite(scale) or scale <= 0 else int(np.clip(-np.floor(np.log10(scale)), 0, 6))
    return f"{x:.{digits}f}" if abs(x) < 1e7 else f"{x:.3g}"
