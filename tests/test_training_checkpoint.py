"""Checkpoints: stored values come back, and an unreadable checkpoint is one line."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from support.training import assert_same

from ecvae_jax.checkpoints.integrity import MANIFEST, find_damage, write_manifest
from ecvae_jax.checkpoints.load import BUNDLED, default_model, load_model
from ecvae_jax.checkpoints.store import CheckpointError, Checkpoints
from ecvae_jax.config import Config
from ecvae_jax.export.small import export_model
from ecvae_jax.training.loop import restore_state, train


def test_model_loads_from_workdir_folder_and_step(tiny_config: Config, tiny_workdir: Path) -> None:
    model = load_model(tiny_workdir)
    assert (model.config, model.step) == (tiny_config, 10)
    assert model.records["points"] == 98
    assert_same(model.params, load_model(tiny_workdir / "checkpoints").params)
    earlier = load_model(tiny_workdir / "checkpoints" / "5")
    assert earlier.step == 5
    with pytest.raises(AssertionError):
        assert_same(model.params, earlier.params)
    assert_same(model.frozen, earlier.frozen)


def test_inference_does_not_need_the_optimizer(tiny_workdir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_workdir, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints" / "10" / "training")
    assert_same(load_model(copy).params, load_model(tiny_workdir).params)


def test_restored_state_is_the_stored_one(tiny_config: Config, tiny_workdir: Path) -> None:
    checkpoints = Checkpoints(tiny_workdir, tiny_config, {})
    state, _ = restore_state(checkpoints, tiny_config)
    checkpoints.close()
    assert int(state.step) == 10
    assert_same(state.ema_params, load_model(tiny_workdir).params)
    counts = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state) if "count" in str(path[-1])]
    assert counts
    assert all(int(count) == 10 for count in counts)
    assert all(len(leaf.devices()) == jax.device_count() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {"z_dim": 64}}, r"model\.z_dim: 32 -> 64 \(cannot be changed\)"),
        ({"train": {"seed": 7}}, r"train\.seed: 0 -> 7 \(cannot be changed\)"),
        ({"prior": {"stddev": 0.2}}, r"prior\.stddev: 0\.1 -> 0\.2 \(cannot be changed\)"),
    ],
)
def test_another_experiment_is_not_continued(tiny_config: Config, tiny_workdir: Path, change, words: str) -> None:
    sections = {name: dataclasses.replace(getattr(tiny_config, name), **fields) for name, fields in change.items()}
    with pytest.raises(CheckpointError, match=words):
        Checkpoints(tiny_workdir, dataclasses.replace(tiny_config, **sections), {})


def test_how_often_things_are_logged_may_change_without_an_error(tiny_config: Config, tiny_workdir: Path) -> None:
    train_config = dataclasses.replace(tiny_config.train, log_every=3, keep_checkpoints=9, parallel="pmap")
    Checkpoints(tiny_workdir, dataclasses.replace(tiny_config, train=train_config), {}).close()


def test_missing_folder_empty_folder_and_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load_model(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="no such folder"):
        load_model(tmp_path / "file")


def test_checkpoint_that_cannot_be_read_though_whole_is_named_in_one_line(tiny_workdir: Path, tmp_path: Path) -> None:
    """One without checksums, as older versions wrote them; others are tests of `integrity`."""
    copy = shutil.copytree(tiny_workdir, tmp_path / "copy")
    step = copy / "checkpoints" / "10"
    (step / MANIFEST).unlink()
    facts = json.loads((step / "config" / "metadata").read_text())
    del facts["checksums"]
    (step / "config" / "metadata").write_text(json.dumps(facts))
    damaged = 0
    for file in (step / "inference").rglob("*"):
        if file.is_file() and file.stat().st_size > 2000:
            file.write_bytes(file.read_bytes()[:100])
            damaged += 1
    assert damaged
    with pytest.raises(CheckpointError, match=r"10 cannot be read: [^\n]*; delete that folder") as caught:
        load_model(copy)
    assert "\n" not in str(caught.value)
    shutil.rmtree(step)
    assert load_model(copy).step == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda facts: facts["config"]["train"].update(turbo=True), r"it has train\.turbo, which this version does"),
        (lambda facts: facts.update(format=2), "its format is 2, which this version does not know"),
    ],
)
def test_checkpoint_of_a_newer_version_is_refused(tiny_workdir: Path, tmp_path: Path, change, words: str) -> None:
    copy = shutil.copytree(tiny_workdir, tmp_path / "copy")
    step = copy / "checkpoints" / "10"
    facts = json.loads((step / "config" / "metadata").read_text())
    change(facts)
    (step / "config" / "metadata").write_text(json.dumps(facts))
    write_manifest(step)
    with pytest.raises(CheckpointError, match=f"10 was written by another version of ecvae_jax: {words}"):
        load_model(copy)


def test_an_allowed_change_is_reported_and_resumes(tiny_config: Config, tiny_workdir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_workdir, tmp_path / "copy")
    longer = dataclasses.replace(tiny_config, train=dataclasses.replace(tiny_config.train, steps=12))
    with pytest.raises(CheckpointError, match=r"train\.steps: 10 -> 12; .* --allow-change train\.steps`$"):
        train(longer, copy)
    assert train(longer, copy, allowed=["train.steps"]).step == 12
    assert load_model(copy).config.train.steps == 12
    assert train(longer, copy).finished  # it is stored now, and need not be asked for again


def test_half_written_checkpoint_is_not_taken(tiny_workdir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_workdir, tmp_path / "copy")
    done = copy / "checkpoints" / "10"
    done.rename(done.with_name("10.orbax-checkpoint-tmp-1"))
    assert load_model(copy).step == 5


def test_a_training_is_not_continued_on_other_faces(tiny_config: Config, tmp_path: Path) -> None:
    """The folder of the records is the same, what is in it is not."""
    records = shutil.copytree(tiny_config.data.records, tmp_path / "records")
    config = dataclasses.replace(tiny_config, data=dataclasses.replace(tiny_config.data, records=str(records)))
    assert train(config, tmp_path / "run").finished
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, log_every=2))
    assert train(longer, tmp_path / "run").finished
    facts = load_model(tmp_path / "run").records
    assert facts["faces"] == 96
    with pytest.raises(CheckpointError, match="training on other faces"):
        Checkpoints(tmp_path / "run", config, {**facts, "fingerprint": "0" * 16})


def test_an_export_is_small_and_draws_the_same(tiny_config: Config, tiny_workdir: Path, tmp_path: Path) -> None:
    whole = load_model(tiny_workdir)
    size = export_model(tiny_workdir, tmp_path / "small")
    stored = tiny_workdir / "checkpoints" / "10"
    assert size < sum(file.stat().st_size for file in stored.rglob("*") if file.is_file()) / 3
    small = load_model(tmp_path / "small")
    assert find_damage(tmp_path / "small" / "10") is None
    assert (tmp_path / "small" / "10" / MANIFEST).is_file()
    assert small.step == 10
    assert small.config.data.records == Path(tiny_config.data.records).name  # no path of this machine
    assert small.config.model == tiny_config.model
    assert_same(small.frozen, whole.frozen)
    for stored, original in zip(jax.tree.leaves(small.params), jax.tree.leaves(whole.params), strict=True):
        assert stored.dtype == original.dtype
        np.testing.assert_allclose(stored, original, rtol=1e-3, atol=1e-6)
    named = [file for file in (tmp_path / "small").rglob("*") if file.is_file() and b"pytest" in file.read_bytes()]
    assert not named  # in no other file either
    assert export_model(tiny_workdir, tmp_path / "exact", half=False) > size
    assert_same(load_model(tmp_path / "exact").params, whole.params)
    with pytest.raises(CheckpointError, match="exists: give the name of a new folder"):
        export_model(tiny_workdir, tmp_path / "small")


@pytest.mark.parametrize("name", ["w[1]", "a]b", "a\\b", "w*", "w?", "[!x]"])
def test_a_workdir_with_characters_of_patterns_is_stored_read_resumed_and_exported(
    tiny_config: Config, tiny_workdir: Path, tmp_path: Path, name: str
) -> None:
    """Orbax globs below the path it is given: the checkpoint lacked its index, and the training was lost."""
    workdir = shutil.copytree(tiny_workdir, tmp_path / name)
    (tmp_path / "w1").mkdir()  # what the pattern means
    shutil.rmtree(workdir / "checkpoints" / "10")
    assert train(tiny_config, workdir).finished
    assert_same(load_model(workdir).params, load_model(tiny_workdir).params)
    export_model(workdir, tmp_path / f"{name}-small", half=False)
    assert_same(load_model(tmp_path / f"{name}-small").params, load_model(tiny_workdir).params)
    assert not list((tmp_path / "w1").iterdir())


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("manifest.ocdbt", r"inference has 0 arrays, expected \d+; the first that differs is ema_params\."),
        ("ocdbt.process_0/d", r"inference has 0 of the \d+ chunks of ema_params\."),
    ],
)
def test_a_checkpoint_that_cannot_be_read_back_never_gets_its_name(
    tiny_config: Config, tiny_workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str, words: str
) -> None:
    workdir = shutil.copytree(tiny_workdir, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "10")

    def lose(folder: Path) -> None:
        path = folder / "inference" / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_manifest(folder)

    monkeypatch.setattr("ecvae_jax.checkpoints.store.write_manifest", lose)
    with pytest.raises(CheckpointError, match=f"step 10 in .* cannot be read back: {words}.*step 5, is valid: check"):
        train(tiny_config, workdir)
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["5"]
    monkeypatch.undo()
    assert train(tiny_config, workdir).finished


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_model_has_checksums_and_holds_no_path_of_a_machine(name: str) -> None:
    (step,) = (path for path in BUNDLED[name].iterdir() if path.is_dir())
    assert (step / MANIFEST).is_file()
    assert find_damage(step) is None
    for file in filter(Path.is_file, step.rglob("*")):
        assert not re.search(rb"/(home|root|tmp|work|Users)/", file.read_bytes())


@pytest.mark.parametrize(("name", "size"), [("face128", 128), ("face256", 256)])
def test_a_bundled_model_loads_by_its_name_from_any_folder(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_workdir: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    model = load_model(name)
    assert model.config.model.image_size == size
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {np.dtype("float32")}
    shutil.copytree(tiny_workdir, tmp_path / name)  # a training of that name hides it
    assert load_model(name).config.model.image_size != size


def test_the_default_model_is_the_large_one_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_model() == "face128"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert default_model() == "face256"
