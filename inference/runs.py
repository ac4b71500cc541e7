"""Runs in directories: begun, resumed, read while they live, and asked how they are.

A resumed run goes on from the last checkpoint and makes, on the same machine and with the same versions, the draws
that it would have made without the interruption, bit for bit: every random number is keyed by the seed and the place
of the draw. The model is the one that is passed, or it is imported again by module and name after its text was
compared; data come from the directory. What differs from the run that was begun is named, and refused.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoint, identity, naming, noisy
from . import precision as floats
from .checkpoint import Damaged, Unstorable
from .core import Block
from .devices import check_same, is_leader, together, use
from .keep import Memory
from .manifest import manifest
from .naming import sites
from .placing import placed_again
from .record import Recorder, StoredDraws, stored_names
from .results import Fit
from .sharding import lay_out_subject
from .store import RunDirectory, StoreError
from .subject import make_subject
from .until import as_rule, from_spec


def create(
    path: Any, engine: Any, subject: Any, rule: Any, keep: Any, facts: Mapping[str, Any], most: int | None
) -> Recorder:
    """Make the directory of a new run.

    Raises:
        FileExistsError: If it holds something.
        TypeError: If the engine has options that cannot be stored.
    """
    names = stored_names(subject.program, subject.density, keep)
    directory = RunDirectory(path)
    try:
        checkpoint.pack(engine)
    except Unstorable as error:
        raise TypeError(f"a run with path= stores its engine, but of {type(engine).__name__} {error}") from None
    program = subject.program
    about = {
        **facts,
        "status": "running",
        "path": str(directory.path.resolve()),
        "sites": sites(program),
        "identity": identity.describe(program, subject.dim),
        "dims": {name: list(axes) for name, axes in naming.dims(program, subject.density).items()},
        "until": "" if rule is None else rule.name,
        "most": most,
    }
    inputs = {
        "engine": engine,
        "rule": None if rule is None else rule.spec,
        "names": names,
        "labels": np.asarray(_labels(subject)),
        "coords": naming.coords(program, subject.density),
        "call": _call(program),
    }
    directory.create(manifest(engine, **about), inputs)
    return Recorder(directory, program, subject.density, names, int(facts["thin"]), facts["seed"])


def _labels(subject: Any) -> list[str]:
    labels = getattr(subject.density, "labels", None)
    return list(labels) if labels is not None else [f"z[{i}]" for i in range(subject.dim)]


def _call(program: Any) -> Any:
    """What rebuilds a program from its model, or None where that is not arrays, numbers and text alone."""
    if program is None:
        return None
    call = {
        "args": program.args,
        "kwargs": program.kwargs,
        "fixed": dict(program.fixed),
        "roles": dict(program.roles),
        "released": sorted(program.released),
    }
    try:
        checkpoint.pack(call)
    except Unstorable:
        return None
    return call


def resume(
    path: Any,
    program: Any = None,
    engine: Any = None,
    *,
    until: Any = None,
    progress: bool | None = None,
    time_budget: float | None = None,
    devices: Any = None,
) -> Fit:
    """Go on with a run that was interrupted.

    Args:
        path: Its directory.
        program: The program, or the log density; by default the model is imported again by its module and name and
            given the data of the directory.
        engine: Only for engines or kernels of your own: an object of the same classes, so that they can be found.
        until: A stopping rule, for one that is a function of your own and so could not be stored.
        progress: As for ``infer``.
        time_budget: Seconds from now.
        devices: As for ``infer``; the draws are those of any devices, but where data are laid out over them.

    Returns:
        The result, as if the run had not been interrupted.

    Raises:
        FileNotFoundError: If there is no run.
        ppl.ModelError: If model or data are not those of the run; the difference is named.
        StoreError: If nothing readable is left.
    """
    from .loop import Run
    from .progress import Monitor, display

    directory = RunDirectory(path)
    about = directory.manifest()
    if about.get("status") == "finished" and until is None:
        return open_run(path, program)
    try:
        inputs = checkpoint.read(directory.path / "inputs.npz", known=list(checkpoint.classes_in(engine)))
    except (Damaged, FileNotFoundError) as error:
        raise StoreError(f"{path} cannot be resumed: {error}") from error
    monitor = Monitor()
    placement = placed_again(about, devices)
    with floats.context(about["precision"]), use(placement):
        subject, _ = lay_out_subject(lambda: _subject(about, inputs, program), about.get("shard"))
        _same(about, identity.describe(subject.program, subject.dim), path)
        check_same(lambda: [identity.describe(subject.program, subject.dim), about["seed"]])
        keeper = Recorder(
            directory, subject.program, subject.density, inputs["names"], int(about["thin"]), about["seed"]
        )
        facts = {name: about[name] for name in ("seed", "plan", "precision", "thin")}
        facts |= {"shard": about.get("shard"), "mesh": placement.parts, "codes": about.get("codes") or []}
        facts |= {"collapse": bool(about.get("collapse")), "reparameterize": about.get("reparameterize", True)}
        run = Run(
            engine=inputs["engine"],
            subject=subject,
            rule=_rule(about, inputs, until),
            budget=time_budget,
            show=display(progress if is_leader() else False),
            monitor=monitor,
            keeper=keeper,
            facts=facts,
            most=about.get("most"),
        )
        _restore(run, directory, _classes(engine, subject))
        _same_height(run, path)
        if not is_leader():
            run.keeper = _remembered(keeper)
        with together():  # nothing is written before all have read
            if is_leader():
                directory.describe({**about, "status": "running", "stopped": ""})
        positions = None  # a run without a checkpoint has not begun
        return run.complete(int(about["seed"]), positions)


def _remembered(keeper: Recorder) -> Memory:
    """The draws of a run for a process that writes none."""
    blocks = []
    for phase, log in (("warmup", keeper.warmup), ("sampling", keeper.sampling)):
        if log.total:
            stats = {name: log.read("sample_stats", name) for name in log.tail["sample_stats"]}
            group, name = ("unconstrained_posterior" if phase == "sampling" else "unconstrained"), "z"
            blocks.append(Block(phase, log.read(group, name), stats))
    return Memory(keeper.thin, blocks, keeper.seen)


def _subject(about: Mapping[str, Any], inputs: Mapping[str, Any], program: Any) -> Any:
    if program is None:
        program = _imported(about, inputs["call"])
    dim = int(about["identity"]["dim"])
    init = None if hasattr(program, "sites") else np.zeros(dim)
    codes, estimate = about.get("codes") or (), noisy.wanted(inputs["engine"])
    return make_subject(program, init, codes, estimate, bool(about.get("collapse")), about.get("reparameterize", True))


def _imported(about: Mapping[str, Any], call: Any) -> Any:
    """The program, of a model that is imported again."""
    from ppl import ModelError

    name = about["identity"].get("model")
    module, _, qualname = (name or "").partition(":")
    retry = f"pass the program: infer.resume({about.get('path')!r}, program)"
    if not name:
        raise ModelError(f"the run samples a log density that cannot be imported; {retry}")
    if call is None:
        raise ModelError(f"the arguments of {name} are more than arrays, numbers and text; {retry}")
    found = _module(module, about["identity"].get("source"), qualname)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is None or not hasattr(found, "function") or not callable(found):
        raise ModelError(f"{name} cannot be imported as a model; {retry}")
    made = found(*call["args"], **call["kwargs"])
    return dataclasses.replace(
        made, fixed=call["fixed"], roles=call["roles"], released=frozenset(call["released"])
    )


def _module(name: str, source: str | None, qualname: str) -> Any:
    """Import a module, only if it holds the very function that the run was begun with: reading must not run code."""
    import ast
    import sys

    if name in sys.modules:
        return sys.modules[name]
    try:
        spec = importlib.util.find_spec(name)
        text = Path(spec.origin).read_text() if spec is not None and spec.origin else ""
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    except (ImportError, ValueError, OSError, SyntaxError):
        return None
    here = {identity._hash(ast.dump(ast.Module([node], [])).encode()) for node in nodes}
    return importlib.import_module(name) if source in here else None


def _classes(engine: Any, subject: Any) -> list[type]:
    """Classes of a user's own engine or kernel and of its states, by which the stored ones may be made."""
    import jax

    kernel = getattr(engine, "kernel", engine)
    found = list(checkpoint.classes_in(engine))
    if hasattr(kernel, "init") and hasattr(kernel, "step"):
        many = (4,) if getattr(kernel, "ensemble", False) else ()
        z = jax.ShapeDtypeStruct((*many, subject.dim), jax.numpy.result_type(float))
        found += checkpoint.classes_in(jax.eval_shape(lambda z: kernel.init(z, subject.density), z))
    return found


