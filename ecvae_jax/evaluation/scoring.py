"""The metrics of drawn images against true ones, pair by pair, and what is made of them: means, intervals, sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, UInt8

from ecvae_jax.data.errors import DataError, MissingExtraError
from ecvae_jax.evaluation import faces as identity
from ecvae_jax.evaluation.distribution import (
    Features,
    compute_features,
    feature_spread,
    frechet_distance,
    kernel_distance,
    load_features,
    pixel_spread,
)
from ecvae_jax.evaluation.faces import FaceMeter, MeasuredFaces
from ecvae_jax.evaluation.metrics import landmark_error, psnr, ssim
from ecvae_jax.evaluation.pairs import Pairs
from ecvae_jax.evaluation.statistics import Score, score
from ecvae_jax.gaussian import LowRankGaussian
from ecvae_jax.structure.scheme import convert_landmarks
from ecvae_jax.synthesis.batches import Model, sample

Values = dict[str, Float[np.ndarray, " n"]]
"""Metric by name, one value a pair; NaN where a pair has none."""

PIXELS = ("psnr", "ssim")


FACES = ("identity", "identity_cosine", "identity_others", "verified", "identification", "nme", "nme_asked",
         "face_found")  # fmt: skip


@dataclass(frozen=True)
class Measures:
    """What is measured, and with what."""

    faces: FaceMeter | None = None
    """Finds faces again, for identity and structure; none: pixels only."""
    features: tuple[str, Features] | None = None
    """A user's network and its name, for the distances between sets."""
    seed: int = 0
    """Of the bootstrap and of the samples."""


@dataclass(frozen=True)
class Method:
    """One way to draw the target, scored."""

    values: Values
    scores: Mapping[str, Score | None]
    numbers: Mapping[str, float | None]
    """What is of the whole set: verification accuracy, distances between sets."""
    faces: MeasuredFaces | None


def load_measures(metrics: str = "all", features: str | None = None, seed: int = 0) -> tuple[Measures, list[str]]:
    """Returns what to measure with, and a note where dlib would have measured more.

    Args:
        metrics: "all", or "pixels": PSNR and SSIM only.
        features: MODULE:FUNCTION of a user's network.
        seed: of the bootstrap and of the samples.

    Raises:
        DataError: there are no such metrics.
        ValueError: the features cannot be loaded.
    """
    if metrics not in ("all", "pixels"):
        raise DataError(f"metrics={metrics!r}: must be all or pixels")
    own = load_features(features) if features else None
    if metrics == "pixels":
        return Measures(None, own, seed), []
    try:
        return Measures(FaceMeter(), own, seed), []
    except MissingExtraError:
        note = "identity and structure are not measured: `pip install 'ecvae-jax[dlib]'` gives them"
        return Measures(None, own, seed), [note]


def score_method(
    drawn: UInt8[np.ndarray, "n h w 3"], pairs: Pairs, true: MeasuredFaces | None, measures: Measures, unit: str
) -> Method:
    """Returns all metrics of one method's images against the true ones.

    Args:
        drawn: one image a pair.
        pairs: with the true images.
        true: the faces found in the true images; none: no metric of faces.
        measures: what to measure.
        unit: what progress is called.
    """
    values: Values = {"psnr": psnr(drawn, pairs.target), "ssim": ssim(drawn, pairs.target)}
    numbers: dict[str, float | None] = {}
    faces = None
    if measures.faces is not None and true is not None:
        faces = measures.faces.measure(drawn, unit)
        more, numbers = _face_values(faces, true, pairs)
        values |= more
        numbers |= face_set_distances(faces, true)
    if measures.features is not None:
        name, function = measures.features
        first, second = (compute_features(name, function, images) for images in (drawn, pairs.target))
        numbers[f"distance_{name}"] = float(np.linalg.norm(first - second, axis=1).mean())
        numbers |= set_distances(name, first, second)
    scores = {name: score(each, pairs.people, measures.seed) for name, each in values.items()}
    return Method(values, scores, numbers, faces)


def face_set_distances(drawn: MeasuredFaces, true: MeasuredFaces) -> dict[str, float | None]:
    """Returns Fréchet and kernel distance of two sets of faces on dlib's vectors, whose length is about 1."""
    return set_distances("dlib128", drawn.descriptors[drawn.found], true.descriptors[true.found], gamma=1.0)


def set_distances(
    name: str, drawn: Float[np.ndarray, "n d"], true: Float[np.ndarray, "m d"], gamma: float | None = None
) -> dict[str, float | None]:
    """Returns Fréchet and kernel distance under their features' name; None where a set has fewer than two rows."""
    if min(len(drawn), len(true)) < 2:
        return {f"frechet_{name}": None, f"kernel_{name}": None}
    return {f"frechet_{name}": frechet_distance(drawn, true), f"kernel_{name}": kernel_distance(drawn, true, gamma)}


def differences(
    first: Values, second: Values, people: Sequence[str], seed: int
) -> dict[str, Score | None]:
    """Returns the mean of first − second over the pairs that have both, metric by metric: a paired comparison."""
    return {name: score(first[name] - second[name], people, seed) for name in first if name in second}


def _face_values(faces: MeasuredFaces, true: MeasuredFaces, pairs: Pairs) -> tuple[Values, dict[str, float | None]]:
    drawn_to, true_to = faces.descriptors, true.descriptors
    others, false_accepts = identity.against_others(drawn_to, true_to, pairs.people)
    passed = identity.verified(drawn_to, true_to)
    asked = np.asarray(convert_landmarks(pairs.target_landmarks, 68), np.float64)
    values = {
        "identity": identity.distances(drawn_to, true_to),
        "identity_cosine": identity.cosines(drawn_to, true_to),
        "identity_others": others,
        "verified": passed,
        "identification": identity.identified(drawn_to, true_to, pairs.people),
        "nme": landmark_error(faces.landmarks, true.landmarks),
        "nme_asked": landmark_error(faces.landmarks, asked),
        "face_found": faces.found.astype(np.float64),
    }
    rates = [float(each[np.isfinite(each)].mean()) for each in (passed, false_accepts) if np.isfinite(each).any()]
    accuracy = (rates[0] + 1 - rates[1]) / 2 if len(rates) == 2 else None
    return values, {"verification_accuracy": accuracy, "pairs_with_faces": int(np.isfinite(values["identity"]).sum())}

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
    drawn = sample(model, jax.random.key(measures.seed), pairs.target_landmarks[chosen], SAMPLES, density)
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
