"""Every source under every target: each face is encoded once, each block shares what depends on its targets only."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from ecvae_jax.config import AdaptConfig, Architecture
from ecvae_jax.images import to_float, to_uint8
from ecvae_jax.model.conditioning import Condition, Frozen, compiled_condition, prior_of
from ecvae_jax.model.cvae import decode, encode
from ecvae_jax.model.model import Model
from ecvae_jax.structure.warp import finer, read_cubic, resample, smooth_maps, with_margin
from ecvae_jax.synthesis.adapt import transfer_adapted
from ecvae_jax.synthesis.batches import BATCH, Images, Landmarks, check_faces
from ecvae_jax.synthesis.photo import FIELD, photo_layers, pixel_weights, trust_in_map, within_face

_ROWS = 8
"""Sources of one block, twice as many where at least that many are given. A target's structure is encoded once for
all of them."""


class _Sources(NamedTuple):
    """The sources of a block, padded, on the device."""

    landmarks: Float[Array, "r p 2"]
    cluster_weights: Float[Array, "r k"]
    z: Float[Array, "r d"]
    """Means of the posteriors."""
    photo: tuple[Float[Array, "r h+3 w+3 8"], Float[Array, "r h w 3"]] | None
    """`_photo_cells` and reconstruction, where the photo is laid over."""


def transfer_cross(
    model: Model,
    images: Images,
    landmarks: Landmarks,
    target_landmarks: Float[np.ndarray, "m p 2"],
    transport: bool = True,
    adaptation: AdaptConfig = AdaptConfig(),  # noqa: B008
) -> UInt8[np.ndarray, "n m h w 3"]:
    """Returns each of n source appearances under each of m target structures, as `transfer_adapted` draws pairs.

    Args:
        landmarks: of the sources.
        transport: move z from the prior of the source's structure to that of the target's.

    Raises:
        ValueError: the images or landmarks do not fit the model's size or scheme.
    """
    n, m = len(images), len(target_landmarks)
    if not n * m:
        return np.empty((n, m, *images.shape[1:]), np.uint8)
    if adaptation.steps:  # a network fitted to its source shares nothing with those of others
        each_image, each_face = (np.repeat(array, m, axis=0) for array in (images, landmarks))
        targets = np.tile(target_landmarks, (n, 1, 1))
        drawn = transfer_adapted(model, each_image, each_face, targets, transport, adaptation)
        return drawn.reshape(n, m, *images.shape[1:])
    check_faces(model.config, images, landmarks)
    check_faces(model.config, images, target_landmarks)
    share = jnp.float32(adaptation.detail)
    architecture, params, frozen = constants = model.architecture, model.params, model.frozen
    height = 2 * _ROWS if n >= 2 * _ROWS else min(_ROWS, _filled(n))
    width = BATCH // height
    tops, drawn = range(0, n, height), np.empty((n, m, *images.shape[1:]), np.uint8)
    read = partial(_read, adaptation.detail > 0, *constants)
    blocks = [read(*(_padded(part, slice(top, top + height)) for part in (images, landmarks))) for top in tops]
    for left in range(0, m, width):
        columns = slice(left, left + width)
        targets = jnp.asarray(_padded(target_landmarks, columns))
        condition = compiled_condition(*constants, targets)
        for top, faces in zip(tops, blocks, strict=True):
            z = faces.z, faces.cluster_weights, condition.cluster_weights
            moved = _move(transport, architecture, params, frozen, *z)
            block = _decode(architecture, params, moved, condition, frozen.z_scale)
            if faces.photo is not None:
                block = _lay_over(*faces.photo, faces.landmarks, targets, block, share)
            part = drawn[top : top + height, columns]
            shape = len(faces.z), len(targets), *images.shape[1:]
            part[...] = to_uint8(np.asarray(block)).reshape(shape)[: part.shape[0], : part.shape[1]]
    return drawn


def _padded(array: np.ndarray, rows: slice) -> np.ndarray:
    """Returns these rows of the array, the last one repeated up to a power of two, so that few shapes compile."""
    part = array[rows]
    missing = _filled(len(part)) - len(part)
    return np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part


def _filled(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _read(
    reconstructs: bool,
    architecture: Architecture,
    params: PyTree,
    frozen: Frozen,
    images: UInt8[np.ndarray, "r h w 3"],
    landmarks: Float[np.ndarray, "r p 2"],
) -> _Sources:
    faces = jnp.asarray(landmarks)
    condition = compiled_condition(architecture, params, frozen, faces)
    image, z = _encode(architecture, params, images, condition)
    photo = None
    if reconstructs:
        reconstruction = _decode(architecture, params, z, condition, frozen.z_scale)
        photo = _photo_cells(image, reconstruction), reconstruction
    return _Sources(faces, condition.cluster_weights, z, photo)


@jax.jit
def _photo_cells(
    image: Float[Array, "r h w 3"], reconstruction: Float[Array, "r h w 3"]
) -> Float[Array, "r h+3 w+3 8"]:
    """Returns `photo_layers` with a margin and two empty layers: XLA's CPU code reads 8 numbers at once, 6 singly."""
    layers = photo_layers(image, reconstruction)
    return with_margin(jnp.pad(layers, ((0, 0), (0, 0), (0, 0), (0, 2))))


