"""Draws that go to a disk leave the memory of the process flat."""

import os
import subprocess
import sys

import pytest

CHILD = """
import resource, sys
import numpy as np
from ppl.inference import infer, mcmc
from ppl.inference.core import as_density

draws, path = int(sys.argv[1]), sys.argv[2]
scales = np.linspace(0.5, 2.0, 100)
target = lambda z: -0.5 * ((z / scales) ** 2).sum()
engine = mcmc.PooledHMC(chains=4, draws=draws, max_draws=draws)
fit = infer(target, engine, init=np.zeros(100), path=path, progress=False)
assert fit.draws.shape == (4, draws, 100)
assert not fit.warnings(), fit.warnings()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
piece = fit.draws.sampling.read("unconstrained_posterior", "z", draws - 5, draws)
assert piece.shape == (4, 5, 100) and np.isfinite(piece).all()
"""


def peak(draws, path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CHILD, str(draws), str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[0])


def ratio(few, many, path):
    a, b = peak(few, path / "a"), peak(many, path / "b")
    print(f"peak memory: {a / 1024:.0f} MB for {few} draws, {b / 1024:.0f} MB for {many}; ratio {b / a:.3f}")
    return b / a


def test_memory_hardly_grows_with_the_draws(tmp_path):
    assert ratio(2_000, 40_000, tmp_path) < 1.3  # all draws in memory would be 30 times more


@pytest.mark.slow
def test_a_million_draws_of_a_hundred_coordinates(tmp_path):
    assert ratio(100_000, 1_000_000, tmp_path) < 1.3
