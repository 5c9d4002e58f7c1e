"""The rules for files: what is written, followed, locked, replaced and removed; `folders` has those for folders.

A file appears complete or not at all. No link is followed for writing, and only a regular file is replaced. Only a
file whose name ends in `_PART` is removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

_PART = ".ecvae.part"
_YOUNG = 1.0  # seconds
_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnsafePathError(ValueError):
    """A path that must not be written, replaced or removed; the message is one line."""


def irregular(path: Path, follow: bool = False) -> str | None:
    """Returns what a path is, such as "a link"; None for a regular file, or for none.

    Args:
        follow: whether links are followed.
    """
    try:
        mode = os.stat(path, follow_symlinks=follow).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)


def unspelled(path: Path) -> str | None:
    """Returns why the libraries of records and checkpoints cannot take a path: they need UTF-8; None if they can."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        return f"{str(path)!r} is not UTF-8 here: give another name, or set PYTHONUTF8=1 if the locale is C"
    return None


def lies_in(path: Path, folder: Path) -> bool:
    """Returns whether a path is a folder or lies in it, by the identity of the folders: links and mounts count."""
    try:
        wanted = folder.stat()
    except OSError:
        return False
    path = path.resolve()
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            if os.path.samestat(place.stat(), wanted):
                return True
    return False


def check_output(path: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Refuses an output file before any work: one that cannot be written, or that the same command reads.

    Args:
        path: file to write.
        inputs: files that the command reads, and folders of which it may read any file; others are ignored.

    Raises:
        UnsafePathError: the path exists and is no regular file, is an input, lies among the files of an input folder,
            or its folder cannot be written.
    """
    _refuse_irregular(path)
    folder = next(place for place in path.absolute().parents if os.path.lexists(place))
    if not folder.is_dir():
        raise UnsafePathError(f"output {str(path)!r}: {folder} is not a folder; give another file name")
    for name in inputs if path.exists() else ():
        place = Path(name)
        if lies_in(path, place):
            found = f"lies in {place}, which" if place.is_dir() else "is a file that"
            raise UnsafePathError(f"output {str(path)!r} {found} this command reads; give another file name")
    try:
        with tempfile.TemporaryFile(dir=folder):  # os.access says yes to root, also for /proc
            return
    except OSError as error:
        raise UnsafePathError(
            f"output {str(path)!r}: the folder {folder} cannot be written ({error.strerror}); give another file name"
        ) from None


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file atomically: `write` fills a temporary file beside `path`, which is then renamed.

    Raises:
        UnsafePathError: `path` is a link, a folder, a device, a FIFO or a socket.
        OSError: the folder cannot be created or written.
    """
    _refuse_irregular(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_parts(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART)
    try:
        with os.fdopen(handle, "wb") as file:
            _lock(handle)  # else the next command takes it for an orphan
            write(file)
            file.flush()
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp creates files with mode 0600
            os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:  # of a full disk, which names no file
            raise OSError(error.errno, f"{error.strerror}: cannot write", str(path)) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically.

    Raises:
        UnsafePathError: `path` is a link, a folder, a device, a FIFO or a socket.
        OSError: the folder cannot be created or written.
    """
    write_atomically(path, lambda file: file.write(text.encode()))


def open_regular(path: Path, flags: int) -> int:
    """Returns the descriptor of a regular file; no link is followed, and a FIFO does not block.

    Args:
        flags: of `os.open`, such as `os.O_WRONLY | os.O_APPEND | os.O_CREAT`.

    Raises:
        UnsafePathError: the path is a link, a folder, a device, a FIFO or a socket.
        OSError: the file cannot be opened.
    """
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError:
        _refuse_irregular(path)
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        _refuse_irregular(path)
        raise UnsafePathError(f"{path} is not a regular file; remove it, or use another folder")
    return handle


def read_regular(path: Path, most: int) -> bytes:
    """Returns the content of a regular file; a FIFO does not block, and neither a device nor a huge file is read.

    Args:
        path: file; links are followed.
        most: bytes that it may have.

    Raises:
        UnsafePathError: the path is a folder, a device, a FIFO or a socket, or has more bytes.
        OSError: the file cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        kind, size = irregular(path, follow=True), os.fstat(handle).st_size
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UnsafePathError(f"{path} is {kind or 'no regular file'}: only a regular file is read")
        content = bytearray()
        while size <= most and len(content) <= most and (part := os.read(handle, 1 << 20)):
            content += part
    finally:
        os.close(handle)
    if max(size, len(content)) > most:
        raise UnsafePathError(f"{path} has {max(size, len(content)) / 1e6:,.0f} MB: at most {most / 1e6:g} MB are read")
    return bytes(content)


def lock_file(path: Path) -> IO[str] | None:
    """Returns the file, opened and locked; None if another process holds the lock. Its content is kept.

    The lock ends when the file is closed or the process ends, even by SIGKILL. On a file system without locks, such as
    a bucket's, the file is open but not locked.

    Raises:
        UnsafePathError: the path is a link, a folder, a device, a FIFO or a socket.
        OSError: the file cannot be opened.
    """
    file = os.fdopen(open_regular(path, os.O_RDWR | os.O_CREAT), "r+")
    if _lock(file.fileno()) == "held":
        file.close()
        return None
    return file


@contextlib.contextmanager
def orphan(path: Path) -> Iterator[bool]:
    """Yields whether a file, locked meanwhile, is left by a dead process; False where that cannot be known."""
    try:
        handle = open_regular(path, os.O_RDWR)
    except (OSError, UnsafePathError):
        yield False
        return
    try:
        # A younger file may be one that its process has created and not locked yet.
        yield time.time() - os.fstat(handle).st_mtime > _YOUNG and _lock(handle) == "ours"
    finally:
        os.close(handle)


def _refuse_irregular(path: Path) -> None:
    kind = irregular(path)
    if kind == "a link":
        raise UnsafePathError(f"{path} is a link: no link is followed for writing; give the path that it leads to")
    if kind:
        raise UnsafePathError(f"{path} is {kind}: only a regular file is written or replaced; give another file name")


def _lock(handle: int) -> str:
    """Locks an open file; returns "ours", "held" by another process, or "none" on a file system without locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return "held" if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else "none"
    return "ours"


@functools.cache  # once a folder: an evaluation may write thousands of images into one
def _remove_parts(folder: Path) -> None:
    """Removes the temporary files of killed processes."""
    for path in folder.glob(".*" + _PART):
        with orphan(path) as found:
            if found:
                path.unlink(missing_ok=True)
