"""Rules of collapse for arithmetic on forms; each gives None where the result is no form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .collapse_forms import Block, Form, add, each, known, linear, masked, multiply, negative, rank, squared

Array = Any


def _add(reader: Any, eqn: Any, forms: Sequence[Form]) -> Form | None:
    return add(forms[0], forms[1], eqn.outvars[0].aval.shape)


def _sub(reader: Any, eqn: Any, forms: Sequence[Form]) -> Form | None:
    return add(forms[0], negative(forms[1]), eqn.outvars[0].aval.shape)


def _neg(reader: Any, eqn: Any, forms: Sequence[Form]) -> Form | None:
    return negative(forms[0])


def _mul(reader: Any, eqn: Any, forms: Sequence[Form]) -> Form | None:
    if eqn.invars[0] is eqn.invars[1]:
        return squared(forms[0], reader.one.astype(eqn.outvars[0].aval.dtype))
    return multiply(forms[0], forms[1], eqn.outvars[0].aval.shape)


def _div(reader: Any, eqn: Any, forms: Sequence[Form]) -> Form | None:
    if not forms[1].single:
        return None
    return multiply(forms[0], each(forms[1], lambda x: 1 / x, lambda x: 1 / x), eqn.outvars[0].aval.shape)


def _power(reader: Any, eqn: Any, forms: Sequence[Form]) -> Form | None:
    exponent = eqn.params.get("y", 2)
    if forms[0].single:
        return each(forms[0], lambda x: jax.lax.integer_pow(x, exponent), lambda x: jax.lax.integer_pow(x, exponent))
    return squared(forms[0], reader.one.astype(eqn.outvars[0].aval.dtype)) if exponent == 2 else None


def _convert(reader: Any, eqn: Any, forms: Sequence[Form]) -> Form | None:
    same = eqn.invars[0].aval.dtype == eqn.outvars[0].aval.dtype
    return forms[0] if same and jnp.issubdtype(eqn.invars[0].aval.dtype, jnp.floating) else None


def _stop(reader: Any, eqn: Any, forms: Sequence[Form]) -> Form | None:
    return None if forms[0].squares else linear(forms[0], jax.lax.stop_gradient)


def _exp(reader: Any, eqn: Any, forms: Sequence[Form]) -> Form | None:
    """The exp of a table and an offset that is data."""
    blocks = forms[0].blocks
    if forms[0].squares or len(blocks) != 2 or any(b.width > 1 for b in blocks):
        return None
    tables = [b for b in blocks if b.data is None]
    fixed = [b for b in blocks if b.latent is None]
    if len(tables) != 1 or len(fixed) != 1:
        return None
    top = jnp.max(fixed[0].data)
    block = Block(jnp.exp(tables[0].latent + top), jnp.exp(fixed[0].data - top), tables[0].index)
    return Form(forms[0].shape, (block,))


def _log(reader: Any, eqn: Any, forms: Sequence[Form]) -> Form | None:
    """The log of a product of latents and data of one sign."""
    logs = _logs(forms[0])
    return None if logs is None else add(*logs, forms[0].shape)


def _logs(form: Form, times: Array | None = None) -> tuple[Form, Form] | None:
    """The logs of the latents and of the data of their product, the second ``times`` data, where 0 log 0 = 0."""
    if not form.single:
        return None
    block, shape = form.blocks[0], form.shape
    if block.latent is None or block.data is None:
        return None
    sign = jnp.where(block.data.reshape(-1)[0] < 0, -jnp.ones((), block.data.dtype), jnp.ones((), block.data.dtype))
    data = block.data * sign
    data = jnp.log(data) if times is None else jax.scipy.special.xlogy(times, data)
    latent = Form(shape, (Block(jnp.log(block.latent * sign), None, block.index),))
    return latent, Form(shape, (Block(None, data),))


def _xlogy(reader: Any, eqn: Any, forms: Sequence[Form], log: Callable = jnp.log) -> Form | None:
    x, y = eqn.invars
    shape = eqn.outvars[0].aval.shape
    if reader.is_data(y):
        return multiply(forms[0], rank(known(log(reader.value(y))), shape), shape)
    if not reader.is_data(x):
        return None
    if forms[1].pure:
        found = each(forms[1], log, log)
        return None if found is None else multiply(found, forms[0], shape)
    count = reader.value(x)
    logs = _logs(forms[1], count.reshape(count.shape or (1,) * len(shape))[..., None]) if log is jnp.log else None
    if logs is None:
        return None
    product = multiply(logs[0], forms[0], shape)  # an exposure of zero does not matter where nothing was counted
    return None if product is None else add(product, logs[1], shape)


def _xlog1py(reader: Any, eqn: Any, forms: Sequence[Form]) -> Form | None:
    return _xlogy(reader, eqn, forms, jnp.log1p)


def _select(reader: Any, eqn: Any, forms: Sequence[Form]) -> Form | None:
    """A choice that data make."""
    shape, pred = eqn.outvars[0].aval.shape, eqn.invars[0]
    if not reader.is_data(pred) or len(forms) != 3 or pred.aval.dtype != jnp.bool_:
        return None
    one = reader.one.astype(eqn.outvars[0].aval.dtype)
    yes = reader.value(pred)
    yes = yes.reshape((1,) * len(shape)) if yes.ndim == 0 else yes
    return add(masked(forms[1], ~yes, one), masked(forms[2], yes, one), shape)


RULES: dict[Any, Callable] = {
    "add": _add,
    "sub": _sub,
    "neg": _neg,
    "mul": _mul,
    "div": _div,
    "integer_pow": _power,
    "square": _power,
    "convert_element_type": _convert,
    "copy": _convert,
    "stop_gradient": _stop,
    "exp": _exp,
    "log": _log,
    "xlogy": _xlogy,
    "xlog1py": _xlog1py,
    "select_n": _select,
}
