"""Orbax checkpoints: what is stored, when, and how it is read back.

A checkpoint has three items: `config` (JSON: the experiment with its landmark scheme, facts about the records, the sums
of the metrics since the last line of the log),
`inference` (averaged parameters and the frozen part: all that synthesis reads) and `training` (parameters and optimiser
state).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers as policies

from ecvae_jax.config import Config
from ecvae_jax.model.conditioning import Frozen
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.training.parallel import replicate, replicated_sharding
from ecvae_jax.training.state import TrainState, abstract_state

FOLDER = "checkpoints"
"""Name of the folder of checkpoints inside a working directory."""

PRETRAINED = Path(__file__).parents[1] / "pretrained"
"""The model that is shipped with the package: `ecvae export` of what configs/shipped.py trains."""

_FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that is not there, cannot be read, or belongs to another experiment."""


class Model(NamedTuple):
    """What synthesis and evaluation need of a checkpoint."""

    config: Config
    params: PyTree
    """The moving average of the parameters."""
    frozen: Frozen
    step: int
    """Training steps taken."""
    records: dict[str, Any]
    """Facts about the records it was trained on, such as the crop's margin: `Faces.metadata`."""


class Checkpoints:
    """The checkpoints of one working directory, written in the background while training goes on."""

    def __init__(self, workdir: Path, config: Config, records: Mapping[str, Any]) -> None:
        """Opens (and makes) the folder `workdir/checkpoints`; `records` are facts to be stored with the model.

        Raises:
            CheckpointError: it holds checkpoints of another experiment.
        """
        self._config, self._records = config, dict(records)
        self.directory = (workdir / FOLDER).absolute()
        options = ocp.CheckpointManagerOptions(
            save_decision_policy=policies.AnySavePolicy([
                policies.PreemptionCheckpointingPolicy(),
                policies.FixedIntervalPolicy(config.train.checkpoint_every),
            ]),
            preservation_policy=policies.LatestN(config.train.keep_checkpoints),
            cleanup_tmp_directories=True,
        )
        with _quiet():
            self._manager = ocp.CheckpointManager(self.directory, options=options, item_names=_ITEMS)
        latest = self.latest_step
        if latest is not None:
            stored, stored_records = _read_config(self._manager, latest, self.directory)
            _check_same_experiment(config, stored, workdir)
            _check_same_records(self._records, stored_records, workdir)

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
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            config=ocp.args.JsonSave({**_facts(self._config, self._records), "totals": dict(totals)}),
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
        abstract = _abstract_state(self._config, replicated_sharding())
        targets = ocp.args.Composite(
            inference=ocp.args.StandardRestore({"ema_params": abstract.ema_params, "frozen": abstract.frozen}),
            training=ocp.args.StandardRestore({"params": abstract.params, "opt_state": abstract.opt_state}),
        )
        with _readable(self.directory / str(step)):
            items = self._manager.restore(step, args=targets)
            totals: dict[str, float] = _read_json(self._manager, step)["totals"]
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
        """Waits for the writing that is under way, then lets go of the folder."""
        self._manager.wait_until_finished()
        self._manager.close()


_ITEMS = ("config", "inference", "training")


def load_model(checkpoint: Path | None = None) -> Model:
    """Returns the inference part of a checkpoint; the optimiser's state is not read.

    Args:
        checkpoint: a working directory, its folder `checkpoints`, or one step's folder in that; none: the model that is
            shipped (`PRETRAINED`).

    Raises:
        CheckpointError: there is no complete checkpoint, or it cannot be read.
    """
    root, step = _find(PRETRAINED if checkpoint is None else checkpoint)
    with _quiet():
        options = ocp.CheckpointManagerOptions(read_only=True)
        manager = ocp.CheckpointManager(root, options=options, item_names=_ITEMS)
    with manager:
        config, records = _read_config(manager, step, root)
        abstract = _abstract_state(config, jax.sharding.SingleDeviceSharding(jax.local_devices()[0]))
        target = ocp.args.StandardRestore({"ema_params": abstract.ema_params, "frozen": abstract.frozen})
        with _readable(root / str(step)):
            items = manager.restore(step, args=ocp.args.Composite(inference=target))
    inference = items["inference"]
    return Model(config, inference["ema_params"], inference["frozen"], step, records)


