"""The subcommands of a trained model: transfer, sample, evaluate, figure, export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ecvae_jax.cli.options.evaluate import EvaluateOptions
from ecvae_jax.cli.options.kinds import STDOUT
from ecvae_jax.cli.options.model import ExportOptions, FigureOptions, SampleOptions, TransferOptions
from ecvae_jax.cli.parsing import say
from ecvae_jax.cli.results import show
from ecvae_jax.video.options import is_video


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


def figure(options: FigureOptions, words: Sequence[str]) -> int:
    """Runs `ecvae figure 2|3a|3b|model --out FILE.png`."""
    from ecvae_jax.figures.write import write_figure

    say(write_figure(options.which, options.checkpoint, options.file, options.data, options.split))
    return 0


def export(options: ExportOptions, words: Sequence[str]) -> int:
    """Runs `ecvae export [CHECKPOINT] OUT --format FORMAT`."""
    from ecvae_jax.checkpoints.load import load_model
    from ecvae_jax.export.formats import EXPORT, write_export
    from ecvae_jax.export.small import export_model
    from ecvae_jax.synthesis.density import density_of

    EXPORT.check_replaceable(options.out, options.overwrite)
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
