"""Locations and scales of sites: x = m + s e on the unconstrained scale, where e has a law without parameters.

Where s depends on other latent sites, x and s are dependent however much data there are, and the shape of that
dependence is known from the model alone; ``passes.reparameterize`` makes use of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from .sites import SiteInfo
    from .trace import Frame

INFORMATION = {"Normal": 1.0, "LogNormal": 1.0, "Laplace": 1.0, "StudentT": 0.75, "Cauchy": 0.5, "Logistic": 1 / 3}
"""Fisher information of the standard law about its location; Student's, (n + 1)/(n + 3), at five degrees of freedom."""


def note(frame: Frame, name: str, d: Any, info: SiteInfo) -> None:
    """Keep location and scale of a latent site that has them, in the shape of its unconstrained value.

    Where an element does not exist (padding) the law of its unconstrained value is standard normal.
    """
    alone = name in frame.free and name not in frame.given and info.role is None and not info.branches
    if "location" not in frame.keep or not alone or info.family not in INFORMATION or info.free_shape != info.shape:
        return
    base = d
    while type(base).__name__ in ("ExpandedDistribution", "Independent"):
        base = base.base_dist
    if frame.scale is not None or not hasattr(base, "loc") or not hasattr(base, "scale"):
        return
    if unit(base.loc, 0.0) and unit(base.scale, 1.0):
        frame.put("standard", name, jnp.zeros(()))
        return
    dtype = frame.free[name].dtype
    location, scale = (jnp.asarray(x, dtype) for x in (base.loc, base.scale))
    if frame.on is not None:
        location, scale = jnp.where(frame.on, location, 0.0), jnp.where(frame.on, scale, 1.0)
        frame.put("padded", name, frame.on)
    frame.put("location", name, jnp.broadcast_to(location, info.shape))
    frame.put("scale", name, jnp.broadcast_to(scale, info.shape))


def unit(x: Any, value: float) -> bool:
    """Whether a parameter is known, when a model is traced, to be one number."""
    return not isinstance(x, jax.core.Tracer) and bool(np.all(np.asarray(x) == value))
