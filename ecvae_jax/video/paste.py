"""A drawn face put back into its photo under a soft mask, the same for all frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ecvae_jax.data.photos.crop import CropBox

_HARD, _SOFT = 0.62, 0.97
"""Distance from the crop's center, in half sides, to which the drawn face is whole, and from which the photo is."""


@dataclass(frozen=True)
class Paste:
    """Pastes square crops into a photo at one place."""

    photo: UInt8[np.ndarray, "h w 3"]
    box: CropBox

    def __post_init__(self) -> None:
        """Prepares the part of the photo that changes, and the mask."""
        height, width = self.photo.shape[:2]
        x0, y0, side = self.box
        left, top = max(0, int(np.floor(x0))), max(0, int(np.floor(y0)))
        right, bottom = min(width, int(np.ceil(x0 + side))), min(height, int(np.ceil(y0 + side)))
        weight = soft_mask((np.arange(left, right) + 0.5 - x0) / side, (np.arange(top, bottom) + 0.5 - y0) / side)
        object.__setattr__(self, "_part", (left, top, right, bottom))
        object.__setattr__(self, "_weight", weight[..., None].astype(np.float32))

    def __call__(self, crop: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the photo with the crop in its place."""
        left, top, right, bottom = self._part  # type: ignore[attr-defined]
        scale = crop.shape[0] / self.box.side
        # each pixel of the photo reads the crop at its center's place in the square
        matrix = (scale, 0.0, (left - self.box.x0) * scale, 0.0, scale, (top - self.box.y0) * scale)
        kernel = Image.Resampling.BICUBIC
        face = Image.fromarray(crop).transform((right - left, bottom - top), Image.Transform.AFFINE, matrix, kernel)
        out, weight = self.photo.copy(), self._weight  # type: ignore[attr-defined]
        under = out[top:bottom, left:right].astype(np.float32)
        out[top:bottom, left:right] = np.rint(under + weight * (np.asarray(face, np.float32) - under)).astype(np.uint8)
        return out


def soft_mask(x: Float[np.ndarray, " w"], y: Float[np.ndarray, " h"]) -> Float[np.ndarray, "h w"]:
    """Returns the weight of the drawn face, 1 in the middle and 0 at the crop's border, without an edge or a corner.

    Args:
        x: crop units of the columns.
        y: crop units of the rows.
    """
    across, down = np.abs(2 * x - 1)[None, :], np.abs(2 * y - 1)[:, None]
    away = (across**4 + down**4) ** 0.25  # a rounded square: no corners
    fall = np.clip((_SOFT - away) / (_SOFT - _HARD), 0.0, 1.0)
    return fall * fall * fall * (fall * (6 * fall - 15) + 10)  # first and second derivative 0 at both ends
