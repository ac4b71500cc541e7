"""Statements that run a sub-model for many elements, on one of two sides, or under a scope.

``plate`` maps a sub-model over independent elements (it is ``vmap``), ``branch`` runs two and selects, ``call`` runs
another program under a scope. Elements of a plate cannot see each other, so conditional independence holds by
construction.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._jax import trace_state
from .axes import elements_of, enter_table, refuse_tables
from .coding import place
from .errors import ModelError, at, user_line
from .existence import blank, both
from .minibatch import declare
from .missing import refuse_called
from .trace import Array, Frame, current, entered, sample
from .values import site_of


def inner_names(frame: Frame, name: str) -> list[str]:
    """Sites that stand inside the plate ``name`` at this depth, by what an earlier run learned."""
    depth = len(frame.plates)
    path = tuple(p[0] for p in frame.plates) + (name,)
    return [
        site for site, info in frame.known.items() if tuple(p[0] for p in info.plates[: depth + 1]) == path
    ]


def inner_frame(
    frame: Frame, name: str, size: int, kind: str, given: dict, free: dict, key: Any, on: Any = None
) -> Frame:
    """A frame for one element of a plate or one step of a chain."""
    return replace(
        frame,
        given=given,
        free=free,
        key=key,
        on=both(frame.on, on),
        plates=(*frame.plates, (name, size, kind)),
        sites={},
        out={},
        state=trace_state(),
    )


def leading(statement: str, name: str, arrays: Any, source: str) -> int:
    """The common length of the leading axes."""
    sizes = {}
    for index, leaf in enumerate(jax.tree_util.tree_leaves(arrays)):
        if isinstance(leaf, str):
            raise ModelError(
                f"{statement} {name!r}: its arrays hold text, such as {leaf!r}:\n{at(source)}\n"
                "  Turn labels into codes with   codes, labels = ppl.index(values); name the elements by coords=labels."
            )
        shape = np.shape(leaf)
        if not shape:
            raise ModelError(
                f"{statement} {name!r}: argument {index} is a scalar, it has no axis to map over:\n{at(source)}\n"
                "  Use it in the body as it is; only arrays with one entry per element are listed."
            )
        sizes[index] = shape[0]
    if len(set(sizes.values())) > 1:
        listing = ", ".join(f"argument {i}: {n}" for i, n in sizes.items())
        raise ModelError(f"{statement} {name!r}: the arrays disagree in length ({listing}):\n{at(source)}")
    return next(iter(sizes.values()))


def static_size(statement: str, name: str, size: Any, source: str) -> int:
    """A size as an int, refused when it is traced."""
    if isinstance(size, jax.core.Tracer):
        raise ModelError(
            f"{statement} {name!r}: its size is computed from data or from a random variable inside the model, but it "
            f"must be known when the model is compiled:\n{at(source)}\n"
            "  Compute it before and pass it as a Python int: model(codes, n_groups=int(codes.max()) + 1)."
        )
    return int(size)


def is_size(x: Any) -> bool:
    """Whether an argument is a size rather than an array to map over."""
    return isinstance(x, (int, np.integer)) or (isinstance(x, jax.core.Tracer) and x.ndim == 0)


def check_size(frame: Frame, name: str, size: int, coords: Any, source: str) -> None:
    """Check a plate's size against its labels and its other uses."""
    if size < 1:
        raise ModelError(f"plate {name!r} has size {size}:\n{at(source)}")
    if coords is not None and len(coords) != size:
        raise ModelError(
            f"plate {name!r} has {size} elements but coords names {len(coords)} labels:\n{at(source)}"
        )
    if any(name == outer for outer, _, _ in frame.plates):
        raise ModelError(f"plate {name!r} stands inside a plate of the same name:\n{at(source)}")
    extents = frame.axes.setdefault(name, (size, source))
    if extents[0] != size:
        raise ModelError(
            f"plate {name!r} is used with two sizes, {extents[0]} and {size}:\n{at(extents[1])}\n{at(source)}\n"
            "  A plate name stands for one axis. Rename one of them."
        )
    if coords is not None:
        place(frame.coords, name, coords, f"coords of plate {name!r}", source)


