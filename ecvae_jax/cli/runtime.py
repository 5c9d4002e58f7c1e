"""What `ecvae` sets before JAX is imported: XLA's flags, the C library's memory, the cache of compiled programs."""

from __future__ import annotations

import ctypes
import glob
import importlib.util
import os
import re
import shutil
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """What a process sets when it computes on one kind of device."""

    xla_flags: Mapping[str, str] = field(default_factory=dict)
    """Flags for XLA_FLAGS, without the dashes."""
    jaxlib: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    """First version of jaxlib that the flags were tested with, and the first one beyond. XLA aborts the process on a
    flag that it does not know."""
    keep_freed_memory: bool = False
    """See `keep_freed_memory`."""


# An accelerator's flags go here. Options of one compiled program do not: `training.parallel` has those of the step.
PLATFORMS = {
    # Without the flag, XLA's CPU convolutions use a fusion that is slow on large maps; on small ones it matters little
    # (benchmarks/cpu.py, --image-size).
    "cpu": Settings(
        {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"},
        jaxlib=((0, 10), (0, 13)),
        keep_freed_memory=True,
    ),
    "gpu": Settings(),
    "tpu": Settings(),
}

_GPU_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm60_plugin", "jax_rocm7_plugin")

# JAX looks for TPUs in the same place: Linux lists the vendors of PCI devices there, and Google's is this number. The
# drivers' files count too, since a TPU that is missed would train on the CPU.
_PCI_VENDORS, _GOOGLE = "/sys/bus/pci/devices/*/vendor", "0x1ae0"
_DRIVERS = ("/dev/accel*", "/dev/vfio/*")

# glibc's M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD: one heap, no mapped blocks, nothing trimmed. The heap
# of a thread ends at 64 MB, but a convolution allocates 75 MB for maps of 128 × 128 × 32 and a batch of 4. Mapped
# again for each layer, these blocks cost 270,000 page faults a step, a fifth of its CPU time (configs/paper_256.py).
_MALLOC_OPTIONS = {-8: 1, -4: 0, -1: -1, -2: 256 * 2**20}


def platform() -> str:
    """Returns the kind of device that JAX will use: a key of `PLATFORMS`, or an unknown first word of JAX_PLATFORMS."""
    wanted = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
    if wanted:
        return "gpu" if wanted in ("cuda", "rocm") else wanted
    if any(importlib.util.find_spec(plugin) for plugin in _GPU_PLUGINS):
        return "gpu"
    return "tpu" if importlib.util.find_spec("libtpu") and _has_tpu() else "cpu"


def set_platform_flags() -> bool:
    """Returns whether XLA_FLAGS holds the flags of this platform, having added those that the user did not set.

    Call it before JAX is imported; later it changes nothing. Versions of jaxlib outside the tested ones get no flags.
    Where libtpu is installed without a TPU, as for `ecvae plan`, it sets JAX_PLATFORMS=cpu: JAX would look for one.
    """
    given, name = os.environ.get("XLA_FLAGS", ""), platform()
    settings = PLATFORMS.get(name, Settings())
    missing = [f"--{flag}={value}" for flag, value in settings.xla_flags.items() if flag not in given]
    if not missing:
        return bool(settings.xla_flags)
    if "jax" in sys.modules:
        return False
    if name == "cpu" and not os.environ.get("JAX_PLATFORMS") and importlib.util.find_spec("libtpu"):
        os.environ["JAX_PLATFORMS"] = "cpu"
    if not _is_tested(settings):
        return False
    os.environ["XLA_FLAGS"] = " ".join([given, *missing]).strip()
    return True


def check_environment() -> None:
    """Raises ValueError where the environment turns off what every command needs."""
    for name, value in os.environ.items():
        if name.startswith("JAX_TRANSFER_GUARD") and value.startswith("disallow"):
            raise ValueError(f"{name}={value!r}: commands move arrays between host and device; unset it")
        if name == "JAX_NUMPY_DTYPE_PROMOTION" and value == "strict":
            raise ValueError(f"{name}={value!r}: commands combine arrays of several dtypes; unset it")
        if name == "JAX_DISABLE_JIT" and value.lower() in ("1", "true", "yes", "on", "t", "y"):
            raise ValueError(f"{name}={value!r}: without compiled programs a command takes hours; unset it")


def widen_terminal() -> None:
    """Sets the width of the help, where the terminal is so narrow that tyro would not end (at 5 columns)."""
    if shutil.get_terminal_size().columns < _NARROWEST:
        os.environ["COLUMNS"] = str(_NARROWEST)


def keep_freed_memory() -> bool:
    """Returns whether the C library now keeps freed memory for the next training step; only for CPUs and glibc.

    By default glibc returns every large block to the system, and each step takes page faults to get it back.
    """
    if not sys.platform.startswith("linux") or not PLATFORMS.get(platform(), Settings()).keep_freed_memory:
        return False
    try:
        set_option = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(set_option(option, value) for option, value in _MALLOC_OPTIONS.items())


def _has_tpu() -> bool:
    if any(glob.glob(driver) for driver in _DRIVERS):
        return True
    return any(Path(vendor).read_text().strip() == _GOOGLE for vendor in glob.glob(_PCI_VENDORS))


def _is_tested(settings: Settings) -> bool:
    try:
        version = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    except (metadata.PackageNotFoundError, ValueError):
        return False
    first, beyond = settings.jaxlib
    return first <= version < beyond


VARIABLE = "ECVAE_COMPILATION_CACHE"
"""Environment variable with the folder (or gs:// address) of the cache, or "off"."""

_MOST_BYTES = 2 * 10**9
_NARROWEST = 40
"""Columns of a terminal."""

# By default JAX keeps programs that took a second or more. XLA:CPU compiles dozens for a training, each in less.
_CACHE_SETTINGS = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}

