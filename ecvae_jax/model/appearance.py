"""The appearance branch: the encoder behind q(z | x, c)."""

from __future__ import annotations

import einops
import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ecvae_jax.config import ModelConfig
from ecvae_jax.model.blocks import Conv, Down, Residual, apply_layer, double
from ecvae_jax.model.frames import FaceFrame, PictureFrame
from ecvae_jax.model.orthonormal import orthonormal

# Posteriors start narrow (exp(-3/2) ≈ 0.22 of the prior's width), so that the decoder uses z from the first step.
INITIAL_LOGVAR_OFFSET = -3.0


def _logvar_bias(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    del key
    return jnp.full(shape, INITIAL_LOGVAR_OFFSET, dtype)


class AppearanceEncoder(nn.Module):
    """Maps an image and its own sketch to the posterior's mean and log-variance, not yet combined with the prior."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w 3"], sketch: Float[Array, "b h w s"], frame: PictureFrame | FaceFrame
    ) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
        """Returns (mean, logvar), each b d in float32, in units of the prior if the posterior is relative."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        maps = frame.read(image, sketch, config.patch)
        maps = Conv(config.widths[0], kernel=1, dtype=dtype, name="stem")(maps.astype(dtype))
        levels = []
        for level, width in enumerate(config.widths):
            if level:
                maps = Down(width, dtype=dtype)(maps)
            for _ in range(config.blocks):
                maps = Residual(width, dtype=dtype, remat=config.remat)(maps)
            levels.append(maps)
        if config.z_grid == 1:
            code = einops.rearrange(levels[-1], "b h w c -> b (h w c)")
        else:
            # Walk back up to the grid's level, so that each cell of z has seen the whole face.
            maps = levels.pop()
            while maps.shape[1] < config.z_grid:
                finer = levels.pop()
                maps = Residual(finer.shape[-1], dtype=dtype, remat=config.remat)(
                    jnp.concatenate([double(maps), finer], axis=-1)
                )
            code = maps
        code = code.astype(jnp.float32)
        channels = config.z_dim // config.z_grid**2
        mean = apply_layer(nn.Dense(channels, kernel_init=orthonormal, name="mean"), code)
        spread = nn.Dense(channels, kernel_init=orthonormal, bias_init=_logvar_bias, name="logvar")
        logvar = apply_layer(spread, code)
        return mean.reshape(-1, config.z_dim), logvar.reshape(-1, config.z_dim)
