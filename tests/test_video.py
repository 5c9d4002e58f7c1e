"""What users complain of in driven videos: each complaint is a test, on heads drawn at moving landmarks."""

from __future__ import annotations

import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.cli.main import main
from ecvae_jax.data.detect.detector import DetectedFace
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.photos.crop import CropBox
from ecvae_jax.structure.openings import inner_openings, without_crossing
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.structure.warp import finer, resample, smooth_map
from ecvae_jax.video import transfer as room
from ecvae_jax.video.jitter import at_rest, jitter, lag, measure_motion
from ecvae_jax.video.motion import relative_motion, within
from ecvae_jax.video.options import VideoConfig
from ecvae_jax.video.paste import Paste
from ecvae_jax.video.paths import walk
from ecvae_jax.video.read import Frame, open_driver
from ecvae_jax.video.smooth import one_euro, smooth_landmarks
from ecvae_jax.video.track import track_face

av = pytest.importorskip("av", reason="needs the extra video")
COUNT, SIZE = 12, 96
TIMES = [Fraction(n, 20) + (Fraction(1, 40) if n > 5 else 0) for n in range(COUNT)]  # variable


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, np.ndarray]:
    faces = load_faces("rendered", "test")
    return faces.image(0, SIZE), walk(faces.landmarks[0], "laugh", COUNT)


