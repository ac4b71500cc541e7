"""Directories written by earlier versions can be read by this one."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ppl.inference import infer, load

sys.path.insert(0, str(Path(__file__).parent))
import run_model  # noqa: E402

FROZEN = Path(__file__).parent / "frozen"


@pytest.fixture(params=sorted(p.stem for p in FROZEN.glob("format-*.zip")))
def folder(request, tmp_path):
    """The files that one format left."""
    with zipfile.ZipFile(FROZEN / f"{request.param}.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


def assert_what_it_was(fit):
    np.testing.assert_allclose(fit.values["slope"].mean(), 1.7213292908942637, rtol=1e-12)
    np.testing.assert_allclose(fit.values["double"].std(), 0.7715026402739876, rtol=1e-12)
    np.testing.assert_allclose(fit.draws.positions[1, -1], [0.98314258, 0.17236312], rtol=1e-7)
    assert fit.posterior["slope"].dims == ("chain", "draw")


def test_runs(folder):
    fit = infer.open(folder / "run-1")
    assert_what_it_was(fit)
    assert fit.manifest["status"] == "finished"
    assert_what_it_was(infer.open(folder / "run-1", run_model.program()))


def test_fits(folder):
    fit = load(folder / "fit-1", run_model.program())
    assert_what_it_was(fit)
    assert fit.predict(seed=1)["y"].shape == (2, 25, 12)
