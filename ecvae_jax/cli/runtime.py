"""Settings that make JAX fast on CPUs, to be made before it is imported. Imports nothing heavy."""

from __future__ import annotations

import ctypes
import glob
import importlib.util
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

# Without it XLA's CPU convolutions go through a fusion that is slow on large maps; on small ones it matters little
# (benchmarks/cpu.py, --image-size).
_CPU_FLAG = "xla_cpu_experimental_ynn_fusion_type"


_CPU_VALUE = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"


# XLA aborts the process on a flag that it does not know; these are the versions the flag was tested with.
_FIRST, _BEYOND = (0, 10), (0, 13)


_GPU_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm60_plugin", "jax_rocm7_plugin")


# Where Linux lists the makers of the devices on the PCI bus, and Google's number: JAX too looks for TPUs there. The
# drivers' files are asked as well: a TPU that is missed would train on the CPU.
_PCI_VENDORS, _GOOGLE = "/sys/bus/pci/devices/*/vendor", "0x1ae0"


_DRIVERS = ("/dev/accel*", "/dev/vfio/*")


# glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD, at the largest values that it takes.
_MALLOC_OPTIONS = {-3: 32 * 2**20, -1: 2**31 - 1, -2: 256 * 2**20}


def set_cpu_flags() -> bool:
    """Returns whether the CPU flags are set, having added them to XLA_FLAGS where no accelerator can be used.

    Call it first in a program. Nothing happens where JAX is already imported (too late), where a GPU plugin is
    installed, or libtpu and the machine has a TPU, and JAX_PLATFORMS does not ask for the CPU, or with a version of
    jaxlib that was not tested with the flag. Where libtpu is there without a TPU, as for `ecvae plan`, JAX_PLATFORMS
    is set to the CPU, so that JAX does not look for one.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _CPU_FLAG in flags:
        return True
    if "jax" in sys.modules or not _runs_on_cpu():
        return False
    if not os.environ.get("JAX_PLATFORMS") and importlib.util.find_spec("libtpu"):
        os.environ["JAX_PLATFORMS"] = "cpu"
    if not _is_tested_version():
        return False
    os.environ["XLA_FLAGS"] = f"{flags} --{_CPU_FLAG}={_CPU_VALUE}".strip()
    return True


def keep_freed_memory() -> bool:
    """Returns whether the C library now keeps memory that is freed, for the next step of a training to use.

    By default glibc gives every large block back to the system, and each step takes page faults to get it again.
    Nothing happens where an accelerator can be used, or with another C library.
    """
    if not sys.platform.startswith("linux") or not _runs_on_cpu():
        return False
    try:
        set_option = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(set_option(option, value) for option, value in _MALLOC_OPTIONS.items())


def _runs_on_cpu() -> bool:
    wanted = os.environ.get("JAX_PLATFORMS", "")
    if wanted:
        return wanted.split(",")[0] == "cpu"
    if any(importlib.util.find_spec(plugin) for plugin in _GPU_PLUGINS):
        return False
    return importlib.util.find_spec("libtpu") is None or not _has_tpu()


def _has_tpu() -> bool:
    if any(glob.glob(driver) for driver in _DRIVERS):
        return True
    return any(Path(vendor).read_text().strip() == _GOOGLE for vendor in glob.glob(_PCI_VENDORS))


def _is_tested_version() -> bool:
    try:
        version = tuple(int(part) for part in metadata.version("jaxlib").split(".")[:2])
    except (metadata.PackageNotFoundError, ValueError):
        return False
    return _FIRST <= version < _BEYOND

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
