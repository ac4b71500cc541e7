r"""A run as a directory, from which it can be read while it lives and resumed when it dies.

::

    manifest.json                 what the run is: versions, seed, options, plan, hashes, status
    inputs.npz                    engine, stopping rule and data, as arrays and JSON
    checkpoint-a.npz, -b.npz      the last two states, written in turn
    draws.zarr/<group>/<name>     draws, in chunks along the draws that are written once each

Draws gather in a *tail* until they fill a chunk; the tail is part of the checkpoint, so no chunk is ever changed.
A checkpoint says how many draws the store holds and is written after them: whatever a dead process wrote beyond is
written again with the same numbers. Chunks and checkpoints carry checksums. Where the last checkpoint, or a chunk that
it counts, is damaged, the one before is used.
"""

from __future__ import annotations

import json
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoint
from .checkpoint import Damaged

Arrays = dict[str, np.ndarray]

FORMAT = 1
"""Version of the layout; a directory of a later version is refused, one of an earlier version is migrated."""

CHUNK_BYTES = 4 * 2**20
"""Bytes of all draws that make one chunk, before compression."""

_SLOTS = ("checkpoint-a.npz", "checkpoint-b.npz")
_CODECS = frozenset(("bytes", "zstd", "crc32c", "vlen-utf8", "gzip", "blosc", "transpose", "sharding_indexed"))


class StoreError(OSError):
    """A run directory that cannot be written or read."""


def quoted(name: str) -> str:
    """A site's name as a file name.

    Example:
        >>> quoted("school/y")
        'school%2Fy'
    """
    return urllib.parse.quote(name, safe="").replace(".", "%2E") or "%"


