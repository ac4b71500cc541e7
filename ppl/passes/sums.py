"""The plan of a sum over finite sites: which terms are evaluated at which codes, and the factors that result.

All elements of a plate take the same code at once: elements cannot see each other, so that each element of a term's
output is that of its own code, and K evaluations give all tables. Along a chain, where a step reads its own state and
the one before, K^2 evaluations with codes that alternate in time give the tables of all pairs. Elements that others
read are variables of their own, enumerated jointly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _jax, costs
from ..errors import ModelError, at
from . import elimination
from .alignment import align
from .elimination import Problem, Stuck
from .readings import Classes, Dim, Pattern, Reading, readings
from .tables import Factor, Var

Array = Any
MOST = 256
"""Most elements that are variables of their own: each is a step of the compiled program."""


@dataclass(frozen=True)
class Piece:
    """Where a factor came from: a term, and its elements along axes whose elements are variables of their own.

    Attributes:
        term: The term's number among those that are summed.
        spot: Places along those axes.
    """

    term: int
    spot: tuple[int, ...]


class Sums:
    """How the finite sites of a traced model are summed.

    Attributes:
        compiled: The traced model.
        names: The sites that are summed.
        states: Their numbers of states.
        shapes: Their shapes.
        outputs: Terms that read them.
        direct: Terms that do not.
        terms: What each of the former reads.
        classes: Axes that belong together.
    """

    def __init__(self, compiled: Any) -> None:
        """Analyse the terms and choose what is enumerated jointly.

        Raises:
            ModelError: Too many evaluations, with their number.
        """
        self.compiled = compiled
        self.names = tuple(compiled.summed)
        self.states = tuple(compiled.sites[n].states[1] for n in self.names)
        self.shapes = tuple(slot.shape for slot in compiled.summed.values())
        hidden = set(self.names)
        self.outputs = [i for i in compiled.terms if compiled.reads[i] & hidden]
        self.direct = [i for i in compiled.terms if i not in self.outputs]
        code = compiled.part(self.outputs)
        with jax.enable_x64(compiled.x64):
            self.term_shapes = [x.shape for x in jax.eval_shape(lambda a: code.run(*a), self._avals())]
        found = align(code, compiled.inputs, compiled.inputs + len(compiled.slots), self.shapes)
        found = self._alike(code, found)
        self.terms = [readings(r, s, self.shapes) for r, s in zip(found, self.term_shapes, strict=True)]
        self.classes = Classes(self.terms, self.shapes)
        self._settle()

    def _avals(self) -> list[Any]:
        """Shapes of all inputs: data, fixed values, positions and codes."""
        code = self.compiled.code
        if isinstance(code, _jax.Opaque):
            raise ModelError(f"site {self.names[0]!r} cannot be summed out: this version of JAX is not understood")
        return [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in code.jaxpr.invars[len(code.consts) :]]

    @staticmethod
    def _alike(code: Any, found: list[Any]) -> list[Any]:
        """Reads whose index variables are one object where they are computed by the same steps."""
        first: dict[Any, Any] = {}

        def same(p: Any) -> Any:
            if p is None or p.by is None:
                return p
            atom, part = p.by
            return replace(p, by=(first.setdefault(_jax.key(_computing(code, [atom])), atom), part))

        return [{site: tuple(map(same, places)) for site, places in reads.items()} for reads in found]

    # ------------------------------------------------------------------------------------------ the plan

    def _settle(self) -> None:
        """Find an order of sums, enumerating more sites jointly until there is one, within the budget."""
        for number, term in enumerate(self.terms):
            for reading in term:
                if reading.late is not None and reading.lags[-1] > 1:
                    self.classes.part({self.classes.of(reading.site, reading.late)})
                    self._afford(f"{self._site(number)} reads {self.names[reading.site]!r} further back than one step")
        while True:
            self._afford("")
            try:
                with jax.enable_x64(self.compiled.x64):
                    jax.eval_shape(lambda inputs: self.solve(inputs)[0], self._avals()[: -len(self.names)])
                return
            except Stuck as stuck:
                left = {self.classes.of(v[0], a) for v in stuck.variables for a in self.classes.split(v[0])[1]}
                if not left:
                    names = self._listing(v[0] for v in stuck.variables)
                    raise self._refusal(f"the sum over {names} is too large") from None
                self.classes.part({min(left, key=self._weight)})

    def _weight(self, label: Any) -> float:
        """Logarithm of the number of joint states along a class."""
        axes = [(s, a) for s, shape in enumerate(self.shapes) for a in range(len(shape))]
        members = [s for s, a in axes if self.classes.of(s, a) == label]
        return self.classes.size(label) * sum(math.log(self.states[s]) for s in members)

    def _afford(self, why: str) -> None:
        cost = sum(group.cost for group in self.groups)
        apart = sum(len(list(self.classes.elements(s))) for s in range(len(self.names)) if self.classes.split(s)[0])
        if cost > self.compiled.passes.budget or apart > MOST:
            raise self._refusal(why)

    def _refusal(self, why: str) -> ModelError:
        groups = max(self.groups, key=lambda group: group.evaluations)
        site = self.compiled.sites[self.names[0]]
        lines = [f"summing {self._listing(range(len(self.names)))} out of the density is too much work"]
        lines[0] += f": {why}:" if why else ":"
        lines += [at(site.source)]
        for name, count, shape in zip(self.names, self.states, self.shapes, strict=True):
            joint = self.classes.split(self.names.index(name))[0]
            how = f", {int(np.prod([shape[a] for a in joint]))} of them jointly" if joint else ""
            lines.append(f"  {name}: {count} states in each of {int(np.prod(shape))} elements{how}")
        budget = self.compiled.passes.budget
        cost = sum(g.cost for g in self.groups)
        lines.append(
            f"  It takes {groups.evaluations:.3g} evaluations of {', '.join(sorted(groups.labels)[:4])}, some "
            f"{cost:.2g} array elements for one log density; marginalize_budget is {budget:.2g}."
        )
        lines.append(
            "  Elements that others read are enumerated together. Write what reads an element inside of its plate; or "
            "keep the codes, ppl.compile(program, marginalize=False), and draw them by Gibbs steps (mcmc.Gibbs) or "
            "with sequential Monte Carlo."
        )
        return ModelError("\n".join(lines))

    def _listing(self, sites: Any) -> str:
        return ", ".join(repr(self.names[s]) for s in dict.fromkeys(sites))

    def _site(self, number: int) -> str:
        return repr(self.compiled.names[self.outputs[number]][1])

    @property
    def groups(self) -> list[Group]:
        """Terms by the pattern of codes at which they are evaluated."""
        found: dict[Pattern, list[int]] = {}
        for number, term in enumerate(self.terms):
            found.setdefault(Pattern.of(term, self.classes), []).append(number)
        return [Group(self, pattern, tuple(numbers)) for pattern, numbers in found.items()]

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What is summed and what that costs, in words."""
        sites = []
        for number, (name, count, shape) in enumerate(zip(self.names, self.states, self.shapes, strict=True)):
            plates = [p for p, _, _ in self.compiled.sites[name].plates]
            where = f" in each of {int(np.prod(shape))} elements" + (f" of {', '.join(plates)}" if plates else "")
            alone = self.classes.split(number)[0]
            late = any(r.late is not None for term in self.terms for r in term if r.site == number) and not alone
            how = ", jointly" if alone else ", by the forward recursion" if late else ""
            sites.append(f"{name} ({count} states{where if shape else ''}{how})")
        groups = self.groups
        count = sum(g.evaluations for g in groups)
        cost = sum(g.cost for g in groups)
        return (f"summed exactly: {'; '.join(sites)}: {count:g} evaluations, {cost:.3g} array elements a density",)

    # ------------------------------------------------------------------------------------------ factors

    def solve(
        self, inputs: Sequence[Array], outputs: Sequence[int] | None = None, edit: Any = None
    ) -> tuple[Array, list[elimination.Step], list[Any], dict[int, Piece]]:
        """The log sum at given data, fixed values and positions.

        Args:
            inputs: These.
            outputs: Only these terms.
            edit: From an output and its values at all codes, which stand in front of its axes, to other values.

        Returns:
            The sum, the steps, where each factor went, and the piece that each factor is, by the factor's identity.
        """
        tokens: dict[Any, Any] = {}
        factors, pieces = [], {}
        for group in self.groups:
            if outputs is not None:
                group = group.only(outputs)
            for number, table in group.tables(inputs):
                if edit is not None:
                    table = edit(self.outputs[number], table)
                for factor, piece in self._factors(group.pattern, number, table, tokens):
                    factors.append(factor)
                    pieces[id(factor)] = piece
        axes: dict[Var, tuple[Any, ...]] = {}
        for site in range(len(self.names)):
            order = self._order(site)
            for element in self.classes.elements(site):
                axes[site, element] = tuple(self.classes.of(site, a) for a in order)
        sizes = {label: self.classes.size(label) for labels in axes.values() for label in labels}
        limit = self.compiled.passes.budget
        problem = Problem(self.states, axes, sizes, self._indices(tokens, inputs), limit)
        total, steps, where = problem.solve(factors)
        return total, steps, where, pieces

    def _order(self, site: int) -> list[int]:
        """Axes of a site along which it is summed side by side, that of its chain first."""
        late = {r.late for term in self.terms for r in term if r.site == site} - {None}
        return sorted(self.classes.split(site)[1], key=lambda a: (a not in late, a))

    def _indices(self, tokens: Mapping[Any, Any], inputs: Sequence[Array]) -> dict[Any, Array]:
        """The values of the index variables."""
        if not tokens:
            return {}
        atoms = list(dict.fromkeys(atom for atom, _ in tokens))
        values = _computing(self.compiled.part(self.outputs), atoms).run(*inputs, *self._blank())
        found = dict(zip(atoms, values, strict=True))
        return {
            (atom, part): jnp.clip(found[atom].reshape(-1, found[atom].shape[-1])[:, part], 0, size - 1)
            for (atom, part), size in tokens.items()
        }

    def _blank(self) -> list[Array]:
        dtype = jnp.result_type(float)
        return [jnp.zeros(shape, dtype) for shape in self.shapes]

    def _factors(
        self, pattern: Pattern, number: int, table: Array, tokens: dict[Any, Any]
    ) -> Iterator[tuple[Factor, Piece]]:
        """The factors of one term: one, or one for each element along axes whose elements are apart."""
        term, rank = self.terms[number], len(self.term_shapes[number])
        dims = pattern.dims(self.shapes)
        alone, labels = self._labels(number)
        rest = [b for b in range(rank) if b not in alone]
        for spot in itertools.product(*(range(self.term_shapes[number][b]) for b in alone)):
            place = dict(zip(alone, spot, strict=True))
            part = table[(slice(None),) * len(dims) + tuple(place.get(b, slice(None)) for b in range(rank))]
            roles, uses, left = [], {}, list(dims)
            for reading in term:
                own = [d for d in left if d.site == reading.site]
                part, left, found = self._resolve(reading, part, left, own, place, rest)
                for var, lag in found:
                    roles.append((var, lag))
                    use = []
                    for axis in self._order(reading.site):
                        p = reading.places[axis]
                        assert p is not None
                        if p.by is not None:
                            tokens[p.by] = self.shapes[reading.site][axis]
                        use.append((labels[p.axis], p.by))
                    uses[var] = tuple(use)
            axes = tuple(labels[b] for b in rest)
            yield Factor(part, tuple(roles), axes, uses), Piece(number, spot)

    def _labels(self, number: int) -> tuple[list[int], dict[int, Any]]:
        """Axes of a term whose elements are apart, and the classes of all its axes."""
        labels: dict[int, Any] = {b: (-1 - number, b) for b in range(len(self.term_shapes[number]))}
        for reading in self.terms[number]:
            for axis, place in enumerate(reading.places):
                if place is not None and place.by is None:
                    labels[place.axis] = self.classes.of(reading.site, axis)
        return [b for b, label in labels.items() if label in self.classes.apart], labels

    def _resolve(
        self, reading: Reading, part: Array, left: list[Dim], own: list[Dim], place: Mapping[int, int], rest: list[int]
    ) -> tuple[Array, list[Dim], list[Any]]:
        """Turn the free codes of a site, which stand in front of a table after others' roles, into roles."""
        alone, late = self.classes.split(reading.site)[0], reading.late
        joint = [a for a in alone if reading.places[a] is None or reading.places[a].by is not None]  # type: ignore[union-attr]
        period, lags = reading.period, reading.lags
        elements = list(dict.fromkeys(d.element for d in own))
        start = part.ndim - len(rest) - len(left)
        roles: list[Any] = []
        for element in elements:
            known = dict(zip(joint, element, strict=True))
            if late is not None and late not in alone and period > 1:
                part = _turned(part, start, period, lags, part.ndim - len(rest) + rest.index(reading.places[late].axis))  # type: ignore[union-attr]
                spots = [(dict(known), lag, True) for lag in lags]
            elif late is not None and late in alone:
                now = place[reading.places[late].axis]  # type: ignore[union-attr]
                phases = {(now - lag) % period: now - lag for lag in lags}
                spots = [({**known, late: phases.get(p, -1)}, 0, phases.get(p, -1) >= 0) for p in range(period)]
            else:
                spots = [(dict(known), lags[0], True)]
            for spot, lag, kept in spots:
                if not kept:
                    part = jax.lax.index_in_dim(part, 0, start, keepdims=False)
                    continue
                where = {a: place[reading.places[a].axis] for a in alone if a not in joint and a != late}  # type: ignore[union-attr]
                full = {**where, **spot}
                roles.append(((reading.site, tuple(full[a] for a in alone)), lag))
                start += 1
        return part, [d for d in left if d.site != reading.site], roles


