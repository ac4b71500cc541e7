"""Preflight: find the bad site, element, value and line before (or after) an engine fails.

Data are checked on the host as soon as they enter. When a start fails, the same model is run once more with every
site's factor, support and parameters kept, and the gradient of each factor, and the first offender is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import missing
from .arguments import as_array
from .errors import ImproperPrior, ModelError, ParameterError, at, user_line
from .sites import SiteInfo

Array = Any


def place_text(info: SiteInfo, place: tuple[int, ...], coords: Mapping[str, Any]) -> list[str]:
    """The axes of an element in words: ``["school=Choate", "2"]``."""
    parts = []
    for axis, i in enumerate(place):
        if axis < len(info.plates):
            name = info.plates[axis][0]
            label = coords[name][i] if name in coords else i
            parts.append(f"{name}={label}")
        else:
            own = axis - len(info.plates)
            parts.append(f"{info.dims[own]}={i}" if info.dims else str(i))
    return parts


def element(info: SiteInfo, place: tuple[int, ...], coords: Mapping[str, Any]) -> str:
    """An element of a site in words: ``y[school=Choate, 2]``."""
    parts = place_text(info, place, coords)
    return f"{info.name}[{', '.join(parts)}]" if parts else info.name


def _first(bad: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape))


def check_shape(info: SiteInfo, value: Any) -> Any:
    """The value as an array, if its shape is exactly the site's."""
    value = as_array(value, f"the value of site {info.name!r}")
    if tuple(np.shape(value)) == info.full_shape:
        return value
    plates = [f"plate {name!r} ({size})" for name, size, _ in info.plates]
    own = [f"own axis {d}" for d in (info.dims or info.shape)]
    raise ModelError(
        f"site {info.name!r} has shape {info.full_shape} ({', '.join(plates + own) or 'a scalar'}), but the value has "
        f"shape {tuple(np.shape(value))}:\n{at(info.source)}\n{at(user_line())}\n"
        "  Data are never broadcast: reshape the value (for (N, 1) data: y[:, 0]), or change the model."
    )


def check_value(
    info: SiteInfo, value: Any, coords: Mapping[str, Any], verb: str, policy: str = "error"
) -> tuple[Any, np.ndarray | None]:
    """Check a value for a site on the host: shape, gaps, and the support where it depends on nothing else.

    Returns:
        The value, and booleans that say which elements are known, or None where all are. Gaps are filled.

    Raises:
        ModelError: Naming site, element, value and lines.
    """
    numbers, known = missing.markers(value)
    value = check_shape(info, numbers)
    if isinstance(value, jax.core.Tracer):
        return value, None
    host = np.asarray(value)
    if known is not None and policy == "error":
        place = _first(~known)
        hint = missing.HINT if verb == "condition" else "."
        raise ModelError(
            f"program.{verb}: {element(info, place, coords)} is {'nan' if host.dtype.kind == 'f' else 'missing'} "
            f"({int((~known).sum())} of {known.size} values are):\n{at(info.source)}\n{at(user_line())}"
            f"\n  Leave these rows out, or fill them in, before conditioning{hint}"
        )
    if known is not None:
        host = missing.filled(info, host, known)
    if info.support is not None:
        ok = np.asarray(info.support(host))
        ok = ok if known is None else ok | ~missing.whole_rows(info, known)
        _check_support(info, host, ok, coords, f"program.{verb}: ")
    _check_width(info, host, coords, verb)
    if info.discrete and np.issubdtype(host.dtype, np.floating):
        host = host.astype(np.int64)
    elif not info.discrete and not np.issubdtype(host.dtype, np.floating):
        host = host.astype(np.float64)
    # what was checked stays as it was, whatever happens to the caller's array
    return (host.copy() if host is value or host.base is not None else host), known


def _check_width(info: SiteInfo, host: np.ndarray, coords: Mapping[str, Any], verb: str) -> None:
    """Refuse counts that a run in single precision would wrap around."""
    if not info.discrete or host.dtype.kind == "b" or not host.size:
        return
    bad = np.abs(host.astype(float)) >= 2**31
    if bad.any():
        place = _first(bad)
        raise ModelError(
            f"program.{verb}: {element(info, place, coords)} = {_show(host[place])} is beyond 32 bits "
            f"({int(bad.sum())} of {bad.size} values are):\n{at(info.source)}\n{at(user_line())}\n"
            "  Single precision would wrap it around. Counts as large as that are as good as continuous: model them, "
            "or their logarithm, as such."
        )


