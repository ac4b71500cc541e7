"""From a program to a log density over a flat unconstrained vector.

The model is traced once with its data and the latent sites' unconstrained values as inputs and everything that may
be asked later as outputs: values, records, one log factor per site, log-determinants. What a question needs is cut
out of that one program; equations that read only data run once, when data are bound. Two programs that trace to
the same equations share one ``Compiled``, so new data of equal shapes, and a model defined again, never compile.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _jax, arguments, costs, movable, space
from ._later import later
from .density import Density, Labels
from .errors import ModelError, at
from .host import host_names, surfacing
from .passes import reparameterize
from .passes.hoist import Hoisted, hoist
from .passes.options import Passes
from .passes.terms import Terms, Untouched, large
from .program import Program

if TYPE_CHECKING:
    from .passes import collapse, reparameterize_hand
    from .passes import marginalize as sums
else:
    collapse = later("ppl.passes.collapse")
    reparameterize_hand = later("ppl.passes.reparameterize_hand")
    sums = later("ppl.passes.marginalize")

Array = Any


class Compiled:
    """A traced model: everything about a density but its data. Compared by identity; shared by equal programs.

    Attributes:
        program: The program that it was traced from.
        sites: What the trace learned.
        slots: Places of the latent sites in the flat vector.
        summed: Places of the finite sites that are summed out, in a vector of their codes.
        passes: Which passes rewrite the log density.
        dim: Length of the flat vector.
        fixed: Names of fixed sites, in the order of their data.
        x64: Whether it was traced in float64.
    """

    def __init__(
        self,
        program: Program,
        code: _jax.Code,
        names: list[tuple[str, str]],
        slots: dict,
        summed: dict | None = None,
        passes: Passes | None = None,
    ) -> None:
        """Keep a trace; ``names`` are ``(channel, site)`` of its outputs."""
        self.summed = summed or {}
        self.passes = passes or Passes()
        self.program = program
        self.sites = program.learned()
        self.slots = slots
        self.dim = max((slot.stop for slot in slots.values()), default=0)
        self.fixed = tuple(program.fixed)
        self.x64 = bool(jax.config.jax_enable_x64)
        self.observed = tuple(n for n in self.sites if program.role(n) == "observed")
        self.code = code
        self.names = names
        self.inputs = len(program.arguments.data) + len(self.fixed)
        self._parts: dict[Hashable, Any] = {}
        self.hand: Any = None
        self.rows: tuple[Any, ...] = ()
        self.base: Compiled = self
        self._variants: dict[Hashable, Compiled] = {}

    def by_hand(self) -> Compiled:
        """The same in the coordinates of hierarchical effects that were chosen by hand (``passes.reparameterize``)."""
        if isinstance(self.passes.reparameterize, bool):
            return self
        hand = reparameterize_hand.choose(self)
        if hand is None:
            return self
        code = reparameterize_hand.rewritten(self, hand)
        moved = Compiled(self.program, code, self.names, self.slots, self.summed, self.passes)
        moved.hand = hand
        return moved

    @cached_property
    def moves(self) -> Any:
        """Effects whose coordinates a run may learn, None where there are none."""
        return reparameterize.learned(self)

    @cached_property
    def moved_terms(self) -> Any:
        """The log density's program for coordinates that a run learns."""
        return movable.moved_terms(self)

    def part(self, outputs: Sequence[int]) -> _jax.Code:
        """The sub-program of some outputs, cached."""
        identity = tuple(outputs)
        if identity not in self._parts:
            self._parts[identity] = _jax.select(self.code, outputs)
        return self._parts[identity]

    def find(self, *channels: str, sites: Any = None) -> list[int]:
        """Indices of the outputs in some channels, of some sites or of all."""
        labels = enumerate(self.names)
        return [i for i, (channel, name) in labels if channel in channels and (sites is None or name in sites)]

    def evaluate(
        self, outputs: Sequence[int], data: Sequence[Array], z: Array, codes: Array | None = None
    ) -> dict[tuple[str, str], Array]:
        """Selected outputs at a flat position; where they read sites that are summed out, at these sites' codes."""
        pieces = space.split(z, self.slots)
        if self.summed:
            if codes is None:
                needed = set().union(*(self.reads[i] for i in outputs)) & set(self.summed)
                if needed:
                    raise ModelError(f"site {min(needed)!r} is summed out of this density; give its value")
                codes = jnp.zeros(max(slot.stop for slot in self.summed.values()), z.dtype)
            pieces |= space.split(codes, self.summed)
        values = self.part(outputs).run(*data, *pieces.values())
        return {self.names[i]: value for i, value in zip(outputs, values, strict=True)}

    @cached_property
    def terms(self) -> list[int]:
        """Outputs whose sum is the log density."""
        return self.find("factor", "logdet")

    @cached_property
    def likelihood(self) -> list[int]:
        """Outputs that are the log likelihood: the factors of observed sites, of what is known of them."""
        return self._rather("likelihood", set(self.observed))

    @cached_property
    def prior(self) -> list[int]:
        """Outputs that are the log prior, without log-determinants."""
        return self._rather("prior", set(self.slots))

    def _rather(self, channel: str, sites: set[str]) -> list[int]:
        """Outputs of sites in a channel where they have one, else their factors."""
        found = self.find(channel, sites=sites)
        return sorted(found + self.find("factor", sites=sites - {self.names[i][1] for i in found}))

    @property
    def factor_names(self) -> list[str]:
        """Sites that have a log factor."""
        return [name for channel, name in self.names if channel == "factor"]

    @cached_property
    def whole(self) -> Terms:
        """The terms of the log density, finite sites summed out, before ``collapse``: each the size that it has."""
        terms = Terms(self.part(self.terms), tuple(self.names[i] for i in self.terms))
        return sums.marginalize(self, terms) if self.summed else terms

    @cached_property
    def collapsed(self) -> Any:
        """What ``collapse`` makes of the terms, where it is wanted."""
        if not large(self.whole.code):
            return Untouched(self.whole)
        with jax.enable_x64(self.x64):
            return collapse.collapse_terms(self.whole, self.inputs, set(self.slots), self.rows, self.passes.collapse)

    @property
    def rewritten(self) -> Terms:
        """The terms of the log density after all passes but ``hoist``."""
        return self.collapsed.terms

    def fitted(self, data: Sequence[Any]) -> tuple[Compiled, tuple[Any, ...]]:
        """The program for data whose rows repeat, where that is worth it, and what it reads besides the data."""
        found = self.collapsed.choose(data)
        if not found:
            return self, ()
        key = tuple(rows for rows, _ in found)
        if key not in self._variants:
            other = copy.copy(self)
            for name in ("collapsed", "hoisted", "work", "external", "moved_terms"):
                other.__dict__.pop(name, None)
            other.rows, other.base, self._variants[key] = key, self, other
        used = self._variants[key].rewritten.rows
        return self._variants[key], tuple(x for rows, extra in found if rows in used for x in extra)

    @cached_property
    def sums(self) -> Any:
        """How the sites that are summed out are summed."""
        return sums.Sums(self)

    @cached_property
    def hoisted(self) -> Hoisted:
        """The log density's program divided into what needs data only and the rest."""
        terms = self.rewritten
        always = terms.code is not self.whole.code  # statistics of data are computed when data are bound, always
        count = self.inputs + 2 * len(terms.rows)
        return hoist(terms.code, count, 0) if always else hoist(terms.code, count)

    @cached_property
    def work(self) -> int:
        """Array elements computed by one evaluation of the log density."""
        return costs.work(self.hoisted.after)

    @cached_property
    def external(self) -> tuple[str, ...]:
        """Names of the functions on the host that one evaluation of the log density calls."""
        return host_names(self.hoisted.after)

    def calls(self, outputs: Sequence[int]) -> tuple[str, ...]:
        """Names of the functions on the host that one evaluation of some outputs calls."""
        return host_names(self.part(outputs))

    @cached_property
    def external_sites(self) -> dict[str, tuple[str, ...]]:
        """For each such function without a gradient the sites whose log factor calls it."""
        found: dict[str, tuple[str, ...]] = {}
        for i in self.terms:
            if self.reads[i]:
                for name in host_names(self.part([i]), graded=False):
                    found[name] = (*found.get(name, ()), self.names[i][1])
        return found

    def differentiable(self, outputs: Sequence[int]) -> bool:
        """Whether a sum of outputs has a gradient: a call of the host without one may stand in its way."""
        code, identity = self.part(outputs), ("gradient", *outputs)
        if not host_names(code, graded=False):
            return True
        if identity not in self._parts:
            avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in code.jaxpr.invars[len(code.consts) :]]

            def total(free: list[Array], data: list[Array]) -> Array:
                return sum((jnp.sum(x) for x in code.run(*data, *free)), jnp.zeros(()))

            self._parts[identity] = True
            try:
                with jax.enable_x64(self.x64):
                    jax.eval_shape(jax.grad(total), avals[self.inputs :], avals[: self.inputs])
            except ValueError:  # JAX: pure callbacks do not support JVP
                self._parts[identity] = False
        return self._parts[identity]

    @cached_property
    def reads(self) -> list[set[str]]:
        """For each output, the latent sites that it is computed from (through unconstrained values)."""
        names = [*self.slots, *self.summed]
        found = _jax.dependence(self.code, self.inputs + len(names))
        return [{names[i - self.inputs] for i in row if i >= self.inputs} for row in found]

    def bind(self, data: Sequence[Any], program: Program | None = None) -> Density:
        """The density of given data: arguments first, then the fixed sites' values; itself traceable."""
        data = tuple(_on_device(x) for x in data)
        chosen, extra = self.base.fitted(data)
        inputs, plan = (*data, *(_on_device(x) for x in extra)), chosen.hoisted
        with surfacing():
            head = () if plan.before is None else tuple(plan.before(*inputs))
        return Density(chosen, data, (*head, *(inputs[i] for i in plan.used)), program and Labels(program))


