"""Gaussians and the KL divergence of Eq. (5): pure functions of arrays, in the float type of the inputs."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_SERIES_BELOW = 0.5
_SERIES_TERMS = 15
"""Terms up to g^15 / 15!: the first one left out is below 1e-17 of the sum for every |g| <= _SERIES_BELOW."""


class DiagGaussian(NamedTuple):
    """A Gaussian with a diagonal covariance over the last axis; leading axes are independent distributions."""

    mean: Float[Array, "*b d"]
    logvar: Float[Array, "*b d"]

    @property
    def stddev(self) -> Float[Array, "*b d"]:
        """Standard deviation per dimension."""
        return jnp.exp(0.5 * self.logvar)

    def sample(self, key: Array) -> Float[Array, "*b d"]:
        """Returns one draw, differentiable in mean and logvar (the reparametrization trick)."""
        shape = jnp.broadcast_shapes(self.mean.shape, self.logvar.shape)
        return self.mean + self.stddev * jax.random.normal(key, shape, self.mean.dtype)

    def log_prob(self, z: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        """Returns log N(z | mean, exp(logvar)) in nats, summed over d."""
        standardized = (z - self.mean) * jnp.exp(-0.5 * self.logvar)
        return -0.5 * jnp.sum(jnp.square(standardized) + self.logvar + math.log(2 * math.pi), axis=-1)


class LowRankGaussian(NamedTuple):
    """A Gaussian that has all its variance along a few directions: mean + Σ_i e_i axes_i, each e_i ~ N(0, 1)."""

    mean: Float[Array, " d"]
    axes: Float[Array, "r d"]
    """Orthogonal to each other, each as long as its standard deviation, the longest first."""

    def sample(self, key: Array, temperature: Float[Array, ""] | float = 1.0) -> Float[Array, " d"]:
        """Returns one draw; temperature is a factor on its way from the mean."""
        along = jax.random.normal(key, self.axes.shape[:1], self.axes.dtype)
        return self.mean + temperature * jnp.matmul(along, self.axes, precision=jax.lax.Precision.HIGHEST)


def standard_normal(shape: tuple[int, ...]) -> DiagGaussian:
    """Returns N(0, I) of the given shape; the last axis is d."""
    return DiagGaussian(jnp.zeros(shape), jnp.zeros(shape))


@jax.custom_jvp
def _expm1_minus(gap: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns exp(g) - 1 - g to a few ulp for every g.

    Near zero the value is about g²/2 and the subtraction would lose all of it, so the Taylor series takes over.
    """
    small = jnp.abs(gap) < _SERIES_BELOW
    # Each branch gets an argument that is harmless there, so that no inf or nan arises in the one that is not taken.
    near = jnp.where(small, gap, 0.0)
    far = jnp.where(small, 1.0, gap)
    series = jnp.ones_like(near)
    for n in range(_SERIES_TERMS, 2, -1):
        series = 1.0 + near / n * series
    return jnp.where(small, 0.5 * near * near * series, jnp.expm1(far) - far)


@_expm1_minus.defjvp
def _expm1_minus_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # JAX would derive exp(g) - 1 as (expm1(g) + 1) - 1, which is 0 or one ulp of 1 for a small g.
    (gap,), (tangent,) = primals, tangents
    return _expm1_minus(gap), jnp.expm1(gap) * tangent


def kl_divergence(posterior: DiagGaussian, prior: DiagGaussian) -> Float[Array, "*b"]:
    """Returns D_KL(posterior || prior) in nats, summed over d: Eq. (5).

    With g = logvar_q - logvar_p it is the sum of ½(exp(g) - 1 - g) + ½(mean_q - mean_p)² exp(-logvar_p), two terms that
    are never negative. Value and derivatives stay within a few ulp; Eq. (5) as printed subtracts numbers near ½ and is
    off by 100% in float32 at g = 1e-4.

    Deviation: a posterior and a prior with one variance per dimension; Eq. (5) is the isotropic case, per dimension.
    """
    gap = posterior.logvar - prior.logvar
    # Scaling before squaring: neither (Δmean)² nor exp(-logvar) can leave the float range on its own.
    shift = (posterior.mean - prior.mean) * jnp.exp(-0.5 * prior.logvar)
    return 0.5 * jnp.sum(_expm1_minus(gap) + jnp.square(shift), axis=-1)
