"""Hidden Markov chains of finite states in log space: filtering, smoothing and sampling, exactly.

With a_0(s) = first(s) and a_t(s) = log sum_r exp(a_{t-1}(r) + pairs_t(r, s)), the forward recursion, the log of the
normaliser is log sum_s exp a_T(s). Backwards b_T(s) = 0, b_{t-1}(r) = log sum_s exp(pairs_t(r, s) + b_t(s)); then
exp(a_t(s) + b_t(s)) is proportional to P(s_t = s), and s_{t-1} given s_t is drawn from the weights
exp(a_{t-1}(r) + pairs_t(r, s_t)). Tables may differ from step to step and have any further axes at their end, which
are independent chains.

References: Baum, Petrie, Soules and Weiss (1970), A maximization technique occurring in the statistical analysis of
probabilistic functions of Markov chains; Carter and Kohn (1994) and Fruehwirth-Schnatter (1994) for the draws.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = Any


def logsumexp(x: Array, axis: int | tuple[int, ...]) -> Array:
    """``log(sum(exp(x)))``, -inf with gradient zero where nothing is possible.

    Example:
        >>> import numpy as np
        >>> round(float(logsumexp(np.log([1.0, 2.0]), 0)), 4), float(logsumexp(np.full(2, -np.inf), 0))
        (1.0986, -inf)
    """
    x = jnp.asarray(x)
    top = jax.lax.stop_gradient(jnp.max(x, axis=axis, keepdims=True))
    nothing = jnp.isneginf(top)
    shift = jnp.where(nothing, jnp.zeros_like(top), top)
    total = jnp.sum(jnp.exp(x - shift), axis=axis, keepdims=True)
    total = jnp.log(jnp.where(nothing, jnp.ones_like(total), total)) + shift
    return jnp.squeeze(jnp.where(nothing, top, total), axis=axis)


def forward(first: Array, pairs: Array) -> tuple[Array, Array]:
    """Forward messages and log normaliser.

    Args:
        first: Log weights of the first state, shape (K, ...).
        pairs: Log weights of each later state given the one before, shape (T - 1, K, K, ...).

    Returns:
        Messages of shape (T, K, ...) and the log normaliser of shape (...).

    Example:
        >>> import numpy as np
        >>> first, pairs = np.log([0.5, 0.5]), np.log([[[0.9, 0.1], [0.2, 0.8]]])
        >>> messages, total = forward(first, pairs)
        >>> np.round(np.exp(messages[1]), 4).tolist(), round(float(total), 6)
        ([0.55, 0.45], 0.0)
    """

    def step(message: Array, pair: Array) -> tuple[Array, Array]:
        after = logsumexp(message[:, None] + pair, 0)
        return after, after

    last, later = jax.lax.scan(step, first, pairs)
    return jnp.concatenate([first[None], later]), logsumexp(last, 0)


def backward(first: Array, pairs: Array) -> Array:
    """Backward messages, shape (T, K, ...); arguments as of ``forward``.

    Example:
        >>> import numpy as np
        >>> backward(np.zeros(2), np.zeros((2, 2, 2)))[:, 0].round(4).tolist()
        [1.3863, 0.6931, 0.0]
    """

    def step(message: Array, pair: Array) -> tuple[Array, Array]:
        before = logsumexp(pair + message[None], 1)
        return before, before

    last = jnp.zeros_like(first)
    return jnp.concatenate([jax.lax.scan(step, last, pairs, reverse=True)[1], last[None]])


def forward_backward(first: Array, pairs: Array) -> tuple[Array, Array]:
    """Log probabilities of every state, shape (T, K, ...), and the log normaliser.

    Example:
        >>> import numpy as np
        >>> first, pairs = np.log([0.5, 0.5]), np.log([[[0.9, 0.1], [0.2, 0.8]]])
        >>> np.exp(forward_backward(first, pairs)[0]).round(3).tolist()
        [[0.5, 0.5], [0.55, 0.45]]
    """
    messages, total = forward(first, pairs)
    return messages + backward(first, pairs) - total, total


def backward_sample(key: Array, messages: Array, pairs: Array) -> Array:
    """One draw of the whole chain given the forward messages, integers of shape (T, ...).

    Args:
        key: A JAX random key.
        messages: Of ``forward``, shape (T, K, ...).
        pairs: As of ``forward``.

    Example:
        >>> import jax, numpy as np
        >>> with np.errstate(divide="ignore"):
        ...     first, pairs = np.log([0.0, 1.0]), np.log([[[0.5, 0.5], [1.0, 0.0]]])
        >>> backward_sample(jax.random.key(0), forward(first, pairs)[0], pairs).tolist()
        [1, 0]
    """
    keys = jax.random.split(key, messages.shape[0])
    last = jax.random.categorical(keys[-1], messages[-1], axis=0)

    def step(state: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        key, message, pair = inputs
        chosen = jnp.take_along_axis(pair, state[None, None], axis=1)[:, 0]
        before = jax.random.categorical(key, message + chosen, axis=0)
        return before, before

    earlier = jax.lax.scan(step, last, (keys[:-1], messages[:-1], pairs), reverse=True)[1]
    return jnp.concatenate([earlier, last[None]])
