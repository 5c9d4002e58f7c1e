"""The conditional VAE: encode to q(z | x, c), decode p(x | c, z)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ecvae_jax.config import Architecture, ModelConfig
from ecvae_jax.gaussian import DiagGaussian
from ecvae_jax.model.appearance import AppearanceEncoder
from ecvae_jax.model.conditioning import Condition, Frame, sketch_channels
from ecvae_jax.model.unet import StructureUNet
from ecvae_jax.prior import GaussianPrior
from ecvae_jax.structure.warp import cell_centers


class CVAE(nn.Module):
    """Two branches: appearance encoder and structure U-Net. Use it through `encode` and `decode` of this module."""

    config: ModelConfig

    def setup(self) -> None:
        """Makes the two branches."""
        self.appearance = AppearanceEncoder(self.config)
        self.structure = StructureUNet(self.config)

    def encode(self, image: Float[Array, "b h w 3"], condition: Condition) -> DiagGaussian:
        """Returns q(z | x, c) as a b d Gaussian."""
        mean, logvar = self.appearance(image, condition.sketch, condition.frame)
        reference = condition.reference
        if self.config.posterior == "plain":
            return DiagGaussian(mean, logvar)
        return DiagGaussian(reference.mean + reference.stddev * mean, reference.logvar + logvar)

    def decode(
        self, z: Float[Array, "b d"], condition: Condition, z_scale: Float[Array, ""]
    ) -> Float[Array, "b h w 3"]:
        """Returns the mean image of p(x | c, z)."""
        return self.structure(z / z_scale, condition.sketch, condition.frame)

    def __call__(
        self, image: Float[Array, "b h w 3"], condition: Condition, z_scale: Float[Array, ""]
    ) -> Float[Array, "b h w 3"]:
        """Returns the reconstruction at the posterior's mean: the pass that initialization runs."""
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
        condition: what follows from that image's own landmarks. A relative posterior is written against its
            `reference`: mean = m(c) + σ(c)·net, and the log-variance is an offset to the prior's.

    Deviation: the paper gives q = N(μ(x, c), σ²(x, c)) without a parametrization; `model.posterior="plain"` is the
    literal reading.
    """
    posterior = CVAE(architecture.model).apply({"params": params}, image, condition, method="encode")
    assert isinstance(posterior, DiagGaussian)
    return posterior


def decode(
    architecture: Architecture,
    params: PyTree,
    z: Float[Array, "b d"],
    condition: Condition,
    z_scale: Float[Array, ""],
) -> Float[Array, "b h w 3"]:
    """Returns the mean image of p(x | c, z) in [-1, 1], float32.

    Args:
        z: appearance; for a relative posterior it must sit under the prior of `condition` (see `prior.transport`).
        condition: the structure to be drawn.
        z_scale: typical standard deviation of z, by which it is divided before the first layer (`Frozen.z_scale`).
    """
    image = CVAE(architecture.model).apply({"params": params}, z, condition, z_scale, method="decode")
    assert isinstance(image, jax.Array)
    return image


def init_params(key: Array, architecture: Architecture) -> PyTree:
    """Returns freshly drawn parameters: orthonormal kernels, zero biases. `lsuv.init_unit_variance` comes next."""
    model = architecture.model
    size = model.image_size
    gaussian = GaussianPrior(jnp.zeros((1, model.z_dim)), jnp.zeros((1, model.z_dim)))
    grid = cell_centers(model.level_sides[0])[None]
    condition = Condition(
        sketch=jnp.zeros((1, size, size, sketch_channels(architecture))),
        cluster_weights=jnp.ones((1, 1)),
        prior=gaussian,
        reference=gaussian,
        frame=Frame(grid, grid) if model.frame == "face" else None,
    )
    return jax.jit(CVAE(model).init)(key, jnp.zeros((1, size, size, 3)), condition, jnp.ones(()))["params"]
