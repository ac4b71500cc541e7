"""The posteriors, written in the language: ``PROGRAMS[name](data)`` returns a conditioned program.

Names of latents and records equal those of the reference draws, so ``beta`` of shape (3,) is
``beta[1] .. beta[3]`` there. Notation of the docstrings: N(m, s) has standard deviation s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import hierarchical, latent, linear, mechanistic

PROGRAMS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    **linear.PROGRAMS,
    **hierarchical.PROGRAMS,
    **latent.PROGRAMS,
    **mechanistic.PROGRAMS,
}

# What an applied reader of each posterior without reference draws would look at.
OF_INTEREST: dict[str, tuple[str, ...]] = {
    "radon_mn-radon_hierarchical_intercept_noncentered": (
        "alpha",
        "beta",
        "mu_alpha",
        "sigma_alpha",
        "sigma_y",
    ),
    "wells_data-wells_daae_c_model": ("alpha", "beta"),
    "irt_2pl-irt_2pl": ("sigma_theta", "theta", "sigma_a", "a", "mu_b", "sigma_b", "b"),
    "seeds_data-seeds_model": ("alpha0", "alpha1", "alpha2", "alpha12", "sigma"),
    "bones_data-bones_model": ("theta",),
    "sir-sir": ("beta", "gamma", "xi", "delta"),
    "ovarian-logistic_regression_rhs": ("beta0", "beta"),
    "traffic_accident_nyc-bym2_offset_only": ("beta0", "sigma", "rho"),
}

# Posteriors whose reference variances are infinite: compared by quantiles.
HEAVY_TAILED = frozenset({"one_comp_mm_elim_abs-one_comp_mm_elim_abs"})
