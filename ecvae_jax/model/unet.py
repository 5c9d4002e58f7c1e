"""The structure branch: a U-Net over the sketch, into whose decoder z is fed. Together they are p(x | c, z)."""

from __future__ import annotations

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ecvae_jax.config import ModelConfig
from ecvae_jax.model.blocks import ORTHONORMAL, Conv, Down, Residual, double, fold, unfold
from ecvae_jax.model.conditioning import Frame
from ecvae_jax.model.face_frame import FaceTexture, lay_over


class StructureUNet(nn.Module):
    """U-Net with skip connections from sketch to image.

    z reaches the decoder by three ways, so that the skips cannot drown it: unrolled over the coarsest maps (any place
    of z may move to any place of the face), as a grid at the level of its own resolution, and inside every block.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], sketch: Float[Array, "b h w s"], frame: Frame | None = None
    ) -> Float[Array, "b h w 3"]:
        """Returns the mean image in [-1, 1], float32. z is expected at unit scale."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        z = z.astype(dtype)
        maps = Conv(config.widths[0], kernel=1, dtype=dtype, name="stem")(fold(sketch.astype(dtype), config.patch))
        skips = []
        for level, width in enumerate(config.widths):
            if level:
                maps = Down(width, dtype=dtype)(maps)
            for _ in range(config.blocks):
                maps = Residual(width, dtype=dtype)(maps)
            skips.append(maps)

        side, width = maps.shape[1], config.widths[-1]
        code = nn.Dense(width, dtype=dtype, kernel_init=ORTHONORMAL, name="code")(z)
        if frame is None:
            unrolled = nn.Dense(side * side * width, dtype=dtype, kernel_init=ORTHONORMAL, name="unrolled")(z)
            maps = jnp.concatenate([maps, unrolled.reshape(-1, side, side, width)], axis=-1)
        code = jax.nn.silu(code)
        levels, texture = (FaceTexture(config, name="face")(z, code) if frame is not None else ({}, None))
        for level in reversed(range(len(config.widths))):
            skip, width = skips[level], config.widths[level]
            if level < len(config.widths) - 1:
                maps = jnp.concatenate([double(maps), skip], axis=-1)
            # GroupNorm needs whole groups: a dense layer brings the channels back to the level's width.
            if frame is not None and maps.shape[1] in levels:
                maps = jnp.concatenate([maps, lay_over(levels[maps.shape[1]], frame)], axis=-1)
                maps = Conv(width, kernel=1, dtype=dtype)(maps)
            elif frame is None and config.z_grid > 1 and maps.shape[1] == config.z_grid:
                grid = einops.rearrange(z, "b (h w c) -> b h w c", h=config.z_grid, w=config.z_grid)
                maps = jnp.concatenate([maps, grid], axis=-1)
                maps = Conv(width, kernel=1, dtype=dtype, name="grid")(maps)
            for _ in range(config.blocks):
                maps = Residual(width, dtype=dtype)(maps, code)
        maps = jax.nn.silu(maps)
        pixels = Conv(3 * config.patch**2, kernel=3, dtype=dtype, name="image")(maps)
        drawn = jnp.tanh(unfold(pixels, config.patch).astype(jnp.float32))
        if frame is None or texture is None:
            return drawn
        flow = Conv(2, kernel=3, dtype=dtype, name="flow")(maps).astype(jnp.float32)
        laid = jnp.tanh(lay_over(texture, frame, flow))
        share = unfold(Conv(config.patch**2, kernel=3, dtype=dtype, name="share")(maps), config.patch)
        share = jax.nn.sigmoid(share.astype(jnp.float32))
        return share * laid + (1.0 - share) * drawn
