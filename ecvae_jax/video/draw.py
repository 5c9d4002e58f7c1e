"""Frames of one source under many structures: encoded once, drawn in batches of one compiled shape."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from ecvae_jax.config import AdaptConfig, Architecture
from ecvae_jax.images import to_float
from ecvae_jax.model.conditioning import Frozen, make_condition
from ecvae_jax.model.cvae import decode
from ecvae_jax.model.model import Model
from ecvae_jax.synthesis.adapt import fit_source, lay_photo_over, photo_layers
from ecvae_jax.video.source import Source

BATCH = 8
"""Frames per compiled call."""


def draw_frames(
    model: Model,
    source: Source,
    faces: Float[np.ndarray, "n p 2"],
    side: int,
    transport: bool = True,
    adaptation: AdaptConfig = AdaptConfig(),  # noqa: B008
) -> Iterator[UInt8[np.ndarray, "side side 3"]]:
    """Yields the source's crop under each structure, as `ecvae transfer` draws it, at `side` pixels.

    The photo's own pixels are laid over at their own resolution, not the model's.

    Args:
        faces: crop units of the source.
    """
    landmarks = source.landmarks[None]
    params, z = fit_source(model, source.view[None], landmarks, adaptation)
    photo, share = source.crop(side)[None], jnp.float32(adaptation.detail)
    for start in range(0, len(faces), BATCH):
        rows = faces[start : start + BATCH]
        padded = np.concatenate([rows, np.repeat(rows[-1:], BATCH - len(rows), axis=0)])
        drawn = _draw(model.architecture, transport, params, model.frozen, share, z, photo, landmarks, padded)
        yield from np.asarray(drawn)[: len(rows)]


@partial(jax.jit, static_argnums=(0, 1))
def _draw(
    architecture: Architecture,
    transport: bool,
    params: PyTree,
    frozen: Frozen,
    share: Array,
    z: Array,
    photo: Array,
    landmarks: Array,
    faces: Array,
) -> UInt8[Array, "b side side 3"]:
    count = len(faces)
    source, target = (make_condition(architecture, params, frozen, face) for face in (landmarks, faces))
    reconstruction = decode(architecture, params, z, source, frozen.z_scale)
    one, all_landmarks = jnp.repeat(z, count, axis=0), jnp.repeat(landmarks, count, axis=0)
    if transport:
        priors = make_condition(architecture, params, frozen, all_landmarks).prior
        one = priors.transport(one, target.prior)
    drawn = decode(architecture, params, one, target, frozen.z_scale)
    layers = photo_layers(to_float(photo), reconstruction)
    all_layers, reconstructions = (jnp.repeat(each, count, axis=0) for each in (layers, reconstruction))
    image = lay_photo_over(all_layers, reconstructions, drawn, all_landmarks, faces, share)
    return jnp.clip(jnp.round((image + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
