"""The `ecvae` command: one function per subcommand, each reads its options and calls one function of the package."""

from __future__ import annotations

import contextlib
import difflib
import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ecvae_jax.config import Config
from ecvae_jax.cpu import keep_freed_memory, set_cpu_flags
from ecvae_jax.options import (
    CompareOptions,
    EvaluateOptions,
    ExportOptions,
    FigureOptions,
    InfoOptions,
    MorphOptions,
    PrepareOptions,
    SampleOptions,
    TrainOptions,
    TransferOptions,
)

DEFAULT_WORKDIR = Path("runs/rendered")
_T = TypeVar("_T")


def train(arguments: Sequence[str]) -> int:
    """Runs `ecvae train [CONFIG] [--workdir DIR] [--section.field VALUE ...]` and returns the exit code."""
    from ecvae_jax.experiments import load_config

    config, rest, named = Config(), list(arguments), False
    if rest and not rest[0].startswith("-"):
        config, named = load_config(Path(rest.pop(0))), True
    options = _parse(TrainOptions, "train [CONFIG]", rest, TrainOptions(config=config))
    if options.workdir is None and (named or options.config.data.records != Config().data.records):
        return _wrong_usage("--workdir is required: the folder for checkpoints and logs of this training")
    from ecvae_jax.training.loop import train as run_training

    workdir = options.workdir or DEFAULT_WORKDIR
    outcome = run_training(options.config, workdir)
    if not outcome.finished:
        _say(f"interrupted at step {outcome.step} of {options.config.train.steps}; stored in {workdir}: "
             "the same command goes on from there")
        return 1
    if outcome.images_per_second:
        _say(f"trained to step {outcome.step}, {outcome.images_per_second:.1f} images/s; checkpoint in {workdir}")
    else:
        _say(f"{workdir} is trained to its last step, {outcome.step}, already")
    return 0


def prepare(arguments: Sequence[str]) -> int:
    """Runs `ecvae prepare SOURCE OUT [options]` and returns the exit code."""
    options = _parse(PrepareOptions, "prepare", arguments)
    from ecvae_jax.data.prepare import prepare as run_preparation

    _say(str(run_preparation(options.source, options.out, options.options)))
    return 0


def morph(arguments: Sequence[str]) -> int:
    """Runs `ecvae morph RECORDS OUT --people N` and returns the exit code."""
    options = _parse(MorphOptions, "morph", arguments)
    from ecvae_jax.data.morph import write_morphs

    count = write_morphs(options.records, options.out, options.people, options.seed)
    _say(f"{options.people} new people, {count} faces: {options.out}")
    return 0


def export(arguments: Sequence[str]) -> int:
    """Runs `ecvae export CHECKPOINT OUT` and returns the exit code."""
    options = _parse(ExportOptions, "export", arguments)
    from ecvae_jax.training.checkpoint import export_model

    size = export_model(options.checkpoint, options.out, options.half)
    _say(f"{options.out}: {size / 1e6:.1f} MB")
    return 0


def transfer(arguments: Sequence[str]) -> int:
    """Runs `ecvae transfer --checkpoint C --source IMG... --target IMG... --out grid.png` and returns the exit code."""
    options = _parse(TransferOptions, "transfer", arguments)
    from ecvae_jax.grids import write_transfer_grid

    notes = write_transfer_grid(
        options.checkpoint, options.source, options.target, options.out, options.transport, options.enlarge,
        options.adapt,
    )  # fmt: skip
    _say(*notes)
    return 0


def sample(arguments: Sequence[str]) -> int:
    """Runs `ecvae sample --checkpoint C --structure IMG... --n 8 --out grid.png` and returns the exit code."""
    options = _parse(SampleOptions, "sample", arguments)
    from ecvae_jax.grids import write_sample_grid

    notes = write_sample_grid(
        options.checkpoint, options.structure, options.n, options.seed, options.out, options.enlarge
    )
    _say(*notes)
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """Runs `ecvae evaluate --checkpoint C [--data RECORDS | --pairs SOURCES TARGETS]` and returns the exit code."""
    options = _parse(EvaluateOptions, "evaluate", arguments)
    from ecvae_jax.evaluation.protocol import evaluate_checkpoint

    report = evaluate_checkpoint(
        options.checkpoint, options.data, options.split, options.limit, options.seed, options.transport,
        pairs=options.pairs, source_view=options.source_view, metrics=options.metrics, features=options.features,
        adapt=options.adapt,
    )  # fmt: skip
    print("\n".join(report.to_lines()))
    _say(*report.notes, *report.write(options.out, options.markdown, options.figure, options.save_images))
    return 0


