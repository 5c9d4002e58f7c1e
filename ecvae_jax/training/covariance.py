"""The covariances of `prior.kind="covariance"`, fitted while training to moments of the aggregated posterior.

Every step adds the posteriors of its batch to decaying sums. Every `prior.fit_every` steps the directions become the
leading ones of the sums: one step of subspace iteration, made orthonormal by one-sided Jacobi rotations. Both are
products and sums only, so all hosts and devices compute the same arrays from the same sums.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ecvae_jax.config import PriorConfig, PriorNoise
from ecvae_jax.gaussian import DiagGaussian
from ecvae_jax.model.conditioning import Frozen
from ecvae_jax.prior import CovariancePrior, Covariances, cluster_shares

_SWEEPS = 8
"""Over all pairs of columns. Jacobi's method converges quadratically: 5 or 6 suffice for 64 columns in any state."""

_RIDGE = 1e-4
"""Variance added along each direction while the sums are of fewer faces than directions; then columns vanish."""

_PRECISE = jax.lax.Precision.HIGHEST


class Moments(NamedTuple):
    """Decaying sums over the faces of the batches, in units of the isotropic prior, u = (z - m(c)) / σ(c).

    Every variance is that of the posterior's mean around the prior's plus that of the posterior itself.
    """

    faces: Float[Array, ""]
    """Number of faces."""
    offsets: Float[Array, " d"]
    """Of u."""
    products: Float[Array, "d r"]
    """Of the second moment of u times the directions in use."""
    cluster_faces: Float[Array, " k"]
    """Of the clusters' shares of a face's noise (`prior.cluster_shares`)."""
    cluster_variances: Float[Array, "k r"]
    """Of the variances along the directions, times these shares."""
    total: Float[Array, ""]
    """Of the variances along all d coordinates."""


def init_moments(covariances: Covariances) -> Moments:
    """Returns the sums over no face."""
    zeros = [jnp.zeros(array.shape) for array in covariances]
    return Moments(jnp.zeros(()), zeros[0], zeros[1], jnp.zeros(len(zeros[2])), zeros[2], jnp.zeros(()))


def batch_moments(
    posterior: DiagGaussian,
    prior: CovariancePrior,
    cluster_weights: Float[Array, "b k"],
    cluster_stddev: Float[Array, " k"],
    noise: PriorNoise = "independent",
) -> Moments:
    """Returns the sums over the faces of one device's batch."""
    directions = prior.gaussian.directions
    stddev = prior.reference.stddev
    offsets = (posterior.mean - prior.reference.mean) / stddev
    u, variances = (posterior.mean - prior.center) / stddev, jnp.exp(posterior.logvar - prior.reference.logvar)
    along = jnp.matmul(u, directions, precision=_PRECISE)
    widths = jnp.matmul(variances, jnp.square(directions), precision=_PRECISE)
    shares = cluster_shares(cluster_weights, cluster_stddev, noise)
    products = jnp.matmul(u.T, along, precision=_PRECISE) + jnp.sum(variances, axis=0)[:, None] * directions
    return Moments(
        jnp.asarray(len(u), jnp.float32),
        jnp.sum(offsets, axis=0),
        products,
        jnp.sum(shares, axis=0),
        jnp.matmul(shares.T, jnp.square(along) + widths, precision=_PRECISE),
        jnp.sum(jnp.square(u)) + jnp.sum(variances),
    )


def add_moments(moments: Moments, batch: Moments, decay: float) -> Moments:
    """Returns the sums after one more batch."""
    return jax.tree.map(lambda total, new: decay * total + new, moments, batch)


