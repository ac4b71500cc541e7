"""A NumPyro model as a log density over a flat unconstrained vector.

log p(z) = -U(z), with U NumPyro's own potential energy: its transforms T, its log-determinants, its handlers. The
model is observed by its ``obs=`` arguments. The arrays that it is called with are the density's data, so a model
called on new data of equal shapes never compiles again; where its text needs their values (a Python ``if``, a size
computed from codes) they are constants.

Reference: Phan, Pradhan, Jankowiak (2019), Composable effects for flexible and accelerated probabilistic programming
in NumPyro.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import ModelError, arguments
from ppl.space import Slot, join, split

from . import names
from .names import Facts, Labelling, Named

Array = Any


@dataclass(frozen=True, eq=False)
class Structure:
    """What a trace of a model learned; the static part of its densities, compared by identity.

    Attributes:
        model: The NumPyro model.
        call: Its arguments, of which the arrays are handed in, or None where all are constants.
        slots: Places of the latent sites in the flat vector.
        observed: Names of the observed sites.
        labelling: Names of sites and their axes.
        fixed: Positional and keyword arguments where they are constants, or None.
        facts: Cost and calls of the host, once known.
    """

    model: Callable[..., Any]
    call: arguments.Arguments | None
    slots: dict[str, Slot]
    observed: tuple[str, ...]
    labelling: Labelling
    fixed: tuple[tuple, dict] | None
    facts: dict[str, Facts]

    def inputs(self, data: Any) -> tuple[tuple, dict]:
        """Positional and keyword arguments of the model."""
        if self.fixed is not None:
            return self.fixed
        assert self.call is not None  # noqa: S101 - one of the two
        return self.call.rebuild([jnp.asarray(x) for x in data])


@partial(jax.tree_util.register_dataclass, data_fields=["data"], meta_fields=["structure", "labelling"])
@dataclass(frozen=True, eq=False)
class NumPyroDensity(Named):
    """A NumPyro model with data as a log density; a pytree of the data.

    Attributes:
        structure: The traced model.
        data: Its array arguments.
        labelling: Names, axes and labels.
    """

    structure: Structure
    data: tuple[Any, ...]
    labelling: Labelling

    def __call__(self, z: Array) -> Array:
        """Log density at ``z`` of shape (dim,), NumPyro's log-determinants included."""
        return names.run(self, "_log_density", z)

    def _log_density(self, z: Array) -> Array:
        from numpyro.infer.util import potential_energy

        args, kwargs = self.structure.inputs(self.data)
        value = -potential_energy(self.structure.model, args, kwargs, self._pieces(z))
        return jnp.asarray(value, jnp.result_type(float))

    @property
    def layout(self) -> dict[str, Slot]:  # type: ignore[override]
        """Places of the latent sites in the flat vector."""
        return self.structure.slots

    def generated(self, z: Array) -> dict[str, Array]:
        """Values of the latent and of the deterministic sites."""
        found = names.run(self, "_generated", z)
        return {name: found[name] for name in self.names if name in found}

    def _generated(self, z: Array) -> dict[str, Array]:
        from numpyro.infer.util import constrain_fn

        args, kwargs = self.structure.inputs(self.data)
        found = constrain_fn(self.structure.model, args, kwargs, self._pieces(z), return_deterministic=True)
        return {name: jnp.asarray(found[name]) for name in self.names if name in found}

    def pointwise(self, z: Array) -> dict[str, Array]:
        """Log likelihood of every observation, by site; ``numpyro.factor`` has none."""
        found = names.run(self, "_log_probs", z)
        return {name: found[name] for name in self.structure.observed}

    def log_prior(self, z: Array) -> dict[str, Array]:
        """Log prior of every latent site, summed over its elements, without log-determinants."""
        found = names.run(self, "_log_probs", z)
        return {name: jnp.sum(found[name]) for name in self.layout}

    def unconstrain(self, values: dict[str, Array]) -> Array:
        """The flat vector at which the latent sites have the given values."""
        return names.run(self, "_unconstrain", {name: values[name] for name in self.layout})

    def _unconstrain(self, values: dict[str, Array]) -> Array:
        from numpyro import handlers

        given = {name: jnp.asarray(value) for name, value in values.items()}
        return self._free(handlers.substitute(self.structure.model, data=given))

    def prior(self, key: Array) -> Array:
        """A draw of the latent sites from the prior, unconstrained.

        Raises:
            ppl.ImproperPrior: If a prior cannot be sampled.
        """
        from ppl import ImproperPrior

        try:
            return names.run(self, "_prior", key)
        except NotImplementedError as error:
            raise ImproperPrior(f"a prior of the NumPyro model cannot be sampled: {error}") from None

    def _prior(self, key: Array) -> Array:
        from numpyro import handlers

        return self._free(handlers.seed(self.structure.model, key))

    @property
    def observed(self) -> dict[str, np.ndarray]:
        """Data of the observed sites."""
        found = jax.jit(partial(_observations, self.structure))(self.data)
        return {name: np.asarray(found[name]) for name in self.structure.observed}

    @property
    def work(self) -> int:
        """Array elements that one evaluation computes."""
        return self._facts().work

    @property
    def external(self) -> tuple[str, ...]:
        """Names of functions that it calls outside of JAX."""
        return self._facts().external

    @property
    def differentiable(self) -> bool:
        """Whether it has a gradient."""
        return self._facts().differentiable

    def _facts(self) -> Facts:
        known, dtype = self.structure.facts, str(jnp.result_type(float))
        if dtype not in known:
            log_density = lambda data, z: replace(self, data=data)(z)  # noqa: E731
            known[dtype] = names.facts(log_density, self.data, self.dim)
        return known[dtype]

    def _pieces(self, z: Array) -> dict[str, Array]:
        if np.shape(z) != (self.dim,):
            raise ModelError(
                f"a position of this density has shape ({self.dim},), the unconstrained values of "
                f"{', '.join(self.layout)}, not {np.shape(z)}. For many positions: jax.vmap(density)(zs)."
            )
        return split(jnp.asarray(z), self.layout)

    def _log_probs(self, z: Array) -> dict[str, Array]:
        from numpyro.infer.util import compute_log_probs, constrain_fn

        args, kwargs = self.structure.inputs(self.data)
        values = constrain_fn(self.structure.model, args, kwargs, self._pieces(z))
        return compute_log_probs(self.structure.model, args, kwargs, values, sum_log_prob=False)[0]

    def _free(self, model: Callable[..., Any]) -> Array:
        """Unconstrained values of the latent sites in one run of a model."""
        from numpyro import handlers
        from numpyro.distributions import biject_to

        args, kwargs = self.structure.inputs(self.data)
        trace = handlers.trace(model).get_trace(*args, **kwargs)
        free = {name: biject_to(trace[name]["fn"].support).inv(trace[name]["value"]) for name in self.layout}
        return join(free, self.layout)


