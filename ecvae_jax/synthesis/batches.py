"""Jitted batch synthesis by the model alone: encode, decode, move, reconstruct, transfer, sample.

Inputs and outputs are host arrays: 8-bit images n h w 3 at the model's resolution, landmarks n p 2 in crop units.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from ecvae_jax.config import Architecture, Config
from ecvae_jax.gaussian import DiagGaussian, LowRankGaussian
from ecvae_jax.images import to_float, to_uint8
from ecvae_jax.model import cvae
from ecvae_jax.model.conditioning import Frozen, make_condition
from ecvae_jax.model.model import Model

BATCH = 32
"""Images per compiled call. The remainder is padded to a power of two, so that few shapes are compiled."""

Images = UInt8[np.ndarray, "n h w 3"]
Landmarks = Float[np.ndarray, "n p 2"]


def encode(model: Model, images: Images, landmarks: Landmarks) -> DiagGaussian:
    """Returns q(z | x, c) of each face, n d.

    Raises:
        ValueError: the images or landmarks do not fit the model's size or scheme.
    """
    check_faces(model.config, images, landmarks)
    mean, logvar = in_batches(partial(_encode, model.architecture, model.params, model.frozen), images, landmarks)
    return DiagGaussian(jnp.asarray(mean), jnp.asarray(logvar))


def decode(model: Model, z: Float[np.ndarray, "n d"] | Array, landmarks: Landmarks) -> Images:
    """Returns the image of each z under its landmarks; `move` moves z to their prior."""
    _check_landmarks(model.config, landmarks)
    decode_batch = partial(_decode, model.architecture, model.params, model.frozen)
    return to_uint8(in_batches(decode_batch, np.asarray(z), landmarks))


def move(
    model: Model, z: Float[np.ndarray, "n d"] | Array, landmarks_from: Landmarks, landmarks_to: Landmarks
) -> Float[np.ndarray, "n d"]:
    """Returns z moved from the prior of one structure to that of another (`prior.transport`)."""
    move_batch = partial(_move, model.architecture, model.params, model.frozen)
    return in_batches(move_batch, np.asarray(z), landmarks_from, landmarks_to)


def reconstruct(model: Model, images: Images, landmarks: Landmarks) -> Images:
    """Returns each face decoded from its own posterior mean and landmarks."""
    return decode(model, encode(model, images, landmarks).mean, landmarks)


def transfer_plain(
    model: Model, images: Images, landmarks: Landmarks, target_landmarks: Landmarks, transport: bool = True
) -> Images:
    """Returns n source appearances under n target structures, row by row.

    `landmarks` are the sources'; with `transport`, z moves from the prior of their structure to that of the target's.
    """
    z = np.asarray(encode(model, images, landmarks).mean)
    if transport:
        z = move(model, z, landmarks, target_landmarks)
    return decode(model, z, target_landmarks)


def sample(
    model: Model,
    key: Array,
    landmarks: Landmarks,
    count: int,
    density: LowRankGaussian | None = None,
    temperature: float = 1.0,
) -> UInt8[np.ndarray, "n count h w 3"]:
    """Returns `count` images of each structure with z drawn from its prior.

    Args:
        density: draw z from this Gaussian, in units of the structure's prior (`density.fit_density`); None: the prior.
        temperature: scales z's deviation from its mean: 0 gives the mean, 1 the full spread.

    Raises:
        ValueError: the temperature is negative or not finite, or the landmarks do not fit the model's scheme.

    Deviation: the paper samples its prior; a density fitted to the posteriors is from Ghosh et al. 2020
    (https://arxiv.org/abs/1903.12436).
    """
    _check_landmarks(model.config, landmarks)
    if not 0.0 <= temperature < np.inf:
        raise ValueError(f"temperature={temperature}: must be 0 or more")
    repeated = np.repeat(landmarks, count, axis=0)
    keys = np.asarray(jax.random.key_data(jax.random.split(key, len(repeated))))
    draw = partial(_sample, model.architecture, model.params, model.frozen, density=density, temperature=temperature)
    z = in_batches(draw, keys, repeated)
    drawn = decode(model, z, repeated)
    return drawn.reshape(len(landmarks), count, *drawn.shape[1:])


@partial(jax.jit, static_argnums=0)
def _encode(
    architecture: Architecture, params: PyTree, frozen: Frozen, images: Array, landmarks: Array
) -> DiagGaussian:
    condition = make_condition(architecture, params, frozen, landmarks)
    return cvae.encode(architecture, params, to_float(images), condition)


@partial(jax.jit, static_argnums=0)
def _decode(architecture: Architecture, params: PyTree, frozen: Frozen, z: Array, landmarks: Array) -> Array:
    condition = make_condition(architecture, params, frozen, landmarks)
    return cvae.decode(architecture, params, z, condition, frozen.z_scale)


@partial(jax.jit, static_argnums=0)
def _move(
    architecture: Architecture, params: PyTree, frozen: Frozen, z: Array, landmarks_from: Array, landmarks_to: Array
) -> Array:
    start, end = (make_condition(architecture, params, frozen, each).prior for each in (landmarks_from, landmarks_to))
    return start.transport(z, end)


@partial(jax.jit, static_argnums=0)
def _sample(
    architecture: Architecture,
    params: PyTree,
    frozen: Frozen,
    key_data: Array,
    landmarks: Array,
    density: LowRankGaussian | None = None,
    temperature: float = 1.0,
) -> Array:
    def draw(key: Array, face: Array) -> Array:
        condition = make_condition(architecture, params, frozen, face[None])
        mean, stddev = condition.reference.mean[0], condition.reference.stddev[0]
        if density is not None:
            return mean + stddev * density.sample(key, temperature)
        z, center = condition.prior.sample(key)[0], condition.prior.center[0]
        return jnp.where(temperature == 1.0, z, center + temperature * (z - center))  # bit-identical to z at 1

    return jax.vmap(draw)(jax.random.wrap_key_data(key_data), landmarks)


PROGRAMS = {"encode": _encode, "move": _move, "decode": _decode}
"""The jitted programs of a transfer, in order. The first argument of each is the static architecture."""


def in_batches(call: Callable[..., Any], *arrays: np.ndarray) -> Any:
    """Returns `call` mapped over the leading axis of `arrays` in padded batches of `BATCH`, as host arrays."""
    count = len(arrays[0])
    if any(len(array) != count for array in arrays):
        raise ValueError(f"{[len(array) for array in arrays]} items: images, z and landmarks must have equal numbers")
    outputs = []
    for start in range(0, count, BATCH):
        rows = [array[start : start + BATCH] for array in arrays]
        filled = 1 << (len(rows[0]) - 1).bit_length()
        missing = filled - len(rows[0])
        padded = [np.concatenate([row, np.repeat(row[-1:], missing, axis=0)]) if missing else row for row in rows]
        outputs.append(jax.tree.map(lambda leaf: np.asarray(leaf)[: filled - missing], call(*padded)))  # noqa: B023
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *outputs)


def check_faces(config: Config, images: np.ndarray, landmarks: np.ndarray) -> None:
    """Raises ValueError if images or landmarks do not fit the model."""
    size = config.model.image_size
    if images.ndim != 4 or images.shape[1:] != (size, size, 3) or images.dtype != np.uint8:
        raise ValueError(f"images {images.dtype}{list(images.shape)}: the model reads uint8 [n, {size}, {size}, 3]")
    _check_landmarks(config, landmarks)


def _check_landmarks(config: Config, landmarks: np.ndarray) -> None:
    points = config.data.points
    if landmarks.ndim != 3 or landmarks.shape[1:] != (points, 2):
        raise ValueError(f"landmarks {list(landmarks.shape)}: the model reads [n, {points}, 2]")
    if not np.isfinite(landmarks).all():
        raise ValueError("landmarks contain a NaN or infinite value")
