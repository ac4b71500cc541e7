"""HMC and NUTS leave six targets invariant, by rank tests from exact draws.

Each test rejects a correct kernel with probability 1e-4. What they catch is tested in test_mutations.
"""

import numpy as np
import pytest

from ppl.inference.calibration.rank import rank_invariance
from ppl.inference.mcmc import HMC, NUTS
from ppl.inference.mcmc.euclidean import Dense, Diagonal
from tests.oracles.targets import TARGETS


def tuned(kernel, target):
    """Give a kernel the target's step size and scales."""
    scale = np.asarray(target.scale)
    return kernel(step_size=target.step_size, metric=Dense(scale) if scale.ndim == 2 else Diagonal(scale))


def nuts(**options):
    """NUTS with a shorter tree, to bound the cost of many replications in lockstep."""
    return NUTS(max_depth=6, **options)


def hmc(**options):
    """HMC with four to eleven steps."""
    return HMC(length=7 * options["step_size"], **options)


@pytest.mark.parametrize("kernel", [nuts, hmc])
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_kernel_leaves_target_invariant(kernel, target):
    result = rank_invariance(
        tuned(kernel, target), target.log_density, target.sample, replications=4096, steps=5, seed=1
    )
    assert result.passed(1e-4), str(result)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [nuts, hmc])
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_kernel_leaves_target_invariant_many(kernel, target):
    for reversible in (True, False):
        result = rank_invariance(
            tuned(kernel, target),
            target.log_density,
            target.sample,
            replications=60_000,
            steps=7,
            seed=2,
            reversible=reversible,
        )
        assert result.passed(1e-4), str(result)
