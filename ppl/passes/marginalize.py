"""Marginalize: finite latent sites are summed exactly out of a density.

log p(z) = log sum over codes k of exp(sum of terms(z, k)). All elements of a plate take the same code at once: elements
cannot see each other, so that each element of a term's output is that of its own code, and K evaluations give all
tables. Which elements see which is read off the traced program (``alignment``), not off the model's text. Along a
chain, where a step reads its own state and the one before, K^2 evaluations with codes that alternate in time give the
tables of all pairs. The tables are then summed by ``elimination``: per element of plates, by the forward recursion
along chains, and jointly where elements see each other and are few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .. import _jax
from ..exact.hmm import logsumexp
from . import elimination
from .sums import Sums
from .tables import Var
from .terms import Terms

Array = Any


def marginalize(compiled: Any, terms: Terms) -> Terms:
    """Replace the terms that read summed sites by the log of their sum."""
    sums = compiled.sums
    names = list(compiled.summed)
    order = list(compiled.terms)
    direct = _jax.select(terms.code, [order.index(i) for i in sums.direct])

    def run(data: list[Array], free: list[Array]) -> list[Array]:
        inputs = [*data, *free]
        return [*direct.run(*inputs, *sums._blank()), sums.solve(inputs)[0]]

    with jax.enable_x64(compiled.x64):
        avals = sums._avals()[: -len(names)]
        code, _ = _jax.trace(run, avals[: compiled.inputs], avals[compiled.inputs :])
    labels = tuple(compiled.names[i] for i in sums.direct)
    return Terms(code, (*labels, ("summed", ", ".join(names))), (*terms.notes, *sums.notes))


def total(sums: Sums, inputs: Sequence[Array], outputs: Sequence[int]) -> Array:
    """The log sum of only some of the terms that read the summed sites."""
    return sums.solve(inputs, outputs)[0]


def recover(sums: Sums, key: Array, inputs: Sequence[Array]) -> Array:
    """An exact draw of the codes of all summed sites given everything else, as one flat vector."""
    steps = sums.solve(inputs)[1]
    codes = elimination.sampled(key, steps)
    return jnp.concatenate([jnp.ravel(_assembled(sums, s, codes)) for s in range(len(sums.names))])


def probabilities(sums: Sums, inputs: Sequence[Array]) -> dict[str, Array]:
    """Exact conditional probabilities of each summed site, shape (..., states)."""
    _, steps, where, _ = sums.solve(inputs)
    outside = elimination.outsides(steps, where)[0]
    found: dict[Var, Array] = {}
    for step, x in zip(steps, outside, strict=True):
        found |= {v: jnp.moveaxis(p, 0, -1) for v, p in step.log_marginals(x).items()}
    return {name: jnp.exp(_assembled(sums, s, found, 1)) for s, name in enumerate(sums.names)}


def _assembled(sums: Sums, site: int, values: Mapping[Var, Array], extra: int = 0) -> Array:
    """The values of all elements of a site, in its own shape, from those of its variables."""
    alone, shape = sums.classes.split(site)[0], sums.shapes[site]
    order = sums._order(site)
    parts = [values[site, element] for element in sums.classes.elements(site)]
    whole = jnp.stack(parts).reshape(*(shape[a] for a in alone), *parts[0].shape)
    places = [*alone, *order]
    return jnp.transpose(whole, (*(places.index(a) for a in range(len(shape))), *range(len(shape), len(shape) + extra)))


def pointwise(sums: Sums, inputs: Sequence[Array], outputs: Sequence[int]) -> dict[int, Array]:
    """The log densities log p(element | all other data, z) of terms that read summed sites, these summed out.

    With f(k) the element's factor and o(k) the log weight of everything else at its codes k this is
    log sum_k exp(o(k) + f(k)) - log sum_k exp(o(k)).
    """
    _, steps, where, pieces = sums.solve(inputs)
    outside = elimination.outsides(steps, where)[1]
    found: dict[int, dict[tuple[int, ...], Array]] = {}
    for factor, _, _ in where:
        piece = pieces.get(id(factor))
        if piece is None or sums.outputs[piece.term] not in outputs:
            continue
        rest, axes = outside[id(factor)], tuple(range(len(factor.roles)))
        both = jnp.broadcast_to(rest, factor.table.shape)
        value = logsumexp(both + factor.table, axes) - logsumexp(both, axes)
        found.setdefault(piece.term, {})[piece.spot] = value
    result = {}
    for term, parts in found.items():
        alone, shape = sums._labels(term)[0], sums.term_shapes[term]
        whole = jnp.stack([parts[spot] for spot in sorted(parts)]).reshape(
            *(shape[b] for b in alone), *parts[min(parts)].shape
        )
        places = [*alone, *(b for b in range(len(shape)) if b not in alone)]
        result[sums.outputs[term]] = jnp.transpose(whole, tuple(places.index(b) for b in range(len(shape))))
    return result

