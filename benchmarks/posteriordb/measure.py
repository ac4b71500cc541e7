"""Errors and diagnostics of one fit against reference draws, and the rule that a posterior passes by.

    |mean - reference mean| <= 0.1 reference sd        0.9 <= sd / reference sd <= 1.1        R-hat <= 1.01

for every scalar; where the reference's variance is infinite, its 5, 50 and 95% quantiles within four Monte
Carlo standard errors (ours and the reference's combined) take the place of the moments. R-hat is the
rank-normalised one (Vehtari, Gelman, Simpson, Carpenter and Bürkner, 2021).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl.inference import diagnostics

from .pack import Draws

MEAN_LIMIT, SD_LIMIT, RHAT_LIMIT, QUANTILE_LIMIT = 0.1, 0.1, 1.01, 4.0


def quantile_error(ours: np.ndarray, reference: np.ndarray) -> float:
    """Worst difference of the 5, 50 and 95% quantiles in combined Monte Carlo standard errors."""
    errors = []
    for prob in (0.05, 0.5, 0.95):
        scale = np.hypot(diagnostics.mcse_quantile(ours, prob), diagnostics.mcse_quantile(reference, prob))
        errors.append(abs(np.quantile(ours, prob) - np.quantile(reference, prob)) / scale)
    return float(max(errors))


def diagnose(draws: Draws) -> dict[str, Any]:
    """Largest rank-normalised R-hat, smallest bulk and tail ESS over all scalars, each (chains, draws)."""
    stacked = np.stack(list(draws.values()), axis=-1)
    varying = stacked.reshape(-1, stacked.shape[-1]).std(axis=0) > 0
    stacked = stacked[..., varying]
    return {
        "rhat": float(np.max(diagnostics.rhat_rank(stacked))),
        "ess_bulk": float(np.min(diagnostics.ess_bulk(stacked))),
        "ess_tail": float(np.min(diagnostics.ess_tail(stacked))),
        "chains": int(stacked.shape[0]),
        "draws": int(stacked.shape[1]),
    }


def compare(draws: Draws, reference: Draws) -> dict[str, Any]:
    """Worst error in the mean (in reference sd) and worst ratio of standard deviations, with their scalars.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(4, 1000))
        >>> round(compare({"b": x + 0.5}, {"b": x})["mean_error"], 2)
        0.5
    """
    errors, ratios = {}, {}
    for name, values in reference.items():
        ours, sd = draws[name], values.std(ddof=1)
        errors[name] = abs(ours.mean() - values.mean()) / sd
        ratios[name] = ours.std(ddof=1) / sd
    worst = max(errors, key=errors.__getitem__)
    extreme = max(ratios, key=lambda name: abs(ratios[name] - 1.0))
    return {
        "mean_error": float(errors[worst]),
        "mean_error_at": worst,
        "sd_ratio": float(ratios[extreme]),
        "sd_ratio_at": extreme,
    }


def judge(draws: Draws, reference: Draws | None, heavy_tailed: bool = False) -> dict[str, Any]:
    """All figures of one run and whether it passes; without a reference only R-hat is judged."""
    row = diagnose(draws)
    right = True
    if reference is not None:
        row |= compare(draws, reference)
        right = row["mean_error"] <= MEAN_LIMIT and abs(row["sd_ratio"] - 1.0) <= SD_LIMIT
    if reference is not None and heavy_tailed:
        row["quantile_error"] = max(quantile_error(draws[name], value) for name, value in reference.items())
        right = row["quantile_error"] <= QUANTILE_LIMIT
    row["pass"] = bool(right and row["rhat"] <= RHAT_LIMIT)
    return row
