"""No model, only a JAX function: a log density up to a constant, given to any kernel.

A banana, as in Haario, Saksman and Tamminen (1999): z[0] ~ N(1, 1) and z[1] | z[0] ~ N(z[0]^2, 1/4), so E[z] = (1, 2).
"""

import numpy as np

from ppl.inference import infer, mcmc
from ppl.inference.core import as_density


def banana(z):
    return -0.5 * (z[0] - 1.0) ** 2 - 0.5 * ((z[1] - z[0] ** 2) / 0.5) ** 2


def main() -> None:
    fit = infer(as_density(banana, dim=2), mcmc.MAMS(), seed=1)
    print(fit.summary())
    assert np.allclose(fit.values["z"].mean((0, 1)), [1.0, 2.0], atol=0.3)

    # Any kernel goes in that place, those that need no gradient among them.
    fit = infer(as_density(banana, dim=2), mcmc.Slice(), draws=2000, seed=1)
    print(fit.summary())
    assert np.allclose(fit.values["z"].mean((0, 1)), [1.0, 2.0], atol=0.3)


if __name__ == "__main__":
    main()
