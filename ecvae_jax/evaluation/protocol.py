"""What is measured, on which pairs of faces: reconstruction, and transfer to a true image of the same person."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.config import AdaptConfig
from ecvae_jax.data.faces import Faces, load_faces
from ecvae_jax.evaluation.baselines import warp_to_landmarks
from ecvae_jax.evaluation.faces import SAME_PERSON, MeasuredFaces
from ecvae_jax.evaluation.likelihood import elbo_bits
from ecvae_jax.evaluation.metrics import landmark_error
from ecvae_jax.evaluation.pairs import Pairs, SourceView, folder_pairs, in_order, pair_classes, record_pairs
from ecvae_jax.evaluation.report import Report
from ecvae_jax.evaluation.scoring import Measures, differences, load_measures, score_method, score_samples
from ecvae_jax.evaluation.statistics import LEVEL, RESAMPLES
from ecvae_jax.model.model import Model
from ecvae_jax.structure.scheme import convert_landmarks
from ecvae_jax.synthesis.adapt import transfer_adapted
from ecvae_jax.synthesis.batches import reconstruct, transfer_plain

Images = UInt8[np.ndarray, "n h w 3"]
Landmarks = Float[np.ndarray, "n p 2"]
Draw = Callable[[Images, Landmarks, Landmarks], Images]
"""Sources, their landmarks, the targets' landmarks -> the sources' appearances under the targets' structures."""


def transfer_draw(model: Model, transport: bool = True) -> Draw:
    """Returns the function that draws a model's transfers, for `evaluate_pairs`."""
    return lambda images, landmarks, target_landmarks: transfer_plain(model, images, landmarks, target_landmarks, transport)


def evaluate_pairs(
    draw: Draw, pairs: Pairs, measures: Measures = Measures(), also: Mapping[str, Images] | None = None  # noqa: B008
) -> Report:
    """Returns the scores of what `draw` makes of each pair, beside copying the source and warping it.

    Args:
        draw: see `Draw`; of a model `transfer_draw`.
        pairs: `record_pairs` or `folder_pairs`, one pair at least.
        measures: what to measure with: `load_measures`.
        also: images of other methods to be scored on the same pairs, by name; they come first in the report.

    Raises:
        ValueError: there is no pair, or a method gives images of another shape.
    """
    if not len(pairs):
        raise ValueError("no pairs: nobody has two views of one sitting")
    drawn = {
        **(also or {}),
        "model": draw(pairs.source, pairs.source_landmarks, pairs.target_landmarks),
        "copy": pairs.source,
        "warp": warp_to_landmarks(pairs.source, pairs.source_landmarks, pairs.target_landmarks),
    }
    for name, images in drawn.items():
        if images.shape != pairs.target.shape:
            raise ValueError(f"{name}: gives images {list(images.shape)} for {list(pairs.target.shape)}")
    true = measures.faces.measure(pairs.target, "true images") if measures.faces else None
    methods = {name: score_method(images, pairs, true, measures, f"images ({name})") for name, images in drawn.items()}
    model = methods["model"].values
    sections: dict[str, Any] = {
        "differences": {
            f"model - {other}": differences(model, methods[other].values, pairs.people, measures.seed)
            for other in ("copy", "warp")
        },
    }
    if true is not None:
        sections["true_images"] = _true_images(true, pairs)
    for breakdown, labels in pair_classes(pairs.source_tags, pairs.target_tags).items():
        sections[breakdown] = {
            label: {
                name: _means(method.values, np.array([each == label for each in labels]))
                for name, method in methods.items()
            }
            for label in in_order(labels)
        }
    facts = {**pairs.facts, "pairs": len(pairs), "people": len(set(pairs.people)), **measure_facts(measures)}
    return Report(methods, sections, facts, list(pairs.notes), pairs, drawn)


def evaluate(
    model: Model,
    faces: Faces,
    limit: int = 500,
    seed: int = 0,
    transport: bool = True,
    source_view: SourceView = "any",
    measures: Measures = Measures(),  # noqa: B008
    draw: Draw | None = None,
) -> Report:
    """Returns reconstruction and transfer scores beside the baselines', diversity of samples and bits per dimension.

    Where no person has two views there is no true image for a transfer: only reconstruction is scored then.

    Args:
        model: a loaded checkpoint.
        faces: one split of records, of people the model should not have seen.
        limit: at most so many pairs (or faces).
        seed: of the choice of pairs.
        transport: move z along between priors.
        source_view: "any" or "frontal", see `record_pairs`.
        measures: what to measure with; PSNR and SSIM by default.
        draw: draws the transfers instead of `synthesis.transfer`.

    Raises:
        ValueError: limit is not positive.
        DataError: the records have fewer landmarks than the model asks for, or no yaw for "frontal".
    """
    if limit < 1:
        raise ValueError(f"limit={limit}: must be at least 1")
    size, points = model.config.model.image_size, model.config.data.points
    pairs = record_pairs(faces, size, points, limit, seed, source_view)
    if not len(pairs):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(faces))[:limit])
        pairs = _each_alone(faces, chosen, size, points, pairs.facts)
        true = measures.faces.measure(pairs.target, "true images") if measures.faces else None
        drawn = reconstruct(model, pairs.target, pairs.target_landmarks)
        methods = {"reconstruction": score_method(drawn, pairs, true, measures, "images (reconstruction)")}
        facts = {**pairs.facts, "pairs": 0, "faces_scored": len(chosen), **measure_facts(measures)}
        report = Report(methods, {}, facts, pairs.notes, pairs, {"reconstruction": drawn})
    else:
        also = _of_the_model(model, pairs, transport, draw is not None)
        report = evaluate_pairs(draw or transfer_draw(model, transport), pairs, measures, also)
    report.sections.update(_beyond_pairs(model, report.pairs, measures, seed))
    return report


