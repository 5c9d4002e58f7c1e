"""A density of the training faces' appearances, fitted after training, to sample instead of the prior.

The KL pulls each posterior towards the prior, but the posteriors together do not fill it. In hundreds of dimensions,
nearly every draw from the prior is far from every posterior and decodes to no face. A low-rank Gaussian fitted to the
posterior means covers the faces (Ghosh et al. 2020, https://arxiv.org/abs/1903.12436: ex-post density estimation). Its
samples are mixtures of training faces.

Deviation: the paper samples its prior.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import Faces, load_faces
from ecvae_jax.gaussian import LowRankGaussian
from ecvae_jax.model.model import Model, condition_of
from ecvae_jax.progress import track
from ecvae_jax.synthesis.batches import encode, in_batches

RANK = 64
"""Rank of the Gaussian. Lower: less diverse samples. Higher: more artifacts."""
MAX_FACES = 4096
"""Maximum number of faces to fit, spread over the records."""
_AT_ONCE = 256


def fit_density(model: Model, faces: Faces, rank: int = RANK) -> tuple[LowRankGaussian, float]:
    """Returns the Gaussian of the `rank` principal directions of the appearances, and its share of their variance.

    An appearance is the posterior's mean in units of its prior, u = (z - m(c)) / σ(c): z without the structure's part.
    Under another structure, z' = m(c') + σ(c')·u. The rank is at least 1; n faces have at most n - 2 directions.

    Raises:
        DataError: fewer than three faces, or fewer landmarks than the model needs.
        ValueError: rank < 1.
    """
    from scipy.sparse.linalg import svds  # late: a seventh of the start of `ecvae transfer`, which fits nothing

    if rank < 1:
        raise ValueError(f"rank={rank}: must be at least 1")
    if len(faces) < 3:
        raise DataError(f"{faces.records}, split {faces.split}: a density of {len(faces)} faces; at least 3 needed")
    rows = np.unique(np.linspace(0, len(faces) - 1, MAX_FACES).round().astype(int))
    parts = np.array_split(rows, -(-len(rows) // _AT_ONCE))
    parts = track(parts, len(parts), f"batches of {_AT_ONCE} faces")
    landmarks = faces.landmarks_as(model.config.data.points)
    appearances = np.concatenate([_appearances(model, faces, landmarks, part) for part in parts])
    mean = appearances.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = (appearances - mean) / np.float32(len(rows) - 1) ** 0.5
    most = min(rank, min(spread.shape) - 1)
    # A fixed start vector makes Lanczos deterministic. Singular values come in ascending order.
    _, lengths, directions = svds(spread, k=most, v0=np.ones(min(spread.shape), np.float32))
    axes = (lengths[:, None] * directions)[::-1]
    density = LowRankGaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(axes, jnp.float32))
    return density, float(np.square(lengths).sum() / np.square(spread).sum())


def density_of(
    model: Model, records: str | None = None, rank: int = RANK, refit: bool = False
) -> tuple[LowRankGaussian, str]:
    """Returns the density stored with a model or fitted now, and a line that describes it.

    It is fitted to the split `train` of `records`; by default the stored one, else one of the training records.

    Raises:
        DataError: the records cannot be read.
    """
    if model.density is not None and records is None and not refit:
        return model.density, f"a density of the training faces (rank {len(model.density.axes)}), not the prior"
    name = records or model.config.data.records
    try:
        faces = load_faces(name, "train")
    except DataError as error:
        raise DataError(
            f"a density is fitted to the faces that the model was trained on: {error}; name their folder with --data"
        ) from error
    density, share = fit_density(model, faces, rank)
    used = min(len(faces), MAX_FACES)
    spread = f"rank {len(density.axes)}, {share:.0%} of their variance"
    return density, f"a density of {used} faces of {name} ({spread}), not the prior"


def _appearances(
    model: Model, faces: Faces, landmarks: Float[np.ndarray, "n p 2"], rows: np.ndarray
) -> Float[np.ndarray, "m d"]:
    """Returns the posterior means of the faces in these rows, in units of their priors, float32."""
    points = landmarks[rows]
    posterior = encode(model, faces.images(rows, model.config.model.image_size), points)
    reference = in_batches(lambda batch: condition_of(model, batch).reference, points)
    return (np.asarray(posterior.mean) - reference.mean) / np.exp(0.5 * reference.logvar)
