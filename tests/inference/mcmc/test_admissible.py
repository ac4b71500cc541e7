"""Tuning that no kernel can run with is refused by its name and value, before anything runs."""

import numpy as np
import pytest

from ppl.inference import infer, mcmc
from ppl.inference.core import as_density

TARGET = as_density(lambda z: -0.5 * z @ z, dim=2)
PROPOSAL = mcmc.GaussianProposal(mean=np.zeros(2), factor=np.eye(2))


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (mcmc.HMC(step_size=-1.0), r"HMC\(step_size=-1.0\): step_size must be positive"),
        (mcmc.HMC(step_size=np.nan), "step_size=nan"),
        (mcmc.HMC(length=-3.0), r"HMC\(length=-3.0\)"),
        (mcmc.HMC(steps=0), "steps must be a positive whole number"),
        (mcmc.NUTS(target_accept=1.5), "target_accept must be between 0 and 1"),
        (mcmc.NUTS(max_depth=0), "max_depth"),
        (mcmc.Slice(width=-1.0), r"Slice\(width=-1.0\)"),
        (mcmc.SGLD(-1.0), r"SGLD\(step_size=-1.0\)"),
        (mcmc.Cycle(), "Cycle has no kernels"),
        (mcmc.Mixture((mcmc.NUTS(), mcmc.Cycle(mcmc.Block([0, 1], mcmc.MALA(step_size=0.0))))), r"MALA\(step_size=0.0"),
        (mcmc.DifferentialEvolution(jitter=-0.1), "jitter must be not negative"),
        (mcmc.Tempering(mcmc.RandomWalk(step_size=-0.1), reference=PROPOSAL), "RandomWalk"),
    ],
)
def test_tuning_out_of_range_is_named(engine, words):
    with pytest.raises(ValueError, match=words):
        infer(TARGET, engine, init=np.zeros(2), progress=False)


def test_kernels_of_others_are_left_alone():
    from dataclasses import dataclass

    from ppl.inference.mcmc import admissible

    @dataclass(frozen=True)
    class Theirs:
        step_size: float = -1.0

    admissible.check(Theirs())
