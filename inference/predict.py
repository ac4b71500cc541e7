"""Prediction: simulate a program with its latent sites clamped at posterior draws.

p(y_new | y) = integral p(y_new | theta, x_new) p(theta | y) dtheta, one simulation for each posterior draw. The
random numbers are keyed by the draw and the site's name.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from .align import Known, Match, Places, match
from .chunks import in_chunks
from .groups import Arrays
from .summary import choose

_compiled: OrderedDict[Any, Callable] = OrderedDict()
_KEPT = 32


def predict(fit: Any, program: Any, names: Iterable[str] | None, seed: int, draws: int | None = None) -> Any:
    """Predictive draws as a labelled dataset; see ``Fit.predict``."""
    import ppl

    from .export import dims_of, flat, labelled

    if program is None and fit.program is None:
        raise ppl.ModelError("this fit does not know its program: predict(program), or load(path, program=...)")
    bare = unconditioned(fit.program if program is None else program)
    known, index = _thinned(knowledge(fit), draws, fit.draws.positions.shape[1])
    found = match(known, bare)
    clamped = {*found.whole}
    simulable = [name for name, site in bare.sites.items() if site.kind != "factor"]
    wanted = choose(simulable, names) if names is not None else [n for n in simulable if n not in clamped]
    _refuse_joint(fit, bare, known, wanted, names is not None)
    arrays = _posterior_simulation(bare, known, found, wanted, (fit.draws.positions.shape[0], len(index)), seed)
    for note in found.notes:
        warnings.warn(note, stacklevel=4)
    attrs = {**flat(fit.manifest), "prediction_seed": seed, "prediction_notes": list(found.notes) or ""}
    return labelled(arrays, dims_of(bare), {**bare.coords, "draw": index}, ("chain", "draw"), attrs)


def replicate(fit: Any, seed: int) -> Arrays:
    """Draws of the observed sites under the posterior: replicated data."""
    bare = unconditioned(fit.program)
    known = knowledge(fit)
    wanted = [name for name in bare.sites if name in known.observed]
    return _posterior_simulation(bare, known, match(known, bare), wanted, fit.draws.positions.shape[:2], seed)


def draw_prior(fit: Any, draws: int, seed: int) -> Arrays:
    """Prior draws of every site and record, shape (1, draws, ...)."""
    bare = unconditioned(fit.program)
    flat = simulate(bare, {}, {}, _simulable(bare), draws, seed)
    return {name: value[None] for name, value in flat.items()}


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
    about = sites(fit.program) if fit.program is not None else fit.manifest.get("sites") or {}
    draws = {name: fit.values[name] for name in about.get("latent", ())}
    if fit.program is not None:
        from .export import dims_of

        dims, coords = dims_of(fit.program), dict(fit.program.coords)
    else:
        data = fit.stored["posterior"]
        dims = {name: tuple(map(str, data[name].dims[2:])) for name in draws}
        coords = {dim: data.coords[dim].values for dim in about.get("labelled", ()) if dim in data.coords}
    return Known(draws, dims, coords, frozenset(about.get("observed", ())))


def sites(program: Any) -> dict[str, list[str]]:
    """What a fit without its program has to remember: latent and observed sites, dims with labels."""
    if program is None:
        return {}
    kinds = {kind: [n for n, site in program.sites.items() if site.kind == kind] for kind in ("latent", "observed")}
    return {**kinds, "labelled": list(program.coords)}


def simulate(
    program: Any, given: Arrays, places: dict[str, Places], names: Iterable[str], rows: int, seed: int
) -> Arrays:
    """Simulate once per row.

    Args:
        program: An unconditioned program.
        given: Clamped sites, shape (rows, ...).
        places: Sites of ``given`` of which only some elements are clamped.
        names: Sites to return.
        rows: Number of simulations.
        seed: Determines all of them.
    """
    names = tuple(names)
    masks = {name: place.mask for name, place in places.items()}
    function = _function(program, tuple(given), tuple(masks), names)
    inputs = {"row": np.arange(rows, dtype=np.uint32), "given": given}
    run = partial(function, np.uint32(seed), list(program.arguments.data), dict(program.fixed), masks)
    work = sum(int(np.prod(site.shape)) * 8 for site in program.sites.values())
    values = in_chunks(run, inputs, work)
    return {name: values[name] for name in names}


def _function(program: Any, given: tuple[str, ...], partly: tuple[str, ...], names: tuple[str, ...]) -> Callable:
    """The compiled simulation, kept for programs that differ by their data only."""
    identity = (program.key(), tuple(program.roles.items()), given, partly, names)
    if identity not in _compiled:
        _compiled[identity] = _build(program, partly, names)
        while len(_compiled) > _KEPT:
            _compiled.popitem(last=False)
    _compiled.move_to_end(identity)
    return _compiled[identity]


def _build(program: Any, partly: tuple[str, ...], names: tuple[str, ...]) -> Callable:
    known = program.learned()

    def one(seed: Any, data: Any, fixed: Any, masks: Any, inputs: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(seed), inputs["row"])

        def play(values: Any) -> Any:
            given = {**values, **fixed}
            return program.play(data, given=given, known=known, key=key, keep=("value",))[1].out.get("value", {})

        # In the order of the model: the new elements of a site follow the old elements of its parents.
        given = {name: value for name, value in inputs["given"].items() if name not in partly}
        for name in (name for name in known if name in partly):
            old = inputs["given"][name]
            given[name] = jax.numpy.where(masks[name], old, play(given)[name].astype(old.dtype))
        values = play(given)
        return {name: values[name] for name in names}

    return jax.jit(jax.vmap(one, in_axes=(None, None, None, None, 0)))


def _posterior_simulation(
    bare: Any, known: Known, found: Match, wanted: list[str], size: tuple[int, int], seed: int
) -> Arrays:
    drawn = {name for name, site in bare.sites.items() if site.kind == "latent"} - {*found.whole}
    _refuse_factors(bare, drawn)
    chains, draws = size
    rows = {name: known.draws[name].reshape(chains * draws, *known.draws[name].shape[2:]) for name in known.draws}
    given = {name: rows[name] for name in found.whole}
    given |= {name: places.take(rows[name]) for name, places in found.partial.items()}
    flat = simulate(bare, given, found.partial, wanted, chains * draws, seed)
    return {name: value.reshape(chains, draws, *value.shape[1:]) for name, value in flat.items()}


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


def _refuse_joint(fit: Any, bare: Any, known: Known, wanted: list[str], asked: bool) -> None:
    """A site observed as one joint vector says nothing about another such vector."""
    from ppl import ModelError

    if fit.program is not None and _same_inputs(fit.program, bare):
        return
    infos = bare.learned()
    for name in wanted:
        info = infos[name]
        if name in known.observed and info.kind == "sample" and not info.plates and not info.batch and info.shape:
            raise ModelError(
                f"'{name}' was observed as one joint vector ({info.family}, {info.source}); with new inputs its draws "
                "would not know the observed ones. Put the observed and the new points into one program and condition "
                "on the first, or write the site element by element in a plate."
            )


def _same_inputs(old: Any, new: Any) -> bool:
    ours, theirs = old.arguments.data, new.arguments.data
    return (
        old.model is new.model
        and len(ours) == len(theirs)
        and all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(ours, theirs, strict=True))
    )


def _simulable(program: Any) -> list[str]:
    return [name for name, site in program.sites.items() if site.kind != "factor"]
