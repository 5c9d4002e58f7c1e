"""The priors of the paper: standard (Eq. 2), Gaussian mixture (Eq. 3) and equilibrium (Eq. 4).

`cluster_weights` are the c_k of a face, `cluster_means` and `cluster_stddev` the mu_k and sigma_k.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from ecvae_jax.gaussian import DiagGaussian, kl_divergence

_SMALLEST_VARIANCE = 1e-30
"""Variance of a cluster without spread, and of a face without a cluster."""


class Prior(Protocol):
    """p(z | c) of a batch of faces."""

    has_closed_kl: bool
    """Whether `kl` is the exact KL, not an upper bound."""

    @property
    def reference(self) -> DiagGaussian:
        """The Gaussian, b d, that a relative posterior is relative to."""
        ...

    def kl(self, keys: Array, posterior: DiagGaussian) -> Float[Array, "*b"]:
        """Returns the KL term of the loss, nats per face; one key per face, unused if the KL is closed."""
        ...

    @property
    def center(self) -> Float[Array, "*b d"]:
        """The mean of p(z | c)."""
        ...

    def sample(self, key: Array) -> Float[Array, "*b d"]:
        """Returns one z per face."""
        ...

    def transport(self, z: Float[Array, "*b d"], to: Prior) -> Float[Array, "*b d"]:
        """Returns z moved to the same place in another prior."""
        ...


class GaussianPrior(DiagGaussian):
    """The priors of Eqs. (2) and (4): one diagonal Gaussian per face, with the closed KL of Eq. (5)."""

    has_closed_kl = True

    @property
    def reference(self) -> DiagGaussian:
        """The prior itself."""
        return self

    @property
    def center(self) -> Float[Array, "*b d"]:
        """The mean."""
        return self.mean

    def kl(self, keys: Array, posterior: DiagGaussian) -> Float[Array, "*b"]:
        """Returns D_KL(posterior || prior) in nats, Eq. (5); the keys are unused."""
        del keys
        return kl_divergence(posterior, self)

    def transport(self, z: Float[Array, "*b d"], to: Prior) -> Float[Array, "*b d"]:
        """Returns z moved to the same place in another prior (`transport`)."""
        return transport(z, self.reference, to.reference)


class GaussianMixture(NamedTuple):
    """The prior of Eq. (3), sum over k of c_k N(mu_k, sigma_k² I): one mixture per leading index of the weights."""

    weights: Float[Array, "*b k"]
    means: Float[Array, "k d"]
    stddev: Float[Array, " k"]

    has_closed_kl = False

    @property
    def reference(self) -> DiagGaussian:
        """The moment-matched Gaussian."""
        return self.moment_matched()

    @property
    def center(self) -> Float[Array, "*b d"]:
        """The mean."""
        return self.reference.mean

    def kl(self, keys: Array, posterior: DiagGaussian) -> Float[Array, "*b"]:
        """Returns the KL, nats, to one component per face, drawn with probability c_k by the face's key.

        The paper trains Eq. (3) in this way. The expectation is an upper bound of the KL to the mixture.
        """
        draw = lambda key, weights: jax.random.categorical(key, jnp.log(weights))  # noqa: E731
        for _ in range(self.weights.ndim - 1):
            draw = jax.vmap(draw)
        return kl_divergence(posterior, self._component(draw(keys, self.weights)))

    def transport(self, z: Float[Array, "*b d"], to: Prior) -> Float[Array, "*b d"]:
        """Returns z moved to the same place in another prior (`transport`)."""
        return transport(z, self.reference, to.reference)

    def log_prob(self, z: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        """Returns the exact log-density of Eq. (3) in nats."""
        components = DiagGaussian(over_faces(self.means, z), over_faces(_log_variances(self.stddev)[:, None], z))
        return logsumexp(components.log_prob(z[..., None, :]), axis=-1, b=self.weights)

    def moment_matched(self) -> DiagGaussian:
        """Returns the diagonal Gaussian with the mixture's mean and variances."""
        mean = weighted_mean(self.weights, self.means)
        # Spread around the mean: E[μ²] - E[μ]² cancels if the components agree.
        spread = jnp.square(over_faces(self.means, mean) - mean[..., None, :])
        variances = spread + over_faces(jnp.square(self.stddev)[:, None], mean)
        return DiagGaussian(mean, floored_log(jnp.sum(self.weights[..., None] * variances, axis=-2)))

    def draw_component(self, key: Array) -> DiagGaussian:
        """Returns N(mu_k, sigma_k² I) with k drawn with probability c_k, one draw per leading index of the weights."""
        return self._component(jax.random.categorical(key, jnp.log(self.weights)))

    def sample(self, key: Array) -> Float[Array, "*b d"]:
        """Returns one z per leading index of the weights: draws a component, then z from it."""
        component_key, z_key = jax.random.split(key)
        return self.draw_component(component_key).sample(z_key)

    def _component(self, chosen: Int[Array, "*b"]) -> DiagGaussian:
        mean = self.means[chosen]
        return DiagGaussian(mean, jnp.broadcast_to(_log_variances(self.stddev)[chosen][..., None], mean.shape))


