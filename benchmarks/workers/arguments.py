"""Data of the compared posteriors as positional arguments of a model; imports NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Data = Mapping[str, Any]


def _columns(data: Data, *names: str) -> list[np.ndarray]:
    return [np.asarray(data[name], dtype=float) for name in names]


def _mesquite(data: Data) -> tuple:
    names = ("diam1", "diam2", "canopy_height", "total_height", "density")
    weight, group = _columns(data, "weight", "group")
    logs = [np.log(column) for column in _columns(data, *names)]
    return np.stack([np.ones_like(weight), *logs, group], axis=1), np.log(weight)


def _radon(data: Data) -> tuple:
    y, log_uppm, floor = _columns(data, "log_radon", "log_uppm", "floor_measure")
    return np.asarray(data["county_idx"]) - 1, log_uppm, floor, int(data["J"]), y


def _kid(interaction: bool) -> Callable[[Data], tuple]:
    def arguments(data: Data) -> tuple:
        y, hs, iq = _columns(data, "kid_score", "mom_hs", "mom_iq")
        columns = [np.ones_like(y), hs, iq, *([hs * iq] if interaction else [])]
        return np.stack(columns, axis=1), y

    return arguments


def _earnings(data: Data) -> tuple:
    earn, height, male = _columns(data, "earn", "height", "male")
    return np.stack([np.ones_like(earn), height, male], axis=1), np.log(earn)


def _nes(data: Data) -> tuple:
    names = ("partyid7", "real_ideo", "race_adj", "age_discrete", "educ1", "gender", "income")
    y, ideology, race, age, educ, gender, income = _columns(data, *names)
    ages = [(age == k).astype(float) for k in (2, 3, 4)]
    return np.stack([np.ones_like(y), ideology, race, *ages, educ, gender, income], axis=1), y


def _diamonds(data: Data) -> tuple:
    X, y = _columns(data, "X", "Y")
    return X[:, 1:] - X[:, 1:].mean(axis=0), y


def _lags(data: Data) -> tuple:
    (y,), order = _columns(data, "y"), int(data["K"])
    return np.stack([y[order - k : len(y) - k] for k in range(1, order + 1)], axis=1), y[order:]


ARGUMENTS: dict[str, Callable[[Data], tuple]] = {
    "eight_schools-eight_schools_noncentered": lambda d: tuple(_columns(d, "sigma", "y")),
    "radon_mn-radon_hierarchical_intercept_noncentered": _radon,
    "garch-garch11": lambda d: (float(d["sigma1"]), *_columns(d, "y")),
    "mesquite-logmesquite": _mesquite,
    "low_dim_gauss_mix-low_dim_gauss_mix": lambda d: tuple(_columns(d, "y")),
    "kidiq-kidscore_momhsiq": _kid(False),
    "kidiq-kidscore_interaction": _kid(True),
    "earnings-logearn_height_male": _earnings,
    "nes1980-nes": _nes,
    "sblri-blr": lambda d: tuple(_columns(d, "X", "y")),
    "diamonds-diamonds": _diamonds,
    "arK-arK": _lags,
    "gp_pois_regr-gp_pois_regr": lambda d: (_columns(d, "x")[0], np.asarray(d["k"])),
    "hmm_example-hmm_example": lambda d: tuple(_columns(d, "y")),
}
