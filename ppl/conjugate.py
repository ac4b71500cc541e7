"""Conjugate conditionals: the law of some sites given the rest, where it has a known form.

A form is a family of log densities on the unconstrained scale that is linear in a few statistics, so that slopes at
fixed points tell which member a conditional is; nothing of the model is matched by name:

* quadratic in x: normal, with precision minus the Hessian and mean precision^-1 times the gradient at zero. Dense, or
  in blocks where the elements of a plate are read apart. It covers normal means, regression coefficients, random
  effects and linear Gaussian chains, several sites at once.
* A u + B exp(p u), u = log x, p = 1, -1, 2 or -2: x^p has the law Gamma(A / p, -B). Rates, precisions, variances
  (inverse gamma, p = -1) and scales.
* A log x + B log(1 - x): Beta(A, B), for probabilities of (negative) binomial counts.
* sum_k A_k log x_k: Dirichlet(A), for probabilities of categories.

That a conditional is in the family is tested where it is first asked for, on the host: at random values of all other
sites its log density may differ from the claimed one by a constant only, at many points of different size. A form that
fails is refused, with the term that stands in the way.

References: Raiffa and Schlaifer, Applied statistical decision theory (1961); Diaconis and Ylvisaker, "Conjugate priors
for exponential families" (1979).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to, constraints

from . import _jax, codes, space
from .errors import ModelError, at

Array = Any
MOST = 2000
"""Greatest dimension of one dense normal law."""


@dataclass(frozen=True)
class Normal:
    """Independent blocks, each multivariate normal.

    Attributes:
        slope: Gradient at zero, shape (blocks, q).
        precision: Shape (blocks, q, q).
        axes: Permutation that brings (blocks, q) to the order of the vector, with the shape before it.
    """

    slope: Array
    precision: Array
    axes: tuple[tuple[int, ...], tuple[int, ...]]

    def _factor(self) -> Array:
        if self.precision.shape[-1] == 1:
            return jnp.sqrt(self.precision)
        return jnp.linalg.cholesky(self.precision)

    def _solve(self, factor: Array, x: Array, transposed: bool) -> Array:
        if factor.shape[-1] == 1:
            return x / factor[..., 0]
        system = {"left_side": True, "lower": True, "transpose_a": transposed}
        return jax.lax.linalg.triangular_solve(factor, x[..., None], **system)[..., 0]

    def sample(self, key: Array) -> Array:
        """One draw, in the order of the vector."""
        factor, (shape, order) = self._factor(), self.axes
        noise = jax.random.normal(key, self.slope.shape, self.slope.dtype)
        drawn = self._solve(factor, self._solve(factor, self.slope, False) + noise, True)
        return jnp.transpose(drawn.reshape(shape), order).ravel()

    def log_prob(self, x: Array) -> Array:
        """Log density, up to the constant of the blocks' number and size."""
        shape, order = self.axes
        own = jnp.transpose(x.reshape([shape[i] for i in order]), np.argsort(order).tolist()).reshape(self.slope.shape)
        factor = self._factor()
        mean = self._solve(factor, self.slope, False)
        white = jnp.einsum("bji,bj->bi", factor, own) - mean
        scale = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=1, axis2=2)))
        return -0.5 * jnp.sum(white**2) + scale - 0.5 * white.size * np.log(2 * np.pi)


@dataclass(frozen=True)
class GammaPower:
    """Elements u = log x of which x^p has a gamma law."""

    shape: Array
    rate: Array
    power: int

    def sample(self, key: Array) -> Array:
        """One draw of all u."""
        return (jax.random.loggamma(key, self.shape) - jnp.log(self.rate)) / self.power

    def log_prob(self, u: Array) -> Array:
        """Log density of all u."""
        v = self.power * u
        size = self.shape * jnp.log(self.rate) - jax.lax.lgamma(self.shape) + np.log(abs(self.power))
        return jnp.sum(self.shape * v - self.rate * jnp.exp(v) + size)


