"""Runs in directories: killed anywhere and resumed, they make the draws of an uninterrupted run, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import ess, infer, loop, mcmc, status, store
from ppl.inference.checkpoint import Damaged
from ppl.inference.store import StoreError

sys.path.insert(0, str(Path(__file__).parent))
import run_child  # noqa: E402
import run_model  # noqa: E402

CHILD = Path(__file__).parent / "run_child.py"


class Crash(BaseException):
    """A process that dies: nothing in the code may catch it and tidy up."""


@pytest.fixture
def small(monkeypatch):
    """Blocks of ten steps and chunks of a few draws, so that short runs have many."""
    monkeypatch.setattr(store, "CHUNK_BYTES", 20_000)
    monkeypatch.setattr(loop, "FIRST_BLOCK", 10)
    monkeypatch.setattr(loop, "BLOCK_SECONDS", (-1.0, 1e9))


def run(path, engine="pooled", **options):
    until = ess(150) if engine == "nuts" else None
    made = run_child.ENGINES[engine]()
    return infer(run_model.program(), made, seed=5, until=until, path=path, progress=False, **options)


def assert_same(a, b):
    np.testing.assert_array_equal(a.draws.positions, b.draws.positions)
    np.testing.assert_array_equal(a.draws.warmup_positions, b.draws.warmup_positions)
    for name, value in a.draws.stats.items():
        np.testing.assert_array_equal(value, b.draws.stats[name], err_msg=name)
    for name in a.values:
        np.testing.assert_array_equal(a.values[name], b.values[name], err_msg=name)
    np.testing.assert_array_equal(a.log_likelihood["y"].values, b.log_likelihood["y"].values)
    for key in ("step_size", "divergences", "restarts", "iterations"):
        assert a.draws.info.get(key) == b.draws.info.get(key), key


@pytest.fixture(scope="module", params=["pooled", "nuts"])
def whole(request, tmp_path_factory):
    """An uninterrupted run, in memory, and its engine's name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "FIRST_BLOCK", 10)
        patch.setattr(loop, "BLOCK_SECONDS", (-1.0, 1e9))
        return request.param, run(None, request.param)


def test_a_directory_changes_no_draw_and_is_read_back(whole, tmp_path, small):
    engine, fit = whole
    written = run(tmp_path / "a", engine)
    assert_same(fit, written)
    assert_same(fit, infer.open(tmp_path / "a", run_model.program()))
    bare = infer.open(tmp_path / "a")
    np.testing.assert_array_equal(bare.values["double"], 2.0 * fit.values["slope"])
    assert bare.manifest["status"] == "finished"
    assert "slope" in str(bare.summary())
    resumed = infer.resume(tmp_path / "a", progress=False)  # a finished run is only opened
    np.testing.assert_array_equal(resumed.draws.positions, fit.draws.positions)


PLACES = {
    "before a chunk": (store.Log, "_write"),
    "before a checkpoint": (store.RunDirectory, "save"),
    "after a checkpoint": (store.RunDirectory, "save"),
    "within a replacement": (os, "replace"),
}


def crash_at(monkeypatch, place, count):
    """Die at the ``count``-th visit of a place between computing a block and the checkpoint that counts it."""
    seen = [0]

    def visit(original):
        def inner(*args, **kwargs):
            seen[0] += 1
            if seen[0] == count and place != "after a checkpoint":
                raise Crash
            out = original(*args, **kwargs)
            if seen[0] == count:
                raise Crash
            return out

        return inner

    owner, name = PLACES[place]
    monkeypatch.setattr(owner, name, visit(getattr(owner, name)))


@pytest.mark.parametrize("count", [2, 5, 14])
@pytest.mark.parametrize("place", list(PLACES))
def test_a_crash_anywhere_is_resumed_bit_for_bit(whole, tmp_path, small, monkeypatch, place, count):
    engine, fit = whole
    with monkeypatch.context() as patch:
        crash_at(patch, place, count)
        patch.setattr(loop.Run, "_failed", lambda self, error: error)  # a dead process writes no last words
        try:
            run(tmp_path / "a", engine)
        except Crash:
            pass
        else:
            pytest.skip("the run is over before")
    if not (tmp_path / "a" / "manifest.json").exists():  # it died before there was a run
        assert_same(fit, run(tmp_path / "a", engine))
        return
    assert status(tmp_path / "a")["status"] == "running"
    assert_same(fit, infer.resume(tmp_path / "a", progress=False))


