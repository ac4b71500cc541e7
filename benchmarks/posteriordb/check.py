"""Is a density the one that the reference draws come from? Two identities, no sampler.

With u the unconstrained coordinates and g(u) the gradient of the log density, integration by parts gives

    E[g] = 0        and        E[(u - E u) g'] = -I.

Both expectations are taken over the reference draws. After whitening by the draws' covariance every entry
has a z-score; with c entries their maximum is about sqrt(2 log c). Heavy-tailed entries (kurtosis above
20) inflate it. The test has power against wrong scales, missing Jacobians and dropped observations.

Reference: Gorham and Mackey (2015), "Measuring sample quality with Stein's method".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from .pack import Draws, assemble

Latents = Callable[[Mapping[str, Any], Draws], Draws]


def _schools(data: Mapping[str, Any], draws: Draws) -> Draws:
    return {**draws, "t": (draws["theta"] - draws["mu"][..., None]) / draws["tau"][..., None]}


def _garch(data: Mapping[str, Any], draws: Draws) -> Draws:
    rest = 1.0 - draws["alpha1"] - draws["beta1"]
    return {**draws, "weights": np.stack([draws["alpha1"], draws["beta1"], rest], axis=-1)}


def _process(data: Mapping[str, Any], draws: Draws) -> Draws:
    x = np.asarray(data["x"], dtype=float)
    squares = (x[:, None] - x[None, :]) ** 2
    alpha, rho = draws["alpha"][..., None, None], draws["rho"][..., None, None]
    covariance = alpha**2 * np.exp(-0.5 * squares / rho**2) + 1e-10 * np.eye(len(x))
    return {**draws, "z": np.linalg.solve(np.linalg.cholesky(covariance), draws["f"][..., None])[..., 0]}


# Where the reference stores derived quantities instead of the latents.
LATENTS: dict[str, Latents] = {
    "eight_schools-eight_schools_noncentered": _schools,
    "garch-garch11": _garch,
    "gp_pois_regr-gp_pois_regr": _process,
}


def unconstrained(name: str, density: Any, data: Mapping[str, Any], reference: Draws) -> np.ndarray:
    """Reference draws as unconstrained positions, shape (draws, d)."""
    draws = LATENTS.get(name, lambda _, values: values)(data, assemble(reference))
    flat = {key: value.reshape(-1, *value.shape[2:]) for key, value in draws.items() if key in density.layout}
    return np.asarray(jax.jit(jax.vmap(type(density).unconstrain, (None, 0)))(density, flat))


def score_identities(u: np.ndarray, g: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Largest |z| of the two identities, and the whitened second moment E[w g_w'] (ideally -I).

    Args:
        u: Draws of the unconstrained coordinates, shape (n, d).
        g: Gradients of the log density there, shape (n, d).

    Example:
        >>> u = np.random.default_rng(0).normal(size=(4000, 2)) * [1.0, 50.0]
        >>> first, second, _ = score_identities(u, -u / [1.0, 2500.0])
        >>> first < 4 and second < 4
        True
        >>> score_identities(u, -1.2 * u / [1.0, 2500.0])[1] > 4       # a scale that is 10% off
        True
    """
    n = len(u)
    centred = u - u.mean(axis=0)
    L = np.linalg.cholesky(np.cov(centred, rowvar=False).reshape(u.shape[1], -1))
    w, s = np.linalg.solve(L, centred.T).T, g @ L
    first = s.mean(axis=0) / (s.std(axis=0) / np.sqrt(n))
    products = w[:, :, None] * s[:, None, :]
    mean = products.mean(axis=0)
    second = (mean + np.eye(mean.shape[0])) / (products.std(axis=0) / np.sqrt(n))
    return float(np.abs(first).max()), float(np.abs(second).max()), mean


def check_density(name: str, program: Any, data: Mapping[str, Any], reference: Draws) -> dict[str, Any]:
    """Score identities of a program's density under reference draws, as a row for the table."""
    import ppl

    with jax.enable_x64(True):
        density = ppl.compile(program)
        u = unconstrained(name, density, data, reference)
        g = np.asarray(jax.jit(jax.vmap(jax.grad(lambda d, z: d(z), 1), (None, 0)))(density, u))
    finite = np.isfinite(u).all(axis=1) & np.isfinite(g).all(axis=1)
    first, second, _ = score_identities(u[finite], g[finite])
    return {
        "posterior": name,
        "score_z": first,
        "matrix_z": second,
        "cells": u.shape[1] ** 2,
        "dropped": int((~finite).sum()),
        "pass": bool(first < 4.0 and second < 4.5 and finite.mean() > 0.999),
    }
