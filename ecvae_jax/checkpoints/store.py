"""Orbax checkpoints: what is stored, when, and how it is read back.

A checkpoint has three items: `config` (JSON: the experiment with its landmark scheme, facts about the records, the sums
of the metrics since the last line of the log), `inference` (averaged parameters and the frozen part: all that synthesis
reads) and `training` (parameters and optimizer state). `integrity` adds a list of checksums to it.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from ecvae_jax.agreement import run_on_host0
from ecvae_jax.checkpoints.format import (
    ITEMS,
    facts_to_store,
    frozen_to_store,
    quiet_orbax,
    read_facts,
    read_frozen,
    read_json,
    readable,
)
from ecvae_jax.checkpoints.integrity import (
    CheckpointError,
    set_damaged_aside,
    write_manifest,
)
from ecvae_jax.checkpoints.resume import check_continuation, check_same_records
from ecvae_jax.config import Config
from ecvae_jax.model.conditioning import Frozen

FOLDER = "checkpoints"
"""Name of the folder of checkpoints inside a working directory."""


class Stored(NamedTuple):
    """The arrays of a training state that a checkpoint holds."""

    params: PyTree
    ema_params: PyTree
    opt_state: PyTree
    frozen: Frozen


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
            self.notes: list[str] = run_on_host0(lambda: set_damaged_aside(self.directory))
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

    def save(self, step: int, stored: Stored, totals: Mapping[str, float]) -> None:
        """Copies the arrays off the devices and writes them in the background, atomically.

        Does nothing if this step is stored already.

        Args:
            step: training steps taken.
            stored: arrays of the state.
            totals: sums of the metrics since the last line of the log (`training.metrics`).

        Raises:
            Exception: the previous checkpoint could not be written.
        """
        if step in self._manager.all_steps():
            return
        self._wait()
        self._saving = step
        items = ocp.args.Composite(
            config=ocp.args.JsonSave({**facts_to_store(self._config, self._records), "totals": dict(totals)}),
            inference=ocp.args.StandardSave({"ema_params": stored.ema_params, "frozen": frozen_to_store(stored.frozen)}),
            training=ocp.args.StandardSave({"params": stored.params, "opt_state": stored.opt_state}),
        )
        self._manager.save(step, args=items, force=True)

    def restore(self, abstract: Stored) -> tuple[int, Stored, dict[str, float]]:
        """Returns the newest step, its arrays and the totals stored with them.

        Args:
            abstract: `jax.ShapeDtypeStruct`s with the shardings to restore into.

        Raises:
            CheckpointError: there is no checkpoint, or it cannot be read.
        """
        step = self.latest_step
        if step is None:
            raise CheckpointError(f"{self.directory}: no checkpoint")
        inference = {"ema_params": abstract.ema_params, "frozen": frozen_to_store(abstract.frozen)}
        targets = ocp.args.Composite(
            inference=ocp.args.StandardRestore(inference),
            training=ocp.args.StandardRestore({"params": abstract.params, "opt_state": abstract.opt_state}),
        )
        with readable(self.directory / str(step)):
            items = self._manager.restore(step, args=targets)
            totals: dict[str, float] = read_json(self._manager, step)["totals"]
        inference, training = items["inference"], items["training"]
        frozen = read_frozen(inference["frozen"])
        return step, Stored(training["params"], inference["ema_params"], training["opt_state"], frozen), totals

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


def placed(tree: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
    """Returns shapes and types with a sharding: what Orbax restores into."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
