"""Photo files: all below a folder, or those of a list."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.identity import choose_identity_rule, identity_of
from ecvae_jax.data.photos.photo import PHOTO_SUFFIXES
from ecvae_jax.data.photos.sources.source import LARGEST_TABLE, Files, Loaded, Photo, Source
from ecvae_jax.files import UnsafePathError, read_regular


def open_folder(root: Path, identity: str) -> Source:
    """Returns the photos of a folder, searched recursively, in the order of their names.

    Raises:
        DataError: the folder has no photo.
    """
    files, skipped = list_photos(root)
    photos, fact = named_photos({name: file_stamp(path) for name, path in files.items()}, identity)
    return Source(root.resolve().name, photos, paths(list(files.values())), root, skipped, [fact], reader(root))


def open_list(file: Path, identity: str) -> Source:
    """Returns the photos of a list in its order: one path per line, relative to the list's folder.

    Empty lines and lines starting with # are ignored. A missing file gets its line in the report. If the list has
    absolute paths, the photos' common folder is the source's root.

    Raises:
        DataError: the list cannot be read, is empty, or names a photo twice.
    """
    try:
        lines = read_regular(file, LARGEST_TABLE).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError, UnsafePathError) as error:
        raise DataError(f"list {file} cannot be read: {error}") from None
    files: dict[str, Path] = {}
    for number, line in enumerate(lines, 1):
        name = line.strip().replace("\\", "/").removeprefix("./")
        if not name or name.startswith("#"):
            continue
        if name in files:
            raise DataError(f"list {file}, line {number}: {name!r} is a duplicate; keep one")
        files[name] = file.parent / name
    if not files:
        raise DataError(f"list {file}: names no photo; write one path per line, relative to the list's folder")
    root = file.parent
    if any(Path(name).is_absolute() for name in files):  # records and report contain no path of this machine
        root = Path(os.path.commonpath([path.absolute().parent for path in files.values()]))
        named = {Path(os.path.relpath(path, root)).as_posix(): path for path in files.values()}
        if len(named) < len(files):
            raise DataError(f"list {file}: names a photo twice, by an absolute and a relative path; keep one")
        files = named
    photos, fact = named_photos({name: file_stamp(path) for name, path in files.items()}, identity)
    places = {path if path.is_symlink() else path.parent for path in files.values()}
    inputs = (file, *places)
    load = paths(list(files.values()))
    return Source(file.name, photos, load, root, [], [fact], reader(root), searched=False, inputs=inputs)


def named_photos(stamps: Mapping[str, str], identity: str) -> tuple[list[Photo], str]:
    """Returns photos with identities from their names, and a line about the rule; `stamps` is by name."""
    rule, reason = (identity, "as requested") if identity != "auto" else choose_identity_rule(list(stamps))
    people = {name: identity_of(name, rule) for name in stamps}
    photos = [Photo(name, people[name], people[name], stamp=stamp) for name, stamp in stamps.items()]
    return photos, f"identities: {len(set(people.values()))} by the rule {rule!r} ({reason})"


def list_photos(root: Path) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """Returns the photo files below a folder by name, in name order, and (name, reason) of the other files.

    Raises:
        DataError: the folder has no photo.
    """
    files, skipped = list_files(root)
    photos = {name: path for name, path in files.items() if path.suffix.lower() in PHOTO_SUFFIXES}
    if not photos:
        raise DataError(f"source {str(root)!r}: no photo among its {len(files)} files (known suffixes: .jpg, .png, …)")
    skipped += [(name, not_a_photo(path.suffix)) for name, path in files.items() if name not in photos]
    return photos, sorted(skipped)


def not_a_photo(suffix: str) -> str:
    """Returns the reason for skipping a file with this suffix."""
    return f"not a photo suffix: {suffix or 'none'}"


def file_stamp(path: Path) -> str:
    """Returns size and time of a file, or "" if it cannot be accessed; the report then gives the reason."""
    with contextlib.suppress(OSError):
        stat = path.stat()
        return f"{stat.st_size} {stat.st_mtime_ns}"
    return ""


def paths(files: list[Path]) -> Callable[[int], Iterator[Loaded]]:
    """Returns the `Source.load` of photo files; the workers open them."""
    return lambda start: (Loaded(path) for path in files[start:])


def reader(root: Path) -> Files:
    """Returns the `Source.read` of a folder."""

    def read(name: str) -> bytes | DataError:
        try:
            return read_regular(root / name, LARGEST_TABLE)
        except UnsafePathError as error:
            return DataError(str(error))
        except OSError as error:
            return DataError(f"{name} cannot be read: {error.strerror}")

    return lambda names: {name: read(name) for name in names}


def list_files(root: Path) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """Returns all files below root by name, sorted, and (name, reason) of the folders not entered."""
    files: dict[str, Path] = {}
    unentered: list[tuple[str, str]] = []
    folders = [root]
    while folders:  # not os.walk, which calls itself for every level in Python 3.11
        folder = folders.pop()
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError as error:
            unentered.append((_name(folder, root) + "/", f"unreadable folder: {error.strerror}"))
            continue
        for entry in entries:
            path = folder / entry.name
            if not _is_folder(entry):
                files[_name(path, root)] = path
            elif entry.is_symlink():
                unentered.append((_name(path, root) + "/", "link to a folder: not entered"))
            else:
                folders.append(path)
    return dict(sorted(files.items())), unentered


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _name(path: Path, root: Path) -> str:
    # names that are not UTF-8 must still fit into records and report
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")
