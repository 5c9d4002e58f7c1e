"""Small videos in tests: moving pictures, with or without audio, in the containers that people have."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

COLORS = np.array(
    [(200, 60, 30), (30, 200, 60), (40, 60, 210), (230, 230, 230), (12, 12, 12), (128, 128, 128), (224, 172, 105)],
    np.uint8,
)
_PATCH = 32


def color_card() -> np.ndarray:
    """A row of squares, each of one color."""
    return COLORS.repeat(_PATCH, 0)[None].repeat(64, 0)


def colors_of(card: np.ndarray) -> np.ndarray:
    """The mean color of each square, away from its edges."""
    rows = card[16:-16]
    return np.array([rows[:, k * _PATCH + 8 : (k + 1) * _PATCH - 8].mean((0, 1)) for k in range(len(COLORS))])


def moving_pictures(count: int, size: int = 64) -> list[np.ndarray]:
    """Blocks that move one pixel a frame."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (size // 8, size // 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    return [np.roll(blocks, number, 1) for number in range(count)]


def write_clip(
    file: Path,
    pictures: list[np.ndarray],
    codec: str = "mpeg4",
    audio: bool = False,
    rate: int = 20,
    hertz: int = 48000,
    options: dict[str, str] | None = None,
    **settings: Any,
) -> Path:
    """Writes pictures at a constant rate; `settings` are attributes of the encoder."""
    import av

    with av.open(str(file), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        sound = container.add_stream("libopus" if file.suffix == ".webm" else "aac", rate=hertz) if audio else None
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
            if sound is not None:
                container.mux(sound.encode(_tone(number, hertz // rate, hertz)))
        container.mux(stream.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    return file


def write_song(file: Path, cover: np.ndarray | None) -> Path:
    """Writes an audio file, with a cover or without."""
    import av

    with av.open(str(file), "w") as container:
        sound = container.add_stream("aac", rate=48000)
        if cover is not None:
            stream = container.add_stream("mjpeg", rate=1)
            stream.height, stream.width, stream.pix_fmt = *cover.shape[:2], "yuvj420p"
            stream.disposition = av.stream.Disposition.attached_pic.value
            frame = av.VideoFrame.from_ndarray(cover, format="rgb24").reformat(format="yuvj420p")
            frame.pts = 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        container.mux(sound.encode(_tone(0, 9600, 48000)))
        container.mux(sound.encode(None))
    return file


def _tone(number: int, length: int, hertz: int) -> Any:
    import av

    wave = (8000 * np.sin((number * length + np.arange(length)) / 8)).astype(np.int16).repeat(2)[None]
    frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="stereo")
    frame.sample_rate, frame.pts = hertz, number * length
    return frame


def set_display_matrix(file: Path, a: float, b: float, c: float, d: float) -> None:
    """Changes the matrix in the track header of an MP4: 9 numbers, big-endian, at byte 48 of a tkhd of version 0."""
    data = bytearray(file.read_bytes())
    at = data.index(b"tkhd") + 44
    matrix = [round(value * 65536) for value in (a, b, 0, c, d, 0, 0, 0)] + [1 << 30]
    data[at : at + 36] = struct.pack(">9i", *matrix)
    file.write_bytes(bytes(data))
