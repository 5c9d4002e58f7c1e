"""Glasses: two rims, a bridge and two temples as thin tubes, fitted to eyes and ears of a face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_SHAPES = {
    "round": (0.205, 0.195, 2.0),
    "oval": (0.235, 0.165, 2.3),
    "square": (0.245, 0.165, 4.0),
    "large": (0.275, 0.215, 2.8),
}
"""Half width and half height of a lens in decimeters, and the exponent of its superellipse."""
_TINTS = {
    "black": (0.01, 0.01, 0.012),
    "tortoise": (0.07, 0.03, 0.012),
    "metal": (0.35, 0.34, 0.32),
    "gold": (0.40, 0.27, 0.09),
    "red": (0.16, 0.012, 0.015),
    "blue": (0.02, 0.04, 0.13),
    "clear": (0.42, 0.42, 0.43),
}


@dataclass(frozen=True)
class Glasses:
    """One pair: the shape of the lenses, the color of the frame (linear RGB) and the radius of its tubes."""

    shape: str
    color: str
    thickness: float
    shaded: float
    """Opacity of the lenses, 0.06 (clear) to 0.35."""

    @property
    def tint(self) -> np.ndarray:
        """The frame's color."""
        return np.array(_TINTS[self.color])


@dataclass(frozen=True)
class Mesh:
    """Triangles with smooth normals."""

    positions: Float[np.ndarray, "v 3"]
    normals: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]


def draw_glasses(rng: np.random.Generator) -> Glasses:
    """Returns a random pair."""
    shape = str(rng.choice(list(_SHAPES)))
    color = str(rng.choice(list(_TINTS), p=[0.35, 0.2, 0.15, 0.1, 0.06, 0.08, 0.06]))
    thin = color in ("metal", "gold")
    shaded = 0.05 if rng.random() < 0.85 else float(rng.uniform(0.15, 0.35))
    return Glasses(shape, color, float(rng.uniform(0.009, 0.013) if thin else rng.uniform(0.016, 0.027)), shaded)


def fit(glasses: Glasses, landmarks: Float[np.ndarray, "98 3"], shape: Float[np.ndarray, "m 3"]) -> tuple[Mesh, Mesh]:
    """Returns frame and lenses for a neutral face, from its landmarks and all vertices of the drawn mesh."""
    width, height, power = _SHAPES[glasses.shape]
    right, left = landmarks[60:68].mean(0), landmarks[68:76].mean(0)
    scale = (left[0] - right[0]) / 0.62
    middle_x, level = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2 + 0.01
    half = (left[0] - right[0]) / 2 * 1.04
    brows, lids = landmarks[[33, 34, 35, 44, 45, 46], 2].max(), landmarks[[62, 70], 2].max()
    front = max(landmarks[51, 2], brows, lids + 0.08) + 0.035
    edge = half + width * scale
    ears = shape[np.abs(shape[:, 1] - level) < 0.12]
    ears = ears[(ears[:, 2] > 0.15) & (ears[:, 2] < 0.75)]
    side = np.abs(ears[:, 0] - middle_x).max() if len(ears) else 0.85
    side = max(side - 0.03, edge)
    angle = np.linspace(0, 2 * np.pi, 49)[:-1]
    tubes, lenses = [], []
    for sign in (-1.0, 1.0):
        across = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / power) * width * scale
        up = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** (2 / power) * height * scale
        up = np.where(up < 0, up * 1.08, up)
        x = sign * half + across
        rim = np.stack([middle_x + x, level + up, front - 0.22 * np.clip(np.abs(x) - 0.25, 0, None) ** 1.5], 1)
        tubes.append(_tube(rim, glasses.thickness, closed=True))
        lenses.append(_disc(rim))
        hinge = np.array([middle_x + sign * edge, level + 0.05, rim[:, 2].min()])
        ear = np.array([middle_x + sign * side, level + 0.04, 0.42])
        temple = hinge + (ear - hinge) * np.linspace(0, 1, 8)[:, None]
        temple[:, 0] += sign * 0.03 * np.sin(np.pi * np.linspace(0, 1, 8))
        tubes.append(_tube(temple, glasses.thickness * 0.9, closed=False))
    inner = half - width * scale
    t = np.linspace(-1, 1, 9)
    bridge = np.stack([middle_x + t * inner, level + 0.04 + 0.035 * (1 - t**2), front + 0.02 * (1 - t**2)], 1)
    tubes.append(_tube(bridge, glasses.thickness * 0.9, closed=False))
    return _join(tubes), _join(lenses)


def _tube(path: np.ndarray, radius: float, closed: bool, sides: int = 8) -> Mesh:
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    helper = np.array([0.0, 0.0, 1.0]) if closed else np.array([0.0, 1.0, 0.0])
    first = np.cross(ahead, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(ahead, first)
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    normals = first[:, None] * np.cos(turn)[None, :, None] + second[:, None] * np.sin(turn)[None, :, None]
    positions = path[:, None] + radius * normals
    count = len(path)
    rows = np.arange(count if closed else count - 1)
    i, j = (q.ravel() for q in np.meshgrid(rows, np.arange(sides), indexing="ij"))
    k, m = (i + 1) % count, (j + 1) % sides
    a, b, c, d = i * sides + j, k * sides + j, k * sides + m, i * sides + m
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return Mesh(positions.reshape(-1, 3), normals.reshape(-1, 3), faces)


def _disc(rim: np.ndarray) -> Mesh:
    positions = np.concatenate([rim.mean(0, keepdims=True), rim])
    around = np.arange(len(rim))
    faces = np.stack([np.zeros_like(around), 1 + around, 1 + (around + 1) % len(rim)], 1)
    bulge = (positions - positions[0]) * np.array([0.8, 0.8, 0.0]) + np.array([0.0, 0.0, 1.0])
    return Mesh(positions, bulge / np.linalg.norm(bulge, axis=1, keepdims=True), faces)


def _join(meshes: list[Mesh]) -> Mesh:
    offsets = np.cumsum([0] + [len(mesh.positions) for mesh in meshes])
    return Mesh(
        np.concatenate([mesh.positions for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, offsets, strict=False)]),
    )
