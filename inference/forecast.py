"""Forecasts: a chain goes on from its smoothed end.

p(x[T+1..T+h] | y) = integral p(x[T+1..T+h] | x[1..T], y[1..T], theta) p(x[1..T], theta | y): the first T steps are
clamped at a posterior draw and, where later steps read them, at the data; the rest is simulated, a future for each
draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from ppl.exactness import refuse_draw
from ppl.missing import latent_name
from ppl.values import MASK, PLACES

from .align import Known, places_of, rows_of
from .compiling import jit_quick
from .groups import Arrays
from .simulate import Clamped, kept


def lengthened(program: Any, horizon: int | Mapping[str, int]) -> Any:
    """The program with longer chains.

    Args:
        program: An unconditioned program.
        horizon: Steps to add to its only chain, or to chains by name.

    Raises:
        ppl.ModelError: No chain, several chains and no names, a chain with inputs, or a model that does not run with
            a longer chain.
    """
    from ppl import ModelError

    from .summary import nearest

    infos = program.learned().values()
    chains = {name: size for info in infos for name, size, kind in info.plates if kind == "markov"}
    title = f"predict(horizon={horizon!r})"
    if not chains:
        raise ModelError(
            f"{title}: model '{program.model.__name__}' has no chain (ppl.markov) with sites that could go on in time"
        )
    if not isinstance(horizon, Mapping):
        if len(chains) > 1:
            example = ", ".join(f"{name!r}: {horizon}" for name in chains)
            raise ModelError(
                f"{title}: the program has {len(chains)} chains, {', '.join(chains)}; say which goes on, or that all "
                f"do: horizon={{{example}}}"
            )
        horizon = dict.fromkeys(chains, horizon)
    for name, steps in horizon.items():
        if name not in chains:
            raise ModelError(
                f"{title}: '{name}' is not a chain of the program{nearest(name, chains)}; it has {', '.join(chains)}"
            )
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
            raise ModelError(f"{title}: the number of steps of '{name}' is a positive int, not {steps!r}")
    more = {**dict(program.horizon)}
    for name, steps in horizon.items():
        more[name] = more.get(name, 0) + int(steps)
    longer = replace(program, horizon=tuple(sorted(more.items())))
    try:
        longer.learned()
    except ModelError as error:
        raise ModelError(f"{title}: {error}") from None
    return longer


def observations(fit: Any) -> Arrays:
    """The data of a fit's observed sites, NaN in gaps."""
    if fit.program is not None:
        return {name: np.asarray(value) for name, value in fit.program.observed().items()}
    data = fit.stored.get("observed_data")
    return {} if data is None else {name: value.values for name, value in data.data_vars.items()}


def imputed(fit: Any, draws: Mapping[str, np.ndarray]) -> Arrays:
    """Data whose gaps are latent sites of the fit (``missing="impute"``), completed for every draw.

    Args:
        fit: The fit.
        draws: Draws of latent sites, shape (chains, draws, ...).
    """
    found: Arrays = {}
    if fit.program is None:
        return found
    for name, value in fit.program.conditions.items():
        if name + PLACES in fit.program.fixed:
            missing = draws[latent_name(name)]
            whole = np.repeat(np.asarray(value)[None], missing.shape[0] * missing.shape[1], axis=0)
            whole.reshape(len(whole), -1)[:, np.flatnonzero(np.isnan(value))] = missing.reshape(len(whole), -1)
            found[name] = whole
    return found


def held(fit: Any, bare: Any, known: Known, grown: Mapping[str, int]) -> Clamped:
    """Observed sites that a forecast keeps at their data: those of the chains that go on, and what others read.

    Args:
        fit: The fit.
        bare: The unconditioned program with longer chains.
        known: What the fit knows.
        grown: The longer chains, with the fit's number of steps.
    """
    found = Clamped()
    if not grown:
        return found
    read = frozenset().union(*bare.graph().parents.values())
    infos, labels, rows = bare.tidy.sites, bare.coords, imputed(fit, known.draws)
    for name, data in observations(fit).items():
        site = bare.sites.get(name)
        if site is None or site.kind != "latent" or not (name in read or set(site.dims) & set(grown)):
            continue
        places, _ = places_of(site, infos[name], data.shape, known, labels, grown, rows_of(bare))
        value = data if places is None else places.take(data[None])[0]
        here = np.ones(site.shape, bool) if places is None else places.mask
        if name in rows:
            found.rows[name] = rows[name] if places is None else places.take(rows[name])
        else:
            here = here & ~np.isnan(value) if value.dtype.kind == "f" else here
            found.values[name] = np.where(here, value, np.zeros((), value.dtype))
        if not here.all():
            found.masks[name] = here
    return found


