"""The rules for folders: which are claimed, emptied, replaced and removed.

A folder appears complete or not at all, and an earlier one in its place is never lost. Only what carries our mark is
emptied or removed: a folder that holds the file `MARK`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from ecvae_jax.files import UnsafePathError, irregular, lock_file, orphan

MARK = ".made-by-ecvae"
"""File in every temporary folder of ours; the process that uses the folder holds it locked."""
REPLACED = "replaced"
"""Folder, in a temporary one, of what `replace_folder` puts aside."""

_FOLDER = ".ecvae.tmp"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's fcntl.h and fs.h


def claim_folder(path: Path) -> IO[str] | None:
    """Returns the lock of a folder with our mark, created if missing; None if another process holds it.

    Raises:
        UnsafePathError: the path is a link or no folder, belongs to another user, or holds files but not our mark.
        OSError: the folder cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    kind = irregular(path) or "a file"
    if kind != "a folder":
        raise UnsafePathError(f"{path} is {kind}: the work needs a folder of that name; move it away")
    if not is_marked(path) and any(path.iterdir()):
        raise UnsafePathError(f"{path} exists and ecvae did not make it (it has no {MARK}): move it away")
    with tempfile.TemporaryFile(dir=path.parent) as probe:  # not geteuid: a mounted bucket has its own owner
        if os.fstat(probe.fileno()).st_uid != path.lstat().st_uid:
            raise UnsafePathError(f"{path} belongs to another user: use another folder, or remove it")
    return lock_file(path / MARK)


def is_marked(folder: Path) -> bool:
    """Returns whether a path is a folder, no link, that holds our mark."""
    return irregular(folder) == "a folder" and os.path.lexists(folder / MARK) and irregular(folder / MARK) is None


def clear_folder(folder: Path, keep: Iterable[str] = ()) -> None:
    """Removes all entries of a folder but those in `keep`; links are removed, never followed, also those in `keep`."""
    kept = set(keep)
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in kept:
                    shutil.rmtree(entry.path)
            elif entry.name not in kept or not entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)


@contextlib.contextmanager
def temporary_folder(out: Path) -> Iterator[Path]:
    """Yields a folder with our mark beside `out`, removed at the end; those of killed processes are removed first.

    Raises:
        OSError: the folder cannot be created.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    for folder in out.parent.glob(".*" + _FOLDER):
        if folder.name.startswith(f".{out.name}.") and is_marked(folder):
            with orphan(folder / MARK) as found:
                if found:
                    restore_folder(folder / REPLACED, out)
                    shutil.rmtree(folder, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=_FOLDER, dir=out.parent))
    lock = lock_file(work / MARK)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if lock is not None:
            lock.close()


def replace_folder(new: Path, out: Path) -> None:
    """Moves a folder to `out`; what is there moves to `REPLACED` beside `new`, or takes the place of `new`.

    The two are swapped in one step by Linux's renameat2. Where the system has no such call, a kill between two renames
    leaves `out` missing; `restore_folder` moves it back at the next start.

    Raises:
        OSError: a folder cannot be renamed; the earlier one stays.
    """
    if is_free(out):
        new.rename(out)
        return
    if _exchange(new, out):
        return
    aside = new.with_name(REPLACED)
    try:
        out.rename(aside)
        new.rename(out)
    except BaseException:  # a signal too
        if aside.exists() and not out.exists():
            aside.rename(out)
        raise


def restore_folder(aside: Path, out: Path) -> None:
    """Moves a folder that `replace_folder` had put aside back to `out`, if a kill left nothing there; says so."""
    if irregular(aside) == "a folder" and is_free(out):
        aside.rename(out)
        print(f"{out}: a kill had interrupted its replacement; the earlier folder is back", file=sys.stderr)


def is_free(out: Path) -> bool:
    """Returns whether a folder can be renamed to `out`: nothing is there, or an empty folder."""
    return not os.path.lexists(out) or (irregular(out) == "a folder" and not any(out.iterdir()))


def _exchange(first: Path, second: Path) -> bool:
    """Swaps two folders of one file system in one step; returns False if the system or its C library cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0
