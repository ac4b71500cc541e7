"""A Stan model, compiled by BridgeStan, as a log density over its unconstrained vector.

Value and gradient come from the compiled library by one call of the host for all chains, which C++ evaluates in
threads where the library was compiled for them (``STAN_THREADS``; without, one at a time). Where Stan rejects a
position the log density is minus infinity. Generated quantities are a function of the position: their random numbers
are seeded by it.

Reference: Roualdes, Ward, Carpenter, Seyboldt, Axen (2023), BridgeStan: efficient in-memory access to the methods of
a Stan model.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import ModelError
from ppl.host import HostCall, interned, invoke
from ppl.space import Slot

from . import names as naming
from .names import Labelling, Named

Array = Any

LOG_LIKELIHOOD = "log_lik"
"""The generated quantity that by Stan's custom holds the pointwise log likelihood."""


@dataclass(frozen=True, eq=False)
class Library:
    """A Stan model with data in memory; compared by identity.

    Attributes:
        model: A ``bridgestan.StanModel``.
    """

    model: Any
    shapes: dict[str, tuple[int, ...]] = field(init=False)
    places: dict[str, tuple[Array, ...]] = field(init=False)

    def __post_init__(self) -> None:
        """Read the names of the constrained quantities."""
        shapes, places = _arrays(self.model.param_names(include_tp=True, include_gq=True))
        object.__setattr__(self, "shapes", shapes)
        object.__setattr__(self, "places", places)

    @property
    def dim(self) -> int:
        """Length of the unconstrained vector."""
        return int(self.model.param_unc_num())

    @cached_property
    def threads(self) -> bool:
        """Whether the library may be called in several threads at once."""
        return "stan_threads=true" in self.model.model_info().lower().replace(" ", "")

    def value_and_gradient(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log densities (n,) and gradients (n, dim) at positions (n, dim)."""
        rows = [np.ascontiguousarray(row, dtype=np.float64) for row in z]
        several = self.threads and len(rows) > 1
        found = list(_workers().map(self._one, rows) if several else map(self._one, rows))
        return np.array([value for value, _ in found]), np.stack([gradient for _, gradient in found])

    def value(self, z: np.ndarray) -> np.ndarray:
        """Log densities at positions (n, dim)."""
        return self.value_and_gradient(z)[0]

    def _one(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        try:
            value, gradient = self.model.log_density_gradient(z, propto=False, jacobian=True)
        except RuntimeError:  # Stan's rejection, as of a scale that is not positive
            return -np.inf, np.zeros_like(z)
        return (float(value), np.array(gradient)) if np.isfinite(value) else (-np.inf, np.zeros_like(z))

    def constrained(self, z: np.ndarray) -> np.ndarray:
        """Constrained, transformed and generated quantities (n, m) at positions (n, dim)."""
        size = int(self.model.param_num(include_tp=True, include_gq=True))
        out = np.full((len(z), size), np.nan)
        for i, row in enumerate(np.ascontiguousarray(z, dtype=np.float64)):
            rng = self.model.new_rng(seed=zlib.crc32(row.tobytes()))
            try:
                out[i] = self.model.param_constrain(row, include_tp=True, include_gq=True, rng=rng)
            except RuntimeError:
                continue  # a rejection in generated quantities: NaN
        return out

    @cached_property
    def calls(self) -> dict[str, HostCall]:
        """The library's functions as calls of the host."""
        name, dim = f"Stan model {self.model.name()}", self.dim
        size = int(self.model.param_num(include_tp=True, include_gq=True))
        scalar, vector, every = ((), "<f8"), ((dim,), "<f8"), ((size,), "<f8")
        pool = 1 if self.threads else None  # None: calls wait for each other
        make = partial(HostCall, name, ndims=(1,), batched=True, pool=pool, strict=False, gradient=self)
        return {
            "value": interned(make(self.value, results=(scalar,))),
            "both": interned(make(self.value_and_gradient, results=(scalar, vector))),
            "constrained": interned(make(self.constrained, results=(every,))),
        }


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["library", "labelling"])
@dataclass(frozen=True, eq=False)
class StanDensity(Named):
    """A Stan model with its data as a log density.

    Attributes:
        library: The compiled model.
        labelling: Names, axes and labels.
    """

    library: Library
    labelling: Labelling

    differentiable = True

    def __call__(self, z: Array) -> Array:
        """Log density at ``z`` of shape (dim,), all constants and Stan's log-determinants included."""
        z = jnp.asarray(z)
        if z.shape != (self.dim,):
            raise ModelError(f"a position of this density has shape ({self.dim},), not {z.shape}")
        return _log_density(self.library, z.astype(jnp.result_type(float))).astype(jnp.result_type(float))

    @property
    def dim(self) -> int:
        """Length of the flat unconstrained vector."""
        return self.library.dim

    @property
    def layout(self) -> dict[str, Slot]:  # type: ignore[override]
        """Places of the parameters in the flat vector."""
        return naming.slots_of(_arrays(self.library.model.param_unc_names())[0])

    @property
    def labels(self) -> list[str]:
        """A name for every entry of the flat vector, such as ``theta[3]``, counted from zero."""
        return [_label(name) for name in self.library.model.param_unc_names()]

    @property
    def external(self) -> tuple[str, ...]:
        """The one function that it calls outside of JAX."""
        return (self.library.calls["value"].name,)

    @property
    def work(self) -> int:
        """Unknown; what is known is that a call of the host is not free."""
        return 10_000

    def generated(self, z: Array) -> dict[str, Array]:
        """Parameters, transformed parameters and generated quantities, ``log_lik`` excepted."""
        found = self._constrained(z)
        return {name: found[name] for name in self.names}

    def pointwise(self, z: Array) -> dict[str, Array]:
        """The generated quantity ``log_lik``, where the model has one."""
        if LOG_LIKELIHOOD not in self.library.shapes:
            return {}
        return {LOG_LIKELIHOOD: self._constrained(z)[LOG_LIKELIHOOD]}

    def unconstrain(self, values: Mapping[str, Any]) -> Array:
        """The flat vector at which the parameters have the given values."""
        import stanio

        return jnp.asarray(self.library.model.param_unconstrain_json(stanio.dump_stan_json(dict(values))))

    def _constrained(self, z: Array) -> dict[str, Array]:
        flat = invoke(self.library.calls["constrained"], jnp.asarray(z))[0]
        out = {}
        for name, shape in self.library.shapes.items():
            out[name] = flat[np.asarray(self.library.places[name])].reshape(shape)
        return out


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _log_density(library: Library, z: Array) -> Array:
    return invoke(_call(library, "value", z), z)[0]


