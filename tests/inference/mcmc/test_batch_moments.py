"""Split R-hat from batch sums against the one from all draws."""

import numpy as np
import pytest

from ppl.inference import diagnostics
from ppl.inference.mcmc.batch_moments import BatchMoments


@pytest.mark.parametrize("spread", [0.01, 1.0])
@pytest.mark.parametrize("draws", [200, 640, 1300])
def test_batch_moments_are_split_rhat(draws, spread):
    """The running R-hat is the plain one of z or |z - centre|, whichever is worse: chains differ in one of them."""
    rng = np.random.default_rng(20)
    z = rng.normal(size=(draws, 4, 3)) * np.array([1.0, 2.0, 1.0, 1.0])[:, None] * spread
    z += 0.1 * (1 - spread) * rng.normal(size=(1, 4, 3))
    centre = np.array([0.1, -0.2, 0.3])
    moments = BatchMoments.empty(centre, 4)
    for at in range(0, draws, 37):
        moments = moments.add(z[at : at + 37])
    assert len(moments.sums) < 64
    used = len(moments.sums) // 2 * moments.size
    x = np.swapaxes(np.concatenate([z[:used], z[len(moments.sums) * moments.size - used :][:used]]), 0, 1)
    expected = max(diagnostics.rhat(x).max(), diagnostics.rhat(np.abs(x - centre)).max())
    np.testing.assert_allclose(moments.rhat(), expected, rtol=1e-10)