def export_model(checkpoint: Path, out: Path, half: bool = True) -> int:
    """Writes the inference part of a checkpoint as a checkpoint of its own, whole or not at all; returns its bytes.

    Of the records' folders only the names are kept: where they lay is nobody's business.

    Args:
        checkpoint: see `load_model`.
        out: folder to be made.
        half: store the parameters as float16; what `load_model` reads is float32 again.

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
        with _quiet(), ocp.CheckpointManager(Path(work).absolute() / "c", item_names=_ITEMS[:2]) as manager:
            manager.save(model.step, args=ocp.args.Composite(
                config=ocp.args.JsonSave(_facts(config, model.records)),
                inference=ocp.args.StandardSave({"ema_params": params, "frozen": model.frozen}),
            ))  # fmt: skip
            manager.wait_until_finished()
        for mark in Path(work).rglob("commit_success.txt"):
            mark.write_text("complete\n")  # Orbax writes where on this machine it was; that the file is there counts
        (Path(work) / "c").rename(out)
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())


def _facts(config: Config, records: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of itself, as JSON."""
    return {"format": _FORMAT, "config": json.loads(config.to_json()), "records": dict(records),
            "scheme": _scheme(config)}  # fmt: skip


def _find(checkpoint: Path) -> tuple[Path, int]:
    """The folder of checkpoints and the step meant."""
    path = Path(checkpoint).absolute()
    if not path.is_dir():
        raise CheckpointError(f"checkpoint {str(checkpoint)!r}: no such folder; give the --workdir of a training")
    if path.name.isdigit() and (path / "inference").is_dir():
        return path.parent, int(path.name)
    root = path / FOLDER if (path / FOLDER).is_dir() else path
    steps = [int(step.name) for step in root.iterdir() if step.name.isdigit() and (step / "inference").is_dir()]
    if not steps:
        raise CheckpointError(
            f"checkpoint {str(checkpoint)!r}: no complete checkpoint in it; give the --workdir of a training"
        )
    return root, max(steps)


def _read_config(manager: ocp.CheckpointManager, step: int, root: Path) -> tuple[Config, dict[str, Any]]:
    with _readable(root / str(step)):
        stored = _read_json(manager, step)
        if stored["format"] != _FORMAT:
            raise ValueError(f"its format is {stored['format']} and this version reads {_FORMAT}")
        config = Config.from_json(json.dumps(stored["config"]))
        if stored["scheme"] != _scheme(config):
            raise ValueError("its landmark scheme has other boundaries than this version of ecvae_jax draws")
        return config, stored["records"]


def _read_json(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    return manager.restore(step, args=ocp.args.Composite(config=ocp.args.JsonRestore()))["config"]


def _scheme(config: Config) -> dict[str, Any]:
    """The landmark scheme as JSON: other boundaries would draw sketches that the network was not trained on."""
    return json.loads(json.dumps(dataclasses.asdict(get_scheme(config.data.points))))


def _check_same_experiment(wanted: Config, stored: Config, workdir: Path) -> None:
    """A training is continued only as what it began; what cannot change its result may be set anew."""
    free = {"data.cache", "train.log_every", "train.images_every", "train.checkpoint_every", "train.keep_checkpoints",
            "train.parallel", "train.hang_after", "train.hang_exit"}  # fmt: skip
    wanted_sections, stored_sections = (json.loads(config.to_json()) for config in (wanted, stored))
    for section, fields in wanted_sections.items():
        for name, value in fields.items():
            other = stored_sections[section][name]
            if value != other and f"{section}.{name}" not in free:
                raise CheckpointError(
                    f"{workdir} holds a training with {section}.{name}={other!r} and this one has {value!r}: "
                    "a training is continued with the same settings; take them, or another --workdir"
                )


def _check_same_records(wanted: Mapping[str, Any], stored: Mapping[str, Any], workdir: Path) -> None:
    """Clusters and initialisation came from the faces that the training began with: it is not continued on others."""
    for name in ("faces", "fingerprint"):
        if name in wanted and name in stored and wanted[name] != stored[name]:
            raise CheckpointError(
                f"{workdir} holds a training on other faces ({name} {stored[name]}, the records now have "
                f"{wanted[name]}): give the records that it began with, or another --workdir"
            )


def _abstract_state(config: Config, sharding: jax.sharding.Sharding) -> TrainState:
    """Shapes and types of the state and where it is to lie: what Orbax restores into."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract_state(config)
    )


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Orbax and TensorStore raise many kinds; the user needs the folder and one line
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"checkpoint {folder} cannot be read: {lines[0]}; delete that folder to go back to the one before"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Orbax tells each start of a manager at warning level."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
