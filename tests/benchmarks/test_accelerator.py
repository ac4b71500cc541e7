"""The benchmark of many chains runs and records what it ran on."""

import json

import pytest

from benchmarks import accelerator


@pytest.mark.slow
def test_it_writes_what_it_measured(tmp_path):
    options = ["--chains", "16", "--targets", "gaussian", "--draws", "5", "--warmup", "60"]
    report = accelerator.main([*options, "--json", str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text()) == report
    cold, warm = report["runs"]
    assert (cold["kind"], warm["kind"], warm["chains"], warm["dim"]) == ("cold", "warm", 16, 100)
    assert warm["seconds"] < cold["seconds"] and warm["least_ess"] > 0
    assert report["machine"] and report["platform"] and report["jax"]
