"""The points of a training's curves: `metrics.jsonl` and TensorBoard's files.

A training that was killed had told steps behind its last checkpoint. They are taken and told again when it goes on:
what was told of them the first time is dropped, so that the curves are those of a training that was never disturbed.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ecvae_jax.data.host_tf import load_tensorflow
from ecvae_jax.pictures import write_aside

METRICS = "metrics.jsonl"
"""Name of the file of metrics inside a working directory: a JSON object a line, with `step` and every metric's mean."""


class Curves:
    """Writes the points of a training that goes on from `start_step`."""

    def __init__(self, workdir: Path, start_step: int) -> None:
        """Opens the files of `workdir`, and drops the points behind `start_step`."""
        self._tf = load_tensorflow()
        folder = workdir / "tensorboard"
        _drop_events(self._tf, folder, start_step)
        self._writer: Any = self._tf.summary.create_file_writer(str(folder))
        _drop_lines(workdir / METRICS, start_step)
        self._lines = (workdir / METRICS).open("a")

    def point(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one point of each curve; a value that is no finite number is null in the lines."""
        with self._writer.as_default(step):
            for name, value in values.items():
                self._tf.summary.scalar(name, value)
        self._writer.flush()
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **plain}, allow_nan=False) + "\n")
        self._lines.flush()

    def image(self, step: int, name: str, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes a picture to TensorBoard."""
        with self._writer.as_default(step):
            self._tf.summary.image(name, picture[None])

    def close(self) -> None:
        """Writes out what is still held."""
        self._writer.close()
        self._lines.close()


def _drop_lines(path: Path, start_step: int) -> None:
    """Keeps the whole lines up to `start_step`."""
    if not path.exists():
        return
    text = path.read_bytes()
    kept = b"".join(line for line in text.splitlines(keepends=True) if _is_kept(line, start_step))
    if kept != text:
        write_aside(path, lambda file: file.write(kept))


def _is_kept(line: bytes, start_step: int) -> bool:
    """A line without its end was being written when the training was killed: its step may be another's beginning."""
    try:
        return line.endswith(b"\n") and json.loads(line)["step"] <= start_step
    except (ValueError, TypeError, KeyError):
        return False


def _drop_events(tf: Any, folder: Path, start_step: int) -> None:
    """Tells TensorBoard that the events behind `start_step` are void.

    It knows a restart by a session's START event, which tf.summary does not write; without it the old points and the
    new ones would be drawn as one zigzag.
    """
    files = sorted(folder.glob("*tfevents*"))
    if not files:
        return
    event, session = tf.compat.v1.Event, tf.compat.v1.SessionLog
    version = event(wall_time=time.time(), file_version="brain.Event:2")
    void = event(wall_time=time.time(), step=start_step + 1, session_log=session(status=session.START))
    # TensorBoard reads files in the order of their names, which begin with the second they were made in: this one
    # comes right behind the last.
    with tf.io.TFRecordWriter(f"{files[-1]}.restart") as writer:
        for each in (version, void, void):  # the first START that it ever reads is none to TensorBoard, so twice
            writer.write(each.SerializeToString())
