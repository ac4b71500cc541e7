"""Settings of the test run: float64, strict dtype promotion, a compilation cache of its own.

Strict promotion catches an accidental mixture of dtypes in our modules. NumPyro mixes integers and floats
inside several families (`Bernoulli.sample`, `Binomial`, `LKJ`, `TruncatedNormal`, ...), so its methods run
under the usual promotion here, and strictness resumes as soon as they return. Tests of code that a user would
write carry `@pytest.mark.standard_promotion`.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import shutil
import tempfile

# What a test run compiles stays in that run, also for its subprocesses. Set before JAX is imported.
_CACHE = tempfile.mkdtemp(prefix="ppl-test-cache-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "agg")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_enable_x64", True)

import numpyro.distributions  # noqa: E402


def _with_standard_promotion(method):
    @functools.wraps(method)
    def wrapper(*args, **kwargs):
        with jax.numpy_dtype_promotion("standard"):
            return method(*args, **kwargs)

    return wrapper


_ENTRY_POINTS = (
    "__init__", "__call__", "_inverse", "_validate_sample", "log_prob", "sample", "sample_with_intermediates",
    "cdf", "icdf", "log_cdf", "entropy", "mean", "variance", "log_abs_det_jacobian", "check", "feasible_like",
    "enumerate_support",
)  # fmt: skip


def _relax_numpyro() -> None:
    """Let the methods of NumPyro's own classes, and only those, mix dtypes."""
    modules = [m for m in vars(numpyro.distributions).values() if inspect.ismodule(m)]
    classes = {
        value
        for module in [numpyro.distributions, *modules]
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__.startswith("numpyro.distributions")
    }
    for cls in classes:
        for name in _ENTRY_POINTS:
            attribute = cls.__dict__.get(name)
            if inspect.isfunction(attribute):
                setattr(cls, name, _with_standard_promotion(attribute))
            elif isinstance(attribute, property) and attribute.fget is not None:
                setattr(cls, name, property(_with_standard_promotion(attribute.fget), doc=attribute.__doc__))


_relax_numpyro()
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(autouse=True)
def _configuration(request):
    """Give every test float64 and its kind of promotion, whatever the test before it left behind."""
    standard = request.node.get_closest_marker("standard_promotion") is not None
    # Global settings rather than contexts: a context does not reach the threads that a test starts.
    jax.config.update("jax_numpy_dtype_promotion", "standard" if standard else "strict")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_numpy_dtype_promotion", "strict")
