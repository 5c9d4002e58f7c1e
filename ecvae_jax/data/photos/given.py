"""Landmarks supplied by the user: a CSV, .pts files beside the photos, or a WFLW list.

A file that cannot be used is refused. It is never replaced by a detector in silence: landmarks of two origins differ.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.landmark_files import composed, decode_text, match_names, read_pts, read_table, read_wflw
from ecvae_jax.data.photos.sources.source import LARGEST_TABLE, Source
from ecvae_jax.data.photos.unread import refuse_unread
from ecvae_jax.files import UnsafePathError, read_regular

DEFAULT_NAMES = ("landmarks68.csv", "landmarks98.csv", "landmarks.csv")

_DETECT = "mend it, or give --landmarks none to detect"


@dataclass(frozen=True)
class GivenLandmarks:
    """Landmarks by photo."""

    label: str
    """Their origin, stored in the records."""
    points: int
    """Landmarks per face, 98 or 68."""
    rows: dict[str, Float[np.ndarray, "p 2"]]
    """Pixels of the photo, by the photo's name in the source; a cell that is not a number is NaN."""
    files: frozenset[str] = frozenset()
    """Names, in the source, of the landmark files."""


def find_given_landmarks(source: Source, choice: str) -> GivenLandmarks | None:
    """Returns the given landmarks of a source, or None if they must be detected.

    Args:
        choice: "auto" finds landmarks68.csv, landmarks98.csv or landmarks.csv in the source, else .pts files beside
            the photos. "none" finds none. Otherwise a file: a CSV, or a WFLW list (.txt).

    Raises:
        DataError: the file does not exist, is not a landmark table, or names none of the photos; or landmarks lie in
            the source under a name or in a format that is not read.
    """
    if choice == "none":
        return None
    if choice != "auto":
        file = Path(choice)
        if not file.is_file():
            raise DataError(f'landmarks={choice!r}: no such file; give a CSV, a WFLW list (.txt), "auto" or "none"')
        read = read_wflw_list(file) if file.suffix.lower() == ".txt" else read_given_landmarks(file, source.root)
        return _named_as_photos(read, source)
    found = _find_table(source)
    if found:
        return _named_as_photos(_read_found(source, found), source)
    given = read_pts_files(source)
    if given is None:
        refuse_unread(source)
    return given


def read_given_landmarks(file: Path, root: Path | None = None) -> GivenLandmarks:
    """Returns the landmarks of a CSV with columns image, x0, y0, x1, y1, …; other columns are ignored.

    Raises:
        DataError: a column is missing, there are neither 68 nor 98 points, or an image has two rows.
    """
    points, rows = read_table(str(file), _read_file(file))
    if root is not None:
        at = root.absolute()
        rows = {Path(k).relative_to(at).as_posix() if Path(k).is_relative_to(at) else k: v for k, v in rows.items()}
    inside = root is not None and file.resolve().is_relative_to(root.resolve())
    files = frozenset([file.resolve().relative_to(root.resolve()).as_posix()] if inside and root else [])
    return GivenLandmarks(file.name, points, rows, files)


def read_wflw_list(file: Path) -> GivenLandmarks:
    """Returns the landmarks of a WFLW list: per line 196 coordinates, 4 of a box, 6 flags and the photo's name.

    If a photo has several faces, the one with the largest box is used.

    Raises:
        DataError: a line has another format.
    """
    return GivenLandmarks(file.name, 98, read_wflw(str(file), decode_text(str(file), _read_file(file))))


def read_pts_files(source: Source) -> GivenLandmarks | None:
    """Returns the landmarks of 300-W's .pts files beside the photos (a.pts for a.jpg), or None if there are none.

    Their coordinates count pixels from 1: 1 is the center of the first pixel, which is 0.5 here.

    Raises:
        DataError: no file is readable or belongs to a photo, or the files have different numbers of points.
    """
    files = _pts_names(source)
    used = _pts_of_photos(files, source)
    contents = source.read(sorted(set(used.values())))
    rows: dict[str, np.ndarray] = {}
    faults: dict[str, str] = {}
    for photo, name in used.items():
        try:
            rows[photo] = read_pts(name, _content(contents[name]))
        except DataError as error:
            faults[name] = str(error)
            rows[photo] = np.full((1, 2), np.nan, np.float32)
    if not used:
        if files:
            raise DataError(
                f"source {source.label!r}: none of its {len(files)} .pts files is named like a photo, such as "
                f"{min(files.values())!r}; rename them, or give --landmarks none to detect"
            )
        return None
    # An unreadable file does not count; the report gives its photo's reason.
    counts = {len(rows[photo]): name for photo, name in used.items() if name not in faults}
    if not counts:
        name, fault = next(iter(faults.items()))
        raise DataError(f"source {source.label!r}: none of its {len(used)} .pts files is readable; {fault}; {_DETECT}")
    if len(counts) > 1 or not set(counts) <= {68, 98}:
        named = ", ".join(f"{name!r} has {count}" for count, name in sorted(counts.items()))
        raise DataError(
            f"source {source.label!r}: .pts files with {sorted(counts)} points; all must have 68, or all 98 ({named})"
        )
    (points,) = counts
    bad = np.full((points, 2), np.nan, np.float32)
    rows = {name: landmarks if len(landmarks) == points else bad for name, landmarks in rows.items()}
    return GivenLandmarks(f"{len(used)} .pts files", points, rows, frozenset(used.values()))


