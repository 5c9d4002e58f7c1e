"""The subcommands of faces and experiments: prepare, morph, train, compare, plan, bench."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from ecvae_jax.cli.options.experiment import (
    BenchOptions,
    CompareOptions,
    MorphOptions,
    PlanOptions,
    PrepareOptions,
    TrainOptions,
)
from ecvae_jax.cli.options.kinds import check_json
from ecvae_jax.cli.parsing import names_config, say, verbose_flag, wrong_usage
from ecvae_jax.cli.results import show
from ecvae_jax.config import RENDERED, Config
from ecvae_jax.training.supervisor import ALONE, TRY_AGAIN, is_supervised, supervise

DEFAULT_WORKDIR = Path("runs/rendered")


def prepare(options: PrepareOptions, words: Sequence[str]) -> int:
    """Runs `ecvae prepare SOURCE OUT`."""
    from ecvae_jax.data.prepare.prepare import prepare as run_preparation

    summary = run_preparation(options.source, options.out, options.options)
    say(str(summary))
    if options.json is not None:
        show(lambda: [], summary.to_dict, options.json)
    return 0


def morph(options: MorphOptions, words: Sequence[str]) -> int:
    """Runs `ecvae morph RECORDS OUT --people N`."""
    from ecvae_jax.data.morph import write_morphs

    count = write_morphs(options.records, options.out, options.people, options.seed)
    say(f"{options.people} new people, {count} faces: {options.out}")
    return 0


def train(options: TrainOptions, words: Sequence[str]) -> int:
    """Runs `ecvae train [CONFIG] --workdir DIR`; on several hosts, in a supervised process."""
    if options.workdir is None and (names_config(words) or options.config.data.records != Config().data.records):
        return wrong_usage("--workdir is required: the folder for the checkpoints and logs of this training")
    workdir = options.workdir or DEFAULT_WORKDIR
    if options.hosts != ALONE and not is_supervised():
        code, from_within = supervise(["train", *words, *verbose_flag()])
        return _lost_host(workdir) if from_within else code
    from ecvae_jax.training.hosts import is_lost_host, join_hosts, sync_hosts
    from ecvae_jax.training.loop import train as run_training

    try:
        join_hosts(options.hosts)
        outcome = run_training(options.config, workdir, options.span(), options.allowed())
        sync_hosts()
    except Exception as error:
        if not is_lost_host(error):
            raise
        # JAX's exit would wait for the lost host, and its threads would write below the message.
        _exit_now(_lost_host(workdir))
    except (SystemExit, KeyboardInterrupt) as stop:  # a signal before the first step
        if options.hosts == ALONE:
            raise
        # JAX's exit would wait for the other hosts, which do not end yet.
        _exit_now(stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 1)
    if not outcome.finished:
        say(
            f"interrupted at step {outcome.step} of {options.config.train.steps}; the state is stored in {workdir}: "
            "run the same command again to resume"
        )
        return 1 if outcome.stopped_by == signal.SIGINT else TRY_AGAIN
    if outcome.images_per_second:
        gib, owner = outcome.peak_memory
        say(
            f"trained to step {outcome.step}, {outcome.images_per_second:.1f} images/s, peak memory of the {owner} "
            f"{gib:.2f} GiB; checkpoint in {workdir}"
        )
    else:
        say(f"the training in {workdir} has already reached its last step, {outcome.step}")
    return 0


def _exit_now(code: int) -> NoReturn:
    """Ends the process without its exit handlers."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _lost_host(workdir: Path) -> int:
    say(
        "error: another host of this training was lost, so this one stops; "
        f"the last checkpoint in {workdir} is valid: run the same command again on every host to resume"
    )
    return TRY_AGAIN


def compare(options: CompareOptions, words: Sequence[str]) -> int:
    """Runs `ecvae compare [CONFIG] --workdir DIR`."""
    if options.workdir is None:
        return wrong_usage("--workdir is required: the folder for the trainings and the table")
    from ecvae_jax.comparison.results import to_dict
    from ecvae_jax.comparison.runs import InterruptedComparisonError
    from ecvae_jax.comparison.runs import compare as run_comparison
    from ecvae_jax.comparison.verdict import verdict_lines

    names = [name.strip() for name in options.variants.split(",") if name.strip()]
    try:
        results = run_comparison(
            options.config, options.workdir, names, options.seeds, options.limit, options.split, options.metrics
        )
    except InterruptedComparisonError as stop:
        say(str(stop))
        return 1 if stop.stopped_by == signal.SIGINT else TRY_AGAIN
    show(lambda: verdict_lines(results), lambda: to_dict(results), options.json)
    say(*results.facts["notes"], f"written: comparison.md, comparison.json, comparison.png in {options.workdir}")
    return 0


def plan(options: PlanOptions, words: Sequence[str]) -> int:
    """Runs `ecvae plan [CONFIG] --topology v5e:4x4`."""
    if options.topology is None:
        return wrong_usage("--topology is required: GENERATION:SHAPE, such as v5e:4x4")
    from ecvae_jax.plan.chips import Topology, use_compiler_only

    if names_config(words):
        check_json(options.json, words[:1])
    topology = Topology.parse(options.topology)
    use_compiler_only(topology.chip)
    from ecvae_jax.plan.planning import make_plan, to_json, to_lines

    made = make_plan(
        options.config, topology, options.what, options.batch_per_chip, options.largest_batch, options.efficiency
    )
    show(lambda: to_lines(made), lambda: to_json(made), options.json)
    return 0


def bench(options: BenchOptions, words: Sequence[str]) -> int:
    """Runs `ecvae bench [CONFIG] --sizes 64 128`."""
    if names_config(words):
        check_json(options.json, words[:1])
    config = options.config
    if options.checkpoint is not None:
        if names_config(words):
            return wrong_usage("--checkpoint stands for CONFIG; give one of them")
        from ecvae_jax.checkpoints.load import load_model

        stored = load_model(options.checkpoint).config
        config = replace(stored, data=replace(stored.data, records=RENDERED))
    from ecvae_jax.bench.report import measure, to_json, to_lines

    report = measure(config, options.sizes, options.rounds, options.seconds, options.start)
    show(lambda: to_lines(report), lambda: to_json(report), options.json)
    return 0
