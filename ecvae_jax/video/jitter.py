"""Jitter and lag of tracked landmarks: how much a resting face trembles, how late a moving one is.

There is no standard measure. Jitter is the root mean square of the second difference over frames in which the driver
rests, in percent of its eye distance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ecvae_jax.structure.scheme import get_scheme

_WINDOW = 0.25
"""Seconds on each side of a frame whose means are compared to find rest; also of the low pass in `lag`."""
_REST = 0.015
"""Eye distances between the two means, root mean square over the points, below which a frame rests."""


class Motion(NamedTuple):
    """Jitter and lag of a video's landmarks, beside those of its driver."""

    driver: float
    """Jitter of the driver's raw landmarks, percent of its eye distance; NaN if no frame rests."""
    jitter: float
    """Jitter of the measured landmarks, percent of their eye distance."""
    lag: float
    """Frames; NaN if nothing moves."""
    still: int
    """Frames that rest."""

    @property
    def ratio(self) -> float:
        """Jitter over the driver's."""
        return self.jitter / self.driver if self.driver else float("nan")

    def to_line(self, of: str) -> str:
        """Returns one line for the user.

        Args:
            of: what was measured, such as "motion".
        """
        if not self.still:
            return f"jitter of the {of}: not measured, the driver never rests"
        lag = "" if np.isnan(self.lag) else f"; lag {round(self.lag, 2) + 0.0:.2f} frames"
        return (
            f"jitter of the {of}: {self.jitter:.3f}% of the eye distance, the raw driver's {self.driver:.3f}% "
            f"(ratio {self.ratio:.2f}, {self.still} frames at rest){lag}"
        )


def measure_motion(
    driver: Float[np.ndarray, "n p 2"], measured: Float[np.ndarray, "n q 2"], times: Float[np.ndarray, " n"]
) -> Motion:
    """Returns jitter and lag of landmarks that follow a driver's raw ones, frame by frame.

    Rest and movement are the driver's. The lag is measured only for landmarks in the driver's scheme and frame: pass
    both as shapes (`as_shapes`) if their places in the picture differ.
    """
    still = at_rest(driver, times)
    measured_jitter = 100 * jitter(measured, times, still) if still.any() else float("nan")
    driver_jitter = 100 * jitter(driver, times, still) if still.any() else float("nan")
    late = lag(driver, measured, times, ~still) if driver.shape == measured.shape else float("nan")
    return Motion(driver_jitter, measured_jitter, late, int(still.sum()))


def eye_distance(landmarks: Float[np.ndarray, "n p 2"]) -> float:
    """Returns the median distance of the eyes' centers, in the landmarks' unit."""
    left, right = (landmarks[:, list(eye)].mean(axis=1) for eye in get_scheme(landmarks.shape[1]).eyes)
    return float(np.median(np.linalg.norm(right - left, axis=1)))


def at_rest(landmarks: Float[np.ndarray, "n p 2"], times: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Returns the frames that rest: the means of the 0.25 s before and after differ by less than 1.5% of the eyes.

    The part of that difference that the noise of the landmarks explains is taken off. A second difference of white
    noise has six times its variance.
    """
    scaled, rest = landmarks / eye_distance(landmarks), np.zeros(len(times), bool)
    if len(times) < 3:
        return rest
    noise = float(np.median(((scaled[2:] - 2 * scaled[1:-1] + scaled[:-2]) ** 2).sum(axis=-1).mean(axis=1))) / 6
    for row, time in enumerate(times):
        before = scaled[(times >= time - _WINDOW) & (times < time)]
        after = scaled[(times > time) & (times <= time + _WINDOW)]
        if len(before) > 1 and len(after) > 1:
            moved = after.mean(axis=0) - before.mean(axis=0)
            explained = noise * (1 / len(before) + 1 / len(after))
            rest[row] = float((moved**2).sum(axis=-1).mean()) - explained < _REST**2
    return rest


def jitter(
    landmarks: Float[np.ndarray, "n p 2"], times: Float[np.ndarray, " n"], still: Bool[np.ndarray, " n"]
) -> float:
    """Returns the root mean square of the second difference over still frames, in eye distances.

    With unequal times it is twice the distance from the straight line between the two neighbors.
    """
    before, after = np.diff(times)[:-1, None, None], np.diff(times)[1:, None, None]
    between = (after * landmarks[:-2] + before * landmarks[2:]) / (before + after)
    second = 2 * (between - landmarks[1:-1])[still[1:-1]] / eye_distance(landmarks)
    return float(np.sqrt((second**2).sum(axis=-1).mean())) if len(second) else float("nan")


def lag(
    driver: Float[np.ndarray, "n p 2"],
    measured: Float[np.ndarray, "n p 2"],
    times: Float[np.ndarray, " n"],
    moving: Bool[np.ndarray, " n"],
) -> float:
    """Returns by how many frames landmarks are behind the driver's, by least squares on its velocity.

    Both are averaged over a symmetric window first, which delays neither and removes the noise that they share.
    """
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    reach = max(1, round(_WINDOW / 3 / step))
    if len(times) < 4 * reach + 3 or not moving.any():
        return float("nan")
    kernel = np.hanning(2 * reach + 3)[1:-1]
    wide = [_averaged(track, kernel / kernel.sum()) for track in (driver, measured)]
    inner = slice(2 * reach, -2 * reach)
    velocity = np.gradient(wide[0], times, axis=0)[inner][moving[inner]]
    behind = (wide[0] - wide[1])[inner][moving[inner]]
    power = float((velocity**2).sum())
    return float((behind * velocity).sum()) / power / step if power > 0 else float("nan")


def _averaged(track: Float[np.ndarray, "n p 2"], kernel: Float[np.ndarray, " k"]) -> Float[np.ndarray, "n p 2"]:
    flat = track.reshape(len(track), -1).astype(np.float64)
    return np.stack([np.convolve(line, kernel, "same") for line in flat.T], axis=1).reshape(track.shape)
