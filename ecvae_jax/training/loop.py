"""A training from first batch to last checkpoint: `train`."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ecvae_jax.checkpoints.store import Checkpoints, placed
from ecvae_jax.config import Config, Span
from ecvae_jax.data.batches import Faces, load_faces, training_batches
from ecvae_jax.images import save_png
from ecvae_jax.model.conditioning import mean_effective_clusters
from ecvae_jax.training.hosts import StopRequest, is_first_host
from ecvae_jax.training.log import Reporter
from ecvae_jax.training.metrics import SkippedStep, TrainingError, Window
from ecvae_jax.training.monitor import Watch, peak_memory
from ecvae_jax.training.parallel import (
    check_batch_size,
    map_step,
    on_one_device,
    over_hosts,
    replicate,
    replicated_sharding,
)
from ecvae_jax.training.preview import device_views, draw_views, first_examples, save_bad_batch
from ecvae_jax.training.state import TrainState, abstract_state, count_params, init_state, stored_part
from ecvae_jax.training.step import Metrics, make_train_step
from ecvae_jax.training.workdir import lock_workdir


class Outcome(NamedTuple):
    """How a training ended."""

    step: int
    finished: bool
    """False where it was interrupted; the same command goes on from `step`."""
    metrics: Mapping[str, float]
    """Means since the last line of the log, or over it."""
    images_per_second: float
    stopped_by: signal.Signals | None = None
    """The signal that interrupted it: Ctrl-C (SIGINT), or SIGTERM, with which a machine is taken away."""
    peak_memory: tuple[float, str] = (0.0, "process")
    """See `training.memory.peak_memory`."""


OnStep = Callable[[int, Metrics], None]


def train(
    config: Config,
    workdir: Path,
    profile: Span | None = None,
    allowed: Collection[str] = (),
    on_step: OnStep | None = None,
) -> Outcome:
    """Returns how the training ended, its checkpoints, curves and (of the steps `profile`) trace left in `workdir`.

    Where `workdir` holds a checkpoint of the same experiment, the training goes on from it, bit for bit as if it had
    not stopped. Ctrl-C and SIGTERM store the state after the running step and return. With several hosts
    (`training.hosts`) each runs this function with the same arguments, and sees the same folder `workdir`.

    Args:
        config: the experiment.
        workdir: folder for all that is left; one training at a time.
        profile: steps of which a trace is written.
        on_step: called with each step and its metrics after the step was dispatched; what it raises ends the training.
        allowed: settings, as section.field, that may differ from those stored in `workdir` (`continuation.CHANGEABLE`).

    Raises:
        DataError: the records cannot be used.
        CheckpointError: `workdir` belongs to another experiment, or none of its checkpoints is whole.
        WorkdirError: another training is at work in `workdir`, or it cannot be written.
        ValueError: batch size and devices do not fit, the first batch cannot initialize the network, or the steps of
            `profile` are done already.
        TrainingError: `train.max_skipped` steps in a row had a term of the loss, or a gradient, that is not finite.
    """
    check_batch_size(config.train.batch_size)
    faces = load_faces(config.data.records, "train")
    landmarks = faces.landmarks_as(config.data.points)
    facts = {**faces.metadata, "faces": len(faces), "fingerprint": faces.fingerprint}
    with lock_workdir(workdir), closing(Checkpoints(workdir, config, facts, allowed)) as checkpoints:
        latest = checkpoints.latest_step
        if latest is not None and latest >= config.train.steps:
            return Outcome(latest, True, {}, 0.0)
        if latest is not None:
            state, totals = restore_state(checkpoints, config)
            return _run(config, workdir, faces, checkpoints, state, Window(totals), profile, on_step)
        state = init_state(config, landmarks, device_views(first_examples(config, faces)))
        return _run(config, workdir, faces, checkpoints, replicate(state), Window({}), profile, on_step)


def _run(
    config: Config,
    workdir: Path,
    faces: Faces,
    checkpoints: Checkpoints,
    state: TrainState,
    window: Window,
    profile: Span | None,
    on_step: OnStep | None,
) -> Outcome:
    """Takes the steps from `state` to the end, or to an interruption; `window` goes on from the last checkpoint's."""
    start = int(state.step)
    step_over_devices = map_step(make_train_step(config), config.train.parallel)
    batches_from = partial(
        training_batches, faces, config.data, config.model.image_size, config.train.batch_size, config.train.seed,
        process_index=jax.process_index(), process_count=jax.process_count(),
    )  # fmt: skip
    batches = batches_from(start)
    first_host = is_first_host()
    stop = StopRequest()
    with (
        Reporter(config.train, workdir, start, writes=first_host) as report,
        stop.catching(),
        Watch(config.train, workdir, start, profile, report.say) as watch,
    ):
        for note in checkpoints.notes:
            report.say(note)
        if start:
            report.say(f"{workdir}: going on from step {start} of {config.train.steps}")
        else:
            report.say(
                f"{len(faces)} faces of {len(set(faces.identities))} identities, {faces.points} landmarks; "
                f"{count_params(state.params):,} parameters; {jax.device_count()} {jax.default_backend()} device(s)"
                + (f" of {jax.process_count()} hosts" if jax.process_count() > 1 else "")
            )
            few = faces.landmarks_as(config.data.points)[:: len(faces) // 1000 + 1]
            counts = mean_effective_clusters(config.architecture, on_one_device(state.frozen), few)
            report.say(
                f"{config.clusters.count} structure clusters; effective number in a face: "
                + ", ".join(f"{count:.2f} {mode}" for mode, count in counts.items())
                + f" ({config.clusters.mode} is used)"
            )
        watched = first_examples(config, faces) if first_host else {}
        if first_host and not start:
            picture = draw_views(config, on_one_device(state.frozen), watched, None)
            save_png(picture, workdir / "first_batch.png")
            report.image(0, "first_batch", picture)
        recent: list[Metrics] = []
        means: Mapping[str, float] = {}
        for step in range(start + 1, config.train.steps + 1):
            with watch.step(step):
                state, metrics = step_over_devices(state, next(batches))
            watch.dispatched(step, metrics)
            if on_step is not None:
                on_step(step, metrics)
            recent.append(metrics)
            # Read once: a signal that comes later belongs to the next step, whose loss is then looked at first.
            stopping = stop.reached(step)
            last = step == config.train.steps
            due = checkpoints.is_due(step) or last or stopping
            logged = step % config.train.log_every == 0 or last
            if logged or due:
                # Before anything is stored: a training that goes nowhere must not push a good state off the disk.
                failed = window.add(jax.device_get(recent), step, config.train.max_skipped)
                if failed is not None:
                    draw = partial(draw_views, config, on_one_device(state.frozen), params=None)
                    batch = save_bad_batch(next(batches_from(failed.step - 1)), failed.step, workdir, draw)
                    raise _too_many_skipped(failed, batch, config, checkpoints)
                recent, means = [], window.means()
            if logged:
                if means:
                    report.metrics(step, means, watch.readings())
                if window.skipped:
                    report.say(f"{window.skipped} steps since the last line were skipped; {window.last_skipped}")
                window = window.next()
            report.advance(step)
            if first_host and (step % config.train.images_every == 0 or last):
                frozen, params = on_one_device((state.frozen, state.ema_params))
                report.image(step, "prediction", draw_views(config, frozen, watched, params))
            if due:
                checkpoints.save(step, stored_part(over_hosts(state)), window.totals)
            if stopping:
                break
        seconds = report.seconds
    done = int(state.step)
    finished, speed = done >= config.train.steps, (done - start) * config.train.batch_size / max(seconds, 1e-9)
    stopped_by = None if finished else stop.signal or signal.SIGTERM
    return Outcome(done, finished, means, speed, stopped_by, peak_memory())


def restore_state(checkpoints: Checkpoints, config: Config) -> tuple[TrainState, dict[str, float]]:
    """Returns the newest stored state, on every device, and the totals stored with it.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be read.
    """
    abstract = placed(stored_part(abstract_state(config)), replicated_sharding())
    step, stored, totals = checkpoints.restore(abstract)
    return TrainState(replicate(jnp.asarray(step, jnp.int32)), *stored), totals


def _too_many_skipped(failed: SkippedStep, batch: Path, config: Config, checkpoints: Checkpoints) -> TrainingError:
    latest = checkpoints.latest_step
    stored = "no checkpoint was stored" if latest is None else f"the last checkpoint, of step {latest}, is good"
    return TrainingError(
        f"{failed}; it is the last of {config.train.max_skipped} steps in a row that were skipped "
        f"(train.max_skipped); {stored}; the batch is in {batch}: look at it, or lower optim.learning_rate or "
        "optim.clip_norm"
    )
