"""A real comparison of a tiny experiment: its files, what it repeats and what it refuses."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecvae_jax.checkpoints.store import CheckpointError
from ecvae_jax.cli.main import main
from ecvae_jax.comparison import runs as runs_module
from ecvae_jax.comparison.runs import SCORES, compare
from ecvae_jax.comparison.variants import REFERENCE, VARIANTS, choose_variants, usable_variants, with_settings
from ecvae_jax.config import Config
from ecvae_jax.data.faces import Faces
from ecvae_jax.training.loop import Outcome
from ecvae_jax.training.supervisor import TRY_AGAIN

ASKED = ["no-transport"]
NAMES = [f"{name}-seed{seed}" for seed in (0, 1) for name in (REFERENCE, "no-transport")]


@pytest.fixture(scope="module")
def base(tiny_config: Config) -> Config:
    return with_settings(tiny_config, {"train.steps": 4, "train.checkpoint_every": 4, "train.images_every": 4})


@pytest.fixture(scope="module")
def folder(base: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    compare(base, folder, ASKED, seeds=2, limit=24, metrics="pixels")
    return folder


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of the finished comparison, for tests that change it."""
    return shutil.copytree(folder, tmp_path / "copied")


def scores(folder: Path, name: str) -> dict:
    return json.loads((folder / "runs" / name / SCORES).read_text())


