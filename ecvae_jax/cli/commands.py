"""The subcommands of `ecvae`: each takes its options and calls one function of the package.

To add one: a dataclass of options in `cli.options`, a function here, and one entry of `COMMANDS`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ecvae_jax.cli.options.completion import CompletionOptions
from ecvae_jax.cli.options.experiment import (
    BenchOptions,
    CompareOptions,
    MorphOptions,
    PlanOptions,
    PrepareOptions,
    TrainOptions,
)
from ecvae_jax.cli.options.kinds import STDOUT, check_json
from ecvae_jax.cli.options.model import (
    EvaluateOptions,
    ExportOptions,
    FigureOptions,
    InfoOptions,
    SampleOptions,
    TransferOptions,
)
from ecvae_jax.cli.options.page import PageOptions
from ecvae_jax.cli.options.serve import ServeOptions
from ecvae_jax.cli.parsing import names_config, say, verbose_flag, wrong_usage
from ecvae_jax.cli.results import show
from ecvae_jax.config import RENDERED, Config
from ecvae_jax.training.supervisor import ALONE, TRY_AGAIN, is_supervised, supervise
from ecvae_jax.video.options import is_video

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
        return _lost_host(workdir)
    except (SystemExit, KeyboardInterrupt) as stop:  # a signal before the first step
        if options.hosts == ALONE:
            raise
        sys.stderr.flush()  # JAX's exit would wait for the other hosts, which do not end yet
        os._exit(stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 1)
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


def _lost_host(workdir: Path) -> int:
    say(
        "error: another host of this training was lost, so this one stops; "
        f"the last checkpoint in {workdir} is valid: run the same command again on every host to resume"
    )
    return TRY_AGAIN


def transfer(options: TransferOptions, words: Sequence[str]) -> int:
    """Runs `ecvae transfer --source IMG... --target IMG...|VIDEO --out FILE`, or `--replay FILE.json`."""
    if options.replay is not None:
        from ecvae_jax.page.replay import write_replay

        photo = Path(options.source[0]) if options.source else None
        say(*write_replay(options.checkpoint, options.replay, photo, options.out, options.enlarge))
        return 0
    if is_video(options.out):
        from ecvae_jax.video.transfer import write_transfer_video

        driver = Path(options.target[0]) if options.target else None
        place = options.checkpoint, options.source[0], driver, options.out
        say(*write_transfer_video(*place, options.video, options.transport, options.adapt, options.enlarge))
        return 0
    from ecvae_jax.synthesis.grids import write_transfer_grid

    o = options
    say(*write_transfer_grid(o.checkpoint, o.source, o.target, o.out, o.transport, o.enlarge, o.adapt))
    return 0


def sample(options: SampleOptions, words: Sequence[str]) -> int:
    """Runs `ecvae sample --structure IMG... --n 8 --out FILE.png`."""
    from ecvae_jax.synthesis.grids import write_sample_grid

    o = options
    drawn_as = (o.source, o.data, o.temperature)
    say(*write_sample_grid(o.checkpoint, o.structure, o.n, o.seed, o.out, o.enlarge, *drawn_as))
    return 0


def evaluate(options: EvaluateOptions, words: Sequence[str]) -> int:
    """Runs `ecvae evaluate [--data RECORDS | --pairs SOURCES TARGETS | --video VIDEO DRIVER]`."""
    if options.video is not None:
        return _evaluate_video(*options.video, options.out)
    from ecvae_jax.evaluation.protocol import evaluate_checkpoint

    o = options
    named = {"pairs": o.pairs, "source_view": o.source_view, "metrics": o.metrics, "features": o.features}
    report = evaluate_checkpoint(o.checkpoint, o.data, o.split, o.limit, o.seed, o.transport, adapt=o.adapt, **named)
    # Files first: standard output may be closed or full.
    printed = options.out == STDOUT
    written = report.write(None if printed else options.out, options.markdown, options.figure, options.save_images)
    show(report.to_lines, report.to_dict, STDOUT if printed else None)
    say(*report.notes, *written)
    return 0


def _evaluate_video(video: Path, driver: Path, out: Path | None) -> int:
    from ecvae_jax.video.measure import measure_video

    report = measure_video(video, driver)
    show(report.to_lines, report.to_dict, out)
    say(*report.notes)
    return 0


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


def figure(options: FigureOptions, words: Sequence[str]) -> int:
    """Runs `ecvae figure 2|3a|3b|model --out FILE.png`."""
    from ecvae_jax.figures.write import write_figure

    say(write_figure(options.which, options.checkpoint, options.file, options.data, options.split))
    return 0


def export(options: ExportOptions, words: Sequence[str]) -> int:
    """Runs `ecvae export [CHECKPOINT] OUT --format FORMAT`."""
    from ecvae_jax.checkpoints.load import load_model
    from ecvae_jax.export.formats import check_replaceable, write_export
    from ecvae_jax.export.small import export_model
    from ecvae_jax.synthesis.density import density_of

    check_replaceable(options.out, options.overwrite)
    density, notes = None, []
    if options.density:
        density, note = density_of(load_model(options.checkpoint), options.data, options.density, refit=True)
        notes.append(note)
    if options.format == "small":
        size = export_model(options.checkpoint, options.out, options.half, density)
    else:
        model = load_model(options.checkpoint)
        model = model if density is None else replace(model, density=density)
        size = write_export(model, options.out, options.format, options.half, options.overwrite)
    say(*notes, f"{options.out}: {size / 1e6:.1f} MB")
    return 0


def serve(options: ServeOptions, words: Sequence[str]) -> int:
    """Runs `ecvae serve [FOLDER]` until Ctrl-C or SIGTERM."""
    try:
        from ecvae_jax.serve.serving import serve as run_server

        run_server(
            options.folder,
            options.checkpoint,
            options.host,
            options.port,
            options.compute,
            ready=lambda url: print(url, flush=True),
            say=say,
        )
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in ("starlette", "uvicorn", "h11", "pydantic"):
            raise
        say(f"error: {package} is not installed: pip install 'ecvae-jax[serve]'")
        return 1
    return 0


def page(options: PageOptions, words: Sequence[str]) -> int:
    """Runs `ecvae page OUT`."""
    from ecvae_jax.checkpoints.load import load_model
    from ecvae_jax.page.build import check_page_replaceable, write_page

    check_page_replaceable(options.out, options.overwrite)
    model = load_model(options.checkpoint or "face128")
    size = write_page(model, options.out, options.half, options.overwrite)
    say(f"{options.out}: {size / 1e6:.1f} MB; show it with `ecvae serve {options.out}`")
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


def info(options: InfoOptions, words: Sequence[str]) -> int:
    """Runs `ecvae info PATH`."""
    from ecvae_jax.cli.info import describe, facts_of

    show(lambda: describe(options.path), lambda: facts_of(options.path), options.json)
    return 0


def completion(options: CompletionOptions, words: Sequence[str]) -> int:
    """Runs `ecvae completion bash|zsh|fish`."""
    from ecvae_jax.cli.completion import completion as script

    print(script(options.shell, {name: command.options for name, command in COMMANDS.items()}), end="")
    return 0


FACES, TRAINING, MODEL, OTHERS = "faces", "training", "a trained model", "this command"
"""Groups of commands in `ecvae --help`, in this order."""


@dataclass(frozen=True)
class Command:
    """One subcommand."""

    options: type
    """Dataclass of its options; the first line of its docstring is the summary."""
    run: Callable[[Any, Sequence[str]], int]
    """Takes the options, and the arguments as typed; returns the exit code."""
    compiles: bool = True
    """Whether it compiles programs, so that the compilation cache pays."""
    group: str = MODEL
    """Its group in `ecvae --help`."""

    @property
    def summary(self) -> str:
        """One line about the subcommand."""
        return (self.options.__doc__ or "").splitlines()[0]


COMMANDS = {
    "prepare": Command(PrepareOptions, prepare, compiles=False, group=FACES),
    "morph": Command(MorphOptions, morph, compiles=False, group=FACES),
    "train": Command(TrainOptions, train, group=TRAINING),
    "transfer": Command(TransferOptions, transfer),
    "sample": Command(SampleOptions, sample),
    "evaluate": Command(EvaluateOptions, evaluate),
    "compare": Command(CompareOptions, compare, group=TRAINING),
    "figure": Command(FigureOptions, figure),
    "export": Command(ExportOptions, export, compiles=False),
    "page": Command(PageOptions, page, compiles=False),
    "serve": Command(ServeOptions, serve),
    "plan": Command(PlanOptions, plan, group=TRAINING),
    "bench": Command(BenchOptions, bench, group=TRAINING),
    "info": Command(InfoOptions, info, compiles=False, group=OTHERS),
    "completion": Command(CompletionOptions, completion, compiles=False, group=OTHERS),
}
