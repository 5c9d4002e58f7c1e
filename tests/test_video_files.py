"""What users complain of in the files of videos: sideways, cut off, without pictures, wrong colors, squeezed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support.videos import (
    COLORS,
    color_card,
    colors_of,
    moving_pictures,
    set_display_matrix,
    write_clip,
    write_song,
)

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.cli.main import main
from ecvae_jax.data.detect.detector import DetectedFace
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.photos.sources import open_source
from ecvae_jax.model.model import Model
from ecvae_jax.video.options import VideoConfig
from ecvae_jax.video.read import Driver, open_driver
from ecvae_jax.video.transfer import transfer_video
from ecvae_jax.video.write import write_video

av = pytest.importorskip("av", reason="needs the extra video")
SIZE, COUNT, RATE = 64, 8, 20


@pytest.fixture(scope="module")
def model(tiny_workdir: Path) -> Model:
    return load_model(tiny_workdir)


class Given:
    """A stand-in for a detector: the landmarks of a rendered head, stretched over each frame. It keeps the frames."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def __call__(self, frame: np.ndarray) -> list[DetectedFace]:
        self.seen.append(frame)
        points = (load_faces("rendered", "test").landmarks[0] * frame.shape[1::-1]).astype(np.float32)
        return [DetectedFace((*points.min(0).tolist(), *points.max(0).tolist()), points, len(points))]


def drive(model: Model, driver: Path, out: Path) -> tuple[list[str], list[np.ndarray], Given]:
    """Returns the notes, what is at the left of the written frames, and what the detector saw."""
    find = Given()
    notes = transfer_video(model, "rendered:test:24", driver, out, VideoConfig(side_by_side=True), find=find)
    frames = [frame.pixels for frame in open_driver(out)]
    height = frames[0].shape[0]
    return notes, [frame[:, :-height] for frame in frames], find


def read(driver: Driver) -> list[np.ndarray]:
    return [frame.pixels for frame in driver]


# --- Rotation and pixel shape


