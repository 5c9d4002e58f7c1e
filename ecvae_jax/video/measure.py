"""What a finished video is worth beside its driver: jitter, lag, frames, times, audio. For `ecvae evaluate --video`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecvae_jax.data.detect import load_detector
from ecvae_jax.files import write_text
from ecvae_jax.progress import track
from ecvae_jax.video.jitter import Motion, at_rest, measure_motion
from ecvae_jax.video.read import Driver, Frame, open_driver
from ecvae_jax.video.track import Find, Track, WindowedSearch, track_face

_SAME_TIME = 0.001
"""Seconds: the finest clock of an MKV."""


@dataclass(frozen=True)
class VideoReport:
    """A video measured beside its driver; landmarks are detected in both, unsmoothed."""

    motion: Motion
    frames: int
    driver_frames: int
    shifted: int
    """Frames shown more than 1 ms from the driver's time; -1 where the numbers of frames differ."""
    flicker: float
    """Mean absolute difference of neighboring frames at rest, levels of 255."""
    audio: bool
    driver_audio: bool
    notes: list[str]

    def to_lines(self) -> list[str]:
        """Returns the lines that `ecvae evaluate` prints."""
        times = "the numbers of frames differ" if self.shifted < 0 else f"{self.shifted} at another time"
        return [
            self.motion.to_line("output"),
            f"frames: {self.frames}, the driver's {self.driver_frames}; {times}",
            f"flicker at rest: {self.flicker:.2f} of 255",
            f"audio: {'yes' if self.audio else 'no'}, the driver's {'yes' if self.driver_audio else 'no'}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers for JSON; NaN becomes None."""
        motion = {**self.motion._asdict(), "ratio": self.motion.ratio}
        numbers = {**asdict(self), "motion": {k: None if np.isnan(v) else v for k, v in motion.items()}}
        if np.isnan(self.flicker):
            numbers["flicker"] = None
        return numbers

    def save(self, path: Path) -> None:
        """Writes `to_dict` as JSON."""
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")


def measure_video(video: Path, driver: Path, detector: str = "dlib-68", find: Find | None = None) -> VideoReport:
    """Returns jitter, lag, frames and times of a video and its driver.

    The rests are the driver's. A video with the driver at its left is not measured: give one without.

    Args:
        detector: its name; the same for both.
        find: finds faces in its place.

    Raises:
        DataError: a file is no video, or shows no face.
        MissingExtraError: PyAV or the detector is not installed.
    """
    theirs, ours = open_driver(driver), open_driver(video)
    changes: list[float] = []
    truth = _tracked(theirs, find or WindowedSearch(load_detector(detector, video=True)), None)
    mine = _tracked(ours, find or WindowedSearch(load_detector(detector, video=True)), changes)
    count = min(len(truth.times), len(mine.times))
    shifts = np.abs((mine.times - mine.times[0])[:count] - (truth.times - truth.times[0])[:count])
    still = at_rest(truth.raw, truth.times)
    quiet = np.array(changes)[: count - 1][still[1:count]]
    return VideoReport(
        measure_motion(truth.raw[:count], mine.raw[:count], truth.times[:count])._replace(lag=float("nan")),
        len(mine.times),
        len(truth.times),
        int((shifts > _SAME_TIME).sum()) if len(mine.times) == len(truth.times) else -1,
        float(quiet.mean()) if len(quiet) else float("nan"),
        ours.has_audio,
        theirs.has_audio,
        [*truth.notes, *mine.notes, *theirs.notes, *ours.notes],
    )


def _tracked(film: Driver, find: Find, changes: list[float] | None) -> Track:
    def frames() -> Iterator[Frame]:
        before = None
        for frame in film:
            if changes is not None and before is not None:
                changes.append(float(np.abs(frame.pixels.astype(np.int16) - before).mean()))
            before = frame.pixels
            yield frame

    return track_face(track(frames(), film.count, "frames tracked"), find, str(film.path))
