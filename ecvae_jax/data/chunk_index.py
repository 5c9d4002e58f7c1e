"""The index of an ArrayRecord file, held against its chunks before the library follows it.

The index has the place, decoded bytes and number of records of each chunk. The library (array_record 0.8.3) jumps to
those places. One inside another chunk's bytes could hold a chunk that decodes to gigabytes, and no header names it.
Formats: riegeli's "simple chunk with records", ArrayRecord's `layout.proto`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence

import brotli
import zstandard

_RECORDS_OF_A_POSTSCRIPT = 3


def check_index(index: bytes, postscript: bytes, place: int, chunks: Sequence[tuple[int, int, int]], most: int) -> None:
    """Raises ValueError unless the index names exactly these chunks and the postscript names the index.

    Args:
        index: the index chunk's bytes as stored, without its header.
        postscript: those of the last chunk.
        place: of the index chunk in the file.
        chunks: place, decoded bytes and number of records of each chunk.
        most: bytes that the index may decode to.
    """
    # The first record describes the writer.
    if [_numbers(record) for record in _records(index, most)[1:]] != list(chunks):
        raise ValueError("its index does not name the chunks that it holds")
    ends = [_numbers(record)[0] for record in _records(postscript, most)]
    if ends != [place] * _RECORDS_OF_A_POSTSCRIPT:
        raise ValueError("its end does not name its index")


def _records(stored: bytes, most: int) -> list[bytes]:
    """Returns the records of a chunk."""
    decode = _CODECS.get(stored[:1])
    if decode is None:
        raise ValueError(f"its index has the compression {stored[:1]!r}, which is not read")
    length, start = _varint(stored, 1)
    sizes, values = decode(stored[start : start + length], most), decode(stored[start + length :], most)
    records, at = [], 0
    for size in _varints(sizes):
        records.append(values[at : at + size])
        at += size
    if at != len(values):
        raise ValueError("its index is damaged")
    return records


def _numbers(record: bytes) -> tuple[int, ...]:
    """Returns the numbers of a protocol buffer that holds unsigned integers alone, fields 1, 2, … in order."""
    numbers = list(_varints(record))
    if numbers[::2] != [8 * (field + 1) for field in range(len(numbers) // 2)] or len(numbers) % 2:
        raise ValueError("its index is damaged")
    return tuple(numbers[1::2])


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        number, at = _varint(data, at)
        yield number


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the number that begins at `at`, and the place behind it."""
    number = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        number |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return number, at
    raise ValueError("its index is damaged")


def _plain(data: bytes, most: int) -> bytes:
    return data


def _zstd(data: bytes, most: int) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read(most)


def _brotli(data: bytes, most: int) -> bytes:
    return brotli.Decompressor().process(data, output_buffer_limit=most)


def _sized(decode: Callable[[bytes, int], bytes]) -> Callable[[bytes, int], bytes]:
    """Returns the decoder of bytes that begin with their decoded size."""

    def decode_sized(data: bytes, most: int) -> bytes:
        size, start = _varint(data, 0)
        if size > most:
            raise ValueError(f"its index claims {size} bytes: at most {most}")
        try:
            decoded = decode(data[start:], size + 1) if size else b""
        except (zstandard.ZstdError, brotli.error) as error:
            raise ValueError(f"its index is damaged ({error})") from None
        if len(decoded) != size:
            raise ValueError("its index is damaged")
        return decoded

    return decode_sized


_CODECS: dict[bytes, Callable[[bytes, int], bytes]] = {b"\0": _plain, b"b": _sized(_brotli), b"z": _sized(_zstd)}
