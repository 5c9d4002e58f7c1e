"""How far landmarks are from any face: from the linear space of the shapes of the embedded heads.

A face seen from any side is an affine image of one in space, so its coordinates lie near three directions; three more
hold the expressions. The directions are in face_shapes.json, which `python tools/fit_face_shapes.py` writes.

Errors, in units of the shape's size (RMS): embedded heads at most 0.09; 376 photos by dlib and 380 by MediaPipe at most
0.12. Points off by one place have 0.4, exchanged eyes 0.29 or more. Points off by 5% of the crop have 0.24 to 0.38.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float

RANK = 6
"""Number of directions."""
FILE = Path(__file__).with_suffix(".json")


def fit_shapes(landmarks: Float[np.ndarray, "n p 2"]) -> Float[np.ndarray, "r p"]:
    """Returns orthonormal directions of the coordinates of upright faces; `r` is `RANK`."""
    centered = landmarks - landmarks.mean(axis=1, keepdims=True)
    centered /= _size(centered)[:, None, None]
    rows = np.concatenate([centered[..., 0], centered[..., 1]])
    return np.linalg.svd(rows, full_matrices=False)[2][:RANK]


def shape_error(landmarks: Float[np.ndarray, "p 2"]) -> float:
    """Returns the RMS distance of landmarks from the nearest face, in units of their own RMS size: 0 to 1.

    Turns, scales and shifts change nothing. Landmarks of another scheme than 68 or 98 points have 0.
    """
    directions = _directions().get(len(landmarks))
    centered = landmarks - landmarks.mean(axis=0)
    if directions is None or not centered.any():
        return 0.0
    rest = centered - directions.T @ (directions @ centered)
    error, size = _size(np.stack([rest, centered]))
    return float(error / size)


def _size(centered: Float[np.ndarray, "n p 2"]) -> Float[np.ndarray, " n"]:
    return np.sqrt((centered**2).sum(axis=-1).mean(axis=-1))


@functools.cache
def _directions() -> dict[int, Float[np.ndarray, "r p"]]:
    return {int(points): np.array(rows) for points, rows in json.loads(FILE.read_text()).items()}