def plate(
    name: str, *arrays: Any, coords: Any = None, within: Any = None, subsample: int | None = None
) -> Any:
    """Run a sub-model once for each element, independently; used as a decorator, it runs at once.

    The body is the model of ONE element: it receives that element's slice of every array, and sees no batch axes.
    The decorated name becomes the stacked result. Every site inside gains a leading axis called ``name``.

    Args:
        name: The plate's name, which becomes a dimension of the result.
        *arrays: Arrays (or pytrees of arrays) with one leading entry per element, or one int, the number of
            elements, in which case the body receives the index. A callable in first place is the body itself.
        coords: Labels of the elements; alone they also give the size.
        within: The rows of one group of a ragged table (``ppl.ragged``), as a plate over its groups gives them to its
            body; the same as listing them first. The body receives a row, a mapping from columns to entries.
        subsample: Number of elements that ``ppl.compile`` draws for each evaluation of the density, which then is a
            ``SubsampledDensity``; simulation and ``log_prob`` run all. Such a plate returns None.

    Returns:
        A decorator; or the stacked result when the body was given. Where an element of a ragged table does not exist,
        the stacked result is zero.

    Raises:
        ModelError: Lengths disagree, or a plate name is used with two sizes.

    Example:
        >>> import numpy as np, ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def schools(sigma):
        ...     mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
        ...     @ppl.plate("school", sigma)
        ...     def theta(s):
        ...         return ppl.sample("theta", dist.Normal(mu, s))
        >>> schools(np.ones(8)).sites["theta"].shape
        (8,)
    """
    source = user_line()
    if within is not None:
        body = arrays[:1] if arrays and callable(arrays[0]) and not hasattr(arrays[0], "shape") else ()
        arrays = (*body, within, *arrays[len(body) :])
    if arrays and callable(arrays[0]) and not hasattr(arrays[0], "shape"):
        return _run_plate(name, arrays[0], arrays[1:], coords, subsample, source)
    return lambda body: _run_plate(name, body, arrays, coords, subsample, source)


def _run_plate(name: str, body: Callable, arrays: tuple, coords: Any, subsample: Any, source: str) -> Any:
    frame = current("plate")
    name = frame.scope + name
    arrays, exists, axis = elements_of(name, arrays, source)
    if len(arrays) == 1 and is_size(arrays[0]):
        size, arrays = static_size("plate", name, arrays[0], source), ()
    elif arrays:
        size = leading("plate", name, arrays, source) if exists is None else exists.shape[0]
        arrays = jax.tree_util.tree_map(jnp.asarray, arrays)
    elif coords is not None:
        size = len(coords)
    else:
        raise ModelError(f"plate {name!r} needs arrays, a size or coords:\n{at(source)}")
    check_size(frame, name, size, coords, source)
    enter_table(frame, name, axis, coords, source)
    count = declare(frame, name, size, subsample, source)
    inner = set(inner_names(frame, name))
    given = {site: value for site, value in frame.given.items() if site_of(site) in inner}
    free = {site: value for site, value in frame.free.items() if site in inner}
    seen: list[Frame] = []

    def element(index: Array, slices: tuple, given: dict, free: dict, exists: Any) -> tuple[Any, dict]:
        key = None if frame.key is None else jax.random.fold_in(frame.key, index)
        nested = inner_frame(frame, name, size, "plate", given, free, key, exists)
        if frame.minibatch is not None:
            nested = replace(nested, minibatch=frame.minibatch.at(index), scale=scale)
        with entered(nested):
            result = body(*slices) if slices else (body(index) if _takes_index(body) else body())
        seen[:] = [nested]
        return blank(exists, result), nested.out

    inputs, scale = (jnp.arange(size, dtype=jnp.int32), arrays, given, free, exists), frame.scale
    if count is not None and frame.minibatch is not None:
        chosen, own = frame.minibatch.draw(name, size, count, exists)
        inputs = jax.tree_util.tree_map(lambda x: jnp.take(x, chosen, axis=0), inputs)
        scale = own if scale is None else own * scale
    window = frame.windows.get(name)
    if window is not None:
        inputs = jax.tree_util.tree_map(lambda x: _windowed(x, *window), inputs)
    result, out = jax.vmap(element)(*inputs)
    nested = seen[0]
    nested.out = out
    frame.merge(nested)
    if count is not None:
        return None
    if window is None:
        return result
    return Unread() if frame.unread is None else _marked(result, size, frame.unread)


def _windowed(x: Array, start: Array, count: int) -> Array:
    """The elements of a window; what has no more elements than that is of the window already."""
    return x if x.shape[0] == count else jax.lax.dynamic_slice_in_dim(x, start, count)


def _marked(result: Any, size: int, mark: Array) -> Any:
    """In place of the result of all elements arrays of its shapes that depend on the mark."""
    return jax.tree_util.tree_map(lambda x: jnp.broadcast_to(mark, (size, *x.shape[1:])).astype(x.dtype), result)


class Unread:
    """What a plate returns of which only a part was run: nothing can be computed from it."""

    def __bool__(self) -> bool:
        raise TypeError("only a part of the plate was run")


def _takes_index(body: Callable) -> bool:
    try:
        return len(inspect.signature(body).parameters) > 0
    except (TypeError, ValueError):
        return True


