"""Where z has its cells: in the picture (the paper's U-Net), or in the face frame, where all faces have the mean shape.

In the face frame a cell of z means a place of the face (this cheek, that brow), wherever the face is in its picture.
Its content need not travel through the whole network to where the sketch wants it.

`make_frame` is the only place that reads `model.frame`. Both frames have the same methods: `read` builds the encoder's
input, and `decoder` the layers by which z enters the U-Net. Their layers are parameters of the module that calls them.
"""

from __future__ import annotations

from typing import NamedTuple

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ecvae_jax.config import ModelConfig
from ecvae_jax.model.blocks import Conv, Residual, apply_layer, double, fold, fold_joined, unfold
from ecvae_jax.model.orthonormal import orthonormal
from ecvae_jax.structure.warp import cell_centers, finer, resample, smooth_map

FACE_SCALE = 0.22
"""Root mean square distance of the mean face's landmarks from its center, crop units: that of the crops of `ecvae
prepare`, so that the face frame shows as much around a face as they do."""
OFFSET_SCALE = 0.1
"""Typical distance between a cell of the face frame and its place in the picture, crop units; divides the offsets."""
FLOW_SCALE = 0.005
"""Crop units per unit of the network's flow: half a pixel of 128 at initialization."""


class PictureFrame(NamedTuple):
    """z's cells are cells of the picture."""

    def read(self, image: Float[Array, "b h w 3"], sketch: Float[Array, "b h w s"], patch: int) -> Array:
        """Returns the encoder's input, b h/patch w/patch c: the picture and its sketch."""
        return fold_joined([image, sketch], patch)

    def decoder(self, config: ModelConfig, z: Float[Array, "b d"], code: Float[Array, "b e"]) -> PictureDecoder:
        """Returns the layers by which z enters the U-Net."""
        del code
        return PictureDecoder(config, z)


class FaceFrame(NamedTuple):
    """z's cells are cells of the mean face; two maps on the grid of the finest level connect it with the picture."""

    to_face: Float[Array, "b r r 2"]
    """Place in the face frame of each cell of the picture, crop units."""
    to_picture: Float[Array, "b r r 2"]
    """Place in the picture of each cell of the face frame, crop units."""

    def read(self, image: Float[Array, "b h w 3"], sketch: Float[Array, "b h w s"], patch: int) -> Array:
        """Returns the encoder's input, b h/patch w/patch c: the picture warped to the mean face, and the offsets.

        Every warped face has the sketch of the mean face, so the offsets stand for the structure.
        """
        del sketch
        warped = resample(image, finer(self.to_picture, image.shape[1]))
        offsets = (self.to_picture - cell_centers(self.to_picture.shape[1])[None]) / OFFSET_SCALE
        return jnp.concatenate([fold(warped, patch), offsets], axis=-1)

    def decoder(self, config: ModelConfig, z: Float[Array, "b d"], code: Float[Array, "b e"]) -> FaceDecoder:
        """Returns the layers by which z enters the U-Net."""
        levels, texture = FaceTexture(config, name="face")(z, code)
        return FaceDecoder(config, self, levels, texture)

    def to_picture_maps(
        self, maps: Float[Array, "b s s c"], flow: Float[Array, "b r r 2"] | None = None
    ) -> Float[Array, "b s s c"]:
        """Returns maps of the face frame warped onto the picture; `flow` corrects the warp, in units of FLOW_SCALE."""
        places = self.to_face if flow is None else self.to_face + FLOW_SCALE * flow
        side = maps.shape[1]
        if side < places.shape[1]:
            factor = places.shape[1] // side
            places = einops.reduce(places, "b (h i) (w j) xy -> b h w xy", "mean", i=factor, j=factor)
        return resample(maps, places if side == places.shape[1] else finer(places, side))


