"""What a source of photos holds: its files, who is on them, which belong together."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.identity import choose_identity_rule, identity_of
from ecvae_jax.data.photo import PHOTO_SUFFIXES

# degrees to the subject's side, negative on the left of the picture, by MultiPIE's camera (Gross et al. 2010)
_CAMERA_YAW = {
    "11_0": -90, "12_0": -75, "09_0": -60, "08_0": -45, "13_0": -30, "14_0": -15, "05_1": 0, "05_0": 15, "04_1": 30,
    "19_0": 45, "20_0": 60, "01_0": 75, "24_0": 90, "08_1": -45, "19_1": 45,
}  # fmt: skip
_MULTIPIE_NAME = re.compile(r"(\d{3})_(\d{2})_(\d{2})_(\d{2})(\d)_(\d{2})")


@dataclass(frozen=True)
class Photo:
    """One photo file of a source.

    Attributes:
        path: where it is.
        name: its path below the source's folder, with `/`; unique.
        identity: who it is.
        group: one person under one light and background.
        tags: what the source knows of it.
    """

    path: Path
    name: str
    identity: str
    group: str
    tags: dict[str, Any]


@dataclass(frozen=True)
class Source:
    """All files of a source, in the order of their names.

    Attributes:
        label: what the records say they were made from; no path of this machine.
        root: its folder.
        photos: files to prepare.
        skipped: other files, and why: (name, reason).
        facts: lines that tell the user what was assumed.
    """

    label: str
    root: Path
    photos: list[Photo]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)


def open_source(source: str, identity: str = "auto") -> Source:
    """Returns what is in a folder of photos, or in a MultiPIE tree given as `multipie:DIR`.

    Args:
        source: a folder, searched to any depth, or `multipie:DIR` with session??/multiview/SUBJECT/… below DIR.
        identity: "auto", "folder", "prefix", "stem" or "none"; a MultiPIE tree has its subjects and ignores it.

    Raises:
        DataError: there is no such folder, or no photo in it.
    """
    multipie = source.startswith("multipie:")
    root = Path(source.removeprefix("multipie:"))
    if not root.is_dir():
        where = "it is a file" if root.is_file() else "no such folder"
        raise DataError(f"source {source!r}: {where}; give a folder of photos, or multipie:DIR")
    files, skipped = _list_files(root)
    photos = {name: path for name, path in files.items() if path.suffix.lower() in PHOTO_SUFFIXES}
    if not photos:
        raise DataError(f"source {source!r}: no photo among its {len(files)} files (known suffixes: .jpg, .png, …)")
    skipped += [
        (name, f"not a photo's suffix: {path.suffix or 'none'}") for name, path in files.items() if name not in photos
    ]
    if multipie:
        found, misnamed = _multipie_photos(photos)
        if not found:
            raise DataError(f"source {source!r}: no file is named as MultiPIE's are, e.g. 001_01_01_051_07.png")
        return Source(f"multipie:{root.resolve().name}", root, found, sorted(skipped + misnamed),
                      [f"identities: {len({p.identity for p in found})} MultiPIE subjects"])
    rule, reason = (identity, "as asked") if identity != "auto" else choose_identity_rule(list(photos))
    found = []
    for name, path in photos.items():
        who = identity_of(name, rule)
        found.append(Photo(path, name, who, who, {}))
    people = len({photo.identity for photo in found})
    fact = f"identities: {people} by the rule {rule!r} ({reason})"
    return Source(root.resolve().name, root, found, sorted(skipped), [fact])


def _list_files(root: Path) -> tuple[dict[str, Path], list[tuple[str, str]]]:
    """All files below root by name, sorted, and the folders that were not entered, with the reason."""
    unreadable: list[tuple[str, str]] = []

    def note(error: OSError) -> None:
        folder = Path(error.filename or root)
        unreadable.append((_name(folder, root) + "/", f"unreadable folder: {error.strerror}"))

    paths = []
    for folder, folders, files in os.walk(root, onerror=note):
        paths += [Path(folder) / file for file in files]
        links = [Path(folder) / name for name in folders if (Path(folder) / name).is_symlink()]
        unreadable += [(_name(link, root) + "/", "link to a folder: not entered") for link in links]
    return dict(sorted((_name(path, root), path) for path in paths)), unreadable


def _name(path: Path, root: Path) -> str:
    # a name that is no UTF-8 must still fit into records and report
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _multipie_photos(photos: dict[str, Path]) -> tuple[list[Photo], list[tuple[str, str]]]:
    found, misnamed = [], []
    for name, path in photos.items():
        match = _MULTIPIE_NAME.fullmatch(path.stem)
        if not match:
            misnamed.append((name, "not a MultiPIE name: SUBJECT_SESSION_RECORDING_CAMERA_ILLUMINATION expected"))
            continue
        subject, session, recording, camera, view, illumination = match.groups()
        camera = f"{camera}_{view}"
        tags = {"subject": subject, "session": session, "recording": recording, "camera": camera,
                "illumination": illumination}
        if camera in _CAMERA_YAW:
            tags["yaw"] = _CAMERA_YAW[camera]
        found.append(Photo(path, name, subject, f"{subject}/{session}/{illumination}", tags))
    return found, misnamed
