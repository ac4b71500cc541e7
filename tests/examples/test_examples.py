"""Every example runs to its end; each asserts published numbers itself."""

import importlib
from pathlib import Path

import pytest

from ppl.inference import load

pytestmark = pytest.mark.standard_promotion

NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "examples").glob("[a-z]*.py"))
FAST = {"eight_schools", "linear", "logistic", "plain_function"}


# the example predicts for a subject that is not in the data, and is told so
@pytest.mark.filterwarnings("ignore:'z' is drawn from its population:UserWarning")
@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in NAMES])
def test_example(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    importlib.import_module(f"examples.{name}").main()
    assert "r_hat" in capsys.readouterr().out
    if name == "demo":
        assert (tmp_path / "demo-output" / "trace.png").stat().st_size > 10_000
        saved = load(tmp_path / "demo-output" / "fit.zarr")
        assert abs(float(saved.posterior["beta"][..., 1].mean()) - 10.47) < 0.7