def test_a_video_held_upright_stays_upright(model: Model, tmp_path: Path) -> None:
    """A phone stores portraits sideways, with a matrix that turns them."""
    upright = np.asarray(load_faces("rendered", "test").image(0, SIZE))
    tall = np.pad(upright, ((0, SIZE // 2), (0, 0), (0, 0)))
    file = write_clip(tmp_path / "phone.mp4", [np.ascontiguousarray(np.rot90(tall))] * COUNT)
    set_display_matrix(file, 0, 1, -1, 0)
    assert np.abs(read(open_driver(file))[0].astype(int) - tall).mean() < 3
    _, left, find = drive(model, file, tmp_path / "o.mp4")
    assert {frame.shape for frame in find.seen} == {tall.shape}
    height, width = left[0].shape[:2]
    assert height / width == pytest.approx(1.5, abs=0.05)
    small = tall[:: tall.shape[0] // height, :: tall.shape[0] // height][:height, :width]
    turned = np.rot90(small, 2)
    off = [np.abs(left[1][: len(one), : one.shape[1]].astype(int) - one).mean() for one in (small, turned)]
    assert off[0] < 0.5 * off[1]
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert [frame.side_data.get("DISPLAYMATRIX") for frame in container.decode(video=0)] == [None] * COUNT


@pytest.mark.parametrize(("aspect", "shape"), [((2, 1), (64, 128)), ((1, 2), (128, 64)), ((64, 45), (64, 91))])
def test_pixels_that_are_not_square_keep_the_face_s_shape(
    aspect: tuple[int, int], shape: tuple[int, int], model: Model, tmp_path: Path
) -> None:
    pictures = moving_pictures(COUNT, SIZE)
    file = write_clip(tmp_path / "tape.mkv", pictures, sample_aspect_ratio=Fraction(*aspect))
    _, left, find = drive(model, file, tmp_path / "o.mp4")
    assert {frame.shape[:2] for frame in find.seen} == {shape}
    assert left[0].shape[1] / left[0].shape[0] == pytest.approx(shape[1] / shape[0], rel=0.04)
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio in (None, Fraction(1), Fraction(0))


# --- Damage


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("clip.mp4", "mpeg4", {"movflags": "faststart"}),
        ("clip.mp4", "libx264", {"movflags": "faststart"}),
        ("clip.mkv", "mpeg4", {}),
        ("clip.webm", "libvpx-vp9", {}),
        ("clip.avi", "mpeg4", {}),
    ],
)
def test_what_is_before_a_cut_is_used_and_the_loss_is_counted(
    name: str, codec: str, options: dict[str, str], tmp_path: Path
) -> None:
    file = write_clip(tmp_path / name, moving_pictures(40, SIZE), codec, options=options)
    whole = open_driver(file)
    there = {frame.time: frame.pixels for frame in whole}
    assert len(there) == 40
    assert not [note for note in whole.notes if "lost" in note]
    data = file.read_bytes()
    file.write_bytes(data[: int(0.6 * len(data))])
    cut = open_driver(file)
    kept = list(cut)
    assert 5 < len(kept) < 35
    for frame in kept:
        np.testing.assert_array_equal(frame.pixels, there[frame.time])
    lost = 40 - len(kept)
    (note,) = [note for note in cut.notes if "lost" in note]
    stated = int(note.split(" after them are lost")[0].split()[-1])
    assert note == f"{file}: the file is cut off or damaged; {len(kept)} frames are used, {stated} after them are lost"
    assert abs(stated - lost) <= (name == "clip.avi")  # this muxer states one frame more
    list(cut)
    assert len([note for note in cut.notes if "lost" in note]) == 1  # side by side reads it again


def test_a_damaged_end_is_drawn_so_far_with_its_audio(model: Model, tmp_path: Path) -> None:
    options = {"movflags": "faststart"}
    file = write_clip(tmp_path / "d.mp4", moving_pictures(20, SIZE), audio=True, options=options)
    data = file.read_bytes()
    file.write_bytes(data[: int(0.7 * len(data))])
    notes, left, find = drive(model, file, tmp_path / "o.mp4")
    (note,) = [note for note in notes if "lost" in note]
    assert note.endswith(f"{len(left)} frames are used, {20 - len(left)} after them are lost")
    assert len(find.seen) == len(left) > 5
    assert open_driver(tmp_path / "o.mp4").has_audio


def test_the_frames_after_damaged_bytes_are_counted(tmp_path: Path) -> None:
    file = write_clip(tmp_path / "d.mp4", moving_pictures(40, SIZE), "libx264")
    data = bytearray(file.read_bytes())
    start, end = int(0.5 * len(data)), int(0.7 * len(data))
    data[start:end] = np.random.default_rng(0).bytes(end - start)
    file.write_bytes(bytes(data))
    driver = open_driver(file)
    kept = len(read(driver))
    assert 5 < kept < 35
    (note,) = [note for note in driver.notes if "lost" in note]
    assert f"damaged: Invalid data found when processing input; {kept} frames are used, {40 - kept} after" in note


@pytest.mark.parametrize("video", ["cut.mp4", "song.mp4", "plain.m4a"])
def test_a_file_that_cannot_drive_is_refused_in_one_line(video: str, tmp_path: Path, capsys) -> None:
    file, out = tmp_path / video, tmp_path / "o.mp4"
    if video == "cut.mp4":
        write_clip(file, moving_pictures(COUNT, SIZE))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        why = "not a video: Invalid data found when processing input; "
        why += "it is cut off: the index of an MP4 is at its end. Copy it again"
    else:
        write_song(file, moving_pictures(1, SIZE)[0] if video == "song.mp4" else None)
        why = "no video stream; give a file with moving pictures"
    assert main(["transfer", "--source", "rendered:test:0", "--target", str(file), "--out", str(out)]) == 1
    assert capsys.readouterr().err == f"ecvae: error: {file}: {why}\n"
    assert not out.exists()
    with pytest.raises(DataError, match="no readable frame"):
        open_source(f"video:{file}")


# --- Colors


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_a_written_video_states_its_colors_and_keeps_them(suffix: str, tmp_path: Path) -> None:
    out, times = tmp_path / f"o{suffix}", [Fraction(n, 10) for n in range(3)]
    write_video(out, [color_card()] * 3, times, [Fraction(1, 10)] * 3)
    driver = open_driver(out)
    for frame in read(driver):
        assert np.abs(colors_of(frame) - COLORS).max() <= 3
    assert driver.notes == []  # nothing is assumed
    with av.open(str(out)) as container:
        context = container.streams.video[0].codec_context
        stated = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        assert [int(value) for value in stated] == [1, 1, 1, 1]  # BT.709, limited range


@pytest.mark.parametrize("levels", ["MPEG", "JPEG"], ids=["limited", "full"])
@pytest.mark.parametrize(("matrix", "number"), [("ITU601", 6), ("ITU709", 1)])
def test_colors_are_those_of_the_stated_matrix_and_range(matrix: str, number: int, levels: str, tmp_path: Path) -> None:
    stated = {"colorspace": number, "color_range": 1 if levels == "MPEG" else 2}
    file = tmp_path / "c.mkv"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "5"})
        card = color_card()
        stream.height, stream.width, stream.pix_fmt = *card.shape[:2], "yuv420p"
        for name, value in stated.items():
            setattr(stream.codec_context, name, value)
        rgb = av.VideoFrame.from_ndarray(card, format="rgb24")
        coded = rgb.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=levels)
        plain = av.VideoFrame(card.shape[1], card.shape[0], "yuv420p")  # states nothing itself
        for target, plane in zip(plain.planes, coded.planes, strict=True):
            target.update(bytes(plane))
        container.mux(stream.encode(plain))
        container.mux(stream.encode(None))
    (frame,) = read(open_driver(file))
    assert np.abs(colors_of(frame) - COLORS).max() <= 4  # another matrix or range is 12 levels off


