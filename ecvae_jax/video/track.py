"""The landmarks of one face, frame by frame: the nearest face is followed, gaps are filled and counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ecvae_jax.data.detect.detector import DetectedFace, Detector
from ecvae_jax.data.errors import DataError
from ecvae_jax.video.read import Frame

Find = Callable[[UInt8[np.ndarray, "h w 3"]], list[DetectedFace]]
"""Returns the faces of a frame, in pixels, the largest first."""

SHORT_GAP = 0.5
"""Seconds without a face that are interpolated; longer ones hold the last face, then the next one appears."""
_FARTHEST = 0.6
"""Sides of the last face's box between its center and that of the same face in the next frame; another face is
farther. Between frames a head moves by a tenth."""
_GROWTH = 1.6
"""Largest ratio of the sides of one face's boxes in two frames."""
_LOST = 1.0
"""Seconds after which any face may be followed again."""


class Track(NamedTuple):
    """One face through a video."""

    raw: Float[np.ndarray, "n p 2"]
    """Pixels of the frames; gaps are filled."""
    times: Float[np.ndarray, " n"]
    """Seconds."""
    durations: Float[np.ndarray, " n"]
    """Seconds."""
    found: Bool[np.ndarray, " n"]
    """Whether the frame showed the face."""
    notes: list[str]


@dataclass
class WindowedSearch:
    """A detector that searches around the last face first, and the whole frame where it is not there.

    The window stays in place while the face stays well inside it: a detector's error depends on the window's pixels, so
    a window that follows each face would add to the jitter.
    """

    detector: Detector
    _window: tuple[int, int, int, int] | None = None
    _misses: int = field(default=0)

    def __call__(self, frame: UInt8[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """Returns the faces of the frame."""
        found: list[DetectedFace] = []
        if self._window is not None:
            x0, y0, x1, y1 = self._window
            found = [_moved(face, x0, y0) for face in self.detector.detect(np.ascontiguousarray(frame[y0:y1, x0:x1]))]
        # The whole frame takes seconds where it shows no face: after five misses only every fifth is searched.
        if not found and (self._misses < 5 or self._misses % 5 == 0):
            found = self.detector.detect(frame)
        self._misses = 0 if found else self._misses + 1
        if found and not self._holds(found[0], frame.shape[1], frame.shape[0]):
            self._window = _window(found[0], frame.shape[1], frame.shape[0])
        return found

    def _holds(self, face: DetectedFace, width: int, height: int) -> bool:
        if self._window is None:
            return False
        (cx, cy), side = _center(face), _side(face)
        x0, y0, x1, y1 = self._window
        near = 0.9 * side
        across = (x0 == 0 or x0 + near < cx) and (x1 == width or cx < x1 - near)
        down = (y0 == 0 or y0 + near < cy) and (y1 == height or cy < y1 - near)
        return across and down and max(x1 - x0, y1 - y0) < 4.0 * side


def track_face(frames: Iterable[Frame], find: Find, name: str) -> Track:
    """Returns the landmarks of the face that is the largest where the video first shows one.

    Args:
        name: of the video, for the messages.

    Raises:
        DataError: no frame shows a face.
    """
    rows: list[np.ndarray | None] = []
    times, durations, last, seen, others = [], [], None, 0.0, 0
    for frame in frames:
        faces, time = find(frame.pixels), float(frame.time)
        lost = last is None or time - seen > _LOST
        face = _same_face(faces, last, lost)
        others += bool(faces) and (face is None or len(faces) > 1)
        if face is not None:
            last, seen = face, time
        rows.append(None if face is None else face.landmarks)
        times.append(time)
        durations.append(float(frame.duration))
    found = np.array([row is not None for row in rows], bool)
    if not found.any():
        raise DataError(f"{name}: no face in any of its {len(rows)} frames; give a video of an upright face")
    raw = _filled([row for row in rows if row is not None], found, np.array(times))
    notes = _gap_notes(found, np.array(times), name)
    if others:
        notes.append(f"{name}: {others} of {len(rows)} frames show other faces; the nearest to the last is followed")
    return Track(raw, np.array(times), np.array(durations), found, notes)


def _same_face(faces: list[DetectedFace], last: DetectedFace | None, lost: bool) -> DetectedFace | None:
    """Returns the face nearest to the last one, None if all are too far; the largest if none is followed."""
    if not faces or last is None:
        return faces[0] if faces else None
    side = _side(last)
    distances = [float(np.hypot(*(np.subtract(_center(face), _center(last))))) / side for face in faces]
    nearest = int(np.argmin(distances))
    ratio = _side(faces[nearest]) / side
    near = distances[nearest] < _FARTHEST and 1 / _GROWTH < ratio < _GROWTH
    return faces[nearest] if near or lost else None


def _filled(
    rows: list[Any], found: Bool[np.ndarray, " n"], times: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n p 2"]:
    """Returns landmarks of every frame: interpolated over short gaps, held over long ones and at the ends."""
    known, stacked = np.flatnonzero(found), np.stack(rows)
    filled = np.empty((len(found), *stacked.shape[1:]), np.float32)
    for row, time in enumerate(times):
        after = int(np.searchsorted(known, row))
        if found[row] or after == 0:
            filled[row] = stacked[min(after, len(known) - 1)]
            continue
        start, end = known[after - 1], known[min(after, len(known) - 1)]
        gap = float(times[end] - times[start])
        share = (time - times[start]) / gap if 0 < gap <= SHORT_GAP else 0.0
        filled[row] = (1 - share) * stacked[after - 1] + share * stacked[min(after, len(known) - 1)]
    return filled


def _gap_notes(found: Bool[np.ndarray, " n"], times: Float[np.ndarray, " n"], name: str) -> list[str]:
    if found.all():
        return []
    edges = np.flatnonzero(np.diff(np.concatenate([[1], found.astype(int), [1]])))
    notes = []
    for start, end in edges.reshape(-1, 2):
        inside = start > 0 and end < len(found)
        short = inside and times[end] - times[start - 1] <= SHORT_GAP
        what = "interpolated" if short else "the nearest face is held"
        notes.append(
            f"{name}: no face from {times[start]:.2f} to {times[end - 1]:.2f} s ({end - start} frames): {what}"
        )
    return (
        notes
        if len(notes) <= 3
        else [*notes[:3], f"{name}: {len(notes) - 3} more gaps, {(~found).sum()} frames in all"]
    )


def _window(face: DetectedFace, width: int, height: int) -> tuple[int, int, int, int]:
    (cx, cy), reach = _center(face), 1.4 * _side(face)
    x0, y0 = max(0, int(cx - reach)), max(0, int(cy - reach))
    return x0, y0, min(width, int(cx + reach)), min(height, int(cy + reach))


def _moved(face: DetectedFace, x: int, y: int) -> DetectedFace:
    x0, y0, x1, y1 = face.box
    shift = np.array([x, y], np.float32)
    return DetectedFace((x0 + x, y0 + y, x1 + x, y1 + y), face.landmarks + shift, face.points)


def _center(face: DetectedFace) -> tuple[float, float]:
    x, y = face.landmarks.mean(axis=0)
    return float(x), float(y)


def _side(face: DetectedFace) -> float:
    return float(np.ptp(face.landmarks, axis=0).max())
