"""Parallel experiments with known standard errors: the simplest hierarchical model.

    mu ~ N(0, 5)      tau ~ HalfCauchy(5)      theta[j] ~ N(mu, tau)      y[j] ~ N(theta[j], sigma[j])

Two texts of the same law: *centred* samples theta itself, whose conditional scale tau makes a funnel;
*non-centred* samples t[j] ~ N(0, 1) and sets theta[j] = mu + tau t[j].

References: Rubin (1981), Estimation in parallel randomized experiments; Papaspiliopoulos, Roberts and Sköld
(2007), A general framework for the parametrization of hierarchical models.
"""

from __future__ import annotations

import ppl
from ppl import dist


@ppl.model
def eight_schools(sigma):
    """Eight schools, centred.

    Args:
        sigma: Standard errors, shape (schools,).

    Returns:
        Effects theta, shape (schools,).

    Example:
        >>> from ppl.models import datasets
        >>> data = datasets.load("eight_schools")
        >>> program = eight_schools(data["standard_error"]).condition(y=data["effect"])
        >>> theta = data["effect"] * 0.0
        >>> round(float(program.log_prob({"mu": 0.0, "tau": 1.0, "theta": theta})), 3)
        -43.436
    """
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfCauchy(5.0))

    @ppl.plate("school", sigma)
    def theta(s):
        theta = ppl.sample("theta", dist.Normal(mu, tau))
        ppl.sample("y", dist.Normal(theta, s))
        return theta

    return theta


@ppl.model
def eight_schools_noncentred(sigma):
    """Eight schools, non-centred: theta is a record, t is sampled.

    Args:
        sigma: Standard errors, shape (schools,).

    Returns:
        Effects theta, shape (schools,).

    Example:
        >>> from ppl.models import datasets
        >>> data = datasets.load("eight_schools")
        >>> program = eight_schools_noncentred(data["standard_error"]).condition(y=data["effect"])
        >>> t = data["effect"] * 0.0
        >>> round(float(program.log_prob({"mu": 0.0, "tau": 1.0, "t": t})), 3)
        -43.436
    """
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfCauchy(5.0))

    @ppl.plate("school", sigma)
    def theta(s):
        t = ppl.sample("t", dist.Normal(0.0, 1.0))
        theta = ppl.record("theta", mu + tau * t)
        ppl.sample("y", dist.Normal(theta, s))
        return theta

    return theta
