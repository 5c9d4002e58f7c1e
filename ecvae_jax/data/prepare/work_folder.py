"""The hidden folder in which a preparation works: one process at a time, and for one task."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Set
from pathlib import Path
from typing import Any

from ecvae_jax.data.errors import DataError

_FORMAT = 2


class WorkFolder:
    """Locks a folder, and keeps what an earlier process left in it only if that was the same task."""

    def __init__(self, folder: Path, task: dict[str, Any], keep: Set[str]) -> None:
        """Opens the folder, or makes it.

        Args:
            folder: where.
            task: everything that the work depends on; JSON.
            keep: names of what is of use to the same task again; all else is removed.

        Raises:
            DataError: another process is at work in the folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Any other error: a file system without locks, such as a bucket's.
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                self._lock.close()
                raise DataError(f"{folder}: another preparation is at work there; wait for it, or stop it") from None
        wanted = json.dumps({"format": _FORMAT, **task}, sort_keys=True)
        described = folder / "task.json"
        if not described.is_file() or described.read_text() != wanted:
            self._clear(keep={"lock"})
            described.write_text(wanted)
        self._clear(keep={"lock", "task.json", *keep})  # what a killed writer of records left

    def close(self, remove: bool) -> None:
        """Lets go of the folder, and removes it where it is no longer wanted."""
        if remove:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def _clear(self, keep: Set[str]) -> None:
        for entry in self.path.iterdir():
            if entry.name not in keep:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