@dataclass(frozen=True)
class Simplex:
    """Vectors with Dirichlet laws, as stick breaking has them; two categories are beta laws on the logit scale.

    Attributes:
        weights: Shape (vectors, K).
        stick: Whether the unconstrained scale is that of stick breaking (K - 1 entries a vector), not of logits.
    """

    weights: Array
    stick: bool

    def sample(self, key: Array) -> Array:
        """One draw on the unconstrained scale."""
        logs = jax.random.loggamma(key, self.weights)
        if not self.stick:
            return logs[:, 0] - logs[:, 1]
        return biject_to(constraints.simplex).inv(jax.nn.softmax(logs, axis=1)).ravel()

    def log_prob(self, u: Array) -> Array:
        """Log density on the unconstrained scale."""
        size = jax.lax.lgamma(jnp.sum(self.weights, 1)) - jnp.sum(jax.lax.lgamma(self.weights), 1)
        rows = u.reshape(self.weights.shape[0], -1)
        return jnp.sum(size) + jnp.sum(self.weights * shares(rows, self.stick))


def shares(rows: Array, stick: bool) -> Array:
    """Log probabilities, shape (vectors, K), of unconstrained rows."""
    if not stick:
        return jnp.concatenate([-jax.nn.softplus(-rows), -jax.nn.softplus(rows)], axis=1)
    return jnp.log(biject_to(constraints.simplex)(rows))


Total = Callable[[Array], Array]


def normal(total: Total, like: Array, axes: tuple[tuple[int, ...], tuple[int, ...]], blocks: int) -> Normal:
    """The normal law of a quadratic log density, whose vector falls into blocks of independent elements."""
    shape, order = axes

    def inward(x: Array) -> Array:
        return jnp.transpose(x.reshape([shape[i] for i in order]), np.argsort(order).tolist()).reshape(blocks, -1)

    slope = jax.grad(total)
    zero, size = jnp.zeros_like(like), like.shape[0] // blocks

    def column(j: Array) -> Array:
        probe = jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32) == j, (blocks, size)).astype(like.dtype)
        probe = jnp.transpose(probe.reshape(shape), order).ravel()
        return inward(jax.jvp(slope, (zero,), (probe,))[1])

    precision = -jnp.moveaxis(jax.vmap(column)(jnp.arange(size, dtype=jnp.int32)), 0, 2)
    return Normal(inward(slope(zero)), precision, axes)


def gamma(total: Total, like: Array, power: int) -> GammaPower:
    """The law of A u + B exp(p u), from two slopes for each element."""
    slope = jax.grad(total)
    low, high = slope(jnp.full_like(like, -1.0)), slope(jnp.full_like(like, 1.0))
    b = (high - low) / (power * (np.exp(power) - np.exp(-power)))
    return GammaPower((low - b * power * np.exp(-power)) / power, -b, power)


def simplex(total: Total, like: Array, rows: int, stick: bool) -> Simplex:
    """The law of sum_k A_k log x_k, from the slopes at two points."""
    size = like.shape[0] // rows
    points = np.stack([np.linspace(-0.7, 0.4, size) - 0.5, np.linspace(0.5, -0.6, size) + 0.8])
    slope = jax.grad(total)
    found = [slope(jnp.tile(jnp.asarray(u, like.dtype), rows)).reshape(rows, size) for u in points]
    steps = jax.jacfwd(lambda u: shares(u[None], stick)[0])
    design = jnp.concatenate([steps(jnp.asarray(u, like.dtype)).T for u in points])  # (2 size, K)
    normal_equations = design.T @ design
    right = jnp.concatenate(found, axis=1) @ design
    return Simplex(jnp.linalg.solve(normal_equations, right.T).T, stick)


# ---------------------------------------------------------------------------------------------- which form


@dataclass(frozen=True)
class Form:
    """A family that a block's conditional may be in, and how a member is found.

    Attributes:
        title: In words.
        fit: ``(total, like) -> law``.
        spread: Sizes of the points at which it is tested.
    """

    title: str
    fit: Callable[[Total, Array], Any]
    spread: tuple[float, ...]


def conjugate(density: Any, names: Sequence[str], position: Array) -> Any:
    """The conjugate conditional of real sites.

    Raises:
        ModelError: None is known; with the term that stands in the way.
    """
    compiled = density.compiled
    identity = ("conjugate", tuple(names))
    if identity not in compiled._parts:
        compiled._parts[identity] = _decided(density, tuple(names))
    return compiled._parts[identity].fit(_total(density, names, position), _like(density, names, position))


