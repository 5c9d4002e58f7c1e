"""The manifest of a records folder: its splits, files and metadata, read as plain data.

tensorflow-datasets imports the Python classes that `features.json` names, so a stranger's folder would run code. Here
only `dataset_info.json` and `metadata.json` are read, as JSON. Nothing that they name is imported, and no file outside
the folder is opened by name.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecvae_jax.config import RENDERED
from ecvae_jax.data.errors import DataError, one_line
from ecvae_jax.files import unspelled

INFO = "dataset_info.json"
_METADATA = "metadata.json"
_LARGEST = 16 * 2**20
"""Bytes of a JSON file; a folder of 100,000 files needs 1 MiB."""
_TEMPLATES = ("", "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
"""tensorflow-datasets' names of files; no other template is followed."""
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_MOST_RECORDS = 2**31
_LARGEST_IMAGE = 8192


@dataclass(frozen=True)
class RecordFile:
    """One ArrayRecord file, in the attributes that `ArrayRecordDataSource` asks for: all of its records are read."""

    filename: str
    take: int
    skip: int = 0

    @property
    def examples_in_shard(self) -> int:
        """The number of its records."""
        return self.take


@dataclass(frozen=True)
class Manifest:
    """What a records folder says of itself."""

    folder: Path
    splits: dict[str, list[RecordFile]]
    """The files of each split, in order."""
    metadata: dict[str, Any]
    """`records.METADATA_KEYS` and any other JSON."""

    def count(self, split: str) -> int:
        """Returns the number of faces in a split."""
        return sum(file.take for file in self.splits[split])


def find_records(records: str | Path) -> Path:
    """Returns a records folder; "rendered" is the one of the embedded heads.

    240 rendered people who do not exist, 24 views each at 128 px, exact 98 landmarks, CC0: training needs no download.
    Each person has two appearance groups of twelve views; the first view of a group is near frontal and neutral.
    `tools/render_heads` generates them; `rendered_records/README.md` lists their assets.

    Raises:
        DataError: no such folder, or it holds no records.
    """
    if str(records) == RENDERED:
        folder = Path(__file__).parent / "rendered_records"
        if not (folder / INFO).is_file():
            raise DataError(
                f"rendered heads: {folder} holds no records; install the package with its data files, "
                "or render them again with launch/render_heads.sh"
            )
        return folder
    folder = Path(records)
    if not folder.is_dir():
        raise DataError(f"records {str(folder)!r}: no such folder; make one with `ecvae prepare SOURCE OUT`")
    if odd := unspelled(folder):
        raise DataError(f"records {odd}")
    if not (folder / INFO).is_file():
        raise DataError(
            f"records {str(folder)!r}: not a records folder (it has no {INFO}); "
            "make one with `ecvae prepare SOURCE OUT`"
        )
    return folder


def read_manifest(folder: Path) -> Manifest:
    """Returns the manifest of a records folder; opens no ArrayRecord file and imports nothing.

    Raises:
        DataError: the folder cannot be read as records.
    """
    try:
        info, metadata = _read_json(folder / INFO), _read_json(folder / _METADATA)
        _check_metadata(metadata)
        return Manifest(folder, _splits(folder, info), metadata)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise unreadable(folder, error) from error


def unreadable(folder: Path, error: Exception) -> DataError:
    """Returns the one-line error for a records folder that cannot be read."""
    reason = f"{error} is missing" if isinstance(error, KeyError) else one_line(error)
    return DataError(f"records {str(folder)!r} cannot be read: {reason}; prepare them again")


def require_file(path: Path) -> None:
    """Accepts a regular file, or a link to one: opening a FIFO or a device may block or never end.

    Raises:
        OSError: the file does not exist.
        DataError: it is not a regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{path.name} is not a regular file")


def _read_json(path: Path) -> dict[str, Any]:
    # O_NONBLOCK: a FIFO that replaces the file after a check must not block either.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with open(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataError(f"{path.name} is not a regular file")
        text = stream.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise DataError(f"{path.name} has more than {_LARGEST // 2**20} MB")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path.name} is not JSON: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path.name} is not a JSON object")
    return content


def _check_metadata(metadata: dict[str, Any]) -> None:
    points, size, margin = metadata["points"], metadata["image_size"], metadata.get("margin", 1.0)
    if points not in (68, 98) or isinstance(points, float):
        raise DataError(f"metadata.json has points={points!r}: must be 68 or 98")
    if type(size) is not int or not 1 <= size <= _LARGEST_IMAGE:
        raise DataError(f"metadata.json has image_size={size!r}: must be a whole number from 1 to {_LARGEST_IMAGE}")
    if isinstance(margin, bool) or not isinstance(margin, (int, float)) or not (math.isfinite(margin) and margin > 0):
        raise DataError(f"metadata.json has margin={margin!r}: must be a positive number")


def _splits(folder: Path, info: dict[str, Any]) -> dict[str, list[RecordFile]]:
    name, kind = info["name"], info.get("fileFormat")
    if kind != "array_record":
        raise DataError(f"{INFO} has fileFormat={kind!r}: must be 'array_record'")
    if not _WORD.fullmatch(name):
        raise DataError(f"{INFO} has name={name!r}: must be letters, digits and _")
    splits: dict[str, list[RecordFile]] = {}
    for split in info["splits"]:
        label, template = split["name"], split.get("filepathTemplate", "")
        if not _WORD.fullmatch(label):
            raise DataError(f"{INFO} has the split {label!r}: must be letters, digits and _")
        if label in splits:
            raise DataError(f"{INFO} has the split {label!r} twice; keep one")
        if template not in _TEMPLATES:
            raise DataError(f"{INFO} has filepathTemplate={template!r}: must be {_TEMPLATES[1]!r}")
        lengths = [_length(text) for text in split.get("shardLengths", [])]
        splits[label] = [
            RecordFile(str(folder / f"{name}-{label}.{kind}-{number:05d}-of-{len(lengths):05d}"), length)
            for number, length in enumerate(lengths)
        ]
    if not splits:
        raise DataError(f"{INFO} names no split")
    return splits


def _length(text: object) -> int:
    """Returns the number of records in a file; protobuf's JSON writes 64-bit integers as text."""
    number = int(text) if isinstance(text, (str, int)) else -1
    if not 0 <= number <= _MOST_RECORDS:
        raise DataError(f"{INFO} has a file of {text!r} records: must be between 0 and {_MOST_RECORDS}")
    return number
