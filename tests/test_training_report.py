"""What a training reports: lines without a terminal, a bar with one, TensorBoard scalars and pictures."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ecvae_jax.config import TrainConfig
from ecvae_jax.training.log import Reporter

VALUES = {"loss": 12.5, "recon_nll": 10.0, "kl": 2.5, "ssim": 0.5, "effective_clusters": 3.0}


def report_ten_steps(workdir: Path, start: int = 0) -> None:
    config = TrainConfig(steps=100, batch_size=4)
    with Reporter(config, workdir, start) as report:
        report.say("a line")
        report.advance(start + 10)
        report.metrics(start + 10, VALUES, {"peak_memory_gib": 1.5})
        report.image(start + 10, "prediction", np.zeros((4, 4, 3), np.uint8))


def test_lines_show_speed_and_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_ten_steps(tmp_path, start=50)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "a line"
    assert second.startswith("step 60/100  loss 12.5  recon_nll 10.0  kl 2.5  ssim 0.500  clusters 3.0  ")
    assert re.search(r"\d+\.\d images/s  \d+:\d\d left$", second)


def test_tensorboard_holds_scalars_and_pictures(tmp_path: Path) -> None:
    report_ten_steps(tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {*VALUES, "images_per_second", "peak_memory_gib", "prediction"} <= set(events.Tags()["tensors"])
    assert [point.step for point in events.Tensors("prediction")] == [10]


def test_a_terminal_gets_a_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    report_ten_steps(tmp_path)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "a line" in shown
    assert "training" in shown
    assert "10/100" in shown
    assert "loss 12.5" in shown


def test_a_silent_reporter_prints_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every process but the first has a silent reporter."""
    with Reporter(TrainConfig(steps=100, batch_size=4), tmp_path, 0, writes=False) as report:
        report.say("a line")
        report.advance(10)
        report.metrics(10, VALUES, {})
        report.image(10, "prediction", np.zeros((4, 4, 3), np.uint8))
        assert report.seconds > 0
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")
