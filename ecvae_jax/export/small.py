"""A checkpoint made small: what synthesis needs, in half precision."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from ecvae_jax.checkpoints.format import ITEMS, facts_to_store, frozen_to_store, quiet_orbax, save_density
from ecvae_jax.checkpoints.integrity import CheckpointError, write_manifest
from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.gaussian import LowRankGaussian


def export_model(checkpoint: Path, out: Path, half: bool = True, density: LowRankGaussian | None = None) -> int:
    """Writes the inference part of a checkpoint as a checkpoint of its own, whole or not at all; returns its bytes.

    Of the records' folders only the names are kept: where they lay is nobody's business.

    Args:
        checkpoint: see `load_model`.
        out: folder to be made.
        half: store the parameters as float16; what `load_model` reads is float32 again.
        density: of the training faces' appearances, to be stored with it; none: the one that is there, if any.

    Raises:
        CheckpointError: the checkpoint cannot be read, or `out` exists.
    """
    if out.exists():
        raise CheckpointError(f"{out} exists: give the name of a new folder")
    model = load_model(checkpoint)
    names = "+".join(Path(part).name for part in model.config.data.records.split("+"))
    config = dataclasses.replace(model.config, data=dataclasses.replace(model.config.data, records=names))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), model.params) if half else model.params
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        with quiet_orbax(), ocp.CheckpointManager(Path(work).absolute() / "c", item_names=ITEMS[:2]) as manager:
            manager.save(model.step, args=ocp.args.Composite(
                config=ocp.args.JsonSave(facts_to_store(config, model.records)),
                inference=ocp.args.StandardSave({"ema_params": params, "frozen": frozen_to_store(model.frozen)}),
            ))  # fmt: skip
            manager.wait_until_finished()
        for mark in Path(work).rglob("commit_success.txt"):
            mark.write_text("complete\n")  # Orbax writes where on this machine it was; that the file is there counts
        if (kept := density or model.density) is not None:
            save_density(Path(work) / "c" / str(model.step), kept)
        write_manifest(Path(work) / "c" / str(model.step))
        (Path(work) / "c").rename(out)
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
