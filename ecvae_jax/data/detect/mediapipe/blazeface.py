"""BlazeFace: approximate boxes of the faces of a photo, and their eyes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from ecvae_jax.data.detect.mediapipe.networks import Network

_MIN_SCORE = 0.5
_SAME_FACE = 0.3  # intersection over union above which two boxes are one face
# (network, ((cells of a grid, anchors per cell), …)): for faces that fill the image, and for smaller ones
_SHORT = ("face_detection_short_range", ((16, 2), (8, 6)))
_FULL = ("face_detection_full_range", ((48, 1),))


class FoundFace(NamedTuple):
    """A face found by BlazeFace, in pixels of the photo; 0 is the photo's left or upper edge."""

    box: Float[np.ndarray, " 4"]
    """x0, y0, x1, y1."""
    eyes: Float[np.ndarray, "2 2"]
    """The viewer's left eye and right eye."""
    score: float


class BlazeFace:
    """Finds faces in the whole photo; overlapping parts are searched only if it shows none."""

    def __init__(self) -> None:
        """Loads the networks.

        Raises:
            MissingExtraError: LiteRT or the networks are not installed.
        """
        self._short, self._full = ((Network(name), _anchors(cells)) for name, cells in (_SHORT, _FULL))

    def find(self, photo: Image.Image) -> Iterator[list[FoundFace]]:
        """Yields the faces of each attempt, from the fastest to the most thorough; a list may be empty."""
        width, height = photo.size
        whole = (0.0, 0.0, float(width), float(height))
        yield _merged(self._in_part(self._short, photo, whole))
        # The network needs room around a face that fills the photo.
        room = 0.25 * max(width, height)
        yield _merged(self._in_part(self._short, photo, (-room, -room, width + room, height + room)))
        yield _merged(self._in_part(self._full, photo, whole))
        for parts in (2, 4):
            side = 2 * max(width, height) / (parts + 1)
            if side < 2 * self._full[0].side:
                return
            corners = [(x, y) for y in np.arange(0, height, side / 2) for x in np.arange(0, width, side / 2)]
            found = [self._in_part(self._full, photo, (x, y, x + side, y + side)) for x, y in corners]
            yield _merged([face for faces in found for face in faces])

    @staticmethod
    def _in_part(
        detector: tuple[Network, np.ndarray], photo: Image.Image, part: tuple[float, float, float, float]
    ) -> list[FoundFace]:
        network, anchors = detector
        x0, y0, x1, y1 = part
        side = max(x1 - x0, y1 - y0)
        left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
        image = _square(photo, left, top, side, network.side)
        regressors, logits = network(image / 127.5 - 1.0)
        scores = 1 / (1 + np.exp(-np.clip(logits[:, 0], -50.0, 50.0)))
        chosen = np.flatnonzero(scores >= _MIN_SCORE)
        # Each row: the box's center, its width and height, then six points (x, y), in pixels of the network. All except
        # the size are relative to the anchor.
        rows = regressors[chosen].reshape(-1, 8, 2) / network.side
        rows[:, [0, 2, 3, 4, 5, 6, 7]] += anchors[chosen, None]
        rows[:, 1] /= 2
        rows *= side
        corner = np.array([left, top])
        return [
            FoundFace(
                np.concatenate([row[0] - row[1], row[0] + row[1]]) + np.tile(corner, 2), row[2:4] + corner, float(score)
            )
            for row, score in zip(rows, scores[chosen], strict=True)
        ]


def _anchors(grids: tuple[tuple[int, int], ...]) -> Float[np.ndarray, "n 2"]:
    """Returns the anchor (x, y), 0..1 across the image, of each row of the network's output."""
    places = []
    for cells, each in grids:
        line = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        places.append(np.repeat(grid, each, axis=0))
    return np.concatenate(places)


def _square(photo: Image.Image, left: float, top: float, side: float, size: int) -> Float[np.ndarray, "size size 3"]:
    """Returns a square of the photo at `size` pixels, black outside the photo."""
    width, height = photo.size
    x0, y0, x1, y1 = max(left, 0.0), max(top, 0.0), min(left + side, float(width)), min(top + side, float(height))
    scale = size / side
    inner = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
    kernel = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    canvas = Image.new("RGB", (size, size))
    place = (round((x0 - left) * scale), round((y0 - top) * scale))
    canvas.paste(photo.resize(inner, kernel, box=(x0, y0, x1, y1)), place)
    return np.asarray(canvas, np.float32)


def _merged(faces: list[FoundFace]) -> list[FoundFace]:
    """Returns one face per group of overlapping ones: their mean, weighted by score."""
    rest, merged = sorted(faces, key=lambda face: -face.score), []
    while rest:
        boxes = np.stack([face.box for face in rest])
        same = _overlap(boxes[0], boxes) > _SAME_FACE
        same[0] = True  # whatever its box: each iteration must remove at least one
        group = [face for face, one in zip(rest, same, strict=True) if one]
        weights = np.array([face.score for face in group])
        box, eyes = (
            np.average(np.stack([getattr(face, name) for face in group]), axis=0, weights=weights)
            for name in ("box", "eyes")
        )
        merged.append(FoundFace(box, eyes, rest[0].score))
        rest = [face for face, one in zip(rest, same, strict=True) if not one]
    return merged


def _overlap(box: Float[np.ndarray, " 4"], boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=1)
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)
    return shared / np.maximum(areas + np.prod(np.maximum(box[2:] - box[:2], 0.0)) - shared, 1e-9)
