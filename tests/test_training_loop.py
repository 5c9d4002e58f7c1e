"""Whole trainings: interrupted and resumed, killed, and with a NaN loss."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from support.processes import Forked, wait_until
from support.training import assert_same, assert_same_curves, before_step, restored, scalars, with_train

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.cli.main import main
from ecvae_jax.config import Config
from ecvae_jax.data.batches import load_faces, training_batches
from ecvae_jax.training import loop
from ecvae_jax.training.loop import train
from ecvae_jax.training.metrics import TrainingError
from ecvae_jax.training.supervisor import TRY_AGAIN


@pytest.fixture(scope="session")
def undisturbed(tiny_workdir: Path) -> Path:
    """The finished training that interrupted ones are compared with."""
    return tiny_workdir


def test_what_a_training_leaves_behind(tiny_config: Config, undisturbed: Path) -> None:
    picture = np.asarray(Image.open(undisturbed / "first_batch.png"))
    assert picture.shape == (4 * 34 + 2, 8 * 34 + 2, 3)
    values = scalars(undisturbed)
    wanted = {"loss", "recon_nll", "kl", "elbo", "ssim", "beta", "effective_clusters", "gradient_norm", "learning_rate"}
    assert wanted | {"images_per_second"} <= set(values)
    assert set(values["loss"]) == {5, 10}
    assert sorted(p.name for p in (undisturbed / "checkpoints").iterdir() if p.name.isdigit()) == ["10", "5"]


def test_finished_training_is_not_trained_further(tiny_config: Config, undisturbed: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(undisturbed, tmp_path / "copy")
    assert train(tiny_config, copy) == loop.Outcome(10, True, {}, 0.0)
    assert_same(restored(tiny_config, undisturbed), restored(tiny_config, copy))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed_is_bitwise_the_same(
    tiny_config: Config, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before_step(monkeypatch, 4, lambda: os.kill(os.getpid(), number))
    outcome = train(tiny_config, tmp_path)
    assert (outcome.step, outcome.finished, outcome.stopped_by) == (4, False, number)
    monkeypatch.undo()
    assert train(tiny_config, tmp_path).finished
    assert_same(restored(tiny_config, undisturbed), restored(tiny_config, tmp_path))
    assert_same_curves(undisturbed, tmp_path)


def test_sigterm_while_a_training_starts_is_reported_and_the_command_resumes(
    tiny_config: Config, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Before a state exists: the same exit code, and nothing blocks the next start."""
    experiment = tmp_path / "config.json"
    experiment.write_text(tiny_config.to_json())
    workdir = tmp_path / "run"
    command = ["train", str(experiment), "--workdir", str(workdir)]
    monkeypatch.setattr(loop, "init_state", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert main(command) == TRY_AGAIN
    assert "interrupted by SIGTERM; run the same command again to resume" in capfd.readouterr().err
    assert not list((workdir / "checkpoints").iterdir())
    monkeypatch.undo()
    assert main(command) == 0
    assert_same(restored(tiny_config, undisturbed), restored(tiny_config, workdir))


def test_killed_training_resumes_from_its_last_checkpoint(
    tiny_config: Config, undisturbed: Path, tmp_path: Path
) -> None:
    """SIGKILL leaves no time to save; the steps since the last checkpoint are repeated, bit for bit."""
    config = tmp_path / "config.json"
    config.write_text(tiny_config.to_json())
    workdir = tmp_path / "run"
    code = (
        "import time\n"
        "from pathlib import Path\n"
        "import ecvae_jax.training.loop as loop\n"
        "from ecvae_jax.config import load_config\n"
        "map_step = loop.map_step\n"
        "def slowly(step, kind):\n"
        "    mapped = map_step(step, kind)\n"
        "    return lambda *given: (time.sleep(0.3), mapped(*given))[1]\n"
        "loop.map_step = slowly\n"
        f"loop.train(load_config(Path({str(config)!r})), Path({str(workdir)!r}))\n"
    )
    process = Forked(code, tmp_path / "log")
    wait_until((workdir / "checkpoints" / "5").is_dir, process)
    process.kill()
    assert load_model(workdir).step == 5
    assert train(tiny_config, workdir).finished
    assert_same(restored(tiny_config, undisturbed), restored(tiny_config, workdir))


def plant(monkeypatch: pytest.MonkeyPatch, steps: set[int], stop_after: int | None = None) -> None:
    """Plants NaN landmarks in the batches of some steps; sends Ctrl-C while the batch of `stop_after` is fetched."""

    def planted(*arguments, **named):
        first = arguments[5] + 1 if len(arguments) > 5 else 1
        for step, batch in enumerate(training_batches(*arguments, **named), first):
            if step == stop_after:
                os.kill(os.getpid(), signal.SIGINT)
            if step in steps:
                batch = {**batch, "landmarks": np.where(np.arange(8)[:, None, None] == 3, np.nan, batch["landmarks"])}
            yield batch

    monkeypatch.setattr(loop, "training_batches", planted)


def test_nan_steps_are_skipped_counted_and_reported(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interruption among them leaves state and curves bit-identical."""
    plant(monkeypatch, {3, 4, 7})
    whole = train(tiny_config, tmp_path / "whole")
    assert whole.finished
    assert all(map(np.isfinite, whole.metrics.values()))
    shown = capsys.readouterr().err
    assert "2 steps since the last line were skipped; step 4: recon_nll is nan\n" in shown
    assert "1 steps since the last line were skipped; step 7: recon_nll is nan\n" in shown
    assert scalars(tmp_path / "whole")["skipped"] == {5: 2.0, 10: 1.0}
    plant(monkeypatch, {3, 4, 7}, stop_after=3)
    stopped = train(tiny_config, tmp_path / "broken")
    assert not stopped.finished
    plant(monkeypatch, {3, 4, 7})
    assert train(tiny_config, tmp_path / "broken").finished
    assert_same(*(restored(tiny_config, tmp_path / name) for name in ("whole", "broken")))
    assert_same_curves(tmp_path / "whole", tmp_path / "broken")


def test_too_many_skipped_in_a_row_stop_and_keep_the_batch(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps skipped before an interruption count."""
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
    config = with_train(tiny_config, batch_size=32)
    faces = load_faces(config.data.records, "train")
    shown = loop.first_examples(config, faces)
    trained = next(training_batches(faces, config.data, 32, 32, config.train.seed))
    assert len(shown["image"]) == 16
    for name, values in shown.items():
        assert np.array_equal(values, trained[name][:16])


def test_signal_during_the_report_stores_no_unchecked_state(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrives after the check of step 3: the training checks step 4 and stops there."""
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
    config = with_train(tiny_config, batch_size=13)
    with pytest.raises(ValueError, match=f"must be a multiple of the {jax.device_count()} devices"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
