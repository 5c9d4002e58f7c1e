"""The exact 98 landmarks (WFLW order) of a head: fixed points of the mesh, projected by the camera."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
from jaxtyping import Float

from tools.render_heads.mesh import EYE_LEFT, EYE_RIGHT, HeadMesh

POINTS = 98
LID_PAIRS = {"Right": ((61, 67), (62, 66), (63, 65)), "Left": ((69, 75), (70, 74), (71, 73))}
"""(upper, lower) lid points by the subject's side; the subject's right eye is on the left of the image."""

_PUPILS = {EYE_RIGHT: (96, (62, 66)), EYE_LEFT: (97, (70, 74))}
_BROW_PAIRS = ((34, 41), (35, 40), (36, 39), (37, 38), (42, 50), (43, 49), (44, 48), (45, 47))


class LandmarkMap:
    """The table vertex -> landmark for one drawn mesh."""

    def __init__(self, mesh: HeadMesh) -> None:
        """Reads the table beside this file."""
        table = json.loads(resources.files("tools.render_heads").joinpath("landmarks98.json").read_text())["points"]
        self._index = np.zeros((POINTS, 4), int)
        self._weight = np.zeros((POINTS, 4))
        for k, row in enumerate(table):
            for slot, (vertex, weight) in enumerate(row):
                self._index[k, slot], self._weight[k, slot] = mesh.index_of[vertex], weight
        if (self._index < 0).any():
            raise ValueError("landmarks98.json: names a vertex that is not part of the drawn mesh")
        self._eyes = {part: np.flatnonzero(mesh.part == part) for part in (EYE_LEFT, EYE_RIGHT)}
        self._rest = mesh.rest

    def raw(self, positions: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "98 3"]:
        """Returns the weighted means of the table's vertices."""
        return (positions[self._index] * self._weight[..., None]).sum(1)

    def points(
        self, positions: Float[np.ndarray, "m 3"], gaze: Float[np.ndarray, " 3"], brow_thickness: float
    ) -> Float[np.ndarray, "98 3"]:
        """Returns the landmarks of an unrotated head, with brow edges as drawn and pupils along the gaze.

        `gaze` is the unit direction of sight in head coordinates; `brow_thickness` is 1 for the table's brow. If the
        upper lid is below the lower one, the visible edge is the upper lid's.
        """
        points = self.raw(positions)
        for upper, lower in _BROW_PAIRS:
            middle, half = (points[upper] + points[lower]) / 2, (points[upper] - points[lower]) / 2
            points[upper], points[lower] = middle + brow_thickness * half, middle - brow_thickness * half
        for pairs in LID_PAIRS.values():
            for upper, lower in pairs:
                if points[upper, 1] < points[lower, 1]:
                    points[lower] = points[upper]
        for part, (pupil, (upper, lower)) in _PUPILS.items():
            points[pupil] = self._on_eye(positions, part, gaze)
            points[pupil, 1] = np.clip(points[pupil, 1], points[lower, 1], points[upper, 1])
        return points

    def eye_center(self, part: int) -> Float[np.ndarray, " 3"]:
        """Returns the center of one eyeball of the mesh at rest, about which the shader draws the iris."""
        eye = self._rest[self._eyes[part]]
        return (eye.min(0) + eye.max(0)) / 2

    def _on_eye(self, positions: np.ndarray, part: int, gaze: np.ndarray) -> np.ndarray:
        """Returns where the line of sight leaves the eyeball as deformed by the identity (an affine fit)."""
        at_rest, moved = self._rest[self._eyes[part]], positions[self._eyes[part]]
        fit, *_ = np.linalg.lstsq(np.c_[at_rest, np.ones(len(at_rest))], moved, rcond=None)
        center = self.eye_center(part)
        radius = np.linalg.norm(at_rest - center, axis=1).max()
        return np.r_[center + radius * gaze, 1.0] @ fit