def _same(about: Mapping[str, Any], now: Mapping[str, Any], path: Any) -> None:
    from ppl import ModelError

    changed = identity.differences(about["identity"], now)
    if changed:
        raise ModelError(
            f"the run in {path} was begun with something else; changed: {'; '.join(changed)}. Resume it with what it "
            "was begun with, or start a new run in another directory."
        )


def _rule(about: Mapping[str, Any], inputs: Mapping[str, Any], until: Any) -> Any:
    if until is not None:
        return as_rule(until)
    if inputs["rule"] is not None:
        return from_spec(inputs["rule"])
    if about["until"]:
        raise TypeError(f"the stopping rule {about['until']!r} is a function and was not stored: pass until= again")
    return None


def _restore(run: Any, directory: RunDirectory, known: list[type]) -> None:
    """Take the newest checkpoint whose draws are what was written."""
    found = directory.checkpoints(known)
    counts = [state["keeper"]["sampling"]["count"] for _, state in found]
    for i, (serial, state) in enumerate(found):
        run.restore(state)
        sampling, warmup = run.keeper.sampling, run.keeper.warmup
        since = counts[i + 1] if i + 1 < len(counts) else sampling.count - sampling.rows
        try:
            sampling.verify(since)
            warmup.verify(warmup.count - warmup.rows)
        except Damaged:
            if i + 1 < len(found):
                continue
            lost = f"the last draws in {directory.path} are damaged, and no earlier checkpoint is left"
            raise StoreError(lost) from None
        directory.serial = serial
        return
    if any((directory.path / name).exists() for name in ("checkpoint-a.npz", "checkpoint-b.npz")):
        raise StoreError(f"both checkpoints in {directory.path} are damaged; its draws can still be read")


