"""The protocols that every inference engine of this project is made of, and nothing else.

A *log density* maps a position to log pi(position) up to a constant. A *kernel* leaves the density's
distribution invariant; it is a frozen pytree whose leaves are its tuning. An *adapter* turns what a
kernel reports into a better-tuned kernel. An *engine* is a resumable state machine that a driver
advances block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

Array = Any
Position = Any
State = Any
Info = Any
Memory = Any
Carry = Any


@runtime_checkable
class LogDensity(Protocol):
    """A callable ``position -> log density``, up to an additive constant."""

    def __call__(self, position: Position) -> Array:
        """Evaluate the log density at one position."""
        ...


class StructuredDensity(Protocol):
    """A log density over a flat vector that knows which entries belong to which named variable."""

    dim: int

    def __call__(self, position: Array) -> Array:
        """Evaluate the log density at a flat position of shape ``(dim,)``."""
        ...

    def restrict(self, names: Any, position: Array) -> LogDensity:
        """Full conditional of ``names`` given the rest of ``position``."""
        ...


class ConditionalDensity(Protocol):
    """A log density that knows exact laws of some of its variables given the others."""

    dim: int

    def __call__(self, position: Array) -> Array:
        """Evaluate the log density at a flat position of shape ``(dim,)``."""
        ...

    def conditional(self, names: Any, position: Array) -> Proposal:
        """The law of ``names``, or of all for None, given the rest of ``position``.

        Raises:
            ValueError: If it is none that can be sampled.
        """
        ...


class NamedDensity(Protocol):
    """A log density that says what its vector means; the result of a run is then labelled as a program's is.

    Each attribute but ``dim`` may be missing.

    Attributes:
        dim: Length of the flat vector.
        labels: A name for every entry of the flat vector, such as ``theta[3]``.
        names: Names of the quantities of ``generated`` in the order in which they are shown.
        dims: Names of the axes of a quantity, by its name.
        coords: Labels along an axis, by the axis's name.
        observed: Data by name, beside the log likelihoods of ``pointwise``.
        external: Names of functions that it calls outside of JAX.
        differentiable: Whether it has a gradient.
        work: Array elements that one evaluation computes.
        finite: Numbers of states of the last entries of the vector, which are codes of finite variables.
        continuous: Number of entries that are real.
    """

    dim: int
    labels: Any
    names: Any
    dims: Any
    coords: Any
    observed: Any
    external: Any
    differentiable: bool
    work: int
    finite: tuple[int, ...]
    continuous: int

    def __call__(self, position: Array) -> Array:
        """Evaluate the log density at a flat position of shape ``(dim,)``."""
        ...

    def generated(self, position: Array) -> dict[str, Array]:
        """Values in the user's terms at a flat position: constrained variables and what derives from them."""
        ...

    def pointwise(self, position: Array) -> dict[str, Array]:
        """Log likelihood of every observation, by name."""
        ...

    def log_prior(self, position: Array) -> dict[str, Array]:
        """Log prior of every variable, by name."""
        ...

    def unconstrain(self, values: dict[str, Array]) -> Array:
        """The flat position of given values."""
        ...


