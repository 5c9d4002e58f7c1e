"""Hair as a sheet of strands, from the crown over the skull, then hanging down; drawn in several layers.

A sheet is made on the head at rest, then deformed with the identity's shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from tools.render_heads.hair import CENTER, HairStyle, hairline, polar_coordinates
from tools.render_heads.mesh import SKIN, HeadMesh

_STRANDS, _STEPS = 121, 32


@dataclass(frozen=True)
class HairSheet:
    """A sheet bound to the head: positions at rest, their strand coordinates, and triangles.

    `strand` holds per vertex the strand (0..1 around the head), the position along it (0 root, 1 tip), the depth of the
    loose layers, and the fraction of the length by which tips differ.
    """

    positions: Float[np.ndarray, "h 3"]
    normals: Float[np.ndarray, "h 3"]
    tangents: Float[np.ndarray, "h 3"]
    strand: Float[np.ndarray, "h 4"]
    faces: Int[np.ndarray, "g 3"]


def make_sheet(
    style: HairStyle, rng: np.random.Generator, mesh: HeadMesh, shape: Float[np.ndarray, "m 3"]
) -> HairSheet | None:
    """Returns the sheet of a person's hair on the person's shape, or None if the style has no sheet."""
    if not style.sheet:
        return None
    part = style.parting if style.parting is not None else 180.0
    side = 1.0 if rng.random() < 0.5 else -1.0
    start = part * side if style.parting is not None else 180.0
    azimuth = start + np.linspace(0, 360, _STRANDS)
    azimuth = (azimuth + 180) % 360 - 180
    if style.parting is not None:  # both edges of the sheet meet at the parting
        azimuth[0], azimuth[-1] = start + 0.2, start - 0.2
    along = np.linspace(0, 1, _STEPS)
    positions, loose = _strands(style, rng, mesh, azimuth, along, start)
    strand = np.stack(
        [
            np.broadcast_to(np.linspace(0, 1, _STRANDS)[:, None], loose.shape),
            np.broadcast_to(along[None], loose.shape),
            style.fuzz * np.broadcast_to(np.clip(along / 0.15, 0.3, 1)[None], loose.shape),
            np.where(loose > 0.5, 0.13, 0.16 / style.spring),
        ],
        -1,
    )
    grid = np.arange(_STRANDS * _STEPS).reshape(_STRANDS, _STEPS)
    a, b, c, d = (q.ravel() for q in (grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]))
    faces = np.concatenate([np.stack([a, d, b], 1), np.stack([b, d, c], 1)])
    points, strand = positions.reshape(-1, 3), strand.reshape(-1, 4)
    if style.bun:
        points, strand, faces = _add_bun(style.bun, points, strand, faces)
    points = _follow(points, mesh, shape)
    return HairSheet(points, *_sheet_frame(points, strand, faces), strand, faces)


def _strands(
    style: HairStyle, rng: np.random.Generator, mesh: HeadMesh, azimuth: np.ndarray, along: np.ndarray, start: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions (strands, steps, 3), and per point how freely the tip hangs (0..1)."""
    away = np.abs(azimuth)
    line = hairline(style, azimuth)
    fringe = style.fringe * np.clip((style.opening - away) / 12, 0, 1)
    hangs = np.zeros(len(azimuth))
    if style.hang is not None:
        # with a parting the front hangs too; otherwise only hair behind the opening
        hangs = np.ones(len(azimuth)) if style.parting is not None else np.clip((away - style.opening) / 10 + 1, 0, 1)
    last = np.where(hangs > 0.5, 84.0, line + fringe + 3)
    polar = along[None] * last[:, None]
    around = np.broadcast_to(azimuth[:, None], polar.shape).copy()
    if style.parting is not None:
        sideways = np.where((azimuth - start + 540) % 360 - 180 >= 0, 1.0, -1.0) * style.opening
        target = np.where(away < style.opening, sideways, azimuth)
        swept = np.clip((polar - 0.80 * line[:, None]) / (0.32 * line[:, None]), 0, 1) ** 1.3
        amount = np.clip((style.opening + 8 - away) / 16, 0, 1)[:, None] * swept
        around += (target[:, None] - around) * np.clip(amount, 0, 1) * (1.0 if style.hang is not None else 0.45)
    direction = _direction(around, polar)
    radius = _skull(mesh)(direction)
    front = np.clip(np.cos(np.radians(around)), 0, 1)
    high = np.clip(1 - polar / 85.0, 0, 1)
    thickness = (
        style.side
        + (style.top - style.side) * np.clip(high * 1.7, 0, 1)
        + style.lift * front**2 * np.clip((polar - 15) / 35, 0, 1)
    )
    # hair that ends on the skin flattens towards its end
    free = np.maximum(hangs, (fringe > 2).astype(float))[:, None]
    lying = np.clip((last[:, None] - polar) / 14.0 * style.spring, 0.0, 1.0)
    lying = np.where(style.lift * front > 0.05, np.clip(lying * 2.5, 0, 1), lying)
    thickness = thickness * np.where(free > 0.5, 1.0, lying) - np.where(free > 0.5, 0.0, 0.03) * (1 - lying)
    wave = _waves(rng, around, polar) * style.lumps
    points = CENTER + direction * (radius + thickness + wave)[..., None]
    if style.hang is not None:
        points = _hang(style, rng, points, hangs > 0.5, along)
    return points, np.broadcast_to(free, polar.shape)


