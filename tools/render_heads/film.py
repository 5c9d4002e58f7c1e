"""What a camera does to a picture after the lens: exposure, white balance, contrast, blur, noise.

The embedded heads are drawn without it. Heads rendered `--wild` have one camera for each sitting, since a face's
photographs of one moment share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from scipy.ndimage import gaussian_filter

_GRAY = 0.45  # display level about which contrast turns


@dataclass(frozen=True)
class Film:
    """One camera's rendering of light. The identity is `Film()`."""

    exposure: float = 1.0
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Gains of red, green and blue, on display levels."""
    contrast: float = 1.0
    saturation: float = 1.0
    blur: float = 0.0
    """Standard deviation, in thousandths of the picture's side."""
    noise: float = 0.0
    """Standard deviation at mid gray, in display levels of 0 to 1."""

    @property
    def tags(self) -> dict[str, Any]:
        """The camera, for the records."""
        return {
            "exposure": round(self.exposure, 3),
            "balance": [round(gain, 3) for gain in self.balance],
            "contrast": round(self.contrast, 3),
            "saturation": round(self.saturation, 3),
            "blur": round(self.blur, 2),
            "noise": round(self.noise, 4),
        }

    def develop(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the picture that this camera makes of a rendered one; `rng` draws the noise."""
        if self == NEUTRAL:
            return image
        levels = image.astype(np.float32) / 255.0 * self.exposure
        levels = (levels - _GRAY) * self.contrast + _GRAY
        gray = levels.mean(axis=2, keepdims=True)
        levels = (gray + (levels - gray) * self.saturation) * np.asarray(self.balance, np.float32)
        if self.blur:
            width = self.blur * image.shape[0] / 1000
            levels = gaussian_filter(levels, (width, width, 0))
        if self.noise:
            # Shot noise grows with the root of the light; part of it differs between the colors.
            light = np.sqrt(np.clip(levels, 0.05, 1.0) / 0.5)
            shared, own = rng.normal(size=(*image.shape[:2], 1)), rng.normal(size=image.shape)
            levels = levels + self.noise * light * (0.8 * shared + 0.6 * own)
        return np.round(np.clip(levels, 0.0, 1.0) * 255).astype(np.uint8)


NEUTRAL = Film()


def draw_film(rng: np.random.Generator) -> Film:
    """Returns a random camera: a third of them neutral and sharp."""
    if rng.random() < 0.33:
        return NEUTRAL
    warm, green = rng.normal() * 0.10, rng.normal() * 0.03
    return Film(
        exposure=float(np.exp(rng.normal() * 0.18)),
        balance=(float(np.exp(warm)), float(np.exp(green)), float(np.exp(-warm))),
        contrast=float(rng.uniform(0.75, 1.35)),
        saturation=float(rng.uniform(0.5, 1.3)),
        blur=float(rng.uniform(0.0, 7.0)),
        noise=float(rng.uniform(0.0, 0.03)) if rng.random() < 0.6 else 0.0,
    )