def _like(density: Any, names: Sequence[str], position: Array) -> Array:
    size = sum(density.layout[n].stop - density.layout[n].start for n in names)
    return jnp.zeros(size, position.dtype)


def _outputs(compiled: Any, names: Sequence[str]) -> tuple[Any, list[int], list[tuple[str, str]]]:
    """The program of a log density's terms, those that read the sites, and what they are."""
    code, labels = codes.source(compiled)
    slots = list(compiled.slots)
    inputs = {compiled.inputs + slots.index(name) for name in names}
    reads = _jax.dependence(code, compiled.inputs + len(slots))
    chosen = [i for i, row in enumerate(reads) if row & inputs]
    return code, chosen, [labels[i] for i in chosen]


def _total(density: Any, names: Sequence[str], z: Array, only: Sequence[int] | None = None) -> Total:
    """Sum of the terms that read the sites, or of some of these, as a function of the sites' vector."""
    from .parts import total

    compiled = density.compiled
    code, chosen, _ = _outputs(compiled, names)
    part = _jax.select(code, chosen if only is None else [chosen[i] for i in only])
    merged = density.restrict(tuple(names), z).merge
    return lambda x: total(part.run(*codes.inputs(compiled, density.data, merged(x))), x.dtype)


def _forms(density: Any, names: Sequence[str]) -> list[Form]:
    """Families that suit the supports of the sites."""
    compiled = density.compiled
    info = compiled.sites[names[0]]
    forms: list[Form] = []
    if len(names) == 1 and info.support is not None:
        one, shape = space.each_support(info.support), compiled.slots[names[0]].shape
        if one is constraints.positive:
            for power in (1, -1, 2, -2):
                title = {1: "Gamma", -1: "inverse Gamma"}.get(power, f"x^{power} Gamma")
                forms.append(Form(title, partial(gamma, power=power), (0.3, 1.0, 2.0)))
        if _unit(one):
            rows = int(np.prod(shape, dtype=int))
            forms.append(Form("Beta", partial(simplex, rows=rows, stick=False), (0.3, 1.0, 2.0)))
        if one is constraints.simplex:
            rows = int(np.prod(shape[:-1], dtype=int))
            forms.append(Form("Dirichlet", partial(simplex, rows=rows, stick=True), (0.3, 1.0, 2.0)))
    axes, blocks = _blocks(compiled, names)
    size = sum(compiled.slots[n].stop - compiled.slots[n].start for n in names)
    if size // blocks <= MOST:
        forms.append(Form("normal", partial(normal, axes=axes, blocks=blocks), (0.1, 1.0, 10.0)))
    return forms


def _unit(support: Any) -> bool:
    if support is constraints.unit_interval:
        return True
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    ends = [low, high]
    return all(isinstance(x, (int, float, np.ndarray, np.generic)) for x in ends) and bool(
        np.all(np.asarray(low) == 0.0) and np.all(np.asarray(high) == 1.0) and not support.is_discrete
    )


def _blocks(compiled: Any, names: Sequence[str]) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], int]:
    """How the vector of a block falls into independent parts: shape and order of axes, and their number."""
    size = sum(compiled.slots[n].stop - compiled.slots[n].start for n in names)
    if len(names) > 1:
        return ((1, size), (0, 1)), 1
    p = codes.pattern(compiled, names[0])
    free = [axis for axis, colours in enumerate(p.colours) if colours == 1]
    rest = [axis for axis in range(len(p.shape)) if axis not in free]
    inner = [*free, *rest]
    shape = tuple(p.shape[axis] for axis in inner)
    return (shape, tuple(int(i) for i in np.argsort(inner))), int(np.prod([p.shape[a] for a in free], dtype=int))


# ---------------------------------------------------------------------------------------------- the test


def _decided(density: Any, names: tuple[str, ...]) -> Form:
    """The first form in which a conditional is, at random values of all other sites."""
    forms = _forms(density, names)
    for form in forms:
        if _holds(density, names, form, None):
            return form
    raise ModelError(_why(density, names, forms))


SETTINGS, POINTS = 8, 6


