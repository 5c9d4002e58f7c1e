"""The identity of a head: face shape, colors and other properties shared by all images of a person."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from tools.render_heads import assets
from tools.render_heads.mesh import HeadMesh

_ANCESTRIES = ("african", "asian", "caucasian")
_FOLDERS = ("head", "nose", "mouth", "eyes", "cheek", "chin", "forehead", "eyebrows", "ears", "neck")
_EXCLUDED = (  # noqa: SIM905
    "head-scale head-trans head-age eyefold-angle trans-in trans-out measure neck-trans ear-trans neck-back "
    "neck-scale-vert shape-pointed eyebrows-trans eye-trans-down eye-trans-up eye-height2 nose-compression head-angle "
    "asym-top forehead-scale-vert head-back"
).split()
"""Targets that move the whole head, displace the brow, or do not occur in people."""

# Linear RGB. The keys are stored in the records' tags, so their spelling stays.
_HAIR_COLORS = {
    "black": (0.012, 0.010, 0.009),
    "dark brown": (0.038, 0.021, 0.012),
    "brown": (0.095, 0.050, 0.024),
    "chestnut": (0.14, 0.055, 0.022),
    "light brown": (0.21, 0.125, 0.06),
    "blond": (0.44, 0.29, 0.13),
    "platinum": (0.62, 0.50, 0.33),
    "red": (0.30, 0.085, 0.022),
    "grey": (0.30, 0.30, 0.30),
    "white": (0.62, 0.61, 0.58),
}
_IRIS_COLORS = {
    "dark": (0.035, 0.016, 0.008),
    "brown": (0.10, 0.045, 0.018),
    "hazel": (0.17, 0.115, 0.04),
    "green": (0.10, 0.17, 0.07),
    "blue": (0.09, 0.19, 0.34),
    "grey": (0.20, 0.24, 0.27),
}
_BEARDS = ("none", "stubble", "moustache", "goatee", "full", "chin strap")


@dataclass(frozen=True)
class Identity:
    """One person. Colors are linear RGB; `paint` holds the shader's uniforms for skin and brows."""

    shape: Float[np.ndarray, "m 3"]
    male: bool
    ancestry: dict[str, float]
    age: float
    """0 is young (about 20), 1 is old (about 75)."""
    skin: np.ndarray
    lips: np.ndarray
    hair: np.ndarray
    hair_name: str
    iris: np.ndarray
    iris_name: str
    beard: str
    brow_thickness: float
    paint: dict[str, float | tuple[float, ...]] = field(default_factory=dict)


def draw_identity(rng: np.random.Generator, root: Path, mesh: HeadMesh) -> Identity:
    """Returns a random person."""
    male = bool(rng.random() < 0.5)
    ancestry = rng.dirichlet([0.45, 0.45, 0.45])
    age = float(np.clip(rng.beta(1.0, 1.7), 0, 1))
    shape = _draw_shape(rng, root, mesh, male, ancestry, age)

    darkness = ancestry[0] * rng.uniform(0.6, 1.05) + ancestry[1] * rng.uniform(0.08, 0.35) + rng.normal() * 0.05
    darkness = float(np.clip(darkness, 0, 1.05))
    fair, deep = np.array([0.74, 0.47, 0.355]), np.array([0.105, 0.047, 0.026])
    skin = np.exp((1 - darkness) * np.log(fair) + darkness * np.log(deep))
    skin = skin * np.exp(rng.normal(size=3) * [0.06, 0.05, 0.08])
    lip_tint = rng.uniform(0.0, 1.0) if not male else rng.uniform(0.0, 0.2)
    lipstick = np.array([0.42, 0.045, 0.06]) * rng.uniform(0.5, 1.2) if not male and rng.random() < 0.35 else None
    lips = skin * np.array([0.80, 0.47, 0.47]) + np.array([0.05, 0.0, 0.008]) * lip_tint
    if lipstick is not None:
        lips = 0.35 * lips + 0.65 * lipstick

    hair_name = _draw_hair_color(rng, darkness, age)
    hair = np.array(_HAIR_COLORS[hair_name]) * np.exp(rng.normal() * 0.12 + rng.normal(size=3) * [0.05, 0.02, 0.05])
    light_eyes = ancestry[2] > 0.5 and rng.random() < 0.75
    iris_name = str(rng.choice(["hazel", "green", "blue", "grey"] if light_eyes else ["dark", "brown", "brown"]))
    beard = str(rng.choice(_BEARDS, p=[0.42, 0.16, 0.1, 0.11, 0.16, 0.05])) if male else "none"
    grey_brow = hair_name in ("grey", "white")
    brow_color = hair * 0.45 if not grey_brow else 0.5 * skin * np.array([0.5, 0.5, 0.6]) + 0.05
    paint: dict[str, float | tuple[float, ...]] = {
        "seed": float(rng.integers(0, 1 << 16)),
        "age": age,
        "redness": float(rng.uniform(0.25, 1.0) * (1 - 0.5 * darkness)),
        "freckles": float(rng.uniform(0.4, 1.0) if darkness < 0.25 and rng.random() < 0.3 else 0.0),
        "mole": tuple(_draw_mole(rng)),
        "eye_shade": float(rng.uniform(0.1, 0.8)),
        "eye_makeup": float(rng.uniform(0.3, 1.0) if not male and rng.random() < 0.45 else 0.0),
        "oily": float(rng.uniform(0.5, 1.3)),
        "brow_arch": 0.0,
        "brow_density": float(rng.uniform(0.6, 1.0)),
        "brow_color": tuple(np.minimum(brow_color, 0.25)),
        "lashes": 0.45 if male else float(rng.uniform(0.6, 1.0)),
    }
    return Identity(
        shape=shape,
        male=male,
        ancestry={name: round(float(part), 3) for name, part in zip(_ANCESTRIES, ancestry, strict=True)},
        age=round(age, 3),
        skin=skin,
        lips=lips,
        hair=hair,
        hair_name=hair_name,
        iris=np.array(_IRIS_COLORS[iris_name]) * rng.uniform(0.8, 1.2),
        iris_name=iris_name,
        beard=beard,
        brow_thickness=float(rng.uniform(0.95, 1.5) if male else rng.uniform(0.5, 0.9)),
        paint=paint,
    )


