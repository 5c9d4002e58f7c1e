"""The One-Euro filter: less jitter where a signal rests, little lag where it moves.

Reference: Casiez, Roussel and Vogel 2012, 1€ Filter (https://doi.org/10.1145/2207676.2208639).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from ecvae_jax.video.jitter import eye_distance

MIN_CUTOFF = 1.2
"""Hz, the cutoff at rest. Lower: less jitter, more lag at the start of a movement."""
SPEED = 12.0
"""Hz of cutoff per unit of speed, eye distances a second. Higher: less lag in movement."""
SPEED_CUTOFF = 1.0
"""Hz, of the filter on the speed."""
_RATE = 30.0
"""Frames a second for which the three are chosen (docs/video.md); at higher rates they grow with it, so that the lag
stays below one frame."""


def smooth_landmarks(
    landmarks: Float[np.ndarray, "n p 2"], times: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n p 2"]:
    """Returns landmarks smoothed in units of the eye distance, without lag: the filter's mean over both directions.

    All frames are known here, so a second filter runs backward: it is early where the first one is late.

    Args:
        times: seconds, rising.
    """
    if len(times) < 2:
        return landmarks
    unit = eye_distance(landmarks)
    faster = max(1.0, 1.0 / (_RATE * float(np.median(np.diff(times)))))
    settings = [faster * value for value in (MIN_CUTOFF, SPEED, SPEED_CUTOFF)]
    forward = one_euro(landmarks / unit, times, *settings)
    backward = one_euro(landmarks[::-1] / unit, -times[::-1], *settings)[::-1]
    return 0.5 * unit * (forward + backward)


def one_euro(
    signal: Float[np.ndarray, "n ..."],
    times: Float[np.ndarray, " n"],
    min_cutoff: float = MIN_CUTOFF,
    speed: float = SPEED,
    speed_cutoff: float = SPEED_CUTOFF,
) -> Float[np.ndarray, "n ..."]:
    """Returns the smoothed signal. The filter is causal: a row depends on the rows up to it.

    Args:
        times: seconds, rising; they need not be equally spaced.
        min_cutoff: Hz at rest.
        speed: Hz per unit of speed.
        speed_cutoff: Hz, of the filter on the speed.

    Raises:
        ValueError: the times do not rise.
    """
    steps = np.diff(times)
    if (steps <= 0).any():
        raise ValueError(f"times: row {int(np.argmax(steps <= 0)) + 1} is not after the row before it; times must rise")
    smooth, moved = np.array(signal, np.float64), np.zeros(signal.shape[1:])
    for row, step in enumerate(steps, 1):
        moved = moved + _share(speed_cutoff, step) * ((signal[row] - signal[row - 1]) / step - moved)
        share = _share(min_cutoff + speed * np.abs(moved), step)
        smooth[row] = smooth[row - 1] + share * (signal[row] - smooth[row - 1])
    return smooth.astype(signal.dtype)


def _share(cutoff: Any, step: float) -> Any:
    """Returns the weight of the new value in a low-pass filter of first order; `step` in seconds."""
    turn = 2 * np.pi * cutoff * step
    return turn / (turn + 1)
