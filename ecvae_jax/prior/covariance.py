"""Eq. (4) with cluster covariances, fitted while training: what the paper's prior lacks to draw faces."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ecvae_jax.config import PriorNoise
from ecvae_jax.gaussian import DiagGaussian, SpikedGaussian, spiked_kl_divergence
from ecvae_jax.prior.paper import GaussianPrior, Prior, equilibrium_prior, floored_log, over_faces, weighted_mean


class Covariances(NamedTuple):
    """What Eq. (4) lacks: z_k ~ N(mu_k, f sigma_k² (I + U diag(spikes_k) Uᵀ)) and an offset, fitted while training."""

    offset: Float[Array, " d"]
    """Mean of the faces' z around Σ c_k mu_k in units of Eq. (4)'s deviation, so that transport between two structures
    scales it as it scales all else."""
    directions: Float[Array, "d r"]
    """U, orthonormal columns, shared by all clusters; the one of most variance first."""
    spikes: Float[Array, "k r"]
    """Variance along the directions beyond f sigma_k², in units of it, at least 0."""
    floor: Float[Array | np.ndarray, ""] = np.ones((), np.float32)
    """f: variance across the directions in units of sigma_k², above 0 and at most 1. Faces fill less than Eq. (4)."""


class CovariancePrior(NamedTuple):
    """The law of Σ c_k z_k with z_k of `Covariances`: one spiked Gaussian per face."""

    gaussian: SpikedGaussian
    reference: DiagGaussian
    """The prior before the fit, Eq. (4). Relative to the whole prior, the KL would not contain what is fitted."""

    has_closed_kl = True

    @property
    def center(self) -> Float[Array, "*b d"]:
        """The mean."""
        return self.gaussian.mean

    def kl(self, keys: Array, posterior: DiagGaussian) -> Float[Array, "*b"]:
        """Returns D_KL(posterior || prior) in nats; the keys are unused."""
        del keys
        return spiked_kl_divergence(posterior, self.gaussian).total

    def sample(self, key: Array) -> Float[Array, "*b d"]:
        """Returns one z per face."""
        return self.gaussian.sample(key)

    def transport(self, z: Float[Array, "*b d"], to: Prior) -> Float[Array, "*b d"]:
        """Returns z moved to the same place in another prior of the same directions."""
        assert isinstance(to, CovariancePrior)
        return self.gaussian.transport(z, to.gaussian)


def init_covariances(clusters: int, z_dim: int, rank: int) -> Covariances:
    """Returns those of Eq. (4): no offset and no spikes, along the first coordinates."""
    return Covariances(jnp.zeros(z_dim), jnp.eye(z_dim, rank), jnp.zeros((clusters, rank)), jnp.ones(()))


def covariance_prior(
    cluster_weights: Float[Array, "*b k"],
    cluster_means: Float[Array, "k d"],
    cluster_stddev: Float[Array, " k"],
    covariances: Covariances,
    noise: PriorNoise = "independent",
) -> CovariancePrior:
    """Returns the law of Σ c_k z_k with z_k ~ N(mu_k, Σ_k) and Σ_k = f sigma_k² (I + U diag(spikes_k) Uᵀ), offset.

    With independent z_k its covariance is Σ c_k² Σ_k: Eq. (4) without offset and spikes. With one noise for all
    clusters, z_k = mu_k + Σ_k^½ e and e ~ N(0, I), it is (Σ c_k Σ_k^½)². Its mean is Σ c_k mu_k + sigma(c) · offset
    with the deviation sigma(c) of the law without spikes and floor.

    Deviation: the paper's clusters are isotropic. Over faces, the posteriors' means vary in few directions, there with
    many times the variance of Eq. (4), so that its draws miss them (docs/measurements/priors.md).

    Raises:
        ValueError: the arrays disagree about the number of clusters.
    """
    base = equilibrium_prior(cluster_weights, cluster_means, cluster_stddev)
    parts = cluster_shares(cluster_weights, cluster_stddev, noise)
    if noise == "shared":
        deviation = weighted_mean(cluster_weights, cluster_stddev[:, None])
        base = GaussianPrior(base.mean, jnp.broadcast_to(2 * floored_log(deviation), base.mean.shape))
        # (Σ p_k (1 + t_k)^½)² - 1 = w (w + 2) with w = Σ p_k ((1 + t_k)^½ - 1), which does not cancel for small t_k.
        wider = covariances.spikes / (1.0 + jnp.sqrt(1.0 + covariances.spikes))
        wider = jnp.matmul(parts, wider, precision=jax.lax.Precision.HIGHEST)
        spikes = wider * (wider + 2.0)
    else:
        spikes = jnp.matmul(parts, covariances.spikes, precision=jax.lax.Precision.HIGHEST)
    gaussian = SpikedGaussian(
        base.mean + base.stddev * over_faces(covariances.offset[None], base.mean)[..., 0, :],
        base.logvar[..., :1] + jnp.log(covariances.floor),
        covariances.directions,
        spikes,
    )
    return CovariancePrior(gaussian, DiagGaussian(base.mean, base.logvar))


def cluster_shares(
    cluster_weights: Float[Array, "*b k"], cluster_stddev: Float[Array, " k"], noise: PriorNoise
) -> Float[Array, "*b k"]:
    """Returns each cluster's share of a face's noise, with sum 1; 0 for a face without a cluster.

    Of the variance, c_k² sigma_k², for independent noise; of the deviation, c_k sigma_k, for shared noise.
    """
    parts = cluster_weights * jnp.broadcast_to(cluster_stddev, cluster_weights.shape)
    parts = jnp.square(parts) if noise == "independent" else parts
    return parts / jnp.maximum(jnp.sum(parts, axis=-1, keepdims=True), float(jnp.finfo(parts.dtype).tiny))
