"""Whether a prior with covariances fits its faces: variances along its directions, and spread of its samples.

Usage: python benchmarks/prior_fit.py CHECKPOINT [--records rendered] [--seed 0]

Twenty people of a test split say little about a variance: the table has groups of 20 training people beside them.
"""

from __future__ import annotations

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.data.batches import load_faces
from ecvae_jax.evaluation.distribution import pixel_spread
from ecvae_jax.images import to_float
from ecvae_jax.model import cvae
from ecvae_jax.model.conditioning import make_condition
from ecvae_jax.model.model import Model
from ecvae_jax.prior import CovariancePrior
from ecvae_jax.synthesis.batches import in_batches, sample, transfer_plain

STRUCTURES, SAMPLES, PEOPLE, GROUPS, FACES = 12, 64, 20, 200, 1600


def variances(model: Model, images: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the variances of the faces' posteriors along the directions, largest first, and the prior's.

    Both end with the mean across the directions; the unit is the variance of Eq. (4).
    """

    @jax.jit
    def places(images: jax.Array, landmarks: jax.Array) -> tuple[jax.Array, jax.Array]:
        condition = make_condition(model.architecture, model.params, model.frozen, landmarks)
        prior, reference = condition.prior, condition.reference
        assert isinstance(prior, CovariancePrior)
        posterior = cvae.encode(model.architecture, model.params, to_float(images), condition)
        u, widths = (posterior.mean - prior.center) / reference.stddev, jnp.exp(posterior.logvar - reference.logvar)
        product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        directions = prior.gaussian.directions
        along = jnp.square(product(u, directions)) + product(widths, jnp.square(directions))
        across = jnp.sum(jnp.square(u) + widths, axis=-1) - jnp.sum(along, axis=-1)
        count = u.shape[-1] - along.shape[-1]
        floor = jnp.exp(prior.gaussian.logvar - reference.logvar[:, :1])
        own = floor * jnp.pad(1.0 + prior.gaussian.spikes, ((0, 0), (0, 1)), constant_values=1.0)
        return jnp.concatenate([along, across[:, None] / max(1, count)], axis=-1), own

    return tuple(each.mean(axis=0, dtype=np.float64) for each in in_batches(places, images, landmarks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--records", default="rendered")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model, rng = load_model(options.checkpoint), np.random.default_rng(options.seed)
    size, points = model.config.model.image_size, model.config.data.points
    splits = {name: load_faces(options.records, name) for name in ("train", "test")}
    ranks = [0, 1, 3, 7, 15, 31, -1]
    test = splits["test"].landmarks_as(points)
    structures = test[np.linspace(0, len(test) - 1, STRUCTURES).astype(int)]
    for name, faces in splits.items():
        rows = np.unique(np.linspace(0, len(faces) - 1, FACES).astype(int))
        along, own = variances(model, faces.images(rows, size), faces.landmarks_as(points)[rows])
        print(f"{name}, {len(rows)} faces, variances at ranks 1, 2, 4, 8, 16, 32 and across")
        print("  faces", along[ranks].round(2), "\n  prior", own[ranks].round(2))
        people: dict[str, list[int]] = {}
        for row, person in enumerate(faces.identities):
            people.setdefault(person, []).append(row)
        one = [int(rng.choice(views)) for views in people.values()][: PEOPLE * 10]
        images, landmarks = faces.images(one, size), faces.landmarks_as(points)[one]
        drawn = np.stack([
            transfer_plain(model, images, landmarks, np.repeat(structure[None], len(one), axis=0))
            for structure in structures
        ])  # fmt: skip
        groups = [pixel_spread(drawn[:, rng.choice(len(one), PEOPLE, replace=False)]) for _ in range(GROUPS)]
        low, high = np.quantile(groups, [0.025, 0.975])
        print(f"  {len(one)} people moved to one structure: spread {pixel_spread(drawn):.1f}, ", end="")
        print(f"groups of {PEOPLE}: {low:.1f} to {high:.1f}")
    drawn = np.asarray(sample(model, jax.random.key(options.seed), structures, SAMPLES))
    print(f"{SAMPLES} samples of each structure: spread {pixel_spread(drawn):.1f}")


if __name__ == "__main__":
    main()
