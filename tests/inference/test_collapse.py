"""Runs on collapsed densities: the same posterior, said in the plan, turned off, opened again; predictions."""

import numpy as np
import pytest

from benchmarks.collapse import programs
from ppl.inference import infer, mcmc

pytestmark = pytest.mark.standard_promotion

OPTIONS = {"chains": 2, "warmup": 150, "draws": 150, "seed": 3, "progress": False}


def said(fit):
    return any("collapsed 'y'" in line for line in fit.manifest["plan"])


def test_a_run_says_what_it_collapses_and_can_be_told_not_to(tmp_path):
    program = programs(0, 2_000)["regression"]
    fit = infer(program, mcmc.NUTS(), path=tmp_path / "run", **OPTIONS)
    plain = infer(program, mcmc.NUTS(), collapse=False, **OPTIONS)
    assert said(fit) and not said(plain)
    assert fit.manifest["collapse"] and not plain.manifest["collapse"]
    difference = fit.posterior["beta"].mean(("chain", "draw")) - plain.posterior["beta"].mean(("chain", "draw"))
    assert float(np.abs(difference).max()) < 0.02  # the posterior's sd is 0.02, the means' errors are some 0.002
    assert fit.log_likelihood["y"].shape == (2, 150, 2_000)
    assert fit.predict(seed=0)["y"].shape == (2, 150, 2_000)
    again = infer.open(tmp_path / "run", program)
    np.testing.assert_array_equal(again.posterior["beta"], fit.posterior["beta"])
    assert again.log_likelihood["y"].shape == (2, 150, 2_000)