_structures: dict[Hashable, Structure] = {}
_CACHE_SIZE = 128
_READS_VALUES = (TypeError, AttributeError, KeyError, IndexError)  # JAX's tracer errors are among them


def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> NumPyroDensity:
    """Make a log density of a NumPyro model, for ``infer`` and everything that takes a density.

    Args:
        model: A function with ``numpyro.sample`` statements, observed by ``obs=``, or one under handlers.
        *args: What it is called with. Arrays and floats are data: others of equal shapes do not compile again.
        **kwargs: Likewise.

    Returns:
        The density at a flat unconstrained vector. Sites keep their names, plates name axes;
        ``density.labelled(coords={"school": [...]})`` adds labels.

    Raises:
        ppl.ModelError: If the model has a discrete latent site, a subsampled plate, a ``numpyro.param``, or no
            latent site.

    Example:
        >>> import numpyro, numpyro.distributions as dist
        >>> def normal(y):
        ...     mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        ...     with numpyro.plate("row", len(y)):
        ...         numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)
        >>> density = from_numpyro(normal, np.zeros(3))
        >>> density.labels, round(float(density(np.zeros(1))), 4)
        (['mu'], -3.6758)
    """
    if not callable(model):
        raise ModelError(f"from_numpyro takes a NumPyro model and its arguments, not {type(model).__name__}")
    identity: Hashable = object()
    call = None
    with contextlib.suppress(ModelError, arguments.Unstable, TypeError):
        call = arguments.split_arguments(args, kwargs, getattr(model, "__name__", "model"))  # or: no arrays of numbers
        identity = (arguments.fingerprint(model), call.key(), arguments.shape_key(call.data))
    structure = _structures.get(identity)
    if structure is None:
        structure = _structure(model, call, args, kwargs)
        if structure.fixed is None:
            if len(_structures) >= _CACHE_SIZE:
                _structures.pop(next(iter(_structures)))
            _structures[identity] = structure
    data = tuple(np.asarray(x) for x in call.data) if call is not None and structure.fixed is None else ()
    return NumPyroDensity(structure, data, structure.labelling)


