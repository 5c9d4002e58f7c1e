"""How costs grow with the work: the training step, the preparation and the input pipeline, with fitted exponents.

    python -m benchmarks.growth [--config configs/demo.py] [--plot growth.png] [--only batch files]

A cost that grows as size^p has exponent p: 1 is linear, 0 is free. "overall" is the least-squares slope of the
logarithms over all sizes. "last" is that of the two largest sizes, where fixed costs weigh least. Times are medians of
CPU times; rounds run through all sizes of an axis. "memory" is what the compiled step holds at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ecvae_jax.cli.runtime import keep_freed_memory, set_platform_flags

set_platform_flags()
keep_freed_memory()

import jax
import numpy as np
from PIL import Image

from benchmarks.costs import cpu_seconds
from ecvae_jax.bench.workloads import Training, at_size, random_batch
from ecvae_jax.config import Config, load_config
from ecvae_jax.data.batches import training_batches
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare

SIDE = 128
"""Pixels of the photos that are prepared: rendered heads."""


class Curve(NamedTuple):
    """One cost of one axis by its size."""

    axis: str
    cost: str
    sizes: list[int]
    values: list[float]

    @property
    def exponents(self) -> tuple[float, float]:
        """The slope over all sizes and over the two largest ones, both of logarithms."""
        x, y = np.log(self.sizes), np.log(self.values)
        return float(np.polyfit(x, y, 1)[0]), float((y[-1] - y[-2]) / (x[-1] - x[-2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.py"))
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--resolution", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--clusters", type=int, nargs="+", default=[16, 32, 128, 512])
    parser.add_argument("--z-dim", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--files", type=int, nargs="+", default=[250, 500, 1000, 2000])
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 2, 4, 8], help="of the rendered heads, as data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="some of: batch resolution clusters z_dim files copies")
    parser.add_argument("--plot", type=Path, help="PNG to write (needs matplotlib)")
    options = parser.parse_args()
    config, sizes, rounds = load_config(options.config), vars(options), options.rounds
    axes: dict[str, Callable[[], list[Curve]]] = {
        axis: lambda axis=axis: step_curves(axis, sizes[axis], config, rounds)
        for axis in ("batch", "resolution", "clusters", "z_dim")
    }
    axes |= {"files": lambda: preparation_curves(options.files), "copies": lambda: input_curves(options.copies, rounds)}
    curves: list[Curve] = []
    for axis in options.only or axes:
        for curve in axes[axis]():
            curves.append(curve)
            points = ", ".join(f"{size}: {value:.4g}" for size, value in zip(curve.sizes, curve.values, strict=True))
            overall, last = curve.exponents
            print(f"{curve.axis}, {curve.cost}: {points}; exponent {overall:.2f} overall, {last:.2f} last", flush=True)
    if options.plot is not None:
        plot(curves, options.plot)


def changed(config: Config, axis: str, size: int) -> Config:
    """Returns the experiment with another size of one axis."""
    if axis == "resolution":
        return at_size(config, size)
    section, name = {"batch": ("train", "batch_size"), "clusters": ("clusters", "count"), "z_dim": ("model", "z_dim")}[
        axis
    ]
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{name: size})})


def step_curves(axis: str, sizes: list[int], config: Config, rounds: int) -> list[Curve]:
    """Returns CPU time and memory of a training step."""
    trainings = []
    for size in sizes:
        each = changed(config, axis, size)
        batch = random_batch(each)
        trainings.append((Training(each, batch), batch))
    seconds: list[list[float]] = [[] for _ in sizes]
    for number in range(rounds + 1):
        for (training, batch), found in zip(trainings, seconds, strict=True):
            begin = time.process_time()
            jax.block_until_ready(training.run(batch))
            if number:  # the first one warms up
                found.append(time.process_time() - begin)
    memory = [(training.figures.memory or 0) / 2**20 for training, _ in trainings]
    medians = [1e3 * statistics.median(found) for found in seconds]
    return [Curve(axis, "step, ms", sizes, medians), Curve(axis, "memory, MiB", sizes, memory)]


def preparation_curves(counts: list[int]) -> list[Curve]:
    """Returns the cost of a preparation with given landmarks: no detector hides the growth of the rest.

    Elapsed time contains the worker's, whose CPU time is not counted.
    """
    faces, seconds, elapsed = load_faces("rendered", "train"), [], []
    for number, count in enumerate([counts[0], *counts]):
        with tempfile.TemporaryDirectory() as folder:
            write_photos(faces, Path(folder) / "photos", count)
            begin, start = cpu_seconds(), time.perf_counter()
            with contextlib.redirect_stderr(io.StringIO()):
                summary = prepare(f"{folder}/photos", Path(folder) / "records", PrepareConfig(size=64, workers=1))
            if number:  # the first one warms up
                seconds.append(cpu_seconds() - begin)
                elapsed.append(time.perf_counter() - start)
            assert summary.kept == count, f"{summary.kept} of {count} kept"
    return [Curve("files", "preparation, CPU s", counts, seconds), Curve("files", "elapsed, s", counts, elapsed)]


def write_photos(faces: object, folder: Path, count: int) -> None:
    """Writes rendered heads with their landmarks as a file."""
    folder.mkdir()
    rows = np.arange(count) * 7 % len(faces)  # type: ignore[arg-type]
    lines = ["image," + ",".join(f"x{i},y{i}" for i in range(68))]
    for number, (pixels, face) in enumerate(
        zip(faces.images(rows, SIDE), SIDE * faces.landmarks_as(68)[rows], strict=True)  # type: ignore[attr-defined]
    ):
        Image.fromarray(pixels).save(folder / f"{number:06d}.jpg", quality=90)
        lines.append(f"{number:06d}.jpg," + ",".join(f"{value:.2f}" for value in face.reshape(-1)))
    (folder / "landmarks68.csv").write_text("\n".join(lines) + "\n")


def input_curves(copies: list[int], rounds: int) -> list[Curve]:
    """Returns CPU time to open records and of a batch after it, by the number of faces."""
    config, opening, reading, counts = Config(), [], [], []
    for number in copies:
        begin = time.process_time()
        faces = load_faces("+".join(["rendered"] * number), "train")
        opening.append(time.process_time() - begin)
        counts.append(len(faces))
        data = dataclasses.replace(config.data, cache="off")
        batches = training_batches(faces, data, config.model.image_size, 16, 0)
        for _ in range(4):
            next(batches)
        found = []
        for _ in range(rounds):
            begin = time.process_time()
            for _ in range(8):
                next(batches)
            found.append((time.process_time() - begin) / 8)
        reading.append(1e3 * statistics.median(found))
    return [Curve("faces", "open, s", counts, opening), Curve("faces", "batch of 16, ms", counts, reading)]


def plot(curves: list[Curve], path: Path) -> None:
    """Writes one panel an axis, both scales logarithmic, each curve relative to its first value."""
    from matplotlib import pyplot as plt

    axes = list(dict.fromkeys(curve.axis for curve in curves))
    rows = -(-len(axes) // 3)
    figure, panels = plt.subplots(rows, min(3, len(axes)), figsize=(9, 2.7 * rows), squeeze=False, layout="constrained")
    for panel in panels.flat[len(axes) :]:
        panel.set_visible(False)
    for panel, axis in zip(panels.flat, axes, strict=False):
        for curve in (curve for curve in curves if curve.axis == axis):
            relative = np.array(curve.values) / curve.values[0]
            panel.loglog(curve.sizes, relative, "o-", label=f"{curve.cost}: {curve.exponents[1]:.2f}")
        ends = np.array([curve.sizes[0], curve.sizes[-1]])
        panel.loglog(ends, ends / ends[0], ":", color="gray", label="linear")
        panel.set_xlabel(axis)
        panel.set_xticks(curve.sizes, labels=map(str, curve.sizes))
        panel.minorticks_off()
        panel.legend(fontsize=7, title="last exponent", title_fontsize=7)
    panels[0, 0].set_ylabel("relative to the smallest")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
