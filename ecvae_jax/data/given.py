"""Landmarks that the user gives in a CSV beside the photos."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ecvae_jax.data.errors import DataError

DEFAULT_NAMES = ("landmarks68.csv", "landmarks98.csv", "landmarks.csv")


@dataclass(frozen=True)
class GivenLandmarks:
    """Landmarks by photo.

    Attributes:
        file: the CSV.
        points: landmarks per face, 98 or 68.
        rows: pixels of the photo, by the photo's path below the source's folder; a cell that is no number is NaN.
    """

    file: Path
    points: int
    rows: dict[str, Float[np.ndarray, "p 2"]]


def find_given_landmarks(root: Path, choice: str) -> GivenLandmarks | None:
    """Returns the landmarks that `choice` ("auto", "none" or a CSV file) means for a source in the folder `root`.

    Raises:
        DataError: the named file does not exist or is no landmark table.
    """
    if choice == "none":
        return None
    if choice == "auto":
        found = [root / name for name in DEFAULT_NAMES if (root / name).is_file()]
        return read_given_landmarks(found[0]) if found else None
    file = Path(choice)
    if not file.is_file():
        raise DataError(f'landmarks={choice!r}: no such file; give a CSV file, "auto" or "none"')
    return read_given_landmarks(file)


def read_given_landmarks(file: Path) -> GivenLandmarks:
    """Returns the landmarks of a CSV with the columns image, x0, y0, x1, y1, …; other columns are ignored.

    Raises:
        DataError: a column is missing, the points are neither 68 nor 98, or an image has two rows.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            header = [cell.strip() for cell in next(reader, [])]
            image, columns = _columns(file, header)
            rows: dict[str, np.ndarray] = {}
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DataError(f"{file}, line {reader.line_num}: {len(cells)} cells, the header has {len(header)}")
                name = cells[image].strip().replace("\\", "/").removeprefix("./")
                if name in rows:
                    raise DataError(f"{file}, line {reader.line_num}: image {name!r} has a second row; keep one")
                rows[name] = np.array([_number(cells[c]) for c in columns], np.float32).reshape(-1, 2)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as CSV: {error}") from None
    return GivenLandmarks(file, len(columns) // 2, rows)


def _columns(file: Path, header: list[str]) -> tuple[int, list[int]]:
    if "image" not in header:
        raise DataError(f"{file}: no column `image` in its first line; it must be image,x0,y0,x1,y1,…")
    points = sum(bool(re.fullmatch(r"x\d+", name)) for name in header)
    if points not in (68, 98):
        raise DataError(f"{file}: {points} columns x0, x1, …; a face has 68 or 98 points")
    wanted = [f"{axis}{i}" for i in range(points) for axis in "xy"]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(f"{file}: column {missing[0]!r} is missing")
    return header.index("image"), [header.index(name) for name in wanted]


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