def _on_device(x: Any) -> Any:
    if isinstance(x, (jax.Array, jax.core.Tracer)):
        return x
    x = np.asarray(x)
    return jax.device_put(x.astype(jax.dtypes.canonicalize_dtype(x.dtype)))


# ---------------------------------------------------------------------------------------------- the cache

_by_key: dict[Hashable, Compiled] = {}
_by_code: weakref.WeakValueDictionary[Hashable, Compiled] = weakref.WeakValueDictionary()
_CACHE_SIZE = 128


def trace_program(program: Program, passes: Passes | None = None) -> Compiled:
    """Trace a program with everything that may be asked of it as outputs."""
    passes = passes or Passes()
    learned = program.learned()
    latent = program.latent()
    hidden = [n for n in latent if learned[n].discrete and passes.sums(n)]
    for name in latent:
        if learned[name].discrete and learned[name].states is None:
            raise ModelError(
                f"site {name!r} ({learned[name].family}) is a discrete latent variable without a known finite number "
                f"of states, so that it cannot be summed out, and NUTS and HMC need continuous ones:"
                f"\n{at(learned[name].source)}\n"
                "  Condition on it; write its mixture, dist.mixture(weights, components); or choose a distribution "
                "on finitely many values, such as dist.Categorical, with a number of values that no variable decides."
            )
    for name in latent:
        if learned[name].atoms:
            raise ModelError(
                f"site {name!r} ({learned[name].family}) has point masses, so its law has no density to sample from as "
                f"a latent variable:\n{at(learned[name].source)}\n  Condition on it, or write the value before "
                "censoring as the site."
            )
    slots = space.layout(learned, tuple(n for n in latent if n not in hidden))
    summed = space.layout(learned, tuple(hidden))
    names: list[tuple[str, str]] = []
    fixed = tuple(program.fixed)

    def everything(data: list[Array], values: list[Array], free: list[Array]) -> list[Array]:
        settings = {
            "given": dict(zip(fixed, values, strict=True)),
            "free": dict(zip((*slots, *summed), free, strict=True)),
            "known": learned,
            "keep": ("value", "factor", "likelihood", "logdet", *reparameterize.CHANNELS),
        }
        frame = program.play(data, **settings)[1]
        pairs = [((c, n), v) for c, kept in frame.out.items() for n, v in kept.items()]
        names[:] = [label for label, _ in pairs]
        return [value for _, value in pairs]

    dtype = jnp.result_type(float)
    free = [jax.ShapeDtypeStruct(slot.shape, dtype) for slot in (*slots.values(), *summed.values())]
    arrays = [arguments.abstract(x) for x in (*program.arguments.data, *program.fixed.values())]
    count = len(program.arguments.data)
    code, _ = _jax.trace(everything, arrays[:count], arrays[count:], free)
    return Compiled(program, code, list(names), slots, summed, passes).by_hand()


