"""Every example's fit works with ArviZ's criticism, and with ours, without further code."""

from __future__ import annotations

import importlib
import importlib.metadata
import warnings
from pathlib import Path

import arviz as az
import numpy as np
import pytest

import examples
from ppl.inference import bridge, compare, infer, loo, mcmc, psense

NEW = int(importlib.metadata.version("arviz").split(".")[0]) >= 1
NAMES = sorted(path.stem for path in Path(examples.__path__[0]).glob("[a-z]*.py"))
QUICK = {"linear"}
ENGINE = mcmc.PooledHMC(draws=60, max_draws=60)

pytestmark = pytest.mark.standard_promotion  # examples are user code


class Captured(Exception):
    """The program of an example, caught before it is fitted at length."""


def program_of(name, monkeypatch, tmp_path):
    module = importlib.import_module(f"examples.{name}")
    if not hasattr(module, "infer"):
        pytest.skip("fits nothing")

    def capture(program, *args, **options):
        raise Captured(program)

    monkeypatch.setattr(module, "infer", capture)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Captured) as caught:
        module.main()
    return caught.value.args[0]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_criticism_needs_no_further_code(name, monkeypatch, tmp_path):
    program = program_of(name, monkeypatch, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = infer(program, ENGINE, seed=1, progress=False)
        data = fit.to_arviz()
        elpd = arviz_loo(data)
        if NEW:
            pytest.importorskip("arviz_plots")
            scaled = [az.psense(data, group=group) for group in ("prior", "likelihood")]
        else:
            scaled = [az.psens(data, component=component) for component in ("prior", "likelihood")]
            az.plot_ppc(data, num_pp_samples=5)
            az.plot_loo_pit(data, y=next(iter(data.observed_data.data_vars)))
            close()
        table = az.compare({"one": data, "other": data})
        ours = loo(fit, method="psis")
        matched = loo(fit, method="moment_match")
        again = compare({"one": ours, "other": ours})
        sensitivity = psense(fit)
        evidence = bridge(fit)
    assert ours.elpd == pytest.approx(elpd, rel=1e-3 if NEW else 1e-8)  # ArviZ from 1.0 on fits another tail
    for found in scaled:
        for name, value in found.data_vars.items():
            constant = np.ptp(fit.values[name], axis=(0, 1)) < 1e-12  # such as the diagonal of a correlation
            assert (np.isfinite(value.values) | constant).all(), name
    assert len(table) == len(again) == 2
    assert matched.k.max() <= ours.k.max()
    assert np.isfinite(sensitivity[["prior", "likelihood"]].to_numpy()).all()
    assert np.isfinite(evidence.log_evidence) and evidence.se < 2.0


def arviz_loo(data):
    found = az.loo(data, pointwise=True)
    return float(found.elpd if NEW else found["elpd_loo"])


def close():
    from matplotlib import pyplot as plt

    plt.close("all")
