"""Our log densities in the hands of other samplers, and their draws back as a labelled fit.

A density is a callable of a flat unconstrained vector, log-determinants included, and a pytree: samplers written in JAX
take it as it is. ``Handover`` adds what they ask for beside it, and makes a ``Fit`` of what they return.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ppl.host import surfacing

from .. import gradients, groups, naming
from .. import precision as floats
from ..core import Draws
from ..manifest import manifest
from ..mcmc.start import find_start, generator
from ..results import Fit
from ..subject import Subject, make_subject

Array = Any

_START = 91
"""Purpose of the random numbers of starting points."""


@dataclass(frozen=True, eq=False)
class Handover:
    """A log density, where to start, and the way back.

    Attributes:
        subject: The program (or None) and its density.
        position: Starting positions, unconstrained: shape (dim,), or (chains, dim).
    """

    subject: Subject
    position: Array

    @property
    def log_density(self) -> Any:
        """Log density of a flat unconstrained vector, log-determinants included."""
        return self.subject.density

    @property
    def labels(self) -> list[str]:
        """Names of the entries of the vector."""
        return list(getattr(self.subject.density, "labels", [f"z[{i}]" for i in range(self.subject.dim)]))

    def __call__(self, position: Array) -> Array:
        """Log density at a flat unconstrained vector."""
        return self.subject.density(position)

    def fit(self, positions: Any, stats: Mapping[str, Any] | None = None, sampler: str = "external") -> Fit:
        """The labelled result of another sampler's draws.

        Args:
            positions: Unconstrained draws, shape (draws, dim) or (chains, draws, dim).
            stats: Statistics by ArviZ's names, shape (draws,) or (chains, draws).
            sampler: Name of the sampler, for the manifest.

        Returns:
            A fit, with constrained values, log likelihoods and predictions as after ``infer``.

        Raises:
            ValueError: If the positions are not those of this density.
        """
        z = np.asarray(positions, dtype=float)
        z = z[None] if z.ndim == 2 else z
        if z.ndim != 3 or z.shape[2] != self.subject.dim:
            raise ValueError(f"draws have shape {np.shape(positions)}, not ([chains,] draws, {self.subject.dim})")
        kept = {name: np.asarray(value).reshape(z.shape[:2]) for name, value in (stats or {}).items()}
        precision = "float64" if jax.config.jax_enable_x64 else floats.choose(None)
        return Fit(self.subject.program, self.subject.density, Draws(z, kept), self._about(sampler, precision))

    def _about(self, sampler: str, precision: str) -> dict[str, Any]:
        from ..naming import sites

        return {**manifest(None, precision=precision, sites=sites(self.subject.program)), "engine": sampler}


def to_blackjax(target: Any, *, chains: int | None = None, seed: int = 0, init: Any = None) -> Handover:
    """Hand a program or a density to BlackJAX, or to any sampler that takes a JAX function of a vector.

    Args:
        target: A conditioned program, or a log density of a flat vector with ``dim``.
        chains: Number of starting positions; None for one, of shape (dim,).
        seed: Determines the starting positions.
        init: A position (dim,) that gives a plain function its dimension.

    Returns:
        ``log_density`` and ``position`` for the sampler; ``fit(positions)`` labels what it returns.

    Raises:
        ppl.ModelError: If no position has a finite log density.

    Example:
        >>> import ppl
        >>> @ppl.model
        ... def normal():
        ...     ppl.sample("x", ppl.dist.Normal(1.0, 2.0))
        >>> handed = to_blackjax(normal(), chains=2)
        >>> handed.position.shape, handed.labels
        ((2, 1), ['x'])
    """
    with floats.context(floats.choose(None)):
        subject = make_subject(target, init)
        position = _positions(subject, chains or 1, seed)
    return Handover(subject, position if chains is not None else position[0])


@surfacing
def _positions(subject: Subject, chains: int, seed: int) -> np.ndarray:
    """Positions from which a sampler can start, at the height of the typical set where there is a gradient."""
    from ..mcmc.start import StartError

    def evaluate(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lp, slope = (np.asarray(x, np.float64) for x in _heights(subject.density, z, differentiable))
        fine = np.isfinite(lp) & np.isfinite(slope).all(axis=1)
        return np.where(fine, lp, -np.inf), np.where(fine[:, None], slope, 0.0)

    differentiable = bool(getattr(subject.density, "differentiable", True))
    try:
        return find_start(evaluate, generator(seed, _START), (chains, subject.dim)).positions
    except StartError as error:
        if subject.program is not None:
            import ppl

            ppl.check(subject.program, subject.density, error.position)
        raise


@functools.partial(jax.jit, static_argnums=2)
def _heights(density: Any, z: Array, differentiable: bool) -> tuple[Array, Array]:
    if differentiable:
        return jax.vmap(jax.value_and_grad(density))(z)
    return jax.vmap(density)(z), 0.0 * z


def to_nutpie(target: Any, *, seed: int = 0) -> Any:
    """A nutpie model of a program or a density: ``nutpie.sample(to_nutpie(program))``.

    nutpie's chains run in threads and call the compiled log density and its gradient; the result is labelled with
    our sites, plates and coordinates.

    Args:
        target: A conditioned program, or a log density of a flat vector with ``dim``.
        seed: Determines the starting positions together with the seeds that nutpie gives its chains.

    Raises:
        ModuleNotFoundError: If nutpie is not installed.
        ppl.ModelError: If the density has no gradient.
    """
    try:
        from nutpie.compiled_pyfunc import from_pyfunc
    except ImportError:
        raise ModuleNotFoundError('to_nutpie needs nutpie: pip install "ppl-jax[nutpie]"') from None
    with floats.context("float64"):
        subject = make_subject(target)
        gradients.check("nutpie", subject.density)
        shapes = _shapes(subject)
    coords = naming.coords(subject.program, subject.density)
    dims = _fitting(naming.dims(subject.program, subject.density), shapes, coords)
    sizes = {axis: n for name, axes in dims.items() for axis, n in zip(axes, shapes[name].shape, strict=True)}

    def log_density() -> Any:
        def evaluate(z: np.ndarray) -> tuple[float, np.ndarray]:
            with jax.enable_x64(True), surfacing():
                value, slope = _height(subject.density, np.asarray(z))
                return float(value), np.asarray(slope, np.float64)

        return evaluate

    def expand(*_: Any) -> Any:
        def evaluate(z: np.ndarray) -> dict[str, np.ndarray]:
            with jax.enable_x64(True), surfacing():
                found = _generated(subject.density, np.asarray(z)) if _named(subject) else {"z": z}
                return {name: np.asarray(found[name], shape.dtype) for name, shape in shapes.items()}

        return evaluate

    def start(chain_seed: int) -> np.ndarray:
        with floats.context("float64"):
            return _positions(subject, 1, int(np.random.SeedSequence([seed, chain_seed]).generate_state(1)[0]))[0]

    return from_pyfunc(
        ndim=subject.dim,
        make_logp_fn=log_density,
        make_expand_fn=expand,
        expanded_dtypes=[shape.dtype for shape in shapes.values()],
        expanded_shapes=[tuple(shape.shape) for shape in shapes.values()],
        expanded_names=list(shapes),
        coords={axis: _axis(coords.get(axis, np.arange(size))) for axis, size in sizes.items()},
        dims=dims,
        make_initial_point_fn=start,
    )


def _named(subject: Subject) -> bool:
    return hasattr(subject.density, "generated")


def _shapes(subject: Subject) -> dict[str, Any]:
    """Shapes of what a draw is expanded to, booleans as integers."""
    if not _named(subject):
        return {"z": jax.ShapeDtypeStruct((subject.dim,), np.dtype(np.float64))}
    z = jax.ShapeDtypeStruct((subject.dim,), jax.numpy.result_type(float))
    found = groups.in_order(subject, jax.eval_shape(subject.density.generated, z))
    return {
        name: jax.ShapeDtypeStruct(x.shape, np.dtype(np.float64 if x.dtype.kind == "f" else np.int64))
        for name, x in found.items()
    }


def _axis(labels: Any) -> Any:
    """Labels in a form that nutpie takes: numbers as an array, all else as a list of text."""
    labels = np.asarray(labels)
    if labels.dtype.kind in "iu":
        return labels.astype(np.int64)
    return labels.astype(np.float64) if labels.dtype.kind == "f" else [str(x) for x in labels]


def _fitting(
    dims: Mapping[str, tuple[str, ...]], shapes: Mapping[str, Any], coords: Mapping[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Axes of the variables whose sizes are those of the labels."""
    out = {}
    for name, shape in shapes.items():
        axes = dims.get(name, ())
        if len(axes) == len(shape.shape) and all(
            len(coords.get(axis, range(size))) == size for axis, size in zip(axes, shape.shape, strict=True)
        ):
            out[name] = tuple(axes)
    return out


@jax.jit
def _height(density: Any, z: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(density)(z)


@jax.jit
def _generated(density: Any, z: Array) -> Any:
    return density.generated(z)
