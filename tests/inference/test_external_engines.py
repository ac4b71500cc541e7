"""Engines on models with functions outside of JAX: which can take them, and that they get the posterior right."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, laplace, mcmc
from ppl.inference.mcmc import compact

Y = np.array([1.0, 2.0, 4.0])
PRECISION = 3 + 0.25
MEAN, SD = Y.sum() / PRECISION, PRECISION**-0.5


@dataclass(frozen=True)
class State:
    position: Any
    log_density: Any


@dataclass(frozen=True)
class Info:
    acceptance_rate: Any


@dataclass(frozen=True)
class RandomWalk:
    """Random-walk Metropolis with a fixed scale."""

    scale: Any = 1.0

    def init(self, position, density):
        return State(position, density(position))

    def step(self, key, state, density):
        normal, uniform = jax.random.split(key)
        proposal = state.position + self.scale * jax.random.normal(normal, state.position.shape, state.position.dtype)
        value = density(proposal)
        ratio = jnp.where(jnp.isnan(value), -jnp.inf, value - state.log_density)
        accept = jnp.log(jax.random.uniform(uniform, (), ratio.dtype)) < ratio
        new = State(jnp.where(accept, proposal, state.position), jnp.where(accept, value, state.log_density))
        return new, Info(jnp.exp(jnp.minimum(ratio, 0.0)))


for kind in (State, Info, RandomWalk):
    jax.tree_util.register_dataclass(kind)


class Likelihood:
    """A Gaussian log likelihood on the host; notes the sizes of its batches and the threads that call it."""

    good = 20

    def __init__(self):
        self.sizes, self.threads, self.broken = [], set(), None

    def __call__(self, theta, y):
        self.sizes.append(len(theta))
        self.threads.add(threading.get_ident())
        if self.broken is not None and len(self.sizes) > self.good:
            raise self.broken
        return -0.5 * ((y - theta[:, None]) ** 2).sum(-1)

    def gradient(self, theta, y):
        return (y - theta[:, None]).sum(-1), None


def program(like, grad=True):
    @ppl.model
    def model(y):
        theta = ppl.sample("theta", dist.Normal(0.0, 2.0))
        slope = like.gradient if grad else None
        ppl.factor("like", ppl.external("simulator", like, theta, y, batched=True, grad=slope))

    return model(Y)


def agrees(fit, false_alarms=4.0):
    """Mean and sd within four Monte Carlo standard errors (false alarm about 1 in 8,000 per call)."""
    row = fit.summary()["theta"]
    assert abs(row["mean"] - MEAN) < false_alarms * row["mcse_mean"]
    assert abs(row["sd"] / SD - 1) < false_alarms / np.sqrt(row["ess_bulk"] / 4)


@pytest.mark.parametrize("engine", [None, mcmc.NUTS(), mcmc.HMC()], ids=["PooledHMC", "NUTS", "HMC"])
def test_engines_that_follow_gradients_refuse_before_anything_runs(engine):
    like = Likelihood()
    name = type(engine).__name__ if engine else "PooledHMC"
    with pytest.raises(ppl.ModelError, match=f"{name} follows the gradient") as caught:
        infer(program(like, grad=False), engine, progress=False)
    assert like.sizes == []
    text = str(caught.value)
    assert "external function 'simulator', in site 'like' at" in text and "test_external_engines.py" in text
    assert "kernel without gradients" in text


def test_laplace_refuses_too_and_differentiates_what_has_a_gradient():
    like = Likelihood()
    with pytest.raises(ppl.ModelError, match="laplace follows the gradient"):
        laplace(program(like, grad=False))
    fit = laplace(program(like))
    np.testing.assert_allclose([fit.position[0], fit.covariance[0, 0]], [MEAN, SD**2], rtol=1e-7)
    log_evidence = -0.5 * 3 * (Y - Y.mean()) @ (Y - Y.mean()) / 3  # one observation of mean(y) with variance 1/3
    log_evidence += dist.Normal(0.0, np.sqrt(4 + 1 / 3)).log_prob(Y.mean()) + 0.5 * np.log(2 * np.pi / 3)
    np.testing.assert_allclose(fit.log_evidence, log_evidence, rtol=1e-7)


def test_a_kernel_without_gradients_takes_it_with_one_call_for_all_chains():
    like = Likelihood()
    fit = infer(program(like, grad=False), RandomWalk(), chains=4, warmup=100, draws=1500, seed=2, progress=False)
    agrees(fit)
    assert set(like.sizes) == {4}
    assert any("calls simulator outside of JAX" in line for line in fit.manifest["plan"])


def test_pooled_hmc_in_one_lane_and_in_several():
    like = Likelihood()
    fit = infer(program(like), draws=300, seed=1, progress=False)
    agrees(fit)
    assert set(like.sizes) == {16}
    like = Likelihood()
    fit = infer(program(like), mcmc.PooledHMC(lanes=4, draws=100, max_draws=100), seed=1, progress=False)
    agrees(fit)
    assert set(like.sizes) == {4}


def test_an_exception_in_the_middle_of_a_run_is_the_users_own():
    like = Likelihood()
    like.broken = ConnectionError("the simulator is gone")
    for engine in (mcmc.PooledHMC(lanes=4), mcmc.Chains(RandomWalk(), lane=1)):
        like.sizes.clear()
        with pytest.raises(ConnectionError, match="the simulator is gone") as caught:
            infer(program(like), engine, progress=False)
        assert caught.traceback[-1].name == "__call__"
        assert any("in the external function" in note for note in caught.value.__notes__)


def test_ctrl_c_during_a_call_keeps_the_draws():
    like = Likelihood()
    like.broken, like.good = KeyboardInterrupt(), 300
    fit = infer(program(like, grad=False), RandomWalk(), chains=4, warmup=50, draws=2000, progress=False)
    assert 0 < fit.draws.positions.shape[1] < 2000
    assert fit.manifest["interrupted"] and "interrupted after" in fit.notes[0]


def test_it_is_compiled_as_usual_and_never_as_one_piece():
    density = ppl.compile(program(Likelihood()))
    assert compact.refused(jax.make_jaxpr(jax.value_and_grad(density))(jnp.zeros(1)).jaxpr) == "pure_callback"


CACHE = """
import os, sys, jax, numpy as np, ppl
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.block_until_ready(jax.jit(lambda hosted: ppl.external(np.cos, hosted))(1.0))
jax.block_until_ready(jax.jit(lambda plain: 2.0 * plain)(1.0))
assert [file for file in os.listdir(sys.argv[1])], "nothing is kept at all"
assert len([file for file in os.listdir(sys.argv[1]) if file.startswith("jit")]) == 1, os.listdir(sys.argv[1])
"""


@pytest.mark.slow
def test_jax_keeps_no_executable_that_calls_the_host(tmp_path):
    done = subprocess.run([sys.executable, "-c", CACHE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_elements_in_processes():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        f = jax.jit(jax.vmap(lambda x: ppl.external("norm", np.linalg.norm, x, pool=pool)))
        np.testing.assert_allclose(f(np.arange(6.0).reshape(3, 2)), [1.0, 13**0.5, 41**0.5])


@pytest.mark.slow
def test_many_threads_of_chains_with_large_data_and_jax_inside_do_not_lock_up():
    """Lanes of one chain in threads, a megabyte of data handed to the host, a JAX operation in the callee."""
    data = np.ones(200_000)

    def careless(theta, y):
        return float(jnp.sum(jnp.asarray(theta) * 0.0)) - 0.5 * (theta - y.mean()) ** 2

    @ppl.model
    def model(y):
        theta = ppl.sample("theta", dist.Normal(0.0, 2.0))
        ppl.factor("like", ppl.external(careless, theta, y))

    fits: list[Any] = []
    engine = mcmc.Chains(RandomWalk(), chains=8, warmup=50, draws=300, lane=1)
    thread = threading.Thread(target=lambda: fits.append(infer(model(data), engine, progress=False)), daemon=True)
    thread.start()
    thread.join(120)
    assert fits, "the run has locked up"
    assert abs(fits[0].summary()["theta"]["mean"] - 0.8) < 4 * fits[0].summary()["theta"]["mcse_mean"]
