"""`export_model`: a small checkpoint, with only what synthesis reads, in half precision."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from ecvae_jax.checkpoints.format import ITEMS, frozen_to_store, metadata_to_store, quiet_orbax, save_density
from ecvae_jax.checkpoints.integrity import CheckpointError, write_manifest
from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.files import temporary_folder
from ecvae_jax.gaussian import LowRankGaussian


def export_model(checkpoint: Path, out: Path, half: bool = True, density: LowRankGaussian | None = None) -> int:
    """Writes the inference part of a checkpoint as a new checkpoint, atomically; returns its size in bytes.

    The records' folders are reduced to their names, so no path of this machine is published.

    Args:
        checkpoint: see `load_model`.
        out: the new folder.
        half: store the parameters as float16; `load_model` returns float32.
        density: of the training faces' z, stored with the model; None: the checkpoint's own, if any.

    Raises:
        CheckpointError: the checkpoint cannot be read, or `out` exists.
    """
    if os.path.lexists(out):
        raise CheckpointError(f"{out} exists: give the name of a new folder")
    model = load_model(checkpoint)
    names = "+".join(Path(part).name for part in model.config.data.records.split("+"))
    config = dataclasses.replace(model.config, data=dataclasses.replace(model.config.data, records=names))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), model.params) if half else model.params
    with temporary_folder(out) as work:
        with quiet_orbax(), ocp.CheckpointManager(Path(work).absolute() / "c", item_names=ITEMS[:2]) as manager:
            items = ocp.args.Composite(
                config=ocp.args.JsonSave(metadata_to_store(config, model.records)),
                inference=ocp.args.StandardSave({"ema_params": params, "frozen": frozen_to_store(model.frozen)}),
            )
            manager.save(model.step, args=items)
            manager.wait_until_finished()
        for mark in Path(work).rglob("commit_success.txt"):
            mark.write_text("complete\n")  # Orbax writes a path of this machine into it, and reads only that it exists
        stored_density = density or model.density
        if stored_density is not None:
            save_density(Path(work) / "c" / str(model.step), stored_density)
        write_manifest(Path(work) / "c" / str(model.step))
        (Path(work) / "c").rename(out)
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