def _check_support(
    info: SiteInfo, value: np.ndarray, ok: np.ndarray, coords: Mapping[str, Any], start: str, support: str = ""
) -> None:
    if bool(np.all(ok)):
        return
    place = _first(~ok)
    shown = value[place]
    raise ModelError(
        f"{start}{element(info, place, coords)} = {_show(shown)} lies outside the support of {info.family}, "
        f"{support or describe(info.support)} ({int((~ok).sum())} of {ok.size} do):\n{at(info.source)}\n"
        f"{at(user_line())}\n  Check the value, or choose a distribution that admits it."
    )


def _show(x: Any) -> str:
    x = np.asarray(x)
    return f"{x.item():.6g}" if x.ndim == 0 else np.array2string(x, precision=4, threshold=8)


def describe(support: Any) -> str:
    """A support in words."""
    name = type(support).__name__.strip("_")
    words = {
        "IntegerNonnegative": "the integers 0, 1, 2, ...",
        "IntegerPositive": "the integers 1, 2, 3, ...",
        "Positive": "the positive numbers",
        "Nonnegative": "the non-negative numbers",
        "Boolean": "{0, 1}",
        "Simplex": "the simplex (non-negative, summing to one)",
        "UnitInterval": "[0, 1]",
        "OpenInterval": "an open interval",
    }
    return words.get(name, str(support).strip())


# ---------------------------------------------------------------------------------------------- at a position


def check(program: Any, density: Any = None, z: Any = None) -> None:
    """Check a program's data and, at a position, every factor and its gradient.

    Args:
        program: The conditioned program.
        density: Its density, when it is at hand.
        z: An unconstrained position; when left out, a draw of standard normals scaled by 1/2, and its negative.

    Raises:
        ModelError: Naming the site, the element, the value, its log density or gradient, and the user's line.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def f():
        ...     mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ...     ppl.sample("y", dist.Normal(mu, 1.0))
        >>> ppl.check(f().condition(y=0.3))
    """
    from .compile import compile

    density = compile(program) if density is None else density
    density = density.full() if hasattr(density, "full") else density
    start = 0.5 * np.random.default_rng(0).standard_normal(density.dim)
    # both signs of every coordinate: a scale that a latent makes negative shows at one of them
    for position in [start, -start] if z is None else [np.asarray(z)]:
        kept = density.diagnose(jnp.asarray(position, jnp.result_type(float)))
        kept = _shown(program, kept)
        learned = program.tidy.sites
        _check_factors(program, kept, learned)
        if getattr(density, "differentiable", True):
            _check_gradient(program, density, position, learned)


def _shown(program: Any, kept: dict) -> dict:
    """What a diagnosis kept as NumPy arrays, those of ragged plates without padding."""

    def show(name: str, tree: Any) -> Any:
        return jax.tree_util.tree_map(lambda x: program.tidy.unpack(name, np.asarray(x)), tree)

    return {channel: {name: show(name, tree) for name, tree in found.items()} for channel, found in kept.items()}


def _check_factors(program: Any, kept: dict, learned: Mapping[str, SiteInfo]) -> None:
    coords = program.coords
    # parents come first, so the first offender in the model's order is the cause
    for name, info in learned.items():
        if info.kind == "record":
            continue
        whole, info = info, program.tidy.scored(name)
        observed = program.role(name) == "observed" and whole is info
        valid = kept["valid"].get(name)
        if valid is not None:
            _check_parameters(program, info, valid["parameters"], kept, coords)
            if observed:
                value = np.broadcast_to(kept["value"][name], info.full_shape)
                ok = np.broadcast_to(valid["support"], info.full_shape[: valid["support"].ndim])
                support = "which depends on other sites or data"
                _check_support(info, value, ok, coords, "", support if info.support is None else "")
        factor = kept["factor"].get(name)
        if factor is None or np.all(np.isfinite(factor)):
            continue
        place = _first(~np.isfinite(factor))
        value = kept["value"].get(name)
        shown = f" = {_show(value[place])}" if value is not None and whole is info else ""
        raise ModelError(
            f"the log density is {_show(factor[place])} at {element(info, place, coords)}{shown} "
            f"({int((~np.isfinite(factor)).sum())} of {factor.size} elements):\n{at(info.source)}\n"
            f"{_context(program, name, kept)}"
        )


def _context(program: Any, name: str, kept: dict) -> str:
    try:
        parents = program.graph().parents[name]
    except (ModelError, KeyError):
        return ""
    shown = [f"{p} = {_show(kept['value'][p])}" for p in sorted(parents) if p in kept["value"]]
    return f"  It was reached with {'; '.join(shown)}." if shown else ""