def refit(settings: PriorConfig, covariances: Covariances, moments: Moments) -> tuple[Covariances, Moments]:
    """Returns the covariances fitted to the sums, and the sums along the new directions.

    A cluster's variance is drawn to that of all faces as if it had `settings.pooling` more of them: a cluster of few
    faces has no variance of its own. Its sums are turned to new directions as if it had no correlations along the old.

    The floor is the mean variance across the directions, the maximum of the likelihood (probabilistic PCA, Tipping &
    Bishop 1999), from `settings.least_floor` to 1. The upper end holds the scale of z, which the KL then leaves free.
    """
    faces = jnp.maximum(moments.faces, 1.0)
    offset = moments.offsets / faces
    columns = moments.products / faces + _RIDGE * covariances.directions
    directions, variances = principal_directions(columns)
    turned = jnp.square(jnp.matmul(covariances.directions.T, directions, precision=_PRECISE))
    cluster_variances = jnp.matmul(moments.cluster_variances, turned, precision=_PRECISE)
    pooled = jnp.maximum(variances - _RIDGE, 0.0)
    drawn = cluster_variances + settings.pooling * pooled[None]
    across = covariances.directions.shape[0] - covariances.directions.shape[1]
    rest = (moments.total / faces - jnp.sum(pooled)) / across if across else jnp.ones(())
    floor = jnp.clip(rest, settings.least_floor, 1.0)
    spikes = jnp.maximum(drawn / (moments.cluster_faces[:, None] + settings.pooling) / floor - 1.0, 0.0)
    products = directions * (faces * pooled)[None]
    return (
        Covariances(offset, directions, spikes, floor),
        moments._replace(products=products, cluster_variances=cluster_variances),
    )


def fit_step(
    settings: PriorConfig, frozen: Frozen, moments: Moments, batch: Moments, step: Array
) -> tuple[Frozen, Moments]:
    """Returns the frozen part and the sums after a step; the covariances are refitted if they are due.

    Args:
        batch: sums over the whole batch, of all devices.
        step: number of the step, from 1.
    """
    assert frozen.covariances is not None
    moments = add_moments(moments, batch, settings.fit_decay)
    covariances, moments = jax.lax.cond(
        step % settings.fit_every == 0,
        lambda *both: refit(settings, *both),
        lambda *both: both,
        frozen.covariances,
        moments,
    )
    return frozen._replace(covariances=covariances), moments


def principal_directions(columns: Float[Array, "d r"]) -> tuple[Float[Array, "d r"], Float[Array, " r"]]:
    """Returns the left singular vectors and the singular values of a matrix of full rank, largest first.

    One-sided Jacobi rotations (Hestenes 1958): accurate for small values too, where a QR of the Gram matrix loses half
    of the digits. Deviation from a library's SVD: LAPACK's solve hung in a compiled step on a CPU (jax 0.10.2).
    """
    rank = columns.shape[1]
    columns = jnp.pad(columns, ((0, 0), (0, rank % 2)))
    rounds = jnp.asarray(_rounds(columns.shape[1]))

    def rotate(index: Array, columns: Array) -> Array:
        left, right = rounds[index % len(rounds)]
        a, b = columns[:, left], columns[:, right]
        dot, gap = jnp.sum(a * b, axis=0), jnp.sum(b * b, axis=0) - jnp.sum(a * a, axis=0)
        crossed = dot != 0
        ratio = gap / jnp.where(crossed, 2 * dot, 1.0)
        # The smaller root of t² + 2 ratio t - 1 = 0, by which a rotation makes the two columns orthogonal.
        tangent = jnp.where(ratio < 0, -1.0, 1.0) / (jnp.abs(ratio) + jnp.hypot(1.0, ratio))
        tangent = jnp.where(crossed, tangent, 0.0)
        cosine = jax.lax.rsqrt(1 + tangent * tangent)
        sine = cosine * tangent
        cosine, sine = cosine[None], sine[None]
        return columns.at[:, left].set(cosine * a - sine * b).at[:, right].set(sine * a + cosine * b)

    columns = jax.lax.fori_loop(0, _SWEEPS * len(rounds), rotate, columns)
    lengths = jnp.linalg.norm(columns, axis=0)
    order = jnp.argsort(-lengths)[:rank]
    return columns[:, order] / lengths[None, order], lengths[order]


def _rounds(count: int) -> np.ndarray:
    """Returns all pairs of an even number of columns as a tournament: rounds, 2, pairs; each column once a round."""
    seats, rounds = list(range(count)), []
    for _ in range(count - 1):
        rounds.append([seats[: count // 2], seats[: count // 2 - 1 : -1]])
        seats.insert(1, seats.pop())
    return np.array(rounds, np.int32)
