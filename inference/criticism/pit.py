r"""Leave-one-out probability integral transforms.

u_i = P(y_rep,i <= y_i | y_{-i}), from replicated data with the weights of Pareto smoothed importance sampling, and
ties of discrete data broken at random. The values are nearly uniform if the model is right: none of them has seen its
own observation (they do share the others, so they are not quite independent).

References: Gelfand, Dey and Chang (1992), Model determination using predictive distributions; Gabry et al. (2019),
Visualization in Bayesian workflow; Saeilynoja, Buerkner and Vehtari (2022) for the test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..calibration import bands
from ..core import host_rng
from .leave_one_out import pointwise_log_likelihood, relative_efficiency
from .psis import smooth, threshold
from .replicas import observed_site, observed_values, posterior_replicas
from .units import choose_units

Array = np.ndarray

MOST_NUMBERS = 50_000_000
"""Most replicated numbers that the leave-one-out transform looks at; of more draws it takes evenly spaced ones."""

_TIES = 101
"""Purpose of the random numbers that break the ties of discrete data."""


@dataclass(frozen=True, eq=False)
class LooPit:
    """Leave-one-out probability integral transforms.

    Attributes:
        values: For each observation, the probability that the others give to less than it; near uniform if all is well.
        labels: Names of the observations.
        k: Pareto shapes of the weights.
        threshold: Shape above which a value cannot be trusted.
        site: The observed site.
    """

    values: Array
    labels: tuple[str, ...]
    k: Array
    threshold: float
    site: str

    @property
    def ranks(self) -> Array:
        """The values in hundredths."""
        return np.minimum((self.values * 100).astype(int), 99)

    @property
    def p(self) -> float:
        """P-value of uniformity, by the simultaneous band of the empirical distribution of independent values."""
        return float(bands.ecdf_pvalues(self.ranks[:, None], 99)[0])

    def plot(self) -> Any:
        """Their empirical distribution less the uniform one, with its simultaneous band, as a Matplotlib figure."""
        from .plots import pit_figure

        return pit_figure(self)

    def __repr__(self) -> str:
        """In words, how the values differ from uniform ones."""
        mean, spread = self.values.mean(), self.values.std() * np.sqrt(12.0)
        bad = int((self.k > self.threshold).sum())
        lines = [
            f"LOO-PIT of {self.site}: {len(self.values)} values, mean {mean:.2f} (0.5: no bias), spread {spread:.2f} "
            f"(1: right; more: predictions too narrow; less: too wide), uniform with p = {self.p:.2g}"
        ]
        if bad:
            lines.append(f"! {bad} of them have a Pareto shape above {self.threshold:.2f}")
        return "\n".join(lines)


def loo_pit(fit: Any, *, site: str | None = None, seed: int = 0) -> LooPit:
    """Where does each observation lie in its prediction from the others?

    Args:
        fit: A fit of a conditioned program with a pointwise log likelihood.
        site: The observed site; may be omitted where there is one.
        seed: Determines the replications and the breaking of ties.

    Raises:
        ppl.ModelError: If there are several sites and none is named, or nothing can be replicated.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> from ppl.inference import infer
        >>> @ppl.model
        ... def normal(n):
        ...     mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ...     ppl.plate("row", lambda _: ppl.sample("y", dist.Normal(mu, 5.0)), n)
        >>> y = np.random.default_rng(0).normal(size=50)
        >>> found = loo_pit(infer(normal(50).condition(y=y), seed=1, progress=False))
        >>> bool(found.values.std() < 0.15), bool(found.p < 1e-6)
        (True, True)
    """
    name = observed_site(fit, site)
    units = choose_units(fit, name)
    data, known = observed_values(fit, name)
    if units.shape != data.shape:
        from ppl import ModelError

        raise ModelError(
            f"site {name!r} has {data.shape} values and {units.shape} log factors: a value is not predicted by itself, "
            "so it has no probability integral transform"
        )
    log_likelihood = pointwise_log_likelihood(fit, units)
    chains, total = fit.draws.positions.shape[:2]
    wanted = max(min(total, MOST_NUMBERS // max(chains * data.size, 1)), 1)
    made, index = posterior_replicas(fit, name, wanted, seed)
    rows = log_likelihood.reshape(chains, total, -1)[:, index].reshape(chains * len(index), -1)[:, known.ravel()]
    drawn = made.reshape(len(rows), -1)[:, known.ravel()]
    weights, k = smooth(-rows, relative_efficiency(fit))
    given = data.ravel()[known.ravel()]
    share = np.exp(weights)
    ties = host_rng(seed, _TIES).random(given.size)
    values = (share * (drawn < given)).sum(0) + ties * (share * (drawn == given)).sum(0)
    labels = [f"{name}{list(place)}" for place in np.argwhere(known).tolist()]
    return LooPit(np.clip(values, 0.0, 1.0), tuple(labels), k, threshold(len(rows)), name)
