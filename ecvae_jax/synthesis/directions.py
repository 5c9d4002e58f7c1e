"""Named directions of the structure, such as smile, yaw and blink, fitted to the embedded heads.

Every view of the heads has its pose and the weights of its expressions as tags. Least squares on the aligned landmarks,
relative to the same person's neutral frontal view, gives the change of the structure for each.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float

from ecvae_jax.data.faces import load_faces
from ecvae_jax.structure.align import align_landmarks
from ecvae_jax.structure.scheme import get_scheme

POSES = ("yaw", "pitch")
"""Directions that move the whole head; their amounts are degrees, those of all others 1 for the full expression."""


@functools.cache
def fit_directions(points: int) -> dict[str, Float[np.ndarray, "p 2"]]:
    """Returns the change of an aligned face per full expression, and per degree of `yaw` and `pitch`.

    Raises:
        DataError: the package was installed without its data files.
    """
    faces, scheme = load_faces("rendered", "train"), get_scheme(points)
    shapes = np.asarray(align_landmarks(faces.landmarks_as(points), scheme, True), np.float64)
    tags = list(faces.tags)
    names = sorted({name for tag in tags for name in tag["expression"]} - {"neutral"})
    neutral = {group: row for row, group in reversed(list(enumerate(faces.groups)))}  # a group's first view
    rows = np.array([[tag["yaw"], tag["pitch"], *(tag["expression"].get(n, 0.0) for n in names)] for tag in tags])
    # A turn to either side shortens the face alike: an even term keeps that out of the odd ones.
    rows = np.concatenate([rows, rows[:, :2] ** 2], axis=1)
    first = np.array([neutral[group] for group in faces.groups])
    change = (shapes - shapes[first]).reshape(len(shapes), -1)
    fitted, *_ = np.linalg.lstsq(rows - rows[first], change, rcond=None)
    return {name: fitted[i].reshape(-1, 2) for i, name in enumerate([*POSES, *names])}


def in_frame(
    direction: Float[np.ndarray, "p 2"], landmarks: Float[np.ndarray, "p 2"], anchored: bool
) -> Float[np.ndarray, "p 2"]:
    """Returns a change of aligned landmarks in the size and roll of a face.

    Args:
        anchored: whether the bridge of the nose stays: aligning moves the whole face when its mouth opens.
    """
    scheme = get_scheme(len(landmarks))
    left, right = (landmarks[list(eye)].mean(axis=0) for eye in scheme.eyes)
    cos, sin = (right - left) / np.linalg.norm(right - left)
    size = float(np.sqrt(((landmarks - landmarks.mean(axis=0)) ** 2).sum(axis=-1).mean()))
    if anchored:
        direction = direction - direction[list(dict(scheme.boundaries)["nose_bridge"])].mean(axis=0)
    return size * direction @ np.array([[cos, sin], [-sin, cos]])
