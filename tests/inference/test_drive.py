"""The driver: options, stopping, interrupts, refusals, display, precision, and the compilation cache."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import ess, infer
from ppl.inference import precision as floats
from ppl.inference.core import Block
from ppl.inference.drive import configure
from ppl.inference.progress import Lines, Monitor, display
from tests.inference.engines import Gaussian

ROOT = Path(__file__).resolve().parents[2]


def bowl(z):
    return -0.5 * (z**2).sum()


def run(engine=None, target=bowl, init=None, **options):
    init = np.zeros(2) if init is None and target is bowl else init
    return infer(target, engine or Gaussian(), init=init, progress=False, **options)


# ---------------------------------------------------------------------------------------- options


def test_options_override_the_fields_of_the_engine():
    fit = run(chains=3, draws=17, warmup=5)
    assert fit.draws.positions.shape == (3, 17, 2)
    assert fit.draws.warmup_positions.shape == (3, 5, 2)


def test_draws_are_those_of_the_seed():
    a, b, c = run(seed=1), run(seed=1), run(seed=2)
    np.testing.assert_array_equal(a.draws.positions, b.draws.positions)
    assert not np.array_equal(a.draws.positions, c.draws.positions)


def test_an_option_that_the_engine_lacks_is_refused_with_its_options():
    @dataclasses.dataclass(frozen=True)
    class Bare:
        draws: int = 10
        advance: None = None

    with pytest.raises(TypeError, match="Bare has no option 'warmup'; its options are draws"):
        configure(Bare(), warmup=10)


@pytest.mark.parametrize("options", [{"chains": 0}, {"draws": 2.5}, {"warmup": -1}, {"draws": True}])
def test_counts_are_whole_numbers(options):
    with pytest.raises(ValueError, match="not a positive whole number"):
        configure(Gaussian(), **options)


def test_more_draws_than_the_cap_raise_the_cap():
    assert configure(Gaussian(max_draws=300), draws=500).max_draws == 500


def test_what_is_no_engine_is_refused():
    with pytest.raises(TypeError, match="neither an engine"):
        configure(3)
    with pytest.raises(TypeError, match=r"write Gaussian\(\)"):
        configure(Gaussian)


def test_starting_rows_set_the_number_of_chains_and_one_point_is_spread():
    rows = np.arange(6.0).reshape(3, 2)
    fit = run(init=rows)
    assert fit.draws.positions.shape[0] == 3
    np.testing.assert_array_equal(fit.draws.info["init"], rows)
    spread = np.array(run(init=np.array([1.0, 1000.0])).draws.info["init"])
    assert spread.shape == (4, 2)
    assert len(np.unique(spread[:, 0])) == 4
    with pytest.raises(ValueError, match="3 rows for 5 chains"):
        run(init=rows, chains=5)
    with pytest.raises(ValueError, match="shape"):
        run(target=dist_of_dim(3), init=rows)


def dist_of_dim(dim):
    class Target:
        def __call__(self, z):
            return bowl(z)

    target = Target()
    target.dim = dim
    return target


def test_a_function_needs_a_starting_point():
    with pytest.raises(TypeError, match="needs init="):
        infer(bowl, Gaussian(), progress=False)


# ---------------------------------------------------------------------------------------- stopping


def test_a_rule_extends_the_plan_until_it_is_met():
    # 4 chains x 200 independent draws have an ESS of about 800: 2000 need about 500 draws.
    fit = run(until=ess(2000))
    chains, draws, _ = fit.draws.positions.shape
    assert chains * draws > 1800
    assert draws < 1000
    assert ess(2000)(fit.draws.positions).met
    assert fit.notes == ()


def test_a_rule_that_is_met_adds_nothing():
    assert run(until=ess(100)).draws.positions.shape[1] == 200


def test_a_rule_is_judged_sparsely():
    seen = []
    run(until=lambda z: bool(seen.append(z.shape[1])) or z.shape[1] >= 1000)
    assert seen[0] == 200
    assert all(b >= 1.25 * a for a, b in zip(seen, seen[1:], strict=False))


def test_the_cap_ends_a_hopeless_rule_and_says_so():
    with pytest.warns(UserWarning, match="not met after 5000 draws per chain"):
        fit = run(Gaussian(stuck=True, max_draws=500), until=ess(100))
    assert fit.draws.positions.shape[1] == 5000
    assert "not met" in fit.notes[0]
    assert any("not met" in text for text in fit.warnings())


def test_without_a_cap_a_rule_is_given_up_at_ten_times_the_plan():
    with pytest.warns(UserWarning, match="not met after 500 draws"):
        run(Gaussian(stuck=True), draws=50, until=ess(10))


def test_a_time_budget_stops_after_the_block_that_exceeds_it():
    fit = run(Gaussian(warmup=0, draws=100_000), time_budget=0.0)
    assert 0 < fit.draws.positions.shape[1] < 100_000
    assert fit.draws.info["blocks"] == 1
    assert "time_budget" in fit.notes[0]


def test_a_time_budget_that_ends_in_warmup_raises():
    with pytest.raises(TimeoutError, match="in warmup, before the first draw"):
        run(time_budget=0.0)


def test_an_interrupt_keeps_the_draws_so_far():
    whole = run(Gaussian(draws=5000))
    fit = run(Gaussian(draws=5000, interrupt_at=3000))
    done = fit.draws.positions.shape[1]
    assert 0 < done < 3000
    np.testing.assert_array_equal(fit.draws.positions, whole.draws.positions[:, :done])
    assert fit.manifest["interrupted"] is True
    assert whole.manifest["interrupted"] is False
    assert f"interrupted after {done} draws" in fit.notes[0]


def test_an_interrupt_before_the_first_draw_is_raised_again():
    with pytest.raises(KeyboardInterrupt, match="in warmup, before the first draw"):
        run(Gaussian(interrupt_at=150))


# ---------------------------------------------------------------------------------------- refusals


@ppl.model
def discrete():
    k = ppl.sample("k", dist.Poisson(0.5))
    ppl.sample("y", dist.Normal(jnp.where(k == 1, 1.0, 0.0), 1.0))


@ppl.model
def finite():
    k = ppl.sample("k", dist.Bernoulli(0.5))
    ppl.sample("y", dist.Normal(jnp.where(k == 1, 1.0, 0.0), 1.0))


@ppl.model
def normal(y_sd):
    mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
    ppl.sample("y", dist.Normal(mu, y_sd))


def test_a_discrete_latent_site_is_named_with_the_users_line():
    with pytest.raises(ppl.ModelError, match=r"(?s)'k'.* discrete .*test_drive\.py.*mixture"):
        run(target=discrete().condition(y=0.0))


def test_finite_sites_alone_leave_nothing_to_sample():
    with pytest.raises(ppl.ModelError, match=r"finite latent sites only \(k\).*probabilities"):
        run(target=finite().condition(y=0.0))


def test_nothing_to_infer_is_an_error():
    with pytest.raises(ppl.ModelError, match="no latent site"):
        run(target=normal(1.0).condition(y=0.0, mu=1.0))


def test_a_model_that_was_not_called_is_an_error():
    with pytest.raises(TypeError, match="call the model"):
        run(target=normal, init=np.zeros(1))


def test_init_by_name_is_checked_and_unconstrained():
    fit = run(target=normal(1.0).condition(y=0.0), init={"mu": 3.0})
    assert abs(np.mean(fit.draws.info["init"]) - 3.0) < 1.0
    with pytest.raises(ppl.ModelError, match="missing"):
        run(target=normal(1.0).condition(y=0.0), init={"m": 3.0})


def test_an_unconditioned_program_says_that_it_samples_the_prior(capsys):
    infer(normal(1.0).do(y=0.0), Gaussian(), draws=10)
    assert "draws from the prior" in capsys.readouterr().err


def test_a_failed_start_is_explained_at_the_site():
    from ppl.inference.mcmc.start import StartError

    @dataclasses.dataclass(frozen=True)
    class Fails(Gaussian):
        def start(self, seed, target, init=None):
            raise StartError(np.full(1, -0.5), np.nan, np.full(1, np.nan), ["a line"])

    @ppl.model
    def root():
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(jnp.sqrt(mu), 1.0))

    with pytest.raises(ppl.ModelError, match=r"(?s)'y'.*test_drive\.py:\d+"):
        run(Fails(), target=root().condition(y=1.0))
    with pytest.raises(StartError):
        run(Fails())


# ---------------------------------------------------------------------------------------- display


def test_a_quick_run_prints_its_plan_and_one_closing_line(capsys):
    infer(bowl, Gaussian(), init=np.zeros(2))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "4 chains of Gaussian draws in 2 dimensions"
    assert len(lines) == 2
    assert lines[1].startswith("4 chains x 200 draws in ")


def test_silence(capsys):
    run()
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_lines_carry_phase_draws_divergences_and_diagnostics():
    stream = io.StringIO()
    show, monitor = Lines(stream, every=0.0), Monitor()
    monitor.started -= 1000.0
    rng = np.random.default_rng(0)
    blocks = []
    for _ in range(2):
        block = Block("sampling", rng.normal(size=(4, 50, 2)), {"diverging": np.ones((4, 50))}, {"step_size": 0.25})
        blocks.append(block)
        monitor.see(block)
        show.update(monitor, lambda: np.concatenate([b.positions for b in blocks], axis=1), 100)
    last = stream.getvalue().splitlines()[-1]
    for piece in ("sampling", "100 draws", "step_size 0.25", "divergences 400", "R-hat", "ESS"):
        assert piece in last


def test_lines_are_rare():
    stream = io.StringIO()
    show, monitor = Lines(stream), Monitor()
    for _ in range(50):
        show.update(monitor, lambda: None, None)
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar():
    from rich.console import Console

    from ppl.inference.progress import Bar

    stream = io.StringIO()
    bar, monitor = Bar(Console(file=stream, force_terminal=True, width=120)), Monitor()
    bar.say(["the [plan]"])
    block = Block("sampling", np.zeros((4, 50, 2)), {}, {"step_size": 0.25})
    monitor.see(block)
    bar.update(monitor, lambda: block.positions, 100)
    bar.close()
    assert "the [plan]" in stream.getvalue()
    assert "sampling" in stream.getvalue()
    assert "step_size 0.25" in stream.getvalue()
    assert type(display(None)).__name__ == "Lines"  # standard error is no terminal here


# ---------------------------------------------------------------------------------------- precision


def test_precision_is_a_context_and_leaves_the_setting_alone():
    jax.config.update("jax_enable_x64", False)
    assert floats.choose() == "float64"  # on a CPU
    assert floats.choose("float32") == "float32"
    fit = run(precision="float32", target=normal(1.0).condition(y=0.0))
    assert fit.manifest["precision"] == "float32"
    assert fit.values["mu"].dtype == np.float32
    assert jax.config.jax_enable_x64 is False
    assert run(target=normal(1.0).condition(y=0.0)).values["mu"].dtype == np.float64
    assert jax.config.jax_enable_x64 is False


def test_the_users_global_setting_wins_and_is_told():
    jax.config.update("jax_enable_x64", True)
    with pytest.warns(UserWarning, match="the run uses float64"):
        assert floats.choose("float32") == "float64"
    with pytest.raises(ValueError, match="precision is one of"):
        floats.choose("float16")


# ---------------------------------------------------------------------------------------- cold starts

PROBE = """
import sys
import numpy as np
from ppl.inference import infer
sys.path.insert(0, {root!r})
from tests.inference.engines import Gaussian
fit = infer(lambda z: -0.5 * (z**2).sum(), Gaussian(), init=np.zeros(2), progress=False)
fit.values, repr(fit), str(fit.summary())
print([m for m in ("xarray", "arviz", "pandas", "zarr", "rich", "scipy.stats", "matplotlib") if m in sys.modules])
"""


def test_a_run_and_its_summary_import_nothing_heavy():
    code = PROBE.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


COMPILES = """
import json, jax, jax.numpy as jnp
import ppl
spent = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: spent.append(seconds) if name.endswith("backend_compile_duration") else None)
@jax.jit
def f(a):
    for _ in range(12):
        a = jnp.linalg.qr(jnp.sort(jnp.sin(a) @ a, axis=0))[0]
    return a
f(jnp.ones((6, 6))).block_until_ready()
print(json.dumps([sum(spent), jax.config.jax_compilation_cache_dir]))
"""


def _compile_seconds(environment):
    done = subprocess.run(
        [sys.executable, "-c", COMPILES], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path), "HOME": str(tmp_path)}
    first, directory = _compile_seconds(environment)
    assert Path(directory).is_relative_to(tmp_path)
    assert jax.__version__ in directory
    second, _ = _compile_seconds(environment)
    assert second < 0.3 * first


@pytest.mark.parametrize(("name", "value"), [("PPL_NO_CACHE", "1"), ("JAX_ENABLE_COMPILATION_CACHE", "0")])
def test_the_cache_can_be_refused(tmp_path, name, value):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), name: value}
    assert _compile_seconds(environment)[1] is None
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_the_users_own_is_kept(tmp_path):
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "mine")}
    assert _compile_seconds(environment)[1] == str(tmp_path / "mine")
