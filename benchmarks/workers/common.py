"""What all measuring processes share: clocks, the job description, the report.

CPU seconds are user plus system of the whole process, so a cold figure contains the interpreter's start,
imports, tracing, compilation and sampling.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def job() -> argparse.Namespace:
    """Read the job from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", choices=("speed", "trace", "reference"), required=True)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--posterior", required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the draws")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", type=int, default=1000, help="effective draws that end the cold run")
    parser.add_argument("--config", default="")
    return parser.parse_args()


def cpu_of_process() -> float:
    """CPU seconds since the process began."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Stopwatch:
    """CPU and wall seconds of a piece of work."""

    def __init__(self) -> None:
        """Start."""
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        """Seconds since the start."""
        return {"cpu": time.process_time() - self.cpu, "wall": time.perf_counter() - self.wall}


def diagnostics() -> Any:
    """The repository's diagnostics module, loaded from its file: peers have no ppl, only NumPy."""
    spec = importlib.util.spec_from_file_location("diagnostics", ROOT / "inference" / "diagnostics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def smallest_ess(diagnostics, draws: dict[str, np.ndarray]) -> float:
    """Smallest bulk ESS over all scalars."""
    flat = [value.reshape(*value.shape[:2], -1) for value in draws.values()]
    return float(np.min(diagnostics.ess_bulk(np.concatenate(flat, axis=-1))))


def save(folder: Path, name: str, draws: dict[str, np.ndarray]) -> str:
    """Write draws, each (chains, draws, ...), and return the file's path."""
    path = folder / f"{name}.npz"
    np.savez(path, **draws)
    return str(path)


def report(row: dict[str, Any]) -> None:
    """Print the result as the last line of the output."""
    print(json.dumps(row), flush=True)
