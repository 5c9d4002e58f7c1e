"""The conditional VAE: encode to q(z | x, c), decode p(x | c, z)."""

from __future__ import annotations

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ecvae_jax.config import Architecture, ModelConfig
from ecvae_jax.gaussian import DiagGaussian
from ecvae_jax.model.appearance import AppearanceEncoder
from ecvae_jax.model.conditioning import Condition, abstract_frozen, make_condition
from ecvae_jax.model.orthonormal import drawn_together
from ecvae_jax.model.unet import StructureUNet


class CVAE(nn.Module):
    """Two branches: appearance encoder and structure U-Net. Callers use `encode` and `decode` of this module."""

    config: ModelConfig

    def setup(self) -> None:
        """Creates the two branches."""
        self.appearance = AppearanceEncoder(self.config)
        self.structure = StructureUNet(self.config)

    def encode(self, image: Float[Array, "b h w 3"], condition: Condition) -> DiagGaussian:
        """Returns q(z | x, c), b d."""
        mean, logvar = self.appearance(image, condition.sketch, condition.frame)
        reference = condition.reference
        if self.config.posterior == "plain":
            return DiagGaussian(mean, logvar)
        return DiagGaussian(reference.mean + reference.stddev * mean, reference.logvar + logvar)

    def decode(
        self, z: Float[Array, "n d"], condition: Condition, z_scale: Float[Array, ""]
    ) -> Float[Array, "n h w 3"]:
        """Returns the mean image of p(x | c, z)."""
        return self.structure(z / z_scale, condition.sketch, condition.frame)

    def __call__(
        self, image: Float[Array, "b h w 3"], condition: Condition, z_scale: Float[Array, ""]
    ) -> Float[Array, "b h w 3"]:
        """Returns the reconstruction from the posterior's mean; initialization runs it."""
        return self.decode(self.encode(image, condition).mean, condition, z_scale)


def encode(
    architecture: Architecture,
    params: PyTree,
    image: Float[Array, "b h w 3"],
    condition: Condition,
) -> DiagGaussian:
    """Returns the posterior q(z | x, c), b d, float32.

    Args:
        image: float in [-1, 1].
        condition: of the image's own landmarks. A relative posterior has mean m(c) + σ(c)·net, and its log-variance
            is an offset to that of `condition.reference`.

    Deviation: the paper gives q = N(μ(x, c), σ²(x, c)) without a parametrization, which `model.posterior="plain"`
    takes literally.
    """
    posterior = CVAE(architecture.model).apply({"params": params}, image, condition, method="encode")
    assert isinstance(posterior, DiagGaussian)
    return posterior


def decode(
    architecture: Architecture,
    params: PyTree,
    z: Float[Array, "n d"],
    condition: Condition,
    z_scale: Float[Array, ""],
) -> Float[Array, "n h w 3"]:
    """Returns the mean image of p(x | c, z) in [-1, 1], float32.

    With b structures, n may be a multiple of b: row i has structure i % b, and each is encoded once.

    Args:
        z: for a relative posterior, from the prior of `condition`; `prior.transport` moves another z there.
        condition: of the structure to draw.
        z_scale: divides z before the first layer (`Frozen.z_scale`).
    """
    image = CVAE(architecture.model).apply({"params": params}, z, condition, z_scale, method="decode")
    assert isinstance(image, jax.Array)
    return image


@partial(jax.jit, static_argnums=1)  # traced once a process: the shapes of every checkpoint that is read need it
def init_params(key: Array, architecture: Architecture) -> PyTree:
    """Returns new random parameters: orthonormal kernels, zero biases. `lsuv.init_unit_variance` rescales them."""
    # A rematerialized block would hide its kernels from `drawn_together`.
    model = dataclasses.replace(architecture.model, remat=False)
    landmarks = jax.ShapeDtypeStruct((1, architecture.points, 2), jnp.float32)
    image = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    frozen = abstract_frozen(architecture)
    # Only shapes matter to the initializers.
    condition = jax.eval_shape(partial(make_condition, architecture, None), frozen, landmarks)
    inputs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (image, condition, frozen.z_scale))
    return drawn_together(lambda: CVAE(model).init(key, *inputs)["params"])
