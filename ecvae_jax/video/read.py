"""The frames of a driver video, upright, with their times; a damaged end keeps what was read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ecvae_jax.data.errors import BadPhotoError, DataError, MissingExtraError, one_line
from ecvae_jax.data.photos.sources.video import (
    assumed_fact,
    assumed_matrix,
    open_container,
    picture_stream,
    upright_frame,
)


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
    missing: int = 0
    """Frames that the header states and the file does not hold: it is cut off."""
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
            stream = picture_stream(container)
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
                reason = f"damaged: {_reason(error)}"
        if not number:
            raise DataError(f"{self.path}: no frame can be decoded{': ' if reason else ''}{reason}")
        lost, self.count = max(self.count - number, 0) + self.missing, number
        self.missing = lost
        reason = reason or ("the file is cut off or damaged" if lost else "")
        self._say(f"{self.path}: {reason}; {number} frames are used, {lost} after them are lost", bool(reason))
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
            stream = picture_stream(container)
            audio, rate, count, end = bool(container.streams.audio), _rate(stream), 0, Fraction(0)
            matrix = assumed_matrix(stream.codec_context)
            try:
                for packet in container.demux(stream):
                    count += bool(packet.size) and not packet.is_discard
                    if packet.size and packet.pts is not None:
                        end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            except Exception:  # a damaged end; decoding reports it
                count = max(count, stream.frames)
            missing = _missing(container, stream, count, end, rate)
    except BadPhotoError as error:
        raise DataError(f"{path}: {error}") from None
    except MissingExtraError:
        raise
    except Exception as error:  # libav raises many types for a damaged file
        cut = "; it is cut off: the index of an MP4 is at its end. Copy it again" if _is_mp4(path) else ""
        raise DataError(f"{path}: not a video: {_reason(error)}{cut}") from None
    if not count:
        raise DataError(f"{path}: the video has no frames")
    notes = [f"{path}: {assumed_fact(matrix)}"] if matrix else []
    return Driver(path, rate=rate, count=count, missing=missing, has_audio=audio, notes=notes)


def _missing(container: Any, stream: Any, count: int, end: Fraction, rate: Fraction) -> int:
    """Returns how many frames the header states beyond those in the file; 0 where it states none, or one.

    Args:
        count: frames in the file.
        end: seconds at which the last of them ends.
    """
    if container.format.name == "avi":  # libav estimates its duration by the bytes
        gap = stream.frames - count
    elif stream.duration:
        gap = round((((stream.start_time or 0) + stream.duration) * stream.time_base - end) * rate)
    else:
        gap = round((_seconds(stream.metadata.get("DURATION", "")) - end) * rate)
    # Durations are rounded, and some muxers count one frame more. Frames between the last ones may be missing too.
    return max(gap, stream.frames - count) if gap > 1 else 0


def _seconds(text: str) -> Fraction:
    """Returns a Matroska track's DURATION, such as 00:01:02.500000000, in seconds; 0 for another text."""
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text)
    return 3600 * int(found[1]) + 60 * int(found[2]) + Fraction(found[3]) if found else Fraction(0)


def _is_mp4(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8)[4:] == b"ftyp"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or one_line(error)


def _rate(stream: Any) -> Fraction:
    """Returns a stream's mean rate, or 25 frames a second where a header states none or an absurd one."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 1 <= rate <= 1000:
            return Fraction(rate)
    return Fraction(25)
