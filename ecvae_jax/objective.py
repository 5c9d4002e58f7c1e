"""The training objective: recon_nll + beta · kl, every term in nats per image (Eqs. 1 and 2)."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ecvae_jax.config import Architecture, ObjectiveConfig
from ecvae_jax.gaussian import DiagGaussian
from ecvae_jax.model.conditioning import Condition, Frozen, make_condition
from ecvae_jax.model.cvae import decode, encode
from ecvae_jax.model.perceptual import PerceptualWeights, lpips, resize
from ecvae_jax.model.ssim import structural_similarity
from ecvae_jax.prior import effective_clusters

MIN_SCALE = 2.0 / 255.0
"""Lower bound of the analytic scale, which goes to 0 with the error: one step of 8-bit images."""


class Views(NamedTuple):
    """A batch: z comes from the source view; sketch and true image come from the target view.

    In self-reconstruction both views are the same image.
    """

    source_image: Float[Array, "b h w 3"]
    source_landmarks: Float[Array, "b p 2"]
    image: Float[Array, "b h w 3"]
    landmarks: Float[Array, "b p 2"]


class Terms(NamedTuple):
    """The terms of the loss, one value per image, in nats unless stated."""

    recon_nll: Float[Array, " b"]
    kl: Float[Array, " b"]
    ssim: Float[Array, " b"] | None
    """Structural similarity of the reconstruction, at most 1; None if `objective.ssim_weight` is 0."""
    loss: Float[Array, " b"]
    effective_clusters: Float[Array, " b"]
    """exp(H(c)) of the source, from 1 to K."""
    perceptual: Float[Array, " b"] | None = None
    """LPIPS of the reconstruction, times `objective.perceptual_every`; None in steps without it."""

    @property
    def elbo(self) -> Float[Array, " b"]:
        """The evidence lower bound, -(recon_nll + kl), for any beta."""
        return -(self.recon_nll + self.kl)


def likelihood_scale(
    config: ObjectiveConfig, error: Float[Array, "b h w c"], axis_name: str | None = None
) -> Float[Array, ""]:
    """Returns the scale of the likelihood: `config.scale`, or its analytic optimum on the whole batch.

    The optimum is the mean absolute error (Laplace) or the root mean squared error (Gaussian), as in sigma-VAE (Rybkin
    et al. 2021, https://arxiv.org/abs/2006.13202). Its gradient at the optimum is zero, so it is a constant here.

    Args:
        error: prediction minus image on this device.
        axis_name: mapped axis of the batch; None for one device.
    """
    if config.scale is not None:
        return jnp.asarray(config.scale, jnp.float32)
    moment = jnp.mean(jnp.abs(error)) if config.likelihood == "laplace" else jnp.mean(error**2)
    moment = jax.lax.stop_gradient(moment)
    if axis_name is not None:
        moment = jax.lax.pmean(moment, axis_name)
    return jnp.maximum(moment if config.likelihood == "laplace" else jnp.sqrt(moment), MIN_SCALE)


def recon_nll(config: ObjectiveConfig, error: Float[Array, "b h w c"], scale: Float[Array, ""]) -> Float[Array, " b"]:
    """Returns -log p(x | c, z), nats per image: independent Laplace or Gaussian densities of pixels in [-1, 1].

    Deviation: the paper names no likelihood.
    """
    axes = (1, 2, 3)
    values = math.prod(error.shape[1:])
    if config.likelihood == "laplace":
        return jnp.sum(jnp.abs(error), axes) / scale + values * jnp.log(2 * scale)
    return jnp.sum(error**2, axes) / (2 * scale**2) + values * (jnp.log(scale) + 0.5 * math.log(2 * math.pi))


def loss_terms(
    architecture: Architecture,
    params: PyTree,
    frozen: Frozen,
    views: Views,
    noise: Float[Array, "b d"],
    keys: Array,
    beta: Float[Array, ""] | float,
    axis_name: str | None = None,
    perceptual: PerceptualWeights | None = None,
) -> tuple[Terms, Float[Array, "b h w 3"], DiagGaussian, Condition]:
    """Returns the terms of the objective, the predicted images, and the source's posterior and condition.

    z ~ q(z | x, c) of the source view moves to the prior of the target's structure (`prior.transport`; the identity if
    both views are the same). Decoding uses the target's sketch.

    Deviation: the paper reconstructs each image from itself; `data.pairs` > 0 adds other views of the same person.
    `objective.ssim_weight` adds 1 - SSIM to the loss, and `objective.perceptual_weight` LPIPS, but not to `recon_nll`
    and the ELBO.

    Args:
        noise: standard normal, for the reparametrization.
        keys: one per image, for a prior without a closed KL (Eq. 3).
        axis_name: mapped axis of the batch; None for one device.
        perceptual: weights of LPIPS; None: this step has no such term.
    """
    # Landmarks and the frozen part are data; only cluster means among the parameters are trained.
    fixed, faces, others = jax.lax.stop_gradient((frozen, views.source_landmarks, views.landmarks))
    source = make_condition(architecture, params, fixed, faces)
    same = views.source_landmarks is views.landmarks  # one view (`training.step.to_views`): one sketch
    target = source if same else make_condition(architecture, params, fixed, others)
    posterior = encode(architecture, params, views.source_image, source)
    z = posterior.mean + posterior.stddev * noise
    kl = source.prior.kl(keys, posterior)
    moved = source.prior.transport(z, target.prior)
    prediction = decode(architecture, params, moved, target, frozen.z_scale)

    error = prediction - views.image
    settings = architecture.objective
    scale = likelihood_scale(settings, error, axis_name)
    nll = recon_nll(settings, error, scale)
    loss = nll + beta * kl
    similarity = None
    if settings.ssim_weight:
        similarity = structural_similarity(prediction, views.image)
        values = math.prod(error.shape[1:])
        loss += settings.ssim_weight * values / scale * (1.0 - similarity)
    distance = None
    if perceptual is not None:
        distance = perceptual_distance(architecture, perceptual, prediction, views.image)
        loss += settings.perceptual_weight * math.prod(error.shape[1:]) / scale * distance
    terms = Terms(nll, kl, similarity, loss, effective_clusters(source.cluster_weights), distance)
    return terms, prediction, posterior, source


def perceptual_distance(
    architecture: Architecture,
    weights: PerceptualWeights,
    prediction: Float[Array, "b h w 3"],
    image: Float[Array, "b h w 3"],
) -> Float[Array, " b"]:
    """Returns LPIPS on VGG16's features, times `objective.perceptual_every`: the mean over all steps is LPIPS."""
    settings = architecture.objective
    first, second = (resize(each, settings.perceptual_resolution) for each in (prediction, image))
    dtype = jnp.dtype(architecture.model.dtype)
    return settings.perceptual_every * lpips("vgg16", settings.perceptual_taps, weights, first, second, dtype)