def _draw_shape(
    rng: np.random.Generator, root: Path, mesh: HeadMesh, male: bool, ancestry: np.ndarray, age: float
) -> np.ndarray:
    shape = mesh.rest.copy()

    def add(name: str, weight: float) -> None:
        indices, deltas = assets.load_target(root, name)
        kept = mesh.index_of[indices] >= 0
        shape[mesh.index_of[indices[kept]]] += weight * deltas[kept]

    masculine = rng.uniform(0.75, 1.0) if male else rng.uniform(0.0, 0.25)
    heavy, strong = rng.normal(size=2) * 0.5
    for sex, share in (("male", masculine), ("female", 1 - masculine)):
        for years, part in (("young", 1 - age), ("old", age)):
            for people, weight in zip(_ANCESTRIES, ancestry, strict=True):
                add(f"macrodetails/{people}-{sex}-{years}", share * part * weight)
            base = f"macrodetails/universal-{sex}-{years}"
            weights = _corners(np.clip(strong, -1, 1), np.clip(heavy, -1, 1))
            for (muscle, weight_name), corner in weights.items():
                add(f"{base}-{muscle}muscle-{weight_name}weight", share * part * corner)

    names = [n for d in _FOLDERS for n in assets.list_targets(root, d) if not any(x in n for x in _EXCLUDED)]
    outlines = [n for n in names if n.startswith("head/")]
    details = [n for n in names if not n.startswith("head/") and not n.split("/")[1].startswith("r-")]
    for name in rng.choice(outlines, 2, replace=False):
        add(str(name), rng.uniform(0.2, 0.8))
    for name in rng.choice(details, 42, replace=False):
        weight = rng.uniform(0.1, 0.75) * (0.6 if name.startswith(("ears/", "eyes/")) else 1.0)
        add(str(name), weight)
        if "/l-" in name:
            add(str(name).replace("/l-", "/r-"), weight)
    asymmetries = [n for n in assets.list_targets(root, "asym") if not any(x in n for x in ("breast", "trunk", "top"))]
    for name in rng.choice(asymmetries, 5, replace=False):
        add(str(name), rng.uniform(0.1, 0.5))
    return shape


def _corners(strong: float, heavy: float) -> dict[tuple[str, str], float]:
    """Returns bilinear weights of the muscle and weight targets around the average body."""

    def split(value: float) -> dict[str, float]:
        return {"min" if value < 0 else "max": abs(value), "average": 1 - abs(value)}

    return {(m, w): a * b for m, a in split(strong).items() for w, b in split(heavy).items()}


def _draw_hair_color(rng: np.random.Generator, darkness: float, age: float) -> str:
    if rng.random() < max(0.0, 1.5 * (age - 0.35)):
        return str(rng.choice(["grey", "white"]))
    if darkness > 0.4:
        return str(rng.choice(["black", "dark brown"], p=[0.75, 0.25]))
    if darkness > 0.15:
        return str(rng.choice(["black", "dark brown", "brown", "chestnut"], p=[0.45, 0.3, 0.15, 0.1]))
    names = ["black", "dark brown", "brown", "chestnut", "light brown", "blond", "platinum", "red"]
    return str(rng.choice(names, p=[0.08, 0.17, 0.17, 0.1, 0.15, 0.16, 0.05, 0.12]))


def _draw_mole(rng: np.random.Generator) -> tuple[float, float, float]:
    """Returns the position (x, y) of a mole on the face at rest and its radius, in decimeters; radius 0 is none."""
    spot = (rng.uniform(-0.55, 0.55), rng.uniform(6.3, 7.1), rng.uniform(0.016, 0.028))
    return spot if rng.random() < 0.3 else (0.0, 0.0, 0.0)
