"""Samples under the structures of true images: how much they differ, and how real they are as a set."""

from __future__ import annotations

import jax
import numpy as np

from ecvae_jax.evaluation.distribution import compute_features, feature_spread, pixel_spread
from ecvae_jax.evaluation.pairs import Pairs
from ecvae_jax.evaluation.scoring import Measures, face_set_distances, set_distances
from ecvae_jax.gaussian import LowRankGaussian
from ecvae_jax.synthesis import Model, sample

STRUCTURES, SAMPLES = 32, 8
"""Diversity is measured on so many structures, with so many samples of each."""


def score_samples(
    model: Model, pairs: Pairs, measures: Measures, density: LowRankGaussian | None = None
) -> dict[str, float | int | None]:
    """Returns the diversity of samples from the prior, and how far they lie from the true images.

    Args:
        model: a loaded checkpoint.
        pairs: the targets' structures are sampled, and their images are the true ones.
        measures: what to measure with.
        density: sample this one instead of the prior (`synthesis.sample`).
    """
    chosen = np.unique(np.linspace(0, len(pairs) - 1, STRUCTURES).round().astype(int))
    drawn = sample(jax.random.key(measures.seed), model, pairs.target_landmarks[chosen], SAMPLES, density)
    flat = drawn.reshape(-1, *drawn.shape[2:])
    out: dict[str, float | int | None] = {
        "structures": len(chosen), "samples_each": SAMPLES, "pixel_spread": pixel_spread(drawn)
    }  # fmt: skip
    if measures.faces is not None:
        found = measures.faces.measure(flat, "samples")
        out["identity_spread"] = feature_spread(found.descriptors.reshape(len(chosen), SAMPLES, -1))
        out["face_found"] = float(found.found.mean())
        true = measures.faces.measure(pairs.target, "true images")
        out |= face_set_distances(found, true)
    if measures.features is not None:
        name, function = measures.features
        first, second = (compute_features(name, function, images) for images in (flat, pairs.target))
        out |= set_distances(name, first, second)
    return out