def child(path, engine, *options, **kwargs):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(CHILD), str(path), engine, *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **kwargs)


def kill_after(process, blocks, delay, number):
    """Signal a child some seconds after it has made some blocks; False if it was over before."""
    for _ in range(blocks):
        if not process.stdout.readline():
            break
    time.sleep(delay)
    process.send_signal(number)
    process.communicate()
    return process.returncode != 0


def test_kill_9_is_resumed_bit_for_bit(whole, tmp_path):
    engine, fit = whole
    kill_after(child(tmp_path / "a", engine, "--pause", "0.05"), 6, 0.12, signal.SIGKILL)
    assert status(tmp_path / "a")["status"] == "running"
    assert_same(fit, infer.resume(tmp_path / "a", progress=False))


@pytest.mark.slow
def test_kill_9_at_twenty_random_moments(whole, tmp_path):
    """Each run is killed until it ends by itself; over both engines at least twenty kills, warm-up included."""
    engine, fit = whole
    moments, kills, phases = random.Random(11 if engine == "pooled" else 12), 0, set()
    for attempt in range(6):
        path = tmp_path / str(attempt)
        process = child(path, engine, "--pause", "0.03")
        while kill_after(process, moments.randrange(2, 12), 0.2 * moments.random(), signal.SIGKILL):
            kills += 1
            if path.exists() and (path / "manifest.json").exists():
                phases.add(status(path)["phase"])
                process = child(path, engine, "--resume", "--pause", "0.03")
            else:
                shutil.rmtree(path, ignore_errors=True)
                process = child(path, engine, "--pause", "0.03")
        assert_same(fit, infer.open(path, run_model.program()))
    print(f"{engine}: {kills} kills, in {sorted(phases)}")
    assert kills >= 10
    assert {"warmup", "sampling"} <= phases


def test_sigterm_leaves_a_resumable_directory(whole, tmp_path):
    engine, fit = whole
    process = child(tmp_path / "a", engine, "--pause", "0.03")
    kill_after(process, 18 if engine == "nuts" else 22, 0.0, signal.SIGTERM)
    assert process.returncode == 0
    assert status(tmp_path / "a")["stopped"] == "SIGTERM"
    assert "SIGTERM" in str(infer.open(tmp_path / "a").notes)
    assert_same(fit, infer.resume(tmp_path / "a", progress=False))


def test_a_time_budget_leaves_a_resumable_directory(whole, tmp_path, small):
    engine, fit = whole
    for attempt in range(60):
        try:
            if attempt == 0:
                run(tmp_path / "a", engine, time_budget=0.0)
            else:
                infer.resume(tmp_path / "a", progress=False, time_budget=0.0)
        except TimeoutError as error:
            assert "resume" in str(error)
        if status(tmp_path / "a")["status"] == "finished":
            break
    assert attempt > 10
    assert_same(fit, infer.open(tmp_path / "a", run_model.program()))


def test_an_interrupt_keeps_what_exists_and_can_be_resumed(whole, tmp_path, small, monkeypatch):
    engine, fit = whole
    seen = []

    def press(self, block):
        seen.append(block)
        if sum(b.phase == "sampling" for b in seen) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "_question", press)
        part = run(tmp_path / "a", engine)
    assert part.manifest["stopped"] == "interrupt" and part.draws.shape[1] == 30
    np.testing.assert_array_equal(part.draws.positions, fit.draws.positions[:, :30])
    monkeypatch.setattr(loop.Run, "_question", lambda self, block: None)
    assert_same(fit, infer.resume(tmp_path / "a", progress=False))


