"""Placement on devices and processes: the same draws, bit for bit; laid out data: the same density up to rounding."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
import pytest

import ppl
from ppl.inference import devices, infer, mcmc, placing, processes
from ppl.inference.devices import Placement
from tests.inference import placed_runs

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.standard_promotion


def begin(out: Path, count: int, *parts: str, process: tuple[int, int, int] | None = None) -> subprocess.Popen:
    """Start runs in a process with ``count`` host devices; ``process`` is (port, its number, how many)."""
    ends = [] if process is None else ["--", *map(str, process)]
    folder = out.parent / "run"
    flags = f"--xla_force_host_platform_device_count={count}"
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "RUN_DIRECTORY": str(folder),
    }
    command = [sys.executable, "-W", "error", "-m", "tests.inference.placed_runs", str(out), str(count), *parts, *ends]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def all_ended(children: list[subprocess.Popen]) -> None:
    """Wait for processes; the failure of one ends all."""
    with ExitStack() as stack:
        for child in children:
            stack.enter_context(child)
            stack.callback(child.kill)
        for child in children:
            text = child.communicate(timeout=300)[0].decode()
            assert child.returncode == 0, text


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each number of devices, and each of two processes, found."""
    folder, port = tmp_path_factory.mktemp("placed"), free_port()
    children = {
        "1": begin(folder / "1.npz", 1, "pooled", "nuts"),
        "2": begin(folder / "2.npz", 2, "pooled", "nuts"),
        "4": begin(folder / "4.npz", 4, "pooled", "nuts", "rows", "over"),
        "first": begin(folder / "first.npz", 1, "pooled", process=(port, 0, 2)),
        "second": begin(folder / "second.npz", 1, "pooled", process=(port, 1, 2)),
    }
    all_ended(list(children.values()))
    return {name: dict(np.load(folder / f"{name}.npz")) for name in children}


# ------------------------------------------------------------------------------------------------ placement


def check_equal(one: dict, other: dict, engine: str) -> None:
    for name in ("draws", "warmup", "lp"):
        np.testing.assert_array_equal(one[f"{engine}/{name}"], other[f"{engine}/{name}"])


@pytest.mark.parametrize("engine", ["pooled", "nuts"])
@pytest.mark.parametrize("count", ["2", "4"])
def test_draws_do_not_depend_on_devices(found, engine, count):
    check_equal(found[count], found["1"], engine)
    draws = found["1"][f"{engine}/draws"]
    assert draws.shape == {"pooled": (8, 30, 10), "nuts": (5, 20, 10)}[engine] and len(np.unique(draws)) > 500


@pytest.mark.parametrize("process", ["first", "second"])
def test_draws_do_not_depend_on_processes(found, process):
    check_equal(found[process], found["1"], "pooled")


@pytest.mark.slow
def test_draws_do_not_depend_on_processes_with_devices(found, tmp_path):
    """Two processes of two devices each, both engines."""
    for each in results(tmp_path, joined(tmp_path, 2, "pooled", "nuts")):
        check_equal(each, found["1"], "pooled")
        check_equal(each, found["1"], "nuts")
        assert "5 lanes over 2 processes, lane j on process j mod 2: at most 3 each" in "\n".join(each["nuts/plan"])


def test_the_plan_says_what_runs_where(found):
    plan = {name: "\n".join(each["pooled/plan"]) for name, each in found.items()}
    assert "lanes on" not in plan["1"]
    assert "lanes on 2 cpu devices (cpu:0, cpu:1), at most 2 each" in plan["2"]
    assert "lanes on 4 cpu devices (cpu:0, cpu:1, cpu:2, cpu:3), at most 1 each" in plan["4"]
    assert "4 lanes over 2 processes, lane j on process j mod 2: at most 2 each" in plan["first"]


class Device:
    """Stands for a JAX device."""

    platform = "cpu"

    def __init__(self, id: int) -> None:
        self.id = id


def test_lanes_take_processes_and_then_their_devices_in_turn():
    a, b = Device(0), Device(1)
    places = [Placement((a, b), None, 3, process) for process in range(3)]
    assert [p.mine(8) for p in places] == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert [places[0].device(lane).id for lane in (0, 3, 6)] == [0, 1, 0]
    assert [places[2].device(lane).id for lane in (2, 5)] == [0, 1]
    assert places[0].used(8) == [0, 3] and places[0].used(2) == [0]
    assert places[2].mine(2) == [0]  # nothing of its own: it takes part in what is gathered
    assert [p.workers(8, 1) for p in places] == [2, 2, 2]