def _structure(model: Callable[..., Any], call: arguments.Arguments | None, args: tuple, kwargs: dict) -> Structure:
    """Learn a model's sites by an abstract run, with its arrays as data if it can do without their values.

    If it cannot, they are constants: as NumPy arrays, or (frames, text) as they were handed in.
    """
    found: dict[str, dict[str, Any]] = {}

    def run(args: tuple, kwargs: dict) -> None:
        found.clear()
        found.update(_sites(model, args, kwargs))

    fixed: tuple[tuple, dict] | None = None
    try:
        if call is None:
            raise TypeError
        jax.eval_shape(lambda data: run(*call.rebuild(data)), [arguments.abstract(x) for x in call.data])
    except _READS_VALUES:
        try:
            if call is None:
                raise TypeError from None
            fixed = call.rebuild([np.asarray(x) for x in call.data])
            jax.eval_shape(lambda: run(*fixed))
        except _READS_VALUES:
            fixed = (args, kwargs)
            jax.eval_shape(lambda: run(args, kwargs))
    latent = {name: site for name, site in found.items() if site["kind"] == "latent"}
    if not latent:
        raise ModelError("the NumPyro model has no latent site: there is nothing to infer")
    shown = [name for name, site in found.items() if site["kind"] in ("latent", "deterministic")]
    dims = names.own_axes({name: site["dims"] for name, site in found.items()}, list(found))
    return Structure(
        model,
        call and replace(call, data=()),
        names.slots_of({name: site["free"] for name, site in latent.items()}),
        tuple(name for name, site in found.items() if site["kind"] == "observed"),
        Labelling(shown, dims),
        fixed,
        {},
    )


def _sites(model: Callable[..., Any], args: tuple, kwargs: dict) -> dict[str, dict[str, Any]]:
    """Kind, axes and unconstrained shape of every site of a run."""
    trace = _trace(model, args, kwargs)
    found = {}
    for name, site in trace.items():
        if site["type"] == "plate" and site["args"][0] != site["args"][1] and site["args"][1] is not None:
            raise ModelError(
                f"the NumPyro plate {name!r} is subsampled ({site['args'][1]} of {site['args'][0]}), so the model has "
                "no density but an estimate of one. Call the model without subsample_size."
            )
        if site["type"] in ("param", "mutable"):
            raise ModelError(
                f"the NumPyro model has a numpyro.{site['type']} {name!r}, which is no random variable. Give it a "
                "prior with numpyro.sample, or its value: numpyro.handlers.substitute(model, {...})."
            )
        if site["type"] in ("sample", "deterministic"):
            found[name] = _site(name, site)
    return found


def _trace(model: Callable[..., Any], args: tuple, kwargs: dict) -> dict[str, Any]:
    """A run at any admissible values, which need not be draws: an improper prior has none."""
    from numpyro import handlers
    from numpyro.infer import init_to_uniform

    seeded = handlers.seed(model, jax.random.key(0))
    return handlers.trace(handlers.substitute(seeded, substitute_fn=init_to_uniform)).get_trace(*args, **kwargs)


def _site(name: str, site: dict[str, Any]) -> dict[str, Any]:
    from numpyro.distributions import Unit, biject_to

    shape = tuple(np.shape(site["value"]))
    frames = [(frame.name, frame.dim, frame.size) for frame in site["cond_indep_stack"]]
    if site["type"] == "deterministic":
        return {"kind": "deterministic", "dims": _axes(name, shape, frames, None)}
    fn = site["fn"]
    dims = _axes(name, shape, frames, len(fn.event_shape))
    if site["is_observed"]:
        return {"kind": "factor" if isinstance(fn, Unit) else "observed", "dims": dims}
    if fn.support.is_discrete:
        raise ModelError(
            f"site {name!r} of the NumPyro model ({type(fn).__name__}) is a discrete latent variable, which a density "
            "over a continuous vector cannot have. Sum it out by writing the mixture, or observe it."
        )
    return {"kind": "latent", "dims": dims, "free": tuple(biject_to(fn.support).inverse_shape(shape))}


def _axes(name: str, shape: tuple[int, ...], frames: list[tuple[str, int, int]], event: int | None) -> tuple[str, ...]:
    """Names of a site's axes: its plates', and numbered ones.

    Args:
        name: The site.
        shape: Its shape.
        frames: Name, axis (counted from the right of the batch) and size of its plates.
        event: Axes of one event, None where they are not known.
    """
    own = [f"{name}_dim_{i}" for i in range(len(shape))]
    for width in range(len(shape) + 1) if event is None else (event,):
        places = {len(shape) - width + axis: (plate, size) for plate, axis, size in frames}
        if all(0 <= i < len(shape) and shape[i] == size for i, (_, size) in places.items()):
            return tuple(places[i][0] if i in places else own[i] for i in range(len(shape)))
    return tuple(own)


def _observations(structure: Structure, data: Any) -> dict[str, Array]:
    args, kwargs = structure.inputs(data)
    trace = _trace(structure.model, args, kwargs)
    return {name: jnp.asarray(trace[name]["value"]) for name in structure.observed}
