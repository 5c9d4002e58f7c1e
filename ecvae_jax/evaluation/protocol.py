"""The evaluation protocol: reconstruction, transfer to a true image of the same person, samples, and likelihood."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.config import AdaptConfig
from ecvae_jax.data.faces import Faces, load_faces
from ecvae_jax.evaluation.aggregate import aggregated_posterior
from ecvae_jax.evaluation.baselines import warp_to_landmarks
from ecvae_jax.evaluation.faces import SAME_PERSON, MeasuredFaces
from ecvae_jax.evaluation.likelihood import elbo_bits
from ecvae_jax.evaluation.metrics import landmark_error
from ecvae_jax.evaluation.pairs import Pairs, SourceView, folder_pairs, record_pairs, single_views
from ecvae_jax.evaluation.report import Report
from ecvae_jax.evaluation.scoring import Measures, differences, load_measures, score_method, score_samples
from ecvae_jax.evaluation.statistics import LEVEL, RESAMPLES, score
from ecvae_jax.evaluation.tags import in_order, pair_classes, skin_classes
from ecvae_jax.model.model import Model
from ecvae_jax.structure.scheme import convert_landmarks
from ecvae_jax.synthesis.adapt import transfer_adapted
from ecvae_jax.synthesis.batches import reconstruct, transfer_plain

Images = UInt8[np.ndarray, "n h w 3"]
Landmarks = Float[np.ndarray, "n p 2"]
Draw = Callable[[Images, Landmarks, Landmarks], Images]
"""Sources, their landmarks, the targets' landmarks -> the sources' appearances under the targets' structures."""

PLAIN = AdaptConfig(detail=0.0)
"""No adaptation: the model alone."""


def transfer_draw(model: Model, transport: bool = True) -> Draw:
    """Returns the function that draws the model's transfers, for `evaluate_pairs`."""
    return partial(transfer_plain, model, transport=transport)


def evaluate(
    model: Model,
    data: str | Path | Faces | Pairs = "rendered",
    split: str = "test",
    *,
    limit: int = 500,
    source_view: SourceView = "any",
    seed: int = 0,
    transport: bool = True,
    adapt: AdaptConfig = AdaptConfig(),  # noqa: B008
    measures: Measures | None = None,
    draw: Draw | None = None,
) -> Report:
    """Returns the scores of reconstruction and transfer, the baselines', and those of samples and likelihood.

    The defaults are those of `ecvae evaluate`. Without two views of any person, only reconstruction is scored.

    Args:
        data: records folder, "rendered", loaded faces, or pairs (`folder_pairs`). The model should not have been
            trained on these people.
        limit: maximum number of pairs (or faces) drawn from records.
        source_view: of records: "any" or "frontal", see `record_pairs`.
        seed: of the choice of pairs and the likelihood's noise; without `measures` also of bootstrap and samples.
        transport: move z between the priors of source and target.
        adapt: adaptation to each source; if any, the scores of the model alone are reported as "plain".
        measures: what to measure with; None: all that is installed (`load_measures`).
        draw: draws the transfers instead of the model, whose own are reported as "plain".

    Raises:
        ValueError: limit is not positive, or there are no pairs.
        DataError: the records have fewer landmarks than the model reads, or no yaw for "frontal".
    """
    if limit < 1:
        raise ValueError(f"limit={limit}: must be at least 1")
    measures, notes = load_measures(seed=seed) if measures is None else (measures, [])
    size, points = model.config.model.image_size, model.config.data.points
    faces = load_faces(data, split) if isinstance(data, str | Path) else data
    pairs = faces if isinstance(faces, Pairs) else record_pairs(faces, size, points, limit, seed, source_view)
    if not len(pairs) and isinstance(faces, Faces):
        pairs = single_views(faces, size, points, limit, seed, pairs.facts)
        report = _evaluate_reconstruction(model, pairs, measures)
    else:
        if draw is None and (adapt.steps or adapt.detail):
            draw = partial(transfer_adapted, model, transport=transport, adaptation=adapt)
        also = {"reconstruction": reconstruct(model, pairs.target, pairs.target_landmarks)}
        plain = transfer_draw(model, transport)
        if draw is not None:
            also["plain"] = plain(pairs.source, pairs.source_landmarks, pairs.target_landmarks)
        report = evaluate_pairs(draw or plain, pairs, measures, also)
    samples = score_samples(model, pairs, measures)
    sections = {
        **report.sections,
        "likelihood": elbo_bits(model, pairs.target, pairs.target_landmarks, seed),
        **aggregated_posterior(model, pairs.target, pairs.target_landmarks),
        "samples": samples.numbers,
    }
    if model.density is not None:
        sections["samples_from_posterior"] = score_samples(model, pairs, measures, model.density).numbers
    facts = {
        **report.facts,
        "step": model.step,
        "image_size": size,
        "points": points,
        "transport": transport,
        "adapt": dataclasses.asdict(adapt),
        "trained_on": {key: model.records[key] for key in ("source", "detector") if key in model.records},
    }
    return dataclasses.replace(report, sections=sections, facts=facts, notes=[*report.notes, *notes], samples=samples)


