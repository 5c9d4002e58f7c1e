"""The PNG grids of `ecvae transfer` and `ecvae sample`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.config import AdaptConfig
from ecvae_jax.data.portraits import load_portraits
from ecvae_jax.files import check_output
from ecvae_jax.images import enlarge, save_png, sketch_image, tile
from ecvae_jax.model.model import Model, condition_of
from ecvae_jax.synthesis.batches import sample
from ecvae_jax.synthesis.cross import transfer_cross
from ecvae_jax.synthesis.density import density_of


def write_transfer_grid(
    checkpoint: Path | None,
    sources: Sequence[str],
    targets: Sequence[str],
    out: Path,
    transport: bool,
    factor: int,
    adapt: AdaptConfig = AdaptConfig(),  # noqa: B008
) -> list[str]:
    """Writes a grid with one row per source, one column per target, sketches on the border; returns notes.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: a source or target cannot be read.
        UnsafePathError: `out` is a source or target, or no regular file.
        OSError: the picture cannot be written.
    """
    check_output(out, [*sources, *targets])
    model = load_model(checkpoint)
    rows, columns = load_portraits(model, sources), load_portraits(model, targets)
    drawn = transfer_cross(model, rows.images, rows.landmarks, columns.landmarks, transport, adapt)
    source_sketches, target_sketches = _sketches(model, rows.landmarks), _sketches(model, columns.landmarks)
    grid = [[None, None, *columns.images], [None, None, *target_sketches]]
    grid += [[rows.images[i], source_sketches[i], *drawn[i]] for i in range(len(drawn))]
    save_png(enlarge(tile(grid), factor), out)
    return [*rows.notes, *columns.notes, f"{len(rows.names)} sources × {len(columns.names)} targets: {out}"]


def write_sample_grid(
    checkpoint: Path | None,
    structures: Sequence[str],
    count: int,
    seed: int,
    out: Path,
    factor: int,
    source: Literal["prior", "posterior"] = "prior",
    data: str | None = None,
    temperature: float = 1.0,
) -> list[str]:
    """Writes a grid with one row per structure, its sketch first, then its samples; returns notes.

    Args:
        structures: photos, or faces of records.
        source: draw from the prior, or from a density of the training faces' posteriors (`synthesis.density`).
        data: records to fit that density to; None: see `density_of`.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: a structure cannot be read.
        UnsafePathError: `out` is a structure, or no regular file.
        OSError: the picture cannot be written.
    """
    check_output(out, structures)
    model = load_model(checkpoint)
    portraits = load_portraits(model, structures)
    density, note = density_of(model, data) if source == "posterior" else (None, "drawn from the prior")
    drawn = sample(model, jax.random.key(seed), portraits.landmarks, count, density, temperature)
    sketches = _sketches(model, portraits.landmarks)
    save_png(enlarge(tile([[sketches[i], *drawn[i]] for i in range(len(drawn))]), factor), out)
    return [*portraits.notes, note, f"{len(portraits.names)} structures × {count} samples: {out}"]


def _sketches(model: Model, landmarks: np.ndarray) -> np.ndarray:
    return sketch_image(np.asarray(condition_of(model, landmarks).sketch))
