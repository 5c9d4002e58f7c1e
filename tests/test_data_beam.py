"""`ecvae prepare --beam-runner`: the bytes of a local preparation, also after a kill, and clear refusals."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from drawn_faces import draw_face, face_landmarks, make_photos, write_landmarks
from test_data_lots import digest
from test_data_photo import bad_files
from test_data_prepare import report

from ecvae_jax.data.errors import DataError, MissingExtraError
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.prepare.lots import PHOTOS, read_jobs
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare

FAST = PrepareConfig(size=32, workers=1)
BEAM = replace(FAST, beam_runner="DirectRunner")
needs_beam = pytest.mark.skipif(not importlib.util.find_spec("apache_beam"), reason="needs extra beam")


@needs_beam
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_bytes_are_those_of_a_local_preparation(tmp_path: Path, processes: int):
    photos = tmp_path / "photos"
    rows = make_photos(photos, people=26, shots=4)
    rows |= {name: face_landmarks(64) for name in bad_files(photos)}
    write_landmarks(photos / "landmarks68.csv", rows)
    plain = prepare(str(photos), tmp_path / "plain", FAST)
    summary = prepare(str(photos), tmp_path / "beam", replace(BEAM, workers=processes))
    assert len(load_faces(tmp_path / "beam", "train")) > 2 * PHOTOS
    assert str(summary).splitlines()[:-1] == str(plain).splitlines()[:-1]  # all but the speed
    assert digest(tmp_path / "beam") == digest(tmp_path / "plain")
    assert not (tmp_path / ".beam.partial").exists()


@needs_beam
def test_a_photo_that_takes_too_long_is_rejected_by_beam_too(tmp_path: Path):
    """Pillow searches for JPEG's next marker byte by byte."""
    photos = tmp_path / "photos"
    rows = make_photos(photos, people=2, shots=1)
    rows["slow.jpg"] = face_landmarks(64)
    (photos / "slow.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(40_000_000))
    write_landmarks(photos / "landmarks68.csv", rows)
    assert prepare(str(photos), tmp_path / "out", replace(BEAM, max_seconds=0.2)).kept == 2
    reason = "takes too long: more than 0.2 s, the limit (max_seconds)"
    assert report(tmp_path / "out")["slow.jpg"]["reason"] == reason


@needs_beam
@pytest.mark.slow  # Beam with processes
@pytest.mark.skipif(not importlib.util.find_spec("dlib"), reason="needs extra dlib")
def test_faces_are_detected_by_beam(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    for number in range(4):
        draw_face(160, shift=3.0 * number).save(tmp_path / "photos" / f"Ann_{number}.png")
    draw_face(160).resize((4, 4)).save(tmp_path / "photos" / "Ben_1.png")
    assert prepare(str(tmp_path / "photos"), tmp_path / "plain", FAST).kept == 4
    assert prepare(str(tmp_path / "photos"), tmp_path / "beam", replace(BEAM, workers=2)).kept == 4
    assert digest(tmp_path / "beam") == digest(tmp_path / "plain")


@needs_beam
def test_several_files_per_split_are_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tensorflow_datasets.core.utils.shard_utils import ShardConfig

    monkeypatch.setattr(ShardConfig, "min_shard_size", 16_384)
    make_photos(tmp_path / "photos", people=21, shots=3)
    prepare(str(tmp_path / "photos"), tmp_path / "plain", FAST)
    prepare(str(tmp_path / "photos"), tmp_path / "beam", BEAM)
    assert len(list((tmp_path / "beam").glob("*train*"))) > 1
    assert digest(tmp_path / "beam") == digest(tmp_path / "plain")
    faces = load_faces(tmp_path / "beam", "train")
    assert faces.names == sorted(faces.names)


@pytest.mark.slow
@needs_beam
def test_a_killed_preparation_resumes_with_the_missing_lots(tmp_path: Path):
    make_photos(tmp_path / "photos", people=40, shots=3)
    prepare(str(tmp_path / "photos"), tmp_path / "whole", FAST)
    words = ["prepare", str(tmp_path / "photos"), str(tmp_path / "out"), "--size", "32", "--workers", "1"]
    words += ["--beam-runner", "DirectRunner"]
    run = f"import sys; from ecvae_jax.cli.main import main; sys.exit(main({words!r}))"
    kill = (
        "import os, signal; from pathlib import Path\n"
        "from ecvae_jax.data.prepare import beam; put = beam.put_outcomes\n"
        "def dying(folder, number, outcomes):\n    put(folder, number, outcomes)\n"
        "    if len(list(Path(folder).glob('*.faces'))) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "beam.put_outcomes = dying\n"
    )
    killed = subprocess.run([sys.executable, "-c", kill + run], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    shown = subprocess.run([sys.executable, "-c", run], check=True, capture_output=True, text=True)
    assert "resuming after" in shown.stderr
    assert "go to Beam, in 2 lots" in shown.stderr
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


@needs_beam
def test_the_workers_look_where_they_can_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command sees the folder as `here`, the workers see it as `there`."""
    from ecvae_jax.data.prepare import beam

    seen = []

    def watching(folder, number):
        for job in read_jobs(folder, number):
            seen.append(job.content)
            yield job

    monkeypatch.setattr(beam, "read_jobs", watching)
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    make_photos(tmp_path / "here" / "photos", people=2)
    options = replace(BEAM, beam_paths=f"{tmp_path / 'here'}={tmp_path / 'there'}")
    assert prepare(str(tmp_path / "here" / "photos"), tmp_path / "here" / "out", options).kept == 4
    assert {path.parent for path in seen} == {tmp_path / "there" / "photos"}
    prepare(str(tmp_path / "here" / "photos"), tmp_path / "plain", FAST)
    assert digest(tmp_path / "there" / "out") == digest(tmp_path / "plain")
    with pytest.raises(DataError, match=r"is not in .*here, the folder of beam_paths"):
        prepare(str(tmp_path / "here" / "photos"), tmp_path / "elsewhere", options)
    assert not list(tmp_path.glob(".elsewhere*"))


@needs_beam
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beam_runner": "Foo"}, "beam_runner='Foo': Unexpected pipeline runner: Foo; give DirectRunner"),
        ({"beam_runner": "no.such.Runner"}, "beam_runner='no.such.Runner': No module named 'no'; give DirectRunner"),
        ({"beam_options": ("direct_number=2",)}, "beam_options='direct_number=2': Discarding unparseable args"),
        ({"beam_options": ("direct_num_workers=many",)}, "beam_options='direct_num_workers=many': Beam refuses them"),
    ],
)
def test_a_runner_or_option_that_beam_does_not_know_is_refused(tmp_path: Path, wrong: dict, message: str):
    make_photos(tmp_path / "photos", people=2)
    with pytest.raises(DataError) as error:
        prepare(str(tmp_path / "photos"), tmp_path / "out", replace(BEAM, **wrong))
    assert str(error.value).startswith(message)
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


@needs_beam
def test_photos_that_are_no_files_are_refused(tmp_path: Path):
    make_photos(tmp_path / "photos", people=2)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(tmp_path / "photos" / "landmarks68.csv", "landmarks68.csv")
        for photo in (tmp_path / "photos").glob("*.png"):
            archive.write(photo, photo.name)
    landmarks = str(tmp_path / "photos" / "landmarks68.csv")
    with pytest.raises(DataError, match=r"source 'photos.zip': Beam's workers open photos by their paths.*unpack it"):
        prepare(str(tmp_path / "photos.zip"), tmp_path / "out", replace(BEAM, landmarks=landmarks))
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "photos.zip"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beam_options": ("a=b",)}, r"beam_options=\('a=b',\): it needs beam_runner"),
        ({"beam_paths": "/a=gs://b"}, "beam_paths='/a=gs://b': it needs beam_runner"),
        ({"beam_runner": "DirectRunner", "beam_paths": "/a"}, "beam_paths='/a': write FOLDER=URL"),
        ({"beam_runner": "DirectRunner", "beam_paths": "=gs://b"}, "beam_paths='=gs://b': write FOLDER=URL"),
    ],
)
def test_beam_options_that_do_not_fit_are_refused(wrong: dict, message: str):
    with pytest.raises(DataError, match=message):
        PrepareConfig(**wrong)


def test_without_beam_one_line_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_photos(tmp_path / "photos", people=2)
    monkeypatch.delitem(sys.modules, "ecvae_jax.data.prepare.beam", raising=False)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(MissingExtraError, match=r"Apache Beam is not installed: `pip install 'ecvae-jax\[beam\]'`"):
        prepare(str(tmp_path / "photos"), tmp_path / "out", BEAM)
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


@needs_beam
def test_beam_knows_all_options_that_the_docs_name(tmp_path: Path):
    from ecvae_jax.data.prepare.beam import BeamWork

    text = (Path(__file__).parents[1] / "docs" / "preparing.md").read_text().replace("\\\n", " ")
    commands = [line.split() for line in text.splitlines() if "--beam-options" in line and line.startswith("    ")]
    assert len(commands) == 6
    for words in commands:
        options = tuple(word for word in words[words.index("--beam-options") + 1 :] if "=" in word)
        runner = words[words.index("--beam-runner") + 1]
        BeamWork(PrepareConfig(beam_runner=runner, beam_options=options), tmp_path)


@pytest.mark.slow  # two processes import Beam
@needs_beam
def test_the_command_takes_several_options(tmp_path: Path):
    from ecvae_jax.cli.main import main

    make_photos(tmp_path / "photos", people=2)
    words = ["prepare", str(tmp_path / "photos"), str(tmp_path / "out"), "--beam-runner", "DirectRunner"]
    assert main([*words, "--beam-options", "direct_num_workers=1", "direct_running_mode=in_memory"]) == 0
    assert main([*words, "--overwrite", "--beam-options", "direct_number=1"]) == 1
