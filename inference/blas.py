"""NumPy's linear algebra on one thread.

The host side of an engine multiplies and factorises small matrices. OpenBLAS shares them among all cores and lets the
threads spin between calls, which costs more processor time than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

WORTH = 32
"""Dimension from which NumPy's libraries use threads at all."""


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_thread(dim: int) -> Iterator[None]:
    """Limit NumPy's linear algebra to one thread inside, where matrices are of dimension ``dim``.

    Example:
        >>> import numpy as np
        >>> with one_thread(64):
        ...     x = np.eye(64) @ np.ones(64)
        >>> float(x.sum())
        64.0
    """
    if dim < WORTH:
        yield
        return
    with _controller().limit(limits=1, user_api="blas"):
        yield
