"""The model of the tests that interrupt runs; importable by name, as a resumed run needs it."""

import numpy as np

import ppl
from ppl import dist

X = np.linspace(-1.0, 2.0, 12)
Y = np.array([0.1, 0.7, -0.2, 0.4, 1.9, 1.1, 1.3, 2.8, 2.2, 2.5, 3.9, 3.1])


@ppl.model
def line(x):
    """A regression with a record and a bounded site."""
    slope = ppl.sample("slope", dist.Normal(0.0, 2.0))
    sigma = ppl.sample("sigma", dist.HalfNormal(1.0))
    ppl.record("double", 2.0 * slope)

    @ppl.plate("row", x)
    def row(v):
        ppl.sample("y", dist.Normal(slope * v, sigma))


def program(y=Y):
    """The conditioned program."""
    return line(X).condition(y=y)
