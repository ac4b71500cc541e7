"""Sum-product on plates: finite variables summed one after the other, elements of a plate side by side.

A factor is a table with one axis for each variable that it reads and one for each plate that it stands in. To sum a
variable v, the factors that read it are added up over the plates that v does not stand in (their elements are
independent given v), then v is summed in each of its elements: what remains is a factor of the other variables. That
is possible if the other variables stand in no plate that v does not stand in. Along a chain, where factors read a
state and the one before, the sum is the forward recursion of all states of the chain together.

Every step keeps what the way back needs: draws given the variables that are summed later, and log probabilities.

References: Obermeyer et al. (2019), Tensor variable elimination for plated factor graphs; Kschischang, Frey and
Loeliger (2001), Factor graphs and the sum-product algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ..exact import hmm
from ..exact.hmm import logsumexp
from .tables import Factor, Label, Places, Role, Use, Var, arranged, chosen

Array = Any


class Stuck(Exception):
    """No variable can be summed before the others.

    Attributes:
        variables: Those that are left.
    """

    def __init__(self, variables: Sequence[Var]) -> None:
        """Keep the variables."""
        super().__init__(variables)
        self.variables = tuple(variables)


@dataclass(frozen=True, eq=False)
class Step:
    """One sum: of a variable in each of its elements, or of the states of a chain.

    Attributes:
        group: The variables that are summed.
        states: Their numbers of states.
        chain: Whether along a chain; its axis is the first one.
        factors: What was added up.
        places: How each factor's axes became those of the variables.
        others: Roles that remain.
        spots: For each of the others its use of the axes that remain.
        parts: The factors' tables, reduced and with axes ``(roles, axes)``.
        sizes: Sizes of the axes.
        messages: Of the forward recursion.
    """

    group: tuple[Var, ...]
    states: tuple[int, ...]
    chain: bool
    factors: tuple[Factor, ...]
    places: tuple[Places, ...]
    others: tuple[Role, ...]
    spots: Mapping[Var, Places]
    parts: tuple[Array, ...]
    sizes: tuple[int, ...]
    messages: Any = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """Roles of the tables: in a chain the states before, the states, and the others."""
        before = tuple((v, 1) for v in self.group) if self.chain else ()
        return (*before, *((v, 0) for v in self.group), *self.others)

    def total(self, without: int | None = None) -> Array:
        """The sum of the parts, or of all but one."""
        shape = self._shape
        kept = [part for i, part in enumerate(self.parts) if i != without]
        dtype = self.parts[0].dtype
        return sum(kept, jnp.zeros(shape, dtype)) if kept else jnp.zeros(shape, dtype)

    @property
    def _shape(self) -> tuple[int, ...]:
        return jnp.broadcast_shapes(*(part.shape for part in self.parts), self._least)

    @property
    def _least(self) -> tuple[int, ...]:
        states = self.states * 2 if self.chain else self.states
        return (*states, *(1 for _ in self.others), *self.sizes)

    def stepped(self, table: Array) -> Array:
        """A chain's table with axes (time, states before, states, others, rest)."""
        n, width = len(self.group), _product(self.states)
        time = 2 * n + len(self.others)
        table = jnp.moveaxis(table, time, 0)
        return table.reshape(table.shape[0], width, width, *table.shape[1 + 2 * n :])

    def unstepped(self, table: Array) -> Array:
        """Inverse of ``stepped``."""
        n = len(self.group)
        table = table.reshape(table.shape[0], *self.states, *self.states, *table.shape[3:])
        return jnp.moveaxis(table, 0, 2 * n + len(self.others))

    def up(self) -> tuple[Array, Any]:
        """The log sum, of shape (others, axes), and messages."""
        total = self.total()
        if not self.chain:
            return logsumexp(total, 0), None
        steps = self.stepped(total)
        messages, value = hmm.forward(steps[0, 0], steps[1:])
        return value, messages

    def sample(self, key: Array, codes: Mapping[Var, Array]) -> dict[Var, Array]:
        """Codes of the variables given those that were summed later; codes have the shapes of their plates."""
        rest = self.sizes[1:] if self.chain else self.sizes
        places = []
        for var, _ in self.others:
            spot = self.spots[var]
            labels = tuple(range(len(rest)))
            places.append(jnp.broadcast_to(spot.expand(codes[var], labels), rest))
        if not self.chain:
            logits = chosen(self.total(), 1, places)
            return {self.group[0]: jax.random.categorical(key, logits, axis=0)}
        steps = chosen(self.stepped(self.total()), 3, places)
        messages = chosen(self.messages, 2, places)
        joint = hmm.backward_sample(key, messages, steps[1:])
        parts = jnp.unravel_index(joint, self.states)
        return dict(zip(self.group, parts, strict=True))

    def log_marginals(self, outside: Array) -> dict[Var, Array]:
        """Log probabilities of the variables' states, shape (states, axes); ``outside`` as of ``down``."""
        count = len(self.others)
        if not self.chain:
            log = logsumexp(self.total() + outside, tuple(range(1, 1 + count)))
            return {self.group[0]: log - logsumexp(log, 0)}
        steps = self.stepped(self.total())
        both = self.messages + hmm.backward(steps[0, 0], steps[1:]) + outside
        log = logsumexp(both, tuple(range(2, 2 + count)))
        log = jnp.moveaxis(log - logsumexp(log, 1)[:, None], 0, 1)
        log = log.reshape(*self.states, *log.shape[1:])
        n = len(self.group)
        return {v: logsumexp(log, tuple(a for a in range(n) if a != i)) for i, v in enumerate(self.group)}

    def down(self, number: int, outside: Array) -> Array:
        """Log weight of everything but one factor, shape (roles, axes) of the factor, up to constants in each element.

        Args:
            number: Which factor.
            outside: The same of this step's result, shape (others, axes).
        """
        factor, place = self.factors[number], self.places[number]
        rest = self.total(number)
        if self.chain:
            steps = self.stepped(self.total())
            after = hmm.backward(steps[0, 0], steps[1:])
            first = jnp.where(jnp.arange(steps.shape[1]) == 0, 0.0, -jnp.inf).astype(steps.dtype)
            first = jnp.broadcast_to(first.reshape(-1, *(1,) * (steps.ndim - 3)), steps.shape[1:2] + steps.shape[3:])
            before = jnp.concatenate([first[None], self.messages[:-1]])
            rest = self.unstepped(self.stepped(rest) + before[:, :, None] + after[:, None] + outside)
        else:
            rest = rest + outside
        roles = self.roles
        rest = logsumexp(rest, tuple(i for i, role in enumerate(roles) if role not in factor.roles))
        kept = [role for role in roles if role in factor.roles]
        rest = arranged(rest, kept, factor.roles)
        return place.expand(rest, factor.axes) + place.others(factor.table, factor.axes)


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


