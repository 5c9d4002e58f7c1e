"""The folder of a training while it runs: whether it is still in its place, and a path that no library misreads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecvae_jax.checkpoints.integrity import CheckpointError

_PATTERN = frozenset("*?[]\\")
"""Characters that Orbax's glob reads as a pattern (orbax-checkpoint 0.12.8, `ocdbt_utils`)."""


class LostFolderError(CheckpointError):
    """The folder of a running training was moved, deleted or replaced."""


class Place:
    """The identity of a folder, device and inode: a moved, deleted or replaced folder has another one."""

    def __init__(self, folder: Path) -> None:
        """Remembers the identity of the folder.

        Raises:
            OSError: it does not exist.
        """
        self._folder, self._identity = folder.absolute(), _identity(folder)

    def check(self) -> None:
        """Raises LostFolderError if another folder, or none, is under the path now."""
        try:
            same = _identity(self._folder) == self._identity
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if not same:
            raise LostFolderError(
                f"{self._folder} was moved, deleted or replaced while its training ran, so the training stops; "
                "to resume from its last checkpoint, run the same command with the present --workdir"
            )


@contextmanager
def pattern_free(folder: Path) -> Iterator[Path]:
    """Yields the folder, created if missing, under a path without characters of patterns.

    Orbax globs below the path that it is given. With `[` in it, no file matches, and the checkpoint lacks its index.

    Raises:
        CheckpointError: the path has such characters, and the system has no /proc.
        OSError: the folder cannot be created.
    """
    if not _PATTERN & set(str(folder)):
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        alias = Path(f"/proc/self/fd/{descriptor}")
        if not alias.is_dir():
            raise CheckpointError(f"{folder}: its path must be free of {' '.join(sorted(_PATTERN))}: rename it")
        yield alias
    finally:
        os.close(descriptor)


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino
