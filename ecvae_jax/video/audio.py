"""The audio of one file copied into another: packet by packet, re-encoded only where the format cannot hold them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from ecvae_jax.data.errors import one_line
from ecvae_jax.data.photos.sources.video import open_container

_FALLBACK, _FALLBACK_WEBM = "aac", "libopus"
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


class AudioCopy:
    """Copies the first audio stream, ahead of the pictures by at most one packet."""

    def __init__(self, source: Path, out: Any) -> None:
        """Opens the source and adds a stream to `out`, an open PyAV container."""
        self.notes: list[str] = []
        """Messages for the user."""
        self._name, self._out = source, out
        self._input = open_container(source)
        stream = self._input.streams.audio[0]
        self.start = max(Fraction(0), (stream.start_time or 0) * Fraction(stream.time_base or 1))
        """Seconds at which the audio begins."""
        codec = stream.codec_context.name
        self._encoder: Any = None
        if codec in out.supported_codecs:
            self._stream = out.add_stream_from_template(stream)
        else:
            fallback = _FALLBACK_WEBM if out.format.name == "webm" else _FALLBACK
            rate = stream.codec_context.sample_rate
            if fallback == _FALLBACK_WEBM and rate not in _OPUS_RATES:
                rate = max(_OPUS_RATES)
            self._stream = self._encoder = out.add_stream(fallback, rate=rate)
            self._encoder.codec_context.layout = "stereo" if stream.codec_context.channels > 1 else "mono"
            self.notes.append(
                f"{source}: audio {codec} becomes {fallback.removeprefix('lib')}, which {out.format.name} can hold"
            )
        self._packets = self._read(stream)
        self._next = next(self._packets, None)

    def copy_until(self, time: Fraction | None, origin: Fraction) -> None:
        """Writes the packets that begin up to a time, or all that are left.

        Args:
            time: seconds in the source; None: to the end.
            origin: seconds in the source that become 0.
        """
        while self._next is not None and (time is None or self._next.pts * self._next.time_base <= time):
            packet = self._next
            shift = round(origin / packet.time_base)
            packet.pts -= shift
            packet.dts = packet.pts
            packet.stream = self._stream
            self._out.mux(packet)
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Closes the source."""
        self._input.close()

    def _read(self, stream: Any) -> Iterator[Any]:
        """Yields packets with a time; a damaged end keeps what was read."""
        try:
            if self._encoder is None:
                yield from (p for p in self._input.demux(stream) if p.size and p.pts is not None and p.time_base)
                return
            for frame in self._input.decode(stream):
                yield from self._encoder.encode(frame)
        except Exception as error:  # libav raises many types for a damaged file
            self.notes.append(f"{self._name}: the audio is damaged and ends early: {one_line(error)}")
        if self._encoder is not None:
            yield from self._encoder.encode(None)