def lookup(program: Program, passes: Passes | None = None) -> Compiled:
    """The compiled form of a program, from the cache where an equal one was traced before."""
    fixed, passes = tuple(program.fixed.items()), passes or Passes()
    identity = (
        passes,
        program.key(),
        tuple((name, program.roles[name]) for name, _ in fixed),
        arguments.shape_key(tuple(value for _, value in fixed)),
    )
    found = _by_key.get(identity)
    if found is None:
        traced = trace_program(program, passes)
        signature = tuple(
            (n, i.kind, i.full_shape, i.plates, i.dims, i.discrete, program.role(n)) for n, i in traced.sites.items()
        )
        code = (_jax.key(traced.code), tuple(traced.names), signature, passes)
        found = _by_code.setdefault(code, traced)
        if len(_by_key) >= _CACHE_SIZE:
            _by_key.pop(next(iter(_by_key)))
        _by_key[identity] = found
    return found


def compile(
    program: Program,
    *,
    marginalize: Any = True,
    collapse: bool = True,
    reparameterize: Any = "auto",
    marginalize_budget: float | None = None,
) -> Any:
    """Compile a program to the log density of its latent sites.

    Args:
        program: A model called on data, with the observed sites conditioned.
        marginalize: Finite latent sites to sum out: all of them, none (False), or a collection of names. Those that
            are not summed stay in the flat vector, after the real entries, as codes 0, 1, ... of their values.
        collapse: Whether likelihoods are replaced by sufficient statistics where a cost model finds that cheaper.
        reparameterize: Coordinates of hierarchical effects, location + scale * (a standard variable) with a latent
            scale: ``"auto"``, the model's own, while an engine that can learn better ones may; False, never learned;
            ``"centred"`` or ``"noncentred"``; or by site, these, ``"learned"`` or (k, t), where k is the information of
            the data about an effect and t their estimate of it (``passes.reparameterize``).
        marginalize_budget: Most array elements that the sum may compute for one log density, 5e7 by default.

    Returns:
        The ``Density``, at a flat unconstrained vector; with subsampled plates a ``SubsampledDensity``.

    Raises:
        ModelError: A discrete latent site without known finite states, a sum beyond the budget, a support without a
            bijection, or an error in the model's text.

    Example:
        >>> import numpy as np, ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def f():
        ...     s = ppl.sample("s", dist.HalfNormal(1.0))
        ...     ppl.sample("y", dist.Normal(0.0, s))
        >>> density = ppl.compile(f().condition(y=0.0))
        >>> round(float(density(np.zeros(1))), 4)
        -1.6447
    """
    from .subsample import subsampled, subsampled_density

    passes = Passes.of(marginalize, collapse, reparameterize, marginalize_budget)
    compiled, data = lookup(program, passes), (*program.arguments.data, *program.fixed.values())
    if subsampled(program):
        if compiled.hand is not None:
            raise ModelError("reparameterize: a density with subsampled plates has the coordinates of the model's text")
        return subsampled_density(compiled, tuple(_on_device(x) for x in data), Labels(program), program)
    return compiled.bind(data, program)
