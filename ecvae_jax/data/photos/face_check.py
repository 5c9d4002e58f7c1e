"""The one judgment of a face in its photo, for preparation and for `transfer`: its crop and notes, or a refusal.

Landmarks may come from a file in another frame, or from a detector that is wrong. The checks are in the face's own
frame: its origin is midway between the eyes, v points to the mouth, and the mouth is at v = 1. On the 5,760 rendered
heads, with 45° of yaw and 20° of pitch, chin, brows and nose keep 0.2 or more from every bound here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ecvae_jax.data.errors import BadPhotoError
from ecvae_jax.data.photos.crop import CropBox, crop_box, outside_fraction
from ecvae_jax.data.photos.face_shapes import shape_error


class _Parts(NamedTuple):
    """Indices of the landmarks of one scheme (`structure.scheme`, which needs JAX; a test holds both equal)."""

    contour: range
    brows: range
    nose_base: range
    left_eye: range
    right_eye: range
    mouth: range
    left: tuple[int, ...]
    right: tuple[int, ...]


_PARTS = {
    68: _Parts(
        range(17), range(17, 27), range(31, 36), range(36, 42), range(42, 48), range(48, 60),
        left=(*range(8), *range(17, 22), 31, 32, *range(36, 42), 48),
        right=(*range(9, 17), *range(22, 27), 34, 35, *range(42, 48), 54),
    ),
    98: _Parts(
        range(33), range(33, 51), range(55, 60), range(60, 68), range(68, 76), range(76, 88),
        left=(*range(16), *range(33, 42), 55, 56, *range(60, 68), 76, 96),
        right=(*range(17, 33), *range(42, 51), 58, 59, *range(68, 76), 82, 97),
    ),
}  # fmt: skip
_UNMARKED = (-1.5, -1.0, -0.5, 0.0)
"""Both coordinates of points that sets mark as not visible: -1 or 0; a .pts file counts from 1."""
_NARROWEST = 0.03
"""Mean distance from left to right points; the heads at 45° have 0.48 or more. In a full profile it nears 0."""
_FARTHEST = 0.25
"""Largest `shape_error`; twice that of the photos measured."""
_SIDEWAYS, _UPSIDE_DOWN = 50.0, 120.0
"""Degrees of roll: beyond the first a note, or a refusal in a photo that EXIF turns; beyond the second a refusal."""


def check_face(
    landmarks: Float[np.ndarray, "p 2"],
    height: int,
    width: int,
    margin: float,
    min_side: float = 1.0,
    in_turned_photo: bool = False,
) -> tuple[CropBox, list[str]]:
    """Returns the face's crop in its photo and notes for the user.

    Args:
        landmarks: pixels of the upright photo.
        height: of the photo, pixels; `width` likewise.
        min_side: smallest crop, pixels.
        in_turned_photo: whether the landmarks were given for a photo that EXIF turned: they may be of the stored frame.

    Raises:
        BadPhotoError: the landmarks are not finite, not marked, outside the photo, too small or no face.
    """
    if not np.isfinite(landmarks).all():
        raise BadPhotoError("landmarks are not all numbers")
    inside = ((landmarks >= 0) & (landmarks <= [width, height])).all(axis=1)
    extent = float((landmarks.max(axis=0) - landmarks.min(axis=0)).max())
    unmarked = int((np.isin(landmarks[:, 0], _UNMARKED) & (landmarks[:, 0] == landmarks[:, 1])).sum())
    if 0 < unmarked < len(landmarks):
        raise BadPhotoError(f"landmarks not marked: {unmarked} of {len(landmarks)} are at (-1, -1) or (0, 0)")
    if inside.mean() < 0.5 or extent > 2 * max(height, width):
        raise BadPhotoError(
            f"landmarks outside: {int(inside.sum())} of {len(landmarks)} are in the photo of {width}×{height} px"
        )
    box = crop_box(landmarks, margin)
    if box.side < min_side:
        raise BadPhotoError(f"face too small: its crop is {box.side:.1f} px, at least {min_side:g} (min_side)")
    notes = _check_shape(landmarks.astype(np.float64), in_turned_photo)
    beyond = outside_fraction(box, height, width)
    if beyond > 0.005:
        notes.append(f"{beyond:.0%} of the crop is beyond the photo and is its reflection")
    return box, notes


def fills_upper_left_quarter(crop: dict[str, float], landmarks: Float[np.ndarray, "p 2"]) -> bool:
    """Returns whether all landmarks are in the photo's upper left quarter, as those measured on a half-size copy.

    Args:
        crop: `FaceOutcome.crop`: the crop in its photo, and the photo's size, pixels.
        landmarks: crop units.
    """
    far = landmarks.max(axis=0) * crop["side"] + [crop["x0"], crop["y0"]]
    return bool((far <= np.array([crop["width"], crop["height"]]) / 2).all())


def _check_shape(landmarks: Float[np.ndarray, "p 2"], in_turned_photo: bool) -> list[str]:
    parts = _PARTS.get(len(landmarks))
    if parts is None:
        return []

    def center(indices: range | tuple[int, ...]) -> Float[np.ndarray, " 2"]:
        return landmarks[list(indices)].mean(axis=0)

    eyes = (center(parts.left_eye) + center(parts.right_eye)) / 2
    down = center(parts.mouth) - eyes
    unit = float(np.hypot(*down))
    if unit < 0.1 * float(np.ptp(landmarks, axis=0).max()):
        raise BadPhotoError("landmarks are no face: eyes and mouth are at one place")
    down /= unit
    across = np.array([down[1], -down[0]])  # the viewer's right in an upright face
    if float((center(parts.right) - center(parts.left)) @ across) / unit < _NARROWEST:
        raise BadPhotoError(
            "landmarks are no face: mirrored, so left and right are exchanged, x and y are swapped or y counts upwards"
        )

    def below_eyes(indices: range | tuple[int, ...]) -> float:
        return float((center(indices) - eyes) @ down) / unit

    bounds = {
        "the chin is not below the mouth": (below_eyes((parts.contour[len(parts.contour) // 2],)), 1.05, 4.0),
        "the brows are not above the eyes": (below_eyes(parts.brows), -1.5, 0.1),
        "the nose is not between eyes and mouth": (below_eyes(parts.nose_base), 0.0, 1.1),
    }
    for fault, (place, low, high) in bounds.items():
        if not low <= place <= high:
            raise BadPhotoError(f"landmarks are no face: {fault}")
    contour = (landmarks[list(parts.contour)] - eyes) @ across / unit
    if contour.min() > 0.6 or contour.max() < -0.6 or np.ptp(contour) < 0.3:
        raise BadPhotoError("landmarks are no face: the contour is not around eyes and mouth")
    error = shape_error(landmarks)
    if error > _FARTHEST:
        raise BadPhotoError(
            f"landmarks are no face: {error:.2f} from any face, at most {_FARTHEST}; are points in another order, or "
            "parts exchanged?"
        )
    roll = float(np.degrees(np.arctan2(-down[0], down[1])))
    if in_turned_photo and abs(roll) > _SIDEWAYS:
        raise BadPhotoError(
            f"landmarks of another frame: they lie at {roll:.0f}° in a photo that EXIF turns; measure them in the "
            "upright photo"
        )
    if abs(roll) > _UPSIDE_DOWN:
        raise BadPhotoError(f"face upside down: its roll is {roll:.0f}°; turn the photo")
    return [f"the face lies sideways: its roll is {roll:.0f}°"] if abs(roll) > _SIDEWAYS else []
