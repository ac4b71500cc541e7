"""Families of responses and their links: what a formula writes for the last lines of its model.

The linear predictor eta gives the mean mu = g^-1(eta) of the response. Links are canonical (McCullagh and Nelder,
1989) but for gamma and negative binomial responses, whose canonical links admit means below zero; they take the
logarithm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .errors import ModelError, at, user_line


@dataclass(frozen=True)
class Link:
    """A link function.

    Attributes:
        inverse: Text of the mean, given ``eta``.
        forward: From a mean to the linear predictor, for the prior of the intercept; None: zero is its place.
    """

    inverse: str
    forward: Callable[[float], float] | None


LINKS = {
    "identity": Link("eta", lambda m: m),
    "log": Link("jnp.exp(eta)", lambda m: float(np.log(m))),
    "logit": Link("jax.nn.sigmoid(eta)", None),
    "probit": Link("jax.scipy.stats.norm.cdf(eta)", None),
    "cloglog": Link("-jnp.expm1(-jnp.exp(eta))", None),
}


@dataclass(frozen=True)
class Family:
    """A family of distributions of the response.

    Attributes:
        name: As it is asked for.
        links: Links, the default first.
        density: Text of the distribution, given ``mu``.
        logits: Text given ``eta`` where the link is the logit.
        auxiliary: Further parameters, by site name.
    """

    name: str
    links: tuple[str, ...]
    density: str
    logits: str = ""
    auxiliary: tuple[str, ...] = ()


_CHANCES = ("logit", "probit", "cloglog")
FAMILIES = {
    family.name: family
    for family in (
        Family("gaussian", ("identity", "log"), "dist.Normal(mu, sigma)", "", ("sigma",)),
        Family("student_t", ("identity", "log"), "dist.StudentT(nu, mu, sigma)", "", ("sigma", "nu")),
        Family("bernoulli", _CHANCES, "dist.Bernoulli(probs=mu)", "dist.Bernoulli(logits=eta)"),
        Family("binomial", _CHANCES, "dist.Binomial(trials, probs=mu)", "dist.Binomial(trials, logits=eta)"),
        Family("poisson", ("log", "identity"), "dist.Poisson(mu)"),
        Family("negativebinomial", ("log",), "dist.NegativeBinomial2(mu, concentration)", "", ("concentration",)),
        Family("gamma", ("log", "identity"), "dist.Gamma(shape, shape / mu)", "", ("shape",)),
    )
}


def choose(family: str, link: str | None) -> tuple[Family, str]:
    """A family and its link by name.

    Raises:
        ModelError: If there is no such family, or it has no such link.

    Example:
        >>> choose("poisson", None)[1]
        'log'
    """
    found = FAMILIES.get(str(family))
    if found is None:
        raise ModelError(f"there is no family {family!r}; there are {', '.join(FAMILIES)}:\n{at(user_line())}")
    if link is not None and link not in found.links:
        raise ModelError(
            f"the {found.name} family has no link {link!r}; it has {', '.join(found.links)}:\n{at(user_line())}"
        )
    return found, link or found.links[0]
