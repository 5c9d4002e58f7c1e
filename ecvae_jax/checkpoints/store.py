"""The Orbax checkpoints of a training: saved in the background, restored with their sharding.

A checkpoint has three items. `config` is JSON: the experiment with its landmark scheme, metadata of the records, and
the sums of the metrics since the last log line. `inference` holds the averaged parameters and the frozen part, all that
synthesis reads. `training` holds parameters and optimizer state. `integrity` adds checksums.
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
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers as policies

from ecvae_jax.agreement import run_on_host0
from ecvae_jax.checkpoints.format import (
    ITEMS,
    frozen_to_store,
    metadata_to_store,
    quiet_loops,
    quiet_orbax,
    read_frozen,
    read_json,
    read_metadata,
    readable,
)
from ecvae_jax.checkpoints.integrity import (
    CheckpointError,
    check_readable,
    set_damaged_aside,
    stored_steps,
    write_manifest,
)
from ecvae_jax.checkpoints.place import Place, pattern_free
from ecvae_jax.checkpoints.readback import Structure, check_inference, find_fault, structure
from ecvae_jax.checkpoints.resume import check_resume, check_same_records
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
    moments: PyTree = None
    """Of the posteriors, for prior.kind="covariance"; None for all others."""

    @property
    def training(self) -> dict[str, PyTree]:
        """The item `training`: what only a resumed training reads."""
        moments = {} if self.moments is None else {"moments": self.moments}
        return {"params": self.params, "opt_state": self.opt_state, **moments}


class Checkpoints:
    """The checkpoints of one working directory, written in the background during training."""

    def __init__(
        self, workdir: Path, config: Config, records: Mapping[str, Any], allowed: Collection[str] = ()
    ) -> None:
        """Opens or creates `workdir/checkpoints`; moves damaged checkpoints aside, so the latest one is intact.

        Settings in `allowed`, as section.field, may differ from the stored ones (see `resume`).

        Raises:
            CheckpointError: the folder holds checkpoints of another experiment, or none that is intact.
        """
        self._config, self._records = config, dict(records)
        self.directory = (workdir / FOLDER).absolute()
        self._saving: int | None = None
        self._structures: dict[str, Structure] = {}
        with ExitStack() as opened:
            # Errors of the background thread are raised by `_wait`; Orbax would log them as well.
            opened.enter_context(quiet_orbax(logging.CRITICAL))
            opened.enter_context(quiet_loops())
            self.notes: list[str] = run_on_host0(lambda: set_damaged_aside(self.directory))
            """Lines about damaged checkpoints that were skipped, and about changed settings."""
            run_on_host0(lambda: check_readable(self.directory))
            options = ocp.CheckpointManagerOptions(
                save_decision_policy=policies.AnySavePolicy(
                    [
                        policies.PreemptionCheckpointingPolicy(),
                        policies.FixedIntervalPolicy(config.train.checkpoint_every),
                    ]
                ),
                preservation_policy=policies.LatestN(config.train.keep_checkpoints),
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._finish),
            )
            self._root = opened.enter_context(pattern_free(self.directory))
            self._manager = ocp.CheckpointManager(self._root, options=options, item_names=ITEMS)
            self._place = Place(self.directory) if jax.process_index() == 0 else None
            latest = self.latest_step
            if latest is not None:
                metadata = read_metadata(self._manager, latest, self.directory)
                self.notes += check_resume(config, metadata["config"], workdir, allowed)
                check_same_records(self._records, metadata["records"], workdir)
            self._open = opened.pop_all()

    @property
    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def check_place(self) -> None:
        """Raises an error, on every process, if the folder was moved, deleted or replaced since it was opened.

        Orbax would create it again, and the training would be split over two folders.

        Raises:
            LostFolderError: on the first process.
            OtherProcessError: on the others.
        """
        run_on_host0(self._check_place)

    def is_due(self, step: int) -> bool:
        """Returns whether a checkpoint is due at this step: its interval has passed, or the host is preempted."""
        return self._manager.should_save(step)

    def save(self, step: int, stored: Stored, totals: Mapping[str, float]) -> None:
        """Copies the arrays off the devices and writes them in the background, atomically.

        Does nothing if this step is already stored. `totals` are the sums of the metrics since the last log line
        (`training.metrics`).

        Raises:
            Exception: writing the previous checkpoint failed.
        """
        if step in self._manager.all_steps():
            return
        self._wait()
        self._saving = step
        inference = {"ema_params": stored.ema_params, "frozen": frozen_to_store(stored.frozen)}
        training = stored.training
        self._structures = {"inference": structure(inference), "training": structure(training)}
        items = ocp.args.Composite(
            config=ocp.args.JsonSave({**metadata_to_store(self._config, self._records), "totals": dict(totals)}),
            inference=ocp.args.StandardSave(inference),
            training=ocp.args.StandardSave(training),
        )
        self._manager.save(step, args=items, force=True)

    def restore(self, abstract: Stored) -> tuple[int, Stored, dict[str, float]]:
        """Returns the newest step, its arrays and the totals stored with them.

        `abstract` holds `jax.ShapeDtypeStruct`s with the shardings to restore into.

        Raises:
            CheckpointError: no checkpoint exists, or it cannot be read.
        """
        step = self.latest_step
        if step is None:
            raise CheckpointError(f"{self.directory}: no checkpoint")
        inference = {"ema_params": abstract.ema_params, "frozen": frozen_to_store(abstract.frozen)}
        targets = ocp.args.Composite(
            inference=ocp.args.StandardRestore(inference),
            training=ocp.args.StandardRestore(abstract.training),
        )
        with readable(self.directory / str(step)):
            check_inference(self.directory / str(step), self._root / str(step) / "inference", structure(inference))
            items = self._manager.restore(step, args=targets)
            totals: dict[str, float] = read_json(self._manager, step)["totals"]
        inference, training = items["inference"], items["training"]
        frozen = read_frozen(inference["frozen"])
        moments = training.get("moments")
        stored = Stored(training["params"], inference["ema_params"], training["opt_state"], frozen, moments)
        return step, stored, totals

    def close(self) -> None:
        """Waits for the running save, then closes the folder.

        Raises:
            Exception: the save failed.
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
        """Removes the unfinished checkpoint: the disk may be full."""
        for _ in range(20):  # other threads of Orbax may still write into it
            folders = self._unfinished()
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            if not folders:
                return
            time.sleep(0.1)

    def _check_place(self) -> None:
        if self._place is not None:
            self._place.check()

    def _finish(self) -> None:
        """Called by Orbax on the first process, when all files are written, before the final rename.

        Raises:
            CheckpointError: the checkpoint cannot be read back, or the folder was moved. It never gets its final name.
        """
        self._check_place()
        fault = None
        for folder in self._unfinished():
            write_manifest(folder)
            fault = fault or find_fault(folder, self._structures)
        if fault:
            steps = stored_steps(self.directory)
            stored = f"the last checkpoint, step {max(steps)}, is valid" if steps else "no checkpoint is stored yet"
            raise CheckpointError(
                f"the checkpoint of step {self._saving} in {self.directory} was written, but cannot be read back: "
                f"{fault}; {stored}: check the disk, then rerun the same command"
            )

    def _unfinished(self) -> list[Path]:
        prefix = f"{self._saving}.orbax-checkpoint-tmp"
        return [path for path in self._root.iterdir() if path.name.startswith(prefix)]


def placed(tree: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
    """Returns `jax.ShapeDtypeStruct`s with the sharding: what Orbax restores into."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