@dataclass(frozen=True, eq=False)
class Problem:
    """Factors of finite variables.

    Attributes:
        states: Number of states of each site.
        axes: Classes of the axes of each variable.
        sizes: Size of each class.
        indices: Index arrays.
        limit: Most entries of a table.
    """

    states: Sequence[int]
    axes: Mapping[Var, tuple[Label, ...]]
    sizes: Mapping[Label, int]
    indices: Mapping[Any, Array]
    limit: float = float("inf")

    def solve(self, factors: Sequence[Factor]) -> tuple[Array, list[Step], list[tuple[Factor, int, int]]]:
        """Sum all variables.

        Returns:
            The log sum; the steps in order; and for each factor that was summed ``(factor, step, place in it)``.

        Raises:
            Stuck: No order exists.
        """
        left, live = dict.fromkeys(self.axes), list(factors)
        steps: list[Step] = []
        total, where = [], []
        while left:
            group = self._next(list(left), live)
            inside = [f for f in live if any(var in group for var, _ in f.roles)]
            live = [f for f in live if f not in inside]
            step = self._step(group, inside)
            value, messages = step.up()
            steps.append(replace(step, messages=messages))
            where += [(factor, len(steps) - 1, i) for i, factor in enumerate(inside)]
            live.append(self._result(step, value, len(steps) - 1))
            for var in group:
                del left[var]
            total += [f.table for f in live if not f.roles]
            where += [(f, -1, 0) for f in live if not f.roles]
            live = [f for f in live if f.roles]
        return sum((jnp.sum(x) for x in total), jnp.zeros(())), steps, where

    def _lagged(self, factors: Sequence[Factor]) -> list[tuple[Var, ...]]:
        """Variables of chains, those together that a factor reads together."""
        lagged = {var for f in factors for var, lag in f.roles if lag}
        groups = [{var} for var in sorted(lagged)]
        for f in factors:
            members = {var for var, _ in f.roles} & lagged
            near = [g for g in groups if g & members]
            if len(near) > 1:
                groups = [g for g in groups if g not in near] + [set().union(*near)]
        return [tuple(sorted(g)) for g in groups]

    def _next(self, left: list[Var], factors: Sequence[Factor]) -> tuple[Var, ...]:
        chains = self._lagged(factors)
        single = [(var,) for var in left if not any(var in g for g in chains)]
        fit = [(self._cost(g, factors), g) for g in [*single, *chains] if self._possible(g, factors)]
        if not fit:
            raise Stuck(left)
        return min(fit)[1]

    def _possible(self, group: tuple[Var, ...], factors: Sequence[Factor]) -> bool:
        if len({self.axes[var] for var in group}) > 1:
            return False
        chain = any(var in group and lag for f in factors for var, lag in f.roles)
        seen: dict[Var, Use] = {}
        for f in factors:
            inside = [var for var, _ in f.roles if var in group]
            if not inside:
                continue
            own = f.uses[inside[0]]
            if any(f.uses[var] != own for var in inside):
                return False
            places = dict(own[1:] if chain else own)
            for var in {v for v, _ in f.roles} - set(group):
                for label, index in f.uses[var]:
                    if label not in places or places[label] not in (None, index):
                        return False
                spot = self._spot(f.uses[var], own, self.axes[group[0]])
                if seen.setdefault(var, spot) != spot:
                    return False
        return True

    @staticmethod
    def _spot(use: Use, own: Use, axes: tuple[Label, ...]) -> Use:
        """How another variable's axes are found among those of a variable that is summed."""
        labels = [label for label, _ in own]
        at = [(labels.index(label), index) for label, index in use]
        return tuple((axes[i], index if own[i][1] is None else None) for i, index in at)

    def _cost(self, group: tuple[Var, ...], factors: Sequence[Factor]) -> tuple[int, int]:
        """Number of axes, most first, then the size of the table."""
        near = [f for f in factors if any(var in group for var, _ in f.roles)]
        others = {role for f in near for role in f.roles if role[0] not in group}
        size = _product([self.states[var[0]] for var in (*group, *(v for v, _ in others))])
        return -len(self.axes[group[0]]), size

    def _step(self, group: tuple[Var, ...], factors: Sequence[Factor]) -> Step:
        axes = self.axes[group[0]]
        chain = any(var in group and lag for f in factors for var, lag in f.roles)
        sizes = tuple(self.sizes[label] for label in axes)
        others = tuple(dict.fromkeys(role for f in factors for role in f.roles if role[0] not in group))
        front = int(chain)
        spots: dict[Var, Places] = {}
        places, parts = [], []
        for f in factors:
            own = next(f.uses[var] for var, _ in f.roles if var in group)
            places.append(Places(own, sizes, self.indices))
            for var in {v for v, _ in f.roles} - set(group):
                spot = self._spot(f.uses[var], own, axes)
                numbered = tuple((axes.index(label) - front, index) for label, index in spot)
                spots[var] = Places(numbered, sizes[front:], self.indices)
        states = tuple(self.states[var[0]] for var in group)
        bare = Step(group, states, chain, tuple(factors), tuple(places), others, spots, (), sizes)
        for f, place in zip(factors, places, strict=True):
            parts.append(arranged(place.reduce(f.table, f.axes), f.roles, bare.roles))
        whole = _product([self.states[v[0]] for v, _ in bare.roles]) * _product(sizes)
        if whole > self.limit:
            raise Stuck(group)
        return Step(group, states, chain, tuple(factors), tuple(places), others, spots, tuple(parts), sizes)

    def _result(self, step: Step, value: Array, number: int) -> Factor:
        axes = self.axes[step.group[0]][1:] if step.chain else self.axes[step.group[0]]
        uses = {v: tuple((axes[i], index) for i, index in spot.use) for v, spot in step.spots.items()}
        return Factor(value, step.others, axes, uses, number)


def sampled(key: Array, steps: Sequence[Step]) -> dict[Var, Array]:
    """Codes of all variables, drawn jointly from their exact distribution."""
    codes: dict[Var, Array] = {}
    for number, step in reversed(list(enumerate(steps))):
        codes |= step.sample(jax.random.fold_in(key, number), codes)
    return codes


def outsides(steps: Sequence[Step], where: Sequence[tuple[Factor, int, int]]) -> tuple[list[Array], dict[int, Array]]:
    """The way back: the outside of every step's result, and that of every other factor by its identity."""
    made = {factor.step: (factor, step, place) for factor, step, place in where if factor.step is not None}
    results: list[Array] = [None] * len(steps)
    for number in reversed(range(len(steps))):
        factor, step, place = made[number]
        results[number] = jnp.zeros_like(factor.table) if step < 0 else steps[step].down(place, results[step])
    rest = [(factor, step, place) for factor, step, place in where if factor.step is None]
    return results, {id(factor): steps[step].down(place, results[step]) for factor, step, place in rest}
