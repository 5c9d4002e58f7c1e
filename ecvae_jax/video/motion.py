"""A driver's motion given to a source: relative to the driver's frame at rest, or the driver's own structure.

Relative motion keeps the source's face shape: per frame, the driver's landmarks relative to its frame at rest split
into a similarity (the head moves, grows, rolls) and a rest (it turns, it changes its expression). Both are scaled to
the source's face. Rest is the tenth of the frames whose structure is nearest to the source's, so there the source looks
as in its photo. Reference for relative motion: Siarohin et al. 2019, First Order Motion Model (https://arxiv.org/abs/2003.00196).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ecvae_jax.structure.align import align_landmarks
from ecvae_jax.structure.openings import face_down, inner_openings, without_crossing
from ecvae_jax.structure.scheme import Scheme, get_scheme

MotionKind = Literal["relative", "absolute"]

_REST_FRAMES = 3
"""Fewest frames of which rest is the mean."""
_OPENING = (0.5, 2.0)
"""Bounds of the factor between the openings of two faces' eyes."""


class Pose(NamedTuple):
    """A similarity: points @ turn + shift."""

    turn: Float[np.ndarray, "2 2"]
    """Rotation times scale."""
    shift: Float[np.ndarray, " 2"]

    def apply(self, points: Float[np.ndarray, "p 2"]) -> Float[np.ndarray, "p 2"]:
        """Returns the points in the other frame."""
        return points @ self.turn + self.shift

    def undo(self, points: Float[np.ndarray, "p 2"]) -> Float[np.ndarray, "p 2"]:
        """Returns the points back in the first frame."""
        return (points - self.shift) @ np.linalg.inv(self.turn)


def fit_pose(start: Float[np.ndarray, "p 2"], end: Float[np.ndarray, "p 2"]) -> Pose:
    """Returns the similarity that maps `start` to `end` by least squares."""
    first, second = start - start.mean(axis=0), end - end.mean(axis=0)
    power = float((first**2).sum()) + 1e-12
    cos = float((first * second).sum()) / power
    sin = float((first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum()) / power
    turn = np.array([[cos, sin], [-sin, cos]])
    return Pose(turn, end.mean(axis=0) - start.mean(axis=0) @ turn)


def rest_frames(driver: Float[np.ndarray, "n p 2"], source: Float[np.ndarray, "p 2"]) -> Int[np.ndarray, " k"]:
    """Returns the frames whose aligned structure is nearest to the source's, the nearest first: a tenth, at least 3."""
    scheme = get_scheme(driver.shape[1])
    shapes = np.asarray(align_landmarks(driver.astype(np.float32), scheme, True))
    wanted = np.asarray(align_landmarks(source[None].astype(np.float32), scheme, True))
    order = np.argsort(((shapes - wanted) ** 2).sum(axis=(1, 2)), kind="stable")
    return order[: max(_REST_FRAMES, len(driver) // 10)]


def relative_motion(
    driver: Float[np.ndarray, "n p 2"], source: Float[np.ndarray, "p 2"]
) -> tuple[Float[np.ndarray, "n p 2"], int]:
    """Returns the source's landmarks moved as the driver's, in the source's frame, and the frame nearest to rest.

    Args:
        driver: smoothed, pixels.
        source: in any frame, such as crop units.
    """
    scheme, nearest = get_scheme(driver.shape[1]), rest_frames(driver, source)
    frames = driver.astype(np.float64)
    # One frame would add its noise to all others.
    first = frames[nearest[0]]
    rest = np.mean([fit_pose(frames[k], first).apply(frames[k]) for k in nearest], axis=0)
    to_source = fit_pose(rest, source.astype(np.float64))
    scale = _lid_scale(rest, source, to_source, scheme)
    moved = np.empty(driver.shape, np.float32)
    for row, now in enumerate(frames):
        head = fit_pose(rest, now)
        expression = (head.undo(now) - rest) @ to_source.turn
        at_home = to_source.undo(source + scale * expression)  # in the driver's frame, the source's head in its place
        moved[row] = without_crossing(to_source.apply(head.apply(at_home)), scheme)
    return moved, int(nearest[0])


def absolute_motion(driver: Float[np.ndarray, "n p 2"], source: Float[np.ndarray, "p 2"]) -> Float[np.ndarray, "n p 2"]:
    """Returns the driver's own structure in the source's frame: one similarity for all frames, at their median face.

    A crop that follows the landmarks' box grows when the mouth opens. One crop for all frames cannot shake.
    """
    middle = np.median(driver, axis=0)
    pose = fit_pose(middle.astype(np.float64), source.astype(np.float64))
    size = float(np.sqrt(np.abs(np.linalg.det(pose.turn))))
    upright = Pose(size * np.eye(2), source.mean(axis=0) - size * middle.mean(axis=0))
    return np.stack([upright.apply(frame) for frame in driver.astype(np.float64)]).astype(np.float32)


def within(
    faces: Float[np.ndarray, "n p 2"], source: Float[np.ndarray, "p 2"], reach: float
) -> tuple[Float[np.ndarray, "n p 2"], int]:
    """Returns faces whose centers stay near the source's, and how many were moved back.

    Args:
        reach: largest distance along x or y, in units of the faces.
    """
    away = faces.mean(axis=1) - source.mean(axis=0)
    # soft: unchanged near 0, never beyond the reach, without a corner where a moving head would stop at once
    kept = reach * np.tanh(away / reach)
    return (faces + (kept - away)[:, None]).astype(np.float32), int((np.abs(away) > reach).any(axis=1).sum())


def _lid_scale(
    rest: Float[np.ndarray, "p 2"], source: Float[np.ndarray, "p 2"], to_source: Pose, scheme: Scheme
) -> Float[np.ndarray, "p 1"]:
    """Returns the factor of each point's motion: that of the lids is the ratio of both faces' openings.

    A lid that closes a driver's narrow eye would leave the source's wide eye half open.
    """
    factors = np.ones((len(source), 1))
    placed = to_source.apply(rest)
    for upper, lower in inner_openings(scheme)[:2]:
        mine, theirs = (
            float(((face[lower] - face[upper]) @ face_down(face, scheme)).mean()) for face in (source, placed)
        )
        factors[[*upper, *lower]] = np.clip(mine / max(theirs, 1e-6), *_OPENING)
    return factors
