"""`ecvae transfer` with a driver video and the package's own detector, judged by `ecvae evaluate --video`."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.videos import write_clip

from ecvae_jax.cli.main import main
from ecvae_jax.data.faces import load_faces
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.structure.warp import finer, resample, smooth_map
from ecvae_jax.video.measure import measure_video
from ecvae_jax.video.paths import walk
from ecvae_jax.video.read import open_driver

pytest.importorskip("av", reason="needs the extra video")
pytest.importorskip("dlib", reason="needs the extra dlib")
pytestmark = pytest.mark.slow

SIZE, RATE, REST, ACT = 256, 25, 20, 15
NOISE = 4.0
"""Levels of 255, of the sensor: without it a still head has no jitter."""


def acting_head() -> list[np.ndarray]:
    """A rendered head that rests, laughs, rests, turns and rests, under a noisy camera."""
    faces = load_faces("rendered", "test")
    own, image = faces.landmarks[0], faces.image(0, SIZE).astype(np.float32)
    still = np.repeat(own[None], REST, 0)
    track = np.concatenate([still, walk(own, "laugh", ACT), still, walk(own, "turn", ACT), still])
    noise, pictures = np.random.default_rng(0), []
    for face in track:
        drawn = resample(image[None], finer(smooth_map(face[None], own[None], 32, pinned=True), SIZE))[0]
        pictures.append((np.asarray(drawn) + noise.normal(0, NOISE, image.shape)).clip(0, 255).astype(np.uint8))
    return pictures


def test_a_driver_is_tracked_drawn_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    driver = write_clip(tmp_path / "driver.mp4", acting_head(), "libx264", audio=True, rate=RATE)
    Image.fromarray(load_faces("rendered", "test").image(24, SIZE)).save(tmp_path / "anna.png")
    out, report = tmp_path / "anna.mp4", tmp_path / "jitter.json"
    words = ["--checkpoint", "face128", "--source", str(tmp_path / "anna.png"), "--target", str(driver)]
    assert main(["transfer", *words, "--out", str(out)]) == 0
    shown = capsys.readouterr()
    print(shown.err)
    assert main(["evaluate", "--video", str(out), str(driver), "--out", str(report)]) == 0
    print(capsys.readouterr().out, f"kept: {tmp_path}")
    found, frames = json.loads(report.read_text()), list(open_driver(out))
    count = 3 * REST + 2 * ACT
    assert (found["frames"], found["driver_frames"], found["shifted"]) == (count, count, 0)
    assert [frame.time for frame in frames] == [frame.time for frame in open_driver(driver)]
    assert found["audio"]
    motion = found["motion"]
    assert motion["still"] > REST
    assert motion["driver"] > 0.3  # percent of the eye distance: the noise shows
    driven = re.search(r"jitter of the motion: .*\(ratio ([\d.]+), .*; lag (-?[\d.]+) frames", shown.err)
    assert driven
    assert float(driven[1]) <= 0.5
    assert abs(float(driven[2])) <= 0.5
    assert motion["ratio"] < 0.7  # of what is left in the drawn video, most is dlib's own tremble: docs/video.md
    if importlib.util.find_spec("ai_edge_litert"):
        other = measure_video(out, driver, "mediapipe-68").motion
        print(other.to_line("output by MediaPipe"))
        assert other.ratio <= 0.5
    assert found["flicker"] < 0.5  # of 255: the picture rests
    resting, laughing, turning = (
        frames[n].pixels.astype(int) for n in (REST // 2, REST + ACT // 2, 2 * REST + ACT + 4)
    )
    side = len(resting)
    mouth = np.s_[side // 2 : -side // 6, side // 4 : -side // 4]
    assert np.abs(laughing - resting)[mouth].mean() > 4
    assert np.abs(turning - resting)[mouth].mean() > 4
    assert np.abs(frames[REST - 2].pixels - resting)[mouth].mean() < 4


def test_a_blink_hides_the_photo_s_open_eyes(tmp_path: Path) -> None:
    """Where an eye closes, the picture is the model's alone: the photo's open eye would show through."""
    command = ["transfer", "--checkpoint", "face128", "--source", "rendered:test:72", "--path", "blink"]
    command += ["--seconds", "0.4", "--fps", "10"]
    drawn = []
    for name, options in (("own.mkv", []), ("plain.mkv", ["--adapt.detail", "0"])):
        assert main([*command, *options, "--out", str(tmp_path / name)]) == 0
        drawn.append([frame.pixels.astype(int) for frame in open_driver(tmp_path / name)])
    own, plain = drawn
    side, landmarks = own[0].shape[0], load_faces("rendered", "test").landmarks[72]
    for eye in get_scheme(len(landmarks)).eyes:
        x, y = (landmarks[list(eye)].mean(0) * side).astype(int)
        near = np.s_[y - 3 : y + 4, x - 5 : x + 6]
        shut, open_ = (np.abs(own[n] - plain[n])[near].mean() for n in (2, 0))
        assert shut < 6
        assert open_ > 2 * shut
        assert np.abs(own[2] - own[0])[near].mean() > 15
