"""What varies: a person's two appearance groups (light, background) and the twelve views in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tools.render_heads.camera import Pose
from tools.render_heads.expression import EXPRESSIONS, draw_mixture
from tools.render_heads.film import NEUTRAL, Film, draw_film

GROUPS, VIEWS = 2, 12
MARGIN = 1.7
"""Side of the image over the longer side of the landmarks' box: the crop rule of photos."""
MAX_YAW, MAX_PITCH, MAX_ROLL = 45.0, 20.0, 12.0

_BACKGROUNDS = ("plain", "gradient", "blobs", "bands")


@dataclass(frozen=True)
class Group:
    """One sitting of a person: what all its views share. Light colors are linear RGB."""

    key_direction: np.ndarray
    key_color: np.ndarray
    rim_direction: np.ndarray
    rim_color: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    softness: float
    distance: float
    background: str
    background_uniforms: dict[str, Any]
    cloth: np.ndarray
    collar: float
    film: Film = NEUTRAL

    @property
    def tags(self) -> dict[str, Any]:
        """Light and background, for the records."""
        return {
            "light": {
                "direction": [round(float(x), 3) for x in self.key_direction],
                "tint": [round(float(x), 3) for x in self.key_color],
                "ambient": [round(float(x), 3) for x in (self.sky + self.ground) / 2],
            },
            "background": self.background,
            "camera_distance": round(self.distance, 2),
            **({"camera": self.film.tags} if self.film != NEUTRAL else {}),
        }


@dataclass(frozen=True)
class View:
    """One image of a sitting: pose, expression, gaze and framing."""

    pose: Pose
    expression: dict[str, float]
    gaze: np.ndarray
    scale: float
    shift: tuple[float, float]


def draw_group(rng: np.random.Generator) -> Group:
    """Returns a random sitting."""
    azimuth, height = rng.normal() * 0.65, rng.uniform(0.05, 0.65)
    azimuth = float(np.clip(azimuth, -1.35, 1.35))
    key = np.array([np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height)])
    tint = np.exp(rng.normal() * np.array([0.10, 0.01, -0.13]))
    strength = rng.uniform(0.75, 1.15)
    sky_tint = np.exp(rng.normal() * np.array([-0.09, 0.0, 0.12]))
    # a light from the side leaves half the face to the ambient light, which is therefore stronger
    fill = rng.uniform(0.22, 0.42) + 0.10 * abs(azimuth)
    rim_side = -np.sign(azimuth) if rng.random() < 0.7 else np.sign(azimuth)
    rim = np.array([0.85 * rim_side, 0.35, -0.42])
    rim_strength = rng.uniform(0.1, 0.8) if rng.random() < 0.5 else 0.0
    kind = str(rng.choice(_BACKGROUNDS, p=[0.2, 0.3, 0.35, 0.15]))
    return Group(
        key_direction=key,
        key_color=tint * strength,
        rim_direction=rim / np.linalg.norm(rim),
        rim_color=rim_strength * np.exp(rng.normal(size=3) * 0.15),
        sky=sky_tint * fill * 1.15,
        ground=np.array([1.0, 0.9, 0.82]) * fill * rng.uniform(0.35, 0.75),
        softness=float(rng.uniform(0.016, 0.045)),
        distance=float(rng.uniform(10.0, 18.0)),
        background=kind,
        background_uniforms=_draw_background(rng, kind),
        cloth=_vivid(rng, 0.35) ** 2.2,
        collar=float(rng.uniform(5.55, 5.95)),
    )


def draw_wild_group(rng: np.random.Generator) -> Group:
    """Returns a sitting under light as photographs of the street and the stage have it, taken by some camera.

    The key light may come from below, above or behind, hard or soft, colored, and stronger or weaker beside the fill.
    The camera is nearer, so perspective is stronger. Backgrounds have more contrast.
    """
    azimuth = float(np.clip(rng.normal() * 1.0, -2.2, 2.2))
    height = float(rng.uniform(-0.35, 1.25))
    key = np.array([np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height)])
    tint = np.exp(rng.normal() * np.array([0.22, 0.02, -0.28]) + rng.normal(size=3) * 0.06)
    fill = float(np.exp(rng.uniform(np.log(0.12), np.log(0.65)))) + 0.08 * abs(azimuth)
    rim_turn = rng.uniform(-np.pi, np.pi)
    rim = np.array([0.85 * np.sin(rim_turn), rng.uniform(-0.2, 0.8), -0.3 - 0.4 * abs(np.cos(rim_turn))])
    rim_strength = rng.uniform(0.1, 1.4) if rng.random() < 0.6 else 0.0
    kind = str(rng.choice(_BACKGROUNDS, p=[0.1, 0.15, 0.55, 0.2]))
    return Group(
        key_direction=key,
        key_color=tint * rng.uniform(0.35, 1.5),
        rim_direction=rim / np.linalg.norm(rim),
        rim_color=rim_strength * np.exp(rng.normal(size=3) * 0.3),
        sky=np.exp(rng.normal() * np.array([-0.18, 0.0, 0.22])) * fill * 1.15,
        ground=np.array([1.0, 0.9, 0.82]) * np.exp(rng.normal(size=3) * 0.12) * fill * rng.uniform(0.25, 1.0),
        softness=float(np.exp(rng.uniform(np.log(0.004), np.log(0.06)))),
        distance=float(np.exp(rng.uniform(np.log(6.5), np.log(22.0)))),
        background=kind,
        background_uniforms=_draw_background(rng, kind),
        cloth=_vivid(rng, 0.6) ** 2.2,
        collar=float(rng.uniform(5.5, 6.0)),
        film=draw_film(rng),
    )


