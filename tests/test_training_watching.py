"""The observers of a training: watchdog, trace, compile clock, memory."""

from __future__ import annotations

import gzip
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from support.processes import Forked
from support.training import MEASURED, before_step, with_train

from ecvae_jax.cli.main import main
from ecvae_jax.config import Config, Span, TrainConfig
from ecvae_jax.training import watchdog as watchdog_module
from ecvae_jax.training.log import METRICS
from ecvae_jax.training.loop import train
from ecvae_jax.training.watchdog import Watchdog


def points(workdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (workdir / METRICS).read_text().splitlines()]


class KilledError(BaseException):
    """Ends a training as abruptly as possible inside a process."""


@pytest.mark.slow  # three trainings; their states are compared in test_training_loop.py
def test_metrics_of_a_killed_and_resumed_training_are_those_of_an_uninterrupted_one(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_train(tiny_config, log_every=2)
    train(config, tmp_path / "whole")

    def kill() -> None:
        raise KilledError

    before_step(monkeypatch, 10, kill)
    with pytest.raises(KilledError):
        train(config, tmp_path / "broken")
    assert [point["step"] for point in points(tmp_path / "broken")] == [2, 4, 6, 8]
    monkeypatch.undo()
    train(config, tmp_path / "broken")  # from the checkpoint of step 5: steps 6 and 8 are repeated
    whole, broken = points(tmp_path / "whole"), points(tmp_path / "broken")
    assert [point["step"] for point in whole] == [2, 4, 6, 8, 10]
    assert set(whole[0]) > MEASURED
    for each in (*whole, *broken):
        for name in MEASURED:
            assert each.pop(name) >= 0
    assert whole == broken


def test_a_step_that_hangs_is_reported_once_with_all_stacks_and_the_training_continues(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reports: list[list[Path]] = []

    def wait_in_vain() -> None:
        while not list(tmp_path.glob("hang-*.txt")):
            time.sleep(0.01)
        time.sleep(2.5)  # longer than a second report would take
        reports.append(list(tmp_path.glob("hang-*.txt")))

    before_step(monkeypatch, 3, wait_in_vain)
    monkeypatch.setattr(watchdog_module, "_FIRST_STEP", 10_000)  # a busy machine compiles for long
    assert train(with_train(tiny_config, steps=5, hang_after=1.5), tmp_path).finished
    ((report,),) = reports
    text, shown = report.read_text(), capsys.readouterr().err
    assert re.match(r"no step finished for \d+ s \(train.hang_after=1.5\): step 3 was not dispatched", text)
    assert "thread MainThread:" in text
    assert "in wait_in_vain" in text
    assert "thread watchdog:" in text
    assert text.strip() in shown
    assert re.search(r"^step \d finished after \d+ s: training continues$", shown, re.MULTILINE)


class Result:
    """A step's result that is not ready until the test wants it."""

    ready = False

    def is_ready(self) -> bool:
        return self.ready


def test_a_step_that_hangs_on_the_devices_is_named(tmp_path: Path) -> None:
    with Watchdog(TrainConfig(hang_after=0.2), tmp_path, 5) as watchdog:
        watchdog.dispatched(6, jax.block_until_ready(jnp.ones(())))
        result: Any = Result()
        watchdog.dispatched(7, result)
        watchdog.dispatched(8, result)
        while not list(tmp_path.glob("hang-*.txt")):
            time.sleep(0.01)
        result.ready = True
    (report,) = tmp_path.glob("hang-*.txt")
    assert "step 7 was dispatched to the devices and has not finished" in report.read_text()


def test_the_first_step_may_take_longer(tmp_path: Path) -> None:
    began = time.monotonic()
    with Watchdog(TrainConfig(hang_after=0.2), tmp_path, 0):
        while not list(tmp_path.glob("hang-*.txt")):
            time.sleep(0.01)
    assert time.monotonic() - began >= 6 * 0.2


def test_a_training_that_makes_progress_is_not_reported(tiny_config: Config, tmp_path: Path) -> None:
    for name, seconds in (("on", 60.0), ("off", 0.0)):
        assert train(with_train(tiny_config, hang_after=seconds, steps=2, checkpoint_every=2), tmp_path / name).finished
    assert not list(tmp_path.rglob("hang-*"))


def run_watchdog(workdir: Path, settings: str, hang: str) -> Forked:
    code = (
        "import ctypes, time, jax\nfrom pathlib import Path\nfrom ecvae_jax.config import TrainConfig\n"
        "from ecvae_jax.training.watchdog import Watchdog\n"
        f"with Watchdog(TrainConfig({settings}), Path({str(workdir)!r}), 0) as watchdog:\n"
        f"    watchdog.dispatched(1, jax.block_until_ready(jax.numpy.ones(())))\n    {hang}\n"
    )
    return Forked(code, workdir / "log")


def test_a_hung_training_exits_with_its_own_code_where_that_is_wanted(tmp_path: Path) -> None:
    process = run_watchdog(tmp_path, "hang_after=0.3, hang_exit=True", "time.sleep(1000)")
    assert process.wait() == 75
    assert "exit code 75" in process.text()
    assert len(list(tmp_path.glob("hang-*.txt"))) == 1


def test_native_code_that_holds_the_interpreter_lock_is_reported(tmp_path: Path) -> None:
    # PyDLL keeps the interpreter's lock during the call.
    process = run_watchdog(tmp_path, "hang_after=0.5", "time.sleep(0.2); ctypes.PyDLL(None).sleep(2)")
    assert process.wait() == 0
    assert 'File "<string>", line 7 in <module>' in process.text()


def test_a_trace_holds_the_steps_that_were_asked_for(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(with_train(tiny_config, steps=6), tmp_path, Span(3, 4)).finished
    (trace,) = tmp_path.glob("profile/plugins/profile/*/*.trace.json.gz")
    assert list(trace.parent.glob("*.xplane.pb"))
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert {event["args"]["step_num"] for event in events if event.get("name") == "train"} == {"3", "4"}
    assert f"trace: {trace}: open it at https://ui.perfetto.dev" in capsys.readouterr().err


@pytest.mark.slow  # a trace costs seconds; the one of an uninterrupted training is looked at above
def test_an_interrupted_training_leaves_the_trace_so_far(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(monkeypatch, 4, lambda: os.kill(os.getpid(), 2))
    assert train(tiny_config, tmp_path, Span(3, 8)).step == 4
    assert list(tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"profile=3:4: the training in .* resumes from step 4; choose later steps"):
        train(tiny_config, tmp_path, Span(3, 4))


@pytest.mark.parametrize("text", ["5", "5:", ":5", "a:b", "5:3", "0:3", "-1:3", "9:11", "1:2:3", "1.5:2", ""])
def test_steps_that_cannot_be_traced_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"--profile={text}", "--train.steps", "10"]) == 2
    shown = capsys.readouterr().err
    assert f"profile={text!r}: " in shown
    assert shown.count("\n") == 1
