"""The MultiPIE tree (Gross et al. 2010): session??/multiview/SUBJECT/RECORDING/CAMERA/…; file names become tags."""

from __future__ import annotations

import re
from pathlib import Path

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.sources.folder import file_stamp, list_photos, paths, reader
from ecvae_jax.data.photos.sources.source import Photo, Source
from ecvae_jax.data.prepare.options import PrepareConfig

# degrees of yaw, negative on the left of the image; the last two cameras look down
_CAMERA_YAW = {
    "11_0": -90, "12_0": -75, "09_0": -60, "08_0": -45, "13_0": -30, "14_0": -15, "05_1": 0, "05_0": 15, "04_1": 30,
    "19_0": 45, "20_0": 60, "01_0": 75, "24_0": 90, "08_1": -45, "19_1": 45,
}  # fmt: skip
_FROM_ABOVE = ("08_1", "19_1")
_ILLUMINATIONS = tuple(f"{number:02d}" for number in range(20))
_UNLIT = ("00", "19")  # room light only
# Session -> recording -> expression: a recording's number depends on the session.
_EXPRESSIONS = {
    "01": {"01": "neutral", "02": "smile"},
    "02": {"01": "neutral", "02": "surprise", "03": "squint"},
    "03": {"01": "neutral", "02": "smile", "03": "disgust"},
    "04": {"01": "neutral", "02": "scream", "03": "neutral"},
}
_NAME = re.compile(
    r"(?P<subject>\d{3})_(?P<session>\d{2})_(?P<recording>\d{2})_(?P<camera>\d{2})(?P<view>\d)_(?P<illumination>\d{2})"
)


def open_multipie(root: Path, options: PrepareConfig) -> Source:
    """Returns the photos of a MultiPIE tree that match the filters, in the order of their names.

    A group is one subject in one session under one illumination, so any two of its photos share their appearance.

    Raises:
        DataError: no file has a MultiPIE name, a filter's value does not occur, or no photo matches.
    """
    files, skipped = list_photos(root)
    wanted = {name: _wanted(name, text) for name, text in options.filters.items()}
    photos, chosen, seen = [], [], {name: set() for name in wanted}
    for name, path in files.items():
        tags = multipie_tags(path.stem)
        if tags is None:
            skipped.append((name, "not a MultiPIE name: SUBJECT_SESSION_RECORDING_CAMERA_ILLUMINATION expected"))
            continue
        for key, values in seen.items():
            values.add(tags[key])
        excluded_by = next((key for key, values in wanted.items() if tags[key] not in values), None)
        if excluded_by:
            skipped.append((name, f"excluded by --{excluded_by}: {tags[excluded_by]}"))
            continue
        subject = str(tags["subject"])
        group = f"{subject}/{tags['session']}/{tags['illumination']}"
        photos.append(Photo(name, subject, group, tags, file_stamp(path)))
        chosen.append(path)
    if not photos and len(skipped) and not any(reason.startswith("excluded") for _, reason in skipped):
        raise DataError(f"source {f'multipie:{root}'!r}: no file has a MultiPIE name, such as 001_01_01_051_07.png")
    for key, values in wanted.items():
        missing = sorted(values - seen[key])
        if missing:
            raise DataError(f"{key}={missing[0]!r}: no photo has it; must be among {', '.join(sorted(seen[key]))}")
    if not photos:
        raise DataError(f"source {f'multipie:{root}'!r}: the filters together match no photo; remove one")
    people = len({photo.identity for photo in photos})
    return Source(
        f"multipie:{root.resolve().name}",
        photos,
        paths(chosen),
        root,
        sorted(skipped),
        [f"identities: {people} MultiPIE subjects"],
        reader(root),
    )


def multipie_tags(stem: str) -> dict[str, str | int] | None:
    """Returns the tags of a file name such as 001_01_01_051_07, or None if it is not a MultiPIE name.

    The tags are subject, session, recording, camera ("05_1") and illumination. If known, also yaw in degrees, pitch
    ("above" for a camera that looks down), expression and flash.
    """
    match = _NAME.fullmatch(stem)
    if not match:
        return None
    tags: dict[str, str | int] = {name: match[name] for name in ("subject", "session", "recording", "illumination")}
    camera = f"{match['camera']}_{match['view']}"
    tags["camera"] = camera
    if camera in _CAMERA_YAW:
        tags["yaw"] = _CAMERA_YAW[camera]
    if camera in _FROM_ABOVE:
        tags["pitch"] = "above"
    expression = _EXPRESSIONS.get(match["session"], {}).get(match["recording"])
    if expression:
        tags["expression"] = expression
    if match["illumination"] in _ILLUMINATIONS:
        tags["flash"] = "none" if match["illumination"] in _UNLIT else match["illumination"]
    return tags


def _wanted(name: str, text: str) -> set[str]:
    values = {value.strip() for value in text.split(",")}
    if "" in values:
        raise DataError(f"{name}={text!r}: give one value, or several separated by commas")
    return values
