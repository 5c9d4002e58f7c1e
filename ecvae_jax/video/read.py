"""The frames of a driver video, upright, with their times; a damaged end keeps what was read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ecvae_jax.data.errors import BadPhotoError, DataError, one_line
from ecvae_jax.data.photos.sources.video import assumed_fact, assumed_matrix, open_container, upright_frame


class Frame(NamedTuple):
    """One frame as a player shows it."""

    pixels: UInt8[np.ndarray, "h w 3"]
    time: Fraction
    """Seconds on the clock that the video shares with its audio."""
    duration: Fraction
    """Seconds."""


@dataclass
class Driver:
    """A video file; each iteration decodes it again and holds one frame at a time."""

    path: Path
    size: tuple[int, int] = (0, 0)
    """Width and height of the upright frames."""
    rate: Fraction = Fraction(25)
    """Mean frames per second."""
    count: int = 0
    """Frames to expect; exact after one iteration."""
    has_audio: bool = False
    notes: list[str] = field(default_factory=list)
    """Messages for the user; complete after one iteration."""

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames in the order of their times, which are made to rise.

        Raises:
            DataError: the first frame cannot be decoded.
        """
        number, last, repaired, usual, reason = 0, None, 0, 1 / self.rate, ""
        with open_container(self.path) as container:
            stream = container.streams.video[0]
            try:
                for frame in container.decode(stream):
                    pixels = upright_frame(frame, stream)
                    if isinstance(pixels, BadPhotoError):
                        raise DataError(f"{self.path}: {pixels}")
                    if self.size == (0, 0):
                        self.size = (pixels.shape[1], pixels.shape[0])
                    if pixels.shape[1::-1] != self.size:
                        reason = f"the frames change to {pixels.shape[1]}×{pixels.shape[0]} px"
                        break
                    time = None if frame.pts is None else frame.pts * frame.time_base
                    if time is None or (last is not None and time <= last):
                        time, repaired = (Fraction(0) if last is None else last + usual), repaired + 1
                    length = getattr(frame, "duration", None)
                    yield Frame(pixels, time, length * frame.time_base if length else usual)
                    number, last = number + 1, time
            except DataError:
                raise
            except Exception as error:  # libav raises many types for a damaged file
                reason = f"damaged: {one_line(error)}"
        if not number:
            raise DataError(f"{self.path}: no frame can be decoded{': ' if reason else ''}{reason}")
        lost = max(self.count - number, 0)
        self.count = number
        self._say(f"{self.path}: {reason} after frame {number}; the {number} frames before are used", bool(reason))
        self._say(f"{self.path}: {lost} frames at its end cannot be decoded", bool(lost and not reason))
        self._say(f"{self.path}: {repaired} frames without a rising time follow at the mean rate", bool(repaired))

    def _say(self, note: str, holds: bool) -> None:
        if holds and note not in self.notes:
            self.notes.append(note)


def open_driver(path: Path) -> Driver:
    """Returns a driver video, its header read.

    Raises:
        DataError: the file does not exist, is no video, has no video stream or no frame.
        MissingExtraError: PyAV is not installed.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such video; give a video file, or walk without one (--path smile)")
    try:
        with open_container(path) as container:
            if not container.streams.video:
                raise DataError(f"{path}: no video stream; give a file with pictures")
            stream = container.streams.video[0]
            audio, rate, count = bool(container.streams.audio), _rate(stream), 0
            matrix = assumed_matrix(stream.codec_context)
            try:
                count = sum(bool(packet.size) for packet in container.demux(stream))
            except Exception:  # a damaged end; decoding reports it
                count = stream.frames
    except DataError:
        raise
    except Exception as error:  # libav raises many types for a damaged file
        raise DataError(f"{path}: not a video: {getattr(error, 'strerror', None) or one_line(error)}") from None
    if not count:
        raise DataError(f"{path}: the video has no frames")
    notes = [f"{path}: {assumed_fact(matrix)}"] if matrix else []
    return Driver(path, rate=rate, count=count, has_audio=audio, notes=notes)


def _rate(stream: Any) -> Fraction:
    """Returns a stream's mean rate, or 25 frames a second where a header states none or an absurd one."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 1 <= rate <= 1000:
            return Fraction(rate)
    return Fraction(25)