def _same_height(run: Any, path: Any) -> None:
    """Refuse a model that gives another log density at the last draw."""
    from ppl import ModelError

    last = run.keeper.last
    if last is None or "lp" not in last.stats or not last.positions.shape[1] or run.subject.estimate is not None:
        return
    height = float(last.stats["lp"][0, -1])
    same, here = identity.same_height(run.subject.density, last.positions[0, -1], height)
    if not same:
        raise ModelError(
            f"the log density at the last draw of the run in {path} is {here:.9g}, but was {height:.9g}: something "
            "that the model reads has changed (a function that it calls, a global)"
        )


def open_run(path: Any, program: Any = None) -> Fit:
    """Read a run, also one at work in another process: its draws so far.

    Args:
        path: Its directory.
        program: The program, needed to predict and for groups that are not stored.

    Returns:
        The draws up to the last checkpoint; ``fit.manifest["status"]`` says how the run is.

    Raises:
        FileNotFoundError: If there is no run.
        StoreError: If it has no draws yet.
    """
    directory = RunDirectory(path)
    about = directory.manifest()
    found = directory.checkpoints(only="keeper")
    sampling = next((state for _, state in found if state["sampling"]["rows"]), None)
    if sampling is None:
        raise StoreError(f"the run in {path} has no draws yet ({about.get('status')}); see ppl.inference.status(path)")
    keeper = Recorder(directory, None, None, {}, int(about["thin"]))
    keeper.restore(sampling, {"moments": None, "last": None})
    info = about.get("info") or {}
    draws = StoredDraws(keeper.sampling, keeper.warmup, info, sampling["rhat"])
    inputs = checkpoint.read(directory.path / "inputs.npz", only="coords"), _read_labels(directory)
    stored = stored_groups(draws, None, about, *inputs)
    notes = tuple(about.get("notes") or ())
    if about.get("status") == "running":
        notes = (*notes, f"the run was at work after {draws.shape[1]} draws per chain")
    density = None
    if program is not None:
        with floats.context(about["precision"]):
            options = {"estimate": True, "reparameterize": about.get("reparameterize", True)}
            subject = make_subject(program, np.zeros(draws.shape[2]), about.get("codes") or (), **options)
            _same(about, identity.describe(subject.program, subject.dim), path)
            program, density = subject.program, subject.density
    return Fit(program, density, draws, about, notes, stored)


def _read_labels(directory: RunDirectory) -> list[str]:
    return list(map(str, checkpoint.read(directory.path / "inputs.npz", only="labels")))


def stored_groups(
    draws: StoredDraws, program: Any, about: Mapping[str, Any], coords: Any = None, labels: Any = None
) -> dict[str, Any]:
    """The groups that a run directory holds, as datasets whose arrays are read when they are used."""
    import jax

    from .export import _lazy, flat, labelled

    log = draws.sampling
    dims = {name: tuple(names) for name, names in (about.get("dims") or {}).items()}
    coords = dict(program.coords if coords is None and program is not None else coords or {})
    out = {}
    for group, arrays in log.tail.items():
        known = labels is not None or group not in ("unconstrained_posterior", "sample_stats")
        if not known:
            continue  # the fit has these itself
        lazy = {}
        for name, tail in arrays.items():
            shape = (tail.shape[0], log.total, *tail.shape[2:])
            read = functools.cache(functools.partial(log.read, group, name))
            lazy[name] = _lazy(jax.ShapeDtypeStruct(shape, tail.dtype), read)
        named = {"z": ("unconstrained",)} if group == "unconstrained_posterior" else dims
        own = {**coords, "unconstrained": np.asarray(labels)} if group == "unconstrained_posterior" else coords
        out[group] = labelled(lazy, named, own, ("chain", "draw"), flat(about))
    return out


def status(path: Any) -> dict[str, Any]:
    """How a run is, from its manifest and its last checkpoint alone.

    Args:
        path: Its directory.

    Returns:
        ``status`` (running, stopped, finished or failed), ``phase``, ``draws`` per chain, ``divergences``, ``seconds``
        by phase, ``updated_at`` (seconds since 1970), ``engine``, ``plan`` and ``notes``.

    Raises:
        FileNotFoundError: If there is no run.
    """
    directory = RunDirectory(path)
    about = directory.manifest()
    found = directory.checkpoints(only="status")
    last = found[0][1] if found else {"phase": "start", "draws": 0, "divergences": 0, "seconds": {}, "updated_at": None}
    names = ("status", "engine", "plan", "notes", "stopped", "error", "seed", "until", "created_at")
    return {**{name: about[name] for name in names if name in about}, **last}
