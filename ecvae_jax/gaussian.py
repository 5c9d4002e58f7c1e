"""Gaussians and the KL divergence of Eq. (5): pure functions of arrays, in the dtype of the inputs."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_SERIES_BELOW = 0.5
_SERIES_TERMS = 15
"""Terms up to g^15 / 15!. The first omitted term is below 1e-17 of the sum for every |g| <= _SERIES_BELOW."""


class DiagGaussian(NamedTuple):
    """A Gaussian with diagonal covariance over the last axis; leading axes are independent distributions."""

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

    def log_prob(self, z: Float[Array, "*c d"]) -> Float[Array, "*broadcast"]:
        """Returns log N(z | mean, exp(logvar)) in nats, summed over d."""
        standardized = _in_deviations(z - self.mean, self.logvar)
        return -0.5 * jnp.sum(jnp.square(standardized) + self.logvar + math.log(2 * math.pi), axis=-1)


class LowRankGaussian(NamedTuple):
    """A Gaussian with all its variance along r directions: mean + Σ_i e_i axes_i, each e_i ~ N(0, 1)."""

    mean: Float[Array, " d"]
    axes: Float[Array, "r d"]
    """Orthogonal; the norm of each is its standard deviation; longest first."""

    def sample(self, key: Array, temperature: Float[Array, ""] | float = 1.0) -> Float[Array, " d"]:
        """Returns one draw; temperature scales its deviation from the mean."""
        along = jax.random.normal(key, self.axes.shape[:1], self.axes.dtype)
        return self.mean + temperature * jnp.matmul(along, self.axes, precision=jax.lax.Precision.HIGHEST)


@jax.custom_jvp
def _expm1_minus(gap: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns exp(g) - 1 - g to a few ulp for every g.

    Near 0 the value is about g²/2 and subtraction would cancel all of it, so a Taylor series replaces it.
    """
    small = jnp.abs(gap) < _SERIES_BELOW
    # Each branch gets a safe argument, so that the unused one gives neither inf nor NaN, nor do its derivatives.
    near = jnp.where(small, gap, 0.0)
    far = jnp.where(small, 1.0, gap)
    series = jnp.ones_like(near)
    for n in range(_SERIES_TERMS, 2, -1):
        series = 1.0 + near / n * series
    return jnp.where(small, 0.5 * near * near * series, jnp.expm1(far) - far)


@_expm1_minus.defjvp
def _expm1_minus_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # JAX would derive exp(g) - 1 as (expm1(g) + 1) - 1, which is 0 or an ulp of 1 for small g.
    (gap,), (tangent,) = primals, tangents
    return _expm1_minus(gap), jnp.expm1(gap) * tangent


def kl_divergence(posterior: DiagGaussian, prior: DiagGaussian) -> Float[Array, "*b"]:
    """Returns D_KL(posterior || prior) in nats, summed over d: Eq. (5).

    With g = logvar_q - logvar_p, each dimension adds ½(exp(g) - 1 - g) + ½(mean_q - mean_p)² exp(-logvar_p). Neither
    term is negative. Value and derivatives are accurate to a few ulp. Eq. (5) as printed subtracts numbers near ½ and
    is off by 100% in float32 at g = 1e-4. Half-precision inputs are computed in float32: exp(-logvar) alone overflows
    float16 below -11.

    Deviation: posterior and prior have one variance per dimension; Eq. (5) is the isotropic case.
    """
    dtype = jnp.result_type(*posterior, *prior)
    wide = jnp.promote_types(dtype, jnp.float32)
    (mean, logvar), (prior_mean, prior_logvar) = ([part.astype(wide) for part in pair] for pair in (posterior, prior))
    shift = _in_deviations(mean - prior_mean, prior_logvar)
    return (0.5 * jnp.sum(_expm1_minus(logvar - prior_logvar) + jnp.square(shift), axis=-1)).astype(dtype)


def _in_deviations(difference: Float[Array, ...], logvar: Float[Array, ...]) -> Float[Array, ...]:
    """Returns difference / stddev; 0 for no difference, where the inverse deviation alone would overflow to 0 · inf."""
    # Scale before squaring: (Δmean)² or exp(-logvar) alone may overflow.
    overflows = (difference == 0) & (logvar < -2 * math.log(float(jnp.finfo(logvar.dtype).max)))
    return difference * jnp.exp(-0.5 * jnp.where(overflows, 0.0, logvar))
