"""The aggregated posterior beside the prior: the parts of the KL, and variances along the prior's directions."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from ecvae_jax.config import Architecture
from ecvae_jax.images import to_float
from ecvae_jax.model import cvae
from ecvae_jax.model.conditioning import Frozen, make_condition
from ecvae_jax.model.model import Model
from ecvae_jax.prior import CovariancePrior
from ecvae_jax.synthesis.batches import in_batches

Numbers = dict[str, float | int]


def aggregated_posterior(
    model: Model, images: UInt8[np.ndarray, "n h w 3"], landmarks: Float[np.ndarray, "n p 2"]
) -> dict[str, Numbers]:
    """Returns the sections `kl_parts` and, for a prior with covariances, `spectrum`; {} for a prior without closed KL.

    With w = Σ^-½ (μ_q - m), the place of a face's posterior in its prior, the mean KL of the faces is the sum of

        offset  ½ |E[w]|²           the faces' mean is not the prior's
        spread  ½ E |w - E[w]|²     the faces lie apart
        width   the rest            the posteriors are narrower than the prior

    The spectrum holds variances in units of the isotropic prior, by rank of the prior's direction: those of the faces'
    posteriors together, and the prior's. Images of other people than the training's show how far they agree.
    """
    condition = partial(make_condition, model.architecture)
    if not jax.eval_shape(condition, model.params, model.frozen, landmarks[:1]).prior.has_closed_kl:
        return {}
    place, kl, *spectra = in_batches(
        partial(_places, model.architecture, model.params, model.frozen), images, landmarks
    )
    place, total = place.astype(np.float64), float(kl.mean(dtype=np.float64))
    offset = 0.5 * float(np.square(place.mean(axis=0)).sum())
    spread = 0.5 * float(np.square(place - place.mean(axis=0)).sum(axis=1).mean())
    parts: Numbers = {
        "kl": total,
        "offset": offset,
        "spread": spread,
        "width": total - offset - spread,
        "images": len(place),
    }
    if not spectra:
        return {"kl_parts": parts}
    posterior, prior = (each.mean(axis=0, dtype=np.float64) for each in spectra)
    rank = len(prior) - 1
    ranks = [1 << power for power in range(rank.bit_length()) if 1 << power <= rank]
    spectrum: Numbers = {}
    for name, index in [*((str(each), each - 1) for each in ranks), ("others", rank)]:
        spectrum |= {f"posterior_{name}": float(posterior[index]), f"prior_{name}": float(prior[index])}
    return {"kl_parts": parts, "spectrum": spectrum}


@partial(jax.jit, static_argnums=0)
def _places(
    architecture: Architecture, params: PyTree, frozen: Frozen, images: Array, landmarks: Array
) -> tuple[Array, ...]:
    """Returns w and the KL of each face; with covariances also both variances along U, and the mean of those across."""
    condition = make_condition(architecture, params, frozen, landmarks)
    posterior, prior = cvae.encode(architecture, params, to_float(images), condition), condition.prior
    kl, reference = prior.kl(jnp.zeros(0), posterior), prior.reference  # a closed KL reads no keys
    u = (posterior.mean - prior.center) / reference.stddev
    if not isinstance(prior, CovariancePrior):
        return u, kl
    directions, spikes = prior.gaussian.directions, prior.gaussian.spikes
    widths = jnp.exp(posterior.logvar - reference.logvar)
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    along = jnp.square(product(u, directions)) + product(widths, jnp.square(directions))
    total = jnp.sum(jnp.square(u) + widths, axis=-1, keepdims=True)
    across = (total - jnp.sum(along, axis=-1, keepdims=True)) / max(1, u.shape[-1] - along.shape[-1])
    floor = jnp.exp(prior.gaussian.logvar - reference.logvar[..., :1])
    variances = floor * jnp.pad(1.0 + spikes, ((0, 0), (0, 1)), constant_values=1.0)
    return prior.gaussian.whiten(posterior.mean), kl, jnp.concatenate([along, across], axis=-1), variances
