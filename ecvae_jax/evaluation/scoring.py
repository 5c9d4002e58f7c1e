"""Scores of drawn images against true ones, and of samples: values, means with intervals, set distances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Float, UInt8

from ecvae_jax.data.errors import DataError, MissingExtraError
from ecvae_jax.evaluation import faces as identity
from ecvae_jax.evaluation.distribution import (
    Features,
    compute_features,
    feature_spread,
    feature_spreads,
    frechet_distance,
    kernel_distance,
    load_features,
    pixel_spread,
    pixel_spreads,
)
from ecvae_jax.evaluation.faceres import INSTALL, FaceRes
from ecvae_jax.evaluation.faces import FaceMeter, MeasuredFaces
from ecvae_jax.evaluation.lpips import LpipsMeter
from ecvae_jax.evaluation.metrics import Drawn, FacePairs, gradient_ratio, pair_values
from ecvae_jax.evaluation.pairs import Pairs, evenly_spaced
from ecvae_jax.evaluation.statistics import Score, score
from ecvae_jax.gaussian import LowRankGaussian
from ecvae_jax.model.model import Model
from ecvae_jax.structure.scheme import convert_landmarks
from ecvae_jax.synthesis.batches import sample, transfer_plain

Values = dict[str, Float[np.ndarray, " n"]]
"""By metric, one value a pair or structure; NaN if it has none."""

Numbers = dict[str, float | None]

T = TypeVar("T")

STRUCTURES, SAMPLES = 32, 8
"""`score_samples` draws 8 samples of each of at most 32 structures."""


@dataclass(frozen=True)
class Measures:
    """What is measured, and with what."""

    faces: FaceMeter | None = None
    """Finds faces in images, for identity and structure; None: pixels only."""
    features: tuple[str, Features] | None = None
    """Name and function of the user's network, for the distances between sets."""
    seed: int = 0
    """Of the bootstrap and the samples."""
    lpips: LpipsMeter | None = None
    second: FaceRes | None = None
    """The face embedder that no training sees."""


@dataclass(frozen=True)
class Method:
    """The scores of one way to draw the target."""

    values: Values
    scores: Mapping[str, Score | None]
    numbers: Numbers
    """Of the whole set: verification accuracy, distances between sets."""
    faces: MeasuredFaces | None


@dataclass(frozen=True)
class Samples:
    """The scores of samples from a model."""

    values: Values
    """One value a structure: `sample_*` of METRICS."""
    people: list[str]
    """Whose structure it is."""
    numbers: dict[str, float | int | None]
    """Of all samples: spread, sharpness, distances to the true images."""


def load_measures(metrics: str = "all", features: str | None = None, seed: int = 0) -> tuple[Measures, list[str]]:
    """Returns what to measure with, and a note for each missing extra.

    Args:
        metrics: "all", or "pixels": PSNR, SSIM and sharpness only.
        features: MODULE:FUNCTION of the user's network.
        seed: of the bootstrap and the samples.

    Raises:
        DataError: metrics is neither.
        ValueError: the features cannot be loaded.
    """
    if metrics not in ("all", "pixels"):
        raise DataError(f"metrics={metrics!r}: must be all or pixels")
    network = load_features(features) if features else None
    if metrics == "pixels":
        return Measures(None, network, seed), []
    notes: list[str] = []
    faces = _installed(FaceMeter, notes, "identity and structure are", "they need `pip install 'ecvae-jax[dlib]'`")
    perceptual = _installed(LpipsMeter, notes, "LPIPS is", "it needs `pip install 'ecvae-jax[lpips]'`")
    second = _installed(FaceRes, notes, "identity by a second network is", f"it needs `{INSTALL}`")
    return Measures(faces, network, seed, perceptual, second), notes


def _installed(load: Callable[[], T], notes: list[str], what: str, how: str) -> T | None:
    """Returns what `load` returns, or None with a note if it is not installed."""
    try:
        return load()
    except MissingExtraError:
        notes.append(f"{what} not measured: {how}")
        return None


def score_method(
    drawn: UInt8[np.ndarray, "n h w 3"], pairs: Pairs, true: MeasuredFaces | None, measures: Measures, unit: str
) -> Method:
    """Returns all metrics of one method's images against the true ones.

    `true` are the faces found in the true images; None: no metric of faces.
    """
    faces = measures.faces.measure(drawn, unit) if measures.faces is not None and true is not None else None
    found = None
    if faces is not None and true is not None:
        asked = np.asarray(convert_landmarks(pairs.target_landmarks, 68), np.float64)
        found = FacePairs(faces, true, asked, pairs.people)
    vectors = _second_vectors(measures, drawn, pairs)
    values = pair_values(Drawn(drawn, pairs.target, found, measures.lpips, vectors))
    numbers: Numbers = {}
    if vectors is not None:
        numbers |= set_distances("faceres", *vectors, gamma=1.0)
    if found is not None:
        numbers["verification_accuracy"] = _verification_accuracy(values["verified"], found)
        numbers["pairs_with_faces"] = int(np.isfinite(values["identity"]).sum())
        numbers |= face_set_distances(found.drawn, found.true)
    numbers |= _user_distances(measures, drawn, pairs.target, paired=True)
    scores = {key: score(each, pairs.people, measures.seed) for key, each in values.items()}
    return Method(values, scores, numbers, faces)


