"""Faces for a model, from photos or from records: the same crop rule and landmarks as its training faces."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from ecvae_jax.config import Config
from ecvae_jax.data.detect import choose_detector, load_detector
from ecvae_jax.data.detect.detector import Detector
from ecvae_jax.data.errors import BadPhotoError, DataError
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.photos.crop import CropBox, cut_crop, to_crop_units
from ecvae_jax.data.photos.face_check import check_face
from ecvae_jax.data.photos.photo import TURNED, read_photo
from ecvae_jax.data.prepare.options import PrepareConfig

DEFAULT_MARGIN = PrepareConfig.margin
_LARGEST = (250.0, 256.0)
"""Megapixels and megabytes of one photo: those of phones have up to 200 megapixels. One is read at a time."""

_RECORDS = re.compile(r"(?P<records>.+):(?P<split>train|validation|test):(?P<indices>\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)")


class NoFaceError(DataError):
    """A photo in which the detector finds no face."""


class TrainedModel(Protocol):
    """The two attributes of a model that determine how it reads faces."""

    @property
    def config(self) -> Config:
        """Gives the image size and the landmark scheme."""
        ...

    @property
    def records(self) -> Mapping[str, Any]:
        """Metadata of the training records; `margin` and `detector` are read."""
        ...


@dataclass(frozen=True, eq=False)
class Portraits:
    """n faces at a model's resolution and in its landmark scheme; iteration and indexing give Portraits too."""

    images: UInt8[np.ndarray, "n h w 3"]
    landmarks: Float[np.ndarray, "n p 2"]
    """Crop units."""
    names: list[str]
    notes: list[str]
    """Messages for the user, such as several faces in a photo. Each names its photo; a slice keeps all of them."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int | slice) -> Portraits:
        """Returns the faces of a slice, or one face as Portraits of length 1."""
        if not isinstance(index, slice):
            start = range(len(self))[index]
            index = slice(start, start + 1)
        return Portraits(self.images[index], self.landmarks[index], self.names[index], self.notes)

    def __iter__(self) -> Iterator[Portraits]:
        """Yields each face as Portraits of length 1."""
        return (self[index] for index in range(len(self)))


class FoundPortrait(NamedTuple):
    """A photo and its largest face."""

    photo: UInt8[np.ndarray, "h w 3"]
    """Upright."""
    box: CropBox
    landmarks: Float[np.ndarray, "p 2"]
    """Crop units, in the model's scheme."""
    notes: list[str]


def load_portraits(model: TrainedModel, specs: Sequence[str | Path]) -> Portraits:
    """Returns the faces named by `specs`, in order, cropped and measured like the model's training faces.

    Args:
        model: a loaded model. It determines detector, margin, image size and landmark scheme.
        specs: photo files, or faces of records as RECORDS:SPLIT:INDICES, such as `rendered:test:0,24,40-47`.

    Raises:
        DataError: a file is missing or not an image, shows no face, an index is out of range, or a scheme does not fit.
        MissingExtraError: `specs` has photos and the detector is not installed.
    """
    return PortraitReader.of_model(model).read(specs)