def evaluate_folders(
    model: Model,
    sources: Path,
    targets: Path,
    limit: int = 500,
    seed: int = 0,
    transport: bool = True,
    measures: Measures = Measures(),  # noqa: B008
    draw: Draw | None = None,
) -> Report:
    """Returns `evaluate`'s scores on pairs of photos from two folders: see `folder_pairs`.

    Raises:
        DataError: see `folder_pairs`.
    """
    pairs = folder_pairs(model, sources, targets, limit, seed)
    also = _of_the_model(model, pairs, transport, draw is not None)
    report = evaluate_pairs(draw or transfer_draw(model, transport), pairs, measures, also)
    report.sections.update(_beyond_pairs(model, pairs, measures, seed))
    return report


def evaluate_checkpoint(
    checkpoint: Path | None = None,
    records: str = "rendered",
    split: str = "test",
    limit: int = 500,
    seed: int = 0,
    transport: bool = True,
    *,
    pairs: tuple[Path, Path] | None = None,
    source_view: SourceView = "any",
    metrics: str = "pixels",
    features: str | None = None,
    draw: Callable[[Model], Draw] | None = None,
    adapt: AdaptConfig = AdaptConfig(detail=0.0),  # noqa: B008
) -> Report:
    """Returns `evaluate` of a stored model on one split of records, or `evaluate_folders` on two folders (`pairs`).

    Args:
        checkpoint: working directory of a training, or one step's folder; none: the model that is shipped.
        records: folder of records, or "rendered"; not read where `pairs` is given.
        split: of the records.
        limit: at most so many pairs.
        seed: of the choice of pairs, the samples and the bootstrap.
        transport: move z along between priors.
        pairs: folders of sources and targets.
        source_view: see `record_pairs`.
        metrics: "pixels" (PSNR, SSIM) or "all".
        features: MODULE:FUNCTION of a network for the distances between sets.
        draw: makes of the loaded model what draws the transfers, instead of `transfer_draw`.
        adapt: how far to adapt the model to each source; where it does, the scores of the model as it is are beside it
            as "plain".

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: the records or the photos cannot be used.
        ValueError: an argument is out of range.
    """
    measures, notes = load_measures(metrics, features, seed)
    model = load_model(checkpoint)
    own = draw(model) if draw else None
    if own is None and (adapt.steps or adapt.detail):
        own = partial(transfer_adapted, model, transport=transport, adaptation=adapt)
    if pairs is not None:
        report = evaluate_folders(model, *pairs, limit, seed, transport, measures, own)
    else:
        report = evaluate(model, load_faces(records, split), limit, seed, transport, source_view, measures, own)
    report.facts.update(
        checkpoint=checkpoint.resolve().name if checkpoint else "shipped", step=model.step,
        image_size=model.config.model.image_size,
        points=model.config.data.points, transport=transport, adapt=dataclasses.asdict(adapt),
        trained_on={key: model.records[key] for key in ("source", "detector") if key in model.records},
    )  # fmt: skip
    report.notes.extend(notes)
    return report


def _of_the_model(model: Model, pairs: Pairs, transport: bool, plain: bool) -> dict[str, Images]:
    """What the model itself makes of the pairs, to be scored beside transfers that are more than its own."""
    drawn = {"reconstruction": reconstruct(model, pairs.target, pairs.target_landmarks)}
    if plain:
        drawn["plain"] = transfer_plain(model, pairs.source, pairs.source_landmarks, pairs.target_landmarks, transport)
    return drawn


def _beyond_pairs(model: Model, pairs: Pairs, measures: Measures, seed: int) -> dict[str, Any]:
    """What is measured on the targets alone: how likely they are, and samples under their structures."""
    sections: dict[str, Any] = {
        "likelihood": elbo_bits(model, pairs.target, pairs.target_landmarks, seed),
        "samples": score_samples(model, pairs, measures),
    }
    if model.density is not None:
        sections["samples_from_posterior"] = score_samples(model, pairs, measures, model.density)
    return sections


def measure_facts(measures: Measures) -> dict[str, Any]:
    """Returns what a report says of its metrics."""
    facts: dict[str, Any] = {
        "bootstrap": {"over": "people", "resamples": RESAMPLES, "level": LEVEL, "seed": measures.seed},
    }
    if measures.faces is not None:
        facts |= {"faces": measures.faces.name, "same_person_below": SAME_PERSON}
    if measures.features is not None:
        facts["features"] = measures.features[0]
    return facts


def _true_images(true: MeasuredFaces, pairs: Pairs) -> dict[str, float | None]:
    """The detector's own error: what it finds in the true images, against the landmarks that they came with."""
    given = np.asarray(convert_landmarks(pairs.target_landmarks, 68), np.float64)
    values = {"nme_asked": landmark_error(true.landmarks, given), "face_found": true.found.astype(np.float64)}
    return _means(values, np.ones(len(pairs), bool))


def _means(values: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, float | None]:
    kept = {name: each[chosen & np.isfinite(each)] for name, each in values.items()}
    return {"pairs": int(chosen.sum())} | {name: float(v.mean()) if len(v) else None for name, v in kept.items()}


def _each_alone(faces: Faces, chosen: np.ndarray, size: int, points: int, facts: dict[str, Any]) -> Pairs:
    images, landmarks = faces.images(chosen, size), faces.landmarks_as(points)[chosen]
    tags = [faces.tags[i] for i in chosen]
    note = "nobody has two views of one sitting: only reconstruction is scored"
    return Pairs([f"{i:04d}" for i in chosen], [faces.identities[i] for i in chosen], images, landmarks, images,
                 landmarks, tags, tags, facts, [note])  # fmt: skip
