"""Prediction: simulate a program with its latent sites clamped at posterior draws.

p(y_new | y) = integral p(y_new | theta, x_new) p(theta | y) dtheta, one simulation for each posterior draw. The
random numbers are keyed by the draw and the site's name, and by the places in plates and chains.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from . import forecast, naming
from .align import Known, Match, match, rows_of
from .groups import Arrays
from .simulate import Clamped, Simulation
from .summary import choose


@dataclass(frozen=True)
class Prediction:
    """What is to be simulated, and the names of its axes.

    Attributes:
        simulation: The simulation of every draw.
        size: Chains and draws.
        dims: Names of every site's axes.
        coords: Labels by dim.
        attrs: What a dataset is told.
    """

    simulation: Simulation
    size: tuple[int, int]
    dims: Mapping[str, tuple[str, ...]]
    coords: Mapping[str, Any]
    attrs: Mapping[str, Any]

    def dataset(self) -> Any:
        """All draws, in memory."""
        return self.labelled({n: x.reshape(*self.size, *x.shape[1:]) for n, x in self.simulation.run().items()})

    def labelled(self, arrays: Mapping[str, Any], axes: Mapping[str, Any] | None = None) -> Any:
        """Arrays with names on their axes: chains and draws in front, or ``axes`` with labels or None."""
        from .export import labelled

        front = {"chain": None, "draw": None} if axes is None else axes
        coords = {**self.coords, **{name: labels for name, labels in front.items() if labels is not None}}
        return labelled(arrays, self.dims, coords, tuple(front), self.attrs)


def predict(
    fit: Any,
    program: Any = None,
    names: Iterable[str] | None = None,
    seed: int = 0,
    draws: int | None = None,
    *,
    horizon: int | Mapping[str, int] | None = None,
    past: bool = False,
    path: Any = None,
    reduce: Any = None,
    memory: int | None = None,
) -> Any:
    """Predictive draws as a labelled dataset; see ``Fit.predict``."""
    if path is not None and reduce is not None:
        raise ValueError("predict: draws are written to path=, or reduced by reduce=, not both")
    if memory is not None and path is None and reduce is None:
        raise ValueError("predict: memory= belongs to path= or reduce=; without them all draws are returned in memory")
    plan, notes = planned(fit, program, names, seed, draws, horizon, past)
    if path is not None:
        from .predictions import written

        result = written(plan, path, memory)
    elif reduce is not None:
        from .reduce import reduced

        result = plan.labelled(*reduced(plan.simulation, reduce, memory))
    else:
        result = plan.dataset()
    for note in notes:
        warnings.warn(note, stacklevel=4)
    return result


def planned(
    fit: Any, program: Any, names: Any, seed: int, draws: int | None, horizon: Any, past: bool
) -> tuple[Prediction, tuple[str, ...]]:
    """What ``predict`` is to simulate, and what has to be said about it."""
    import ppl

    from .export import dims_of, flat

    if program is None and fit.program is None:
        raise ppl.ModelError("this fit does not know its program: predict(program), or load(path, program=...)")
    program = fit.program if program is None else program
    bare = unconditioned(program) if horizon is None else forecast.lengthened(unconditioned(program), horizon)
    known, index = _thinned(knowledge(fit), draws, fit.draws.shape[1])
    found, grown = match(known, bare), known.grown(bare)
    forecast.refuse_inner(bare, grown)
    data = forecast.held(fit, bare, known, grown) | forecast.gaps(fit, program, bare, known)
    simulable = [name for name, site in bare.sites.items() if site.kind != "factor"]
    alike = {*found.whole, *data.values} - {*data.masks}
    wanted = [name for name in simulable if name not in alike] if names is None else choose(simulable, names)
    _refuse_joint(fit, bare, known, [n for n in wanted if n not in {*data.values, *data.rows}])
    rows = (np.arange(fit.draws.shape[0])[:, None] * fit.draws.shape[1] + index).ravel()
    # the rows of a ragged table that grows lie between those of the fit: all of them come back
    cuts = {name: steps for name, steps in grown.items() if not past and name not in bare.tidy.axes}
    simulation = _simulation(bare, known, found, data, wanted, rows, seed, cuts)
    notes = list(found.notes)
    if grown:
        _check_forecast(fit, simulation, known, grown)
        sizes = {dim: size for site in bare.sites.values() for dim, size in zip(site.dims, site.shape, strict=True)}
        notes += [f"the chain '{name}' goes on from {old} to {sizes[name]} steps" for name, old in grown.items()]
    coords = {**bare.coords, "draw": index}
    coords |= {name: np.asarray(coords[name])[start:] if name in coords else _steps(bare, name)[start:]
               for name, start in cuts.items()}  # fmt: skip
    attrs = {**flat(fit.manifest), "prediction_seed": seed, "prediction_notes": notes or ""}
    return Prediction(simulation, (fit.draws.shape[0], len(index)), dims_of(bare), coords, attrs), found.notes


def _steps(program: Any, chain: str) -> np.ndarray:
    return np.arange(next(s for i in program.tidy.sites.values() for name, s, _ in i.plates if name == chain))


def _check_forecast(fit: Any, simulation: Simulation, known: Known, grown: Mapping[str, int]) -> None:
    """Refuse a forecast that would read other inputs than the fit, or none."""
    pack = simulation.program.tidy.pack if fit.program is None else fit.program.tidy.pack
    latent = {name: pack(name, value[0, 0]) for name, value in known.draws.items()}
    given = {**{name: value[0] for name, value in simulation.given.items()}, **simulation.fixed}
    if fit.program is not None:
        forecast.refuse_other_inputs(fit.program, simulation.program, latent, given, grown)
    forecast.refuse_places_beyond(fit.program, simulation.program, latent, given)


def replicate(fit: Any, seed: int) -> Arrays:
    """Draws of the observed sites under the posterior: replicated data."""
    bare = unconditioned(fit.program)
    known = knowledge(fit)
    wanted = [name for name in bare.sites if name in known.observed]
    chains, draws = fit.draws.shape[:2]
    found = match(known, bare)
    values = _simulation(bare, known, found, Clamped(), wanted, np.arange(chains * draws), seed, {}).run()
    return {name: value.reshape(chains, draws, *value.shape[1:]) for name, value in values.items()}


def draw_prior(fit: Any, draws: int, seed: int) -> Arrays:
    """Prior draws of every site and record, shape (1, draws, ...)."""
    bare = unconditioned(fit.program)
    names = tuple(name for name, site in bare.sites.items() if site.kind != "factor")
    values = Simulation(bare, {}, bare.fixed, names, np.arange(draws, dtype=np.uint32), seed).run()
    return {name: value[None] for name, value in values.items()}


def simulated_shapes(fit: Any, clamped: bool) -> Mapping[str, Any]:
    """Shapes of one simulation.

    Raises:
        ppl.ModelError: If the program cannot be simulated.
    """
    bare = unconditioned(fit.program)
    if clamped:
        observed = knowledge(fit).observed
        _refuse_factors(bare, observed)
    else:
        from ppl.check import check_simulable

        check_simulable(bare)
    return {
        name: jax.ShapeDtypeStruct(site.shape, site.dtype) for name, site in bare.sites.items() if site.kind != "factor"
    }


def unconditioned(program: Any) -> Any:
    """The program with its observations released; what ``do`` has fixed stays."""
    return program.release()


def knowledge(fit: Any) -> Known:
    """What a fit knows about its latent sites, from its program or from the file it was loaded from."""
    about = naming.sites(fit.program) if fit.program is not None else fit.manifest.get("sites") or {}
    draws = {name: fit.values[name] for name in about.get("latent", ())}
    if fit.program is not None:
        from .export import dims_of

        dims, coords = dims_of(fit.program), dict(fit.program.coords)
        found = fit.program.sites.values()
        sizes = {dim: size for site in found for dim, size in zip(site.dims, site.shape, strict=True)}
    else:
        data = {**fit.stored.get("observed_data", {}), **fit.stored["posterior"]}
        dims = {name: tuple(d for d in map(str, x.dims) if d not in ("chain", "draw")) for name, x in data.items()}
        sizes = {str(dim): size for value in data.values() for dim, size in value.sizes.items()}
        coords = {
            dim: value.coords[dim].values
            for dim in about.get("labelled", ())
            for value in data.values()
            if dim in value.coords
        }
    rows = {} if fit.program is None else rows_of(fit.program)
    return Known(draws, dims, coords, frozenset(about.get("observed", ())), sizes, rows)


def _simulation(
    bare: Any, known: Known, found: Match, data: Clamped, wanted: Iterable[str], rows: Any, seed: int,
    cuts: Mapping[str, int],
) -> Simulation:  # fmt: skip
    """The simulation of some sites of a program at posterior draws."""
    flat = {name: known.draws[name].reshape(-1, *known.draws[name].shape[2:]) for name in known.draws}
    each = {name: flat[name] for name in found.whole}
    each |= {name: places.take(flat[name]) for name, places in found.partial.items()}
    clamped = Clamped(each, {}, {name: places.mask for name, places in found.partial.items()}) | data
    latent = {name for name, site in bare.sites.items() if site.kind == "latent"}
    _refuse_factors(bare, latent - ({*clamped.rows, *clamped.values} - {*clamped.masks}))
    _refuse_improper(bare, clamped.masks)
    given, fixed = clamped.packed(bare)
    return Simulation(
        bare, given, {**fixed, **bare.fixed}, tuple(wanted), np.asarray(rows, np.uint32), seed, dict(cuts)
    )


def _refuse_improper(program: Any, partly: Iterable[str]) -> None:
    from ppl.errors import ImproperPrior

    for name in partly:
        info = program.learned()[name]
        if info.improper:
            raise ImproperPrior(
                f"new elements of '{name}' would be drawn from its prior, which is improper ({info.family}, "
                f"{info.source})"
            )


def _thinned(known: Known, draws: int | None, kept: int) -> tuple[Known, np.ndarray]:
    """Only some draws of every chain, evenly spaced; and which."""
    if draws is None or draws >= kept:
        return known, np.arange(kept)
    index = np.linspace(0, kept - 1, max(int(draws), 1)).round().astype(int)
    return replace(known, draws={name: value[:, index] for name, value in known.draws.items()}), index


def _refuse_factors(program: Any, drawn: Iterable[str]) -> None:
    """A factor that reads a site to be drawn would be ignored by the simulation."""
    from ppl import ModelError

    drawn = set(drawn)
    factors = [name for name, site in program.sites.items() if site.kind == "factor"]
    if not factors:
        return
    parents = program.graph().parents
    for name in factors:
        read = sorted(drawn & set(parents[name]))
        if read:
            raise ModelError(
                f"factor '{name}' reads {', '.join(read)}, which prediction would draw as if it were not there"
            )


def _refuse_joint(fit: Any, bare: Any, known: Known, wanted: list[str]) -> None:
    """A site observed as one joint vector says nothing about another such vector."""
    from ppl import ModelError

    if fit.program is not None and _same_inputs(fit.program, bare):
        return
    infos = bare.tidy.sites
    for name in wanted:
        info = infos[name]
        if name in known.observed and info.kind == "sample" and not info.plates and not info.batch and info.shape:
            raise ModelError(
                f"'{name}' was observed as one joint vector ({info.family}, {info.source}); with new inputs its draws "
                "would not know the observed ones. Put the observed and the new points into one program, and condition "
                'it on the observed ones and NaN for the others, condition(..., missing="marginalize"); or write the '
                "site element by element in a plate."
            )


def _same_inputs(old: Any, new: Any) -> bool:
    ours, theirs = old.arguments.data, new.arguments.data
    return (
        old.model is new.model
        and old.horizon == new.horizon
        and len(ours) == len(theirs)
        and all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(ours, theirs, strict=True))
    )
