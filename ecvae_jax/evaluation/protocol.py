"""What is measured, on which pairs of faces: reconstruction, and transfer to a true image of the same person."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ecvae_jax.data.faces import Faces, load_faces
from ecvae_jax.evaluation.metrics import psnr, ssim
from ecvae_jax.synthesis import Model, reconstruct, transfer
from ecvae_jax.training.checkpoint import load_model


class Score(NamedTuple):
    """Mean and standard error of one metric."""

    mean: float
    standard_error: float | None
    """None of a single value."""
    count: int


class Report(NamedTuple):
    """Scores by method and metric: `scores["transfer"]["psnr"]`."""

    scores: Mapping[str, Mapping[str, Score]]

    def to_lines(self) -> list[str]:
        """Returns the report as lines of text, a method a line."""
        lines = []
        for method, metrics in self.scores.items():
            parts = [f"{name} {s.mean:.3f} ± {_three_digits(s.standard_error)}" for name, s in metrics.items()]
            count = next(iter(metrics.values())).count
            lines.append(f"{method:<15} {'   '.join(parts)}   (n = {count})")
        return lines

    def to_dict(self) -> dict[str, dict[str, dict[str, float]]]:
        """Returns the report as plain dictionaries, for JSON."""
        return {m: {name: s._asdict() for name, s in metrics.items()} for m, metrics in self.scores.items()}

    def save(self, path: Path) -> None:
        """Writes the report as JSON, aside and then renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.part")
        try:
            aside.write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def same_group_pairs(groups: list[str], limit: int, seed: int) -> np.ndarray:
    """Returns (source, target) indices, n 2: two different views of one person under one light.

    Each view is a target once, its source drawn among the others of its group; then at most `limit` of them are drawn.
    n is 0 where no group has two views.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    rng = np.random.default_rng(seed)
    pairs = [
        (int(rng.choice([other for other in views if other != target])), target)
        for views in members.values() if len(views) > 1
        for target in views
    ]  # fmt: skip
    order = rng.permutation(len(pairs))[:limit]
    return np.array(pairs, np.int64).reshape(-1, 2)[np.sort(order)]


def evaluate(model: Model, faces: Faces, limit: int = 500, seed: int = 0, transport: bool = True) -> Report:
    """Returns reconstruction scores, and transfer scores beside those of copying the source.

    Where no person has two views there is no true image for a transfer: only reconstruction is scored then.

    Args:
        model: a loaded checkpoint.
        faces: one split of records, of people the model should not have seen.
        limit: at most so many pairs (or faces).
        seed: of the choice of pairs.
        transport: move z along between priors.

    Raises:
        ValueError: limit is not positive.
        DataError: the records have fewer landmarks than the model asks for.
    """
    if limit < 1:
        raise ValueError(f"limit={limit}: must be at least 1")
    pairs = same_group_pairs(faces.groups, limit, seed)
    size, landmarks = model.config.model.image_size, faces.landmarks_as(model.config.data.points)
    if not len(pairs):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(faces))[:limit])
        images = faces.images(chosen, size)
        return Report({"reconstruction": _score(reconstruct(model, images, landmarks[chosen]), images)})
    source, target = (faces.images(pairs[:, side], size) for side in (0, 1))
    source_landmarks, target_landmarks = landmarks[pairs[:, 0]], landmarks[pairs[:, 1]]
    drawn = {
        "reconstruction": reconstruct(model, target, target_landmarks),
        "transfer": transfer(model, source, source_landmarks, target_landmarks, transport),
        "copy": source,
    }
    return Report({method: _score(images, target) for method, images in drawn.items()})


def evaluate_checkpoint(
    checkpoint: Path, records: str, split: str, limit: int = 500, seed: int = 0, transport: bool = True
) -> Report:
    """Returns `evaluate` of a stored model on one split of records.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: the records cannot be used.
    """
    return evaluate(load_model(checkpoint), load_faces(records, split), limit, seed, transport)


def _three_digits(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"


def _score(predicted: np.ndarray, true: np.ndarray) -> dict[str, Score]:
    values = {"psnr": psnr(predicted, true), "ssim": ssim(predicted, true)}
    return {
        name: Score(float(v.mean()), float(v.std(ddof=1) / len(v) ** 0.5) if len(v) > 1 else None, len(v))
        for name, v in values.items()
    }
