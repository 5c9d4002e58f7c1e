"""Loading a model: the inference part of a checkpoint, or the model shipped with the package."""

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
    quiet_loops,
    quiet_orbax,
    read_frozen,
    read_metadata,
    readable,
)
from ecvae_jax.checkpoints.integrity import (
    MANIFEST,
    METADATA,
    CheckpointError,
    check_readable,
    choose_checkpoint,
    find_damage,
    step_of,
)
from ecvae_jax.checkpoints.place import pattern_free
from ecvae_jax.checkpoints.readback import check_inference, structure
from ecvae_jax.checkpoints.store import FOLDER, placed
from ecvae_jax.config import Config
from ecvae_jax.model.model import Model, abstract_arrays

BUNDLED = {name: Path(__file__).parents[1] / "pretrained" / name for name in ("face128", "face256")}
"""The bundled models, by name; `ecvae_jax/pretrained/README.md` is their card."""

_LOG = logging.getLogger(__name__)


def load_model(checkpoint: Path | str | None = None) -> Model:
    """Returns the model of the newest intact checkpoint; the optimizer state is not read.

    A log record names each damaged checkpoint that is skipped.

    Args:
        checkpoint: a working directory, its folder `checkpoints`, the folder of one step, or the name of a bundled
            model; None: `default_model()`.

    Raises:
        CheckpointError: no complete checkpoint exists, or it is damaged or unreadable.
    """
    root, step = _find(Path(checkpoint or default_model()))
    check_readable(root)
    with pattern_free(root) as folder:
        with quiet_orbax():
            options = ocp.CheckpointManagerOptions(read_only=True)
            manager = ocp.CheckpointManager(folder, options=options, item_names=ITEMS)
        with manager:
            metadata = read_metadata(manager, step, root)
            config = Config.from_json(json.dumps(metadata["config"]))
            params, frozen = placed(abstract_arrays(config), SingleDeviceSharding(jax.local_devices()[0]))
            tree = {"ema_params": params, "frozen": frozen_to_store(frozen)}
            target = ocp.args.StandardRestore(tree)
            with readable(root / str(step)), quiet_loops():
                check_inference(root / str(step), folder / str(step) / "inference", structure(tree), any_dtype=True)
                items = manager.restore(step, args=ocp.args.Composite(inference=target))
                density = load_density(root / str(step), config.model.z_dim)
    inference = items["inference"]
    frozen = read_frozen(inference["frozen"])
    return Model(config, inference["ema_params"], frozen, step, metadata["records"], density)


def stored_versions(checkpoint: Path | str | None = None) -> dict[str, str]:
    """Returns the versions of the program that wrote a checkpoint, by name; empty where an older one wrote it.

    Raises:
        CheckpointError: no complete checkpoint exists, or it cannot be read.
    """
    root, step = _find(Path(checkpoint or default_model()))
    check_readable(root)
    with readable(root / str(step)):
        stored = json.loads((root / str(step) / METADATA).read_text()).get("versions", {})
        return {str(name): str(number) for name, number in stored.items()}


def default_model() -> str:
    """Returns the name of the bundled model used where no checkpoint is given: face256 on an accelerator, or face128.

    face256 takes about ten times the computation of face128, which two cores feel and an accelerator does not.
    """
    return "face128" if jax.default_backend() == "cpu" else "face256"


def _find(checkpoint: Path) -> tuple[Path, int]:
    """Returns the folder of checkpoints, and the step. A folder hides the bundled model of the same name."""
    path = checkpoint.absolute()
    if not path.is_dir() and str(checkpoint) in BUNDLED:
        path = BUNDLED[str(checkpoint)]
    if not path.is_dir():
        raise CheckpointError(
            f"checkpoint {str(checkpoint)!r}: no such folder; "
            f"give the --workdir of a training, or a bundled model: {', '.join(BUNDLED)}"
        )
    needed = ITEMS[:2]
    step = step_of(path.name)
    if step is not None and any((path / name).exists() for name in (*needed, MANIFEST)):
        damage = find_damage(path, needed)
        if damage is not None:
            raise CheckpointError(f"checkpoint {path} is damaged: {damage}; use another step's folder, or the workdir")
        return path.parent, step
    root = path / FOLDER if (path / FOLDER).is_dir() else path
    choice = choose_checkpoint(root, needed)
    if choice.step is None:
        raise CheckpointError(
            f"checkpoint {str(checkpoint)!r}: no complete checkpoint in it; give the --workdir of a training"
        )
    for line in choice.lines(root):
        _LOG.warning(line)
    return root, choice.step