def test_results_of_lanes_cross_processes_as_they_are(monkeypatch):
    rng = np.random.default_rng(0)
    lanes = [
        {
            "a": rng.normal(size=(3, 2)),
            "b": np.array(lane, np.uint32),
            "c": rng.normal(size=4) < 0,
            "d": np.zeros((0, 2)),
        }
        for lane in range(5)
    ]
    sent: dict[int, bytes] = {}

    def allgather(data, size):
        sent[len(sent)] = data.ljust(size, b"\0")
        return [sent.get(i, sent[0]) for i in range(2)]

    monkeypatch.setattr(processes, "allgather", allgather)
    processes.gather(lanes[0::2], 5, 2, 0, np.ones(2))
    gathered = processes.gather(lanes[1::2], 5, 2, 1, np.ones(2))
    for sent_lane, lane in zip(lanes, gathered, strict=True):
        assert jax.tree.structure(sent_lane) == jax.tree.structure(lane)
        for x, y in zip(jax.tree.leaves(sent_lane), jax.tree.leaves(lane), strict=True):
            assert x.dtype == y.dtype and x.shape == y.shape and np.array_equal(x, y)
    sent.clear()
    processes.gather(lanes[0::2], 5, 2, 0, np.ones(2))
    with pytest.raises(RuntimeError, match="compute different runs"):
        processes.gather(lanes[1::2], 5, 2, 1, np.zeros(2))


def test_devices_that_are_not_there_are_refused_with_a_way_to_get_them():
    more = len(jax.local_devices()) + 3
    flag = f"XLA_FLAGS=--xla_force_host_platform_device_count={more}"
    with pytest.raises(ValueError, match=flag):
        infer(placed_runs.schools(), devices=more, progress=False)
    with pytest.raises(ValueError, match="a run needs a device"):
        placing.place(0)
    with pytest.raises(TypeError, match="not 'cpu:0'"):
        placing.place(["cpu:0"])
    with pytest.raises(ValueError, match="each once"):
        placing.place([jax.local_devices()[0]] * 2)


def test_idle_devices_are_said():
    placement = Placement(tuple(map(Device, range(4))), asked=True)
    with pytest.warns(UserWarning, match="3 of 4 devices stay idle: the run has 1 lane"):
        lines = placing.check_engine(mcmc.PooledHMC(lanes=1), None, placement)
    assert any("lanes on 1 cpu device (cpu:0)" in line for line in lines)
    with pytest.raises(TypeError, match="does not divide its work into lanes"):
        placing.check_engine(object(), None, placement)


def test_one_device_is_a_run_like_any_other():
    options = {"seed": 2, "progress": False, "draws": 20}
    engine = mcmc.PooledHMC(chains=4, max_draws=20, lanes=2)
    plain = infer(placed_runs.schools(), engine, **options)
    for chosen in (1, [jax.local_devices()[0]]):
        placed = infer(placed_runs.schools(), engine, devices=chosen, **options)
        np.testing.assert_array_equal(placed.draws.positions, plain.draws.positions)
    assert devices.current().processes == 1 and not devices.current().devices


# --------------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize("size", [103, 104])
def test_laid_out_data_give_the_density_and_its_gradient(found, size):
    density = ppl.compile(placed_runs.program(size))
    z = placed_runs.positions(density.dim)
    height, gradient = placed_runs.values(density, z)
    laid = found["4"]
    np.testing.assert_allclose(laid[f"{size}/lp"], height, rtol=1e-12)
    np.testing.assert_allclose(laid[f"{size}/gradient"], gradient, rtol=1e-12, atol=1e-12 * np.abs(gradient).max())
    np.testing.assert_allclose(laid[f"{size}/pointwise"], jax.vmap(density.pointwise)(z)["y"], rtol=1e-12)


@pytest.mark.parametrize("size", [103, 104])
def test_each_device_holds_a_share_and_sums_meet_in_an_all_reduce(found, size):
    laid = found["4"]
    divided = laid[f"{size}/rows"] == 104
    assert divided.sum() >= 3
    np.testing.assert_allclose(laid[f"{size}/shares"][divided], 0.25)
    np.testing.assert_allclose(laid[f"{size}/shares"][~divided], 1.0)
    assert laid[f"{size}/collectives"].tolist() == ["all-reduce"]


def test_a_short_run_with_laid_out_data_is_the_run_up_to_rounding(found):
    engine = mcmc.PooledHMC(chains=4, draws=20, max_draws=20, reparameterize=False)  # as with laid out data
    plain = infer(placed_runs.program(103), engine, seed=1, progress=False)
    laid = found["4"]
    # Rounding grows exponentially along the trajectories; after a dozen of them it is still small.
    np.testing.assert_allclose(laid["run/warmup"][:, :12], plain.draws.warmup_positions[:, :12], atol=1e-9)
    assert not np.array_equal(laid["run/draws"], plain.draws.positions)  # else nothing was laid out
    assert laid["run/pointwise"].shape == (4, 20, 103)
    height = jax.vmap(jax.vmap(plain.density))(laid["run/draws"])
    np.testing.assert_allclose(laid["run/lp"], height, rtol=1e-12)
    plan = "\n".join(laid["run/plan"])
    assert "data over 4 devices along plate 'row': 103 rows, 26 on each after 1 that does not count" in plan
    assert "x (103, 3), group (103,), y (103,)" in plan and "of 4.13 kB on each device" in plan