# One program a network and not one for all: the decoder that reconstructs one source also draws one pair, and a
# process that draws its first picture compiles half as long.
_decode = jax.jit(decode, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def _encode(
    architecture: Architecture, params: PyTree, images: Array, condition: Condition
) -> tuple[Float[Array, "r h w 3"], Float[Array, "r d"]]:
    image = to_float(images)
    return image, encode(architecture, params, image, condition).mean


@partial(jax.jit, static_argnums=(0, 1))
def _move(
    transport: bool,
    architecture: Architecture,
    params: PyTree,
    frozen: Frozen,
    z: Float[Array, "r d"],
    weights: Float[Array, "r k"],
    target_weights: Float[Array, "c k"],
) -> Float[Array, "r*c d"]:
    rows, columns = len(z), len(target_weights)
    each = partial(jnp.repeat, repeats=columns, axis=0)
    if not transport:
        return each(z)
    sides = each(weights), jnp.tile(target_weights, (rows, 1))
    start, end = (prior_of(architecture, params, frozen, side) for side in sides)
    return start.transport(each(z), end)


def _lay_over(
    cells: Float[Array, "r _ _ 8"],
    reconstruction: Float[Array, "r h w 3"],
    landmarks: Float[Array, "r p 2"],
    target_landmarks: Float[Array, "c p 2"],
    drawn: Float[Array, "n h w 3"],
    share: Array,
) -> Float[Array, "n h w 3"]:
    """Returns what `lay_photo_over` makes of each pair.

    Four programs: fused with what follows, XLA's CPU code for reads at places takes twice as long.
    """
    fine, *trusted = _find_places(target_landmarks, landmarks, drawn.shape[1])
    return _blend(*trusted, _read_photo(cells, fine), _warp(reconstruction, fine), drawn, share)


@partial(jax.jit, static_argnums=2)
def _find_places(
    target_landmarks: Float[Array, "c p 2"], landmarks: Float[Array, "r p 2"], size: int
) -> tuple[Float[Array, "r _ _ 2"], Float[Array, "n h w 1"], Float[Array, "n h w 1"]]:
    """Returns where each pixel of each pair lies in the photo, the trust in that map, and `within_face`."""
    places = smooth_maps(target_landmarks, landmarks, FIELD, pinned=True)
    places = places.reshape(-1, *places.shape[2:])
    fine = finer(places, size)
    each_source = einops.rearrange(fine, "(r c) h w xy -> r (c h) w xy", r=len(landmarks))
    return each_source, trust_in_map(places, fine), within_face(places, target_landmarks, size)


_read_photo, _warp = jax.jit(read_cubic), jax.jit(resample)


@jax.jit
def _blend(
    trust: Float[Array, "n h w 1"],
    inside: Float[Array, "n h w 1"],
    layers: Float[Array, "r _ _ 8"],
    warped: Float[Array, "r _ _ 3"],
    drawn: Float[Array, "n h w 3"],
    share: Array,
) -> Float[Array, "n h w 3"]:
    layers, warped = (each.reshape(*drawn.shape[:3], -1) for each in (layers, warped))
    photo, texture = layers[..., :3], layers[..., 3:6]
    weight, texture_weight = pixel_weights(trust, inside, warped, drawn)
    return drawn + share * (weight * (photo - drawn) + texture_weight * texture)
