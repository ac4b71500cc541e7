"""Stan models through BridgeStan's own client.

Stan's C++ sources are not on a package index, so the library that is called here is written by hand with the interface
of those that BridgeStan compiles (``normal_model.cpp``). With a toolchain (``BRIDGESTAN`` set) a Stan file is compiled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, laplace
from ppl.inference.interop import from_bridgestan

pytest.importorskip("bridgestan", reason="bridgestan is not installed")

Y = np.array([1.0, 2.5, -0.5, 3.0, 0.2])


@ppl.model
def normal(n):
    mu = ppl.sample("mu", dist.Normal(0.0, 2.0))
    sigma = ppl.sample("sigma", dist.Exponential(1.0))
    ppl.sample("y", dist.Normal(mu, sigma).expand([n]))


OURS = normal(5).condition(y=Y)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    target = tmp_path_factory.mktemp("stan") / "normal_model.so"
    source = Path(__file__).with_name("normal_model.cpp")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(source), "-o", str(target)], check=True)
    return target


@pytest.fixture(scope="module")
def density(library):
    return from_bridgestan(library, {"N": 5, "y": Y}, coords={"log_lik_dim_0": list("abcde")})


def test_the_log_density_and_its_gradient_are_ours(density):
    assert density.labels == ["mu", "sigma"]
    ours = ppl.compile(OURS)
    zs = np.random.default_rng(0).normal(size=(7, 2))
    a = jax.jit(jax.vmap(jax.value_and_grad(density)))(zs)
    b = jax.jit(jax.vmap(jax.value_and_grad(ours)))(zs)
    np.testing.assert_allclose(a[0], b[0], rtol=1e-12)
    np.testing.assert_allclose(a[1], b[1], rtol=1e-10)
    np.testing.assert_allclose(density(zs[0]), ours(zs[0]), rtol=1e-12)
    np.testing.assert_allclose(density.unconstrain({"mu": 1.0, "sigma": 2.0}), [1.0, np.log(2.0)], rtol=1e-12)


def test_stans_rejection_is_no_error(density):
    values = jax.vmap(density)(np.array([[60.0, 0.0], [0.0, 0.0]]))
    assert values[0] == -np.inf and np.isfinite(values[1])


def test_the_posterior_is_labelled_and_equal_to_ours(density):
    fit = infer(density, seed=1, draws=400, progress=False)
    exact = infer(OURS, seed=2, draws=400, progress=False)
    assert list(fit.posterior.data_vars) == ["mu", "sigma", "m"]
    mu, sigma, m = (fit.values[name] for name in ("mu", "sigma", "m"))
    np.testing.assert_allclose(m[..., 0, 0], mu)
    np.testing.assert_allclose(m[..., 0, 1], sigma)
    np.testing.assert_allclose(m[..., 1, 0], mu + sigma)
    assert fit.log_likelihood["log_lik"].dims == ("chain", "draw", "log_lik_dim_0")
    assert fit.log_likelihood.coords["log_lik_dim_0"].values.tolist() == list("abcde")
    expected = dist.Normal(mu[..., None], sigma[..., None]).log_prob(Y)
    np.testing.assert_allclose(fit.log_likelihood["log_lik"].values, expected, rtol=1e-10)
    a, b = fit.summary(["mu", "sigma"]), exact.summary()
    # two quantities, |z| < 4.5: false alarm below 1e-4
    assert np.all(np.abs(a["mean"] - b["mean"]) < 4.5 * np.hypot(a["mcse_mean"], b["mcse_mean"]))
    assert any("calls Stan model normal_model outside of JAX" in line for line in fit.manifest["plan"])


def test_laplace_takes_it(density):
    np.testing.assert_allclose(laplace(density).position, laplace(OURS).position, rtol=1e-6)
    np.testing.assert_allclose(laplace(density).log_evidence, laplace(OURS).log_evidence, rtol=1e-6)


def test_data_that_stan_refuses_are_an_error_of_the_model(library):
    with pytest.raises(ppl.ModelError, match="variable y does not exist"):
        from_bridgestan(library, {"N": 5})


@pytest.mark.slow
def test_a_stan_file_is_compiled(tmp_path):
    if not os.environ.get("BRIDGESTAN"):
        pytest.skip("no BridgeStan toolchain: BRIDGESTAN is not set")
    file = tmp_path / "file_model.stan"
    file.write_text(
        "data { int N; vector[N] y; } parameters { real mu; real<lower=0> sigma; }\n"
        "model { mu ~ normal(0, 2); sigma ~ exponential(1); y ~ normal(mu, sigma); }\n"
    )
    density = from_bridgestan(file, {"N": 5, "y": Y})
    z = np.array([0.3, -0.2])
    np.testing.assert_allclose(density(z), ppl.compile(OURS)(z), rtol=1e-10)