def score_samples(model: Model, pairs: Pairs, measures: Measures, density: LowRankGaussian | None = None) -> Samples:
    """Returns the diversity and sharpness of samples under the targets' structures, and their distance to the targets.

    With `density`, it is sampled instead of the prior (`synthesis.batches.sample`).
    """
    chosen = evenly_spaced(len(pairs), STRUCTURES)
    drawn = sample(model, jax.random.key(measures.seed), pairs.target_landmarks[chosen], SAMPLES, density)
    flat = drawn.reshape(-1, *drawn.shape[2:])
    sharpness = gradient_ratio(flat, np.repeat(pairs.target[chosen], SAMPLES, axis=0))
    values: Values = {
        "sample_spread": pixel_spreads(drawn),
        "sample_sharpness": sharpness.reshape(len(chosen), SAMPLES).mean(axis=1),
    }
    finite = sharpness[np.isfinite(sharpness)]
    numbers: dict[str, float | int | None] = {
        "structures": len(chosen),
        "samples_each": SAMPLES,
        "pixel_spread": pixel_spread(drawn),
        "pixel_spread_faces": _spread_of_faces(model, pairs, chosen),
        "pixel_spread_true": _spread_of_true_images(pairs),
        "sharpness": float(finite.mean()) if len(finite) else None,
    }
    if measures.faces is not None:
        found = measures.faces.measure(flat, "samples")
        descriptors = found.descriptors.reshape(len(chosen), SAMPLES, -1)
        values["sample_identity_spread"] = feature_spreads(descriptors)
        values["sample_face_found"] = found.found.reshape(len(chosen), SAMPLES).mean(axis=1)
        numbers["identity_spread"] = feature_spread(descriptors)
        numbers["face_found"] = float(found.found.mean())
        numbers |= face_set_distances(found, measures.faces.measure(pairs.target, "true images"))
    numbers |= _user_distances(measures, flat, pairs.target)
    if measures.second is not None:
        landmarks = np.repeat(pairs.target_landmarks[chosen], SAMPLES, axis=0)
        drawn_vectors = measures.second.describe(flat, np.asarray(convert_landmarks(landmarks, 68)))
        true_vectors = measures.second.describe(pairs.target, np.asarray(convert_landmarks(pairs.target_landmarks, 68)))
        numbers |= set_distances("faceres", drawn_vectors, true_vectors, gamma=1.0)
    return Samples(values, [pairs.people[i] for i in chosen], numbers)


def _spread_of_faces(model: Model, pairs: Pairs, structures: np.ndarray) -> float | None:
    """Returns `pixel_spread` of other people's appearances under the structures, z moved there; None without 8."""
    sources, targets = [], []
    for structure in structures:
        others = [index for index, person in enumerate(pairs.people) if person != pairs.people[structure]]
        if len(others) < SAMPLES:
            return None
        sources += [others[each] for each in evenly_spaced(len(others), SAMPLES)]
        targets += [structure] * SAMPLES
    drawn = transfer_plain(
        model, pairs.target[sources], pairs.target_landmarks[sources], pairs.target_landmarks[targets]
    )
    return pixel_spread(drawn.reshape(len(structures), SAMPLES, *drawn.shape[1:]))


def _spread_of_true_images(pairs: Pairs) -> float | None:
    """Returns the standard deviation of a pixel over the true images, the first of each person, in levels of 255."""
    first = [pairs.people.index(person) for person in dict.fromkeys(pairs.people)]
    return pixel_spread(pairs.target[first][None]) if len(first) > 1 else None


def _second_vectors(
    measures: Measures, drawn: UInt8[np.ndarray, "n h w 3"], pairs: Pairs
) -> tuple[identity.Descriptors, identity.Descriptors] | None:
    if measures.second is None:
        return None
    landmarks = np.asarray(convert_landmarks(pairs.target_landmarks, 68))
    return measures.second.describe(drawn, landmarks), measures.second.describe(pairs.target, landmarks)


def face_set_distances(drawn: MeasuredFaces, true: MeasuredFaces) -> Numbers:
    """Returns Fréchet and kernel distance of two sets of faces on dlib's vectors, whose length is about 1."""
    return set_distances("dlib128", drawn.descriptors[drawn.found], true.descriptors[true.found], gamma=1.0)


def set_distances(
    name: str, drawn: Float[np.ndarray, "n d"], true: Float[np.ndarray, "m d"], gamma: float | None = None
) -> Numbers:
    """Returns Fréchet and kernel distance under the features' name; None if a set has fewer than two rows."""
    if min(len(drawn), len(true)) < 2:
        return {f"frechet_{name}": None, f"kernel_{name}": None}
    return {f"frechet_{name}": frechet_distance(drawn, true), f"kernel_{name}": kernel_distance(drawn, true, gamma)}


def differences(first: Values, second: Values, people: Sequence[str], seed: int) -> dict[str, Score | None]:
    """Returns the paired mean of first − second by metric, over the pairs that have both values."""
    return {key: score(first[key] - second[key], people, seed) for key in first if key in second}


def _user_distances(measures: Measures, drawn: np.ndarray, true: np.ndarray, paired: bool = False) -> Numbers:
    """The distances in the features of the user's network, if there is one."""
    if measures.features is None:
        return {}
    name, function = measures.features
    first, second = (compute_features(name, function, images) for images in (drawn, true))
    mean = {f"distance_{name}": float(np.linalg.norm(first - second, axis=1).mean())} if paired else {}
    return mean | set_distances(name, first, second)


def _verification_accuracy(verified: np.ndarray, faces: FacePairs) -> float | None:
    """Mean of the true accept rate and the true reject rate; None without faces or other people."""
    _, false_accepts = identity.against_others(faces.drawn.descriptors, faces.true.descriptors, faces.people)
    rates = [float(each[np.isfinite(each)].mean()) for each in (verified, false_accepts) if np.isfinite(each).any()]
    return (rates[0] + 1 - rates[1]) / 2 if len(rates) == 2 else None
