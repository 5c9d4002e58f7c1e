"""The log of a training: progress on the terminal, curves in metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ecvae_jax.config import TrainConfig
from ecvae_jax.data.host_tf import load_tensorflow
from ecvae_jax.files import write_atomically
from ecvae_jax.progress import duration, progress_bar
from ecvae_jax.training.workdir import open_regular

METRICS = "metrics.jsonl"
"""File of a working directory: one JSON object a log line, with `step` and the mean of every metric."""


class Reporter:
    """Progress on standard error (a bar on a terminal, else lines), and `Curves` in the working directory."""

    def __init__(self, config: TrainConfig, workdir: Path, start_step: int, writes: bool = True) -> None:
        """Opens the files, and a bar on a terminal; with `writes=False` every method does nothing."""
        self._config = config
        self._began = time.monotonic()
        self._last = (start_step, self._began)
        self._bar: Any = None
        self._task: Any = None
        self._curves = Curves(workdir, start_step) if writes else None
        if writes and sys.stderr.isatty():
            self._bar = progress_bar()
            self._task = self._bar.add_task("training", total=config.steps, completed=start_step, note="")

    def __enter__(self) -> Reporter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._curves is not None:
            self._curves.close()

    def advance(self, step: int) -> None:
        """Moves the bar to `step`."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def say(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        elif self._curves is not None:
            print(line, file=sys.stderr, flush=True)

    def metrics(self, step: int, values: Mapping[str, float], readings: Mapping[str, float]) -> None:
        """Writes the mean metrics since the last call, their images per second, and other `readings`.

        The printed line also has the remaining time.
        """
        if self._curves is None:
            return
        now = time.monotonic()
        steps, seconds = step - self._last[0], now - self._last[1]
        self._last = (step, now)
        speed = steps * self._config.batch_size / max(seconds, 1e-9)
        left = (self._config.steps - step) * self._config.batch_size / speed if speed else float("inf")
        self._curves.point(step, {**values, "images_per_second": speed, "seconds": seconds, **readings})
        ssim = f"ssim {values['ssim']:.3f}  " if "ssim" in values else ""
        perceptual = f"lpips {values['perceptual']:.3f}  " if "perceptual" in values else ""
        line = (
            f"step {step}/{self._config.steps}  loss {values['loss']:.1f}  recon_nll {values['recon_nll']:.1f}  "
            f"kl {values['kl']:.1f}  {ssim}{perceptual}clusters {values['effective_clusters']:.1f}  "
            f"{speed:.1f} images/s"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note=line.split("  ", 1)[1])
        else:
            print(f"{line}  {duration(left)} left", file=sys.stderr, flush=True)

    def image(self, step: int, name: str, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes a picture to TensorBoard."""
        if self._curves is not None:
            self._curves.image(step, name, picture)

    @property
    def seconds(self) -> float:
        """Seconds since the reporter was created."""
        return time.monotonic() - self._began


class Curves:
    """Writer of the metrics of a training that starts after `start_step`."""

    def __init__(self, workdir: Path, start_step: int) -> None:
        """Opens the files of `workdir`, and drops the points after `start_step`.

        Raises:
            WorkdirError: the file of the curves is a link or no regular file.
        """
        os.close(open_regular(workdir / METRICS, os.O_WRONLY))
        self._tf = load_tensorflow()
        folder = workdir / "tensorboard"
        _drop_events(self._tf, folder, start_step)
        self._writer: Any = self._tf.summary.create_file_writer(str(folder))
        _drop_lines(workdir / METRICS, start_step)
        self._lines = os.fdopen(open_regular(workdir / METRICS, os.O_WRONLY | os.O_APPEND), "a")

    def point(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one point of each curve; a NaN or infinite value becomes null in `METRICS`."""
        with self._writer.as_default(step):
            for name, value in values.items():
                self._tf.summary.scalar(name, value)
        self._writer.flush()
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **finite}, allow_nan=False) + "\n")
        self._lines.flush()

    def image(self, step: int, name: str, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes a picture to TensorBoard."""
        with self._writer.as_default(step):
            self._tf.summary.image(name, picture[None])

    def close(self) -> None:
        """Flushes and closes the files."""
        self._writer.close()
        self._lines.close()


def _drop_lines(path: Path, start_step: int) -> None:
    """Keeps the complete lines up to `start_step`."""
    if not path.exists():
        return
    text = path.read_bytes()
    kept = b"".join(line for line in text.splitlines(keepends=True) if _is_kept(line, start_step))
    if kept != text:
        write_atomically(path, lambda file: file.write(kept))


def _is_kept(line: bytes, start_step: int) -> bool:
    """Returns False for a line without its end too: a kill may have truncated its step number."""
    try:
        return line.endswith(b"\n") and json.loads(line)["step"] <= start_step
    except (ValueError, TypeError, KeyError):
        return False


def _drop_events(tf: Any, folder: Path, start_step: int) -> None:
    """Marks the events after `start_step` as void for TensorBoard.

    TensorBoard detects a restart by the START event of a session, which tf.summary does not write. Without it the old
    and the new points form one zigzag.
    """
    files = sorted(folder.glob("*tfevents*"))
    if not files:
        return
    event, session = tf.compat.v1.Event, tf.compat.v1.SessionLog
    version = event(wall_time=time.time(), file_version="brain.Event:2")
    restart = event(wall_time=time.time(), step=start_step + 1, session_log=session(status=session.START))
    # TensorBoard reads files in the order of their names, which begin with the second of their creation: this name
    # sorts directly after the last file.
    with tf.io.TFRecordWriter(f"{files[-1]}.restart") as writer:
        for record in (version, restart, restart):  # TensorBoard ignores the first START that it reads, so write two
            writer.write(record.SerializeToString())
