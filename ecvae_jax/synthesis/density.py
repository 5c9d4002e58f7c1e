"""A density of the training faces' appearances, fitted after the training, to be sampled beside the prior.

The KL makes each posterior lie near the prior; it does not make all of them together fill it. With hundreds of
dimensions nearly every draw from the prior is a z that no face has, and shows none. A Gaussian of few directions,
fitted to the posteriors' means, covers where the faces are (Ghosh et al. 2020, https://arxiv.org/abs/1903.12436, call
it ex-post density estimation). It is a function of the training faces: what it draws is mixed of them.

Deviation: the paper samples its prior.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.sparse.linalg import svds

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import Faces, load_faces
from ecvae_jax.gaussian import LowRankGaussian
from ecvae_jax.model.model import Model, condition_of
from ecvae_jax.progress import track
from ecvae_jax.synthesis.batches import encode, in_batches

RANK = 64
"""Directions of a density: fewer draw faces that are more alike, more draw what the faces do not have in common."""


MAX_FACES = 4096
"""Most faces that it is fitted on, spread over the records."""


_AT_ONCE = 256


def fit_density(model: Model, faces: Faces, rank: int = RANK) -> tuple[LowRankGaussian, float]:
    """Returns the Gaussian of `rank` directions in which the faces' appearances vary most, and their share of all.

    An appearance is the posterior's mean in units of its prior, u = (z - m(c)) / σ(c): z without the part that follows
    from the structure. m(c') + σ(c')·u puts it under another one.

    Args:
        model: a loaded checkpoint.
        faces: those that it was trained on.
        rank: number of directions, at least 1; of n faces there are at most n - 2.

    Raises:
        DataError: fewer than three faces, or fewer landmarks than the model asks for.
    """
    if rank < 1:
        raise ValueError(f"rank={rank}: must be at least 1")
    if len(faces) < 3:
        raise DataError(f"{faces.records}, split {faces.split}: a density of {len(faces)} faces; give three at least")
    rows = np.unique(np.linspace(0, len(faces) - 1, MAX_FACES).round().astype(int))
    landmarks = faces.landmarks_as(model.config.data.points)
    parts = np.array_split(rows, -(-len(rows) // _AT_ONCE))
    parts = track(parts, len(parts), f"batches of {_AT_ONCE} faces")
    appearances = np.concatenate([_appearances(model, faces, landmarks, part) for part in parts])
    mean = appearances.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = (appearances - mean) / np.float32(len(rows) - 1) ** 0.5
    most = min(rank, min(spread.shape) - 1)
    # Lanczos from one start, so that the same faces give the same density; the smallest of the largest comes first.
    _, lengths, directions = svds(spread, k=most, v0=np.ones(min(spread.shape), np.float32))
    axes = (lengths[:, None] * directions)[::-1]
    density = LowRankGaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(axes, jnp.float32))
    return density, float(np.square(lengths).sum() / np.square(spread).sum())


def density_of(
    model: Model, records: str | None = None, rank: int = RANK, anew: bool = False
) -> tuple[LowRankGaussian, str]:
    """Returns the density that is stored with a model, or one that is fitted now, and a line that says what it is.

    Args:
        model: a loaded checkpoint.
        records: fit on their split `train`; none: take the stored one, else fit on what the model was trained on.
        rank: see `fit_density`.
        anew: fit though one is stored.

    Raises:
        DataError: the records cannot be used.
    """
    if model.density is not None and records is None and not anew:
        return model.density, f"a density of the training faces (rank {len(model.density.axes)}), not the prior"
    name = records or model.config.data.records
    try:
        faces = load_faces(name, "train")
    except DataError as error:
        raise DataError(f"a density is fitted to the faces that the model was trained on: {error}; "
                        "or name them where they are now, with --data") from error  # fmt: skip
    density, share = fit_density(model, faces, rank)
    used = min(len(faces), MAX_FACES)
    return density, (f"a density of {used} faces of {name} (rank {len(density.axes)}, {share:.0%} of their variance), "
                     "not the prior")  # fmt: skip


def _appearances(
    model: Model, faces: Faces, landmarks: Float[np.ndarray, "n p 2"], rows: np.ndarray
) -> Float[np.ndarray, "m d"]:
    """The posterior means of some faces in units of their priors, float32."""
    config, own = model.config, landmarks[rows]
    posterior = encode(model, faces.images(rows, config.model.image_size), own)
    reference = in_batches(lambda part: condition_of(model, part).reference, own)
    return (np.asarray(posterior.mean) - reference.mean) / np.exp(0.5 * reference.logvar)
