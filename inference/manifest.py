"""The facts of a run: versions, seed, options, plan and timings, as plain JSON values."""

from __future__ import annotations

import dataclasses
import datetime
import platform
from typing import Any

import jax
import numpy as np


def manifest(engine: Any, **facts: Any) -> dict[str, Any]:
    """Describe a run.

    Args:
        engine: The engine, a dataclass of options.
        **facts: What else is known (seed, plan, timings, ...).

    Example:
        >>> manifest(None, seed=3)["seed"]
        3
    """
    return {
        "inference_library": "ppl",
        "inference_library_version": _version(),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "jax_version": jax.__version__,
        "numpy_version": np.__version__,
        "python_version": platform.python_version(),
        "device": jax.default_backend(),
        "engine": type(engine).__name__,
        "engine_options": plain(engine),
        **{name: plain(value) for name, value in facts.items()},
    }


def plain(value: Any) -> Any:
    """Reduce options to JSON values; what has no such form is named.

    Example:
        >>> plain({"a": np.arange(2), "b": (1.0, None)})
        {'a': [0, 1], 'b': [1.0, None]}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | jax.Array):
        return np.asarray(value).tolist()
    return getattr(value, "__qualname__", None) or repr(type(value).__name__)


def _version() -> str:
    import ppl

    return str(getattr(ppl, "__version__", "unknown"))
