"""Transfer with adaptation to one photo: steps on z and the decoder, and the photo's own pixels where they agree.

An autoencoder trained on other people loses a person's identity. Two remedies, neither in the paper. A few seconds of
training fit the model to the source photo before its structure changes. Where the photo, warped by its landmarks,
agrees with the model's image, its own pixels replace the model's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ecvae_jax.config import AdaptConfig, Architecture
from ecvae_jax.images import to_float, to_uint8
from ecvae_jax.model.conditioning import Frozen, make_condition
from ecvae_jax.model.cvae import decode, encode
from ecvae_jax.model.model import Model
from ecvae_jax.model.ssim import structural_similarity
from ecvae_jax.synthesis.batches import Images, Landmarks, check_faces, in_batches, transfer_plain
from ecvae_jax.synthesis.batches import encode as encode_faces
from ecvae_jax.synthesis.photo import lay_photo_over, photo_layers

_SSIM_WEIGHT = 0.3
_Z_RATE = 10.0
"""Learning rate of z, in units of the prior's standard deviation, relative to that of the decoder."""


def transfer_adapted(
    model: Model,
    images: Images,
    landmarks: Landmarks,
    target_landmarks: Landmarks,
    transport: bool = True,
    adaptation: AdaptConfig = AdaptConfig(),  # noqa: B008
) -> Images:
    """Returns n source appearances under n target structures, row by row, with the model adapted to each source.

    Consecutive equal sources are fitted once. `landmarks` are the sources'.

    Raises:
        ValueError: the images or landmarks do not fit the model's size or scheme.
    """
    if not adaptation.steps and not adaptation.detail:
        return transfer_plain(model, images, landmarks, target_landmarks, transport)
    architecture, frozen, share = model.architecture, model.frozen, jnp.float32(adaptation.detail)
    check_faces(model.config, images, landmarks)
    check_faces(model.config, images, target_landmarks)
    if not adaptation.steps:
        draw = partial(_draw, architecture, transport, model.params, frozen, share, None)
        return to_uint8(in_batches(draw, images, landmarks, target_landmarks))
    drawn = np.empty_like(images)
    params, z = model.params, None
    for row in range(len(images)):
        one, before = slice(row, row + 1), slice(row - 1, row)
        if not row or any((array[one] != array[before]).any() for array in (images, landmarks)):
            params, z = _fit(architecture, adaptation, model.params, frozen, images[one], landmarks[one])
        faces = images[one], landmarks[one], target_landmarks[one]
        picture = _draw(architecture, transport, params, frozen, share, z, *faces)
        drawn[row] = to_uint8(np.asarray(picture))[0]
    return drawn


def fit_source(
    model: Model, images: Images, landmarks: Landmarks, adaptation: AdaptConfig
) -> tuple[PyTree, Float[Array, "1 d"]]:
    """Returns the parameters and z that draw one source: its posterior mean, or those adapted to it.

    Raises:
        ValueError: the image or the landmarks do not fit the model's size or scheme.
    """
    check_faces(model.config, images, landmarks)
    if adaptation.steps:
        return _fit(model.architecture, adaptation, model.params, model.frozen, images, landmarks)
    return model.params, encode_faces(model, images, landmarks).mean


@partial(jax.jit, static_argnums=(0, 1))
def _draw(
    architecture: Architecture,
    transport: bool,
    params: PyTree,
    frozen: Frozen,
    share: Array,
    z: Array | None,
    images: Array,
    landmarks: Array,
    target_landmarks: Array,
) -> Float[Array, "b h w 3"]:
    source, target = (make_condition(architecture, params, frozen, face) for face in (landmarks, target_landmarks))
    image = to_float(images)
    if z is None:
        z = encode(architecture, params, image, source).mean
    moved = source.prior.transport(z, target.prior) if transport else z
    drawn = decode(architecture, params, moved, target, frozen.z_scale)
    reconstruction = decode(architecture, params, z, source, frozen.z_scale)
    layers = photo_layers(image, reconstruction)
    return lay_photo_over(layers, reconstruction, drawn, landmarks, target_landmarks, share)


@partial(jax.jit, static_argnums=(0, 1))
def _fit(
    architecture: Architecture, adaptation: AdaptConfig, params: PyTree, frozen: Frozen, image: Array, landmarks: Array
) -> tuple[PyTree, Float[Array, "1 d"]]:
    """Returns parameters with a fitted decoder, and a fitted z, for the reconstruction of one photo."""
    import optax  # late: 0.4 s, and the default fits nothing

    true, condition = to_float(image), make_condition(architecture, params, frozen, landmarks)
    start = encode(architecture, params, true, condition).mean

    def place(free: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
        decoder, change = free
        return {**params, "structure": decoder}, start + _Z_RATE * frozen.z_scale * change

    def loss(free: tuple[PyTree, Array]) -> Array:
        drawn = decode(architecture, *place(free), condition, frozen.z_scale)
        return jnp.mean(jnp.abs(drawn - true)) + _SSIM_WEIGHT * (1.0 - structural_similarity(drawn, true)[0])

    optimizer = optax.adam(optax.cosine_decay_schedule(adaptation.learning_rate, adaptation.steps, 0.1))

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        free, state = carry
        updates, state = optimizer.update(jax.grad(loss)(free), state, free)
        return (optax.apply_updates(free, updates), state), None

    free = (params["structure"], jnp.zeros_like(start))
    (free, _), _ = jax.lax.scan(step, (free, optimizer.init(free)), length=adaptation.steps)
    return place(free)
