"""Damaged checkpoints: detected, named, skipped and kept; a locked workdir; a full disk."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.processes import Forked, wait_until
from support.training import assert_same, at_step, restored

from ecvae_jax.checkpoints.integrity import (
    MANIFEST,
    SET_ASIDE,
    choose_checkpoint,
    find_damage,
    set_damaged_aside,
    stored_steps,
    write_manifest,
)
from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.checkpoints.place import LostFolderError
from ecvae_jax.checkpoints.store import CheckpointError
from ecvae_jax.config import Config
from ecvae_jax.training.loop import train
from ecvae_jax.training.workdir import LOCK, WorkdirError, lock_workdir


@pytest.fixture
def copy(tiny_workdir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_workdir, tmp_path / "copy")


def largest(folder: Path) -> Path:
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def truncate(step: Path) -> None:
    file = largest(step / "inference")
    file.write_bytes(file.read_bytes()[:812])


def flip(step: Path) -> None:
    file = largest(step / "inference")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def half_delete(step: Path) -> None:
    """The state after a killed `rm -r` or removal of old checkpoints: the checksums are missing too."""
    shutil.rmtree(step / "inference" / "d")
    (step / MANIFEST).unlink()


def forget_config(step: Path) -> None:
    shutil.rmtree(step / "config")
    (step / MANIFEST).unlink()


def spoil_list(step: Path) -> None:
    (step / MANIFEST).write_text((step / MANIFEST).read_text()[:100])


DAMAGES = [
    (truncate, r"inference/ocdbt.process_0/d/\w+ has 812 bytes, expected \d{5,}"),
    (flip, r"inference/ocdbt.process_0/d/\w+ has a wrong checksum"),
    (half_delete, "checksums.json is missing"),
    (forget_config, "checksums.json is missing, and config/metadata is missing or unreadable"),
    (spoil_list, "checksums.json is not a list of checksums"),
]


def test_one_flipped_bit_or_a_missing_file_anywhere_is_found(copy: Path) -> None:
    step = copy / "checkpoints" / "10"
    assert find_damage(step) is None
    listed = json.loads((step / MANIFEST).read_text())["files"]
    assert {name.split("/")[0] for name in listed} == {"config", "inference", "training"}
    data = {name: (step / name).read_bytes() for name in listed}
    everything = {file.relative_to(step).as_posix() for file in step.rglob("*") if file.is_file()}
    assert everything - data.keys() == {MANIFEST, "_CHECKPOINT_METADATA", "commit_success.txt"}  # nothing of the state
    rng = np.random.default_rng(0)
    for name, whole in data.items():
        bit = int(rng.integers(8 * len(whole)))
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        (step / name).write_bytes(changed)
        assert find_damage(step) == f"{name} has a wrong checksum"
        (step / name).unlink()
        assert find_damage(step) == f"{name} is missing"
        (step / name).write_bytes(whole)
    assert find_damage(step) is None


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_synthesis_takes_the_one_before_and_names_the_damaged_one(
    copy: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], words: str
) -> None:
    step = copy / "checkpoints" / "10"
    damage(step)
    with caplog.at_level(logging.WARNING):
        assert load_model(copy).step == 5
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("ecvae_jax")]
    assert line.startswith(f"{step} is damaged: ")
    assert line.endswith("; going back to step 5")
    with pytest.raises(CheckpointError, match=rf"10 is damaged: {words}; use another step's folder"):
        load_model(step)
    assert step.is_dir()  # reading changes nothing


@pytest.mark.parametrize(
    "name", ["inference/../../../../../../dev/zero", "/dev/zero", "../10/config/metadata", "inference//_METADATA", "."]
)
def test_list_of_checksums_names_only_files_inside(copy: Path, name: str) -> None:
    """A stranger's list must not make a reader hash a device for ever."""
    step = copy / "checkpoints" / "10"
    (step / MANIFEST).write_text(json.dumps({"files": {name: {"bytes": 0, "sha256": ""}}}))
    assert find_damage(step) == f"{MANIFEST} names {name!r}, which is not a file inside the checkpoint"


def test_only_regular_files_are_read(copy: Path, tmp_path: Path) -> None:
    step = copy / "checkpoints" / "10"
    for odd in (MANIFEST, "config/metadata", "inference/_METADATA", "density.npz"):
        for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(tmp_path)):
            whole = (step / odd).read_bytes() if (step / odd).exists() else None
            (step / odd).unlink(missing_ok=True)
            make(step / odd)
            assert find_damage(step) == f"{odd} is a link or no regular file"
            (step / odd).unlink()
            if whole is not None:
                (step / odd).write_bytes(whole)
    assert find_damage(step) is None


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "inference/_METADATA"])
def test_no_file_of_an_older_checkpoint_makes_orbax_wait(tiny_config: Config, copy: Path, name: str) -> None:
    """Orbax opens the metadata of every checkpoint in the folder."""
    odd = copy / "checkpoints" / "5" / name
    odd.unlink()
    os.mkfifo(odd)
    for read in (
        lambda: load_model(copy),
        lambda: load_model(copy / "checkpoints" / "10"),
        lambda: train(tiny_config, copy),
    ):
        with pytest.raises(CheckpointError, match=rf"5/{name} is a link or no regular file: remove its checkpoint"):
            read()
    odd.unlink()
    with odd.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CheckpointError, match="has more than 67108864 bytes"):
        load_model(copy)