def stopped(path, engine="pooled", blocks=8):
    """A run that died after some sampling blocks."""
    with pytest.MonkeyPatch.context() as patch:
        save, seen = store.RunDirectory.save, [0]

        def dying(self, state):
            save(self, state)
            seen[0] += state["status"]["phase"] == "sampling"
            if seen[0] == blocks:
                raise Crash

        patch.setattr(store.RunDirectory, "save", dying)
        patch.setattr(loop.Run, "_failed", lambda self, error: error)
        with pytest.raises(Crash):
            run(path, engine)


def chunk(path, number=-1, name="unconstrained_posterior/z"):
    chunks = sorted((path / "draws.zarr" / name / "c" / "0").iterdir(), key=lambda p: int(p.name))
    return next(p for p in chunks[number].rglob("*") if p.is_file())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def newest(path):
    found = sorted(path.glob("checkpoint-*.npz"), key=lambda p: p.stat().st_mtime_ns)
    return found[-1]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(whole, tmp_path, small, damage):
    engine, fit = whole
    stopped(tmp_path / "a", engine)
    before = infer.open(tmp_path / "a").draws.shape[1]
    last = newest(tmp_path / "a")
    if damage == "flip":
        flip(last)
    else:
        last.write_bytes(last.read_bytes()[: 0 if damage == "empty" else 400])
    assert infer.open(tmp_path / "a").draws.shape[1] == before - 10
    assert_same(fit, infer.resume(tmp_path / "a", progress=False))


def test_a_damaged_last_chunk_gives_way_to_the_block_before(whole, tmp_path, small):
    engine, fit = whole
    for blocks in range(2, 12):  # the first checkpoint that follows a chunk
        path = tmp_path / str(blocks)
        stopped(path, engine, blocks)
        found = store.RunDirectory(path).checkpoints(only="keeper")
        if len({state["sampling"]["count"] for _, state in found}) == 2:
            break
    flip(chunk(path))
    assert_same(fit, infer.resume(path, progress=False))


def test_an_old_damaged_chunk_is_an_error_and_not_a_draw(tmp_path, small):
    run(tmp_path / "a")
    flip(chunk(tmp_path / "a", 0))
    with pytest.raises(Damaged, match="chunk"):
        infer.open(tmp_path / "a").draws.positions  # noqa: B018


def test_both_checkpoints_damaged(tmp_path, small):
    stopped(tmp_path / "a")
    for file in (tmp_path / "a").glob("checkpoint-*.npz"):
        flip(file)
    with pytest.raises(StoreError, match="checkpoints"):
        infer.resume(tmp_path / "a", progress=False)


def small_disk():
    """A folder on a small file system of its own, or None where this process may not mount one."""
    if os.name != "posix" or os.geteuid() != 0:
        return None
    folder = Path(f"/tmp/ppl-small-disk-{os.getpid()}")
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True)
    return folder if done.returncode == 0 else None


def test_a_full_disk_leaves_a_readable_run(whole, tmp_path, small, monkeypatch):
    engine, fit = whole
    folder = small_disk()
    if folder is None:  # fail as a full disk does, without one
        folder = tmp_path
        write = store.Log._write

        def full(self, groups):
            if self.count >= 20:
                raise OSError(28, "No space left on device")
            write(self, groups)

        monkeypatch.setattr(store.Log, "_write", full)
    else:
        (folder / "ballast").write_bytes(b"0" * (400_000 if engine == "nuts" else 200_000))
    try:
        with pytest.raises(StoreError, match=r"(?s)no space is left.*resume"):
            run(folder / "a", engine)
        monkeypatch.setattr(store.Log, "_write", store.Log.__dict__["_write"] if folder != tmp_path else write)
        if folder != tmp_path:
            (folder / "ballast").unlink()
            shutil.copytree(folder / "a", tmp_path / "copy")
        else:
            shutil.copytree(folder / "a", tmp_path / "copy")
        read = infer.open(tmp_path / "copy")
        done = read.draws.shape[1]
        assert 0 < done < fit.draws.shape[1]
        np.testing.assert_array_equal(read.draws.positions, fit.draws.positions[:, :done])
        assert_same(fit, infer.resume(tmp_path / "copy", progress=False))
    finally:
        if folder != tmp_path:
            subprocess.run(["umount", str(folder)], check=False)
            folder.rmdir()


