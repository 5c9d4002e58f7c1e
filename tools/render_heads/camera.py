"""Rotation of a head on its neck, and the camera whose image is the square about the landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_NECK = np.array([0.0, 6.15, 0.30])
_TORSO_SHARE = 0.35  # fraction of the head's rotation that the shoulders follow


@dataclass(frozen=True)
class Pose:
    """Head rotation in degrees: positive yaw to the right of the image, pitch up, roll clockwise in the image."""

    yaw: float
    pitch: float
    roll: float

    def rotation(self, share: float = 1.0) -> Float[np.ndarray, "3 3"]:
        """Returns the rotation matrix (x right, y up, z to the camera) for `share` of the angles."""
        yaw, pitch, roll = np.radians(np.array([self.yaw, -self.pitch, -self.roll]) * share)
        about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        return about_z @ about_x @ about_y


def turn(
    points: Float[np.ndarray, "n 3"], pose: Pose, rest: Float[np.ndarray, "n 3"], directions: bool = False
) -> Float[np.ndarray, "n 3"]:
    """Returns points (or directions at them) of a head rotated on its neck; the shoulders follow by about a third.

    `rest` gives each point's position on the head at rest: points above the jaw move with the skull.
    """
    height = rest[:, 1] + 0.7 * np.clip(rest[:, 2] - 0.55, 0.0, 0.9)
    skull = np.clip((height - 5.55) / 1.0, 0.0, 1.0)[:, None]
    skull = skull * skull * (3 - 2 * skull)
    whole, part = pose.rotation(), pose.rotation(_TORSO_SHARE)
    if directions:
        turned = skull * (points @ whole.T) + (1 - skull) * (points @ part.T)
        return turned / (np.linalg.norm(turned, axis=1, keepdims=True) + 1e-12)
    offset = points - _NECK
    return _NECK + skull * (offset @ whole.T) + (1 - skull) * (offset @ part.T)


@dataclass(frozen=True)
class Crop:
    """A camera on the z axis at `distance` from the neck, and the square of its image plane that forms the image."""

    distance: float
    center: tuple[float, float]
    half: float

    @property
    def position(self) -> Float[np.ndarray, " 3"]:
        """The camera's position."""
        return np.array([0.0, _NECK[1] + 0.6, self.distance])

    def clip_matrix(self) -> Float[np.ndarray, "4 4"]:
        """Returns the matrix from world to OpenGL clip coordinates (column vectors)."""
        near, far = self.distance - 4.0, self.distance + 4.0
        x, y, z = self.position
        cx, cy, h = self.center[0], self.center[1], self.half
        depth, offset = (far + near) / (far - near), 2 * far * near / (far - near)
        return np.array(
            [
                [1 / h, 0, cx / h, -x / h - cx * z / h],
                [0, 1 / h, cy / h, -y / h - cy * z / h],
                [0, 0, -depth, depth * z - offset],
                [0, 0, -1, z],
            ]
        )

    def project(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Returns points in crop units: 0..1 across the image, x right, y down."""
        plane = image_plane(points, self.distance)
        unit = (plane - np.array(self.center)) / (2 * self.half)
        return np.stack([0.5 + unit[:, 0], 0.5 - unit[:, 1]], 1)


def image_plane(points: Float[np.ndarray, "n 3"], distance: float) -> Float[np.ndarray, "n 2"]:
    """Returns points on the image plane at unit distance in front of the camera, y up."""
    offset = points - Crop(distance, (0.0, 0.0), 1.0).position
    return offset[:, :2] / -offset[:, 2:]


def frame_landmarks(
    points: Float[np.ndarray, "n 3"], distance: float, margin: float, scale: float, shift: tuple[float, float]
) -> Crop:
    """Returns the square about the landmarks: margin times the longer side of their box, then scaled and shifted.

    `shift` is in sides of the square.
    """
    plane = image_plane(points, distance)
    low, high = plane.min(0), plane.max(0)
    side = margin * scale * float((high - low).max())
    center = (low + high) / 2 + side * np.array(shift)
    return Crop(distance, (float(center[0]), float(center[1])), side / 2)
