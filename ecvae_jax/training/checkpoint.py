"""Orbax checkpoints: what is stored, when, and how it is read back.

A checkpoint has three items: `config` (JSON: the experiment with its landmark scheme, facts about the records, the sums
of the metrics since the last line of the log), `inference` (averaged parameters and the frozen part: all that synthesis
reads) and `training` (parameters and optimiser state). `integrity` adds a list of checksums to it.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers as policies

from ecvae_jax.config import Config
from ecvae_jax.gaussian import LowRankGaussian
from ecvae_jax.model.conditioning import Frozen, with_learned_means
from ecvae_jax.training.agreement import decide_once
from ecvae_jax.training.continuation import check_continuation, check_same_records
from ecvae_jax.training.density_file import load_density
from ecvae_jax.training.facts import ITEMS, facts_to_store, quiet_orbax, read_facts, read_json, readable
from ecvae_jax.training.integrity import (
    MANIFEST,
    CheckpointError,
    choose_checkpoint,
    find_damage,
    set_damaged_aside,
    write_manifest,
)
from ecvae_jax.training.parallel import replicate, replicated_sharding
from ecvae_jax.training.state import TrainState, abstract_state

FOLDER = "checkpoints"
"""Name of the folder of checkpoints inside a working directory."""

PRETRAINED = Path(__file__).parents[1] / "pretrained"
"""The model that is shipped with the package: `ecvae export` of what configs/shipped.py trains."""

_LOG = logging.getLogger(__name__)


class Model(NamedTuple):
    """What synthesis and evaluation need of a checkpoint."""

    config: Config
    params: PyTree
    """The moving average of the parameters."""
    frozen: Frozen
    """Of means that are trained it has the averages (`conditioning.with_learned_means`)."""
    step: int
    """Training steps taken."""
    records: dict[str, Any]
    """Facts about the records it was trained on, such as the crop's margin: `Faces.metadata`."""
    density: LowRankGaussian | None = None
    """Of the training faces' appearances, where one is stored with the model: see `ecvae_jax.density`."""


class Checkpoints:
    """The checkpoints of one working directory, written in the background while training goes on."""

    def __init__(
        self, workdir: Path, config: Config, records: Mapping[str, Any], allowed: Collection[str] = ()
    ) -> None:
        """Opens (and makes) the folder `workdir/checkpoints`; the newest whole checkpoint is then the latest one.

        Args:
            workdir: of the training.
            config: what it is to go on with.
            records: facts to be stored with the model.
            allowed: settings that may differ from the stored ones (see `continuation`).

        Raises:
            CheckpointError: it holds checkpoints of another experiment, or none that is whole.
        """
        self._config, self._records = config, dict(records)
        self.directory = (workdir / FOLDER).absolute()
        self._saving: int | None = None
        with ExitStack() as opened:
            # What goes wrong in the background is raised, and told once, when it is waited for.
            opened.enter_context(quiet_orbax(logging.CRITICAL))
            self.notes: list[str] = decide_once(lambda: set_damaged_aside(self.directory))
            """Lines about damaged checkpoints that were passed over, and about settings that are taken anew."""
            options = ocp.CheckpointManagerOptions(
                save_decision_policy=policies.AnySavePolicy([
                    policies.PreemptionCheckpointingPolicy(),
                    policies.FixedIntervalPolicy(config.train.checkpoint_every),
                ]),
                preservation_policy=policies.LatestN(config.train.keep_checkpoints),
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
            )
            self._manager = ocp.CheckpointManager(self.directory, options=options, item_names=ITEMS)
            latest = self.latest_step
            if latest is not None:
                facts = read_facts(self._manager, latest, self.directory)
                self.notes += check_continuation(config, facts["config"], workdir, allowed)
                check_same_records(self._records, facts["records"], workdir)
            self._open = opened.pop_all()

    @property
    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, if there is one."""
        return self._manager.latest_step()

    def is_due(self, step: int) -> bool:
        """Returns whether a checkpoint is due at this step: the interval is full, or the machine is about to go."""
        return self._manager.should_save(step)

    def save(self, state: TrainState, totals: Mapping[str, float]) -> None:
        """Copies the state off the devices and writes it in the background; complete or not there at all.

        Does nothing where this step is stored already. `totals` are those of the `training.window`.

        Raises:
            Exception: the checkpoint before could not be written.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._wait()
        self._saving = step
        items = ocp.args.Composite(
            config=ocp.args.JsonSave({**facts_to_store(self._config, self._records), "totals": dict(totals)}),
            inference=ocp.args.StandardSave({"ema_params": state.ema_params, "frozen": state.frozen}),
            training=ocp.args.StandardSave({"params": state.params, "opt_state": state.opt_state}),
        )
        self._manager.save(step, args=items, force=True)

    def restore(self) -> tuple[TrainState, dict[str, float]]:
        """Returns the newest state, on every device, and the totals stored with it.

        Raises:
            CheckpointError: there is none, or it cannot be read.
        """
        step = self.latest_step
        if step is None:
            raise CheckpointError(f"{self.directory}: no checkpoint")
        abstract = _placed(abstract_state(self._config), replicated_sharding())
        targets = ocp.args.Composite(
            inference=ocp.args.StandardRestore({"ema_params": abstract.ema_params, "frozen": abstract.frozen}),
            training=ocp.args.StandardRestore({"params": abstract.params, "opt_state": abstract.opt_state}),
        )
        with readable(self.directory / str(step)):
            items = self._manager.restore(step, args=targets)
            totals: dict[str, float] = read_json(self._manager, step)["totals"]
        inference, training = items["inference"], items["training"]
        state = TrainState(
            replicate(jnp.asarray(step, jnp.int32)),
            training["params"],
            inference["ema_params"],
            training["opt_state"],
            inference["frozen"],
        )
        return state, totals

    def close(self) -> None:
        """Waits for the writing that is under way, then lets go of the folder.

        Raises:
            Exception: it failed.
        """
        with self._open:
            self._wait()
            self._manager.close()

    def _wait(self) -> None:
        try:
            self._manager.wait_until_finished()
        except Exception:
            if jax.process_index() == 0:
                self._remove_unfinished()
            raise

    def _remove_unfinished(self) -> None:
        """Frees a disk that may be full of what is of no use to anybody."""
        for _ in range(20):  # other threads of Orbax may be writing into it for a moment yet
            folders = self._unfinished()
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            if not folders:
                return
            time.sleep(0.1)

    def _write_manifest(self) -> None:
        """Called by Orbax on the first process, when all is written and the folder is to get its final name."""
        for folder in self._unfinished():
            write_manifest(folder)

    def _unfinished(self) -> list[Path]:
        return list(self.directory.glob(f"{self._saving}.orbax-checkpoint-tmp*"))


def load_model(checkpoint: Path | None = None) -> Model:
    """Returns the inference part of a checkpoint; the optimiser's state is not read.

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
        abstract = _placed(abstract_state(config), jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))
        target = ocp.args.StandardRestore({"ema_params": abstract.ema_params, "frozen": abstract.frozen})
        with readable(root / str(step)):
            items = manager.restore(step, args=ocp.args.Composite(inference=target))
            density = load_density(root / str(step), config.model.z_dim)
    params, frozen = items["inference"]["ema_params"], items["inference"]["frozen"]
    return Model(config, params, with_learned_means(config, params, frozen), step, facts["records"], density)


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


def _placed(state: TrainState, sharding: jax.sharding.Sharding) -> TrainState:
    """Shapes and types of the state and where it is to lie: what Orbax restores into."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state)