def _holds(density: Any, names: tuple[str, ...], form: Form, only: tuple[int, ...] | None) -> bool:
    """Whether the block's log density, or a sum of some of its terms, is in the span of a form."""
    from .density import Density

    compiled, program = density.compiled, density.compiled.program
    data = [*program.arguments.data, *program.fixed.values()]
    if any(isinstance(x, jax.core.Tracer) for x in data):
        raise ModelError("exact conditionals are tested on data: compile the program outside of jit")
    rng = np.random.default_rng(20)
    dim, finite = density.dim, density.finite
    z = rng.normal(size=(SETTINGS, dim)) * np.linspace(0.3, 1.2, SETTINGS)[:, None]
    if finite:
        z[:, dim - len(finite) :] = rng.integers(finite, size=(SETTINGS, len(finite)))
    size = sum(compiled.slots[n].stop - compiled.slots[n].start for n in names)
    spread = np.repeat(form.spread, POINTS)
    x = rng.normal(size=(len(spread), size)) * spread[:, None]

    def apart(arrays: list[Array], z: Array) -> tuple[Array, Array]:
        other = Density(compiled, tuple(arrays), ())  # its terms are read one by one, not what passes make of them
        if finite:  # at random codes the density of what was observed may be zero
            z = other.codes.settled(other.data, z, jax.random.key(3))
        total = _total(other, names, z, only)
        law = form.fit(total, jnp.zeros(size, z.dtype))
        return jax.vmap(total)(x), jax.vmap(lambda x: _score(law, x))(x)

    with jax.ensure_compile_time_eval(), jax.enable_x64(compiled.x64), jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(float)
        x = x.astype(dtype)
        arrays = [np.asarray(a) for a in data]
        truth, claim = jax.jit(jax.vmap(apart, in_axes=(None, 0)))(arrays, z.astype(dtype))
    truth, claim = np.asarray(truth, float), np.asarray(claim, float)
    usable = np.isfinite(truth).all(1) & (np.abs(truth).max(1) < 1e12)
    if usable.sum() < 2:
        return False
    error = truth[usable] - claim[usable]
    error -= error[:, :1]
    scale = 1.0 + sum(np.nan_to_num(np.abs(a[usable])).max(1, keepdims=True) for a in (truth, claim))
    return bool(np.all(np.abs(error) <= 30 * np.sqrt(np.finfo(dtype).eps) * scale))


def _score(law: Any, x: Array) -> Array:
    """A law's log density up to a constant, also where its parameters are not admissible: one term's share."""
    if isinstance(law, Normal):
        shape, order = law.axes
        own = jnp.transpose(x.reshape([shape[i] for i in order]), np.argsort(order).tolist()).reshape(law.slope.shape)
        return jnp.sum(law.slope * own) - 0.5 * jnp.einsum("bi,bij,bj->", own, law.precision, own)
    if isinstance(law, GammaPower):
        return jnp.sum(law.shape * law.power * x - law.rate * jnp.exp(law.power * x))
    return jnp.sum(law.weights * shares(x.reshape(law.weights.shape[0], -1), law.stick))


def _why(density: Any, names: tuple[str, ...], forms: Sequence[Form]) -> str:
    sites, compiled = density.compiled.sites, density.compiled
    shown = ", ".join(f"{n!r} ({sites[n].family})" for n in names)
    text = f"no exact conditional of {shown}:\n{at(sites[names[0]].source)}\n"
    labels = _outputs(compiled, names)[2]
    if not forms:
        return text + "  No family of laws is known for its support. Use another kernel in this block."
    best: tuple[int, str] | None = None
    for form in forms:
        wrong = [label for i, label in enumerate(labels) if not _holds(density, names, form, (i,))]
        if wrong and (best is None or len(wrong) < best[0]):
            channel, name = wrong[0]
            what = "its change of scale" if channel == "logdet" else f"the factor of site {name!r}"
            source = f" ({sites[name].source})" if name in sites else ""
            best = (len(wrong), f"  It would be {form.title} but for {what}{source}, which has another form in it.\n")
    tried = f"  Tried: {', '.join(form.title for form in forms)}. "
    return text + (best[1] if best else "") + tried + "Use another kernel in this block, such as NUTS() or Slice()."