@dataclass
class Log:
    """Arrays that grow along their second axis, (chains, draws, ...), in chunks on the disk.

    Attributes:
        root: The Zarr directory.
        rows: Draws in a chunk; 0 until the first are seen.
        count: Draws in full chunks on the disk.
        tail: Draws after them.
    """

    root: Path
    rows: int = 0
    count: int = 0
    tail: dict[str, Arrays] = field(default_factory=dict)
    _open: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def total(self) -> int:
        """All draws."""
        return self.count + self.waiting

    @property
    def waiting(self) -> int:
        """Draws in the tail."""
        for arrays in self.tail.values():
            for value in arrays.values():
                return value.shape[1]
        return 0

    def append(self, groups: dict[str, Arrays]) -> None:
        """Add draws to every array; full chunks go to the disk."""
        if not self.rows:
            each = sum(v.nbytes // max(v.shape[1], 1) for arrays in groups.values() for v in arrays.values())
            self.rows = int(np.clip(CHUNK_BYTES // max(each, 1), 1, 1000))
        if self.tail:
            joined = {
                g: {n: np.concatenate([self.tail[g][n], v], axis=1) for n, v in arrays.items()}
                for g, arrays in groups.items()
            }
        else:
            joined = groups
        full = next(iter(next(iter(joined.values())).values())).shape[1] // self.rows * self.rows
        if full:
            self._write({g: {n: v[:, :full] for n, v in arrays.items()} for g, arrays in joined.items()})
            self.count += full
        self.tail = {g: {n: v[:, full:].copy() for n, v in arrays.items()} for g, arrays in joined.items()}

    def close(self) -> None:
        """Write the tail as a last, shorter chunk; more may be appended later, after ``state`` and ``restore``."""
        if self.waiting:
            self._write(self.tail)

    def _write(self, groups: dict[str, Arrays]) -> None:
        for group, arrays in groups.items():
            for name, value in arrays.items():
                array = self._array(f"{group}/{quoted(name)}", value)
                array.resize((value.shape[0], self.count + value.shape[1], *value.shape[2:]))
                array[:, self.count :] = value

    def _array(self, path: str, like: np.ndarray) -> Any:
        if path not in self._open:
            import zarr
            from zarr.codecs import Crc32cCodec, ZstdCodec

            folder = self.root / path
            if self.count == 0 or not (folder / "zarr.json").exists():
                self._open[path] = zarr.create_array(
                    str(folder),
                    shape=(like.shape[0], 0, *like.shape[2:]),
                    chunks=(like.shape[0], self.rows, *(max(n, 1) for n in like.shape[2:])),
                    dtype=like.dtype,
                    compressors=[ZstdCodec(level=0), Crc32cCodec()],
                    overwrite=True,
                )
            else:
                self._open[path] = zarr.open_array(str(folder), mode="r+")
        return self._open[path]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rows": self.rows, "count": self.count, "tail": self.tail}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a checkpoint."""
        self.rows, self.count = int(state["rows"]), int(state["count"])
        self.tail, self._open = {g: dict(arrays) for g, arrays in state["tail"].items()}, {}

    def read(self, group: str, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Draws ``start`` to ``stop`` of one array.

        Raises:
            Damaged: If a chunk is.
        """
        stop = self.total if stop is None else stop
        parts = []
        if start < self.count:
            parts.append(opened(self.root / group / quoted(name), self.count)[:, start : min(stop, self.count)])
        if stop > self.count:
            parts.append(self.tail[group][name][:, max(start - self.count, 0) : stop - self.count])
        if not parts:
            return self.tail[group][name][:, :0]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def verify(self, since: int) -> None:
        """Read what was written since a number of draws.

        Raises:
            Damaged: If a chunk is not what was written.
        """
        since = max(since, 0)
        if since >= self.count:
            return
        for group, arrays in self.tail.items():
            for name in arrays:
                self.read(group, name, since, self.count)


class Reader:
    """A stored array of which the first ``count`` draws exist; reads pieces, as NumPy arrays."""

    def __init__(self, path: Path, count: int) -> None:
        """Open it."""
        import zarr

        safe(path)
        try:
            self._array = zarr.open_array(str(path), mode="r", zarr_format=3)
        except Exception as error:
            raise Damaged(f"{path.name} in the store cannot be opened: {error}") from error
        if self._array.shape[1] < count:
            raise Damaged(f"{path.name} holds {self._array.shape[1]} draws of {count}")
        self.dtype = np.dtype(self._array.dtype)
        self.shape = (self._array.shape[0], count, *self._array.shape[2:])

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read a piece."""
        index = index if isinstance(index, tuple) else (index,)
        first = index[:2] + (slice(None),) * (2 - len(index[:2]))
        draws = first[1]
        if isinstance(draws, slice):
            draws = slice(*draws.indices(self.shape[1]))
        try:
            return np.asarray(self._array[(first[0], draws, *index[2:])])
        except (ValueError, RuntimeError, OSError, EOFError) as error:
            raise Damaged(f"a chunk of {self._array.path or self._array.store} is damaged: {error}") from error


def opened(path: Path, count: int) -> Reader:
    """A stored array."""
    return Reader(path, count)


def safe(path: Path) -> None:
    """Refuse a Zarr array whose codecs could do more than decode numbers.

    Raises:
        Damaged: Naming the codec.
    """
    try:
        about = json.loads((path / "zarr.json").read_text())
        names = [codec["name"] for codec in about.get("codecs", [])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path.name} has no readable description: {error}") from error
    for name in names:
        if name not in _CODECS:
            raise Damaged(f"{path.name} wants the codec {name!r}, which is not used by this library")


class RunDirectory:
    """The files of one run.

    Attributes:
        path: The directory.
        serial: Number of the last checkpoint.
    """

    def __init__(self, path: Any) -> None:
        """Name it; nothing is read or written."""
        self.path = Path(path)
        self.serial = 0

    @property
    def draws(self) -> Path:
        """The Zarr directory."""
        return self.path / "draws.zarr"

    def create(self, manifest: dict[str, Any], inputs: dict[str, Any]) -> None:
        """Make the directory.

        Raises:
            FileExistsError: If it holds a run already.
        """
        # a process that died while it made the directory leaves no manifest, and nothing worth keeping
        files = [f.name for f in self.path.iterdir()] if self.path.exists() else []
        if any(name != "inputs.npz" and not name.startswith(".inputs.npz") for name in files):
            run = (self.path / "manifest.json").exists()
            advice = f"; go on with it by infer.resume({str(self.path)!r}), or choose" if run else "; choose"
            raise FileExistsError(f"{self.path} {'holds a run' if run else 'is not empty'}{advice} another directory")
        self.path.mkdir(parents=True, exist_ok=True)
        checkpoint.write(self.path / "inputs.npz", inputs)
        self.describe(manifest)

    def describe(self, manifest: dict[str, Any]) -> None:
        """Write the manifest."""
        text = json.dumps({"format": FORMAT, **manifest}, indent=1)
        checkpoint.replace_file(self.path / "manifest.json", lambda file: file.write(text.encode()))

    def manifest(self) -> dict[str, Any]:
        """Read the manifest.

        Raises:
            FileNotFoundError: If there is no run.
            StoreError: If it was written by a later version.
        """
        try:
            found = json.loads((self.path / "manifest.json").read_text())
        except FileNotFoundError:
            raise FileNotFoundError(f"no run at {self.path}: it has no manifest.json") from None
        except ValueError as error:
            raise StoreError(f"{self.path}/manifest.json is damaged: {error}") from error
        version = found.pop("format", None)
        if not isinstance(version, int) or version > FORMAT:
            raise StoreError(
                f"{self.path} has the format {version!r}; this version of the library reads up to {FORMAT}. Update it."
            )
        return found

    def save(self, state: dict[str, Any]) -> None:
        """Write the next checkpoint over the last but one."""
        self.serial += 1
        checkpoint.write(self.path / _SLOTS[self.serial % 2], {"serial": self.serial, **state})

    def checkpoints(self, known: Any = (), only: str | None = None) -> list[tuple[int, Any]]:
        """Readable checkpoints with their numbers, the newest first."""
        found = []
        for name in _SLOTS:
            try:
                serial = checkpoint.read(self.path / name, only="serial")
                found.append((int(serial), checkpoint.read(self.path / name, known, only)))
            except (FileNotFoundError, Damaged):
                continue
        return sorted(found, key=lambda pair: -pair[0])
