"""Bits per dimension of the evidence lower bound, on images that the model did not see."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from ecvae_jax.config import Architecture
from ecvae_jax.images import to_float
from ecvae_jax.model.conditioning import Frozen
from ecvae_jax.model.model import Model
from ecvae_jax.objective import Views, loss_terms

LEVEL_WIDTH = 2.0 / 255.0
"""One 8-bit level, where images run from -1 to 1."""

_BATCH = 32


def bits_per_dimension(nats: float, values: int) -> float:
    """Returns the bits for one color value of one pixel that a bound of so many nats an image, `values` each, means.

    The bound is on a density over [-1, 1]. A level is `LEVEL_WIDTH` wide, so that its probability is the density times
    that: bits = (nats / values − ln LEVEL_WIDTH) / ln 2. An image of independent uniform noise needs 8.
    """
    return (nats / values - math.log(LEVEL_WIDTH)) / math.log(2.0)


def elbo_bits(
    model: Model, images: UInt8[np.ndarray, "n h w 3"], landmarks: Float[np.ndarray, "n p 2"], seed: int = 0
) -> dict[str, float]:
    """Returns the mean negative ELBO of the images, each reconstructed from itself: bits per dimension, nats an image.

    One z a picture from its posterior. To the true image uniform noise of one level is added: the density of the noisy
    one bounds the probability of the 8-bit one from below, so that the bits are an upper bound. Where the scale of the
    likelihood is not set it is the best of each batch of 32, which favors the model a little.

    Args:
        model: a loaded checkpoint.
        images: n h w 3, at the model's resolution.
        landmarks: n p 2, crop units, in the model's scheme.
        seed: of z and of the noise.
    """
    key, config = jax.random.key(seed), model.config
    nll, kl = [], []
    # Whole batches only, as the likelihood's scale is that of a batch; of fewer images each fills it several times.
    count = max(_BATCH, len(images) // _BATCH * _BATCH)
    for start in range(0, count, _BATCH):
        rows = np.arange(start, start + _BATCH) % len(images)
        batch = _terms(config.architecture, model.params, model.frozen, jax.random.fold_in(key, start), images[rows],
                       landmarks[rows])  # fmt: skip
        nll.append(np.asarray(batch[0]))
        kl.append(np.asarray(batch[1]))
    nll_mean, kl_mean = float(np.concatenate(nll).mean()), float(np.concatenate(kl).mean())
    values = math.prod(images.shape[1:])
    return {
        "bits_per_dimension": bits_per_dimension(nll_mean + kl_mean, values),
        "recon_nll": nll_mean,
        "kl": kl_mean,
        "images": min(count, len(images)),
    }


@partial(jax.jit, static_argnums=0)
def _terms(
    architecture: Architecture, params: PyTree, frozen: Frozen, key: Array, images: Array, landmarks: Array
) -> tuple[Array, Array]:
    noise_key, level_key, component_key = jax.random.split(key, 3)
    image = to_float(images)
    level = jax.random.uniform(level_key, image.shape, minval=-LEVEL_WIDTH / 2, maxval=LEVEL_WIDTH / 2)
    noise = jax.random.normal(noise_key, (len(images), architecture.model.z_dim))
    views = Views(image, landmarks, image + level, landmarks)
    terms, _ = loss_terms(
        architecture, params, frozen, views, noise, jax.random.split(component_key, len(images)), beta=jnp.float32(1.0)
    )
    return terms.recon_nll, terms.kl
