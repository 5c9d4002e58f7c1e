"""Integrity of checkpoints: checksums of every file, and the newest intact checkpoint.

Orbax restores an array with a flipped bit without an error (docs/measurements/faults.md has the count). Every
checkpoint therefore has `checksums.json`, with the size and SHA-256 of each file. It is written just before Orbax
renames the finished folder, so every complete checkpoint has it. Checkpoints of older versions lack both the file and
the key `MARK`; they are accepted unchecked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

MANIFEST = "checksums.json"
"""File with the checksums of a checkpoint, in the folder of its step."""

MARK = "checksums"
"""Key in the metadata of a checkpoint: it was written with `MANIFEST`."""

SET_ASIDE = "damaged_checkpoints"
"""Folder of a working directory to which damaged checkpoints are moved."""

MAX_STEP = 2**31 - 1
"""Largest step of a checkpoint: the step counter of a training is an int32."""

_MOST_BYTES = 2**26  # of a file of metadata; the list of checksums of a million files

_HOLLOW_FROM = 2**28  # bytes: hashing fewer takes a second

# Orbax writes these last, during the final rename; they hold nothing that is read.
_NOT_LISTED = ("_CHECKPOINT_METADATA", "commit_success.txt", MANIFEST)

METADATA = Path("config", "metadata")  # where Orbax puts the item `config`

# Read whole, also where a checksum covers them: a stranger lists what he likes.
_READ_WHOLE = (*_NOT_LISTED, str(METADATA), "*/_METADATA", "*/_sharding", "*/array_metadatas/*")


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, unreadable, or of another experiment."""


class Choice(NamedTuple):
    """The newest intact checkpoint of a folder, and the damaged ones that are newer."""

    step: int | None
    """None if the folder holds no checkpoint."""
    damaged: dict[int, str]
    """The damage, by step."""

    def lines(self, directory: Path) -> list[str]:
        """Returns a line for each damaged checkpoint."""
        return [
            f"{directory / str(step)} is damaged: {damage}; going back to step {self.step}"
            for step, damage in self.damaged.items()
        ]


def write_manifest(folder: Path) -> None:
    """Writes the sizes and checksums of all files of a checkpoint into its folder.

    Raises:
        OSError: the disk is full, or a file cannot be read.
    """
    paths = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()]
    files = {name: _describe(folder / name) for name in paths if name not in _NOT_LISTED}
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1) + "\n")


