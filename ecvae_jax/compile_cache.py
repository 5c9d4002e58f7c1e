"""The folder of compiled programs, so that the same command starts faster next time. Imports nothing heavy."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

VARIABLE = "ECVAE_COMPILATION_CACHE"
"""Environment variable with the folder (or gs:// address) of the cache, or "off"."""

_MOST_BYTES = 2 * 10**9
# XLA:CPU compiles dozens of small programs for a training, none of them for a whole second: all are worth keeping.
_SETTINGS = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
_DAMAGED = re.compile(r"Error reading persistent compilation cache entry for '([^']+)'")


def use_compilation_cache(folder: str | Path | None = None) -> str | None:
    """Lets JAX keep its compiled programs; returns a note where they cannot be kept.

    Call it before JAX is imported. A cache that the user chose by JAX's own variable JAX_COMPILATION_CACHE_DIR is used
    as it is; this one is kept below 2 GB.

    Args:
        folder: where; none: what ECVAE_COMPILATION_CACHE says, or else `ecvae_jax/xla` in the user's cache folder.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    chosen = str(folder or os.environ.get(VARIABLE, ""))
    if chosen.lower() == "off":
        return None
    try:
        path = chosen if "://" in chosen else _writable(Path(chosen) if chosen else _users_folder())
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody's home
        return f"compiled programs are not kept ({error}): set {VARIABLE} to a folder that can be written, or to off"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(path)
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if isinstance(path, Path):
        _prune(path)
        _replace_damaged(path)
    return None


def _users_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "ecvae_jax" / "xla"


def _writable(folder: Path) -> Path:
    """The folder, made where it was not there; raises OSError where it cannot be made or written."""
    folder = folder.expanduser().absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what lies in it is run: nobody else may write it
    with tempfile.TemporaryFile(dir=folder):
        return folder


def _prune(folder: Path, most_bytes: int = _MOST_BYTES) -> None:
    """Takes away what was not used for longest, until the rest fits.

    JAX's own limit needs another library and a lock, and stops writing where an entry was made without the limit.
    """
    found: list[tuple[float, int, Path]] = []
    try:
        for path in folder.glob("*-cache"):
            stat = path.stat()
            found.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
        left = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left <= most_bytes:
                break
            path.unlink(missing_ok=True)
            left -= size
    except OSError:  # another process prunes as well, or owns the files: whoever comes next does it
        return


def _replace_damaged(folder: Path) -> None:
    """Deletes an entry that cannot be read, so that the program is stored anew.

    JAX compiles it again and never overwrites it: the warning and the wait would come back with every start.
    """
    show: Callable[..., None] = warnings.showwarning

    def show_or_replace(message: Warning | str, *rest: object, **named: object) -> None:
        damaged = _DAMAGED.match(str(message))
        if damaged is None:
            show(message, *rest, **named)
            return
        for path in folder.glob(f"{damaged[1]}-*-cache"):
            path.unlink(missing_ok=True)

    warnings.showwarning = show_or_replace
