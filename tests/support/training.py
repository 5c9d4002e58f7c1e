"""Trainings in tests: changed settings, interruptions, and what a training leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest

from ecvae_jax.checkpoints.store import Checkpoints
from ecvae_jax.config import Config
from ecvae_jax.training import loop
from ecvae_jax.training.loop import restore_state


def assert_same(first: Any, second: Any) -> None:
    """Raises where two trees differ in structure, type or a single bit of a leaf."""
    chex.assert_trees_all_equal(jax.device_get(first), jax.device_get(second), strict=True)


def assert_close(first: Any, second: Any) -> None:
    """Raises where two trees differ by more than rounding in another order of sums."""
    chex.assert_trees_all_close(jax.device_get(first), jax.device_get(second), rtol=1e-3, atol=2e-4)


def with_train(config: Config, **settings: Any) -> Config:
    """Returns the experiment with some fields of its section `train` replaced."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **settings))


def restored(config: Config, workdir: Path) -> Any:
    """Returns the latest stored `TrainState` in host memory."""
    checkpoints = Checkpoints(workdir, config, {})
    try:
        return jax.device_get(restore_state(checkpoints, config)[0])
    finally:
        checkpoints.close()


def before_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Has `act` called before the step of that number, counted from the start of a `train`, is dispatched."""
    map_step = loop.map_step

    def mapping(step, kind):
        mapped, calls = map_step(step, kind), []

        def call(*arguments):
            calls.append(1)
            if len(calls) == number:
                act()
            return mapped(*arguments)

        return call

    monkeypatch.setattr(loop, "map_step", mapping)


def at_step(number: int, act: Callable[[], object]) -> Callable[[int, Any], None]:
    """Returns an `on_step` of `train` that calls `act` after step `number` was dispatched."""

    def on_step(step: int, metrics: Any) -> None:
        if step == number:
            act()

    return on_step


def scalars(workdir: Path) -> dict[str, dict[int, float]]:
    """Returns every TensorBoard scalar of a training, by name and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, TensorEvent
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(workdir / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    found: dict[str, dict[int, float]] = {}
    for name in events.Tags()["tensors"]:
        points: list[TensorEvent] = events.Tensors(name)
        if points[0].tensor_proto.dtype == 1:
            found[name] = {p.step: float(make_ndarray(p.tensor_proto)) for p in points}
    return found


MEASURED = {"images_per_second", "seconds", "compile_seconds", "peak_memory_gib"}
"""Curves of clock and memory, which differ from run to run."""


def assert_same_curves(first: Path, second: Path) -> None:
    """Raises where two trainings differ in a point of a curve, or in a name of one."""
    ours, theirs = ({name: curve for name, curve in scalars(folder).items() if name not in MEASURED}
                    for folder in (first, second))  # fmt: skip
    np.testing.assert_equal(ours, theirs)