def _find_table(source: Source) -> str | None:
    """Returns the name, in the source, of its landmark table; in upper case and in an archive's folder, too.

    Raises:
        DataError: several folders have one.
    """
    names = {name for name, _ in source.skipped if PurePosixPath(name).name.lower() in DEFAULT_NAMES}
    if source.root is not None:
        names |= {name for name in DEFAULT_NAMES if (source.root / name).is_file()}
    for wanted in DEFAULT_NAMES:
        found = sorted(
            (name for name in names if PurePosixPath(name).name.lower() == wanted),
            key=lambda name: (name.count("/"), name),
        )
        top = [name for name in found if name.count("/") == found[0].count("/")]
        if len(top) > 1:
            raise DataError(
                f"source {source.label!r}: {len(top)} landmark tables, {top[0]!r} and {top[1]!r}; join them, give one "
                "by --landmarks FILE, or --landmarks none to detect"
            )
        if top:
            return top[0]
    return None


def _read_found(source: Source, name: str) -> GivenLandmarks:
    if source.root is not None and (source.root / name).is_file():
        found = read_given_landmarks(source.root / name, source.root)
        return replace(found, files=frozenset([name]))
    points, rows = read_table(f"{source.label}: {name}", _content(source.read([name])[name]))
    return GivenLandmarks(PurePosixPath(name).name, points, rows, frozenset([name]))


def _pts_names(source: Source) -> dict[str, str]:
    """Returns the names of the source's .pts files, by `composed` of the name without suffix.

    Raises:
        DataError: two files differ only in the spelling of .pts or of their letters.
    """
    names = {name for name, _ in source.skipped if name.lower().endswith(".pts")}
    if source.root is not None and not source.searched:  # a list names photos only
        for folder in sorted({PurePosixPath(photo.name).parent for photo in source.photos}):
            if (source.root / folder).is_dir():
                names |= {
                    posixpath.normpath((folder / file.name).as_posix())
                    for file in (source.root / folder).iterdir()
                    if file.suffix.lower() == ".pts"
                }
    found: dict[str, str] = {}
    for name in sorted(names):
        if (other := found.setdefault(composed(name[:-4]), name)) != name:
            raise DataError(f"source {source.label!r}: {other!r} and {name!r} are of one photo; keep one")
    return found


def _pts_of_photos(files: dict[str, str], source: Source) -> dict[str, str]:
    """Returns each photo's .pts file; of a file that several photos share, none: it marks one of them.

    Raises:
        DataError: several photos share the only file.
    """
    found: dict[str, str] = {}
    for photo in source.photos:
        name = files.get(composed(photo.name)) or files.get(composed(posixpath.splitext(photo.name)[0]))
        if name is not None:
            found[photo.name] = name
    counts = Counter(found.values())
    shared = next((name for name, count in counts.items() if count > 1), None)
    if shared is not None and len(set(found.values())) == 1:
        raise DataError(f"source {source.label!r}: {shared!r} is named like {counts[shared]} photos; keep one of them")
    return {photo: name for photo, name in found.items() if counts[name] == 1}


def _named_as_photos(given: GivenLandmarks, source: Source) -> GivenLandmarks:
    """Returns the landmarks under the photos' names; rows of no photo keep their own.

    Raises:
        DataError: no row names a photo.
    """
    photos = [photo.name for photo in source.photos]
    names = match_names(list(given.rows), photos)
    if given.rows and not names:
        raise DataError(
            f"{given.label}: none of its {len(given.rows)} rows names a photo; its first is "
            f"{next(iter(given.rows))!r}, the first photo is {photos[0]!r}; {_DETECT}"
        )
    return replace(given, rows={names.get(name, name): landmarks for name, landmarks in given.rows.items()})


def _content(read: bytes | DataError) -> bytes:
    if isinstance(read, DataError):
        raise read
    return read


def _read_file(file: Path) -> bytes:
    try:
        return read_regular(file, LARGEST_TABLE)
    except UnsafePathError as error:
        raise DataError(f"landmarks: {error}") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from None
