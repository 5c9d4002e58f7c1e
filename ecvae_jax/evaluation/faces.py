"""Faces in images by dlib (68 landmarks, 128-d face network), and identity metrics on those vectors."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.spatial.distance import cdist

from ecvae_jax.data.detect import load_detector
from ecvae_jax.data.detect.detector import DetectedFace
from ecvae_jax.data.detect.dlib import dlib_model_file
from ecvae_jax.progress import track

SEARCH_SIDE = 256
"""Smaller images are enlarged to this many pixels a side before detection."""

SMALLEST_FACE = 1 / 3
"""Of the image's longer side: narrower boxes are false detections, because crops are about the face."""

_CHIP = 150  # px, the network's input
_CHIP_PADDING = 0.25  # of the face's size, as in the network's training

SAME_PERSON = 0.6
"""dlib's threshold: two photos at a smaller distance show one person."""

Descriptors = Float[np.ndarray, "n d"]


class MeasuredFaces(NamedTuple):
    """Faces of n images; rows of NaN for images without a face."""

    landmarks: Float[np.ndarray, "n 68 2"]
    """Crop units."""
    descriptors: Float[np.ndarray, "n 128"]

    @property
    def found(self) -> np.ndarray:
        """Whether a face was found, one bool an image."""
        return np.isfinite(self.descriptors[:, 0])


class FaceMeter:
    """Measures faces in images, and caches results by content: copies and true images repeat."""

    def __init__(self) -> None:
        """Checks that dlib and its model files exist; the first image loads the networks.

        Raises:
            MissingExtraError: dlib or one of its model files is not installed.
        """
        self._detector = load_detector("dlib-68")
        import dlib

        self._dlib: Any = dlib
        self._file = dlib_model_file("dlib_face_recognition_resnet_model_v1.dat", "face network")
        self._cache: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
        self.name = f"{self._detector.name}; identity: dlib_face_recognition_resnet_model_v1, 128-d"

    @functools.cached_property
    def _network(self) -> Any:
        return self._dlib.face_recognition_model_v1(str(self._file))

    def measure(self, images: UInt8[np.ndarray, "n h w 3"], unit: str = "faces") -> MeasuredFaces:
        """Returns landmarks and descriptors of the largest face of each image; progress goes to standard error."""
        rows = [self._measure_one(np.ascontiguousarray(image)) for image in track(images, len(images), unit)]
        return MeasuredFaces(
            np.array([landmarks for landmarks, _ in rows], np.float32).reshape(-1, 68, 2),
            np.array([descriptor for _, descriptor in rows], np.float64).reshape(-1, 128),
        )

    def _measure_one(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        key = hashlib.sha256(image.tobytes() + repr(image.shape).encode()).digest()
        if key not in self._cache:
            self._cache[key] = self._look(image)
        return self._cache[key]

    def _look(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        factor = max(1, -(-SEARCH_SIDE // max(image.shape[:2])))
        size = (image.shape[1] * factor, image.shape[0] * factor)
        large = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) if factor > 1 else image
        smallest = SMALLEST_FACE * max(size)
        faces = [face for face in self._detector.detect(large) if face.box[2] - face.box[0] >= smallest]
        if not faces:
            return np.full((68, 2), np.nan, np.float32), np.full(128, np.nan)
        return faces[0].landmarks / np.array(size, np.float32), self._describe(large, faces[0])

    def _describe(self, image: np.ndarray, face: DetectedFace) -> np.ndarray:
        x0, y0, x1, y1 = (round(edge) for edge in face.box)
        points = [self._dlib.point(round(float(x) - 0.5), round(float(y) - 0.5)) for x, y in face.landmarks]
        shape = self._dlib.full_object_detection(self._dlib.rectangle(x0, y0, x1 - 1, y1 - 1), points)
        chip = self._dlib.get_face_chip(image, shape, _CHIP, _CHIP_PADDING)
        return np.array(self._network.compute_face_descriptor(chip), np.float64)


def distances(drawn: Descriptors, true: Descriptors) -> Float[np.ndarray, " n"]:
    """Returns the Euclidean distance of each drawn face to its true one; NaN if one is missing.

    dlib's vectors: about 0.3 between photos of one person, 0.8 between strangers.
    """
    return np.linalg.norm(drawn - true, axis=1)


def cosines(drawn: Descriptors, true: Descriptors) -> Float[np.ndarray, " n"]:
    """Returns the cosine of each drawn face's vector to its true one's, at most 1; NaN if one is missing."""
    lengths = np.linalg.norm(drawn, axis=1) * np.linalg.norm(true, axis=1)
    return np.divide((drawn * true).sum(axis=1), lengths, out=np.full(len(drawn), np.nan), where=lengths > 0)


def verified(drawn: Descriptors, true: Descriptors, threshold: float = SAME_PERSON) -> Float[np.ndarray, " n"]:
    """Returns 1 if the drawn face passes as the true person, else 0.

    A drawn image without a face scores 0. NaN if the true image shows no face.
    """
    with np.errstate(invalid="ignore"):
        accepted = (distances(drawn, true) < threshold).astype(np.float64)  # False for NaN
    accepted[~np.isfinite(true).all(axis=1)] = np.nan
    return accepted


def against_others(
    drawn: Descriptors, true: Descriptors, people: Sequence[str], threshold: float = SAME_PERSON
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns each drawn face's mean distance to other people's true images, and the share of them it passes as.

    NaN if the drawn image has no face, or no other person has one.
    """
    gallery, other = _to_gallery(drawn, true, people)
    counted = other & np.isfinite(gallery)
    numbers = counted.sum(axis=1)
    blank = np.full(len(drawn), np.nan)
    mean = np.divide(np.where(counted, gallery, 0.0).sum(axis=1), numbers, out=blank.copy(), where=numbers > 0)
    passes = (counted & (np.nan_to_num(gallery, nan=np.inf) < threshold)).sum(axis=1)
    return mean, np.divide(passes, numbers, out=blank, where=numbers > 0)


def identified(drawn: Descriptors, true: Descriptors, people: Sequence[str]) -> Float[np.ndarray, " n"]:
    """Returns 1 if the nearest of all true images shows the drawn person, else 0 (rank 1).

    A drawn image without a face scores 0. NaN if the person or everyone else has no true image with a face.
    """
    gallery, other = _to_gallery(drawn, true, people)
    found = np.isfinite(true).all(axis=1)
    gallery = np.where(np.isfinite(gallery), gallery, np.inf)
    same = np.where(other, np.inf, gallery).min(axis=1, initial=np.inf)
    others = np.where(other, gallery, np.inf).min(axis=1, initial=np.inf)
    possible = (~other & found).any(axis=1) & (other & found).any(axis=1)
    return np.where(possible, (same < others).astype(np.float64), np.nan)


def _to_gallery(drawn: Descriptors, true: Descriptors, people: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Distances of every drawn face to every true one, n n, and whether that one is another person."""
    names = np.asarray(people)
    return cdist(drawn, true), names[:, None] != names[None, :]
