"""`measure`: all timings of a configuration, as a report with a table and JSON of the same numbers."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from ecvae_jax.bench.start import Start, measure_start
from ecvae_jax.bench.timing import Spread, alternate, products
from ecvae_jax.bench.workloads import at_size, workloads
from ecvae_jax.config import Config
from ecvae_jax.data.batches import load_faces
from ecvae_jax.training.monitor import peak_memory
from ecvae_jax.training.parallel import check_batch_size

TITLES = {
    "step": "training step",
    "step_fed": "training step, with input",
    "input": "input pipeline",
    "encode": "encode",
    "decode": "decode",
    "transfer": "transfer",
    "sketch": "sketch",
    "kl": "prior and KL",
}
_MIB = 2**20


@dataclass(frozen=True)
class Row:
    """One kind of work at one size."""

    images_per_second: Spread
    peak_share: float | None
    """FLOPs of the compiled program over time and measured product peak of one device; None: not computed."""
    gflop_per_image: float | None
    memory_mib: float | None
    """What the compiled program holds at once on one device."""
    compile_seconds: float | None


@dataclass(frozen=True)
class Size:
    """All work at one image size."""

    rows: dict[str, Row]
    input_stall_percent: Spread
    """Share of a fed step's time that the same step with its batch at hand does not take; at least 0."""
    skipped: bool
    """Whether a loss or gradient was not finite: the step then leaves out the optimizer."""
    cold: Start | None
    cached: Start | None


@dataclass(frozen=True)
class Report:
    """Speed of a configuration on this machine."""

    device: str
    devices: int
    cores: int
    load: float
    """Mean number of running processes in the last minute, at the start."""
    jax_version: str
    dtype: str
    batch_size: int
    rounds: int
    peaks_gflops: dict[str, float]
    """Best round of a square matrix product on one device, by type, GFLOP/s."""
    peak_memory_gib: float
    memory_owner: str
    sizes: dict[int, Size]


def measure(
    config: Config,
    sizes: Sequence[int] = (),
    rounds: int = 5,
    seconds: float = 0.5,
    start: bool = True,
    peak_side: int | None = None,
) -> Report:
    """Returns the speed of training, synthesis and input at each size, in alternating rounds.

    Parameters are random, faces those of `data.records`; the batch is `train.batch_size`.

    Args:
        sizes: pixels; empty: that of the experiment.
        rounds: at least 1.
        seconds: least duration of one measurement.
        start: also measure the start-up of a process, twice per size.
        peak_side: side of the matrices of the product peak; None: by device.

    Raises:
        DataError: the records cannot be used.
        RuntimeError: the process that measures the start-up failed.
        ValueError: the network has no such size, or the devices cannot share the batch evenly.
    """
    load = os.getloadavg()[0]
    experiments = {size: at_size(config, size) for size in sizes or (config.model.image_size,)}
    # First: a process that holds a TPU, or most of a GPU's memory, leaves none to its children.
    starts = {size: measure_start(each) for size, each in experiments.items()} if start else {}
    check_batch_size(config.train.batch_size)
    faces = load_faces(config.data.records, "train")
    best: dict[str, float] = {}
    measured = {}
    for size, experiment in experiments.items():
        peak = products(peak_side)
        works, training = workloads(experiment, faces)
        calls = {name: work.call for name, work in works.items()} | {name: call for name, (_, call) in peak.items()}
        times = alternate(calls, rounds, seconds)
        for name, (flops, _) in peak.items():
            best[name] = max(best.get(name, 0.0), flops / min(times[name]))
        measured[size] = works, times, bool(jax.device_get(training.metrics["skipped"]))
    reached = best.get(config.model.dtype, best["float32"])
    found, batch_size = {}, config.train.batch_size
    for size, (works, times, skipped) in measured.items():
        rows = {}
        for name, work in works.items():
            speeds = Spread.of([batch_size / each for each in times[name]])
            seconds_of = Spread.of(times[name]).median
            # The step's FLOPs are those of one device; the programs of synthesis run on one.
            images = batch_size / (jax.device_count() if name == "step" else 1)
            rows[name] = Row(
                speeds,
                None if work.flops is None else work.flops / seconds_of / reached,
                None if work.flops is None else work.flops / images / 1e9,
                None if work.memory is None else work.memory / _MIB,
                work.compile_seconds,
            )
        pairs = zip(times["step_fed"], times["step"], strict=True)
        stall = Spread.of([100.0 * max(0.0, 1.0 - alone / fed) for fed, alone in pairs])
        cold, cached = starts.get(size, (None, None))
        found[size] = Size(rows, stall, skipped, cold, cached)
    gib, owner = peak_memory()
    device = jax.devices()[0]
    return Report(
        device.device_kind,
        jax.device_count(),
        os.cpu_count() or 1,
        load,
        jax.__version__,
        config.model.dtype,
        batch_size,
        rounds,
        {name: flops / 1e9 for name, flops in best.items()},
        gib,
        owner,
        found,
    )


def to_lines(report: Report) -> list[str]:
    """Returns the report as lines of text."""
    peaks = ", ".join(f"{value:,.0f} GFLOP/s {name}" for name, value in report.peaks_gflops.items())
    lines = [
        f"{report.devices} × {report.device}, {report.cores} cores, load {report.load:.1f}; jax {report.jax_version}; "
        f"{report.dtype}, batch {report.batch_size}; medians of {report.rounds} alternating rounds",
        f"product peak of one device: {peaks}; peak memory of the {report.memory_owner} "
        f"{report.peak_memory_gib:.2f} GiB",
        f"{'px':>3}  {'work':<26}{'images/s':>10}  {'lowest to highest':>21}{'of peak':>9}{'GFLOP':>8}"
        f"{'MiB':>9}{'compile s':>11}",
    ]
    for size, found in report.sizes.items():
        for name, row in found.rows.items():
            speed = row.images_per_second
            share = "–" if row.peak_share is None else f"{row.peak_share:.1%}"
            lines.append(
                f"{size:>3}  {TITLES[name]:<26}{_number(speed.median):>10}  "
                f"{_number(speed.low) + ' to ' + _number(speed.high):>21}{share:>9}"
                f"{_number(row.gflop_per_image):>8}{_number(row.memory_mib):>9}{_number(row.compile_seconds):>11}"
            )
        stall = found.input_stall_percent
        lines.append(f"{size:>3}  input stall {stall.median:.1f}% ({stall.low:.1f} to {stall.high:.1f})")
        if found.cold and found.cached:
            for name, one in (("empty compile cache", found.cold), ("filled compile cache", found.cached)):
                lines.append(
                    f"{size:>3}  start-up, {name}: first step after {one.first_step:.1f} s, of which compile "
                    f"{one.compile:.1f} s; process {one.process:.1f} s"
                )
        if found.skipped:
            lines.append(f"{size:>3}  the last step was skipped (loss or gradient not finite): its time is too short")
    return lines


def to_json(report: Report) -> dict[str, Any]:
    """Returns the report as a JSON object."""
    sizes = {}
    for size, found in report.sizes.items():
        rows = {
            name: {**dataclasses.asdict(row), "images_per_second": row.images_per_second._asdict()}
            for name, row in found.rows.items()
        }
        starts = {
            name: one._asdict() if one else None for name, one in (("cold", found.cold), ("cached", found.cached))
        }
        stall = found.input_stall_percent._asdict()
        sizes[str(size)] = {"rows": rows, "input_stall_percent": stall, "skipped": found.skipped, "start": starts}
    flat = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
    return {**flat, "sizes": sizes}


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
