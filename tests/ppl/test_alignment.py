"""Which elements of an input an element of an output reads, against finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import _jax
from ppl.passes.alignment import align

G = np.array([0, 2, 1, 1, 0, 2])
W = np.arange(12.0).reshape(3, 4)


def chained(x):
    return jax.lax.scan(lambda c, v: ((v, c[0]), c[0] * v + c[1]), (1.0, 2.0), x[:, 0])[1]


def running(x):
    return jax.lax.scan(lambda c, v: (c + v, c * v), 1.0, x[:, 0])[1]


FUNCTIONS = {
    "elementwise": lambda x: jnp.exp(x) + 1.0,
    "transposed": lambda x: (2.0 * x).T,
    "summed over columns": lambda x: x.sum(1),
    "summed over rows": lambda x: x.sum(0),
    "before": lambda x: jnp.concatenate([jnp.zeros((1, 3)), x[:-1]]) * x,
    "two before": lambda x: jnp.pad(x, ((2, 0), (0, 0)))[:4] + x,
    "after": lambda x: x[1:] - x[:-1],
    "reversed": lambda x: x[::-1],
    "rolled": lambda x: jnp.roll(x, 1, axis=0) * x,
    "reshaped": lambda x: x.reshape(4, 3, 1).reshape(-1),
    "new axis": lambda x: jnp.broadcast_to(x[:, None], (4, 2, 3)),
    "matrix product": lambda x: x @ W,
    "batched product": lambda x: jnp.einsum("ij,jk->ik", x, W) + jnp.einsum("ij,ij->i", x, x)[:, None],
    "looked up": lambda x: x.T[G],
    "looked up by element": lambda x: jax.vmap(lambda g: jnp.sin(x[:, g]))(G),
    "cumulative": lambda x: jnp.cumsum(x, axis=0),
    "cumulative in rows": lambda x: jnp.cumsum(x, axis=1),
    "sorted in rows": lambda x: jnp.sort(x, axis=1),
    "solved": lambda x: jax.vmap(lambda v: jax.scipy.linalg.solve_triangular(jnp.eye(3) + 0.1, v, lower=True))(x),
    "chosen": lambda x: jnp.where(x > 0, x, W.T[:4, :3]),
    "tiled": lambda x: jnp.tile(x, (1, 2)),
    "unstacked": lambda x: jnp.stack(jnp.unstack(x, axis=1)[:2]),
    "written over": lambda x: jax.lax.dynamic_update_slice(x, 2.0 * x[:, :1], (0, 1)),
    "one entry set": lambda x: x.at[:, 1].set(7.0),
    "one entry added": lambda x: jnp.zeros(3).at[1].add(x[0, 0]) + x,
    "loop": chained,
    "running loop": running,
    "branches": lambda x: jax.lax.cond(True, lambda v: 2.0 * v, lambda v: v[:, ::-1], x),
    "row by number": lambda x: jax.lax.dynamic_slice_in_dim(x, 1, 2, 0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_element_reads_more_than_its_places_say(name):
    function = FUNCTIONS[name]
    x = np.random.default_rng(2).normal(size=(4, 3))
    code, _ = _jax.trace(lambda g, x: [function(x)], G, x)
    (reads,) = align(code, 1, 1, [(4, 3)])
    slopes = np.asarray(jax.jacobian(function)(jnp.asarray(x)))
    for entry in np.argwhere(slopes != 0):
        out, source = entry[: slopes.ndim - 2], entry[slopes.ndim - 2 :]
        for axis, place in enumerate(reads[0]):
            if place is None:
                continue
            at = out[place.axis]
            allowed = {int(G[at])} if place.by is not None else {int(at) + o for o in place.offsets}
            assert int(source[axis]) in allowed, (name, axis, place)


def test_what_can_be_told_is_told():
    def places(name):
        code, _ = _jax.trace(lambda x: [FUNCTIONS[name](x)], np.zeros((4, 3)))
        return [None if p is None else (p.axis, sorted(p.offsets)) for p in align(code, 0, 0, [(4, 3)])[0][0]]

    assert places("transposed") == [(1, [0]), (0, [0])]
    assert places("before") == [(0, [-1, 0]), (1, [0])]
    assert places("two before") == [(0, [-2, 0]), (1, [0])]
    assert places("matrix product") == [(0, [0]), None]
    assert places("tiled") == [(0, [0]), None]
    assert places("one entry set") == [(0, [0]), (1, [0])]
    assert places("loop") == [(0, [-2, -1, 0]), None]
    assert places("running loop") == [None, None]
    assert places("reversed") == [None, (1, [0])]
    assert places("cumulative in rows") == [(0, [0]), None]
