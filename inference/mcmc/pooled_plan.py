"""What pooled HMC decides before it runs, from the target alone.

Decisions look at the density's cost and never at the machine's load, so machines cannot change draws.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..adapt import kinds
from ..devices import current, threads
from . import pooled_coordinates as coordinates
from .pooled_block import precision

if TYPE_CHECKING:
    from .pooled import PooledHMC

CHAINS, SMALL, MANY = 16, 8000, 64
"""Chains; the array elements of an evaluation up to which twice as many take little longer; chains that are many."""
DENSE_LIMIT, RANK, WIDE, CHEAP = 200, 32, 1000, 100
"""Greatest dimension of a dense metric; directions of one of low rank, twice as many from dimension ``WIDE`` where an
evaluation computes at most ``CHEAP`` array elements per dimension."""
MOST_SIMPLER = 1.35
_TWO_LANES = 200_000
_FOUR_LANES = 20_000_000
_LONG = 800_000
"""Array elements per evaluation of all chains, above which running a program outweighs compiling it."""


def lines(engine: PooledHMC, target: Any) -> list[str]:
    """Say what will be done on this target and why."""
    many, reason = chains(engine, target)
    count, why = lanes(engine, target)
    workers = current().workers(count, threads("cpu"))
    more = f"up to {engine.max_draws} while split R-hat exceeds {engine.rhat}"
    return [
        f"pooled Fisher HMC: {many} chains ({reason}), {engine.draws} draws each"
        + (f", {more}" if engine.max_draws > engine.draws else ""),
        f"{metric(engine, target)[3]}; geometric mean of the covariance of draws and the inverse one of gradients",
        f"{count} lane{'s' * (count > 1)} of {many // count} chains in {workers} thread{'s' * (workers > 1)}: {why}",
        f"precision {precision().name} on {platform()}, adaptation in float64 on the host; compiled for a short "
        + ("compilation" if quick(engine, target) and platform() == "cpu" else "run"),
        *_nested(many),
        "stuck chains are " + ("restarted in warm-up" if engine.restart else "kept (restart=False)"),
        *coordinates.lines(target, engine.reparameterize),
    ]


def _nested(many: int) -> list[str]:
    groups = superchains(many)
    if groups is None:
        return []
    return [f"{groups} superchains of {many // groups} chains, each from one starting point, judged by nested R-hat"]


def chains(engine: PooledHMC, target: Any) -> tuple[int, str]:
    """Number of chains and the reason, from the density's cost alone: machines must not change draws."""
    work = getattr(target, "work", None)
    cheap = work is not None and work <= SMALL
    count = CHAINS * (1 + cheap)
    if engine.chains not in (None, count):
        return int(engine.chains or 0), "as asked"
    if engine.lanes is not None and count % engine.lanes:
        return engine.lanes * -(-count // engine.lanes), f"a multiple of {engine.lanes} lanes"
    if work is None:
        return count, "the density does not say what an evaluation costs"
    return count, f"an evaluation computes {int(work):,} array elements, {'at most' if cheap else 'above'} {SMALL:,}"


def superchains(chains: int) -> int | None:
    """Groups of many chains: the number between 4 and 64 nearest to 16 that divides theirs; None up to 64 chains.

    Example:
        >>> superchains(16), superchains(512), superchains(100), superchains(101)
        (None, 16, 20, None)
    """
    divisors = [k for k in range(4, 65) if chains % k == 0]
    return min(divisors, key=lambda k: abs(k - 16)) if chains > MANY and divisors else None


def lanes(engine: PooledHMC, target: Any) -> tuple[int, str]:
    """Number of lanes and the reason, from the density's cost alone: machines must not change draws."""
    if engine.lanes is not None:
        return engine.lanes, "as asked"
    if platform() != "cpu":
        return 1, "an accelerator runs all chains at once"
    work, many = getattr(target, "work", None), chains(engine, target)[0]
    if work is None:
        return 1, "the density does not say what an evaluation costs"
    total = int(work) * many
    wanted = 1 + (total >= _TWO_LANES) + 2 * (total >= _FOUR_LANES)
    count = max(k for k in range(1, wanted + 1) if many % k == 0)
    size = f"one evaluation of all chains computes {total:,} array elements"
    return count, f"{size}, {'enough to share' if count > 1 else 'too few to share'}"


def metric(engine: PooledHMC, target: Any) -> tuple[str, int, int, str]:
    """Kind of the first metric, the dimension, the rank, and all that in words with the reason."""
    kind, dim, rank = _kind(engine, target)
    what = f"metric of rank {rank} plus diagonal" if rank else f"{kind} metric"
    if engine.metric is not None:
        return kind, dim, rank, f"{what}: as asked"
    side = "at most" if kind == kinds.DENSE else "above"
    limit = simpler(engine, target)
    diagonal = f" (a diagonal one if that takes at most {limit:.3g} times the leapfrogs)" if limit else ""
    return kind, dim, rank, f"{what}: dimension {dim} is {side} {DENSE_LIMIT}{diagonal}"


def _kind(engine: PooledHMC, target: Any) -> tuple[str, int, int]:
    dim, work = dimension(target), getattr(target, "work", None)
    kind = engine.metric or (kinds.DENSE if dim <= DENSE_LIMIT else kinds.LOW_RANK)
    wide = dim >= WIDE and work is not None and work <= CHEAP * dim
    rank = min(dim, engine.rank or (2 * RANK if wide else RANK)) if kind == kinds.LOW_RANK else 0
    return kind, dim, rank


def simpler(engine: PooledHMC, target: Any) -> float:
    """How many times the leapfrogs a diagonal metric may take, by what applying the metric costs; 0 for never.

    With c the multiplications of one product with the metric, d^2 or 2 d R, against four for each of the w array
    elements of a gradient, a leapfrog costs 1 + c / 4 w times as much as with a diagonal metric. A tenth is kept for
    the second compilation, at most 1.35 is allowed, and below c = w it never pays.
    """
    dim, work = dimension(target), getattr(target, "work", None)
    if engine.metric is not None or dim <= 50:
        return 0.0
    kind, _, rank = _kind(engine, target)
    products = dim * dim if kind == kinds.DENSE else 2 * dim * rank
    if work is None:
        return MOST_SIMPLER
    return min(MOST_SIMPLER, 0.9 * (1.0 + products / (4 * work))) if products > work else 0.0


def quick(engine: PooledHMC, target: Any) -> bool:
    """Whether to favour a short compilation, by the density's cost alone: the choice changes roundings."""
    return int(getattr(target, "work", None) or _LONG) * chains(engine, target)[0] < _LONG


def dimension(target: Any) -> int:
    """Return the target's dimension, or say why there is nothing to sample."""
    dim = getattr(target, "dim", None)
    if dim is None:
        raise ValueError("the target has no dim; wrap a plain function by as_density(function, dim)")
    if dim < 1:
        raise ValueError("the target has no coordinates: there is nothing to sample")
    return int(dim)


def platform() -> str:
    """Return the platform that will run the blocks."""
    return current().platform
