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
from ecvae_jax.checkpoints.place import pattern_free
from ecvae_jax.checkpoints.readback import find_fault, structure
from ecvae_jax.files import unspelled
from ecvae_jax.folders import temporary_folder
from ecvae_jax.gaussian import LowRankGaussian


def export_model(checkpoint: Path | None, out: Path, half: bool = True, density: LowRankGaussian | None = None) -> int:
    """Writes the inference part of a checkpoint as a new checkpoint, atomically; returns its size in bytes.

    The records' folders and `train.init_from` are reduced to their names, so no path of this machine is published.

    Args:
        checkpoint: see `load_model`.
        out: the new folder.
        half: store the parameters as float16; `load_model` returns float32.
        density: of the training faces' z, stored with the model; None: the checkpoint's own, if any.

    Raises:
        CheckpointError: the checkpoint cannot be read, or `out` exists or is not UTF-8.
    """
    if os.path.lexists(out):
        raise CheckpointError(f"{out} exists: give the name of a new folder")
    if odd := unspelled(out):
        raise CheckpointError(odd)
    model = load_model(checkpoint)
    names = "+".join(Path(part).name for part in model.config.data.records.split("+"))
    data = dataclasses.replace(model.config.data, records=names)
    begun = dataclasses.replace(model.config.train, init_from=Path(model.config.train.init_from).name)
    config = dataclasses.replace(model.config, data=data, train=begun)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), model.params) if half else model.params
    inference = {"ema_params": params, "frozen": frozen_to_store(model.frozen)}
    with temporary_folder(out) as work:
        with pattern_free(Path(work).absolute()) as folder:
            with quiet_orbax(), ocp.CheckpointManager(folder / "c", item_names=ITEMS[:2]) as manager:
                items = ocp.args.Composite(
                    config=ocp.args.JsonSave(metadata_to_store(config, model.records)),
                    inference=ocp.args.StandardSave(inference),
                )
                manager.save(model.step, args=items)
                manager.wait_until_finished()
            step = folder / "c" / str(model.step)
            for mark in step.rglob("commit_success.txt"):
                mark.write_text("complete\n")  # Orbax writes a path of this machine, and reads only that it exists
            stored_density = density or model.density
            if stored_density is not None:
                save_density(step, stored_density)
            write_manifest(step)
            fault = find_fault(step, {"inference": structure(inference)})
            if fault:
                raise CheckpointError(f"{out} was written, but cannot be read back: {fault}; check the disk and retry")
        (Path(work) / "c").rename(out)
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
