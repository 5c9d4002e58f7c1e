"""Folders that `ecvae export` and `ecvae page` write: complete or not at all, and what may be replaced by them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ecvae_jax.files import UnsafePathError, irregular, read_regular
from ecvae_jax.folders import replace_folder, temporary_folder

_LARGEST_INDEX = 16 * 2**20
"""Bytes."""


class ExportError(ValueError):
    """An export that cannot be made; the message is one line."""


@dataclass(frozen=True)
class FolderKind:
    """One kind of folder of ours, known by a JSON file in it that names its kind and its other files."""

    name: str
    """As in "an earlier NAME"."""
    index: str
    """Name of the JSON file; its `kind` is `kind`, its `files` have the paths of all other files."""
    kind: str

    def check_replaceable(self, out: Path, overwrite: bool) -> None:
        """Refuses an `out` that exists, unless it is to be replaced and holds only files of this kind of folder.

        Raises:
            ExportError: `out` exists and `overwrite` is false.
            UnsafePathError: `out` is no folder of this kind, or holds another file.
        """
        if not os.path.lexists(out):
            return
        if not overwrite:
            raise ExportError(
                f"{out} exists: give the name of a new folder, or --overwrite to replace an earlier {self.name}"
            )
        refusal = f"{out} is no {self.name} of ecvae: only one is replaced; give the name of a new folder"
        index = out / self.index
        if irregular(out) != "a folder" or irregular(index) or not index.is_file():
            raise UnsafePathError(refusal)
        try:
            content = json.loads(read_regular(index, _LARGEST_INDEX))
            listed = {self.index, *content["files"]} if content["kind"] == self.kind else set()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UnsafePathError(refusal) from None
        found = {str(path.relative_to(out)) for path in out.rglob("*") if irregular(path) != "a folder"}
        if found - listed:
            raise UnsafePathError(f"{refusal} ({sorted(found - listed)[0]} is not of the {self.name})")

    def write(self, files: dict[str, bytes], out: Path, overwrite: bool) -> int:
        """Writes files by their paths into the new folder `out`, in one step; returns their size in bytes.

        Raises:
            ExportError: `out` exists and `overwrite` is false.
            UnsafePathError: `out` is no folder of this kind, or holds another file.
            OSError: the folder cannot be written; an earlier one stays.
        """
        with temporary_folder(out) as work:
            for name, data in files.items():
                path = work / "new" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            self.check_replaceable(out, overwrite)  # again: a file may have appeared there meanwhile
            replace_folder(work / "new", out)
        return sum(map(len, files.values()))
