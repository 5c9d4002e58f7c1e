"""The working directory of a training: locked for one training at a time; disk errors in one line."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ecvae_jax.agreement import run_on_host0
from ecvae_jax.checkpoints.integrity import stored_steps
from ecvae_jax.checkpoints.place import LostFolderError, Place
from ecvae_jax.files import UnsafePathError, lock_file, unspelled
from ecvae_jax.files import open_regular as open_regular_file

LOCK = "training.lock"
"""File of a working directory that a running training holds locked; it names the process."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # EFBIG: a limit on the size of files (ulimit -f)
# Errors of a full, read-only or vanished disk.
_DISK = _FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOTDIR, errno.EEXIST}


class WorkdirError(RuntimeError):
    """A working directory that another training uses, or that cannot be written."""


@contextmanager
def lock_workdir(workdir: Path) -> Iterator[None]:
    """Creates the folder, holds its lock inside the block, and turns disk errors into one line.

    The operating system releases the lock when the process ends, so a killed training blocks no other. With several
    processes the first one holds it.

    Raises:
        WorkdirError: another training uses the folder, or it cannot be written.
        LostFolderError: the block failed, and the folder was moved, deleted or replaced meanwhile.
        OtherProcessError: the same, in all processes but the first.
    """
    held: IO[str] | None = None
    place: Place | None = None

    def lock() -> None:
        nonlocal held, place
        if odd := unspelled(workdir):
            raise WorkdirError(f"workdir {odd}")
        workdir.mkdir(parents=True, exist_ok=True)
        held = _lock(workdir)
        place = Place(workdir)

    try:
        run_on_host0(lock)
        yield
    except (WorkdirError, LostFolderError):
        raise
    except Exception as error:
        if place is not None:
            place.check()  # a lost folder is the cause of many errors of the libraries
        line = disk_refusal(error, workdir)
        if line is None:
            raise
        raise WorkdirError(line) from error
    finally:
        if held is not None:
            held.close()


def disk_refusal(error: BaseException, workdir: Path) -> str | None:
    """Returns the message for a disk error at `workdir`, or None for any other error."""
    if isinstance(error, OSError):
        number = error.errno if error.filename is None or _concerns(Path(str(error.filename)), workdir) else None
    else:
        # TensorStore and TensorFlow have their own error types, with the system's text inside a long message.
        number = next((code for code in _FULL | {errno.EROFS} if os.strerror(code) in str(error)), None)
    if number not in _DISK:
        return None
    steps = stored_steps(workdir / "checkpoints")
    stored = f"the last checkpoint, step {max(steps)}, is valid" if steps else "no checkpoint is stored yet"
    free = ""
    if number in _FULL and workdir.is_dir():
        free = f" ({shutil.disk_usage(workdir).free / 1e6:.0f} MB free)"
    cure = "free disk space" if number in _FULL else "make it writable, or use another --workdir"
    return f"{workdir} cannot be written: {os.strerror(number)}{free}; {stored}: {cure}, then rerun the same command"


def open_regular(path: Path, flags: int) -> int:
    """Returns the descriptor of a file of a working directory, created if missing; it follows no link.

    A workdir may come from a stranger: a link in it could make the training write any file of the user.

    Raises:
        WorkdirError: the path is a link, a device or a pipe.
        OSError: it cannot be opened.
    """
    try:
        return open_regular_file(path, flags | os.O_CREAT)
    except UnsafePathError:
        raise WorkdirError(
            f"{path} is a link or no regular file: a training does not write through it; remove it"
        ) from None


def _lock(workdir: Path) -> IO[str]:
    os.close(open_regular(workdir / LOCK, os.O_RDWR))
    file = lock_file(workdir / LOCK)
    if file is None:
        owner = (workdir / LOCK).read_bytes()[:1000].decode(errors="replace").strip() or "another process"
        raise WorkdirError(f"{workdir} is being trained by {owner}: wait for it, stop it, or use another --workdir")
    owner = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
    try:
        file.truncate(0)
        file.write(owner)
        file.flush()
    except OSError:
        file.close()
        raise
    return file


def _concerns(path: Path, workdir: Path) -> bool:
    path, workdir = path.absolute(), workdir.absolute()
    return path.is_relative_to(workdir) or workdir.is_relative_to(path)