def evaluate_checkpoint(
    checkpoint: Path | None = None,
    data: str = "rendered",
    split: str = "test",
    limit: int = 500,
    seed: int = 0,
    transport: bool = True,
    *,
    pairs: tuple[Path, Path] | None = None,
    source_view: SourceView = "any",
    metrics: str = "all",
    features: str | None = None,
    adapt: AdaptConfig = AdaptConfig(),  # noqa: B008
) -> Report:
    """Returns `evaluate` of a stored model: the command `ecvae evaluate`.

    Args:
        checkpoint: working directory of a training, or one step's folder; None: the bundled model.
        pairs: folders of sources and targets instead of `data`.
        metrics: "all" or "pixels", see `load_measures`.
        features: MODULE:FUNCTION of a network for the distances between sets.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: the records or photos cannot be used.
        ValueError: an argument is out of range.
    """
    measures, notes = load_measures(metrics, features, seed)
    model = load_model(checkpoint)
    report = evaluate(
        model,
        data if pairs is None else folder_pairs(model, *pairs, limit, seed),
        split,
        limit=limit,
        source_view=source_view,
        seed=seed,
        transport=transport,
        adapt=adapt,
        measures=measures,
    )
    report.facts["checkpoint"] = checkpoint.resolve().name if checkpoint else "shipped"
    report.notes.extend(notes)
    return report


def evaluate_pairs(
    draw: Draw,
    pairs: Pairs,
    measures: Measures = Measures(),  # noqa: B008
    also: Mapping[str, Images] | None = None,
) -> Report:
    """Returns the scores of `draw` on each pair, beside copying the source and warping it.

    Args:
        measures: PSNR, SSIM and sharpness by default; `load_measures` for more.
        also: images of other methods by name, scored on the same pairs and listed first.

    Raises:
        ValueError: there are no pairs, or a method returns images of another shape.
    """
    if not len(pairs):
        raise ValueError("no pairs: no person has two views of one sitting")
    outputs = {
        **(also or {}),
        "model": draw(pairs.source, pairs.source_landmarks, pairs.target_landmarks),
        "copy": pairs.source,
        "warp": warp_to_landmarks(pairs.source, pairs.source_landmarks, pairs.target_landmarks),
    }
    for name, images in outputs.items():
        if images.shape != pairs.target.shape:
            raise ValueError(f"{name}: images {list(images.shape)}, must be {list(pairs.target.shape)}")
    true = measures.faces.measure(pairs.target, "true images") if measures.faces else None
    methods = {
        name: score_method(images, pairs, true, measures, f"images ({name})") for name, images in outputs.items()
    }
    model = methods["model"].values
    sections: dict[str, Any] = {
        "differences": {
            f"model - {other}": differences(model, methods[other].values, pairs.people, measures.seed)
            for other in ("copy", "warp")
        },
    }
    if true is not None:
        sections["true_images"] = _true_images(true, pairs)
    skin = skin_classes(pairs.target, pairs.target_landmarks, pairs.people)
    for breakdown, labels in (pair_classes(pairs.source_tags, pairs.target_tags) | {"by_skin": skin}).items():
        sections[breakdown] = {
            label: {
                name: _class_scores(method.values, [each == label for each in labels], pairs.people, measures.seed)
                for name, method in methods.items()
            }
            for label in in_order(labels)
        }
    facts = {**pairs.facts, "pairs": len(pairs), "people": len(set(pairs.people)), **_measure_facts(measures)}
    return Report(methods, sections, facts, list(pairs.notes), pairs, outputs)


def _evaluate_reconstruction(model: Model, views: Pairs, measures: Measures) -> Report:
    true = measures.faces.measure(views.target, "true images") if measures.faces else None
    drawn = reconstruct(model, views.target, views.target_landmarks)
    methods = {"reconstruction": score_method(drawn, views, true, measures, "images (reconstruction)")}
    facts = {**views.facts, "pairs": 0, "faces_scored": len(views), **_measure_facts(measures)}
    return Report(methods, {}, facts, list(views.notes), views, {"reconstruction": drawn})


def _measure_facts(measures: Measures) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "bootstrap": {"over": "people", "resamples": RESAMPLES, "level": LEVEL, "seed": measures.seed},
    }
    if measures.faces is not None:
        facts |= {"faces": measures.faces.name, "same_person_below": SAME_PERSON}
    if measures.lpips is not None:
        facts["lpips"] = measures.lpips.name
    if measures.second is not None:
        facts["second_identity"] = measures.second.name
    if measures.features is not None:
        facts["features"] = measures.features[0]
    return facts


def _true_images(true: MeasuredFaces, pairs: Pairs) -> dict[str, float | None]:
    """The detector's own error: its landmarks in the true images against the given ones."""
    given = np.asarray(convert_landmarks(pairs.target_landmarks, 68), np.float64)
    values = {"nme_asked": landmark_error(true.landmarks, given), "face_found": true.found.astype(np.float64)}
    return _means(values, np.ones(len(pairs), bool))


def _class_scores(
    values: Mapping[str, np.ndarray], chosen: Sequence[bool], people: Sequence[str], seed: int
) -> dict[str, Any]:
    """Returns the means over the chosen pairs, each with its interval over people as `..._ci`."""
    kept = np.array(chosen, bool)
    members = [person for person, inside in zip(people, chosen, strict=True) if inside]
    scores: dict[str, Any] = {"pairs": int(kept.sum()), "people": len(set(members))}
    for name, each in values.items():
        found = score(each[kept], members, seed)
        scores[name] = found and found.mean
        scores[f"{name}_ci"] = None if found is None or found.low is None else [found.low, found.high]
    return scores


def _means(values: Mapping[str, np.ndarray], chosen: np.ndarray) -> dict[str, float | None]:
    kept = {name: each[chosen & np.isfinite(each)] for name, each in values.items()}
    return {"pairs": int(chosen.sum())} | {name: float(v.mean()) if len(v) else None for name, v in kept.items()}
