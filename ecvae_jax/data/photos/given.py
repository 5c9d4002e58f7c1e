"""Landmarks supplied by the user: a CSV, .pts files beside the photos, or a WFLW list."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.sources.source import Source

DEFAULT_NAMES = ("landmarks68.csv", "landmarks98.csv", "landmarks.csv")


@dataclass(frozen=True)
class GivenLandmarks:
    """Landmarks by photo.

    Attributes:
        label: their origin, stored in the records.
        points: landmarks per face, 98 or 68.
        rows: pixels of the photo, by the photo's name in the source; a cell that is not a number is NaN.
        files: names, in the source, of the landmark files.
    """

    label: str
    points: int
    rows: dict[str, Float[np.ndarray, "p 2"]]
    files: frozenset[str] = frozenset()


def find_given_landmarks(source: Source, choice: str) -> GivenLandmarks | None:
    """Returns the given landmarks of a source, or None if they must be detected.

    Args:
        source: the photos.
        choice: "auto" finds landmarks68.csv, landmarks98.csv or landmarks.csv in the source's folder, else .pts files
            beside the photos. "none" finds none. Otherwise a file: a CSV, or a WFLW list (.txt).

    Raises:
        DataError: the file does not exist, or is not a landmark table.
    """
    if choice == "none":
        return None
    if choice != "auto":
        file = Path(choice)
        if not file.is_file():
            raise DataError(f'landmarks={choice!r}: no such file; give a CSV, a WFLW list (.txt), "auto" or "none"')
        return read_wflw_list(file) if file.suffix.lower() == ".txt" else read_given_landmarks(file, source.root)
    if source.root is None:
        return None
    for name in DEFAULT_NAMES:
        if (source.root / name).is_file():
            return read_given_landmarks(source.root / name, source.root)
    return read_pts_files(source)


def read_given_landmarks(file: Path, root: Path | None = None) -> GivenLandmarks:
    """Returns the landmarks of a CSV with columns image, x0, y0, x1, y1, …; other columns are ignored.

    Raises:
        DataError: a column is missing, there are neither 68 nor 98 points, or an image has two rows.
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
                if root is not None and Path(name).is_relative_to(root.absolute()):
                    name = Path(name).relative_to(root.absolute()).as_posix()
                if name in rows:
                    raise DataError(f"{file}, line {reader.line_num}: image {name!r} has a second row; keep one")
                rows[name] = np.array([_number(cells[c]) for c in columns], np.float32).reshape(-1, 2)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as CSV: {error}") from None
    inside = root is not None and file.resolve().is_relative_to(root.resolve())
    files = frozenset([file.resolve().relative_to(root.resolve()).as_posix()] if inside and root else [])
    return GivenLandmarks(file.name, len(columns) // 2, rows, files)


def read_wflw_list(file: Path) -> GivenLandmarks:
    """Returns the landmarks of a WFLW list: per line 196 coordinates, 4 of a box, 6 flags and the photo's name.

    If a photo has several faces, the one with the largest box is used.

    Raises:
        DataError: a line has another format.
    """
    best: dict[str, tuple[float, np.ndarray]] = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a WFLW list: {error}") from None
    for number, line in enumerate(lines, 1):
        cells = line.split(maxsplit=206)
        if not cells:
            continue
        values = [_number(cell) for cell in cells[:200]]
        if len(cells) != 207 or not np.isfinite(values).all():
            raise DataError(f"{file}, line {number}: must have WFLW's 196 coordinates, 4 of a box, 6 flags and a name")
        x0, y0, x1, y1 = values[196:]
        area, name = (x1 - x0) * (y1 - y0), cells[206].strip().replace("\\", "/")
        if name not in best or area > best[name][0]:
            best[name] = area, np.array(values[:196], np.float32).reshape(98, 2)
    if not best:
        raise DataError(f"{file}: the list is empty")
    return GivenLandmarks(file.name, 98, {name: landmarks for name, (_, landmarks) in best.items()})


def read_pts_files(source: Source) -> GivenLandmarks | None:
    """Returns the landmarks of 300-W's .pts files beside the photos (a.pts for a.jpg), or None if there are none.

    Their coordinates count pixels from 1: 1 is the center of the first pixel, which is 0.5 here.

    Raises:
        DataError: the files have different numbers of points.
    """
    assert source.root is not None
    rows, files = {}, set()
    for photo in source.photos:
        name = str(PurePosixPath(photo.name).with_suffix(".pts"))
        if (source.root / name).is_file():
            rows[photo.name] = _read_pts(source.root / name)
            files.add(name)
    # An unreadable file does not count; the report gives its photo's reason.
    counts = {len(landmarks) for landmarks in rows.values() if np.isfinite(landmarks).all()}
    if not counts:
        return None
    points = counts.pop()
    if counts or points not in (68, 98):
        found = sorted({points, *counts})
        raise DataError(f"source {source.label!r}: .pts files with {found} points; all must have 68, or all 98")
    bad = np.full((points, 2), np.nan, np.float32)
    rows = {name: landmarks if len(landmarks) == points else bad for name, landmarks in rows.items()}
    return GivenLandmarks(f"{len(files)} .pts files", points, rows, frozenset(files))


def _read_pts(file: Path) -> Float[np.ndarray, "p 2"]:
    try:
        body = file.read_text().partition("{")[2].partition("}")[0].split()
        return np.array([_number(cell) - 0.5 for cell in body], np.float32).reshape(-1, 2)
    except (OSError, UnicodeDecodeError, ValueError):
        return np.full((1, 2), np.nan, np.float32)


def _columns(file: Path, header: list[str]) -> tuple[int, list[int]]:
    if "image" not in header:
        raise DataError(f"{file}: no column `image` in its first line; it must be image,x0,y0,x1,y1,…")
    points = sum(bool(re.fullmatch(r"x\d+", name)) for name in header)
    if points not in (68, 98):
        raise DataError(f"{file}: {points} columns x0, x1, …; a face must have 68 or 98")
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
