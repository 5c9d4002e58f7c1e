"""`train`: a whole training, from the first batch to the last checkpoint, resumed where it was interrupted."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ecvae_jax.agreement import check_agreement, run_on_every_host
from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.checkpoints.store import Checkpoints, placed
from ecvae_jax.config import Config, DataConfig, Span
from ecvae_jax.data.batches import Faces, load_faces, training_batches
from ecvae_jax.images import save_png
from ecvae_jax.model.conditioning import Frozen, mean_effective_clusters
from ecvae_jax.training.calls import CallSteps, by_step, calls, feed, has_perceptual
from ecvae_jax.training.device_faces import device_images
from ecvae_jax.training.facts import host_facts, record_facts
from ecvae_jax.training.hosts import StopRequest, is_first_host
from ecvae_jax.training.log import Reporter
from ecvae_jax.training.metrics import MetricAverages, SkippedStep, TrainingError
from ecvae_jax.training.monitor import StepMonitor, peak_memory
from ecvae_jax.training.parallel import (
    HostBatch,
    check_batch_size,
    map_step,
    map_steps,
    on_one_device,
    over_hosts,
    replicate,
    replicated_sharding,
)
from ecvae_jax.training.preview import device_views, draw_views, first_examples, save_bad_batch
from ecvae_jax.training.state import TrainState, abstract_state, count_params, init_state, stored_part
from ecvae_jax.training.step import Metrics, make_train_step
from ecvae_jax.training.warm_start import warm_state
from ecvae_jax.training.workdir import lock_workdir


class Outcome(NamedTuple):
    """The result of a training."""

    step: int
    finished: bool
    """False if interrupted; the same command resumes from `step`."""
    metrics: Mapping[str, float]
    """Means since the last log line, or over it."""
    images_per_second: float
    stopped_by: signal.Signals | None = None
    """The signal that interrupted it: Ctrl-C (SIGINT), or SIGTERM, which precedes the preemption of a machine."""
    peak_memory: tuple[float, str] = (0.0, "process")
    """See `monitor.peak_memory`."""


OnStep = Callable[[int, Metrics], None]


def train(
    config: Config,
    workdir: Path,
    profile: Span | None = None,
    allowed: Collection[str] = (),
    on_step: OnStep | None = None,
) -> Outcome:
    """Returns the outcome of a training; writes checkpoints, curves and the trace of `profile` into `workdir`.

    If `workdir` holds a checkpoint of the same experiment, the training resumes from it. The result is bit-identical
    to an uninterrupted run. Ctrl-C and SIGTERM finish the current step, save its state and return. With several hosts
    (`training.hosts`) each calls this function with the same arguments and the same shared `workdir`.

    Args:
        workdir: used by one training at a time.
        profile: the steps to trace; None: none.
        allowed: settings, as section.field, that may differ from the stored ones (`checkpoints.resume.CHANGEABLE`).
        on_step: called with each dispatched step and its metrics; its exceptions end the training.

    Raises:
        DataError: the records cannot be used.
        DisagreementError: the hosts differ in what must be equal (`training.facts`).
        CheckpointError: `workdir` belongs to another experiment, none of its checkpoints is intact, a new one cannot be
            read back, or the folder was moved or deleted meanwhile; or the weights of `train.init_from` do not fit.
        WorkdirError: another training uses `workdir`, or it cannot be written.
        ValueError: the devices cannot share the batch evenly, the first batch cannot initialize the network, or the
            training resumes after the steps of `profile`.
        TrainingError: the loss or gradient of `train.max_skipped` consecutive steps was NaN or infinite.
    """
    check_agreement(host_facts(config, workdir, profile, allowed))
    check_batch_size(config.train.batch_size)
    faces, landmarks = run_on_every_host(lambda: _load(config))
    metadata = {**faces.metadata, "faces": len(faces), "fingerprint": faces.fingerprint}
    check_agreement(record_facts(metadata))
    with (
        lock_workdir(workdir),
        ExitStack() as signals,  # caught until the last save is finished
        closing(Checkpoints(workdir, config, metadata, allowed)) as checkpoints,
    ):
        latest = checkpoints.latest_step
        if latest is not None and latest >= config.train.steps:
            return Outcome(latest, True, {}, 0.0)
        totals = {}
        if latest is not None:
            state, totals = restore_state(checkpoints, config)
        elif config.train.init_from:
            state, line = run_on_every_host(lambda: warm_state(config, load_model(config.train.init_from), faces))
            state = replicate(state)
            checkpoints.notes.append(line)
        else:
            state = replicate(init_state(config, landmarks, device_views(first_examples(config, faces))))
        return _run(config, workdir, faces, checkpoints, state, MetricAverages(totals), profile, on_step, signals)


def _load(config: Config) -> tuple[Faces, np.ndarray]:
    faces = load_faces(config.data.records, "train")
    return faces, faces.landmarks_as(config.data.points)


def restore_state(checkpoints: Checkpoints, config: Config) -> tuple[TrainState, dict[str, float]]:
    """Returns the newest stored state, replicated over the devices, and the totals stored with it.

    Raises:
        CheckpointError: no checkpoint exists, or it cannot be read.
    """
    abstract = placed(stored_part(abstract_state(config)), replicated_sharding())
    step, stored, totals = checkpoints.restore(abstract)
    return TrainState(replicate(jnp.asarray(step, jnp.int32)), *stored), totals


def _run(
    config: Config,
    workdir: Path,
    faces: Faces,
    checkpoints: Checkpoints,
    state: TrainState,
    averages: MetricAverages,
    profile: Span | None,
    on_step: OnStep | None,
    signals: ExitStack,
) -> Outcome:
    """Runs the steps from `state` to the last one, or to an interruption; `averages` are those of `state`."""
    start = int(state.step)
    images = run_on_every_host(lambda: device_images(config, faces))
    train_step, every = make_train_step(config).with_images(images), config.objective.perceptual_every
    # Two programs: XLA runs convolutions inside lax.cond 3 times slower on a CPU (benchmarks/perceptual.py).
    several = config.train.steps_per_call > 1
    mapping = map_steps if several else map_step
    with_perceptual = mapping(train_step, config.train.parallel)
    between = with_perceptual if every == 1 else mapping(train_step.without_perceptual(), config.train.parallel)
    size, host, hosts = config.model.image_size, jax.process_index(), jax.process_count()

    def batches_from(data: DataConfig, step: int) -> Iterator[HostBatch]:
        settings = config.train
        return training_batches(faces, data, size, settings.batch_size, settings.seed, step, host, hosts)

    fed = feed(config, batches_from(config.data, start), calls(config, start, profile))
    first_host = is_first_host()
    stop = StopRequest()
    with (
        Reporter(config.train, workdir, start, writes=first_host) as report,
        StepMonitor(config.train, workdir, start, profile, report.say) as monitor,
    ):
        for line in (*checkpoints.notes, *_first_lines(config, workdir, faces, state)):
            report.say(line)
        examples = first_examples(config, faces) if first_host else {}
        if first_host and not start:
            picture = draw_views(config, on_one_device(state.frozen), examples, None)
            save_png(picture, workdir / "first_batch.png")
            report.image(0, "first_batch", picture)
        recent: list[tuple[CallSteps, Metrics]] = []
        means: Mapping[str, float] = {}
        for number, (call, batch) in enumerate(fed, start + 1):
            step = call.last
            with monitor.step(call.first):
                mapped = with_perceptual if has_perceptual(step, every) else between
                state, metrics = mapped(state, batch, *([len(call)] if several else []))
            if call.first == start + 1:
                # Not before: nothing is lost by then, and the first step compiles longer than a preempted machine runs.
                if jax.process_count() > 1:
                    jax.block_until_ready(metrics)  # the other hosts compile too
                signals.enter_context(stop.catching())
            monitor.dispatched(step, metrics)
            if on_step is not None:
                for each, values in enumerate(by_step([(call, metrics)]), call.first):
                    on_step(each, values)
            recent.append((call, metrics))
            # Read once: a later signal stops after the next call, once the loss of its steps is checked. Calls are
            # counted, not steps: hosts agree on the number of one, and a call must have it.
            stopping = stop.reached(number)
            last = step == config.train.steps
            due = checkpoints.is_due(step) or last or stopping
            logged = step % config.train.log_every == 0 or last
            if logged or due:
                checkpoints.check_place()
                # Before saving: the checkpoints of a diverged training must not replace a good one.
                failed = averages.add(by_step(jax.device_get(recent)), step, config.train.max_skipped)
                if failed is not None:
                    uncached = dataclasses.replace(config.data, cache="off")  # one batch, with pixels
                    batch = next(batches_from(uncached, failed.step - 1))
                    frozen = on_one_device(state.frozen)
                    raise _too_many_skipped(failed, batch, frozen, config, workdir, checkpoints.latest_step)
                recent, means = [], averages.means()
            if logged:
                if means:
                    report.metrics(step, means, monitor.readings())
                if averages.skipped:
                    report.say(f"{averages.skipped} steps since the last line were skipped; {averages.last_skipped}")
                averages = averages.next()
            report.advance(step)
            if first_host and (step % config.train.images_every == 0 or last):
                frozen, params = on_one_device((state.frozen, state.ema_params))
                report.image(step, "prediction", draw_views(config, frozen, examples, params))
            if due:
                checkpoints.save(step, stored_part(over_hosts(state)), averages.totals)
            if stopping:
                break
        seconds = report.seconds
    done = int(state.step)
    finished, speed = done >= config.train.steps, (done - start) * config.train.batch_size / max(seconds, 1e-9)
    stopped_by = None if finished else stop.signal or signal.SIGTERM
    return Outcome(done, finished, means, speed, stopped_by, peak_memory())


def _first_lines(config: Config, workdir: Path, faces: Faces, state: TrainState) -> list[str]:
    """Returns the lines that open the log: what is trained, from which step, on how many devices."""
    start = int(state.step)
    if start:
        return [f"{workdir}: resuming from step {start} of {config.train.steps}"]
    hosts = f" of {jax.process_count()} hosts" if jax.process_count() > 1 else ""
    some = faces.landmarks_as(config.data.points)[:: len(faces) // 1000 + 1]
    counts = mean_effective_clusters(config.architecture, on_one_device(state.frozen), some)
    modes = ", ".join(f"{count:.2f} {mode}" for mode, count in counts.items())
    return [
        f"{len(faces)} faces of {len(set(faces.identities))} identities, {faces.points} landmarks; "
        f"{count_params(state.params):,} parameters; {jax.device_count()} {jax.default_backend()} device(s){hosts}",
        f"{config.clusters.count} structure clusters; effective number per face: {modes} "
        f"(in use: {config.clusters.mode})",
    ]


def _too_many_skipped(
    failed: SkippedStep, batch: HostBatch, frozen: Frozen, config: Config, workdir: Path, latest: int | None
) -> TrainingError:
    """Saves the batch of the failed step; returns the error that names it, and the latest checkpoint."""
    path = save_bad_batch(batch, failed.step, workdir, partial(draw_views, config, frozen, params=None))
    stored = "no checkpoint is stored" if latest is None else f"the last checkpoint, step {latest}, is valid"
    return TrainingError(
        f"{failed}; {config.train.max_skipped} consecutive steps were skipped (train.max_skipped); {stored}; "
        f"the batch is in {path}: inspect it, or lower optim.learning_rate or optim.clip_norm"
    )
