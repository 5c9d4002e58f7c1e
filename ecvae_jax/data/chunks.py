"""The chunk headers of an ArrayRecord file, read before the library decodes a chunk: files may come from strangers.

ArrayRecord files are Riegeli records files (riegeli's `records_file_format.md`): blocks of 64 KiB, each with a header
of 24 bytes; between those, chunks, each with a header of 40 bytes that claims its sizes. A megabyte of compressed zeros
claims gigabytes, which the library (array_record 0.8.3) would allocate. The last two chunks of records are the index
and the postscript (`chunk_index`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ecvae_jax.data.chunk_index import check_index
from ecvae_jax.data.errors import DataError

_BLOCK, _BLOCK_HEADER, _HEADER = 2**16, 24, 40
_USABLE = _BLOCK - _BLOCK_HEADER
_RECORDS, _KINDS = b"r", b"srpm"
"""Kinds of chunks: signature, records, padding, metadata. tensorflow-datasets writes no transposed chunks."""
_LARGEST_CHUNK = 64 * 2**20
"""Bytes, as stored and decoded; a JPEG of 8192×8192 px has about 20 MB."""
_MOST_TIMES, _FREE = 8, 16 * 2**20
"""A file's chunks decode to at most that many times its bytes, and these bytes more. Of our records it is 1.2 times."""
_READ_RECORDS, _READ_BYTES = 2048, 64 * 2**20
"""Decoded at once, at most; a single larger chunk counts alone."""


class Chunk(NamedTuple):
    """What a chunk's header claims."""

    place: int
    kind: bytes
    records: int
    stored: int
    """Bytes."""
    decoded: int
    """Bytes."""


def plan_reads(path: Path) -> list[range]:
    """Returns the records of a file in ranges that fit into memory, in order. Decodes nothing.

    Raises:
        DataError: a chunk claims more than the limits, or the file is damaged.
        OSError: the file cannot be read.
    """
    # A FIFO that replaces the file after a check must not block.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        size = os.fstat(descriptor).st_size
        chunks = [chunk for chunk in _chunks(descriptor, size, path.name) if chunk.kind == _RECORDS]
        if len(chunks) < 2 or chunks[-1].place != size - _BLOCK or chunks[-2].records != len(chunks) - 1:
            raise DataError(f"{path.name} is damaged: it does not end with the index of its records")
        index, postscript = (_read_stored(descriptor, chunk) for chunk in chunks[-2:])
    finally:
        os.close(descriptor)
    if sum(chunk.decoded for chunk in chunks) > _MOST_TIMES * size + _FREE:
        raise DataError(f"{path.name} claims to hold more than {_MOST_TIMES} times its {size} bytes")
    named = [(chunk.place, chunk.decoded, chunk.records) for chunk in chunks[:-2]]
    try:
        check_index(index, postscript, chunks[-2].place, named, _LARGEST_CHUNK)
    except ValueError as error:
        raise DataError(f"{path.name} is damaged: {error}") from None
    ranges = [range(0)]
    decoded = 0
    for chunk in chunks[:-2]:
        last = ranges[-1]
        if last and (len(last) + chunk.records > _READ_RECORDS or decoded + chunk.decoded > _READ_BYTES):
            ranges.append(range(last.stop, last.stop))
            decoded = 0
        ranges[-1] = range(ranges[-1].start, ranges[-1].stop + chunk.records)
        decoded += chunk.decoded
    return ranges


def _chunks(descriptor: int, size: int, name: str) -> Iterator[Chunk]:
    place = 0
    while place < size:
        chunk = _read_header(descriptor, place, name)
        if max(chunk.stored, chunk.decoded) > _LARGEST_CHUNK:
            larger = max(chunk.stored, chunk.decoded)
            raise DataError(
                f"{name} has a chunk at byte {place} that claims {larger} bytes: at most {_LARGEST_CHUNK // 2**20} MiB"
            )
        if chunk.kind not in _KINDS or (chunk.kind == _RECORDS and chunk.records > chunk.decoded):
            raise DataError(f"{name} is damaged: no ArrayRecord chunk begins at byte {place}")
        yield chunk
        length = _HEADER + chunk.stored
        blocks = (length + (place + _USABLE - 1) % _BLOCK) // _USABLE  # their headers lie inside the chunk
        place += length + blocks * _BLOCK_HEADER
    if place != size:
        raise DataError(f"{name} is damaged: its last chunk ends at byte {place} of {size}")


def _read_stored(descriptor: int, chunk: Chunk) -> bytes:
    """Returns a chunk's bytes behind its header, without the headers of blocks."""
    wanted = _HEADER + chunk.stored
    data = os.pread(descriptor, wanted + (wanted // _USABLE + 2) * _BLOCK_HEADER, chunk.place)
    parts, at = [], 0
    while at < len(data):
        into = (chunk.place + at) % _BLOCK
        at += _BLOCK_HEADER - into if into < _BLOCK_HEADER else 0
        end = at + _BLOCK - (chunk.place + at) % _BLOCK
        parts.append(data[at:end])
        at = end
    return b"".join(parts)[_HEADER:wanted]


def _read_header(descriptor: int, place: int, name: str) -> Chunk:
    data = os.pread(descriptor, _HEADER + _BLOCK_HEADER, place)
    before = -place % _BLOCK  # bytes in front of the next block header
    if before < _HEADER:
        data = data[:before] + data[before + _BLOCK_HEADER :]
    if len(data) < _HEADER:
        raise DataError(f"{name} is damaged: it ends inside a chunk's header")
    _, stored, _, kind_and_records, decoded = struct.unpack_from("<5Q", data)
    return Chunk(place, bytes([kind_and_records & 255]), kind_and_records >> 8, stored, decoded)
