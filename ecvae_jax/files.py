"""Files written atomically, and files as locks."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Lets `write` fill a file beside `path`, then renames it, so that no half-written file is ever left.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(aside, 0o666 & ~umask)  # mkstemp makes files that only their owner may read
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file, aside and then renamed, so that no half-written file is ever left.

    Raises:
        OSError: the folder cannot be made or written.
    """
    write_atomically(path, lambda file: file.write(text.encode()))


def lock_file(path: Path) -> IO[str] | None:
    """Returns the file, opened and locked; None if another process holds the lock.

    The lock ends when the file is closed or the process ends, even by SIGKILL. On a file system without locks, such as
    a bucket's, the file is open but not locked.

    Raises:
        OSError: the file cannot be opened.
    """
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            file.close()
            return None
    return file