def gaps(fit: Any, program: Any, bare: Any, known: Known) -> Clamped:
    """Values with gaps that a program is conditioned on: what is known of them stays, the rest is drawn given it.

    Args:
        fit: The fit.
        program: The program as it was handed in.
        bare: The same with its observations released, which may have longer chains.
        known: What the fit knows.
    """
    found, rows = Clamped(), imputed(fit, known.draws) if program is fit.program else {}
    for name, value in program.conditions.items():
        if name + MASK not in program.fixed or np.shape(value) != bare.sites[name].shape:
            continue
        if name in rows:
            found.rows[name] = rows[name]
        else:
            refuse_draw(program, name)
            found.masks[name] = ~np.isnan(value)
            found.values[name] = np.where(found.masks[name], value, 0.0)
    return found


def refuse_inner(program: Any, grown: Mapping[str, int]) -> None:
    """Refuse a longer chain inside of another one, whose later steps read its end."""
    from ppl import ModelError

    for info in program.tidy.sites.values():
        chains = [name for name, _, kind in info.plates if kind == "markov"]
        for inner in chains[1:]:
            if inner in grown:
                raise ModelError(
                    f"the chain '{inner}' runs in every step of '{chains[0]}' ({info.source}): were it longer, the "
                    f"steps of '{chains[0]}' that the fit knows would follow other ones. Let '{chains[0]}' go on."
                )


def refuse_other_inputs(
    old: Any, new: Any, latent: Mapping[str, Any], given: Mapping[str, Any], grown: Mapping[str, int]
) -> None:
    """Refuse a longer chain whose first inputs are not those that the fit has seen.

    Args:
        old: The fit's program.
        new: The unconditioned program with longer chains.
        latent: One draw of the latent sites.
        given: What the new program's simulations are given, for the same draw.
        grown: The longer chains, with the fit's number of steps.
    """
    from ppl import ModelError

    before = _inputs(old, {**latent, **old.fixed})
    after = _inputs(new, given)
    depth = {
        name: axis for info in new.learned().values() for axis, (name, _, _) in enumerate(info.plates) if name in grown
    }
    for label, value in before.items():
        chain = label.rpartition("/")[0]
        if chain not in grown or label not in after or chain in new.tidy.axes:
            continue
        first = np.take(after[label], np.arange(grown[chain]), axis=depth[chain])
        if first.shape != value.shape or not np.allclose(first, value, rtol=1e-5, atol=1e-8, equal_nan=True):
            raise ModelError(
                f"the chain '{chain}' goes on after {grown[chain]} steps, but its inputs in the first "
                f"{grown[chain]} steps are not those of the fit. The inputs of a forecast begin with those that were "
                "fitted; what is computed from all of them inside the model, such as their mean, is better computed "
                "before."
            )


def _inputs(program: Any, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Inputs of the program's chains at given values."""

    def run(data: Any, given: Any) -> Any:
        settings = {"given": given, "known": program.learned(), "keep": ("inputs",)}
        return program.play(data, **settings)[1].out.get("inputs", {})

    identity = ("inputs", program.key(), tuple(program.roles.items()), tuple(given))
    arguments = (list(program.arguments.data), dict(given))
    if not kept((*identity, "names"), lambda: jax.eval_shape(run, *arguments)):
        return {}
    return {name: np.asarray(value) for name, value in kept(identity, lambda: jit_quick(run))(*arguments).items()}


def refuse_places_beyond(old: Any, new: Any, latent: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse a longer chain that reads arrays beyond their ends, where JAX would repeat the last entry.

    Args:
        old: The fit's program, or None if it is not known.
        new: The unconditioned program with longer chains.
        latent: One draw of the latent sites.
        given: What the new program's simulations are given, for the same draw.
    """
    from ppl import ModelError

    found = _beyond(new, given)
    if found is None or (old is not None and _beyond(old, {**latent, **old.fixed}) is not None):
        return
    raise ModelError(
        f"the longer chain reads an array of the model beyond its end, at steps that have no entry: {found}. Give the "
        "chain its inputs as xs, not by index, and predict with the longer program: fit.predict(model(longer_xs))."
    )


def _beyond(program: Any, given: Mapping[str, Any]) -> str | None:
    """What a run at given values, the new ones zero, reads outside of an array's bounds."""
    from jax.experimental import checkify

    def run(data: Any, given: Any) -> Any:
        settings = {"given": given, "known": program.learned(), "keep": ("value", "factor")}
        return program.play(data, **settings)[1].out

    identity = ("bounds", program.key(), tuple(program.roles.items()), tuple(given))
    arguments = (list(program.arguments.data), dict(given))
    text = kept((*identity, "text"), lambda: str(jax.make_jaxpr(run)(*arguments)))
    if "gather" not in text and "dynamic_slice" not in text:
        return None
    checked = kept(identity, lambda: jit_quick(checkify.checkify(run, errors=checkify.index_checks)))
    message = checked(*arguments)[0].get()
    return None if message is None else message.strip().splitlines()[0].rstrip(". ")