def make_frame(
    config: ModelConfig, mean_shape: Float[Array | np.ndarray, "p 2"], landmarks: Float[Array, "b p 2"]
) -> PictureFrame | FaceFrame:
    """Returns the frame of a batch of faces.

    Args:
        mean_shape: of the training faces, centered, root mean square radius 1.
        landmarks: crop units.
    """
    if config.frame == "picture":
        return PictureFrame()
    side = config.level_sides[0]
    mean_face = 0.5 + FACE_SCALE * jnp.asarray(mean_shape, landmarks.dtype)
    mean_faces = jnp.broadcast_to(mean_face[None], landmarks.shape)
    return FaceFrame(smooth_map(landmarks, mean_faces, side), smooth_map(mean_faces, landmarks, side))


class PictureDecoder(NamedTuple):
    """z enters unrolled over the coarsest maps (so that it can reach any place), and as a grid at its own level."""

    config: ModelConfig
    z: Float[Array, "b d"]

    def enter(self, maps: Float[Array, "b s s c"]) -> Float[Array, "b s s e"]:
        """Returns the coarsest maps, with z unrolled over them."""
        side, width = maps.shape[1], maps.shape[-1]
        dense = nn.Dense(side * side * width, dtype=self.z.dtype, kernel_init=orthonormal, name="unrolled")
        unrolled = apply_layer(dense, self.z)
        return jnp.concatenate([maps, unrolled.reshape(-1, side, side, width)], axis=-1)

    def join(self, maps: Float[Array, "b s s c"], width: int) -> Float[Array, "b s s e"]:
        """Returns the maps of one level, with the grid of z where the level has its resolution."""
        side = self.config.z_grid
        if side == 1 or maps.shape[1] != side:
            return maps
        grid = einops.rearrange(self.z, "b (h w c) -> b h w c", h=side, w=side)
        # GroupNorm needs whole groups: a dense layer brings the channels back to the level's width.
        return Conv(width, kernel=1, dtype=self.z.dtype, name="grid")(jnp.concatenate([maps, grid], axis=-1))

    def finish(self, maps: Float[Array, "b s s c"], drawn: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Returns the drawn image, unchanged."""
        del maps
        return drawn


class FaceDecoder(NamedTuple):
    """z enters as feature maps of the face frame, warped onto the picture; its texture blends with the drawn image."""

    config: ModelConfig
    frame: FaceFrame
    levels: dict[int, Float[Array, "b _ _ _"]]
    texture: Float[Array, "b h w 3"]

    def enter(self, maps: Float[Array, "b s s c"]) -> Float[Array, "b s s c"]:
        """Returns the coarsest maps, unchanged."""
        return maps

    def join(self, maps: Float[Array, "b s s c"], width: int) -> Float[Array, "b s s e"]:
        """Returns the maps of one level, with those of the face frame warped onto them."""
        if maps.shape[1] not in self.levels:
            return maps
        warped = self.frame.to_picture_maps(self.levels[maps.shape[1]])
        # GroupNorm needs whole groups: a dense layer brings the channels back to the level's width.
        return Conv(width, kernel=1, dtype=maps.dtype)(jnp.concatenate([maps, warped], axis=-1))

    def finish(self, maps: Float[Array, "b s s c"], drawn: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
        """Returns the warped texture and the drawn image, mixed by a mask that the network draws."""
        config, dtype = self.config, maps.dtype
        flow = Conv(2, kernel=3, dtype=dtype, name="flow")(maps).astype(jnp.float32)
        warped = jnp.tanh(self.frame.to_picture_maps(self.texture, flow))
        share = unfold(Conv(config.patch**2, kernel=3, dtype=dtype, name="share")(maps), config.patch)
        share = jax.nn.sigmoid(share.astype(jnp.float32))
        return share * warped + (1.0 - share) * drawn


class FaceTexture(nn.Module):
    """Draws z in the face frame: feature maps for the levels of the structure U-Net, and a picture of the mean face."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], code: Float[Array, "b e"]
    ) -> tuple[dict[int, Float[Array, "b _ _ _"]], Float[Array, "b h w 3"]]:
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
                maps = Residual(width, dtype=dtype, remat=config.remat)(maps, code)
            levels[side] = maps
        pixels = Conv(3 * config.patch**2, kernel=3, dtype=dtype, name="texture")(jax.nn.silu(maps))
        return levels, unfold(pixels, config.patch).astype(jnp.float32)
