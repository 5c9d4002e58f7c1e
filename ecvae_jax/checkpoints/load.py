"""Orbax checkpoints: what is stored, when, and how it is read back.

A checkpoint has three items: `config` (JSON: the experiment with its landmark scheme, facts about the records, the sums
of the metrics since the last line of the log), `inference` (averaged parameters and the frozen part: all that synthesis
reads) and `training` (parameters and optimizer state). `integrity` adds a list of checksums to it.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from ecvae_jax.checkpoints.format import (
    ITEMS,
    frozen_to_store,
    load_density,
    quiet_orbax,
    read_facts,
    read_frozen,
    readable,
)
from ecvae_jax.checkpoints.integrity import (
    MANIFEST,
    CheckpointError,
    choose_checkpoint,
    find_damage,
)
from ecvae_jax.checkpoints.store import FOLDER, placed
from ecvae_jax.config import Config
from ecvae_jax.model.model import Model, abstract_arrays

PRETRAINED = Path(__file__).parents[1] / "pretrained"
"""The model that is shipped with the package: `ecvae export` of what configs/shipped.py trains."""

_LOG = logging.getLogger(__name__)


def load_model(checkpoint: Path | None = None) -> Model:
    """Returns the inference part of a checkpoint; the optimizer's state is not read.

    Args:
        checkpoint: a working directory, its folder `checkpoints`, or one step's folder in that; none: the model that is
            shipped (`PRETRAINED`). Of several the newest that is whole is taken; a line of the log names damaged ones.

    Raises:
        CheckpointError: there is no complete checkpoint, it is damaged, or it cannot be read.
    """
    root, step = _find(PRETRAINED if checkpoint is None else checkpoint)
    with quiet_orbax():
        options = ocp.CheckpointManagerOptions(read_only=True)
        manager = ocp.CheckpointManager(root, options=options, item_names=ITEMS)
    with manager:
        facts = read_facts(manager, step, root)
        config = Config.from_json(json.dumps(facts["config"]))
        params, frozen = placed(abstract_arrays(config), SingleDeviceSharding(jax.local_devices()[0]))
        target = ocp.args.StandardRestore({"ema_params": params, "frozen": frozen_to_store(frozen)})
        with readable(root / str(step)):
            items = manager.restore(step, args=ocp.args.Composite(inference=target))
            density = load_density(root / str(step), config.model.z_dim)
    inference = items["inference"]
    return Model(config, inference["ema_params"], read_frozen(inference["frozen"]), step, facts["records"], density)


def _find(checkpoint: Path) -> tuple[Path, int]:
    """The folder of checkpoints and the step meant."""
    path = Path(checkpoint).absolute()
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {str(checkpoint)!r}: no such folder; give the --workdir of a training")
    needed = ITEMS[:2]
    if path.name.isdigit() and any((path / name).exists() for name in (*needed, MANIFEST)):
        damage = find_damage(path, needed)
        if damage is not None:
            raise CheckpointError(f"checkpoint {path} is damaged: {damage}; take another step's folder, or the workdir")
        return path.parent, int(path.name)
    root = path / FOLDER if (path / FOLDER).is_dir() else path
    choice = choose_checkpoint(root, needed)
    if choice.step is None:
        raise CheckpointError(
            f"checkpoint {str(checkpoint)!r}: no complete checkpoint in it; give the --workdir of a training"
        )
    for line in choice.lines(root):
        _LOG.warning(line)
    return root, choice.step