class Movable(Protocol):
    """Hierarchical effects of a density, theta = m + s e, whose coordinates an engine may learn (``adapt.kappa``).

    A density over vectors z offers it as its attribute ``movable``, None where it has no such effects. Some entries of
    z are effects, either theta itself or e; in their place x has one number per effect from which, given k and t,
    e = x / sqrt(q) + (k s / q) (t - m), q = 1 + k s^2.

    Attributes:
        columns: Entries of z that are effects, shape (effects,).
        standard: Whether such an entry of z is e (else theta), shape (effects,).
        levels: The location m and scale s of an effect are computed from entries of z that are no effects and from
            effects of lower levels; shape (effects,).
        information: Fisher information of the law of e about its location, 1 for a normal one; shape (effects,).
        groups: Number of the group of each effect, shape (effects,); those of one group have much in common.
        names: Names of the groups, for messages.
    """

    columns: np.ndarray
    standard: np.ndarray
    levels: np.ndarray
    information: np.ndarray
    groups: np.ndarray
    names: tuple[str, ...]

    def at(self, k: np.ndarray, t: np.ndarray) -> LogDensity:
        """The log density of x, log-determinants included: a pytree with k and t among its leaves."""
        ...

    def places(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Locations m and scales s, shape (n, effects), at positions z of shape (n, dim)."""
        ...

    def described(self, k: np.ndarray, t: np.ndarray) -> dict[str, Any]:
        """The parameters by group, of plain numbers and lists, for the result of a run."""
        ...


class Kernel(Protocol):
    """A Markov kernel that leaves a density invariant; a frozen pytree whose leaves are its tuning.

    A kernel, or an engine, that follows the gradient of the density says so, ``gradient: ClassVar[bool] = True``; it
    is then never given a density that has none. One that moves codes of finite variables says ``finite = True``
    likewise; others are never given a density that has some.
    """

    def init(self, position: Position, density: LogDensity) -> State:
        """Make the state at a position."""
        ...

    def step(self, key: Array, state: State, density: LogDensity) -> tuple[State, Info]:
        """Take one transition."""
        ...


class Adapter(Protocol):
    """Tunes a kernel from what it reports; composes by tuple and never inspects a kernel's algorithm."""

    def init(self, kernel: Kernel, state: State) -> Memory:
        """Start with an empty memory."""
        ...

    def update(self, memory: Memory, kernel: Kernel, state: State, info: Info) -> tuple[Memory, Kernel]:
        """Learn from one transition."""
        ...

    def final(self, memory: Memory, kernel: Kernel) -> Kernel:
        """Return the kernel to be frozen for sampling."""
        ...


class StochasticDensity(Protocol):
    """An unbiased estimate of a density or of its logarithm.

    Attributes:
        unbiased: ``"density"`` if the exponential of the estimate has the density as its expectation over keys, as a
            particle filter's has; ``"logarithm"`` if the estimate has the log density, as with subsampled plates.
    """

    unbiased: str

    def __call__(self, key: Array, position: Position) -> Array:
        """Estimate the log density at one position with the randomness of ``key``."""
        ...


class Proposal(Protocol):
    """A distribution that can be sampled and scored: a guide, a flow, a Laplace fit."""

    def sample(self, key: Array) -> Position:
        """Draw one position."""
        ...

    def log_prob(self, position: Position) -> Array:
        """Log density of one position."""
        ...


class FeynmanKac(Protocol):
    """A Feynman-Kac model: initial law M0, Markov kernels M_t and potentials G_t (Del Moral, 2004)."""

    def init(self, key: Array) -> Any:
        """Draw from M0."""
        ...

    def move(self, key: Array, particle: Any, t: Array) -> Any:
        """Draw from M_t given the particle at time t-1."""
        ...

    def log_potential(self, previous: Any, particle: Any, t: Array) -> Array:
        """Log of G_t."""
        ...


@dataclass(frozen=True)
class Block:
    """What one call of ``Engine.advance`` produced.

    Attributes:
        phase: ``"start"``, ``"warmup"`` or ``"sampling"``.
        positions: Unconstrained positions, shape (chains, n, dim), or None.
        stats: Per-draw statistics by ArviZ name, each of shape (chains, n).
        metrics: Numbers for the progress display (``step_size``, ``divergences``, ...). The first block may hold
            ``inadmissible``, positions (k, dim) without a finite density, about which a driver asks the model.
    """

    phase: str
    positions: np.ndarray | None = None
    stats: dict[str, np.ndarray] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Draws:
    """The result of an engine: equally weighted draws of unconstrained positions.

    Attributes:
        positions: Shape (chains, draws, dim).
        stats: Per-draw statistics by ArviZ name, each of shape (chains, draws).
        warmup_positions: Shape (chains, warm-up draws, dim), or None where none were kept.
        warmup_stats: As ``stats``, for the warm-up.
        info: JSON-able facts about the run (plan, final tuning, restarts, counts).
    """

    positions: np.ndarray
    stats: dict[str, np.ndarray]
    warmup_positions: np.ndarray | None = None
    warmup_stats: dict[str, np.ndarray] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Chains, draws and dimension, without reading draws that lie on a disk."""
        chains, draws, dim = self.positions.shape
        return chains, draws, dim


class Engine(Protocol):
    """A resumable state machine over blocks of work; a frozen dataclass whose fields are options."""

    def plan(self, target: LogDensity) -> list[str]:
        """Say in words what will be done on this target and why."""
        ...

    def start(self, seed: int, target: LogDensity, init: Array | None = None) -> Carry:
        """Make the first carry; ``init`` optionally gives starting positions (chains, dim)."""
        ...

    def advance(self, carry: Carry, target: LogDensity, n: int) -> tuple[Carry, Block, bool]:
        """Run one block of at most ``n`` steps; the flag says that the planned work is finished."""
        ...

    def finish(self, carry: Carry, blocks: list[Block], target: LogDensity) -> Draws:
        """Put the blocks together."""
        ...


@dataclass(frozen=True)
class FunctionDensity:
    """A plain Python function as a log density over flat vectors, a pytree without leaves.

    Attributes:
        function: Maps a position to its log density.
        dim: Length of positions.
        finite: Numbers of states of the last entries of a position, which are the codes 0, 1, ... of finite variables.
    """

    function: Callable[[Array], Array]
    dim: int | None = None
    finite: tuple[int, ...] = ()

    def __call__(self, position: Array) -> Array:
        """Evaluate the function."""
        return self.function(position)

    @property
    def continuous(self) -> int | None:
        """Number of leading entries that are real."""
        return None if self.dim is None else self.dim - len(self.finite)


jax.tree_util.register_dataclass(FunctionDensity, data_fields=[], meta_fields=["function", "dim", "finite"])


def as_density(target: Any, dim: int | None = None, finite: Sequence[int] = ()) -> Any:
    """Wrap a plain function so that it can be an argument of a compiled block.

    Objects that are pytrees of their own (densities compiled by the language) pass through.

    Args:
        target: A function of a flat position, or a density.
        dim: Length of positions.
        finite: Numbers of states of the last entries of a position, if those are codes of finite variables.

    Example:
        >>> as_density(lambda z: -0.5 * z @ z, dim=2)(np.ones(2))
        np.float64(-1.0)
    """
    if isinstance(target, FunctionDensity):
        return target
    leaves = jax.tree_util.tree_leaves(target)
    if len(leaves) == 1 and leaves[0] is target:
        if getattr(target, "unbiased", None) is not None:
            return as_stochastic(target, dim or target.dim, target.unbiased)
        return FunctionDensity(target, dim, tuple(int(k) for k in finite))
    return target


@dataclass(frozen=True)
class StochasticFunction:
    """A plain Python function of a key and a position as an estimate of a density, a pytree without leaves.

    Attributes:
        function: Maps a key and a flat position to the logarithm of the estimate.
        dim: Length of positions.
        unbiased: What it estimates without bias, ``"density"`` or ``"logarithm"``.
    """

    function: Callable[[Array, Array], Array]
    dim: int | None = None
    unbiased: str = "density"

    def __call__(self, key: Array, position: Array) -> Array:
        """Evaluate the function."""
        return self.function(key, position)


jax.tree_util.register_dataclass(StochasticFunction, data_fields=[], meta_fields=["function", "dim", "unbiased"])


def as_stochastic(function: Callable[[Array, Array], Array], dim: int, unbiased: str = "density") -> Any:
    """Wrap a plain function of a key and a position as a ``StochasticDensity``.

    Args:
        function: Maps a random key and a flat position to the logarithm of an estimate.
        dim: Length of positions.
        unbiased: ``"density"`` if the exponential of the value is unbiased, ``"logarithm"`` if the value is.

    Raises:
        ValueError: Another word.

    Example:
        >>> as_stochastic(lambda key, z: -0.5 * z @ z, dim=2)(jax.random.key(0), np.ones(2))
        np.float64(-1.0)
    """
    if unbiased not in ("density", "logarithm"):
        raise ValueError(f"unbiased={unbiased!r} is neither 'density' nor 'logarithm'")
    return StochasticFunction(function, int(dim), unbiased)


def host_rng(seed: int, *path: int) -> np.random.Generator:
    """A NumPy generator (Philox, Salmon et al. 2011) keyed by a seed and a path of integers.

    Two different paths give independent streams, so draws depend on (chain, iteration, purpose) and
    never on how many numbers were consumed elsewhere.

    Example:
        >>> bool(host_rng(1, 2, 3).random() == host_rng(1, 2, 3).random())
        True
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *path])))
