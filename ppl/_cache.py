"""JAX's persistent compilation cache, on by default.

Compiling is most of the wait for a small model, and a second process would compile the very same
programs again. The cache lives under the user's cache directory in a folder named after the JAX version
and the processor's instruction set: compiled CPU code must not travel between unlike machines through a
shared home directory, and JAX's own key does not contain the instruction set.

Turned off by the environment variable ``PPL_NO_CACHE``; any setting of the user's own
(``JAX_COMPILATION_CACHE_DIR``, ``jax_compilation_cache_dir``, ``jax_enable_compilation_cache``) wins.
"""

from __future__ import annotations

import os
import platform
import sys
import zlib
from pathlib import Path

import jax


def enable_compilation_cache() -> Path | None:
    """Turn the persistent cache on unless the user has decided otherwise.

    Returns:
        The directory now in use because of this call, or None where nothing was changed.
    """
    if os.environ.get("PPL_NO_CACHE") or not jax.config.jax_enable_compilation_cache:
        return None
    if jax.config.jax_compilation_cache_dir is not None:
        return None
    directory = _user_cache() / "ppl" / f"jax-{jax.__version__}-{_instruction_set()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(directory, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(directory))
    # The defaults skip what compiles in under a second, which is nearly everything here.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return directory


def _user_cache() -> Path:
    """The platform's directory for files that may be deleted at any time."""
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")


def _instruction_set() -> str:
    """The machine's architecture and a checksum of what its first processor can do."""
    text = platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            first = file.read(8192).split("\n\n")[0].split("\n")
        text = "".join(line for line in first if line.startswith(("model name", "flags", "Features")))
    except OSError:
        pass
    return f"{platform.machine() or 'any'}-{zlib.crc32(text.encode()):08x}"
