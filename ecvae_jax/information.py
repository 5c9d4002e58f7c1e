"""What `ecvae info` tells about a checkpoint or a records folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ecvae_jax.config import RENDERED


def describe(path: Path) -> list[str]:
    """Returns lines about a checkpoint (settings, size, clusters) or a records folder (splits, people, landmarks).

    Raises:
        CheckpointError: the path is neither, or the checkpoint cannot be read.
        DataError: the records cannot be read.
    """
    if str(path) == RENDERED or (path / "dataset_info.json").is_file():
        return _describe_records(path)
    return _describe_checkpoint(path)


def _describe_records(path: Path) -> list[str]:
    from ecvae_jax.data.faces import load_faces, record_splits
    from ecvae_jax.data.rendered import rendered_directory

    folder = rendered_directory() if str(path) == RENDERED else path
    lines = [f"records {folder}"]
    facts: dict[str, object] = {}
    for split in record_splits(folder):
        faces = load_faces(folder, split)
        lines.append(
            f"  {split:<11} {len(faces)} faces, {len(set(faces.identities))} identities, "
            f"{len(set(faces.groups))} appearance groups"
        )
        facts = faces.metadata
    return lines + [f"  {name:<11} {value}" for name, value in facts.items()]


def _describe_checkpoint(path: Path) -> list[str]:
    from ecvae_jax.training.checkpoint import load_model
    from ecvae_jax.training.state import count_params

    model = load_model(path)
    config, frozen = model.config, model.frozen
    return [
        f"checkpoint {path}, step {model.step} of {config.train.steps}",
        f"  network     {config.model.image_size} px, {count_params(model.params):,} parameters, "
        f"z of {config.model.z_dim}, {config.model.posterior} posterior",
        f"  structure   {config.data.points} landmarks, {config.clusters.count} clusters ({config.clusters.mode}, "
        f"temperature {config.clusters.temperature})",
        f"  prior       {config.prior.kind}, cluster means of length "
        f"{float(np.linalg.norm(frozen.cluster_means, axis=-1).mean()):.3f}, stddev {config.prior.stddev}, "
        f"median σ(c) {float(frozen.z_scale):.4f}",
        f"  records     {config.data.records}: {model.records}",
        *config.to_json().splitlines(),
    ]
