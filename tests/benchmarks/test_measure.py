"""The rule by which a posterior passes, and the arithmetic of the speed table."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import speed
from benchmarks.posteriordb import measure
from benchmarks.posteriordb.__main__ import line, main


def draws(rng, shift=0.0, scale=1.0):
    return {"a": rng.normal(size=(8, 1000)), "b[1]": 5 + 2 * (shift + scale * rng.normal(size=(8, 1000)))}


@pytest.mark.parametrize(
    ("shift", "scale", "passes", "worst"),
    [(0.0, 1.0, True, None), (0.25, 1.0, False, "mean_error"), (0.0, 1.25, False, "sd_ratio")],
)
def test_rule_on_moments(shift, scale, passes, worst):
    # independent draws: a mean is off by 0.016 sd and a ratio by 0.011, so 0.1 is six standard errors away
    row = measure.judge(draws(np.random.default_rng(1), shift, scale), draws(np.random.default_rng(2)))
    assert row["pass"] is passes
    if worst:
        assert row[worst + "_at"] == "b[1]"


def test_rule_on_chains_that_disagree():
    ours = draws(np.random.default_rng(1))
    ours["a"] = ours["a"] + np.repeat([-0.2, 0.2], 4)[:, None]
    row = measure.judge(ours, draws(np.random.default_rng(2)))
    assert row["rhat"] > 1.01 and not row["pass"]


def test_heavy_tails_are_judged_by_quantiles():
    rng = np.random.default_rng(4)
    ours, reference = rng.standard_t(2, size=(8, 1000)), rng.standard_t(2, size=(8, 1000))
    row = measure.judge({"x": ours}, {"x": reference}, heavy_tailed=True)
    assert row["pass"] and row["quantile_error"] < 4
    assert not measure.judge({"x": ours * 1.2}, {"x": reference}, heavy_tailed=True)["pass"]


def test_summary_takes_medians_and_the_best_peer():
    def run(rate, cpu):
        phase = {"bulk_per_core_s": rate, "both_per_core_s": rate / 2, "cpu": cpu, "wall": cpu, "ess_bulk": 1500.0}
        phase |= {"rhat": 1.0, "mean_error": 0.01, "sd_ratio": 1.0}
        return {"cold": phase, "warm": phase}

    ours = [run(100.0, 1.0), run(300.0, 2.0), run(200.0, 9.0)]
    runs = {"ours": ours, "p": [run(40.0, 5.0)], "q": [run(50.0, 8.0), {"error": "x"}]}
    summary = speed.summarise([{"posterior": "toy", "runs": runs, "trace": {}}], ("p", "q"))
    assert summary["ratios"][0]["warm_bulk"] == 4.0 and summary["ratios"][0]["cold_cpu"] == 2.5
    assert summary["geometric_means"]["warm_both"] == pytest.approx(4.0)
    assert summary["table"][0]["cells"]["q"]["failed"] == 1


def test_failed_worker_is_a_row_and_not_a_crash(tmp_path):
    import sys

    row = speed.run_worker(sys.executable, "nothing_of_that_name", tmp_path / "out", 60.0, job="speed")
    assert "No module named" in row["error"]


@pytest.mark.slow
@pytest.mark.standard_promotion
def test_command_judges_a_pack(tmp_path, capsys):
    """A made-up pack: a regression whose flat-prior posterior is a Student distribution, drawn exactly."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 5)) * [1, 2, 3, 4, 5]
    y = x @ np.ones(5) + rng.normal(size=100)
    folder = tmp_path / "sblri-blr"
    folder.mkdir()
    (folder / "data.json").write_text(json.dumps({"X": x.tolist(), "y": y.tolist(), "N": 100, "D": 5}))
    fit, rss = np.linalg.lstsq(x, y, rcond=None)[:2]
    # the priors (sd 10, half-normal 10) shift a mean by less than 0.01 sd here
    variance = rss[0] / rng.chisquare(94, size=10000)
    noise = rng.normal(size=(10000, 5)) @ np.linalg.cholesky(np.linalg.inv(x.T @ x)).T
    beta = fit + np.sqrt(variance)[:, None] * noise
    columns = {f"beta[{i + 1}]": beta[:, i].reshape(10, 1000) for i in range(5)}
    np.savez(folder / "reference.npz", sigma=np.sqrt(variance).reshape(10, 1000), **columns)
    out = tmp_path / "out.json"
    assert main(["--pack", str(tmp_path), "--seeds", "1", "--until", "1000", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [row["rule"] for row in rows] == ["ess(1000)", "default"] and all(row["pass"] for row in rows)
    assert "2 of 2 pass" in capsys.readouterr().out
    assert line(rows[0]).startswith("blr")
    assert not list(Path(tmp_path).glob("*.npz"))