@pytest.mark.slow
def test_blocks_with_laid_out_data_lower_for_accelerators(tmp_path):
    all_ended([begin(tmp_path / "lower.npz", 4, "lower")])
    assert np.load(tmp_path / "lower.npz")["lowered"].tolist() == [True, True]


@pytest.mark.slow
def test_long_runs_with_laid_out_data_agree_in_distribution(tmp_path):
    """Means of 11 coordinates within 4 standard errors: false alarms in 1 of 1400 runs."""
    all_ended([begin(tmp_path / "long.npz", 4, "long")])
    laid = np.load(tmp_path / "long.npz")["long/draws"]
    plain = infer(placed_runs.program(103), mcmc.NUTS(), chains=4, draws=1500, seed=2, progress=False).draws.positions
    from ppl.inference import diagnostics

    error = np.sqrt(sum(np.var(x, axis=(0, 1)) / diagnostics.ess_mean(x) for x in (laid, plain)))
    assert (np.abs(laid.mean((0, 1)) - plain.mean((0, 1))) < 4 * error).all()


def joined(folder: Path, count: int, *parts: str) -> list[subprocess.Popen]:
    """Two processes of one run."""
    port = free_port()
    return [begin(folder / f"{i}.npz", count, *parts, process=(port, i, 2)) for i in range(2)]


def results(folder: Path, children: list[subprocess.Popen]) -> list[dict]:
    all_ended(children)
    return [dict(np.load(folder / f"{i}.npz")) for i in range(len(children))]


@pytest.mark.slow
def test_data_may_lie_on_the_devices_of_two_processes(tmp_path, found):
    first, second = results(tmp_path, joined(tmp_path, 2, "over"))
    np.testing.assert_array_equal(first["run/draws"], second["run/draws"])
    np.testing.assert_allclose(first["run/warmup"][:, :12], found["4"]["run/warmup"][:, :12], atol=1e-9)
    assert "mesh of 4 cpu devices" in "".join(first["run/plan"])


@pytest.mark.slow
def test_two_processes_share_a_directory_and_resume_it(tmp_path):
    first, second = results(tmp_path, joined(tmp_path, 1, "directory"))
    for each in (first, second):
        assert "time_budget" in str(each["stopped"])
        for name in ("draws", "mu"):
            np.testing.assert_array_equal(each[f"resumed/{name}"], first[f"whole/{name}"])
            np.testing.assert_array_equal(each[f"whole/{name}"], first[f"whole/{name}"])
    from ppl.inference import status

    assert status(tmp_path / "run")["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_process_ends_both_after_the_same_block(tmp_path, number):
    from ppl.inference import status

    children = joined(tmp_path, 1, "endless")
    for _ in range(600):
        time.sleep(0.1)
        if (tmp_path / "run" / "manifest.json").exists() and status(tmp_path / "run")["draws"] > 100:
            break
        assert all(child.poll() is None for child in children), [child.stdout.read() for child in children]
    children[1].send_signal(number)
    first, second = results(tmp_path, children)
    np.testing.assert_array_equal(first["draws"], second["draws"])
    assert first["draws"].shape[1] > 100
    assert str(first["stopped"]) == str(second["stopped"]) == ("SIGTERM" if number == signal.SIGTERM else "interrupt")


@pytest.mark.slow
@pytest.mark.parametrize(("shard", "then"), [("", 1), ("row", 4)])
def test_a_run_on_four_devices_is_resumed(tmp_path, monkeypatch, shard, then):
    """On another number of devices, or on as many as its data are laid out over."""
    if shard:
        monkeypatch.setenv("SHARD", shard)
    all_ended([begin(tmp_path / "begun.npz", 4, "stopped")])
    assert "time_budget" in str(np.load(tmp_path / "begun.npz")["stopped"])
    all_ended([begin(tmp_path / "then.npz", then, "resumed")])
    found = np.load(tmp_path / "then.npz")
    np.testing.assert_array_equal(found["resumed/draws"], found["whole/draws"])
    if shard:  # the directory remembers over how many devices
        with pytest.raises(ValueError, match="devices=4, but this process has"):
            infer.resume(tmp_path / "run", placed_runs.program(103), until=lambda z: True, progress=False)  # type: ignore[attr-defined]