def compare(arguments: Sequence[str]) -> int:
    """Runs `ecvae compare [CONFIG] --workdir DIR [options]` and returns the exit code."""
    from ecvae_jax.experiments import load_config

    config, rest = Config(), list(arguments)
    if rest and not rest[0].startswith("-"):
        config = load_config(Path(rest.pop(0)))
    options = _parse(CompareOptions, "compare [CONFIG]", rest, CompareOptions(config=config))
    if options.workdir is None:
        return _wrong_usage("--workdir is required: the folder for the trainings and the table")
    from ecvae_jax.comparison.compare import compare as run_comparison
    from ecvae_jax.comparison.runs import InterruptedComparisonError
    from ecvae_jax.comparison.verdict import verdict_lines

    names = [name.strip() for name in options.variants.split(",") if name.strip()]
    try:
        results = run_comparison(
            options.config, options.workdir, names, options.seeds, options.limit, options.split, options.metrics
        )
    except InterruptedComparisonError as stop:
        _say(str(stop))
        return 1
    print("\n".join(verdict_lines(results)))
    _say(*results.facts["notes"], f"written: comparison.md, comparison.json, comparison.png in {options.workdir}")
    return 0


def figure(arguments: Sequence[str]) -> int:
    """Runs `ecvae figure 2|3a|3b --checkpoint C --out FILE.png` and returns the exit code."""
    options = _parse(FigureOptions, "figure", arguments)
    from ecvae_jax.figures.draw import write_figure

    _say(write_figure(options.which, options.checkpoint, options.file, options.data, options.split))
    return 0


def info(arguments: Sequence[str]) -> int:
    """Runs `ecvae info PATH` and returns the exit code."""
    options = _parse(InfoOptions, "info", arguments)
    from ecvae_jax.information import describe

    print("\n".join(describe(options.path)))
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "prepare": prepare,
    "morph": morph,
    "train": train,
    "transfer": transfer,
    "sample": sample,
    "evaluate": evaluate,
    "compare": compare,
    "figure": figure,
    "export": export,
    "info": info,
}
_SUMMARIES = {
    "prepare": PrepareOptions, "morph": MorphOptions, "train": TrainOptions, "transfer": TransferOptions,
    "sample": SampleOptions, "evaluate": EvaluateOptions, "compare": CompareOptions, "figure": FigureOptions,
    "export": ExportOptions, "info": InfoOptions,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `ecvae` and returns its exit code: 0 done, 1 failed, 2 wrong usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbose = any(word in ("-v", "--verbose") for word in words)
    words = [word for word in words if word not in ("-v", "--verbose")]
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        from ecvae_jax import __version__

        print(f"ecvae {__version__}")
        return 0
    if words[0] not in COMMANDS:
        close = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(COMMANDS)}"
        return _wrong_usage(f"no command {words[0]!r}; {hint}")
    set_cpu_flags()
    keep_freed_memory()
    try:
        with _stopping_cleanly():
            return COMMANDS[words[0]](words[1:])
    except SystemExit as stop:  # tyro's: 0 after --help, 2 after an option it cannot read
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 1
    except Exception as error:
        if verbose:
            raise
        lines = " ".join(str(error).split()) or type(error).__name__
        expected = isinstance(error, (ValueError, OSError)) or type(error).__module__.startswith("ecvae_jax")
        kind = "" if expected else f"{type(error).__name__}: "
        _say(f"error: {kind}{lines}" + ("" if expected else "  (-v shows where)"))
        return 1


@contextlib.contextmanager
def _stopping_cleanly() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP unwind the program as Ctrl-C does, so that nothing half-written or running stays behind.

    A training catches them itself and stores its state first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parse(kind: type[_T], command: str, arguments: Sequence[str], default: _T | None = None) -> _T:
    """Reads the options of a subcommand; a value that the dataclasses refuse is wrong usage as well."""
    extra: dict[str, Any] = {} if default is None else {"default": default}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, prog=f"ecvae {command}", args=list(arguments), **extra)
    except ValueError as error:
        raise SystemExit(_wrong_usage(str(error))) from None
    except SystemExit as stop:
        if stop.code:  # tyro explains itself in a box of several lines; one is enough
            word = command.split()[0]
            hint = f"see `ecvae {word} --help`"
            if word in ("train", "compare") and any(Path(a).suffix in (".py", ".json") for a in arguments):
                hint = f"CONFIG comes first: ecvae {word} CONFIG --workdir DIR"
            _wrong_usage(f"{_unboxed(said.getvalue())}; {hint}")
        raise


def _unboxed(text: str) -> str:
    """The text inside a box of line-drawing characters, as one line."""
    lines = [line.strip(" │╭╮╰╯─") for line in text.splitlines()]
    return " ".join(line for line in lines[1:] if line and not line.startswith("For full helptext")).rstrip(".")


def _help() -> str:
    lines = ["usage: ecvae COMMAND [options]   (ecvae COMMAND --help tells its options; -v adds tracebacks)", ""]
    lines += [f"  {name:<10} {(kind.__doc__ or '').splitlines()[0]}" for name, kind in _SUMMARIES.items()]
    return "\n".join(lines)


def _wrong_usage(message: str) -> int:
    _say(f"error: {message}")
    return 2


def _say(*lines: str) -> None:
    for line in lines:
        print(f"ecvae: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
