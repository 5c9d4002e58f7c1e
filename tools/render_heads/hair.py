"""Hair styles: hairline, thickness and fall of the hair, and a random choice by person.

Positions on the skull are polar coordinates about its center: azimuth 0 is the nose, polar angle 0 is up. `strands`
makes a drawable sheet of a style.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tools.render_heads.mesh import SKIN, HeadMesh

CENTER = np.array([0.0, 7.45, 0.5])
_AZIMUTHS = np.array([0, 25, 42, 56, 68, 80, 95, 110, 130, 180.0])
_HAIRLINE = np.array([66, 63, 63, 70, 82, 84, 84, 104, 122, 124.0])
"""Polar angle (degrees) of the hairline at _AZIMUTHS: forehead, temple, sideburn, above and behind the ear, nape."""


@dataclass(frozen=True)
class HairStyle:
    """One style. Lengths are in decimeters, angles in degrees."""

    top: float = 0.12
    """Thickness at the crown and the front."""
    side: float = 0.05
    """Thickness at temples and nape."""
    lift: float = 0.0
    """Extra thickness at the front of the crown (a quiff)."""
    hang: float | None = None
    """Height (y at rest) to which sides and back fall; None ends all hair at the hairline."""
    opening: float = 62.0
    """Azimuth at which a hanging curtain begins."""
    flare: float = 0.0
    """Added width of a hanging curtain at its end."""
    parting: float | None = None
    """Azimuth of a parting, from which the front sweeps to both sides."""
    fringe: float = 0.0
    """Degrees by which the front falls below the hairline, over the forehead."""
    lumps: float = 0.0
    """Amplitude of the waves or curls of the sheet."""
    curl: float = 0.0
    """0 draws straight strands, 1 draws tight curls."""
    layers: int = 5
    fuzz: float = 0.05
    """Depth of the loose outer layers."""
    paint: float = 1.0
    """Opacity of the hair color painted on the scalp below the sheet."""
    receding: float = 0.0
    """Degrees by which the front hairline recedes."""
    bun: float = 0.0
    """Radius of a bun above the crown."""
    spring: float = 1.0
    """Steepness of the hair at the hairline."""
    sheet: bool = True


STYLES: dict[str, HairStyle] = {
    "bald": HairStyle(sheet=False, paint=0.12),
    "shaved": HairStyle(sheet=False, paint=0.75),
    "receding": HairStyle(top=0.05, side=0.07, receding=34, fuzz=0.04),
    "crew": HairStyle(top=0.09, side=0.025, fuzz=0.05),
    "quiff": HairStyle(top=0.17, side=0.03, lift=0.22, fuzz=0.07),
    "side part": HairStyle(top=0.16, side=0.08, parting=28, fuzz=0.05),
    "fringe": HairStyle(top=0.15, side=0.11, fringe=15, fuzz=0.05),
    "bowl": HairStyle(top=0.16, side=0.14, fringe=17, hang=6.95, opening=48, fuzz=0.05),
    "bob": HairStyle(top=0.13, side=0.12, hang=6.35, parting=12, flare=0.06, fuzz=0.05),
    "bob with fringe": HairStyle(top=0.14, side=0.12, hang=6.3, opening=55, fringe=16, flare=0.04, fuzz=0.05),
    "long": HairStyle(top=0.12, side=0.12, hang=4.6, parting=-4, flare=0.10, fuzz=0.06),
    "long side part": HairStyle(top=0.15, side=0.14, hang=4.6, parting=-26, flare=0.14, lumps=0.02, fuzz=0.06),
    "long with fringe": HairStyle(top=0.13, side=0.11, hang=4.8, opening=57, fringe=15, flare=0.05, fuzz=0.05),
    "waves": HairStyle(top=0.16, side=0.18, hang=5.0, parting=10, flare=0.22, lumps=0.05, curl=0.45, fuzz=0.10),
    "curls": HairStyle(
        top=0.30, side=0.26, hang=6.5, opening=78, flare=0.14, lumps=0.06, curl=1.0, fuzz=0.16, layers=7
    ),
    "short curls": HairStyle(top=0.22, side=0.10, lumps=0.04, curl=1.0, fuzz=0.12, layers=7),
    "afro": HairStyle(top=0.60, side=0.52, lumps=0.03, curl=1.0, fuzz=0.18, layers=7, spring=4.0),
    "slicked bun": HairStyle(top=0.05, side=0.035, bun=0.42, fuzz=0.03),
    "slicked back": HairStyle(top=0.07, side=0.04, fuzz=0.03),
}
FEMALE = ("bob", "bob with fringe", "long", "long side part", "long with fringe", "waves")
FEMALE += ("slicked bun", "slicked back")
MALE = ("bald", "shaved", "receding", "crew", "quiff", "side part", "fringe", "slicked back")
CURLY = ("afro", "curls", "short curls", "waves", "shaved", "slicked bun")


def hairline(style: HairStyle, azimuth: np.ndarray) -> np.ndarray:
    """Returns the polar angle of the hairline at azimuths, in degrees."""
    away = np.abs(azimuth)
    receded = style.receding * np.interp(away, [0, 20, 45, 62, 80], [1.0, 0.95, 0.9, 0.55, 0.0])
    return np.interp(away, _AZIMUTHS, _HAIRLINE) - receded


def scalp_coverage(style: HairStyle, mesh: HeadMesh) -> Float[np.ndarray, " m"]:
    """Returns how far inside the hairline each vertex is, in radians (negative outside)."""
    azimuth, polar, _ = polar_coordinates(mesh.rest)
    inside = np.radians(hairline(style, azimuth) - polar)
    return np.where((mesh.part == SKIN) & (mesh.rest[:, 1] > 6.3), inside, -1.0)


def draw_style(rng: np.random.Generator, male: bool, african: float, age: float) -> str:
    """Returns the name of a random style for the person; most styles occur for either sex."""
    if rng.random() < 0.75 * african:
        names = CURLY if not male else ("afro", "short curls", "shaved", "bald", "crew", "curls")
    elif male:
        names = MALE + (("short curls", "long side part") if rng.random() < 0.4 else ())
        if age > 0.5:
            names = ("bald", "receding", "receding", "side part", "crew", "slicked back")
    else:
        names = FEMALE + (("crew", "curls", "bowl", "side part") if rng.random() < 0.5 else ())
    return str(rng.choice(names))


def polar_coordinates(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns azimuth and polar angle (degrees) and distance from the skull's center of points on the head at rest."""
    offset = points - CENTER
    radius = np.linalg.norm(offset, axis=-1)
    polar = np.degrees(np.arccos(np.clip(offset[..., 1] / (radius + 1e-9), -1, 1)))
    return np.degrees(np.arctan2(offset[..., 0], offset[..., 2])), polar, radius
