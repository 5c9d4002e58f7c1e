"""Frames of videos: the right ones, each once, and one line for each failure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face, face_landmarks, write_landmarks
from support.videos import set_display_matrix

from ecvae_jax.data.errors import DataError, MissingExtraError
from ecvae_jax.data.photos.photo import BadPhotoError
from ecvae_jax.data.photos.sources import open_source, video
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare
from ecvae_jax.video.read import open_driver

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


def test_what_is_before_the_damaged_end_of_a_video_is_kept_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The listing breaks off after 12 packets, as on a network drive that is lost."""
    write_video(tmp_path / "clip.avi")
    whole = video._packets

    def broken(file: Path) -> Iterator[bool]:
        yield from islice(whole(file), 12)
        raise OSError("Input/output error")

    monkeypatch.setattr(video, "_packets", broken)
    source = open_source(f"video:{tmp_path / 'clip.avi'}")
    assert [brightness(one.content) for one in source.load(0)] == list(range(12))
    assert "clip.avi is damaged after 12 frames: Input/output error; what is before is used" in source.facts


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


QUADRANTS = np.zeros((48, 96, 3), np.uint8)
QUADRANTS[:24, :48] = 250, 20, 20
QUADRANTS[:24, 48:] = 20, 250, 20
QUADRANTS[24:, :48] = 20, 20, 250
QUADRANTS[24:, 48:] = 240, 240, 240


def write_quadrants(file: Path, **settings: object) -> None:
    """Writes two frames of four colors; `settings` are attributes of the stream."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 48, "yuv420p", 4_000_000
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(QUADRANTS, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), QUADRANTS),
        ((0, 1, -1, 0), np.rot90(QUADRANTS, -1)),
        ((-1, 0, 0, -1), np.rot90(QUADRANTS, 2)),
        ((0, -1, 1, 0), np.rot90(QUADRANTS, 1)),
        ((-1, 0, 0, 1), QUADRANTS[:, ::-1]),
        ((1, 0, 0, -1), QUADRANTS[::-1]),
        ((0, 1, 1, 0), QUADRANTS.transpose(1, 0, 2)),
    ],
)
def test_a_frame_is_turned_as_players_show_it(tmp_path: Path, matrix: tuple, shown: np.ndarray):
    write_quadrants(tmp_path / "clip.mp4")
    set_display_matrix(tmp_path / "clip.mp4", *matrix)
    for loaded in open_source(f"video:{tmp_path / 'clip.mp4'}").load(0):
        assert isinstance(loaded.content, np.ndarray)
        assert loaded.content.shape == shown.shape
        assert np.abs(loaded.content.astype(int) - shown).mean() < 8


def test_a_display_matrix_of_an_odd_angle_is_refused(tmp_path: Path):
    write_quadrants(tmp_path / "clip.mp4")
    set_display_matrix(tmp_path / "clip.mp4", 0.7071, 0.7071, -0.7071, 0.7071)
    assert all("odd angle" in str(one.content) for one in open_source(f"video:{tmp_path / 'clip.mp4'}").load(0))


@pytest.mark.parametrize(("aspect", "shape"), [((2, 1), (48, 192)), ((1, 2), (96, 96)), ((64, 45), (48, 137))])
def test_pixels_that_are_not_square_become_square(tmp_path: Path, aspect: tuple[int, int], shape: tuple[int, int]):
    write_quadrants(tmp_path / "clip.mp4", sample_aspect_ratio=Fraction(*aspect))
    for loaded in open_source(f"video:{tmp_path / 'clip.mp4'}").load(0):
        assert isinstance(loaded.content, np.ndarray)
        assert loaded.content.shape == (*shape, 3)
        assert abs(loaded.content[:10, -10:, 1].mean() - 250) < 12  # the upper right quarter stays there


RED = (200, 60, 30)


def write_red(file: Path, width: int, height: int, matrix: str, **stated: int) -> None:
    """Writes one frame of one color by that matrix; `stated` are attributes of the stream."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 8_000_000
        for name, value in stated.items():
            setattr(stream.codec_context, name, value)
        frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), RED, np.uint8), format="rgb24")
        coded = frame.reformat(format="yuv420p", dst_colorspace=matrix)
        plain = av.VideoFrame(width, height, "yuv420p")  # states nothing
        for target, plane in zip(plain.planes, coded.planes, strict=True):
            target.update(bytes(plane))
        container.mux(stream.encode(plain))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("size", "matrix", "stated", "assumed"),
    [
        ((64, 64), "ITU601", {}, "BT.601"),
        ((1280, 32), "ITU709", {}, "BT.709"),
        ((64, 592), "ITU709", {}, "BT.709"),
        ((64, 64), "ITU709", {"colorspace": 1}, None),
        ((1280, 32), "ITU601", {"colorspace": 6}, None),
    ],
)
def test_the_color_matrix_is_the_stated_one_or_that_of_the_size(
    tmp_path: Path, size: tuple[int, int], matrix: str, stated: dict, assumed: str | None
):
    write_red(tmp_path / "clip.mkv", *size, matrix, **stated)
    source = open_source(f"video:{tmp_path / 'clip.mkv'}")
    (loaded,) = source.load(0)
    assert isinstance(loaded.content, np.ndarray)
    assert np.abs(loaded.content.astype(int) - RED).max() <= 4  # the other matrix is 12 levels off
    note = f"no color matrix is stated, {assumed} is assumed by the size"
    assert [fact for fact in source.facts if "matrix" in fact] == ([f"1 of 1 videos: {note}"] if assumed else [])
    assert open_driver(tmp_path / "clip.mkv").notes == ([f"{tmp_path / 'clip.mkv'}: {note}"] if assumed else [])


def test_a_color_matrix_that_is_not_known_is_refused(tmp_path: Path):
    write_red(tmp_path / "clip.mkv", 64, 64, "ITU601", colorspace=8)
    (loaded,) = open_source(f"video:{tmp_path / 'clip.mkv'}").load(0)
    assert str(loaded.content) == "color matrix 8 (ITU-T H.273) of the video: convert it to BT.709"


def test_a_video_of_high_dynamic_range_is_refused(tmp_path: Path):
    write_quadrants(tmp_path / "clip.mkv", color_trc=16, color_primaries=9, colorspace=9)
    reasons = {str(one.content) for one in open_source(f"video:{tmp_path / 'clip.mkv'}").load(0)}
    assert reasons == {"high dynamic range or BT.2020 video: convert it to BT.709"}


@pytest.mark.parametrize("stated", [{"color_trc": 8}, {"color_trc": 9}, {"color_primaries": 12}])
def test_a_video_of_other_curves_or_primaries_is_refused(tmp_path: Path, stated: dict[str, int]):
    write_quadrants(tmp_path / "clip.mkv", **stated)
    contents = [one.content for one in open_source(f"video:{tmp_path / 'clip.mkv'}").load(0)]
    assert all(isinstance(content, BadPhotoError) for content in contents)
    assert "of ITU-T H.273): convert it to BT.709" in str(contents[0])


def test_a_file_of_sound_has_no_pictures(tmp_path: Path):
    import av

    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    with pytest.raises(DataError, match="no video stream; give a file with moving pictures"):
        open_source(f"video:{tmp_path / 'sound.mp4'}")


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.mp4\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile real.mp4\n",
    ],
)
def test_a_playlist_is_no_video(tmp_path: Path, text: str):
    write_video(tmp_path / "real.mp4", 4)
    (tmp_path / "list.mp4").write_text(text)
    with pytest.raises(DataError, match="unreadable video"):
        open_source(f"video:{tmp_path / 'list.mp4'}")