def _computing(code: Any, atoms: Sequence[Any]) -> Any:
    """The program that computes some of the variables of a program."""
    whole = _jax.Code(_jax.rebuild(code.jaxpr, code.jaxpr.invars, atoms, code.jaxpr.eqns), code.consts)
    return _jax.select(whole, range(len(atoms)))


def _turned(table: Array, start: int, period: int, lags: Sequence[int], time: int) -> Array:
    """From axes of phases to axes of lags: at time t the code ``lag`` steps before has phase (t - lag) mod period."""
    found: Array = None
    unread = period - len(lags)
    steps = jnp.arange(table.shape[time]) % period
    for now in range(period):
        phases = [(now - lag) % period for lag in lags]
        part = jnp.moveaxis(table, [start + p for p in phases], list(range(start, start + len(lags))))
        for _ in range(unread):
            part = jax.lax.index_in_dim(part, 0, start + len(lags), keepdims=False)
        shape = [1] * part.ndim
        shape[time - unread] = -1
        mask = (steps == now).reshape(shape)
        found = part if found is None else jnp.where(mask, part, found)
    return found


@dataclass(frozen=True, eq=False)
class Group:
    """Terms that are evaluated together.

    Attributes:
        sums: The whole.
        pattern: How codes are varied.
        numbers: The terms.
    """

    sums: Sums
    pattern: Pattern
    numbers: tuple[int, ...]

    def only(self, outputs: Sequence[int]) -> Group:
        """Some of the terms."""
        return replace(self, numbers=tuple(n for n in self.numbers if self.sums.outputs[n] in outputs))

    @property
    def _outputs(self) -> list[int]:
        return [self.sums.outputs[n] for n in self.numbers]

    @property
    def labels(self) -> set[str]:
        """Names of the sites of these terms."""
        return {self.sums.compiled.names[i][1] for i in self._outputs}

    @property
    def evaluations(self) -> float:
        """Number of configurations of codes."""
        return math.prod(float(self.sums.states[d.site]) for d in self.pattern.dims(self.sums.shapes))

    @property
    def cost(self) -> float:
        """Array elements that all evaluations compute."""
        return self.evaluations * max(1, costs.work(self.sums.compiled.part(self._outputs)))

    def tables(self, inputs: Sequence[Array]) -> Iterator[tuple[int, Array]]:
        """For each term its values, with one axis in front for each free code."""
        sums, dims = self.sums, self.pattern.dims(self.sums.shapes)
        if not self.numbers:
            return
        code = sums.compiled.part(self._outputs)
        counts = [sums.states[d.site] for d in dims]
        dtype = jnp.result_type(float)
        grid = np.indices(counts).reshape(len(counts), -1).T.astype(dtype)
        which = {part[0]: self.pattern.which(part, sums.shapes, dims) for part in self.pattern.parts}

        def one(config: Array) -> list[Array]:
            codes = sums._blank()
            for site, number in which.items():
                same = number.size and (number == number.flat[0]).all()
                codes[site] = (
                    jnp.broadcast_to(config[number.flat[0]], number.shape) if same else config[jnp.asarray(number)]
                )
            return code.run(*inputs, *codes)

        for number, table in zip(self.numbers, jax.vmap(one)(jnp.asarray(grid)), strict=True):
            yield number, table.reshape(*counts, *table.shape[1:])