def _check_parameters(program: Any, info: SiteInfo, parameters: dict, kept: dict, coords: Mapping[str, Any]) -> None:
    depth = len(info.plates)
    for parameter, (value, ok) in parameters.items():
        bad = ~np.asarray(ok)
        if not bad.any():
            continue
        place = _first(bad)
        where = element(info, place[: depth + info.batch], coords)
        shown = value[place]
        word = "is nan" if np.isnan(np.asarray(shown, float)).any() else "is not admissible"
        raise ParameterError(
            f"site {info.name!r}: the parameter {parameter} of {info.family} {word} at {where}: "
            f"{parameter} = {_show(shown)} ({int(bad.sum())} of {bad.size} elements):\n{at(info.source)}\n"
            f"{_context(program, info.name, kept)}\n"
            "  A latent scale or rate needs a positive prior (HalfNormal, LogNormal, Gamma, ...), or a positive "
            "function of it (jnp.exp, jax.nn.softplus)."
        )


def check_parameters(program: Any, density: Any, positions: Any) -> None:
    """Check the parameters of every distribution at positions where the log density is not finite.

    An engine can start elsewhere, but a scale that a latent variable makes negative is a mistake of the model. What
    may be round-off far out in the tails (NaN, zero, infinity) and the side of a branch that is not taken pass.

    Args:
        program: The conditioned program.
        density: Its density.
        positions: Unconstrained positions, shape (n, dim); at most eight are looked at.

    Raises:
        ParameterError: Naming site, element, parameter, value and line.
    """
    for z in np.asarray(positions)[:8]:
        kept = _shown(program, density.diagnose(jnp.asarray(z, jnp.result_type(float))))
        for name, valid in kept["valid"].items():
            info = program.tidy.sites[name]
            found = valid["parameters"].items()
            genuine = {key: (value, np.asarray(ok) | _numerical(value, np.ndim(ok))) for key, (value, ok) in found}
            if not info.branches:
                _check_parameters(program, info, genuine, kept, program.coords)


def _numerical(value: np.ndarray, depth: int) -> np.ndarray:
    odd = ~np.isfinite(value) | (value == 0)
    return odd.any(axis=tuple(range(depth, odd.ndim)))


def _guilty(density: Any, position: Array) -> list[str]:
    """Sites whose own log factor has a gradient that is not finite; each alone, since 0 * nan is nan."""
    found = []
    for name in density.compiled.factor_names:
        gradient = jax.jit(jax.grad(partial(_one, name=name), argnums=1))(density, position)
        if not np.all(np.isfinite(np.asarray(gradient))):
            found.append(name)
    return found


def _one(density: Any, z: Array, name: str) -> Array:
    return jnp.sum(density.factor(name, z))


def _check_gradient(program: Any, density: Any, z: np.ndarray, learned: Mapping[str, SiteInfo]) -> None:
    position = jnp.asarray(z, jnp.result_type(float))
    gradient = np.asarray(jax.jit(jax.grad(lambda d, z: d(z), argnums=1))(density, position))
    bad = ~np.isfinite(gradient)
    if not bad.any():
        return
    label = density.labels[_first(bad)[0]]
    guilty = _guilty(density, position)
    name = guilty[0] if guilty else label.split("[")[0]
    info = learned[name]
    raise ModelError(
        f"the gradient of site {name!r} with respect to {label} is {gradient[_first(bad)[0]]} although the log density "
        f"is finite ({int(bad.sum())} of {bad.size} coordinates):\n{at(info.source)}\n"
        "  Look for a square root, a norm or a logarithm at zero, also inside the side of jnp.where that is not "
        "taken: choose a safe argument first, jnp.sqrt(jnp.where(x > 0, x, 1.0))."
    )


# ---------------------------------------------------------------------------------------------- simulation


def check_simulable(program: Any) -> None:
    """Raise when simulation would not follow the model's density."""
    from .exactness import refuse_draw

    learned = program.learned()
    graph = None
    for name, info in learned.items():
        refuse_draw(program, name)
        if info.improper and program.role(name) == "latent":
            raise ImproperPrior(
                f"site {name!r} has an improper prior ({info.family}), which cannot be simulated:\n"
                f"{at(info.source)}\n  Give it a proper prior, or fix it with program.do or program.condition."
            )
        if info.kind == "factor":
            graph = graph or program.graph()
            if any(program.role(p) == "latent" for p in graph.parents[name]):
                raise ModelError(
                    f"factor {name!r} reads {', '.join(sorted(graph.parents[name]))}; simulating through it "
                    f"would ignore it and draw from another model:\n{at(info.source)}\n"
                    "  Write the term as a site, ppl.sample(name, distribution), and condition on it."
                )
