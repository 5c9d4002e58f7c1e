"""Whole trainings: interrupted and continued, killed, and with losses that are no number."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.checkpoints.store import Checkpoints
from ecvae_jax.cli.main import main
from ecvae_jax.config import Config
from ecvae_jax.data.batches import load_faces, training_batches
from ecvae_jax.training import loop
from ecvae_jax.training.loop import restore_state, train
from ecvae_jax.training.metrics import TrainingError
from ecvae_jax.training.supervisor import TRY_AGAIN


def scalars(workdir: Path) -> dict[str, dict[int, float]]:
    """Every TensorBoard scalar of a training, by name and step."""
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


def restored(config: Config, workdir: Path):
    checkpoints = Checkpoints(workdir, config, {})
    state = jax.device_get(restore_state(checkpoints, config)[0])
    checkpoints.close()
    return state


@pytest.fixture(scope="module")
def undisturbed(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    outcome = train(tiny_config, folder)
    assert outcome.finished
    assert outcome.step == 10
    return folder


def test_what_a_training_leaves_behind(tiny_config: Config, undisturbed: Path) -> None:
    picture = np.asarray(Image.open(undisturbed / "first_batch.png"))
    assert picture.shape == (4 * 34 + 2, 8 * 34 + 2, 3)
    values = scalars(undisturbed)
    wanted = {"loss", "recon_nll", "kl", "elbo", "ssim", "beta", "effective_clusters", "gradient_norm", "learning_rate"}
    assert wanted | {"images_per_second"} <= set(values)
    assert set(values["loss"]) == {5, 10}
    assert sorted(p.name for p in (undisturbed / "checkpoints").iterdir() if p.name.isdigit()) == ["10", "5"]


def test_finished_training_is_not_trained_further(tiny_config: Config, undisturbed: Path) -> None:
    before = restored(tiny_config, undisturbed)
    assert train(tiny_config, undisturbed) == loop.Outcome(10, True, {}, 0.0)
    after = restored(tiny_config, undisturbed)
    assert all(map(np.array_equal, jax.tree.leaves(before), jax.tree.leaves(after)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_continued_is_bitwise_the_same(
    tiny_config: Config, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    make_step = loop.make_train_step
    map_step = loop.map_step

    def interrupting(step, kind):
        mapped, calls = map_step(step, kind), []

        def call(state, batch):
            calls.append(1)
            if len(calls) == 4:
                os.kill(os.getpid(), number)
            return mapped(state, batch)

        return call

    monkeypatch.setattr(loop, "map_step", interrupting)
    outcome = train(tiny_config, tmp_path)
    assert (outcome.step, outcome.finished, outcome.stopped_by) == (4, False, number)
    monkeypatch.undo()
    assert loop.make_train_step is make_step
    assert train(tiny_config, tmp_path).finished
    whole, broken = restored(tiny_config, undisturbed), restored(tiny_config, tmp_path)
    assert all(map(np.array_equal, jax.tree.leaves(whole), jax.tree.leaves(broken)))
    ours, theirs = scalars(tmp_path), scalars(undisturbed)
    for name in theirs.keys() - {"images_per_second", "seconds", "compile_seconds", "peak_memory_gib"}:
        assert ours[name] == theirs[name], name  # every point of every curve


def test_sigterm_while_a_training_starts_is_told_and_the_command_goes_on(
    tiny_config: Config, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Before there is a state to store: the same exit code, and nothing that stands in the way of the next start."""
    experiment = tmp_path / "config.json"
    experiment.write_text(tiny_config.to_json())
    workdir = tmp_path / "run"
    command = ["train", str(experiment), "--workdir", str(workdir)]
    monkeypatch.setattr(loop, "init_state", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert main(command) == TRY_AGAIN
    assert "interrupted by SIGTERM; run the same command again to resume" in capsys.readouterr().err
    assert not list((workdir / "checkpoints").iterdir())
    monkeypatch.undo()
    assert main(command) == 0
    whole, broken = restored(tiny_config, undisturbed), restored(tiny_config, workdir)
    assert all(map(np.array_equal, jax.tree.leaves(whole), jax.tree.leaves(broken)))


def test_killed_training_goes_on_from_its_last_checkpoint(
    tiny_config: Config, undisturbed: Path, tmp_path: Path
) -> None:
    """SIGKILL leaves no time for anything; the steps since the last checkpoint are done again, bit for bit."""
    config = tmp_path / "config.json"
    config.write_text(tiny_config.to_json())
    workdir = tmp_path / "run"
    slow = (
        "import sys, time\n"
        "import ecvae_jax.training.loop as loop\n"
        "map_step = loop.map_step\n"
        "def slowly(step, kind):\n"
        "    mapped = map_step(step, kind)\n"
        "    def call(state, batch):\n"
        "        time.sleep(0.5)\n"
        "        return mapped(state, batch)\n"
        "    return call\n"
        "loop.map_step = slowly\n"
        "from ecvae_jax.experiments import load_config\n"
        "from pathlib import Path\n"
        f"loop.train(load_config(Path({str(config)!r})), Path({str(workdir)!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", slow], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not (workdir / "checkpoints" / "5").is_dir():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert load_model(workdir).step == 5
    assert train(tiny_config, workdir).finished
    whole, broken = restored(tiny_config, undisturbed), restored(tiny_config, workdir)
    assert all(map(np.array_equal, jax.tree.leaves(whole), jax.tree.leaves(broken)))


def plant(monkeypatch: pytest.MonkeyPatch, steps: set[int], stop_after: int | None = None) -> None:
    """Gives the batches of some steps landmarks that are no number; Ctrl-C while a batch is fetched, if asked for."""

    def planted(*arguments, **named):
        first = arguments[5] + 1 if len(arguments) > 5 else 1
        for step, batch in enumerate(training_batches(*arguments, **named), first):
            if step == stop_after:
                os.kill(os.getpid(), signal.SIGINT)
            if step in steps:
                batch = {**batch, "landmarks": np.where(np.arange(8)[:, None, None] == 3, np.nan, batch["landmarks"])}
            yield batch

    monkeypatch.setattr(loop, "training_batches", planted)


def with_train(config: Config, **changes: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))


