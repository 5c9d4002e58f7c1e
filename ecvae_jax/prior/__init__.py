"""The priors p(z | c): those of the paper (`prior.paper`) and Eq. (4) with covariances (`prior.covariance`).

To add a prior: a class with the members of `Prior`, an entry in `_PRIORS`, and its name in `config.PriorKind`.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array, Float

from ecvae_jax.config import PriorKind, PriorNoise
from ecvae_jax.prior.covariance import (
    CovariancePrior,
    Covariances,
    cluster_shares,
    covariance_prior,
    init_covariances,
)
from ecvae_jax.prior.paper import (
    GaussianMixture,
    GaussianPrior,
    Prior,
    effective_clusters,
    equilibrium_prior,
    init_cluster_means,
    mixture_kl_monte_carlo,
    mixture_prior,
    standard_prior,
    transport,
)

__all__ = [
    "CovariancePrior",
    "Covariances",
    "GaussianMixture",
    "GaussianPrior",
    "Prior",
    "cluster_shares",
    "covariance_prior",
    "effective_clusters",
    "equilibrium_prior",
    "init_cluster_means",
    "init_covariances",
    "make_prior",
    "mixture_kl_monte_carlo",
    "mixture_prior",
    "standard_prior",
    "transport",
]

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
