"""Example batches of a training and their pictures: the first examples, predictions, the batch of a failed step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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
from ecvae_jax.training.parallel import HostBatch
from ecvae_jax.training.step import to_views

_EXAMPLES = 16  # in a picture, and for initialization


def first_examples(config: Config, faces: Faces) -> HostBatch:
    """Returns the first examples of step 0, for initialization and for the pictures drawn during training."""
    uncached = dataclasses.replace(config.data, cache="off")  # one batch does not need every face decoded
    size, train_config = config.model.image_size, config.train
    batch = next(training_batches(faces, uncached, size, train_config.batch_size, train_config.seed))
    return {name: value[:_EXAMPLES] for name, value in batch.items()}


def device_views(batch: HostBatch) -> Views:
    """Returns a host batch as views on the default device."""
    return to_views({name: jnp.asarray(value) for name, value in batch.items()})


def draw_views(config: Config, frozen: Frozen, batch: HostBatch, params: PyTree | None) -> np.ndarray:
    """Returns a picture (uint8 h w 3) of a batch, one example a column.

    The rows are source, its sketch, target, its sketch, and the prediction with z at the mean of the posterior.

    Args:
        params: for the prediction; None: without that row.
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
    return sketch_image(
        np.asarray(compiled_condition(config.architecture, None, frozen, jnp.asarray(landmarks)).sketch)
    )


@partial(jax.jit, static_argnums=0)
def _predict(architecture: Architecture, params: PyTree, frozen: Frozen, views: Views) -> Array:
    source = make_condition(architecture, params, frozen, views.source_landmarks)
    target = make_condition(architecture, params, frozen, views.landmarks)
    posterior = encode(architecture, params, views.source_image, source)
    z = source.prior.transport(posterior.mean, target.prior)
    return decode(architecture, params, z, target, frozen.z_scale)


def save_bad_batch(batch: HostBatch, step: int, workdir: Path, draw: Callable[[HostBatch], np.ndarray]) -> Path:
    """Writes this process's share of a batch as `bad_batch-STEP.npz`, and a PNG of up to 16 examples.

    The picture shows examples with values that are not finite first, with those values replaced by 0.

    Returns:
        The path of the .npz file.
    """
    share = f"-process{jax.process_index()}" if jax.process_count() > 1 else ""
    path = workdir / f"bad_batch-{step}{share}.npz"
    arrays: dict[str, Any] = dict(batch)
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))
    finite = np.stack([np.isfinite(value).all(axis=tuple(range(1, value.ndim))) for value in batch.values()])
    order = np.argsort(finite.all(axis=0), kind="stable")[:_EXAMPLES]
    examples = {name: np.nan_to_num(value[order], posinf=0.0, neginf=0.0) for name, value in batch.items()}
    save_png(draw(examples), path.with_suffix(".png"))
    return path