def branch(name: str, pred: Array, f: Callable, g: Callable) -> Any:
    """Run ``f`` where ``pred`` holds and ``g`` where it does not, as sub-models that may sample.

    Both sides run. Latent sites of both keep their prior, which leaves the joint density proper (product space,
    Carlin and Chib, 1995); observed factors and ``factor`` statements count only on the side that is selected.

    Args:
        name: The branch's name, shown in the graph and in errors.
        pred: Scalar bool.
        f: Sub-model without arguments.
        g: Sub-model without arguments, returning the same structure.

    Returns:
        ``f()`` or ``g()``, elementwise selected.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def either():
        ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ...     return ppl.branch("sign", x > 0, lambda: x, lambda: -x)
        >>> float(either().run({"x": -2.0}))
        2.0
    """
    frame = current("branch")
    source = user_line()
    pred = jnp.asarray(pred)
    if pred.shape != ():
        raise ModelError(
            f"branch {name!r}: the predicate has shape {pred.shape}, it must be a scalar:\n{at(source)}\n"
            "  Inside a plate, write the branch of one element."
        )
    pred = pred.astype(bool)

    def side(body: Callable, chosen: Array, arm: str) -> Any:
        select = chosen if frame.select is None else jnp.logical_and(frame.select, chosen)
        nested = replace(frame, select=select, sites={}, out={}, branches=(*frame.branches, f"{name}:{arm}"))
        with entered(nested):
            result = body()
        frame.merge(nested)
        return result

    yes = side(f, pred, "true")
    no = side(g, jnp.logical_not(pred), "false")
    if jax.tree_util.tree_structure(yes) != jax.tree_util.tree_structure(no):
        raise ModelError(f"branch {name!r}: the two sides return different structures:\n{at(source)}")

    def select(a: Array, b: Array) -> Array:
        if jnp.shape(a) != jnp.shape(b):
            raise ModelError(
                f"branch {name!r}: the two sides return shapes {jnp.shape(a)} and {jnp.shape(b)}:\n{at(source)}"
            )
        dtype = jnp.result_type(a, b)
        return jnp.where(pred, jnp.asarray(a, dtype), jnp.asarray(b, dtype))

    return jax.tree_util.tree_map(select, yes, no)


def call(scope: str, program: Any) -> Any:
    """Run another program here, its sites and plates named ``scope/name``, and return its value.

    What the program conditions or does stays so; the outer program may override it by the scoped name.

    Args:
        scope: Prefix for the names.
        program: A ``Program``, such as ``model(data)``.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def part():
        ...     return ppl.sample("x", dist.Normal(0.0, 1.0))
        >>> @ppl.model
        ... def whole():
        ...     return ppl.call("a", part()) + ppl.call("b", part())
        >>> sorted(whole().sites)
        ['a/x', 'b/x']
    """
    frame = current("call")
    if not hasattr(program, "conditions"):
        raise ModelError(
            f"ppl.call({scope!r}, ...) needs a program, such as model(data), not {type(program).__name__}:"
            f"\n{at(user_line())}"
        )
    refuse_called(program, scope)
    refuse_tables(program, scope)
    prefix = f"{frame.scope}{scope}/"
    own = {prefix + n: value for n, value in program.fixed.items() if prefix + site_of(n) not in frame.released}
    fixed = {name: value for name, value in own.items() if site_of(name) not in frame.given}
    roles = {name: program.roles[name.removeprefix(prefix)] for name in own}
    known = dict(frame.known)
    if fixed:
        for name, info in program.learned().items():
            plates = tuple((prefix + plate, size, kind) for plate, size, kind in info.plates)
            known[prefix + name] = replace(info, name=prefix + name, plates=(*frame.plates, *plates))
    nested = replace(
        frame,
        scope=prefix,
        given={**frame.given, **fixed},
        roles={**{n: role for n, role in roles.items() if site_of(n) == n or n in fixed}, **frame.roles},
        released=frame.released | {prefix + name for name in program.released},
        known=known,
        sites={},
        out={},
    )
    with entered(nested):
        result = program.execute()
    frame.merge(nested)
    return result


def sample_tree(name: str, template: Any, prior: Any) -> Any:
    """Put priors on the leaves of a pytree, such as the weights of a neural network.

    Args:
        name: Prefix of the site names: the leaf at path ``a.b[0]`` becomes ``name/a/b/0``.
        template: A pytree; its floating-point array leaves are replaced, the others kept.
        prior: A scalar distribution, expanded to every leaf, or a function ``(path, leaf) -> distribution``.

    Returns:
        A pytree of the template's structure.

    Example:
        >>> import numpy as np, ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def layer():
        ...     w = ppl.sample_tree("net", {"w": np.zeros((3, 2)), "b": np.zeros(2)}, dist.Normal(0.0, 1.0))
        ...     return w["w"] @ w["b"]
        >>> layer().sites["net/w"].shape
        (3, 2)
    """

    def leaf(path: tuple, value: Any) -> Any:
        if not hasattr(value, "shape") or not jnp.issubdtype(jnp.asarray(value).dtype, jnp.inexact):
            return value
        label = "/".join(str(getattr(p, "key", getattr(p, "idx", getattr(p, "name", p)))) for p in path)
        d = prior if hasattr(prior, "log_prob") else prior(label, value)
        if d.shape() != tuple(value.shape):
            d = d.expand(value.shape)
        return sample(f"{name}/{label}" if label else name, d)

    return jax.tree_util.tree_map_with_path(leaf, template)
