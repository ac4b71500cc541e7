"""A whole run on new data of equal shape compiles nothing, and a second process finds what the first compiled."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, mcmc

pytestmark = pytest.mark.standard_promotion
_events: list[str] = []
jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: _events.append(name))
jax.monitoring.register_event_listener(lambda name, **_: _events.append(name))

ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])


def define():
    @ppl.model
    def eight_schools(error, spread):
        mu = ppl.sample("mu", dist.Normal(0.0, spread))
        tau = ppl.sample("tau", dist.HalfCauchy(5.0))

        @ppl.plate("school", error)
        def _(e):
            z = ppl.sample("z", dist.Normal(0.0, 1.0))
            ppl.sample("y", dist.Normal(ppl.record("theta", mu + tau * z), e))

    return eight_schools


ENGINES = {
    "PooledHMC": (None, {}),
    "NUTS": (mcmc.NUTS(), {"chains": 2, "warmup": 100, "draws": 50}),
    "HMC": (mcmc.HMC(), {"chains": 2, "warmup": 100, "draws": 50}),
}


@pytest.mark.parametrize("name", ENGINES)
def test_new_data_a_float_argument_and_a_definition_run_again_compile_nothing(name):
    engine, options = ENGINES[name]

    def run(model, spread, effect):
        program = model(ERROR, spread).condition(y=effect)
        fit = infer(program, engine, seed=1, progress=False, **options)
        _ = fit.log_likelihood
        return float(fit.posterior["mu"].mean()), fit.summary()

    model = define()
    first, _ = run(model, 5.0, EFFECT)
    start = len(_events)
    others = [run(model, 5.0, EFFECT + 1.0)[0], run(model, 6.0, EFFECT)[0], run(define(), 5.0, EFFECT)[0]]
    new = [e for e in _events[start:] if "backend_compile" in e or "compilation_cache" in e]
    assert new == []
    assert len({first, *others}) == 3 and others[2] == first


SCRIPT = """
import json, jax, numpy as np
spent = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: spent.append(seconds) if name.endswith("backend_compile_duration") else None
)
import ppl
from ppl import dist
from ppl.inference import infer

@ppl.model
def model(error):
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfCauchy(5.0))
    ppl.plate("school", lambda e: ppl.sample("y", dist.Normal(ppl.sample("theta", dist.Normal(mu, tau)), e)), error)

fit = infer(model(np.arange(1.0, 9.0)).condition(y=np.ones(8)), draws=50, progress=False)
print(json.dumps([sum(spent), float(fit.posterior["mu"].mean())]))
"""


def test_a_second_process_compiles_less_than_a_third(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)

    def run():
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
        )
        return json.loads(done.stdout.splitlines()[-1])

    (first, mean), (second, again) = run(), run()
    assert mean == again
    assert first > 0.05
    assert second < 0.3 * first
