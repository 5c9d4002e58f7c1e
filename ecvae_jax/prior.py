"""The priors p(z | c): standard (Eq. 2), Gaussian mixture (Eq. 3), equilibrium (Eq. 4) and its covariances.

`cluster_weights` are the c_k of a face, `cluster_means` and `cluster_stddev` the mu_k and sigma_k.

To add a prior: a class with the members of `Prior`, an entry in `_PRIORS`, and its name in `config.PriorKind`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from ecvae_jax.config import PriorKind, PriorNoise
from ecvae_jax.gaussian import DiagGaussian, SpikedGaussian, kl_divergence, spiked_kl_divergence

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
        components = DiagGaussian(_over(self.means, z), _over(_log_variances(self.stddev)[:, None], z))
        return logsumexp(components.log_prob(z[..., None, :]), axis=-1, b=self.weights)

    def moment_matched(self) -> DiagGaussian:
        """Returns the diagonal Gaussian with the mixture's mean and variances."""
        mean = _weighted_mean(self.weights, self.means)
        # Spread around the mean: E[μ²] - E[μ]² cancels if the components agree.
        spread = jnp.square(_over(self.means, mean) - mean[..., None, :])
        variances = spread + _over(jnp.square(self.stddev)[:, None], mean)
        return DiagGaussian(mean, _log(jnp.sum(self.weights[..., None] * variances, axis=-2)))

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
    mean = _weighted_mean(cluster_weights, cluster_means)
    shares = cluster_weights * jnp.broadcast_to(cluster_stddev, cluster_weights.shape)
    variance = jnp.sum(jnp.square(shares), axis=-1, keepdims=True)
    return GaussianPrior(mean, jnp.broadcast_to(_log(variance), mean.shape))


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
        deviation = _weighted_mean(cluster_weights, cluster_stddev[:, None])
        base = GaussianPrior(base.mean, jnp.broadcast_to(2 * _log(deviation), base.mean.shape))
        # (Σ p_k (1 + t_k)^½)² - 1 = w (w + 2) with w = Σ p_k ((1 + t_k)^½ - 1), which does not cancel for small t_k.
        wider = covariances.spikes / (1.0 + jnp.sqrt(1.0 + covariances.spikes))
        wider = jnp.matmul(parts, wider, precision=jax.lax.Precision.HIGHEST)
        spikes = wider * (wider + 2.0)
    else:
        spikes = jnp.matmul(parts, covariances.spikes, precision=jax.lax.Precision.HIGHEST)
    gaussian = SpikedGaussian(
        base.mean + base.stddev * _over(covariances.offset[None], base.mean)[..., 0, :],
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


_PRIORS: dict[PriorKind, Callable[[Array, Array, Array, Covariances | None, PriorNoise], Prior]] = {
    "equilibrium": lambda weights, means, stddev, *_: equilibrium_prior(weights, means, stddev),
    "mixture": lambda weights, means, stddev, *_: mixture_prior(weights, means, stddev),
    "standard": lambda weights, means, *_: standard_prior(weights, means.shape[-1]),
    "covariance": lambda weights, means, stddev, covariances, noise: covariance_prior(
        weights, means, stddev, covariances or init_covariances(*means.shape, rank=1), noise
    ),
}


def make_prior(
    kind: PriorKind,
    cluster_weights: Float[Array, "*b k"],
    cluster_means: Float[Array, "k d"],
    cluster_stddev: Float[Array, " k"],
    covariances: Covariances | None = None,
    noise: PriorNoise = "independent",
) -> Prior:
    """Returns the prior of the given kind for the faces with these cluster weights.

    Args:
        covariances: of kind "covariance"; None: none are fitted yet.
        noise: of the clusters of kind "covariance" (`config.PriorConfig.noise`).

    Raises:
        ValueError: the kind is unknown, or the arrays disagree about the number of clusters.
    """
    if kind not in _PRIORS:
        *names, last = map(repr, _PRIORS)
        raise ValueError(f"prior kind={kind!r}: must be {', '.join(names)} or {last}")
    return _PRIORS[kind](cluster_weights, cluster_means, cluster_stddev, covariances, noise)


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


def _log(variance: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns the logarithm of the variance, at least `_SMALLEST_VARIANCE`: log 0 would make KL and transport NaN."""
    return jnp.log(jnp.maximum(variance, max(_SMALLEST_VARIANCE, float(jnp.finfo(variance.dtype).tiny))))


def _log_variances(stddev: Float[Array, " k"]) -> Float[Array, " k"]:
    return 2 * jnp.log(jnp.maximum(stddev, max(_SMALLEST_VARIANCE**0.5, float(jnp.finfo(stddev.dtype).tiny))))


def _over(clusters: Float[Array, "k e"], faces: Float[Array, "*b d"]) -> Float[Array, "*ones k e"]:
    """Returns the clusters with an axis of length 1 for each leading axis of the faces."""
    return jnp.expand_dims(clusters, tuple(range(faces.ndim - 1)))


def _weighted_mean(weights: Float[Array, "*b k"], means: Float[Array, "k d"]) -> Float[Array, "*b d"]:
    # TPUs multiply matrices in bfloat16 by default; the prior's mean needs float32.
    return jnp.matmul(weights, means, precision=jax.lax.Precision.HIGHEST)


def _check_clusters(weights: Array, means: Array, stddev: Array) -> None:
    if not weights.shape[-1] == means.shape[0] == stddev.shape[0]:
        raise ValueError(
            f"cluster_weights {weights.shape}, cluster_means {means.shape}, cluster_stddev {stddev.shape}: the last "
            "axis of the weights and the first axis of the others must be equal, the number of clusters"
        )
