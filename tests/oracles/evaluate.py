"""Everything that a density offers, evaluated once for a case by few compiled functions."""

from __future__ import annotations

import functools
import importlib
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl.compile import Density
from ppl.passes.hoist import Hoisted, hoist

from .cases import CASES, Case

POINTS = 8

for _module in ("cases_constraints", "cases_plates", "cases_chains", "cases_other"):
    importlib.import_module(f"tests.oracles.{_module}")

NAMES = sorted(CASES)


@functools.cache
def built(name: str) -> tuple[Case, Density]:
    """The case and its density."""
    case = CASES[name]()
    return case, ppl.compile(case.program)


def divided(density: Density, worth: int) -> Hoisted:
    """The density's program, divided by force (worth 0) or never."""
    compiled = density.compiled
    return hoist(compiled.part(compiled.terms), compiled.inputs, worth)


def run(plan: Hoisted, density: Density, head: Any, z: Any) -> Any:
    """Log density by a divided program."""
    pieces = [z[s.start : s.stop].reshape(s.shape) for s in density.layout.values()]
    terms = plan.after.run(*head, *(density.data[i] for i in plan.used), *pieces)
    return sum((jnp.sum(t) for t in terms), jnp.zeros(()))


def points(name: str) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """Positions: some at random, then one for each latent site in which only its block has moved from the first."""
    case, density = built(name)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    z = case.scale * rng.normal(size=(POINTS, density.dim))
    moves = []
    for site, slot in density.layout.items():
        moved = z[0].copy()
        moved[slot.start : slot.stop] += 0.3 * case.scale * rng.normal(size=slot.stop - slot.start)
        z = np.concatenate([z, moved[None]])
        moves.append((site, len(z) - 1))
    return z, moves


@functools.cache
def evaluated(name: str) -> dict[str, Any]:
    """All quantities of a case as NumPy arrays."""
    case, density = built(name)
    z, moves = points(name)
    forced = divided(density, 0)
    assert density.compiled.hoisted.before is None, "small models are not divided unless forced"
    head = () if forced.before is None else tuple(forced.before(*density.data))
    prior, likelihood = density.split()

    @jax.jit
    def everything(density, prior, likelihood, head, z):
        def gradient(f, z):
            return jax.vmap(jax.value_and_grad(f))(z)

        def hand(z):
            joint, logdet, values = case.hand(z)
            return joint + logdet, (joint, jnp.asarray(logdet, float), values)

        out = {
            "ours": gradient(density, z),
            "hoisted": gradient(lambda x: run(forced, density, head, x), z),
            "hand": jax.vmap(jax.value_and_grad(hand, has_aux=True))(z),
            "generated": jax.vmap(density.generated)(z),
            "factors": jax.vmap(density.factors)(z),
            "pointwise": jax.vmap(density.pointwise)(z),
            "log_prior": jax.vmap(density.log_prior)(z),
            "split": (jax.vmap(prior)(z), jax.vmap(likelihood)(z)),
            "round": jax.vmap(lambda x: density.unconstrain(density.constrain(x)))(z),
        }
        restricted = {}
        for site, row in moves:
            slot = density.layout[site]
            conditional = density.restrict(site, z[0])
            restricted[site] = jax.vmap(conditional)(z[jnp.array([0, row]), slot.start : slot.stop])
        return {**out, "restricted": restricted}

    found = jax.tree_util.tree_map(np.asarray, everything(density, prior, likelihood, head, z))
    (total, (joint, logdet, values)), gradient = found.pop("hand")
    found |= {"hand": (total, gradient), "joint": joint, "logdet": logdet, "values": values}
    return {**found, "z": z, "moves": moves, "saved": forced.before is not None}


def largest(a: Any, b: Any) -> float:
    """Largest error, relative where the numbers exceed one; equal infinities agree."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    assert a.shape == b.shape, (a.shape, b.shape)
    if not a.size:
        return 0.0
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(a - b) / np.maximum(1.0, np.abs(b)))
    return float(np.nan_to_num(error, nan=np.inf).max())
