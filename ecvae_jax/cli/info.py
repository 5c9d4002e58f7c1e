"""The lines and the JSON of `ecvae info` about a checkpoint or a records folder."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ecvae_jax.config import RENDERED

_MOST_TAGS = 40
_DRAWN_CLUSTERS = 8
_DRAWING = 40  # dots a side


def describe(path: Path) -> list[str]:
    """Returns lines about a checkpoint (settings, size, clusters) or a records folder (splits, people, landmarks).

    Raises:
        CheckpointError: the path is neither, or the checkpoint cannot be read.
        DataError: the records cannot be read.
    """
    return _describe_records(path) if _is_records(path) else _describe_checkpoint(path)


def facts_of(path: Path) -> dict[str, Any]:
    """Returns the facts of `describe` as JSON values; `kind` is "records" or "checkpoint".

    Raises:
        CheckpointError: the path is neither, or the checkpoint cannot be read.
        DataError: the records cannot be read.
    """
    return _records_facts(path) if _is_records(path) else _checkpoint_facts(path)


def _is_records(path: Path) -> bool:
    return str(path) == RENDERED or (path / "dataset_info.json").is_file()


def _records_facts(path: Path) -> dict[str, Any]:
    from ecvae_jax.data.faces import load_faces, record_splits
    from ecvae_jax.data.manifest import find_records

    folder = find_records(path)
    splits = {split: load_faces(folder, split) for split in record_splits(folder)}
    counts = {
        split: {"faces": len(faces), "identities": len(set(faces.identities)), "groups": len(set(faces.groups))}
        for split, faces in splits.items()
    }
    metadata = next(iter(splits.values())).metadata
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return {"kind": "records", "path": str(folder), "bytes": size, "splits": counts, "metadata": metadata}


def _checkpoint_facts(path: Path) -> dict[str, Any]:
    from ecvae_jax.checkpoints.load import load_model, stored_versions

    model = load_model(path)
    config = json.loads(model.config.to_json())
    return {
        "kind": "checkpoint",
        "path": str(path),
        "step": model.step,
        "steps": model.config.train.steps,
        "parameters": _count_params(model.params),
        "density_rank": None if model.density is None else len(model.density.axes),
        "versions": stored_versions(path),
        "records": dict(model.records),
        "config": config,
    }


def _count_params(params: Any) -> int:
    """Returns the number of numbers in a tree of arrays."""
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _describe_records(path: Path) -> list[str]:
    from ecvae_jax.data.faces import load_faces, record_splits
    from ecvae_jax.data.manifest import find_records

    folder = find_records(path)
    lines = [f"records {folder}"]
    splits = {split: load_faces(folder, split) for split in record_splits(folder)}
    for split, faces in splits.items():
        identities, groups = len(set(faces.identities)), len(set(faces.groups))
        lines.append(_row(split, f"{len(faces)} faces, {identities} identities, {groups} appearance groups"))
    first = next(iter(splits.values()))
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6
    lines += [_row("size", f"{size:.1f} MB")]
    lines += [_row(name, value) for name, value in first.metadata.items()]
    lines += _describe_tags([tags for faces in splits.values() for tags in faces.tags])
    return lines + _describe_landmarks(np.concatenate([faces.landmarks for faces in splits.values()]))


def _describe_tags(tags: list[dict[str, Any]]) -> list[str]:
    """Returns one line per tag: the range of numbers, the most frequent values of words."""
    values: dict[str, list[Any]] = defaultdict(list)
    for face in tags:
        for name, value in face.items():
            if isinstance(value, dict):
                for part, inner in value.items():
                    values[f"{name}.{part}"].append(inner)
            else:
                values[name].append(value)
    lines = ["tags"] if values else []
    for name, found in list(values.items())[:_MOST_TAGS]:
        numbers = [v for v in found if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) == len(found):
            low, middle, high = np.percentile(numbers, [0, 50, 100])
            lines.append(f"  {name:<24} {low:.4g} to {high:.4g}, median {middle:.4g}")
            continue
        counts = Counter(str(value) for value in found)
        shown = ", ".join(f"{value} ({number})" for value, number in counts.most_common(4))
        rest = f", and {len(counts) - 4} others" if len(counts) > 4 else ""
        words = len(counts) <= 40 and all(isinstance(value, (str, bool, type(None))) for value in found)
        lines.append(f"  {name:<24} {shown}{rest}" if words else f"  {name:<24} {len(counts)} different values")
    if len(values) > _MOST_TAGS:
        lines.append(f"  … and {len(values) - _MOST_TAGS} others")
    return lines


def _describe_landmarks(landmarks: np.ndarray) -> list[str]:
    """Returns the statistics of the landmarks, and drawings of the centers of a few structure clusters."""
    from ecvae_jax.data.prepare.preview import braille, sketch
    from ecvae_jax.structure.align import align_landmarks
    from ecvae_jax.structure.clusters import fit_clusters
    from ecvae_jax.structure.scheme import get_scheme

    scheme = get_scheme(landmarks.shape[1])
    inside = ((landmarks >= 0) & (landmarks <= 1)).all(axis=-1).mean()
    left, right = (landmarks[:, list(eye)].mean(axis=1) for eye in scheme.eyes)
    roll = np.degrees(np.arctan2(*(right - left).T[::-1]))
    aligned = np.asarray(align_landmarks(landmarks, scheme, True))
    spread = float(np.sqrt(np.square(aligned - aligned.mean(axis=0)).sum(axis=-1).mean()))
    lines = [
        "landmarks",
        f"  {inside:.1%} inside the crop; roll {np.percentile(roll, 5):.0f}° to {np.percentile(roll, 95):.0f}° "
        f"(5th to 95th percentile)",
        f"  spread {spread:.3f}: root mean square distance from the mean shape in face radii, after alignment of "
        "position, size and roll",
    ]
    count = min(_DRAWN_CLUSTERS, len(np.unique(aligned[:1000].reshape(-1, 2 * scheme.points), axis=0)))
    clusters = fit_clusters(landmarks, scheme, count, False, 0)
    sizes = _cluster_sizes(np.asarray(align_landmarks(landmarks, scheme, False)), np.asarray(clusters.centers))
    order = np.argsort(-sizes)
    lines += [f"  centers of {count} clusters, of {', '.join(str(sizes[i]) for i in order)} faces:"]
    centers = np.asarray(clusters.centers)[order]
    # From the aligned frame (radius 1 about 0) into a crop.
    drawn = sketch((0.5 + 0.27 * centers).astype(np.float32), _DRAWING)[..., 0]
    return lines + ["  " + line for line in braille(drawn, 4)]


def _cluster_sizes(aligned: np.ndarray, centers: np.ndarray) -> np.ndarray:
    nearest = [int(np.square(centers - face).sum(axis=(1, 2)).argmin()) for face in aligned]
    return np.bincount(nearest, minlength=len(centers))


def _describe_checkpoint(path: Path) -> list[str]:
    from ecvae_jax.checkpoints.load import load_model, stored_versions
    from ecvae_jax.model.conditioning import cluster_means

    model = load_model(path)
    config, frozen = model.config, model.frozen
    means = "learned" if config.prior.learned else "fixed"
    length = float(np.linalg.norm(cluster_means(model.architecture, model.params, frozen), axis=-1).mean())
    lines = [
        f"checkpoint {path}, step {model.step} of {config.train.steps}",
        _row("network", f"{config.model.image_size} px, {_count_params(model.params):,} parameters"),
        _row("z", f"{config.model.z_dim} dimensions, {config.model.posterior} posterior"),
        _row("structure", f"{config.data.points} landmarks, {config.clusters.count} clusters"),
        _row("clusters", f"{config.clusters.mode}, temperature {config.clusters.temperature}"),
        _row("prior", f"{config.prior.kind}, {means} cluster means of length {length:.3f}"),
        _row("", f"stddev {config.prior.stddev}, median σ(c) {float(frozen.z_scale):.4f}"),
    ]
    if model.density is not None:
        lines.append(_row("density", f"fitted to the training faces' appearances, rank {len(model.density.axes)}"))
    written = stored_versions(path)
    if written:
        lines.append(_row("written by", ", ".join(f"{name} {number}" for name, number in written.items())))
    folders = Counter(config.data.records.split("+"))
    lines += ["records"]
    lines += [f"  {folder}" + (f", {times} times" if times > 1 else "") for folder, times in folders.items()]
    lines += [_row(name, value) for name, value in (model.records or {}).items()]
    return [*lines, "settings", *config.to_json().splitlines()]


def _row(name: str, value: object) -> str:
    return f"  {name:<12} {value}"
