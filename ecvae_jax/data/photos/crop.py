"""The crop rule: a square about the landmarks, equal for all sources and detectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image


class CropBox(NamedTuple):
    """A square in pixels of its photo; 0 is the photo's left or upper edge. It may extend beyond the photo."""

    x0: float
    y0: float
    side: float


def crop_box(landmarks: Float[np.ndarray, "p 2"], margin: float) -> CropBox:
    """Returns the square with the center of the landmarks' bounding box and `margin` times its longer side.

    Args:
        landmarks: pixels of the photo.
        margin: at 1 the landmarks touch the crop's edge; 1.5 leaves a sixth of the crop free at both ends.
    """
    low, high = landmarks.min(axis=0).astype(np.float64), landmarks.max(axis=0).astype(np.float64)
    side = margin * float((high - low).max())
    x0, y0 = (low + high) / 2 - side / 2
    return CropBox(float(x0), float(y0), side)


def to_crop_units(landmarks: Float[np.ndarray, "p 2"], box: CropBox) -> Float[np.ndarray, "p 2"]:
    """Returns landmarks in crop units (0..1 across the crop), from pixels of the photo."""
    return ((landmarks.astype(np.float64) - [box.x0, box.y0]) / box.side).astype(np.float32)


def outside_fraction(box: CropBox, height: int, width: int) -> float:
    """Returns the fraction of the square's area outside the photo, 0..1."""
    inside_x = max(0.0, min(box.x0 + box.side, width) - max(box.x0, 0.0))
    inside_y = max(0.0, min(box.y0 + box.side, height) - max(box.y0, 0.0))
    return 1.0 - inside_x * inside_y / box.side**2


def cut_crop(photo: UInt8[np.ndarray, "h w 3"], box: CropBox, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """Returns the square of the photo as `size` × `size` pixels.

    Outside the photo its reflection continues it, which keeps the statistics of skin, hair and background (repeating
    the last pixel draws streaks). A larger crop is reduced by area means, a smaller one enlarged bicubically.
    """
    left, top = int(np.floor(box.x0)), int(np.floor(box.y0))
    right, bottom = int(np.ceil(box.x0 + box.side)), int(np.ceil(box.y0 + box.side))
    window = Image.fromarray(_window(photo, top, max(bottom, top + 1), left, max(right, left + 1)))
    x0, y0 = box.x0 - left, box.y0 - top
    bounds = (x0, y0, min(x0 + box.side, window.width), min(y0 + box.side, window.height))
    kernel = Image.Resampling.BOX if box.side >= size else Image.Resampling.BICUBIC
    return np.asarray(window.resize((size, size), kernel, box=bounds))


def paste_crop(
    photo: UInt8[np.ndarray, "h w 3"], crop: UInt8[np.ndarray, "s s 3"], box: CropBox, feather: float = 0.1
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the photo with a square image, such as a synthesized face, pasted where its crop was cut.

    Args:
        photo: the upright photo of the crop.
        box: the position of the crop: `x0`, `y0` and `side` of the record's tag `crop`.
        feather: width of the soft border inside the square, as a fraction of its side; 0 is a hard edge.
    """
    height, width = photo.shape[:2]
    left, top = max(0, int(np.floor(box.x0))), max(0, int(np.floor(box.y0)))
    right, bottom = min(width, int(np.ceil(box.x0 + box.side))), min(height, int(np.ceil(box.y0 + box.side)))
    if right <= left or bottom <= top:
        return photo.copy()
    # The inverse of cutting: each pixel of the photo samples the crop at its center's position in the square.
    scale = crop.shape[0] / box.side
    edges = ((left, box.x0), (top, box.y0), (right, box.x0), (bottom, box.y0))
    bounds = tuple((edge - origin) * scale for edge, origin in edges)
    size = (right - left, bottom - top)
    matrix = ((bounds[2] - bounds[0]) / size[0], 0, bounds[0], 0, (bounds[3] - bounds[1]) / size[1], bounds[1])
    pasted = Image.fromarray(crop).transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    columns = (np.arange(left, right) + 0.5 - box.x0) / box.side
    rows = (np.arange(top, bottom) + 0.5 - box.y0) / box.side
    across, down = (np.clip(np.minimum(at, 1 - at) / max(feather, 1e-9), 0, 1) for at in (columns, rows))
    weight = (down[:, None] * across[None, :])[..., None]
    out = photo.copy()
    under = out[top:bottom, left:right]
    out[top:bottom, left:right] = np.rint(weight * np.asarray(pasted) + (1 - weight) * under).astype(np.uint8)
    return out


def _window(
    photo: UInt8[np.ndarray, "h w 3"], top: int, bottom: int, left: int, right: int
) -> UInt8[np.ndarray, "a b 3"]:
    height, width = photo.shape[:2]
    inside = photo[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    beyond = ((max(0, -top), max(0, bottom - height)), (max(0, -left), max(0, right - width)), (0, 0))
    if not any(map(any, beyond)):
        return inside
    if all(max(pads) < length for pads, length in zip(beyond, inside.shape, strict=True)):
        return np.pad(inside, beyond, "reflect")  # five times as fast as the general case below
    rows, columns = np.arange(top, bottom), np.arange(left, right)
    return photo.take(_reflected(rows, height), 0).take(_reflected(columns, width), 1)


def _reflected(index: Int[np.ndarray, " n"], length: int) -> Int[np.ndarray, " n"]:
    """Returns indices into 0..length-1 of a signal continued by its reflection, without repeating the edge."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    index = np.abs(index) % period
    return np.minimum(index, period - index)
