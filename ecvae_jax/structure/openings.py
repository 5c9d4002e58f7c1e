"""The eyes' and the mouth's openings: their lids and lips must not cross when landmarks move."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ecvae_jax.structure.scheme import Scheme


def without_crossing(face: Float[np.ndarray, "p 2"], scheme: Scheme) -> Float[np.ndarray, "p 2"]:
    """Returns the face with lids and lips that cross moved to their common middle."""
    face, down = face.copy(), face_down(face, scheme)
    for upper, lower in inner_openings(scheme):
        gap = (face[lower] - face[upper]) @ down
        crossed = np.minimum(gap, 0.0)[:, None] / 2 * down
        face[upper] += crossed
        face[lower] -= crossed
    return face


def inner_openings(scheme: Scheme) -> list[tuple[list[int], list[int]]]:
    """Returns the inner points of both lids of each eye, and of both lips: upper ones, lower ones."""
    curves = dict(scheme.boundaries)
    pairs = (("eye_left_upper", "eye_left_lower"), ("eye_right_upper", "eye_right_lower"),
             ("lip_upper_inner", "lip_lower_inner"))  # fmt: skip
    return [(list(curves[upper][1:-1]), list(curves[lower][1:-1])) for upper, lower in pairs]


def face_down(face: Float[np.ndarray, "p 2"], scheme: Scheme) -> Float[np.ndarray, " 2"]:
    """Returns the unit vector from the line of the eyes to the chin."""
    left, right = (face[list(eye)].mean(axis=0) for eye in scheme.eyes)
    across = (right - left) / (np.linalg.norm(right - left) + 1e-9)
    return np.array([-across[1], across[0]])