def test_running_out_of_memory_says_what_to_do(tmp_path, small, monkeypatch):
    seen = []

    def hungry(self, block):
        seen.append(block)
        if len(seen) == 20:
            raise MemoryError("RESOURCE_EXHAUSTED: Out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "_question", hungry)
        with pytest.raises(MemoryError) as caught:
            run(tmp_path / "a")
    assert "resume" in caught.value.__notes__[0] and "thin" in caught.value.__notes__[0]
    assert status(tmp_path / "a")["status"] == "failed"
    assert infer.open(tmp_path / "a").draws.shape[1] > 0


def test_another_model_or_other_data_are_refused_by_name(tmp_path, small):
    stopped(tmp_path / "a")
    changed = run_model.Y.copy()
    changed[3] += 1e-9
    with pytest.raises(ppl.ModelError, match="the value of site 'y'"):
        infer.resume(tmp_path / "a", run_model.program(changed))
    with pytest.raises(ppl.ModelError, match="the argument 'x'"):
        infer.resume(tmp_path / "a", run_model.line(run_model.X + 1.0).condition(y=run_model.Y))

    @ppl.model
    def line(x):
        slope = ppl.sample("slope", dist.Normal(0.0, 2.0))
        sigma = ppl.sample("sigma", dist.Gamma(1.0, 1.0))
        ppl.record("double", 2.0 * slope)

        @ppl.plate("row", x)
        def row(v):
            ppl.sample("y", dist.Normal(slope * v, sigma))

    with pytest.raises(ppl.ModelError, match="sigma.*HalfNormal.*Gamma"):
        infer.resume(tmp_path / "a", line(run_model.X).condition(y=run_model.Y))


@partial(jax.tree_util.register_dataclass, data_fields=["width"], meta_fields=[])
@dataclass(frozen=True)
class Walk:
    """A user's own kernel."""

    width: float = 0.5

    def init(self, position, density):
        return Place(position, density(position))

    def step(self, key, state, density):
        there, coin = jax.random.split(key)
        position = state.position + self.width * jax.random.normal(there, state.position.shape)
        height = density(position)
        move = jnp.log(jax.random.uniform(coin)) < height - state.log_density
        choose = lambda a, b: jnp.where(move, a, b)  # noqa: E731
        return Place(choose(position, state.position), choose(height, state.log_density)), Seen(move.astype(float))


@partial(jax.tree_util.register_dataclass, data_fields=["position", "log_density"], meta_fields=[])
@dataclass(frozen=True)
class Place:
    """Its state."""

    position: Any
    log_density: Any


@partial(jax.tree_util.register_dataclass, data_fields=["acceptance_rate"], meta_fields=[])
@dataclass(frozen=True)
class Seen:
    """Its report."""

    acceptance_rate: Any


def test_a_kernel_of_ones_own_is_named_when_a_run_is_resumed(tmp_path, small, monkeypatch):
    engine = mcmc.Chains(Walk(), chains=2, warmup=0, draws=80)
    whole = infer(run_model.program(), engine, seed=2, progress=False)
    with monkeypatch.context() as patch:
        crash_at(patch, "after a checkpoint", 4)
        patch.setattr(loop.Run, "_failed", lambda self, error: error)
        with pytest.raises(Crash):
            infer(run_model.program(), engine, seed=2, path=tmp_path / "a", progress=False)
    with pytest.raises(StoreError, match=r"Walk; pass the engine"):
        infer.resume(tmp_path / "a", progress=False)
    again = infer.resume(tmp_path / "a", engine=mcmc.Chains(Walk()), progress=False)
    np.testing.assert_array_equal(whole.draws.positions, again.draws.positions)


SCALE = {"value": 1.0}


def test_what_a_model_calls_may_not_change_either(tmp_path, small, monkeypatch):
    def helper(v):
        return SCALE["value"] * v

    @ppl.model
    def scaled():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(helper(x), 1.0))

    seen = []

    def dying(self, block):
        seen.append(block)
        if sum(b.phase == "sampling" for b in seen) == 3:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "_question", dying)
        with pytest.raises(Crash):
            infer(scaled().condition(y=1.0), mcmc.PooledHMC(chains=4, draws=50), path=tmp_path / "a", progress=False)
    monkeypatch.setitem(SCALE, "value", 2.0)
    with pytest.raises(ppl.ModelError, match="log density at the last draw"):
        infer.resume(tmp_path / "a", scaled().condition(y=1.0))


