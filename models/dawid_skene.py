"""Annotators who err: the true classes of items behind their labels, summed out.

    prevalence ~ Dirichlet(1)      confusion[a, k] ~ Dirichlet(1 + s [k = l])_l
    k[i] ~ Categorical(prevalence)      y[j] ~ Categorical(confusion[annotator[j], k[item[j]]])

One row for each label, in any number and order; s > 0 says that annotators are right rather than wrong, which tells
the classes apart.

Reference: Dawid and Skene (1979), Maximum likelihood estimation of observer error-rates using the EM algorithm.
"""

from __future__ import annotations

import jax.numpy as jnp

import ppl
from ppl import dist


@ppl.model
def dawid_skene(item, annotator, items, annotators, classes, right=3.0):
    """Labels of items by annotators with a confusion matrix each.

    Args:
        item: Item of each label, codes 0, 1, ...
        annotator: Annotator of each label, codes.
        items: Number of items, or their names.
        annotators: Number of annotators, or their names.
        classes: Number of classes.
        right: Prior labels of each annotator and class that are right.

    Example:
        >>> import numpy as np
        >>> item, annotator = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
        >>> program = dawid_skene(item, annotator, 2, 2, 2).condition(y=np.array([0, 0, 1, 0]))
        >>> density = ppl.compile(program)
        >>> confusion = np.full((2, 2, 2), [[0.9, 0.1], [0.2, 0.8]])
        >>> z = density.unconstrain({"prevalence": np.full(2, 0.5), "confusion": confusion})
        >>> np.asarray(density.probabilities(z)["k"], float).round(3).tolist()
        [[0.953, 0.047], [0.36, 0.64]]
    """
    prevalence = ppl.sample("prevalence", dist.Dirichlet(jnp.ones(classes)), dims="class")
    names, count = _labels(annotators)

    def matrix(_):
        return ppl.sample("confusion", dist.Dirichlet(1.0 + right * jnp.eye(classes)), dims=("class", "label"))

    confusion = ppl.plate("annotator", matrix, count, coords=names)
    names, count = _labels(items)
    k = ppl.plate("item", lambda _: ppl.sample("k", dist.Categorical(prevalence)), count, coords=names)

    @ppl.plate("row", item, annotator)
    def row(i, a):
        ppl.sample("y", dist.Categorical(confusion[a, k[i]]))


def _labels(names):
    """Names or None, and how many there are."""
    return (None, names) if isinstance(names, int) else (names, len(names))