def _forward(library: Library, z: Array) -> tuple[Array, Array]:
    value, gradient = invoke(_call(library, "both", z), z)
    return value, gradient


def _backward(library: Library, gradient: Array, cotangent: Array) -> tuple[Array]:
    return (cotangent * gradient,)


_log_density.defvjp(_forward, _backward)


def _call(library: Library, name: str, z: Array) -> HostCall:
    """A call whose results have the dtype of the position."""
    call, dtype = library.calls[name], np.dtype(z.dtype).str
    return interned(replace(call, results=tuple((shape, dtype) for shape, _ in call.results)))


def _workers() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="ppl-stan")
    return _pool


_pool: ThreadPoolExecutor | None = None


def _label(name: str) -> str:
    """``theta.1.2`` in Stan's way of counting, in ours.

    Example:
        >>> _label("theta.1.2"), _label("mu")
        ('theta[0, 1]', 'mu')
    """
    base, index = _split(name)
    return base + (f"[{', '.join(str(i) for i in index)}]" if index else "")


def _split(name: str) -> tuple[str, tuple[int, ...]]:
    match = re.fullmatch(r"(.*?)((?:\.\d+)*)", name)
    assert match is not None  # noqa: S101 - every text matches
    return match[1], tuple(int(i) - 1 for i in match[2].split(".")[1:])


def _arrays(flat: Sequence[str]) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[Array, ...]]]:
    """Shapes of arrays, and the places of their elements in row-major order, from the names of all elements.

    Example:
        >>> shapes, places = _arrays(["mu", "L.1.1", "L.2.1", "L.1.2", "L.2.2"])
        >>> shapes, places["L"]
        ({'mu': (), 'L': (2, 2)}, (1, 3, 2, 4))
    """
    found: dict[str, dict[tuple[int, ...], int]] = {}
    for place, name in enumerate(flat):
        base, index = _split(name)
        found.setdefault(base, {})[index] = place
    shapes = {base: tuple(max(axis) + 1 for axis in zip(*entries, strict=True)) for base, entries in found.items()}
    return shapes, {base: tuple(entries[i] for i in sorted(entries)) for base, entries in found.items()}


def from_bridgestan(
    library: Any,
    data: Any = None,
    *,
    seed: int = 1234,
    dims: Mapping[str, Any] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> StanDensity:
    """Make a log density of a Stan model, through BridgeStan (``pip install "ppl-jax[stan]"``).

    Args:
        library: A shared library that BridgeStan has compiled, a ``.stan`` file (compiling it needs BridgeStan's
            C++ toolchain), or a ``bridgestan.StanModel``.
        data: The model's data, a dict of numbers and arrays or a JSON file.
        seed: Seed of random numbers in the block ``transformed data``.
        dims: Names of the axes of a quantity, one or a tuple.
        coords: Labels by the name of an axis.

    Returns:
        The density, which calls the library on the host; its posterior has the parameters, transformed parameters
        and generated quantities, and a generated quantity ``log_lik`` as the pointwise log likelihood.

    Raises:
        ModuleNotFoundError: If bridgestan is not installed.
        ppl.ModelError: If the model cannot be compiled or loaded.
    """
    model = library if hasattr(library, "log_density_gradient") else _load(library, data, seed)
    found = Library(model)
    names = [name for name in found.shapes if name != LOG_LIKELIHOOD]
    axes = {name: tuple(f"{name}_dim_{i}" for i in range(len(shape))) for name, shape in found.shapes.items()}
    return StanDensity(found, Labelling(names, axes)).labelled(coords, dims)


def _load(library: Any, data: Any, seed: int) -> Any:
    try:
        import bridgestan
    except ImportError:
        raise ModuleNotFoundError('from_bridgestan needs BridgeStan: pip install "ppl-jax[stan]"') from None
    if isinstance(data, Mapping):
        data = {name: np.asarray(value) for name, value in data.items()}
    build: Callable[..., Any] = bridgestan.StanModel
    try:
        return build(os.fspath(library), data, seed=seed, warn=False, make_args=["STAN_THREADS=True"])
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"the Stan model {library} cannot be loaded: {error}") from error
