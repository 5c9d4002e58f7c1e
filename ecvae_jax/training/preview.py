"""A training from first batch to last checkpoint: `train`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ecvae_jax.config import Architecture, Config
from ecvae_jax.data.batches import Faces, training_batches
from ecvae_jax.files import write_atomically
from ecvae_jax.images import save_png, sketch_image, tile, to_uint8
from ecvae_jax.model.conditioning import Frozen, compiled_condition, make_condition
from ecvae_jax.model.cvae import decode, encode
from ecvae_jax.objective import Views
from ecvae_jax.training.step import to_views

HostBatch = Mapping[str, np.ndarray]


# Faces in the picture that is drawn again and again during a training, and that initialization sees.
_WATCHED = 16


def first_examples(config: Config, faces: Faces) -> HostBatch:
    """Returns the first examples of step 0: what initialization and the watched pictures use."""
    uncached = dataclasses.replace(config.data, cache=False)  # one batch is wanted, not every face decoded
    size, train_config = config.model.image_size, config.train
    batch = next(training_batches(faces, uncached, size, train_config.batch_size, train_config.seed))
    return {name: value[:_WATCHED] for name, value in batch.items()}


def device_views(batch: HostBatch) -> Views:
    """Returns a host batch as views on the default device."""
    return to_views({name: jnp.asarray(value) for name, value in batch.items()})


def draw_views(config: Config, frozen: Frozen, batch: HostBatch, params: PyTree | None) -> np.ndarray:
    """Returns a picture of a batch, an example a column: source, its sketch, target, its sketch, and the prediction.

    Args:
        config: the experiment.
        frozen: the fixed part of the model.
        batch: as the pipeline gives it.
        params: parameters for the prediction (z at the posterior's mean), or none to leave it out.
    """
    rows = [
        batch["source_image"],
        _sketches(config, frozen, batch["source_landmarks"]),
        batch["image"],
        _sketches(config, frozen, batch["landmarks"]),
    ]
    if params is not None:
        rows.append(to_uint8(np.asarray(_predict(config.architecture, params, frozen, device_views(batch)))))
    return tile([list(row) for row in rows])


def _sketches(config: Config, frozen: Frozen, landmarks: np.ndarray) -> np.ndarray:
    return sketch_image(np.asarray(compiled_condition(config.architecture, None, frozen, jnp.asarray(landmarks)).sketch))


@partial(jax.jit, static_argnums=0)
def _predict(architecture: Architecture, params: PyTree, frozen: Frozen, views: Views) -> Array:
    source = make_condition(architecture, params, frozen, views.source_landmarks)
    target = make_condition(architecture, params, frozen, views.landmarks)
    posterior = encode(architecture, params, views.source_image, source)
    z = source.prior.transport(posterior.mean, target.prior)
    return decode(architecture, params, z, target, frozen.z_scale)

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
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
    whole = np.stack([np.isfinite(value).all(axis=tuple(range(1, value.ndim))) for value in batch.values()])
    order = np.argsort(whole.all(axis=0), kind="stable")[:_SHOWN]
    shown = {name: np.nan_to_num(value[order], posinf=0.0, neginf=0.0) for name, value in batch.items()}
    save_png(draw(shown), path.with_suffix(".png"))
    return path