def test_metadata_is_bounded_also_where_a_checksum_covers_it(copy: Path) -> None:
    """A stranger lists the checksums of what he likes."""
    step = copy / "checkpoints" / "10"
    with (step / "config" / "metadata").open("r+b") as file:
        file.truncate(2**26 + 1)
    write_manifest(step)
    with pytest.raises(CheckpointError, match=r"10/config/metadata has more than 67108864 bytes"):
        load_model(copy)
    (step / MANIFEST).unlink()
    assert find_damage(step) == "config/metadata has more than 67108864 bytes"


def test_a_file_of_holes_is_not_hashed(copy: Path) -> None:
    """A terabyte of zeros costs its maker no bytes, and its reader hours of hashing."""
    step = copy / "checkpoints" / "10"
    file = largest(step / "inference")
    with file.open("r+b") as opened:
        opened.truncate(2**40)
    name = file.relative_to(step).as_posix()
    listed = json.loads((step / MANIFEST).read_text())
    listed["files"][name]["bytes"] = 2**40
    (step / MANIFEST).write_text(json.dumps(listed))
    assert find_damage(step) == f"{name} is mostly holes"


@pytest.mark.parametrize("name", ["inference/manifest.ocdbt", "inference/array_metadatas/process_0", "inference/d"])
def test_damage_under_matching_checksums_is_one_line(copy: Path, tmp_path: Path, name: str) -> None:
    """A stranger may write any checksums; Orbax's threads print tracebacks on such files."""
    step = copy / "checkpoints" / "10"
    file = largest(step / name) if (step / name).is_dir() else step / name
    file.write_bytes(np.random.default_rng(0).bytes(file.stat().st_size))
    (step / MANIFEST).unlink()
    write_manifest(step)
    code = f"import sys\nfrom ecvae_jax.cli.main import main\nsys.exit(main(['info', {str(step)!r}]))"
    process = Forked(code, tmp_path / "log")
    assert process.wait() == 1
    lines = [line for line in process.text().splitlines() if line and not line.startswith(("I0", "WARNING"))]
    assert len(lines) == 1
    assert "cannot be read: " in lines[0]


def test_folders_whose_names_are_no_steps_are_not_checkpoints(copy: Path) -> None:
    for name in ("²", "٣", "3000000000", "007", "9" * 200):
        shutil.copytree(copy / "checkpoints" / "5", copy / "checkpoints" / name)
    assert sorted(stored_steps(copy / "checkpoints")) == [5, 10]
    assert load_model(copy).step == 10
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        load_model(copy / "checkpoints" / "²")


def test_links_in_a_workdir_are_not_written_through(tiny_config: Config, copy: Path, tmp_path: Path) -> None:
    for name in (LOCK, "metrics.jsonl"):
        victim = tmp_path / "victim"
        victim.write_text("mine\n")
        for make in (lambda path: path.symlink_to(tmp_path / "victim"), os.mkfifo):
            shutil.rmtree(copy / "checkpoints" / "10", ignore_errors=True)
            whole = (copy / name).read_bytes()
            (copy / name).unlink()
            make(copy / name)
            with pytest.raises(WorkdirError, match=f"{name} is a link or no regular file: a training does not write"):
                train(tiny_config, copy)
            (copy / name).unlink()
            (copy / name).write_bytes(whole)
        assert victim.read_text() == "mine\n"


@pytest.mark.parametrize("act", ["moved", "deleted", "replaced"])
def test_workdir_moved_or_deleted_during_a_training_stops_it(tiny_config: Config, copy: Path, act: str) -> None:
    """Orbax would create the folder again: the checkpoints would be split over two folders."""
    shutil.rmtree(copy / "checkpoints" / "10")

    def lose() -> None:
        if act == "deleted":
            shutil.rmtree(copy)
        else:
            copy.rename(copy.with_name("moved"))
        if act == "replaced":
            shutil.copytree(copy.with_name("moved"), copy)

    with pytest.raises(LostFolderError, match=r"copy\S* was moved, deleted or replaced while its training ran"):
        train(tiny_config, copy, on_step=at_step(7, lose))
    if act != "replaced":
        assert not copy.exists()
    if act == "moved":
        assert train(tiny_config, copy.with_name("moved")).finished


