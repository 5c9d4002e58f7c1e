"""Every source under every target: each face is encoded once, each block of targets shares its structure passes."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from ecvae_jax.config import AdaptConfig, Architecture
from ecvae_jax.images import to_float, to_uint8
from ecvae_jax.model.conditioning import Frozen, make_condition
from ecvae_jax.model.cvae import decode, encode
from ecvae_jax.model.model import Model
from ecvae_jax.synthesis.adapt import lay_photo_over, photo_layers, transfer_adapted
from ecvae_jax.synthesis.batches import BATCH, Images, Landmarks, check_faces, in_batches

_ROWS = 8
"""Most sources of one compiled call. A target's structure is encoded once for all sources of the call."""


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
    share = jnp.float32(adaptation.detail) if adaptation.detail else None
    constants = model.architecture, model.params, model.frozen
    sources = in_batches(partial(_read, share is not None, *constants), images, landmarks)
    drawn = np.empty((n, m, *images.shape[1:]), np.uint8)
    height = min(_ROWS, _filled(n))
    width = BATCH // height
    for top in range(0, n, height):
        rows = slice(top, top + height)
        faces = _padded((*sources, images, landmarks), rows)
        for left in range(0, m, width):
            columns = slice(left, left + width)
            (targets,) = _padded((target_landmarks,), columns)
            block = _draw_block(transport, *constants, share, *faces, targets)
            part = drawn[rows, columns]
            part[...] = to_uint8(np.asarray(block))[: part.shape[0], : part.shape[1]]
    return drawn


def _padded(arrays: tuple[np.ndarray | None, ...], rows: slice) -> list[np.ndarray | None]:
    """Returns these rows of the arrays, the last one repeated up to a power of two, so that few shapes compile."""

    def pad(array: np.ndarray) -> np.ndarray:
        part = array[rows]
        missing = _filled(len(part)) - len(part)
        return np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part

    return [None if array is None else pad(array) for array in arrays]


def _filled(count: int) -> int:
    return 1 << (count - 1).bit_length()


@partial(jax.jit, static_argnums=(0, 1))
def _read(
    reconstructs: bool, architecture: Architecture, params: PyTree, frozen: Frozen, images: Array, landmarks: Array
) -> tuple[Float[Array, "b d"], Float[Array, "b h w 3"] | None]:
    """Returns the mean of each source's posterior, and its reconstruction where the photo is laid over."""
    condition = make_condition(architecture, params, frozen, landmarks)
    z = encode(architecture, params, to_float(images), condition).mean
    return z, decode(architecture, params, z, condition, frozen.z_scale) if reconstructs else None


@partial(jax.jit, static_argnums=(0, 1))
def _draw_block(
    transport: bool,
    architecture: Architecture,
    params: PyTree,
    frozen: Frozen,
    share: Array | None,
    z: Float[Array, "r d"],
    reconstruction: Float[Array, "r h w 3"] | None,
    images: Array,
    landmarks: Float[Array, "r p 2"],
    target_landmarks: Float[Array, "c p 2"],
) -> Float[Array, "r c h w 3"]:
    rows, columns = len(z), len(target_landmarks)
    each = partial(jnp.repeat, repeats=columns, axis=0)
    sources, targets = each(landmarks), jnp.tile(target_landmarks, (rows, 1, 1))
    moved = each(z)
    if transport:  # of these conditions only the priors are computed
        start, end = (make_condition(architecture, params, frozen, faces).prior for faces in (sources, targets))
        moved = start.transport(moved, end)
    condition = make_condition(architecture, params, frozen, target_landmarks)
    drawn = decode(architecture, params, moved, condition, frozen.z_scale)
    if share is not None and reconstruction is not None:
        layers = photo_layers(to_float(images), reconstruction)
        drawn = lay_photo_over(each(layers), each(reconstruction), drawn, sources, targets, share)
    return drawn.reshape(rows, columns, *drawn.shape[1:])
