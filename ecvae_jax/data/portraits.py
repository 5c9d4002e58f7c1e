"""Faces named on a command line, as a model reads them: photos, or faces of a records folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ecvae_jax.data.detect import load_detector
from ecvae_jax.data.detect.detector import Detector
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.photos.crop import crop_box, cut_crop, to_crop_units
from ecvae_jax.data.photos.photo import BadPhotoError, read_photo
from ecvae_jax.data.prepare.options import PrepareConfig

DEFAULT_MARGIN = PrepareConfig.margin

_RECORDS = re.compile(r"(?P<records>.+):(?P<split>train|validation|test):(?P<indices>\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)")


class NoFaceError(DataError):
    """A photo in which the detector finds no face."""


class Portraits(NamedTuple):
    """Faces at the model's resolution and in its landmark scheme."""

    images: UInt8[np.ndarray, "n h w 3"]
    landmarks: Float[np.ndarray, "n p 2"]
    names: list[str]
    notes: list[str]
    """What the user should know: several faces in a photo, and the like."""


def load_portraits(
    specs: Sequence[str], image_size: int, points: int, margin: float = DEFAULT_MARGIN, detector: str = "dlib-68"
) -> Portraits:
    """Returns the faces that `specs` name, in their order.

    Args:
        specs: photo files, or faces of records as RECORDS:SPLIT:INDICES, such as `rendered:test:0,24,40-47`.
        image_size: side of the images wanted, pixels.
        points: landmark scheme wanted, 98 or 68.
        margin: of the crop rule; it must be that of the training faces.
        detector: finds the face of a photo.

    Raises:
        DataError: a file is missing or no image, shows no face, an index is not there, or a scheme does not fit.
        MissingExtraError: photos are given and the detector is not installed.
    """
    if not specs:
        raise DataError("no face is given: name at least one photo, or RECORDS:SPLIT:INDICES")
    parts: list[Portraits] = []
    loaded: Detector | None = None
    for spec in specs:
        match = _RECORDS.fullmatch(spec)
        if match and not Path(spec).exists():
            parts.append(_from_records(match["records"], match["split"], match["indices"], image_size, points))
            continue
        if not Path(spec).is_file():
            raise DataError(
                f"{spec!r}: no such photo; give an image file, or a face of records as RECORDS:SPLIT:INDEX "
                "(rendered:test:0)"
            )
        loaded = loaded or load_detector(detector)
        parts.append(load_photo(Path(spec), loaded, image_size, points, margin))
    return Portraits(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.landmarks for part in parts]),
        [name for part in parts for name in part.names],
        [note for part in parts for note in part.notes],
    )


def _from_records(records: str, split: str, indices: str, image_size: int, points: int) -> Portraits:
    faces = load_faces(records, split)
    wanted = list(_expand(indices))
    beyond = [index for index in wanted if index >= len(faces)]
    if beyond:
        raise DataError(f"{records}:{split}:{beyond[0]}: it has faces 0 to {len(faces) - 1}")
    landmarks = faces.landmarks_as(points)[wanted]
    return Portraits(faces.images(wanted, image_size), landmarks, [faces.names[index] for index in wanted], [])


def _expand(indices: str) -> Iterable[int]:
    for part in indices.split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            raise DataError(f"{part}: a range of faces must go upwards, as {last}-{first}")
        yield from range(int(first), int(last or first) + 1)


def load_photo(path: Path, detector: Detector, image_size: int, points: int, margin: float) -> Portraits:
    """Returns the largest face of a photo, found by `detector`; the other arguments are those of `load_portraits`.

    Raises:
        NoFaceError: none is found.
        DataError: the file is no image, or the detector has fewer landmarks than wanted.
    """
    if detector.points < points:
        raise DataError(
            f"{path}: {detector.name} finds {detector.points} landmarks and the model was trained on {points}; "
            f"train one with --data.points {detector.points}"
        )
    try:
        photo, _ = read_photo(path)
    except BadPhotoError as reason:
        raise DataError(f"{path}: {reason}") from None
    found = detector.detect(photo)
    if not found:
        raise NoFaceError(
            f"{path}: no face found by {detector.name}; give a photo with an upright face of 80 px or more"
        )
    face = found[0]
    notes = [f"{path}: {len(found)} faces, the largest is taken"] if len(found) > 1 else []
    box = crop_box(face.landmarks, margin)
    landmarks = to_crop_units(face.landmarks, box)
    if detector.points != points:
        from ecvae_jax.structure.scheme import convert_landmarks

        landmarks = np.asarray(convert_landmarks(landmarks, points), np.float32)
    return Portraits(cut_crop(photo, box, image_size)[None], landmarks[None], [path.name], notes)