_DAMAGED = re.compile(r"Error reading persistent compilation cache entry for '([^']+)'")


def use_compilation_cache(folder: str | Path | None = None) -> str | None:
    """Makes JAX keep its compiled programs, below 2 GB; returns a note where it cannot or must not, else None.

    Call it before JAX is imported. Where JAX_COMPILATION_CACHE_DIR is set, it changes nothing.

    Args:
        folder: the cache; None: $ECVAE_COMPILATION_CACHE, or else `ecvae_jax/xla` in the user's cache folder.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    chosen = str(folder or os.environ.get(VARIABLE, ""))
    if chosen.lower() == "off":
        return None
    try:
        path = chosen if "://" in chosen else _writable(Path(chosen) if chosen else _users_folder())
        unsafe = None if isinstance(path, str) else _unsafe([path] if chosen else [path, path.parent])
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        return f"compiled programs are not kept ({error}): set {VARIABLE} to a writable folder, or to off"
    if unsafe:
        return f"compiled programs are not kept ({unsafe}), or set {VARIABLE} to another folder, or to off"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(path)
    for name, value in _CACHE_SETTINGS.items():
        os.environ.setdefault(name, value)
    if isinstance(path, Path):
        _prune(path)
        _replace_damaged(path)
    return None


def _users_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "ecvae_jax" / "xla"


def _writable(folder: Path) -> Path:
    """Returns the folder without links, created if missing; raises OSError where it cannot be created or written."""
    folder = folder.expanduser().resolve()
    for path in (*reversed(folder.parents), folder):
        if not path.exists():
            path.mkdir(mode=0o700, exist_ok=True)  # its programs are run, so only the user may write it
    with tempfile.TemporaryFile(dir=folder):
        return folder


def _unsafe(folders: Sequence[Path]) -> str | None:
    """Returns why the programs in a folder may be another user's, and the remedy; None if they cannot be.

    The rule is that of ssh for its keys: the owner is the user or root, and no other user may write.
    """
    for folder in folders:
        found = folder.stat()
        if found.st_uid not in (os.getuid(), 0):
            return f"{folder} belongs to user {found.st_uid}, and its programs would be run: use a folder of your own"
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"other users may write {folder}, and its programs would be run: empty it and chmod go-w it"
    return None


def _prune(folder: Path, most_bytes: int = _MOST_BYTES) -> None:
    """Removes the least recently used entries until the rest fits.

    JAX's own limit needs another library and a lock, and stops writing where an entry was made without the limit.
    """
    found: list[tuple[float, int, Path]] = []
    try:
        for path in folder.glob("*-cache"):
            entry = path.stat()
            found.append((max(entry.st_atime, entry.st_mtime), entry.st_size, path))
        left = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left <= most_bytes:
                break
            path.unlink(missing_ok=True)
            left -= size
    except OSError:  # another process prunes too, or owns the files; the next start prunes again
        return


def _replace_damaged(folder: Path) -> None:
    """Deletes an entry that JAX cannot read, so that JAX stores the program again.

    JAX recompiles it but never overwrites the entry: the warning and the wait would come back at every start.
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