def test_training_resumes_from_the_one_before_to_the_same_end(
    tiny_config: Config, tiny_workdir: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(copy / "checkpoints" / "10")
    assert train(tiny_config, copy).finished
    said = capsys.readouterr().err
    assert "checkpoints/10 is damaged: inference" in said
    assert f"going back to step 5; the damaged one was moved to {copy / SET_ASIDE / '10'}" in said
    assert find_damage(copy / SET_ASIDE / "10") is not None
    assert_same(restored(tiny_config, copy), restored(tiny_config, tiny_workdir))


def test_damaged_ones_are_kept_under_names_of_their_own(copy: Path) -> None:
    folder = copy / "checkpoints"
    shutil.copytree(folder / "10", copy / "spare")
    truncate(folder / "10")
    assert len(set_damaged_aside(folder)) == 1
    shutil.move(copy / "spare", folder / "10")
    truncate(folder / "10")
    assert len(set_damaged_aside(folder)) == 1
    assert sorted(path.name for path in (copy / SET_ASIDE).iterdir()) == ["10", "10-2"]
    assert set_damaged_aside(folder) == []
    assert choose_checkpoint(folder).step == 5


def test_where_none_is_whole_nothing_is_overwritten(tiny_config: Config, copy: Path) -> None:
    for step in ("5", "10"):
        truncate(copy / "checkpoints" / step)
    for attempt in (lambda: train(tiny_config, copy), lambda: load_model(copy)):
        with pytest.raises(CheckpointError, match=r"no checkpoint in it is intact \(10: inference/.*; 5: inference/"):
            attempt()
    assert sorted(path.name for path in (copy / "checkpoints").iterdir() if path.name.isdigit()) == ["10", "5"]


def test_checkpoint_of_an_older_version_has_no_list_and_is_taken(copy: Path, tiny_workdir: Path) -> None:
    step = copy / "checkpoints" / "10"
    (step / MANIFEST).unlink()
    facts = json.loads((step / "config" / "metadata").read_text())
    del facts["checksums"]
    (step / "config" / "metadata").write_text(json.dumps(facts))
    model = load_model(copy)
    assert model.step == 10
    assert_same(model.params, load_model(tiny_workdir).params)


def test_second_training_in_a_workdir_is_refused(tiny_config: Config, copy: Path) -> None:
    with lock_workdir(copy):
        owner = rf"is being trained by process {os.getpid()} on \S+ since [-\d]+ [:\d]+: wait for it, stop it, or"
        with pytest.raises(WorkdirError, match=owner):
            train(tiny_config, copy)
        assert load_model(copy).step == 10  # reading is free
    assert train(tiny_config, copy).finished


def test_lock_of_a_killed_training_is_gone(tmp_path: Path) -> None:
    holding = (
        "import time; from pathlib import Path; from ecvae_jax.training.workdir import lock_workdir\n"
        f"with lock_workdir(Path({str(tmp_path)!r})):\n    print('held', flush=True); time.sleep(600)\n"
    )
    process = Forked(holding, tmp_path / "log")
    wait_until(lambda: process.text() == "held\n", process)
    with pytest.raises(WorkdirError, match=f"by process {process.pid} on"), lock_workdir(tmp_path):
        pass
    process.kill()
    assert (tmp_path / LOCK).read_text().startswith(f"process {process.pid} ")
    with lock_workdir(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} ")


@pytest.mark.parametrize("folder", ["/sys/kernel", "/sys/kernel/run"])  # even root cannot make files here
def test_workdir_that_cannot_be_written_is_one_line(tiny_config: Config, folder: str) -> None:
    with pytest.raises(WorkdirError) as caught:
        train(tiny_config, Path(folder))
    assert str(caught.value).startswith(f"{folder} cannot be written: ")
    assert "; no checkpoint is stored yet: make it writable, or use another --workdir" in str(caught.value)


def test_full_disk_costs_nothing_but_the_steps_since_the_last_checkpoint(
    tiny_config: Config,
    tiny_workdir: Path,
    copy: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file may not grow beyond 90 kB, as on a full disk; Orbax writes larger ones."""
    shutil.rmtree(copy / "checkpoints" / "10")
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda caught: unraisable.append(caught.exc_value))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, hard))
    try:
        with pytest.raises(WorkdirError) as caught:
            train(tiny_config, copy)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    line = str(caught.value)
    assert line.startswith(f"{copy} cannot be written: File too large (")
    assert "; the last checkpoint, step 5, is valid: free disk space, then rerun the same command" in line
    assert "Traceback" not in capfd.readouterr().err
    assert unraisable == []  # such as "Event loop is closed" of TensorStore's threads
    assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == ["5"]
    assert train(tiny_config, copy).finished
    assert_same(restored(tiny_config, copy), restored(tiny_config, tiny_workdir))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"files": {"a": {"bytes": 1e400, "sha256": "0"}}}', '{"files": ' + "[" * 100_000]
)
def test_checksums_that_are_nested_or_endless_are_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "checksums.json").write_text(text)
    assert find_damage(tmp_path) == "checksums.json is not a list of checksums"
    (tmp_path / "checksums.json").unlink()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "metadata").write_text("[" * 100_000)
    assert "missing or unreadable" in str(find_damage(tmp_path))
