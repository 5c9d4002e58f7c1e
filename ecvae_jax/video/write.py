"""Videos written atomically: MP4, MOV and MKV with H.264, WebM with VP9, all with the driver's audio; or GIF."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ecvae_jax.data.errors import MissingExtraError
from ecvae_jax.files import write_atomically
from ecvae_jax.video.audio import AudioCopy


class _Format(NamedTuple):
    container: str
    encoder: str
    options: dict[str, str]
    """Of the encoder; its quality is visually lossless for most pictures."""


_X264 = "libx264", {"crf": "16", "preset": "medium"}
_VP9 = "libvpx-vp9", {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "1"}
_FORMATS = {
    ".mp4": _Format("mp4", *_X264),
    ".mov": _Format("mov", *_X264),
    ".mkv": _Format("matroska", *_X264),
    ".webm": _Format("webm", *_VP9),
}
_FINEST = 1_000_000
"""Largest number of ticks a second of a video's clock."""
_BT709, _LIMITED = 1, 1
_GIF_TICK = Fraction(1, 100)
_GIF_FASTEST = 2
"""Ticks: browsers show frames with less at 10 a second."""
_PALETTE_FRAMES = 16

Pictures = Iterable[UInt8[np.ndarray, "h w 3"]]


def write_video(
    out: Path, pictures: Pictures, times: Sequence[Fraction], durations: Sequence[Fraction], audio: Path | None = None
) -> list[str]:
    """Writes a video by the suffix of its name; returns notes for the user.

    Args:
        pictures: as many as `times`; read one at a time.
        times: seconds, rising.
        durations: seconds; that of the last frame counts.
        audio: a file whose audio is copied; not into a GIF.

    Raises:
        MissingExtraError: PyAV, or its encoder, is not installed; GIF needs none.
        UnsafePathError: `out` is a link, a folder, a device, a FIFO or a socket.
        OSError: the file cannot be written.
    """
    notes: list[str] = []
    if out.suffix.lower() == ".gif":
        write_atomically(out, lambda file: notes.extend(_write_gif(file, pictures, times, durations)))
        return [*notes, f"{out}: a GIF has no audio"] if audio else notes
    av = check_encoder(out)
    chosen = _FORMATS[out.suffix.lower()]

    def write(file: IO[bytes]) -> None:
        container = av.open(file, "w", format=chosen.container)
        with container:
            sound = AudioCopy(audio, container) if audio else None
            try:
                _encode(av, container, chosen, pictures, times, durations, sound)
            finally:
                if sound is not None:
                    sound.close()
            notes.extend(sound.notes if sound else [])

    write_atomically(out, write)
    return notes


def check_encoder(out: Path) -> Any:
    """Returns PyAV; None for a GIF.

    Raises:
        MissingExtraError: PyAV is not installed, or was built without the encoder for the suffix.
    """
    if out.suffix.lower() == ".gif":
        return None
    try:
        import av
    except ImportError:
        raise MissingExtraError("PyAV is not installed: `pip install 'ecvae-jax[video]'`") from None
    encoder = _FORMATS[out.suffix.lower()].encoder
    try:
        av.Codec(encoder, "w")
    except ValueError:  # UnknownCodecError
        raise MissingExtraError(
            f"{out}: this PyAV was built without the encoder {encoder}; install PyAV's own wheel, or "
            "choose another suffix"
        ) from None
    return av


def _encode(
    av: Any,
    container: Any,
    chosen: _Format,
    pictures: Pictures,
    times: Sequence[Fraction],
    durations: Sequence[Fraction],
    sound: AudioCopy | None,
) -> None:
    clock = _clock(times)
    origin: Fraction = min(times[0], sound.start) if sound else times[0]
    span = times[-1] + durations[-1] - times[0]
    rate = Fraction(len(times) / span).limit_denominator(1001)
    stream = container.add_stream(chosen.encoder, rate=rate, options=chosen.options)
    lengths = {round((time - origin) / clock): round(_length(times, durations, i) / clock)
               for i, time in enumerate(times)}  # fmt: skip
    context = stream.codec_context

    def mux(packets: Iterable[Any]) -> None:
        for packet in packets:
            packet.duration = lengths.get(packet.pts, packet.duration)
            container.mux(packet)

    for number, (time, picture) in enumerate(zip(times, pictures, strict=True)):
        picture = _even(picture)
        if not number:
            stream.height, stream.width = picture.shape[:2]
            stream.pix_fmt, context.time_base = "yuv420p", clock
            context.color_primaries = context.color_trc = context.colorspace = _BT709
            context.color_range = _LIMITED
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts, frame.time_base = round((time - origin) / clock), clock
        frame.color_primaries = frame.color_trc = _BT709
        if sound is not None:
            sound.copy_until(time, origin)
        mux(stream.encode(frame))
    mux(stream.encode(None))
    if sound is not None:
        sound.copy_until(None, origin)


def _length(times: Sequence[Fraction], durations: Sequence[Fraction], row: int) -> Fraction:
    return times[row + 1] - times[row] if row + 1 < len(times) else durations[row]


def _clock(times: Sequence[Fraction]) -> Fraction:
    """Returns the longest tick of which all times are multiples, or the finest clock."""
    ticks = math.lcm(*(time.denominator for time in times))
    return Fraction(1, ticks if ticks <= _FINEST else 90_000)


def _even(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Returns the picture with an odd side's last line repeated: 4:2:0 needs even sides."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge") if height % 2 or width % 2 else picture


def _write_gif(
    file: IO[bytes], pictures: Pictures, times: Sequence[Fraction], durations: Sequence[Fraction]
) -> list[str]:
    """Writes an endless GIF with one palette for all frames: with one a frame, plain areas flicker."""
    ends = [time - times[0] for time in [*times[1:], times[-1] + durations[-1]]]
    kept, delays, shown = [], [], 0
    for picture, end in zip(pictures, ends, strict=True):
        ticks = round(end / _GIF_TICK) - shown
        if ticks >= _GIF_FASTEST or not kept:
            kept.append(Image.fromarray(picture))
            delays.append(max(ticks, _GIF_FASTEST))
            shown += delays[-1]
    some = kept[:: max(1, len(kept) // _PALETTE_FRAMES)]
    sheet = Image.new("RGB", (some[0].width, some[0].height * len(some)))
    for row, image in enumerate(some):
        sheet.paste(image, (0, row * image.height))
    palette = sheet.quantize(256, Image.Quantize.MEDIANCUT)
    first, *rest = (image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for image in kept)
    first.save(file, "GIF", save_all=True, append_images=rest, duration=[10 * d for d in delays], loop=0)
    lost = len(times) - len(kept)
    return [f"a GIF shows at most 50 frames a second: {lost} of {len(times)} frames left out"] if lost else []


def beside(pictures: Pictures, others: Iterable[UInt8[np.ndarray, "h w 3"]]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields each picture with another one at its left, resized to its height."""
    for picture, other in zip(pictures, others, strict=True):
        height = picture.shape[0]
        width = max(2, round(other.shape[1] * height / other.shape[0]))
        kernel = Image.Resampling.BOX if height < other.shape[0] else Image.Resampling.BICUBIC
        yield np.hstack([np.asarray(Image.fromarray(other).resize((width, height), kernel)), picture])


def regular_times(count: int, fps: int) -> tuple[list[Fraction], list[Fraction]]:
    """Returns times and durations of frames at a constant rate."""
    return [Fraction(i, fps) for i in range(count)], list(itertools.repeat(Fraction(1, fps), count))
