"""The curves of a killed and resumed training: every point once, as without the kill."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from ecvae_jax.training.log import METRICS, Curves


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / METRICS).read_text().splitlines()]


def steps_in_tensorboard(workdir: Path, name: str) -> list[int]:
    """What TensorBoard's own server draws (but its faster reader, which goes by the steps alone)."""
    events = EventAccumulator(str(workdir / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    return [point.step for point in events.Tensors(name)]


def write(workdir: Path, start: int, steps: tuple[int, ...], value: float = 1.0) -> None:
    curves = Curves(workdir, start)
    for step in steps:
        curves.point(step, {"loss": value})
        curves.image(step, "prediction", np.zeros((4, 4, 3), np.uint8))
    curves.close()


def write_again(workdir: Path, start: int, steps: tuple[int, ...], value: float = 1.0) -> None:
    """As another process would, that is in a later second: TensorBoard orders files by it, and within one by a number
    that has as many digits as it has ("10" before "9")."""
    last = max(int(path.name.split(".")[3]) for path in (workdir / "tensorboard").iterdir())
    while int(time.time()) <= last:
        time.sleep(0.02)
    write(workdir, start, steps, value)


def test_points_behind_the_checkpoint_are_dropped_from_both(tmp_path: Path) -> None:
    write(tmp_path, 0, (2, 4, 6, 8))
    write_again(tmp_path, 5, (6, 8, 10), value=2.0)
    assert lines(tmp_path) == [{"step": s, "loss": v} for s, v in ((2, 1.0), (4, 1.0), (6, 2.0), (8, 2.0), (10, 2.0))]
    for name in ("loss", "prediction"):
        assert steps_in_tensorboard(tmp_path, name) == [2, 4, 6, 8, 10]


@pytest.mark.slow  # four trainings
def test_the_point_at_the_checkpoint_is_kept_however_often_it_is_killed(tmp_path: Path) -> None:
    write(tmp_path, 0, (2, 4, 6))
    for _ in range(3):
        write_again(tmp_path, 4, (6, 8))
    write_again(tmp_path, 8, (10,))
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 6, 8, 10]
    assert steps_in_tensorboard(tmp_path, "loss") == [2, 4, 6, 8, 10]


def test_a_training_without_a_checkpoint_restarts_its_curves(tmp_path: Path) -> None:
    write(tmp_path, 0, (2, 4))
    write_again(tmp_path, 0, (2,), value=3.0)
    assert lines(tmp_path) == [{"step": 2, "loss": 3.0}]
    assert steps_in_tensorboard(tmp_path, "loss") == [2]


@pytest.mark.parametrize("torn", ['{"step": 4, "lo', '{"step": 4', '{"step": 4}', "\x00\x00\x00", "4\n", "[]\n"])
def test_a_line_that_was_not_finished_is_taken_away(tmp_path: Path, torn: str) -> None:
    write(tmp_path, 0, (2,))
    with (tmp_path / METRICS).open("a") as file:
        file.write(torn)
    write(tmp_path, 4, (6,))
    assert [line["step"] for line in lines(tmp_path)] == [2, 6]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_null(tmp_path: Path, value: float) -> None:
    write(tmp_path, 0, (2,), value)
    assert lines(tmp_path) == [{"step": 2, "loss": None}]