def test_a_run_is_never_overwritten(tmp_path, small):
    stopped(tmp_path / "a")
    with pytest.raises(FileExistsError, match="resume"):
        run(tmp_path / "a")


def test_a_live_run_can_be_read(tmp_path):
    process = child(tmp_path / "a", "nuts", "--pause", "0.02")
    for _ in range(16):
        process.stdout.readline()
    reads = [infer.open(tmp_path / "a") for _ in range(5)]
    process.communicate()
    end = infer.open(tmp_path / "a")
    for fit in reads:
        assert fit.manifest["status"] == "running"
        np.testing.assert_array_equal(fit.draws.positions, end.draws.positions[:, : fit.draws.shape[1]])
    assert str(reads[-1].summary())


def test_thinning_and_keeping(tmp_path, small):
    whole = run(None)
    thin = run(tmp_path / "a", thin=3, keep=["slope"])
    np.testing.assert_array_equal(thin.draws.positions, whole.draws.positions[:, 2::3])
    assert list(thin.posterior.data_vars) == ["slope"]
    in_memory = run(None, thin=3)
    np.testing.assert_array_equal(in_memory.draws.positions, whole.draws.positions[:, 2::3])
    with pytest.raises(ppl.ModelError, match="slop"):
        run(tmp_path / "b", keep=["slop"])
    with pytest.raises(ValueError, match="thin"):
        run(None, thin=0)


# ------------------------------------------------------------------------------------------- a hostile directory


def edit_skeleton(path, change):
    """Rewrite the JSON part of an archive."""
    with np.load(path) as archive:
        entries = {name: archive[name] for name in archive.files}
    text = change(entries["skeleton"].tobytes().decode())
    np.savez(path, **{**entries, "skeleton": np.frombuffer(text.encode(), np.uint8)})


def test_classes_outside_of_the_library_are_not_made(tmp_path, small):
    stopped(tmp_path / "a")
    inputs = tmp_path / "a" / "inputs.npz"
    edit_skeleton(inputs, lambda text: text.replace("ppl.inference.mcmc.pooled:PooledHMC", "subprocess:Popen"))
    with pytest.raises(StoreError, match="subprocess:Popen"):
        infer.resume(tmp_path / "a", run_model.program())


def test_pickles_are_not_read(tmp_path, small):
    stopped(tmp_path / "a")
    inputs = tmp_path / "a" / "inputs.npz"
    np.savez(inputs, skeleton=np.array([Crash()], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match="damaged"):
        infer.resume(tmp_path / "a", run_model.program())


def test_a_module_without_the_model_is_not_imported(tmp_path, small):
    stopped(tmp_path / "a")
    (tmp_path / "trap_of_this_test.py").write_text("raise SystemExit('executed')\ndef line(x): pass\n")
    manifest = tmp_path / "a" / "manifest.json"
    about = json.loads(manifest.read_text())
    about["identity"]["model"] = "trap_of_this_test:line"
    manifest.write_text(json.dumps(about))
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(ppl.ModelError, match="cannot be imported"):
            infer.resume(tmp_path / "a")
    finally:
        sys.path.remove(str(tmp_path))
    assert "trap_of_this_test" not in sys.modules


def test_foreign_codecs_are_refused(tmp_path, small):
    run(tmp_path / "a")
    about = tmp_path / "a" / "draws.zarr" / "unconstrained_posterior" / "z" / "zarr.json"
    about.write_text(about.read_text().replace('"zstd"', '"numcodecs.pickle"'))
    with pytest.raises(Damaged, match=r"numcodecs\.pickle"):
        infer.open(tmp_path / "a").draws.positions  # noqa: B018


def test_a_later_format_is_refused(tmp_path, small):
    run(tmp_path / "a")
    manifest = tmp_path / "a" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(StoreError, match="Update"):
        infer.open(tmp_path / "a")