def _hang(style: HairStyle, rng: np.random.Generator, points: np.ndarray, hangs: np.ndarray, along: np.ndarray):
    """Returns strands that leave the skull where it is widest and fall to the height of their tips."""
    on_skull = 0.45
    steps = along / on_skull
    fallen = points.copy()
    tip = (style.hang or 0.0) + rng.uniform(-0.1, 0.1)
    for k in np.flatnonzero(hangs):
        path = points[k]
        index = np.clip(steps, 0, 1) * (len(along) - 1)
        low = np.floor(index).astype(int)
        high = np.minimum(low + 1, len(along) - 1)
        fallen[k] = path[low] + (path[high] - path[low]) * (index - low)[:, None]
        drop = np.clip((along - on_skull) / (1 - on_skull), 0, 1)
        end = path[-1]
        out = end - CENTER
        out[1] = 0
        out /= np.linalg.norm(out) + 1e-9
        behind = np.clip(-out[2], 0, 1)
        widen = style.flare * drop + 0.05 * np.sin(np.pi * drop) - 0.25 * behind * np.clip(drop * 1.6, 0, 1)
        bend = style.lumps * np.sin(9 * drop + 3 * rng.random()) * drop
        falling = along > on_skull
        below = end + out[None] * (widen + bend)[:, None]
        below[:, 1] = end[1] + (tip - end[1]) * drop
        fallen[k][falling] = below[falling]
    return fallen


def _add_bun(radius: float, points: np.ndarray, strand: np.ndarray, faces: np.ndarray):
    """Returns the sheet with a ball of hair above the back of the crown."""
    turn, rise = np.meshgrid(np.linspace(0, 2 * np.pi, 33), np.linspace(0.02, np.pi - 0.02, 17), indexing="ij")
    ball = np.stack([np.sin(rise) * np.cos(turn), 0.85 * np.cos(rise), np.sin(rise) * np.sin(turn)], -1)
    ball = np.array([0.0, 8.62, 0.25]) + radius * ball
    grid = np.arange(33 * 17).reshape(33, 17) + len(points)
    a, b, c, d = (q.ravel() for q in (grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]))
    wound = np.stack([rise / np.pi + 0.3 * np.sin(turn), turn / (2 * np.pi), 0.03 + 0 * turn, 0 * turn], -1)
    wound[..., 1] *= 0.8
    return (
        np.concatenate([points, ball.reshape(-1, 3)]),
        np.concatenate([strand, wound.reshape(-1, 4)]),
        np.concatenate([faces, np.stack([a, b, d], 1), np.stack([b, c, d], 1)]),
    )


def _follow(points: np.ndarray, mesh: HeadMesh, shape: np.ndarray) -> np.ndarray:
    """Returns points near the head at rest, moved by a smooth average of the nearest skin's displacement."""
    skin = np.flatnonzero((mesh.part == SKIN) & (mesh.rest[:, 1] > 6.5) & ~_is_ear(mesh.rest))
    distance, nearest = KDTree(mesh.rest[skin]).query(points, k=24)
    weight = 1.0 / (distance**2 + 0.02)
    moved = (shape - mesh.rest)[skin][nearest]
    return points + (moved * (weight / weight.sum(1, keepdims=True))[..., None]).sum(1)


def _waves(rng: np.random.Generator, azimuth: np.ndarray, polar: np.ndarray) -> np.ndarray:
    total = np.zeros_like(polar)
    for frequency in (2, 3, 5, 7):
        phase = rng.uniform(0, 2 * np.pi, 2)
        a, p = np.radians(azimuth), np.radians(polar)
        total += np.sin(frequency * a + phase[0]) * np.sin(frequency * p + phase[1]) * np.sin(p)
    return total


def _direction(azimuth: np.ndarray, polar: np.ndarray) -> np.ndarray:
    a, p = np.radians(azimuth), np.radians(polar)
    return np.stack([np.sin(p) * np.sin(a), np.cos(p), np.sin(p) * np.cos(a)], -1)


def _is_ear(points: np.ndarray) -> np.ndarray:
    return (np.abs(points[:, 0]) > 0.765) & (points[:, 1] < 7.6) & (points[:, 2] < 0.9)


def _skull(mesh: HeadMesh):
    """Returns a smooth function: direction -> distance of the skin from the skull's center."""
    rest = mesh.rest[(mesh.part == SKIN) & (mesh.rest[:, 1] > 6.6)]
    rest = rest[~_is_ear(rest)]
    _, _, radius = polar_coordinates(rest)
    outside = radius > 0.72  # excludes the hollows of mouth, nose and eyes
    directions = (rest[outside] - CENTER) / radius[outside, None]
    tree, radii = KDTree(directions), radius[outside]

    def distance(direction: np.ndarray) -> np.ndarray:
        gap, nearest = tree.query(direction.reshape(-1, 3), k=12)
        weight = np.exp(-((gap / 0.09) ** 2)) + 1e-6
        near = radii[nearest]
        return ((near * weight).sum(1) / weight.sum(1)).reshape(direction.shape[:-1])

    return distance


def _sheet_frame(positions: np.ndarray, strand: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns unit normals and unit directions along the strands of a sheet."""
    corner, along = positions[faces], strand[faces][..., 1]
    first, second = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    face_normal = np.cross(first, second)
    rise_first, rise_second = along[:, 1] - along[:, 0], along[:, 2] - along[:, 0]
    # the in-plane gradient of the position along the strand, times twice the area
    gradient = np.cross(face_normal, first) * rise_second[:, None] - np.cross(face_normal, second) * rise_first[:, None]
    normals, tangents = np.zeros_like(positions), np.zeros_like(positions)
    for k in range(3):
        np.add.at(normals, faces[:, k], face_normal)
        np.add.at(tangents, faces[:, k], gradient)
    return tuple(v / (np.linalg.norm(v, axis=1, keepdims=True) + 1e-12) for v in (normals, tangents))  # type: ignore[return-value]
