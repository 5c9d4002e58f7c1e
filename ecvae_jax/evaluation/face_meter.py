"""Faces found again in pictures by dlib: 68 landmarks and the 128-d vector of its face network (its second door)."""

from __future__ import annotations

import functools
import hashlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ecvae_jax.data.detect import DetectedFace, dlib_model_file, load_detector
from ecvae_jax.data.progress import shown

SEARCH_SIDE = 256
"""Smaller pictures are enlarged to so many pixels a side before a face is looked for."""

SMALLEST_FACE = 1 / 3
"""Of the picture's longer side: a box narrower than that is no face that a crop about the face can show."""

_CHIP = 150  # px, the network's input, with a quarter of the face around it, as in its training


class MeasuredFaces(NamedTuple):
    """What was found in n pictures; rows of NaN where no face was."""

    landmarks: Float[np.ndarray, "n 68 2"]
    """Crop units."""
    descriptors: Float[np.ndarray, "n 128"]

    @property
    def found(self) -> np.ndarray:
        """Whether a face was found, one truth value a picture."""
        return np.isfinite(self.descriptors[:, 0])


class FaceMeter:
    """Measures faces in pictures, and remembers those it has seen: copies and true images are often the same ones."""

    def __init__(self) -> None:
        """Sees that all is there; the networks are loaded with the first picture.

        Raises:
            MissingExtraError: dlib or one of its model files is not installed.
        """
        self._detector = load_detector("dlib-68")
        import dlib

        self._dlib: Any = dlib
        self._file = dlib_model_file("dlib_face_recognition_resnet_model_v1.dat", "face network")
        self._seen: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
        self.name = f"{self._detector.name}; identity: dlib_face_recognition_resnet_model_v1, 128-d"

    @functools.cached_property
    def _network(self) -> Any:
        return self._dlib.face_recognition_model_v1(str(self._file))

    def measure(self, images: UInt8[np.ndarray, "n h w 3"], unit: str = "faces") -> MeasuredFaces:
        """Returns landmarks and descriptors of the largest face of each picture; progress goes to standard error."""
        rows = [self._measure_one(np.ascontiguousarray(image)) for image in shown(images, len(images), unit)]
        return MeasuredFaces(
            np.array([landmarks for landmarks, _ in rows], np.float32).reshape(-1, 68, 2),
            np.array([descriptor for _, descriptor in rows], np.float64).reshape(-1, 128),
        )

    def _measure_one(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        key = hashlib.sha256(image.tobytes() + repr(image.shape).encode()).digest()
        if key not in self._seen:
            self._seen[key] = self._look(image)
        return self._seen[key]

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
        chip = self._dlib.get_face_chip(image, shape, _CHIP, 0.25)
        return np.array(self._network.compute_face_descriptor(chip), np.float64)