class Calls(list):
    """Records which runs are trained (or found trained) and scored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        train, write = runs_module.train, runs_module.write_text

        def seen_train(config: Config, workdir: Path) -> Outcome:
            outcome = train(config, workdir)
            self.append(("trained" if outcome.images_per_second else "found", workdir.name))
            return outcome

        def seen_write(path: Path, text: str) -> None:
            if path.name == SCORES:
                self.append(("scored", path.parent.name))
            write(path, text)

        monkeypatch.setattr(runs_module, "train", seen_train)
        monkeypatch.setattr(runs_module, "write_text", seen_write)


def test_everything_is_written(folder: Path) -> None:
    assert sorted(path.name for path in (folder / "runs").iterdir()) == sorted(NAMES)
    assert not (folder / "runs" / "no-transport-seed0" / "checkpoints").exists()
    stored = json.loads((folder / "comparison.json").read_text())
    assert list(stored["variants"]) == [REFERENCE, "no-transport"]
    text = (folder / "comparison.md").read_text()
    assert text.startswith("# The priors compared\n\n2 variants × 2 seeds, 4 steps of 8 images at 32 px on tests; "
                           "scored on 24 pairs of 2 people of the test split")  # fmt: skip
    assert Image.open(folder / "comparison.png").width > 500
    assert not list(folder.rglob("*.part"))


def test_the_table_is_of_the_stored_scores(folder: Path) -> None:
    stored = json.loads((folder / "comparison.json").read_text())["variants"]
    own = np.array([[scores(folder, f"{name}-seed{s}")["values"]["transfer_ssim"] for s in (0, 1)]
                    for name in ("no-transport", REFERENCE)])  # fmt: skip
    assert own.shape == (2, 2, 24)
    measure = stored["no-transport"]["measures"]["transfer_ssim"]
    assert (measure["mean"], measure["stddev"]) == pytest.approx((own[0].mean(), own[0].mean(axis=1).std(ddof=1)))
    apart = stored["no-transport"]["minus_reference"]["transfer_ssim"]
    assert apart["mean"] == pytest.approx((own[0] - own[1]).mean())
    assert apart["low"] < apart["mean"] < apart["high"]
    assert apart["people"] == 2


def test_a_row_without_training_is_the_reference_scored_otherwise(folder: Path) -> None:
    own, other = scores(folder, f"{REFERENCE}-seed0"), scores(folder, "no-transport-seed0")
    assert own["values"]["transfer_ssim"] != other["values"]["transfer_ssim"]
    assert own["values"]["reconstruction_ssim"] == other["values"]["reconstruction_ssim"]
    assert own["numbers"] == other["numbers"]


def test_only_what_is_missing_is_done_again(
    base: Config, folder: Path, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "runs" / f"{REFERENCE}-seed1" / SCORES).unlink()
    (copied / "runs" / "no-transport-seed0" / SCORES).write_text('{"format": 1, "sett')
    calls = Calls(monkeypatch)
    compare(base, copied, ASKED, seeds=2, limit=24, metrics="pixels")
    assert calls == [("found", f"{REFERENCE}-seed0"), ("scored", "no-transport-seed0"),
                     ("found", f"{REFERENCE}-seed1"), ("scored", f"{REFERENCE}-seed1")]  # fmt: skip
    assert [scores(copied, name) for name in NAMES] == [scores(folder, name) for name in NAMES]
    assert (copied / "comparison.json").read_text() == (folder / "comparison.json").read_text()
    messages = capsys.readouterr().err
    assert "2 of 4 runs are already done" in messages
    assert "no-transport-seed0/scores.json cannot be read: the run is scored again" in messages
    assert "left" in messages


@pytest.mark.slow
def test_a_variant_can_be_added_later(base: Config, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    results = compare(base, copied, ["mixture"], seeds=1, limit=24, metrics="pixels")
    assert calls == [("trained", "mixture-seed0"), ("scored", "mixture-seed0")]
    assert list(results.summaries) == [REFERENCE, "mixture"]
    numbers = scores(copied, "mixture-seed0")["numbers"]
    assert 0 < numbers["kl"] < numbers["kl_trained"]  # that of a drawn component is a bound of it, from above
    assert scores(copied, f"{REFERENCE}-seed0")["numbers"]["kl"] == pytest.approx(
        scores(copied, f"{REFERENCE}-seed0")["numbers"]["kl_trained"])  # fmt: skip


def test_other_scoring_scores_the_same_trainings_again(
    base: Config, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = Calls(monkeypatch)
    results = compare(base, copied, [REFERENCE], seeds=1, limit=12, metrics="pixels")
    assert calls == [("found", f"{REFERENCE}-seed0"), ("scored", f"{REFERENCE}-seed0")]
    assert results.facts["pairs"] == 12
    assert "equilibrium-seed0: was scored with limit 24; it is scored again" in capsys.readouterr().err


def test_another_experiment_is_refused(base: Config, folder: Path) -> None:
    other = with_settings(base, {"objective.beta": 0.5})
    with pytest.raises(CheckpointError, match=r"equilibrium-seed0 holds .* other settings.*objective\.beta: 1\.0"):
        compare(other, folder, ASKED, seeds=2, limit=24, metrics="pixels")
    assert (folder / "runs" / f"{REFERENCE}-seed0" / SCORES).is_file()


@pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, TRY_AGAIN)])
def test_an_interrupted_command_says_so_and_resumes(
    base: Config, copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    by: signal.Signals, code: int,
) -> None:  # fmt: skip
    experiment = copied / "experiment.json"
    experiment.write_text(base.to_json())
    (copied / "runs" / f"{REFERENCE}-seed0" / SCORES).unlink()
    command = ["compare", str(experiment), "--workdir", str(copied), "--variants", "equilibrium",
               "--seeds", "1", "--limit", "24", "--metrics", "pixels"]  # fmt: skip
    train = runs_module.train
    interrupted = Outcome(3, False, {}, 1.0, stopped_by=by)
    monkeypatch.setattr(runs_module, "train", lambda config, workdir: interrupted)
    assert main(command) == code
    message = "interrupted in equilibrium-seed0 at step 3 of 4: run the same command again to resume"
    assert message in capsys.readouterr().err
    monkeypatch.setattr(runs_module, "train", train)
    measure = runs_module.measure_run
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    monkeypatch.setattr(runs_module, "measure_run", lambda *arguments: signal.raise_signal(by))
    assert main(command) == code
    signal.signal(signal.SIGINT, before)
    monkeypatch.setattr(runs_module, "measure_run", measure)
    assert main(command) == 0
    assert "comparison.md, comparison.json, comparison.png" in capsys.readouterr().err


def test_records_without_two_views_of_a_person_are_refused(
    base: Config, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = runs_module.load_faces

    def alone(records: str, split: str) -> Faces:
        faces = load(records, split)
        faces.groups = [str(i) for i in range(len(faces))]
        return faces

    monkeypatch.setattr(runs_module, "load_faces", alone)
    with pytest.raises(ValueError, match="no person has two views of one sitting"):
        compare(base, copied, [REFERENCE], seeds=1, limit=12, metrics="pixels")


def test_names_of_variants() -> None:
    assert [v.name for v in choose_variants(["standard"])] == [REFERENCE, "standard"]
    assert [v.name for v in choose_variants([])] == list(VARIANTS)
    with pytest.raises(ValueError, match=r"no variant 'standart'; did you mean 'standard'\?"):
        choose_variants(["standart"])
    with pytest.raises(ValueError, match="no variant 'x'; the variants are equilibrium, no-transport, mixture"):
        choose_variants(["x"])


def test_variants_that_cannot_be_or_are_the_same_are_left_out(tiny_config: Config) -> None:
    every = list(VARIANTS.values())
    kept, notes = usable_variants(every, tiny_config, 96)
    assert {v.name for v in every} - {v.name for v in kept} == {"k-128"}
    assert notes == ["k-128 is left out: 128 clusters for 96 faces"]
    alone = with_settings(tiny_config, {"data.pairs": 0.0, "clusters.mode": "literal"})
    kept, notes = usable_variants(every, alone, 500)
    assert {v.name for v in every} - {v.name for v in kept} == {
        "equilibrium-self", "mixture-self", "standard-self", "literal"
    }  # fmt: skip
    assert "literal is left out: with this experiment it equals equilibrium" in notes
    assert "no-transport" in {v.name for v in kept}


def test_equal_seeds_are_equal_budgets_and_orders(tiny_config: Config) -> None:
    reference = VARIANTS[REFERENCE].config(tiny_config, 2)
    assert reference.train.seed == 2
    for variant in VARIANTS.values():
        config = variant.config(tiny_config, 2)
        assert config.train == reference.train
        assert config.optim == reference.optim
        assert config.objective == reference.objective
        if not variant.name.endswith("-self"):
            assert config.data == reference.data  # order of faces: a function of these and the step


def test_scores_older_than_a_setting_count_as_its_default(
    base: Config, folder: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        old = scores(copied, name)
        assert old["config"]["prior"].pop("learned") is False
        (copied / "runs" / name / SCORES).write_text(json.dumps(old))
    calls = Calls(monkeypatch)
    compare(base, copied, ASKED, seeds=2, limit=24, metrics="pixels")
    assert calls == []
    other = scores(copied, NAMES[0])
    other["config"]["prior"]["learned"] = True
    (copied / "runs" / NAMES[0] / SCORES).write_text(json.dumps(other))
    compare(base, copied, ASKED, seeds=2, limit=24, metrics="pixels")
    assert calls == [("found", NAMES[0]), ("scored", NAMES[0])]
