"""The `ecvae` command: one function per subcommand, each reads its options and calls one function of the package."""

from __future__ import annotations

import contextlib
import difflib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from ecvae_jax.config import Config
from ecvae_jax.data.options import PrepareConfig
from ecvae_jax.xla_flags import set_cpu_flags

DEFAULT_WORKDIR = Path("runs/rendered")
_T = TypeVar("_T")


def _check_picture(out: Path, enlarge: int) -> None:
    if out.suffix.lower() != ".png":
        raise ValueError(f"out={str(out)!r}: the name must end in .png")
    if enlarge < 1:
        raise ValueError(f"enlarge={enlarge}: must be at least 1")


@dataclass(frozen=True)
class TrainOptions:
    """Trains a model; the same command goes on where an interrupted training stopped."""

    workdir: Path | None = None
    """Folder for checkpoints, TensorBoard files and first_batch.png; runs/rendered for the embedded default."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


@dataclass(frozen=True)
class PrepareOptions:
    """Makes records and report.csv from photos: every file is accounted for."""

    source: Annotated[str, tyro.conf.Positional]
    """A folder of photos, or multipie:DIR."""
    out: Annotated[Path, tyro.conf.Positional]
    """Folder to be written."""
    options: Annotated[PrepareConfig, tyro.conf.arg(name="")] = field(default_factory=PrepareConfig)


@dataclass(frozen=True)
class TransferOptions:
    """Draws every source's appearance under every target's structure, as one PNG."""

    checkpoint: Path
    """Working directory of a training, or one step's folder in its `checkpoints`."""
    source: tuple[str, ...]
    """Appearances: photos, or faces of records as RECORDS:SPLIT:INDICES (rendered:test:0,24)."""
    target: tuple[str, ...]
    """Structures, given like the sources."""
    out: Path = Path("transfer.png")
    """PNG to be written: targets and their sketches above, sources with their sketches at the left."""
    transport: bool = True
    """Move z along from the prior of the source's structure to that of the target's."""
    enlarge: int = 1
    """Repeat every pixel so many times, for looking at small faces."""

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn or written, before anything is loaded."""
        _check_picture(self.out, self.enlarge)


@dataclass(frozen=True)
class SampleOptions:
    """Draws appearances from the prior under given structures, as one PNG."""

    checkpoint: Path
    """Working directory of a training, or one step's folder in its `checkpoints`."""
    structure: tuple[str, ...]
    """Structures: photos, or faces of records as RECORDS:SPLIT:INDICES."""
    n: int = 8
    """Samples per structure."""
    seed: int = 0
    """Seed of the draws."""
    out: Path = Path("sample.png")
    """PNG to be written: a structure a row, its sketch first."""
    enlarge: int = 1
    """Repeat every pixel so many times, for looking at small faces."""

    def __post_init__(self) -> None:
        """Refuses what cannot be drawn or written, before anything is loaded."""
        _check_picture(self.out, self.enlarge)
        if self.n < 1:
            raise ValueError(f"n={self.n}: must be at least 1")


@dataclass(frozen=True)
class EvaluateOptions:
    """Measures reconstruction, and transfer to true images of the same person beside copying the source."""

    checkpoint: Path
    """Working directory of a training, or one step's folder in its `checkpoints`."""
    data: str = "rendered"
    """Records folder, or "rendered"."""
    split: str = "test"
    """Split of the records; its people should not have been trained on."""
    limit: int = 500
    """At most so many pairs."""
    seed: int = 0
    """Seed of the choice of pairs."""
    transport: bool = True
    """Move z along between priors."""
    out: Path | None = None
    """JSON report to be written as well."""


@dataclass(frozen=True)
class InfoOptions:
    """Tells what a checkpoint or a records folder holds."""

    path: Annotated[Path, tyro.conf.Positional]
    """Working directory of a training, one step's folder in its `checkpoints`, or a records folder."""


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


def transfer(arguments: Sequence[str]) -> int:
    """Runs `ecvae transfer --checkpoint C --source IMG... --target IMG... --out grid.png` and returns the exit code."""
    options = _parse(TransferOptions, "transfer", arguments)
    from ecvae_jax.grids import write_transfer_grid

    notes = write_transfer_grid(
        options.checkpoint, options.source, options.target, options.out, options.transport, options.enlarge
    )
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
    """Runs `ecvae evaluate --checkpoint C --data RECORDS --out report.json` and returns the exit code."""
    options = _parse(EvaluateOptions, "evaluate", arguments)
    from ecvae_jax.evaluation.protocol import evaluate_checkpoint

    report = evaluate_checkpoint(
        options.checkpoint, options.data, options.split, options.limit, options.seed, options.transport
    )
    print("\n".join(report.to_lines()))
    if options.out is not None:
        report.save(options.out)
    return 0


def info(arguments: Sequence[str]) -> int:
    """Runs `ecvae info PATH` and returns the exit code."""
    options = _parse(InfoOptions, "info", arguments)
    from ecvae_jax.information import describe

    print("\n".join(describe(options.path)))
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "prepare": prepare,
    "train": train,
    "transfer": transfer,
    "sample": sample,
    "evaluate": evaluate,
    "info": info,
}
_SUMMARIES = {
    "prepare": PrepareOptions, "train": TrainOptions, "transfer": TransferOptions, "sample": SampleOptions,
    "evaluate": EvaluateOptions, "info": InfoOptions,
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
    try:
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
            _wrong_usage(_unboxed(said.getvalue()) + f"; see `ecvae {command.split()[0]} --help`")
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
