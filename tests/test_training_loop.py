"""Whole trainings: interrupted and continued, killed, and stopped by a loss that is no number."""

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

from ecvae_jax.config import Config
from ecvae_jax.data.pipeline import load_faces, training_batches
from ecvae_jax.training import loop
from ecvae_jax.training.checkpoint import Checkpoints, load_model
from ecvae_jax.training.loop import train
from ecvae_jax.training.window import TrainingError


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
    state = jax.device_get(checkpoints.restore()[0])
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
    assert (outcome.step, outcome.finished) == (4, False)
    monkeypatch.undo()
    assert loop.make_train_step is make_step
    assert train(tiny_config, tmp_path).finished
    whole, broken = restored(tiny_config, undisturbed), restored(tiny_config, tmp_path)
    assert all(map(np.array_equal, jax.tree.leaves(whole), jax.tree.leaves(broken)))
    ours, theirs = scalars(tmp_path), scalars(undisturbed)
    for name in theirs.keys() - {"images_per_second", "seconds", "compile_seconds", "peak_memory_gib"}:
        assert ours[name] == theirs[name], name  # every point of every curve


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


def test_loss_that_is_no_number_stops_and_stores_nothing_of_it(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    map_step = loop.map_step

    def poisoned(step, kind):
        mapped, calls = map_step(step, kind), []

        def call(state, batch):
            calls.append(1)
            if len(calls) == 7:
                batch = {**batch, "landmarks": np.full_like(batch["landmarks"], np.nan)}
            return mapped(state, batch)

        return call

    monkeypatch.setattr(loop, "map_step", poisoned)
    with pytest.raises(TrainingError, match=r"step 7: \w+ is nan; nothing of this was stored"):
        train(tiny_config, tmp_path)
    assert load_model(tmp_path).step == 5


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
