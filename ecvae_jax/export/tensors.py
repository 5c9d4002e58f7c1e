"""The arrays of a model as one safetensors file, with the config in its metadata."""

from __future__ import annotations

import jax
import numpy as np
from safetensors.numpy import save

from ecvae_jax.checkpoints.format import frozen_to_store
from ecvae_jax.model.model import Model


def safetensors_file(model: Model, metadata: dict[str, str]) -> bytes:
    """Returns the file's bytes: tensors params/…, frozen/… and, if the model has a density, density/mean and axes.

    Args:
        metadata: text by name; the key `config` is added, the config as JSON.
    """
    trees = {"params": model.params, "frozen": frozen_to_store(model.frozen)}
    if model.density is not None:
        trees["density"] = model.density._asdict()
    leaves, _ = jax.tree.flatten_with_path(trees)
    tensors = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
    return save(tensors, {**metadata, "config": model.config.to_json()})