def find_damage(folder: Path, items: Collection[str] | None = None) -> str | None:
    """Returns the first damage found in the checkpoint of one step, in a few words, or None if it is intact.

    Checks only `items`, if they are given.
    """
    odd = _find_irregular(folder)
    if odd is not None:
        return f"{odd} is a link or no regular file"
    try:
        if (folder / MANIFEST).stat().st_size > _MOST_BYTES:
            return f"{MANIFEST} has more than {_MOST_BYTES} bytes"
        text = (folder / MANIFEST).read_text()
    except FileNotFoundError:
        return _damage_without_manifest(folder)
    except (OSError, UnicodeDecodeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    try:
        files: dict[str, dict[str, Any]] = json.loads(text)["files"]
        expected = {
            name: (int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in files.items()
            if items is None or name.split("/")[0] in items
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return f"{MANIFEST} is not a list of checksums"
    for name, (size, checksum) in expected.items():
        parts = name.split("/")
        if not all(parts) or {".", ".."} & set(parts) or "\0" in name:
            return f"{MANIFEST} names {name!r}, which is not a file inside the checkpoint"
        try:
            # The size first: a large file in place of a small one would take hours to hash.
            found = (folder / name).stat().st_size
            if found == size and _is_hollow(folder / name):
                return f"{name} is mostly holes"
            if found == size and _checksum(folder / name) != checksum:
                return f"{name} has a wrong checksum"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if found != size:
            return f"{name} has {found} bytes, expected {size}"
    return None


def choose_checkpoint(directory: Path, items: Collection[str] | None = None) -> Choice:
    """Returns the newest intact checkpoint of a folder of checkpoints; changes nothing.

    Older ones are not checked: that takes time, and Orbax may be deleting them.

    Raises:
        CheckpointError: the folder holds checkpoints, and none is intact.
    """
    damaged: dict[int, str] = {}
    for step in sorted(stored_steps(directory), reverse=True):
        damage = find_damage(directory / str(step), items)
        if damage is None:
            return Choice(step, damaged)
        damaged[step] = damage
    if damaged:
        causes = "; ".join(f"{step}: {damage}" for step, damage in damaged.items())
        raise CheckpointError(f"{directory}: no checkpoint in it is intact ({causes})")
    return Choice(None, {})


def check_readable(directory: Path) -> None:
    """Raises CheckpointError for an entry that makes Orbax wait or fill the memory; call it before Orbax does.

    Orbax reads metadata of every checkpoint in the folder, not only of the chosen one.
    """
    odd = _find_irregular(directory) if directory.is_dir() else None
    if odd is not None:
        raise CheckpointError(f"{directory / odd} is a link or no regular file: remove its checkpoint")
    for name in _READ_WHOLE:
        for file in (*directory.glob(name), *directory.glob(f"*/{name}")):
            if file.stat().st_size > _MOST_BYTES:
                raise CheckpointError(f"{file} has more than {_MOST_BYTES} bytes: remove its checkpoint")


def set_damaged_aside(directory: Path) -> list[str]:
    """Moves the damaged checkpoints newer than the newest intact one into `SET_ASIDE`; returns a line for each.

    They are kept, because parts of them may be recoverable.

    Raises:
        CheckpointError: the folder holds checkpoints, and none is intact. Nothing is moved then: the next start would
            otherwise begin at step 0.
        OSError: the folder cannot be written.
    """
    choice = choose_checkpoint(directory)
    lines = []
    for step, line in zip(choice.damaged, choice.lines(directory), strict=True):
        aside = directory.parent / SET_ASIDE / str(step)
        number = 1
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{step}-{number}")
        aside.parent.mkdir(exist_ok=True)
        (directory / str(step)).rename(aside)
        lines.append(f"{line}; the damaged one was moved to {aside}")
    return lines


def stored_steps(directory: Path) -> list[int]:
    """Returns the steps of the complete checkpoints in a folder; unfinished ones have other names."""
    if not directory.is_dir():
        return []
    found = ((step_of(entry.name), entry) for entry in directory.iterdir())
    return [step for step, entry in found if step is not None and entry.is_dir()]


def step_of(name: str) -> int | None:
    """Returns the step in the name of a checkpoint's folder, or None for any other name, such as "²" or "007"."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,9}", name) or int(name) > MAX_STEP:
        return None
    return int(name)


def _find_irregular(folder: Path) -> str | None:
    """Returns the name of the first entry below the folder that is neither a folder nor a regular file, or None.

    Reading a pipe blocks, reading a device never ends, and a link may lead to either.
    """
    for root, folders, files in os.walk(folder):
        for path in (Path(root, name) for name in (*folders, *files)):
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                return path.relative_to(folder).as_posix()
    return None


def _is_hollow(file: Path) -> bool:
    """Returns whether less than half of a large file is stored: a sparse file of terabytes takes hours to hash.

    Blocks alone do not say it. Some file systems state none; others compress.
    """
    state = file.stat()
    if state.st_size < _HOLLOW_FROM or 2 * 512 * state.st_blocks >= state.st_size or not hasattr(os, "SEEK_HOLE"):
        return False
    with file.open("rb") as opened:
        return os.lseek(opened.fileno(), 0, os.SEEK_HOLE) < state.st_size


def _describe(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": _checksum(file)}


def _checksum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _damage_without_manifest(folder: Path) -> str | None:
    """Returns the damage of a checkpoint without checksums, or None if an older version wrote it."""
    try:
        if (folder / METADATA).stat().st_size > _MOST_BYTES:
            return f"{METADATA.as_posix()} has more than {_MOST_BYTES} bytes"
        metadata = json.loads((folder / METADATA).read_text())
    except (OSError, ValueError, RecursionError):
        return f"{MANIFEST} is missing, and {METADATA.as_posix()} is missing or unreadable"
    return f"{MANIFEST} is missing" if isinstance(metadata, dict) and metadata.get(MARK) else None
