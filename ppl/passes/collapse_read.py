"""Reading a term as a form: one rule for each primitive, and what to do where none applies.

Data stay data, small tables of latents stay tables, and what mixes them becomes a form (``collapse_forms``). A
nonlinear function of one table is that table's own function, gathered afterwards. A nonlinear function of a mixture is
computed once for each distinct row of data, where rows repeat (``collapse_rows``); else it is computed as the program
says, and counts as a table without repetition.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _jax, costs
from . import collapse_arithmetic, collapse_axes
from .collapse_forms import (
    Block,
    Form,
    Index,
    add,
    agree,
    first,
    inwards,
    known,
    move,
    rank,
    table,
)
from .collapse_rows import Locality, Root, elementwise
from .collapse_squares import reduce_square
from .collapse_sums import both, contract, reduce_block

Array = Any

_CALLED: dict[str, Callable] = {
    "xlogy": lambda x, y: jax.scipy.special.xlogy(x, y),
    "xlog1py": lambda x, y: jax.scipy.special.xlog1py(x, y),
    "logaddexp": lambda x, y: jnp.logaddexp(x, y),
    "log_ndtr": lambda x: jax.scipy.special.log_ndtr(x),
    "relu": lambda x: jax.nn.relu(x),
    "logit": lambda x: jax.scipy.special.logit(x),
}


class Reader:
    """Reads one term of a program whose first ``known`` inputs are data.

    Attributes:
        asked: Inputs whose rows would have to repeat for more to be gained; None once that is impossible.
        said: What was gained, in words.
    """

    def __init__(self, code: Any, known_inputs: int, args: Sequence[Array], long: int, budget: float) -> None:
        """Take the program and the arrays of its inputs, constants left out.

        ``long`` is the length of an axis of observations, ``budget`` the price of what may be left as it is.
        """
        jaxpr, offset = code.jaxpr, len(code.consts)
        self.jaxpr, self.long, self.budget = jaxpr, long, budget
        self.plain: dict[Any, Array] = dict(zip(jaxpr.invars, (*code.consts, *args), strict=True))
        self.early = set(jaxpr.invars[: offset + known_inputs])
        self.locality = Locality(jaxpr, offset + known_inputs)
        self.order = {id(eqn): i for i, eqn in enumerate(jaxpr.eqns)}
        self.forms: dict[Any, Form] = {}
        self.numbers: dict[Hashable, int] = {}
        self.asked: set[Root] | None = set()
        self.said: list[str] = []
        self.rows: tuple[frozenset[Root], Array, Array] | None = None
        self.compact: dict[Any, Array] = {}
        self.changed: set[Any] = set()
        self.hopeful = False
        self.one = jax.lax.full((), 1, jaxpr.outvars[0].aval.dtype)

    def repeat(self, roots: Sequence[Root], kept: Array, codes: Array) -> None:
        """Let observations with equal rows of ``roots`` be computed once: those in ``kept``, by ``codes``."""
        self.rows = frozenset(roots), kept, codes

    def total(self) -> Array | None:
        """The sum of the term, or None where nothing is gained."""
        for eqn in self.jaxpr.eqns:
            self._step(eqn)
            if self.budget < 0:
                return None
        var = self.jaxpr.outvars[0]
        form = self.form(var)
        found = self.reduced(form, range(len(form.shape)))
        if found is None:
            return None
        parts = [contract(*both(b, 0)) for b in found.blocks]
        return sum(parts[1:], parts[0])

    # ------------------------------------------------------------------------------------------ one equation

    def value(self, atom: Any) -> Array:
        """The array of an operand, as the program computes it."""
        if _jax.is_literal(atom):
            return np.asarray(atom.val, atom.aval.dtype)
        if atom not in self.plain:
            self._compute(atom)
        return self.plain[atom]

    def _compute(self, atom: Any) -> None:
        """Trace the equations of the program that an intermediate needs."""
        needed: dict[int, Any] = {}
        stack = [atom]
        while stack:
            var = stack.pop()
            if _jax.is_literal(var) or var in self.plain:
                continue
            eqn = self.locality.producer[var]
            if id(eqn) not in needed:
                needed[id(eqn)] = eqn
                stack.extend(eqn.invars)
        for eqn in sorted(needed.values(), key=lambda e: self.order[id(e)]):
            outputs = _jax.evaluate(self.jaxpr, eqn, [self.value(v) for v in eqn.invars])
            self.plain.update(zip(eqn.outvars, outputs, strict=True))

    def form(self, atom: Any) -> Form:
        """The form of an operand."""
        if _jax.is_literal(atom) or atom in self.early:
            return self._known(atom)
        if atom not in self.forms:
            self.forms[atom] = table(self.value(atom))
        return self.forms[atom]

    def _known(self, atom: Any) -> Form:
        """Data, with axes of length one where they are the same along them."""
        small = None if _jax.is_literal(atom) else self.compact.get(atom)
        if small is None:
            return known(self.value(atom))
        return replace(known(small), shape=tuple(atom.aval.shape))

    def _compacted(self, eqn: Any) -> Array | None:
        """The output of an equation of data with axes of length one where it is the same along them."""
        shape, name = eqn.outvars[0].aval.shape, eqn.primitive.name
        args = [v if _jax.is_literal(v) else self.compact.get(v) for v in eqn.invars]
        if name == "broadcast_in_dim":
            x = self.value(eqn.invars[0])
            sizes = [1] * len(shape)
            for a, b in enumerate(eqn.params["broadcast_dimensions"]):
                sizes[b] = x.shape[a]
            return jax.lax.reshape(x, sizes) if tuple(sizes) != shape else None
        wide = any(a is None and v.aval.ndim for a, v in zip(args, eqn.invars, strict=True))
        if wide or not elementwise(eqn) or name == "custom_jvp_call":
            return None
        forms = [rank(self._known(v), shape) for v in eqn.invars]
        if not all(f.pure for f in forms):
            return None
        return eqn.primitive.bind(*(f.latent for f in forms), **eqn.params)

    def is_data(self, atom: Any) -> bool:
        """Whether an operand reads only data."""
        return _jax.is_literal(atom) or atom in self.early

    def _step(self, eqn: Any) -> None:
        if not eqn.effects and all(self.is_data(v) for v in eqn.invars):
            self.early.update(eqn.outvars)
            if len(eqn.outvars) == 1 and self.long in eqn.outvars[0].aval.shape:
                small = self._compacted(eqn)
                self.compact.update({} if small is None else {eqn.outvars[0]: small})
            return
        late = [v for v in eqn.invars if not self.is_data(v)]
        if len(eqn.outvars) == 1 and any(v in self.changed or self.long in v.aval.shape for v in (*late, *eqn.outvars)):
            self.hopeful = False
            found = self._rule(eqn)
            if found is not None:
                self.changed.add(eqn.outvars[0])
                self.forms[eqn.outvars[0]] = found
                return
        if self.rows is not None or not self.hopeful:
            self.budget -= costs.equation_price(eqn)

    def _rule(self, eqn: Any) -> Form | None:
        name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
        if elementwise(eqn):
            forms = [rank(self.form(v), shape) for v in eqn.invars]
            found = self._of_tables(eqn, forms)
            rule = collapse_arithmetic.RULES.get(_jax.library_function(eqn) or name)
            if found is None and rule is not None and jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating):
                found = rule(self, eqn, forms)
            if found is None:
                found = self._of_rows(eqn, forms)
            return found
        if name == "reduce_sum":
            if not jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating):
                return None
            return self.reduced(self.form(eqn.invars[0]), eqn.params["axes"])
        if name in ("reduce_max", "reduce_min"):
            return self._extreme(eqn)
        rule = collapse_axes.RULES.get(name)
        found = None if rule is None else rule(self, eqn)
        return self._of_whole_tables(eqn) if found is None else found

    def _of_whole_tables(self, eqn: Any) -> Form | None:
        """Any function of tables without codes."""
        forms = [None if self.is_data(v) else self.form(v) for v in eqn.invars]
        if any(f is not None and not (f.pure and f.index is None) for f in forms):
            return None
        values = [
            self.value(v) if f is None else jnp.broadcast_to(f.latent, v.aval.shape)
            for f, v in zip(forms, eqn.invars, strict=True)
        ]
        return table(_jax.evaluate(self.jaxpr, eqn, values)[0])

    def _of_tables(self, eqn: Any, forms: Sequence[Form]) -> Form | None:
        """An elementwise function of tables gathered by the same codes."""
        if not all(f.pure for f in forms):
            return None
        indices = [f.index for f in forms if f.index is not None]
        if not agree([f.blocks[0] for f in forms]):
            return None
        arrays = jnp.broadcast_arrays(*(f.latent for f in forms))
        called = _jax.library_function(eqn)
        found = eqn.primitive.bind(*arrays, **eqn.params) if called is None else _CALLED[called](*arrays)
        return table(found, eqn.outvars[0].aval.shape, indices[0] if indices else None)

    # ------------------------------------------------------------------------------------------ repeated rows

    def _asks(self, pairs: Sequence[tuple[Any, int]]) -> bool:
        """Note that rows of these operands should repeat; whether the choice made covers them."""
        roots = self.locality._union(pairs)
        if roots is None:
            self.asked = None
        elif self.asked is not None:
            self.asked |= roots
            self.hopeful = True
        return roots is not None and self.rows is not None and roots <= self.rows[0]

    def _of_rows(self, eqn: Any, forms: Sequence[Form]) -> Form | None:
        """An elementwise function, computed once for each distinct row."""
        shape = eqn.outvars[0].aval.shape
        axis = shape.index(self.long) if self.long in shape else None
        if axis is None or not self._asks([(v, axis) for v in eqn.invars if v.aval.shape]):
            return None
        lifted = [self.at_rows(f, axis) for f in forms]
        return None if None in lifted else self._of_tables(eqn, lifted)  # type: ignore[arg-type]

    def at_rows(self, form: Form, axis: int) -> Form | None:
        """The form as a table over distinct rows."""
        assert self.rows is not None
        _, kept, codes = self.rows

        def take(x: Array | None) -> Array | None:
            return x if x is None or x.shape[axis] == 1 else jnp.take(x, kept, axis=axis, mode="clip")

        def value(block: Block) -> Array | None:
            latent = block.latent
            if block.index is not None and block.index.mark != "rows":
                if block.index.axis != axis or latent is None:
                    return None
                latent = jnp.take(latent, block.index.codes[kept], axis=axis, mode="clip")
                if block.index.broken is not None:
                    latent = latent + block.index.broken
            elif block.index is None:
                latent = take(latent)
            data = take(block.data)
            if latent is None or data is None:
                return first(data if latent is None else latent) if block.width == 1 else None
            return contract(latent, data)

        if form.pure and (form.index.mark == "rows" if form.index else form.latent.shape[axis] == 1):
            return form
        parts = [value(b) for b in form.blocks]
        for square in form.squares:
            inner = [value(b) for b in square.blocks]
            head: Any = value(square.scale)
            if head is None or any(x is None for x in inner):
                return None
            total: Any = functools.reduce(operator.add, inner)
            inside = tuple(range(len(form.shape), len(form.shape) + len(square.inner)))
            shape = jnp.broadcast_shapes(total.shape, (*(1 for _ in form.shape), *square.inner))
            whole = head * jnp.sum(jnp.broadcast_to(total, shape) ** 2, axis=inside)
            parts.append(whole if square.weight is None else whole * take(square.weight))
        if any(p is None for p in parts):
            return None
        found: Any = functools.reduce(operator.add, parts)
        kept_shape = [n if a != axis else kept.shape[0] for a, n in enumerate(found.shape)]
        found = jnp.broadcast_to(found, kept_shape)
        return table(found, form.shape, Index(codes, kept.shape[0], axis, "rows"))

    # ------------------------------------------------------------------------------------------ sums, extremes

    def reduced(self, form: Form, axes: Sequence[int]) -> Form | None:
        """The sum of a form over axes, None where that is not cheaper than to compute it."""
        axes = tuple(int(a) for a in axes)
        short = [a for a in axes if form.shape[a] == 1]
        if short:
            left = [a for a in range(len(form.shape)) if a not in short]
            form = move(form, [form.shape[a] for a in left], {a: i for i, a in enumerate(left)})
            axes = tuple(left.index(a) for a in axes if a not in short)
        if not axes:
            return form
        shape = tuple(n for a, n in enumerate(form.shape) if a not in axes)
        blocks = [(b, form.shape) for b in form.blocks]
        total = Form(shape, ())
        for square in form.squares:
            found = reduce_square(square, axes, form.shape, self.one, self.said)
            if found is not None:
                block, rows = found
                blocks.append((block, tuple(1 if a in rows else n for a, n in enumerate(form.shape))))
                continue
            later = inwards(square, axes, form.shape) if shape else None
            if later is None:
                return None
            total = add(total, Form(shape, (), (later,)), shape)
        for block, whole in blocks:
            if block.index is not None and block.index.axis in axes:
                kind = "distinct rows" if block.index.mark == "rows" else "groups"
                line = f"{block.index.codes.shape[0]} observations by {block.index.size} {kind}"
                self.said.extend([] if line in self.said else [line])
            total = add(total, Form(shape, (reduce_block(block, axes, whole),)), shape)
        return total

    def _extreme(self, eqn: Any) -> Form | None:
        form, shape = self.form(eqn.invars[0]), eqn.outvars[0].aval.shape
        axes = tuple(int(a) for a in eqn.params["axes"])
        if not form.pure and self.long in shape:
            kept = [a for a in range(len(form.shape)) if a not in axes]
            axis = kept[shape.index(self.long)]
            found = self.at_rows(form, axis) if self._asks([(eqn.invars[0], axis)]) else None
            form = form if found is None else found
        if not form.pure or (form.index is not None and form.index.axis in axes):
            return None
        found = eqn.primitive.bind(form.latent, **eqn.params)
        return collapse_axes.table_without(found, form, axes, shape)

    # ------------------------------------------------------------------------------------------ identities

    def same(self, atom: Any) -> Hashable:
        """A number that is equal for operands that are computed from data by the same steps."""
        if _jax.is_literal(atom):
            return ("literal", np.asarray(atom.val).tobytes(), str(atom.aval))
        eqn = self.locality.producer.get(atom)
        if eqn is None:
            return ("input", self.locality.inputs[atom])
        place = list(eqn.outvars).index(atom)
        params = tuple((k, _jax.parameter_key(v)) for k, v in sorted(eqn.params.items()))
        key = (eqn.primitive.name, place, params, tuple(self.same(v) for v in eqn.invars))
        return self.numbers.setdefault(key, len(self.numbers))
