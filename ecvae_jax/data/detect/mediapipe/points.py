"""The face mesh's 468 points converted to 98 (WFLW) or 68 (iBUG) landmarks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ecvae_jax.structure.scheme import get_scheme

# Points of the mesh along each boundary of the 98-point scheme.
CURVES = {
    "contour": (127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323,
                454, 356),
    "brow_left": (70, 63, 105, 66, 107),
    "brow_right": (336, 296, 334, 293, 300),
    "nose_bridge": (168, 6, 197, 195, 5, 4),
    "nose_base": (98, 97, 2, 326, 327),
    "eye_left_upper": (33, 246, 161, 160, 159, 158, 157, 173, 133),
    "eye_left_lower": (33, 7, 163, 144, 145, 153, 154, 155, 133),
    "eye_right_upper": (362, 398, 384, 385, 386, 387, 388, 466, 263),
    "eye_right_lower": (362, 382, 381, 380, 374, 373, 390, 249, 263),
    "lip_upper_outer": (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
    "lip_upper_inner": (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
    "lip_lower_inner": (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
    "lip_lower_outer": (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
    # From the outer tip of the upper line, which both lines share in the scheme, not from the mesh's tip (46, 276).
    "brow_left_lower": (70, 53, 52, 65, 55),
    "brow_right_lower": (285, 295, 282, 283, 300),
}  # fmt: skip

# The mesh points whose mean is each of the 68 landmarks.
POINTS_68: tuple[tuple[int, ...], ...] = (
    (127,), (234,), (93,), (132, 58), (58, 172), (136,), (150,), (176,), (152,), (400,), (379,), (365,), (397, 288),
    (361,), (323,), (454,), (356,), (156,), (63,), (105,), (66,), (107,), (336,), (296,), (334,), (293,), (383,),
    (168, 6), (197, 195), (5,), (4,), (98,), (97,), (2,), (326,), (327,), (33,), (160,), (158,), (133,), (153,), (144,),
    (362,), (385,), (387,), (263,), (373,), (380,), (61,), (39,), (37,), (0,), (267,), (269,), (291,), (321,), (314,),
    (17,), (84,), (91,), (78,), (82,), (13,), (312,), (308,), (317,), (14,), (87,),
)  # fmt: skip

_PUPILS_98 = (96, 97)


def mesh_to_landmarks(mesh: Float[np.ndarray, "468 2"], points: int) -> Float[np.ndarray, "p 2"]:
    """Returns the landmarks of a mesh, (points, 2).

    98: each boundary is its polyline on the mesh, resampled at equal lengths. The mesh lacks pupils; the eyes' centers
    replace them. 68: selected points, or the mean of two. Both schemes were annotated by hand on photographs, so this
    approximates their detectors.

    Raises:
        ValueError: points is neither 98 nor 68.
    """
    scheme = get_scheme(points)
    if points == 68:
        return np.stack([mesh[list(chosen)].mean(axis=0) for chosen in POINTS_68]).astype(np.float32)
    landmarks = np.zeros((points, 2))
    for name, curve in scheme.boundaries:
        landmarks[list(curve)] = _resampled(mesh[list(CURVES[name])], len(curve))
    for pupil, eye in zip(_PUPILS_98, scheme.eyes, strict=True):
        landmarks[pupil] = landmarks[list(eye)].mean(axis=0)
    return landmarks.astype(np.float32)


def _resampled(polyline: Float[np.ndarray, "n 2"], count: int) -> Float[np.ndarray, "count 2"]:
    """Returns `count` points at equal lengths along a polyline, both ends included."""
    lengths = np.linalg.norm(np.diff(polyline, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    wanted = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(wanted, along, polyline[:, axis]) for axis in (0, 1)], axis=-1)
