"""Gaussians and their KL divergences, Eq. (5): pure functions of arrays, in the dtype of the inputs."""

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


class SpikedGaussian(NamedTuple):
    """N(mean, s I + U diag(a) Uᵀ): isotropic, with more variance along r shared directions; leading axes independent.

    Its inverse, determinant and square roots are closed: the eigenvalues are s + a along U, and s elsewhere.
    """

    mean: Float[Array, "*b d"]
    logvar: Float[Array, "*b 1"]
    """log s."""
    directions: Float[Array, "d r"]
    """U, orthonormal columns."""
    spikes: Float[Array, "*b r"]
    """a / s, at least 0, so that the eigenvalue along a direction is s (1 + spikes)."""

    @property
    def variances(self) -> Float[Array, "*b d"]:
        """Variance per dimension: the diagonal of the covariance."""
        return jnp.exp(self.logvar) * (1.0 + _product(self.spikes, jnp.square(self.directions).T))

    def whiten(self, z: Float[Array, "*c d"]) -> Float[Array, "*broadcast d"]:
        """Returns u = Σ^-½ (z - mean), which is N(0, I) for z of this Gaussian."""
        u = _in_deviations(z - self.mean, self.logvar)
        return self._scaled_along(u, jax.lax.rsqrt(1.0 + self.spikes) - 1.0)

    def color(self, u: Float[Array, "*c d"]) -> Float[Array, "*broadcast d"]:
        """Returns z = mean + Σ^½ u, the inverse of `whiten`."""
        return self.mean + jnp.exp(0.5 * self.logvar) * self._scaled_along(u, jnp.sqrt(1.0 + self.spikes) - 1.0)

    def transport(self, z: Float[Array, "*b d"], to: SpikedGaussian) -> Float[Array, "*b d"]:
        """Returns z' = m' + Σ'^½ Σ^-½ (z - m): z moved to the same place in another Gaussian of the same directions."""
        stretch = jnp.sqrt((1.0 + to.spikes) / (1.0 + self.spikes)) - 1.0
        return to.mean + self._scaled_along(jnp.exp(0.5 * (to.logvar - self.logvar)) * (z - self.mean), stretch)

    def sample(self, key: Array) -> Float[Array, "*b d"]:
        """Returns one draw, differentiable in mean, logvar and spikes (the reparametrization trick)."""
        return self.color(jax.random.normal(key, self.mean.shape, self.mean.dtype))

    def log_prob(self, z: Float[Array, "*c d"]) -> Float[Array, "*broadcast"]:
        """Returns log N(z | mean, Σ) in nats, summed over d."""
        dimensions = self.mean.shape[-1]
        log_determinant = dimensions * self.logvar[..., 0] + jnp.sum(jnp.log1p(self.spikes), axis=-1)
        distance = jnp.sum(jnp.square(self.whiten(z)), axis=-1)
        return -0.5 * (distance + log_determinant + dimensions * math.log(2 * math.pi))

    def _scaled_along(self, x: Float[Array, "*c d"], change: Float[Array, "*b r"]) -> Float[Array, "*broadcast d"]:
        """Returns x + U diag(change) Uᵀ x."""
        return x + _product(change * _product(x, self.directions), self.directions.T)


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


class KLParts(NamedTuple):
    """The KL of a diagonal Gaussian to a `SpikedGaussian` in two parts, nats; neither is negative."""

    distance: Float[Array, "*b"]
    """½ (μ_q - m)ᵀ Σ⁻¹ (μ_q - m): the means are apart."""
    width: Float[Array, "*b"]
    """½ (tr Σ⁻¹ Q - d - log |Q| + log |Σ|): the covariances differ."""

    @property
    def total(self) -> Float[Array, "*b"]:
        """The KL."""
        return self.distance + self.width


def spiked_kl_divergence(posterior: DiagGaussian, prior: SpikedGaussian) -> KLParts:
    """Returns D_KL(posterior || prior) in nats, summed over d, in O(d r) and without a factorization.

    With δ = mean_q - m, v = Uᵀδ, w_i = Σ_j U_ji² var_j and t_i the spikes (λ_i = s (1 + t_i)):

        2 KL = |δ - Uv|² / s + Σ_i v_i² / λ_i
             + Σ_j (exp(g_j) - 1 - g_j) + Σ_i (log(1 + t_i) - (w_i / s) t_i / (1 + t_i))

    where g = logvar_q - log s. Without spikes it is Eq. (5). |δ|² - |v|² would cancel in float32, |δ - Uv|² does not.
    The last two sums cancel where the Gaussians are equal: their error is a few ulp of Σ t_i. Half-precision inputs are
    computed in float32.

    Deviation: the paper's clusters are isotropic (no spikes).
    """
    dtype = jnp.result_type(*posterior, *prior)
    wide = jnp.promote_types(dtype, jnp.float32)
    mean, logvar = (part.astype(wide) for part in posterior)
    prior_mean, prior_logvar, directions, spikes = (part.astype(wide) for part in prior)
    shift = _in_deviations(mean - prior_mean, prior_logvar)
    along = _product(shift, directions)
    across = shift - _product(along, directions.T)
    distance = jnp.sum(jnp.square(across), axis=-1) + jnp.sum(jnp.square(along) / (1.0 + spikes), axis=-1)
    gap = logvar - prior_logvar
    widths = _product(jnp.exp(gap), jnp.square(directions))
    excess = jnp.log1p(spikes) - widths * (spikes / (1.0 + spikes))
    width = jnp.sum(_expm1_minus(gap), axis=-1) + jnp.sum(excess, axis=-1)
    return KLParts((0.5 * distance).astype(dtype), (0.5 * width).astype(dtype))


def _product(rows: Float[Array, "*b m"], matrix: Float[Array, "m n"]) -> Float[Array, "*b n"]:
    # TPUs multiply matrices in bfloat16 by default.
    return jnp.matmul(rows, matrix, precision=jax.lax.Precision.HIGHEST)


def _in_deviations(difference: Float[Array, ...], logvar: Float[Array, ...]) -> Float[Array, ...]:
    """Returns difference / stddev; 0 for no difference, where the inverse deviation alone would overflow to 0 · inf."""
    # Scale before squaring: (Δmean)² or exp(-logvar) alone may overflow.
    overflows = (difference == 0) & (logvar < -2 * math.log(float(jnp.finfo(logvar.dtype).max)))
    return difference * jnp.exp(-0.5 * jnp.where(overflows, 0.0, logvar))
