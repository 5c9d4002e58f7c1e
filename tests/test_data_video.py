"""Frames of videos: the right ones, each once, and one line for each failure."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face, face_landmarks, write_landmarks

from ecvae_jax.data.errors import DataError, MissingExtraError
from ecvae_jax.data.photos.photo import BadPhotoError
from ecvae_jax.data.photos.sources import open_source
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare

av = pytest.importorskip("av", reason="needs the extra video")
FRAMES = 20


def write_video(file: Path, frames: int = FRAMES) -> None:
    """Writes a video of a drawn face on a background that lightens with each frame."""
    face = np.asarray(draw_face(64))
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 64, "yuv420p", 4_000_000
        for number in range(frames):
            picture = face.copy()
            picture[:10] = 10 + 5 * number
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def brightness(content) -> int:
    return round((float(content[:8].mean()) - 10) / 5)


def test_every_nth_frame_is_a_photo(tmp_path: Path):
    write_video(tmp_path / "clip.mp4")
    source = open_source(f"video:{tmp_path / 'clip.mp4'}", PrepareConfig(frame_step=3))
    assert [photo.name for photo in source.photos] == [f"clip.mp4#{n:06d}" for n in range(0, FRAMES, 3)]
    assert {photo.identity for photo in source.photos} == {"clip"}
    loaded = list(source.load(0))
    assert [brightness(one.content) for one in loaded] == list(range(0, FRAMES, 3))
    assert [one.tags["time"] for one in loaded][:2] == [0.0, 0.3]
    assert [brightness(one.content) for one in source.load(4)] == [12, 15, 18]


def test_all_videos_below_a_folder_are_found_and_other_files_skipped(tmp_path: Path):
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "b.mp4", 6)
    write_video(tmp_path / "a.avi", 4)
    (tmp_path / "in" / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "note.txt").write_text("x")
    source = open_source(f"video:{tmp_path}", PrepareConfig(frame_step=2))
    assert [photo.identity for photo in source.photos] == ["a", "a", "in/b", "in/b", "in/b"]
    assert dict(source.skipped)["note.txt"] == "not a video suffix"
    assert dict(source.skipped)["in/bad.mp4"].startswith("unreadable video")
    assert [brightness(one.content) for one in source.load(1)] == [2, 0, 2, 4]


def test_the_frames_after_damage_get_a_reason(tmp_path: Path):
    write_video(tmp_path / "clip.avi", 40)
    source = open_source(f"video:{tmp_path / 'clip.avi'}")
    data = (tmp_path / "clip.avi").read_bytes()
    (tmp_path / "clip.avi").write_bytes(data[: len(data) // 2])
    contents = [one.content for one in source.load(0)]
    assert len(contents) == 40
    assert isinstance(contents[0], np.ndarray)
    assert isinstance(contents[-1], BadPhotoError)
    assert str(contents[-1]).startswith("damaged: frame cannot be decoded")


def test_frames_become_records(tmp_path: Path):
    write_video(tmp_path / "clip.mp4")
    rows = {f"clip.mp4#{n:06d}": face_landmarks(64) for n in range(FRAMES)}
    write_landmarks(tmp_path / "rows.csv", rows)
    options = PrepareConfig(size=32, workers=2, landmarks=str(tmp_path / "rows.csv"))
    summary = prepare(f"video:{tmp_path / 'clip.mp4'}", tmp_path / "out", options)
    assert (summary.found, summary.kept, summary.identities) == (FRAMES, FRAMES, 1)


def test_a_file_that_is_not_a_video_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match="no such file or folder"):
        open_source(f"video:{tmp_path / 'gone.mp4'}")
    (tmp_path / "bad.mp4").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no readable frame: bad\.mp4: unreadable video"):
        open_source(f"video:{tmp_path / 'bad.mp4'}")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ecvae-jax\[video\]'"):
        open_source(f"video:{tmp_path / 'bad.mp4'}")