@pytest.fixture(scope="module")
def driver(head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered head that laughs, with unequal frame times and a tone."""
    image, faces = head
    file = tmp_path_factory.mktemp("video") / "driver.mp4"
    maps = smooth_map(faces, np.repeat(faces[:1], COUNT, 0), 24, pinned=True)
    drawn = np.asarray(resample(np.repeat(image[None], COUNT, 0).astype(np.float32), finer(maps, SIZE)))
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        sound = container.add_stream("aac", rate=16000, layout="mono")
        stream.width = stream.height = SIZE
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 40)
        for picture, time in zip(drawn, TIMES, strict=True):
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
            frame.pts = int(time * 40)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        tone = (8000 * np.sin(np.arange(9600) / 8)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return file


def given(faces: np.ndarray):
    """A stand-in for a detector: the known landmarks, in order."""
    rows = iter(faces * SIZE)

    def find(_: np.ndarray) -> list[DetectedFace]:
        points = next(rows).astype(np.float32)
        return [DetectedFace((*points.min(0).tolist(), *points.max(0).tolist()), points, len(points))]

    return find


@pytest.fixture(scope="module")
def model(tiny_workdir: Path):
    return load_model(tiny_workdir)


@pytest.fixture(scope="module")
def made(model, driver: Path, head) -> tuple[Path, list[str]]:
    out = driver.parent / "out.mp4"
    return out, room.transfer_video(model, "rendered:test:24", driver, out, find=given(head[1]))


def frames_of(file: Path) -> tuple[list[np.ndarray], list[Fraction]]:
    film = list(open_driver(file))
    return [frame.pixels for frame in film], [frame.time for frame in film]


def noisy(frames: int = 120, fps: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    face, times = load_faces("rendered", "test").landmarks[0], np.arange(frames) / fps
    moved = walk(face, "turn", frames // 2)
    exact = np.concatenate([np.repeat(face[None], frames - len(moved), 0), moved])
    return exact + np.random.default_rng(0).normal(0, 0.004, exact.shape).astype(np.float32), times


@pytest.mark.parametrize("fps", [15.0, 30.0, 60.0])
def test_jitter_is_halved_and_the_lag_is_below_a_frame(fps: float) -> None:
    raw, times = noisy(int(4 * fps), fps)
    smooth = smooth_landmarks(raw, times)
    found = measure_motion(raw, smooth, times)
    assert found.still > fps
    assert found.ratio <= 0.5
    assert -0.1 <= found.lag <= 1.0
    late = np.concatenate([raw[:1], raw[:1], raw[:-2]])
    assert lag(raw, late, times, ~at_rest(raw, times)) == pytest.approx(2.0, abs=0.4)


def test_the_filter_is_causal_and_takes_unequal_times() -> None:
    signal_, times = (
        np.random.default_rng(1).normal(size=(20, 3)),
        np.cumsum(np.random.default_rng(2).uniform(1, 3, 20)),
    )
    assert np.array_equal(one_euro(signal_, times)[:10], one_euro(signal_[:10], times[:10]))
    face = load_faces("rendered", "test").landmarks[0]
    line = face + (0.01 * times)[:, None, None]  # an even movement has no second difference
    assert jitter(line, times, np.ones(20, bool)) < 1e-5
    with pytest.raises(ValueError, match="times must rise"):
        one_euro(signal_[:3], np.array([0.0, 1.0, 1.0]))


def test_hiccups_and_frame_rate_every_frame_once_at_its_time(made, driver: Path) -> None:
    _, times = frames_of(made[0])
    assert times == frames_of(driver)[1] == TIMES


def test_audio_is_kept_bit_for_bit(made, driver: Path) -> None:
    def packets(file: Path) -> list[bytes]:
        with av.open(str(file)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    assert packets(made[0]) == packets(driver) != []


def test_first_frame_is_the_source_at_rest(made, model) -> None:
    """The driver begins at rest, so the first frame shows the source's own pixels."""
    first = frames_of(made[0])[0][0]
    own = load_faces("rendered", "test").image(24, first.shape[0])
    inner = np.s_[6:-6, 6:-6]
    assert np.abs(first[inner].astype(int) - own[inner]).mean() < 14


def test_teeth_the_inside_of_the_mouth_changes_when_it_opens(made, head) -> None:
    drawn, _ = frames_of(made[0])
    side = len(drawn[0])
    x, y = (head[1][COUNT // 2][76:96].mean(0) * side).astype(int)
    mouth = np.s_[y - 2 : y + 3, x - 3 : x + 4]
    assert np.abs(drawn[COUNT // 2][mouth].astype(int) - drawn[0][mouth]).mean() > 4


def test_resolution_is_the_photo_s(model, driver: Path, head, tmp_path: Path, monkeypatch) -> None:
    photo = np.asarray(Image.fromarray(head[0]).resize((200, 200)))
    face = room.load_source(model, "rendered:test:24")
    wide = face._replace(photo=np.pad(photo, ((10, 11), (20, 21), (0, 0)), "edge"), box=CropBox(20, 10, 200))
    monkeypatch.setattr(room, "load_source", lambda *_: wide)
    config = VideoConfig(paste=True)
    room.transfer_video(model, "x", driver, tmp_path / "o.mkv", config, find=given(head[1]))
    drawn, _ = frames_of(tmp_path / "o.mkv")
    assert drawn[0].shape == (222, 242, 3)  # the photo's size, made even
    assert np.abs(drawn[5][:8, :242].astype(int) - np.pad(wide.photo[:8], ((0, 0), (0, 1), (0, 0)), "edge")).mean() < 4


def test_box_edges_the_mask_has_no_visible_edge() -> None:
    photo = np.full((120, 120, 3), 100, np.uint8)
    pasted = Paste(photo, CropBox(10, 10, 100))(np.full((64, 64, 3), 140, np.uint8)).astype(int)
    assert (pasted[60, 60] == 140).all()
    assert (pasted[:11] == 100).all()
    assert max(np.abs(np.diff(pasted, axis=axis)).max() for axis in (0, 1)) <= 5  # of a step of 40


def test_shaky_crop_a_still_head_does_not_move_when_the_mouth_opens(head) -> None:
    faces = head[1]
    moved, _ = relative_motion(faces * SIZE, faces[0])
    bridge = moved[:, 51:55]
    assert np.abs(bridge - bridge[0]).max() < 0.02
    assert np.abs(moved[COUNT // 2, 85] - moved[0, 85]).max() > 0.02  # the lower lip
    far, count = within(faces + np.float32(0.5), faces[0], 0.06)
    assert count == COUNT
    assert np.abs(far.mean(1) - faces[0].mean(0)).max() <= 0.0601


def test_no_progress_time_left_is_printed(model, driver: Path, head, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("ecvae_jax.progress._LINE_EVERY", 0.0)
    room.transfer_video(model, "rendered:test:24", driver, tmp_path / "o.mp4", find=given(head[1]))
    shown = capsys.readouterr().err
    assert "frames tracked" in shown
    assert "frames drawn" in shown
    assert " left" in shown


def test_gaps_are_filled_and_a_second_face_is_never_followed(head) -> None:
    faces, pixels = head[1] * SIZE, np.zeros((SIZE, SIZE, 3), np.uint8)
    numbers = iter(range(COUNT))

    def face(points: np.ndarray) -> DetectedFace:
        return DetectedFace((*points.min(0).tolist(), *points.max(0).tolist()), points.astype(np.float32), 98)

    def find(_: np.ndarray) -> list[DetectedFace]:
        number = next(numbers)
        own, other = face(faces[number]), face(1.2 * faces[number] + 300)
        return [[own], [other, own], [other], []][min(number, 3) if number < 4 else 1]

    track = track_face([Frame(pixels, t, Fraction(1, 20)) for t in TIMES], find, "clip")
    assert list(np.flatnonzero(~track.found)) == [2, 3]
    assert np.abs(track.raw - faces).max() < 0.2 * SIZE
    assert any("interpolated" in note for note in track.notes)
    with pytest.raises(DataError, match="no face in any of its 12 frames"):
        track_face([Frame(pixels, t, Fraction(1, 20)) for t in TIMES], lambda _: [], "clip")


def test_a_gif_walk_is_a_closed_loop(model, tmp_path: Path) -> None:
    config = VideoConfig(path="smile", seconds=0.4, fps=10, side_by_side=True)
    room.transfer_video(model, "rendered:test:0", None, tmp_path / "o.gif", config)
    with Image.open(tmp_path / "o.gif") as image:
        assert (image.n_frames, image.info["duration"], image.info["loop"]) == (4, 100, 0)
        assert image.width == 2 * image.height


@pytest.mark.parametrize("points", [68, 98])
def test_a_blink_shuts_the_eyes_and_moves_nothing_else(points: int) -> None:
    faces, scheme = load_faces("rendered", "test").landmarks_as(points), get_scheme(points)
    for face in faces[::24]:
        loop = walk(face, "blink", 10)
        np.testing.assert_allclose(loop[0], without_crossing(face, scheme), atol=1e-6)
        for upper, lower in inner_openings(scheme)[:2]:
            gap = np.linalg.norm(loop[:, lower] - loop[:, upper], axis=2).mean(1)
            assert gap[5] < 0.2 * gap[0]
        mouth = list(dict(scheme.boundaries)["lip_upper_inner"])
        assert np.abs(loop[5, mouth] - face[mouth]).max() < 0.012


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ("--source a --target d.mp4 --out o.png", 2, "a driver video needs --out"),
        ("--source a --target d.mp4 --out o.avi", 2, "must end in .png"),
        ("--source a b --target d.mp4 --out o.mp4", 2, "a video has one of each"),
        ("--source a --out o.mp4", 2, "either --target DRIVER.mp4 or --path"),
        ("--source a --path smile --out o.png", 2, "a video ends in .mp4"),
        ("--source a --target none.mp4 --out o.mp4", 1, "no such video"),
        ("--source a --target bad.mp4 --out o.mp4", 1, "not a video"),
        ("--source a --target bad.mp4 --out bad.mp4", 2, "this command reads"),
        ("--source a --path smile --fps 0 --out o.mp4", 2, "fps=0"),
    ],
)
def test_bad_input_is_one_line(words: str, code: int, text: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    assert main(["transfer", *words.split()]) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert text in line
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"]


def test_sigterm_leaves_nothing_and_exits_with_75(tmp_path: Path, tiny_workdir: Path, monkeypatch) -> None:
    def stopped(*_: object, **__: object):
        signal.raise_signal(signal.SIGTERM)
        yield

    monkeypatch.setattr(room, "draw_frames", stopped)
    words = ["--checkpoint", str(tiny_workdir), "--source", "rendered:test:0", "--path", "nod"]
    assert main(["transfer", *words, "--out", str(tmp_path / "o.mp4")]) == 75
    assert not list(tmp_path.iterdir())