def test_steps_that_are_no_number_are_skipped_counted_and_told(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it is interrupted in the middle of them: the same state and curves, to the last bit."""
    plant(monkeypatch, {3, 4, 7})
    whole = train(tiny_config, tmp_path / "whole")
    assert whole.finished
    assert all(map(np.isfinite, whole.metrics.values()))
    said = capsys.readouterr().err
    assert "2 steps since the last line were skipped; step 4: recon_nll is nan\n" in said
    assert "1 steps since the last line were skipped; step 7: recon_nll is nan\n" in said
    assert scalars(tmp_path / "whole")["skipped"] == {5: 2.0, 10: 1.0}
    plant(monkeypatch, {3, 4, 7}, stop_after=3)
    stopped = train(tiny_config, tmp_path / "broken")
    assert not stopped.finished
    plant(monkeypatch, {3, 4, 7})
    assert train(tiny_config, tmp_path / "broken").finished
    first, second = (restored(tiny_config, tmp_path / name) for name in ("whole", "broken"))
    assert all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))
    ours, theirs = scalars(tmp_path / "broken"), scalars(tmp_path / "whole")
    for name in theirs.keys() - {"images_per_second", "seconds", "compile_seconds", "peak_memory_gib"}:
        assert ours[name] == theirs[name], name


def test_too_many_skipped_in_a_row_stop_and_keep_the_batch(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were skipped before an interruption count."""
    config = with_train(tiny_config, max_skipped=3)
    plant(monkeypatch, {2, 3, 6, 7, 8}, stop_after=7)
    outcome = train(config, tmp_path)
    assert outcome.step == 7
    plant(monkeypatch, {2, 3, 6, 7, 8})
    stop = (r"^step 8: recon_nll is nan; 3 consecutive steps were skipped \(train\.max_skipped\); "
            r"the last checkpoint, step 7, is valid; the batch is in .*bad_batch-8\.npz: inspect it")  # fmt: skip
    with pytest.raises(TrainingError, match=stop):
        train(config, tmp_path)
    with np.load(tmp_path / "bad_batch-8.npz") as kept:
        batch = dict(kept)
    assert np.flatnonzero(np.isnan(batch["landmarks"]).any(axis=(1, 2))).tolist() == [3]
    faces = load_faces(config.data.records, "train")
    true = next(training_batches(faces, config.data, 32, 8, config.train.seed, 7))
    assert all(np.array_equal(batch[name], true[name]) for name in ("image", "source_image", "source_landmarks"))
    assert np.asarray(Image.open(tmp_path / "bad_batch-8.png")).shape == (4 * 34 + 2, 8 * 34 + 2, 3)
    assert load_model(tmp_path).step == 7
    forgiving = with_train(config, max_skipped=4)
    assert train(forgiving, tmp_path).finished


def test_first_batch_is_that_of_step_0_whatever_its_size(tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, batch_size=32))
    faces = load_faces(config.data.records, "train")
    shown = loop.first_examples(config, faces)
    trained = next(training_batches(faces, config.data, 32, 32, config.train.seed))
    assert len(shown["image"]) == 16
    for name, values in shown.items():
        assert np.array_equal(values, trained[name][:16])


def test_signal_during_the_report_stores_no_state_that_was_not_looked_at(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after the check of step 3: the training stops after step 4, having looked at that."""
    advance = loop.Reporter.advance

    def interrupted(self, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        advance(self, step)

    monkeypatch.setattr(loop.Reporter, "advance", interrupted)
    outcome = train(tiny_config, tmp_path)
    assert outcome.step == 4
    assert np.isfinite(outcome.metrics["loss"])
    assert load_model(tmp_path).step == 4


def test_batch_size_is_checked_before_anything_is_made(tiny_config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, batch_size=12))
    with pytest.raises(ValueError, match="must be a multiple of the 8 devices"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
