"""The face mesh: 468 points on a face from BlazeFace, rotated upright first, converted to 98 or 68 landmarks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ecvae_jax.data.detect.detector import DetectedFace
from ecvae_jax.data.detect.mediapipe.blazeface import BlazeFace, FoundFace
from ecvae_jax.data.detect.mediapipe.networks import Network, networks_version
from ecvae_jax.data.detect.mediapipe.points import mesh_to_landmarks

_ROOM = 1.5  # side of the square that the mesh network reads, as a multiple of the face's
_EYE_CORNERS = (33, 263)  # mesh points: outer corners of the viewer's left and right eye
_SURE_LOGIT = 15.0  # 20 rendered heads have 22 or more upright, 7 or less upside down
_MIN_LOGIT = 0.0  # of the network's output "is this a face": probability 1/2


class _Square(NamedTuple):
    """A rotated square in the photo, pixels."""

    center: Float[np.ndarray, " 2"]
    side: float
    angle: float
    """Radians, positive clockwise: the roll of the face."""


class MediaPipeMesh:
    """BlazeFace, then the face mesh twice: on BlazeFace's square, then on the square about the first mesh."""

    def __init__(self, points: int) -> None:
        """Loads the networks.

        Raises:
            MissingExtraError: LiteRT or the networks are not installed.
        """
        self.points = points
        self._blazeface, self._network = BlazeFace(), Network("face_landmark")
        self.name = f"mediapipe-{points} (BlazeFace and face mesh of {networks_version()})"

    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """Returns the faces of BlazeFace's first successful attempt, the largest first."""
        photo = Image.fromarray(image)
        for found in self._blazeface.find(photo):
            meshes = [mesh for mesh in (self._either_way_up(photo, face) for face in found) if mesh is not None]
            if meshes:
                faces = [self._face(mesh) for mesh in meshes]
                return sorted(faces, key=lambda face: (-face.area, face.box))
        return []

    def measure(self, image: UInt8[np.ndarray, "h w 3"], box: tuple[float, float, float, float]) -> DetectedFace | None:
        """Returns the face in a known box, or None if the mesh network sees no face there."""
        x0, y0, x1, y1 = box
        level = np.array(
            [[x0, (y0 + y1) / 2], [x1, (y0 + y1) / 2]]
        )  # assumes an upright face; the second pass corrects it
        found = self._mesh(Image.fromarray(image), FoundFace(np.asarray(box), level, 1.0))
        return None if found is None else self._face(found[0])

    def _face(self, mesh: Float[np.ndarray, "468 2"]) -> DetectedFace:
        (x0, y0), (x1, y1) = mesh.min(axis=0).tolist(), mesh.max(axis=0).tolist()
        return DetectedFace((x0, y0, x1, y1), mesh_to_landmarks(mesh, self.points), self.points)

    def _either_way_up(self, photo: Image.Image, face: FoundFace) -> Float[np.ndarray, "468 2"] | None:
        """Returns the mesh in pixels of the photo, or None. BlazeFace may see an upright face in one upside down."""
        found = self._mesh(photo, face)
        if found is None or found[1] >= _SURE_LOGIT:
            return None if found is None else found[0]
        mesh, logit = found
        box = np.concatenate([mesh.min(axis=0), mesh.max(axis=0)])
        turned = self._mesh(photo, FoundFace(box, face.eyes[::-1], face.score))
        return turned[0] if turned is not None and turned[1] > logit else mesh

    def _mesh(self, photo: Image.Image, face: FoundFace) -> tuple[Float[np.ndarray, "468 2"], float] | None:
        """Returns the mesh in pixels of the photo and its logit, or None if the mesh network sees no face."""
        low, high = face.box[:2], face.box[2:]
        square = _Square((low + high) / 2, _ROOM * float((high - low).max()), _direction(*face.eyes))
        mesh, certainty = np.empty((468, 2)), 0.0
        for _ in range(2):
            if square.side < 4:
                return None
            points, logit = self._network(_upright(photo, square, self._network.side) / 255.0)
            certainty = float(logit.reshape(-1)[0])
            if certainty < _MIN_LOGIT:
                return None
            places = points.reshape(-1, 3)[:, :2] / self._network.side - 0.5
            mesh = square.center + square.side * places @ _turn(square.angle).T
            square = _square_about(mesh)
        return mesh, certainty


def _square_about(mesh: Float[np.ndarray, "468 2"]) -> _Square:
    angle = _direction(*(mesh[corner] for corner in _EYE_CORNERS))
    turned = mesh @ _turn(angle)
    low, high = turned.min(axis=0), turned.max(axis=0)
    return _Square(_turn(angle) @ ((low + high) / 2), _ROOM * float((high - low).max()), angle)


def _direction(start: Float[np.ndarray, " 2"], end: Float[np.ndarray, " 2"]) -> float:
    return float(np.arctan2(end[1] - start[1], end[0] - start[0]))


def _turn(angle: float) -> Float[np.ndarray, "2 2"]:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _upright(photo: Image.Image, square: _Square, size: int) -> Float[np.ndarray, "size size 3"]:
    """Returns the square's pixels with the face upright, black outside the photo."""
    # Crops to the square's surroundings and reduces by a whole factor first: one bilinear step would alias.
    reach = square.side * 0.75
    low = np.floor(np.maximum(square.center - reach, 0)).astype(int)
    high = np.ceil(np.minimum(square.center + reach, photo.size)).astype(int)
    if (high <= low).any():
        return np.zeros((size, size, 3), np.float32)
    part = photo.crop((*low.tolist(), *high.tolist()))
    factor = max(1, int(square.side // size))
    if factor > 1:
        part = part.reduce(factor)
    scale = square.side / size
    matrix = _turn(square.angle) * scale / factor
    offset = (square.center - low) / factor - matrix @ [size / 2, size / 2]
    (a, b), (d, e) = matrix.tolist()
    c, f = offset.tolist()
    upright = part.transform((size, size), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR)
    return np.asarray(upright, np.float32)