# --- WebM


@pytest.mark.parametrize("hertz", [44100, 48000])
def test_a_webm_has_vp9_the_driver_s_times_and_its_sound_as_opus(hertz: int, tmp_path: Path) -> None:
    driver, out = tmp_path / "d.mp4", tmp_path / "o.webm"
    write_clip(driver, moving_pictures(COUNT, SIZE), audio=True, hertz=hertz)
    times = [Fraction(n, RATE) + (Fraction(1, 40) if n > 3 else 0) for n in range(COUNT)]  # variable
    notes = write_video(out, moving_pictures(COUNT, SIZE), times, [Fraction(1, RATE)] * COUNT, driver)
    assert notes == [f"{driver}: audio aac becomes opus, which webm can hold"]
    assert [frame.time for frame in open_driver(out)] == times
    with av.open(str(out)) as container:
        assert {stream.codec_context.name for stream in container.streams} == {"vp9", "opus"}
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(heard) / 48000 == pytest.approx(COUNT / RATE, abs=0.06)  # seconds; encoders pad
    middle = heard[4000:12000]
    tone = np.fft.rfftfreq(len(middle), 1 / 48000)[np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax()]
    assert tone == pytest.approx(hertz / (16 * np.pi), rel=0.02)


def test_a_missing_encoder_is_one_line_before_the_work(tmp_path: Path, monkeypatch, capsys) -> None:
    def unknown(name: str, mode: str) -> None:
        raise ValueError(name)

    monkeypatch.setattr(av, "Codec", unknown)
    out = tmp_path / "o.webm"
    assert main(["transfer", "--source", "none.jpg", "--path", "smile", "--out", str(out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ecvae: error: {out}: this PyAV was built without the encoder libvpx-vp9; ")
