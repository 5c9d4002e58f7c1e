"""Whether a checkpoint is what was written: a list of checksums in each, and the newest one that is whole.

Orbax reads back an array with a flipped bit in it and says nothing (docs/faults.md has the count), so every checkpoint
carries `checksums.json`, with the size and the SHA-256 of each file. It is written just before Orbax renames the
finished folder to its final name: there is no complete checkpoint without it. Those of older versions of ecvae_jax have
none, do not say that they had (`MARK`), and are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

MANIFEST = "checksums.json"


MARK = "checksums"
"""Key in the facts of a checkpoint (item `config`) that says: it was written with a list of checksums."""

SET_ASIDE = "damaged_checkpoints"
"""Folder of a working directory to which damaged checkpoints are moved."""

# Orbax writes these last, at the moment of the final renaming; nothing is read from them.
_NOT_LISTED = ("_CHECKPOINT_METADATA", "commit_success.txt", MANIFEST)


_FACTS = Path("config", "metadata")  # where Orbax puts the item `config`


class CheckpointError(ValueError):
    """A checkpoint that is not there, is damaged, cannot be read, or belongs to another experiment."""


class Choice(NamedTuple):
    """The newest whole checkpoint of a folder, and why newer ones are not it."""

    step: int | None
    """None where the folder holds no checkpoint at all."""
    damaged: dict[int, str]
    """What is wrong, by step."""

    def lines(self, directory: Path) -> list[str]:
        """Returns a line for each damaged checkpoint."""
        return [f"{directory / str(step)} is damaged: {damage}; going back to step {self.step}"
                for step, damage in self.damaged.items()]  # fmt: skip


def write_manifest(folder: Path) -> None:
    """Writes the sizes and checksums of all files of a checkpoint into it.

    Raises:
        OSError: the disk is full, or a file cannot be read.
    """
    files = {file.relative_to(folder).as_posix(): _describe(file) for file in sorted(folder.rglob("*"))
             if file.is_file() and file.relative_to(folder).as_posix() not in _NOT_LISTED}  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1) + "\n")


def find_damage(folder: Path, items: Collection[str] | None = None) -> str | None:
    """Returns what is wrong with a checkpoint, in a few words; None where it is whole.

    Args:
        folder: of one step.
        items: look at these items of it only; None: at all.
    """
    try:
        text = (folder / MANIFEST).read_text()
    except FileNotFoundError:
        return _without_manifest(folder)
    except (OSError, UnicodeDecodeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    try:
        files: dict[str, dict[str, Any]] = json.loads(text)["files"]
        wanted = {name: (int(one["bytes"]), str(one["sha256"])) for name, one in files.items()
                  if items is None or name.split("/")[0] in items}  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is no list of checksums any more"
    for name, (size, checksum) in wanted.items():
        file = folder / name
        try:
            found = _describe(file)
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if found["bytes"] != size:
            return f"{name} has {found['bytes']} bytes, {size} were written"
        if found["sha256"] != checksum:
            return f"{name} is not what was written (its checksum differs)"
    return None


def choose_checkpoint(directory: Path, items: Collection[str] | None = None) -> Choice:
    """Returns the newest whole checkpoint of a folder of them. Nothing is changed.

    Older ones are not looked at: that costs time, and they may be on their way to deletion.

    Raises:
        CheckpointError: there are checkpoints, and none is whole.
    """
    damaged: dict[int, str] = {}
    for step in sorted(stored_steps(directory), reverse=True):
        damage = find_damage(directory / str(step), items)
        if damage is None:
            return Choice(step, damaged)
        damaged[step] = damage
    if damaged:
        told = "; ".join(f"{step}: {damage}" for step, damage in damaged.items())
        raise CheckpointError(f"{directory}: no checkpoint in it is whole ({told})")
    return Choice(None, {})


def set_damaged_aside(directory: Path) -> list[str]:
    """Moves the checkpoints that are newer than the newest whole one into `SET_ASIDE`; returns a line for each.

    They are kept: somebody may still get something out of them.

    Raises:
        CheckpointError: there are checkpoints, and none is whole. Then nothing is moved, or the next start would begin
            at step 0.
        OSError: the folder cannot be written.
    """
    choice = choose_checkpoint(directory)
    lines = []
    for (step, _), line in zip(choice.damaged.items(), choice.lines(directory), strict=True):
        aside = directory.parent / SET_ASIDE / str(step)
        number = 1
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{step}-{number}")
        aside.parent.mkdir(exist_ok=True)
        (directory / str(step)).rename(aside)
        lines.append(f"{line}; it lies in {aside} now")
    return lines


def stored_steps(directory: Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder; those that were never finished have other names."""
    if not directory.is_dir():
        return []
    return [int(entry.name) for entry in directory.iterdir() if entry.name.isdigit() and entry.is_dir()]


def _describe(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        checksum = hashlib.file_digest(opened, "sha256").hexdigest()
        return {"bytes": opened.tell(), "sha256": checksum}


def _without_manifest(folder: Path) -> str | None:
    """A checkpoint without a list is an older one, or one of which the list was deleted."""
    try:
        facts = json.loads((folder / _FACTS).read_text())
    except (OSError, ValueError):
        return f"{MANIFEST} is missing, and {_FACTS.as_posix()} is missing or unreadable"
    return f"{MANIFEST} is missing" if isinstance(facts, dict) and facts.get(MARK) else None
