"""Named expressions as weights of the 52 face units, their mixtures, and lids that close without crossing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from tools.render_heads import assets
from tools.render_heads.landmarks import LID_PAIRS, LandmarkMap
from tools.render_heads.mesh import HeadMesh


def _both(**weights: float) -> dict[str, float]:
    return {unit + side: weight for unit, weight in weights.items() for side in ("Left", "Right")}


EXPRESSIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": {
        **_both(mouthSmile=0.85, cheekSquint=0.5, eyeSquint=0.25, mouthUpperUp=0.25, mouthDimple=0.2),
        "jawOpen": 0.06,
    },
    "laugh": {
        **_both(mouthSmile=0.9, cheekSquint=0.8, eyeSquint=0.5, mouthUpperUp=0.55, mouthLowerDown=0.3, browOuterUp=0.2),
        "jawOpen": 0.42,
    },
    "surprise": {**_both(browOuterUp=0.9, eyeWide=0.9), "jawOpen": 0.55, "browInnerUp": 0.9, "mouthFunnel": 0.2},
    "anger": {
        **_both(browDown=1.0, noseSneer=0.5, mouthPress=0.5, mouthFrown=0.45, eyeSquint=0.4),
        "mouthShrugLower": 0.3,
    },
    "sadness": {
        **_both(mouthFrown=0.9, eyeSquint=0.2, mouthLowerDown=0.1, lids=0.25),
        "browInnerUp": 1.0,
        "mouthShrugLower": 0.5,
    },
    "disgust": {
        **_both(noseSneer=1.0, mouthUpperUp=0.7, browDown=0.6, cheekSquint=0.5, eyeSquint=0.5, mouthFrown=0.35),
        "mouthShrugUpper": 0.3,
    },
    "fear": {
        **_both(eyeWide=1.0, mouthStretch=0.9, browOuterUp=0.4, mouthLowerDown=0.5),
        "browInnerUp": 1.0,
        "jawOpen": 0.2,
    },
    "closed": {**_both(lids=1.0), "mouthClose": 0.02},
    "squint": {**_both(lids=0.5, eyeSquint=0.8, cheekSquint=0.7, noseSneer=0.3, mouthStretch=0.3, browDown=0.4)},
    "kiss": {**_both(cheekSquint=0.1), "mouthPucker": 0.95, "mouthFunnel": 0.15},
    "puff": {"cheekPuff": 0.9, **_both(mouthPress=0.3), "mouthPucker": 0.25},
    "wink": {"lidsRight": 1.0, "cheekSquintRight": 0.7, "mouthSmileRight": 0.6, "mouthSmileLeft": 0.25},
    "smirk": {"mouthSmileLeft": 0.9, "mouthDimpleLeft": 0.5, "cheekSquintLeft": 0.4, "browOuterUpLeft": 0.7},
    "doubt": {"browOuterUpRight": 1.0, "browDownLeft": 0.8, "mouthRight": 0.5, "mouthPressLeft": 0.4, "lidsLeft": 0.3},
    "talk": {"jawOpen": 0.25, "mouthFunnel": 0.55, **_both(mouthLowerDown=0.2)},
}
"""Weights of face units. "lidsLeft" and "lidsRight" are not units but the fraction by which the eye is closed."""

_MIXED = [name for name in EXPRESSIONS if name != "neutral"]


def mix(parts: dict[str, float]) -> dict[str, float]:
    """Returns weights of face units for weighted expressions; each unit is limited to 1."""
    units: dict[str, float] = {}
    for name, weight in parts.items():
        for unit, amount in EXPRESSIONS[name].items():
            units[unit] = min(units.get(unit, 0.0) + weight * amount, 1.0)
    return units


def draw_mixture(rng: np.random.Generator) -> dict[str, float]:
    """Returns two or three random expressions with weights that sum to at most 1.1."""
    names = rng.choice(_MIXED, size=int(rng.integers(2, 4)), replace=False)
    weights = rng.dirichlet(np.full(len(names), 2.0)) * rng.uniform(0.6, 1.1)
    return {str(name): round(float(weight), 3) for name, weight in zip(names, weights, strict=True)}


class FaceUnits:
    """The 52 face units on the drawn mesh."""

    def __init__(self, root: Path, mesh: HeadMesh, landmarks: LandmarkMap) -> None:
        """Reads the units below `root` into one matrix."""
        folder = root / "faceunits01/targets/faceunits"
        self._names = sorted(path.stem for path in folder.glob("*.target"))
        deltas = [mesh.dense(*assets.load_target(root, name)) for name in self._names]
        self._matrix = np.stack(deltas).reshape(len(deltas), -1).astype(np.float32)
        self._landmarks = landmarks

    def apply(self, neutral: Float[np.ndarray, "m 3"], units: dict[str, float]) -> Float[np.ndarray, "m 3"]:
        """Returns the neutral face with the units added; lids close last, by the weight that this face needs.

        A blink unit at weight 1 overshoots: the lids meet near 0.7, at a different weight for each identity. The gap
        between the lids is linear in the weight, which gives the weight.

        Raises:
            ValueError: a unit is neither one of the 52 nor "lidsLeft" or "lidsRight".
        """
        plain = {name: weight for name, weight in units.items() if not name.startswith("lids")}
        unknown = sorted(set(plain) - set(self._names))
        if unknown:
            raise ValueError(f"face units {unknown}: not among the {len(self._names)} units of the assets")
        posed = self._moved(neutral, plain)
        for side, pairs in LID_PAIRS.items():
            unit = f"eyeBlink{side}"
            gap = self._gap(posed, pairs)
            full = gap - self._gap(self._moved(posed, {unit: 1.0}), pairs)
            shut = np.clip(gap / np.maximum(full, 1e-6), 0.0, 1.2).min()
            closed = units.get(f"lids{side}", 0.0)
            # a squinting eye keeps its lids open unless it should close
            posed = self._moved(posed, {unit: float(closed * shut)})
        return posed

    def _moved(self, positions: np.ndarray, units: dict[str, float]) -> np.ndarray:
        if not units:
            return positions
        rows = [self._names.index(name) for name in units]
        weights = np.array(list(units.values()), np.float32)
        return positions + (weights @ self._matrix[rows]).reshape(positions.shape)

    def _gap(self, positions: np.ndarray, pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
        points = self._landmarks.raw(positions)
        return np.array([points[upper, 1] - points[lower, 1] for upper, lower in pairs])