def init_cluster_means(key: Array, count: int, z_dim: int, norm: float) -> Float[Array, "k d"]:
    """Returns random mu_k: uniform in (-1, 1)^d, then scaled to Euclidean norm `norm`."""
    means = jax.random.uniform(key, (count, z_dim), minval=-1.0, maxval=1.0)
    return norm * means / jnp.linalg.norm(means, axis=-1, keepdims=True)


def standard_prior(cluster_weights: Float[Array, "*b k"], z_dim: int) -> GaussianPrior:
    """Returns N(0, I), the vanilla prior of Eq. (2), in the shape and dtype of the other priors."""
    zeros = jnp.zeros((*cluster_weights.shape[:-1], z_dim), cluster_weights.dtype)
    return GaussianPrior(zeros, zeros)


def mixture_prior(
    cluster_weights: Float[Array, "*b k"], cluster_means: Float[Array, "k d"], cluster_stddev: Float[Array, " k"]
) -> GaussianMixture:
    """Returns the Gaussian mixture of Eq. (3).

    Raises:
        ValueError: the three arrays disagree about the number of clusters.
    """
    _check_clusters(cluster_weights, cluster_means, cluster_stddev)
    return GaussianMixture(cluster_weights, cluster_means, cluster_stddev)


def equilibrium_prior(
    cluster_weights: Float[Array, "*b k"], cluster_means: Float[Array, "k d"], cluster_stddev: Float[Array, " k"]
) -> GaussianPrior:
    """Returns the equilibrium prior of Eq. (4): N(sum of c_k mu_k, sum of c_k² sigma_k²).

    It is the law of the sum of c_k z_k with independent z_k ~ N(mu_k, sigma_k² I).

    Raises:
        ValueError: the three arrays disagree about the number of clusters.
    """
    _check_clusters(cluster_weights, cluster_means, cluster_stddev)
    mean = weighted_mean(cluster_weights, cluster_means)
    shares = cluster_weights * jnp.broadcast_to(cluster_stddev, cluster_weights.shape)
    variance = jnp.sum(jnp.square(shares), axis=-1, keepdims=True)
    return GaussianPrior(mean, jnp.broadcast_to(floored_log(variance), mean.shape))


def mixture_kl_monte_carlo(
    key: Array, posterior: DiagGaussian, mixture: GaussianMixture, num_samples: int
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Returns an unbiased estimate of the KL to the mixture itself, in nats, and its standard error.

    Raises:
        ValueError: fewer than two samples, which have no standard error.
    """
    if num_samples < 2:
        raise ValueError(f"num_samples={num_samples}: a standard error needs at least 2")

    def log_ratio(sample_key: Array) -> Float[Array, "*b"]:
        z = posterior.sample(sample_key)
        return posterior.log_prob(z) - mixture.log_prob(z)

    # One sample at a time: all at once would hold num_samples x b x k x d numbers.
    ratios = jax.lax.map(log_ratio, jax.random.split(key, num_samples))
    return jnp.mean(ratios, axis=0), jnp.std(ratios, axis=0, ddof=1) / num_samples**0.5


def transport(z: Float[Array, "*b d"], prior_from: DiagGaussian, prior_to: DiagGaussian) -> Float[Array, "*b d"]:
    """Returns z' = m(c') + sigma(c')/sigma(c) (z - m(c)): z moved to the same place in another prior."""
    return prior_to.mean + jnp.exp(0.5 * (prior_to.logvar - prior_from.logvar)) * (z - prior_from.mean)


def effective_clusters(cluster_weights: Float[Array, "*b k"]) -> Float[Array, "*b"]:
    """Returns exp(H(c)), the effective number of clusters of a face: 1 for a single cluster, k for equal weights."""
    present = cluster_weights > 0
    information = jnp.where(present, -jnp.log(jnp.where(present, cluster_weights, 1.0)), 0.0)
    return jnp.exp(jnp.sum(cluster_weights * information, axis=-1))


def floored_log(variance: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns the logarithm of the variance, at least `_SMALLEST_VARIANCE`: log 0 would make KL and transport NaN."""
    return jnp.log(jnp.maximum(variance, max(_SMALLEST_VARIANCE, float(jnp.finfo(variance.dtype).tiny))))


def _log_variances(stddev: Float[Array, " k"]) -> Float[Array, " k"]:
    return 2 * jnp.log(jnp.maximum(stddev, max(_SMALLEST_VARIANCE**0.5, float(jnp.finfo(stddev.dtype).tiny))))


def over_faces(clusters: Float[Array, "k e"], faces: Float[Array, "*b d"]) -> Float[Array, "*ones k e"]:
    """Returns the clusters with an axis of length 1 for each leading axis of the faces."""
    return jnp.expand_dims(clusters, tuple(range(faces.ndim - 1)))


def weighted_mean(weights: Float[Array, "*b k"], means: Float[Array, "k d"]) -> Float[Array, "*b d"]:
    """Returns Σ c_k mu_k in float32's precision: TPUs multiply matrices in bfloat16 by default."""
    return jnp.matmul(weights, means, precision=jax.lax.Precision.HIGHEST)


def _check_clusters(weights: Array, means: Array, stddev: Array) -> None:
    if not weights.shape[-1] == means.shape[0] == stddev.shape[0]:
        raise ValueError(
            f"cluster_weights {weights.shape}, cluster_means {means.shape}, cluster_stddev {stddev.shape}: the last "
            "axis of the weights and the first axis of the others must be equal, the number of clusters"
        )
