"""The structure branch: a U-Net over the sketch, with z fed into its decoder. Together they are p(x | c, z)."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ecvae_jax.config import ModelConfig
from ecvae_jax.model.blocks import Conv, Down, Residual, apply_layer, double, fold, unfold
from ecvae_jax.model.frames import FaceFrame, PictureFrame
from ecvae_jax.model.orthonormal import orthonormal


class StructureUNet(nn.Module):
    """U-Net with skip connections from sketch to image.

    z enters twice, so that the skips cannot drown it: as maps of its frame, and as a code inside every decoder block.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, z: Float[Array, "n d"], sketch: Float[Array, "b h w s"], frame: PictureFrame | FaceFrame
    ) -> Float[Array, "n h w 3"]:
        """Returns the mean image in [-1, 1], float32. z must have unit scale.

        n may be a multiple of b: row i is then drawn under structure i % b, and each structure is encoded once.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        z = z.astype(dtype)
        maps = Conv(config.widths[0], kernel=1, dtype=dtype, name="stem")(fold(sketch.astype(dtype), config.patch))
        skips = []
        for level, width in enumerate(config.widths):
            if level:
                maps = Down(width, dtype=dtype)(maps)
            for _ in range(config.blocks):
                maps = Residual(width, dtype=dtype, remat=config.remat)(maps)
            skips.append(maps)

        dense = nn.Dense(config.widths[-1], dtype=dtype, kernel_init=orthonormal, name="code")
        code = jax.nn.silu(apply_layer(dense, z))
        if z.shape[0] != sketch.shape[0]:  # not `len`: the batch of an export is a symbol
            times = z.shape[0] // sketch.shape[0]
            maps, skips, frame = jax.tree.map(partial(_tile, times), (maps, skips, frame))
        decoder = frame.decoder(config, z, code)
        maps = decoder.enter(maps)
        for level in reversed(range(len(config.widths))):
            skip, width = skips[level], config.widths[level]
            if level < len(config.widths) - 1:
                maps = jnp.concatenate([double(maps), skip], axis=-1)
            maps = decoder.join(maps, width)
            for _ in range(config.blocks):
                maps = Residual(width, dtype=dtype, remat=config.remat)(maps, code)
        maps = jax.nn.silu(maps)
        pixels = Conv(3 * config.patch**2, kernel=3, dtype=dtype, name="image")(maps)
        drawn = jnp.tanh(unfold(pixels, config.patch).astype(jnp.float32))
        return decoder.finish(maps, drawn)


def _tile(times: int, maps: Array) -> Array:
    """Returns the rows of the maps, repeated as a whole."""
    return jnp.tile(maps, (times,) + (1,) * (maps.ndim - 1))
