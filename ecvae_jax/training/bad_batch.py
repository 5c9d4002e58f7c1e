"""The batch at which a training stopped, kept for looking at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ecvae_jax.pictures import save_picture, write_aside

_SHOWN = 16


def save_bad_batch(
    batch: Mapping[str, np.ndarray], step: int, workdir: Path, draw: Callable[[Mapping[str, np.ndarray]], np.ndarray]
) -> Path:
    """Writes `bad_batch-STEP.npz`, this process's share of a batch as the pipeline gave it, and a PNG of 16 examples.

    Examples with landmarks that are not finite come first in the picture, with such landmarks drawn at 0.

    Args:
        batch: as `data.pipeline` gives it.
        step: the training step that it was for.
        workdir: where to.
        draw: makes a picture of a batch.

    Returns:
        The .npz file.
    """
    share = f"-process{jax.process_index()}" if jax.process_count() > 1 else ""
    path = workdir / f"bad_batch-{step}{share}.npz"
    arrays: dict[str, Any] = dict(batch)
    write_aside(path, lambda file: np.savez_compressed(file, **arrays))
    whole = np.stack([np.isfinite(value).all(axis=tuple(range(1, value.ndim))) for value in batch.values()])
    order = np.argsort(whole.all(axis=0), kind="stable")[:_SHOWN]
    shown = {name: np.nan_to_num(value[order], posinf=0.0, neginf=0.0) for name, value in batch.items()}
    save_picture(draw(shown), path.with_suffix(".png"))
    return path