@dataclass(frozen=True)
class PortraitReader:
    """Reads faces at one size, in one landmark scheme, by one crop rule; it loads the detector at the first photo."""

    image_size: int
    points: int
    margin: float = DEFAULT_MARGIN
    """Must equal that of the training faces."""
    detector_name: str = "dlib-68"

    @classmethod
    def of_model(cls, model: TrainedModel) -> PortraitReader:
        """Returns the reader for one model."""
        points, trained_with = model.config.data.points, str(model.records.get("detector", ""))
        margin = float(model.records.get("margin", DEFAULT_MARGIN))
        return cls(model.config.model.image_size, points, margin, choose_detector(points, trained_with))

    @functools.cached_property
    def detector(self) -> Detector:
        """The loaded detector; raises as `load`."""
        return self.load()

    def load(self, video: bool = False) -> Detector:
        """Returns the detector.

        Args:
            video: one for videos; see `load_detector`.

        Raises:
            DataError: it has fewer landmarks than the scheme.
            MissingExtraError: it is not installed.
        """
        detector = load_detector(self.detector_name, video)
        if detector.points < self.points:
            raise DataError(
                f"{detector.name} finds {detector.points} landmarks, but the model was trained on {self.points}; "
                f"train one with --data.points {detector.points}"
            )
        return detector

    def read(self, specs: Sequence[str | Path]) -> Portraits:
        """Returns the faces of photos and records; see `load_portraits`."""
        if not specs:
            raise DataError("no face is given: name at least one photo, or RECORDS:SPLIT:INDICES")
        parts = [self._read_one(str(spec)) for spec in specs]
        return Portraits(
            np.concatenate([part.images for part in parts]),
            np.concatenate([part.landmarks for part in parts]),
            [name for part in parts for name in part.names],
            [note for part in parts for note in part.notes],
        )

    def read_photo(self, path: Path) -> Portraits:
        """Returns the largest face of a photo; raises as `find`."""
        face = self.find(path)
        crop = cut_crop(face.photo, face.box, self.image_size)
        return Portraits(crop[None], face.landmarks[None], [path.name], face.notes)

    def find(self, path: Path) -> FoundPortrait:
        """Returns a photo with the place of its largest face.

        Raises:
            NoFaceError: the detector finds none, or the face is upside down.
            DataError: the file is not an image, or the detector has fewer landmarks than the scheme.
            MissingExtraError: the detector is not installed.
        """
        _ = self.detector
        try:
            photo, notes = read_photo(path, *_LARGEST)
        except BadPhotoError as reason:
            raise DataError(f"{path}: {_without_option(str(reason))}") from None
        return self.find_in(photo, str(path), [note for note in notes if note != TURNED])

    def find_in(self, photo: UInt8[np.ndarray, "h w 3"], name: str, notes: Sequence[str] = ()) -> FoundPortrait:
        """Returns an upright photo with the place of its largest face.

        Args:
            name: of the photo, for messages.
            notes: on its conversion, which precede those on the face.

        Raises:
            NoFaceError: the detector finds none, or the face is upside down.
            DataError: the detector has fewer landmarks than the scheme.
            MissingExtraError: the detector is not installed.
        """
        detector = self.detector
        found = detector.detect(photo)
        if not found:
            raise NoFaceError(
                f"{name}: {detector.name} found no face; give a photo with an upright face of 80 px or more"
            )
        try:
            box, face_notes = check_face(found[0].landmarks, photo.shape[0], photo.shape[1], self.margin)
        except BadPhotoError as reason:
            raise NoFaceError(f"{name}: {reason}") from None
        lines = [*notes, *face_notes]
        if len(found) > 1:
            lines.insert(0, f"{len(found)} faces, using the largest")
        lines = [f"{name}: {line}" for line in lines]
        return FoundPortrait(photo, box, self.in_scheme(to_crop_units(found[0].landmarks, box)), lines)

    def in_scheme(self, landmarks: Float[np.ndarray, "*b q 2"]) -> Float[np.ndarray, "*b p 2"]:
        """Returns the detector's landmarks in the model's scheme."""
        if landmarks.shape[-2] == self.points:
            return landmarks
        from ecvae_jax.structure.scheme import convert_landmarks

        return np.asarray(convert_landmarks(landmarks, self.points), np.float32)

    def _read_one(self, spec: str) -> Portraits:
        match = _RECORDS.fullmatch(spec)
        if match and not Path(spec).exists():
            return self._read_records(match["records"], match["split"], match["indices"])
        if not Path(spec).is_file():
            raise DataError(
                f"{spec!r}: no such photo; give an image file, or a face of records as RECORDS:SPLIT:INDEX "
                "(rendered:test:0)"
            )
        return self.read_photo(Path(spec))

    def _read_records(self, records: str, split: str, indices: str) -> Portraits:
        faces = load_faces(records, split)
        wanted = list(_expand(indices))
        beyond = [index for index in wanted if index >= len(faces)]
        if beyond:
            raise DataError(f"{records}:{split}:{beyond[0]}: out of range; the split has faces 0 to {len(faces) - 1}")
        landmarks = faces.landmarks_as(self.points)[wanted]
        return Portraits(faces.images(wanted, self.image_size), landmarks, [faces.names[i] for i in wanted], [])


def _without_option(reason: str) -> str:
    """Returns a reason with advice in place of an option of `ecvae prepare`, which `transfer` does not have."""
    return re.sub(r" \(max_megapixels\)| \(max_megabytes\)", "; give a smaller copy", reason)


def _expand(indices: str) -> Iterator[int]:
    for part in indices.split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            raise DataError(f"{part}: a range of faces must ascend, as {last}-{first}")
        yield from range(int(first), int(last or first) + 1)