def draw_views(rng: np.random.Generator) -> list[View]:
    """Returns the views of one sitting: the first near frontal and neutral, the second frontal with an expression."""
    named = [name for name in EXPRESSIONS if name != "neutral"]
    order = [str(name) for name in rng.permutation(named)]
    views = []
    for k in range(VIEWS):
        if k == 0:
            pose, expression = _draw_pose(rng, 0.12), {"neutral": 1.0}
        elif k == 1:
            pose, expression = _draw_pose(rng, 0.15), {order[0]: round(float(rng.uniform(0.75, 1.0)), 3)}
        elif k == 2:
            pose, expression = _draw_pose(rng, 1.0), {"neutral": 1.0}
        elif k < 9:
            pose, expression = _draw_pose(rng, 1.0), {order[k - 2]: round(float(rng.uniform(0.65, 1.0)), 3)}
        else:
            pose, expression = _draw_pose(rng, 1.0), draw_mixture(rng)
        views.append(
            View(
                pose=pose,
                expression=expression,
                gaze=_draw_gaze(rng, pose),
                scale=float(rng.uniform(0.94, 1.06)),
                shift=(float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.03, 0.03))),
            )
        )
    return views


def _draw_pose(rng: np.random.Generator, reach: float) -> Pose:
    """Returns a pose with uniform yaw and mostly small pitch and roll; rounded so that tags and image agree."""
    yaw = rng.uniform(-MAX_YAW, MAX_YAW) * reach
    pitch = np.clip(rng.normal() * 9.0, -MAX_PITCH, MAX_PITCH) * reach
    roll = np.clip(rng.normal() * 5.0, -MAX_ROLL, MAX_ROLL) * reach
    return Pose(round(float(yaw), 2), round(float(pitch), 2), round(float(roll), 2))


def _draw_gaze(rng: np.random.Generator, pose: Pose) -> np.ndarray:
    """Returns the gaze in head coordinates: between camera and straight ahead, at most 20 degrees off."""
    to_camera = pose.rotation().T @ np.array([0.0, 0.0, 1.0])
    share = rng.uniform(0.0, 0.75)
    across = np.clip(share * np.degrees(np.arctan2(to_camera[0], to_camera[2])) + rng.normal() * 4, -20, 20)
    upward = np.clip(share * np.degrees(np.arcsin(to_camera[1])) + rng.normal() * 2, -9, 9)
    a, u = np.radians([across, upward])
    return np.array([np.sin(a) * np.cos(u), np.sin(u), np.cos(a) * np.cos(u)])


def _vivid(rng: np.random.Generator, most: float) -> np.ndarray:
    """Returns a display color of any lightness, with saturation up to `most`."""
    value, saturation = rng.uniform(0.12, 0.9), rng.uniform(0, most)
    hue = rng.uniform(0, 2 * np.pi) + np.array([0, 2, 4]) * np.pi / 3
    return np.clip(value * (1 - saturation * (0.5 - 0.5 * np.cos(hue))), 0, 1)


def _draw_background(rng: np.random.Generator, kind: str) -> dict[str, Any]:
    low = _vivid(rng, 0.5)
    high = np.clip(low * rng.uniform(0.6, 1.5) + rng.normal(size=3) * 0.05, 0, 1) if kind != "plain" else low * 1.06
    turn = rng.uniform(0, 2 * np.pi)
    blobs = np.zeros((6, 4))
    blob_colors = np.zeros((6, 3))
    if kind == "blobs":
        for k in range(6):
            blobs[k] = [*rng.uniform(-1.1, 1.1, 2), rng.uniform(0.15, 0.7), rng.uniform(0.3, 0.8)]
            blob_colors[k] = _vivid(rng, 0.6)
    return {
        "low": low,
        "high": np.clip(high, 0, 1),
        "slope": np.array([np.cos(turn), np.sin(turn)]),
        "blobs": blobs,
        "blob_colors": blob_colors,
        "stripes": float(rng.uniform(1.5, 5.0)) if kind == "bands" else 0.0,
        "vignette": float(rng.uniform(0.0, 0.8)),
    }
