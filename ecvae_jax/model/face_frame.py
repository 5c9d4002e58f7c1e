"""z in the face frame: read from pictures warped to the mean face, and drawn there before it is laid over a structure.

A place of z then means a place of the face (this cheek, that brow), wherever the face is in its picture, so that what
it holds need not travel through the whole network to where the sketch wants it.
"""

from __future__ import annotations

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ecvae_jax.config import ModelConfig
from ecvae_jax.model.blocks import Conv, Residual, double, unfold
from ecvae_jax.model.conditioning import Frame
from ecvae_jax.structure.warp import cell_centers, finer, resample

OFFSET_SCALE = 0.1
"""Typical distance between a place and its image in the face frame, crop units: offsets are divided by it."""
FLOW_SCALE = 0.005
"""Crop units per unit of the network's correction of the map: half a pixel of 128 at the start."""


def to_face_frame(image: Float[Array, "b h w 3"], frame: Frame) -> Float[Array, "b h w 3"]:
    """Returns the picture warped to the mean face."""
    return resample(image, finer(frame.to_picture, image.shape[1]))


def offsets(frame: Frame) -> Float[Array, "b r r 2"]:
    """Returns how far each cell of the face frame lies from its place in the picture, at unit scale: the structure."""
    return (frame.to_picture - cell_centers(frame.to_picture.shape[1])[None]) / OFFSET_SCALE


class FaceTexture(nn.Module):
    """Draws z in the face frame: feature maps for the levels of the structure U-Net, and a picture of the mean face."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], code: Float[Array, "b e"]
    ) -> tuple[dict[int, Float[Array, "b s s c"]], Float[Array, "b h w 3"]]:
        """Returns maps by the side of their level, from z's grid to the finest, and a picture before its tanh."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        maps = einops.rearrange(z, "b (h w c) -> b h w c", h=config.z_grid, w=config.z_grid)
        levels: dict[int, Array] = {}
        for level in reversed(range(len(config.widths))):
            side, width = config.level_sides[level], config.widths[level]
            if side < config.z_grid:
                continue
            maps = Conv(width, kernel=1, dtype=dtype)(maps if side == config.z_grid else double(maps))
            for _ in range(config.blocks):
                maps = Residual(width, dtype=dtype)(maps, code)
            levels[side] = maps
        pixels = Conv(3 * config.patch**2, kernel=3, dtype=dtype, name="texture")(jax.nn.silu(maps))
        return levels, unfold(pixels, config.patch).astype(jnp.float32)


def lay_over(
    maps: Float[Array, "b s s c"], frame: Frame, flow: Float[Array, "b r r 2"] | None = None
) -> Float[Array, "b s s c"]:
    """Returns maps of the face frame as they lie over the picture; `flow` corrects the map, in units of FLOW_SCALE."""
    places = frame.to_face if flow is None else frame.to_face + FLOW_SCALE * flow
    side = maps.shape[1]
    if side < places.shape[1]:
        factor = places.shape[1] // side
        places = einops.reduce(places, "b (h i) (w j) xy -> b h w xy", "mean", i=factor, j=factor)
    return resample(maps, places if side == places.shape[1] else finer(places, side))
