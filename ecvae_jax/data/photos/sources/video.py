"""Frames of videos, decoded by PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ecvae_jax.data.errors import DataError, MissingExtraError, one_line
from ecvae_jax.data.photos.photo import BadPhotoError
from ecvae_jax.data.photos.sources.folder import file_stamp, list_files
from ecvae_jax.data.photos.sources.source import Loaded, Photo, Source

VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"))


def open_video(path: Path, frame_step: int) -> Source:
    """Returns every `frame_step`-th frame of a video, or of all videos below a folder.

    A video shows one person under one light: identity and group are its name.

    Raises:
        DataError: the file or folder does not exist, or has no readable frame.
        MissingExtraError: PyAV is not installed.
    """
    _import_av()
    if path.is_dir():
        files, skipped = list_files(path)
        videos = {name: file for name, file in files.items() if file.suffix.lower() in VIDEO_SUFFIXES}
        skipped += [(name, "not a video suffix") for name in files if name not in videos]
    elif path.is_file():
        videos, skipped = {path.name: path}, []
    else:
        raise DataError(f"source 'video:{path}': no such file or folder")
    photos: list[Photo] = []
    chosen: list[tuple[Path, list[int]]] = []
    for name, file in videos.items():
        try:
            count = _count_frames(file)
        except Exception as error:  # libav raises many types for a damaged file
            skipped.append((name, f"unreadable video: {one_line(error)}"))
            continue
        if not count:
            skipped.append((name, "the video has no frames"))
            continue
        person, stamp = os.path.splitext(name)[0], f"{file_stamp(file)} {frame_step}"
        numbers = list(range(0, count, frame_step))
        photos += [Photo(f"{name}#{n:06d}", person, person, {"frame": n}, stamp) for n in numbers]
        chosen.append((file, numbers))
    if not photos:
        why = f": {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"source 'video:{path}': no readable frame{why}")
    fact = f"identities: {len(chosen)}, one per video; {len(photos)} frames, every {frame_step}th"
    label = f"video:{path.resolve().name}"
    return Source(label, photos, lambda start: _load(chosen, start), None, sorted(skipped), [fact], inputs=(path,))


def _load(videos: list[tuple[Path, list[int]]], start: int) -> Iterator[Loaded]:
    for file, numbers in videos:
        if start >= len(numbers):
            start -= len(numbers)
            continue
        yield from _frames(file, numbers[start:])
        start = 0


def _frames(file: Path, numbers: list[int]) -> Iterator[Loaded]:
    """Yields the frames with these numbers; for a damaged frame and all after it, the reason."""
    wanted, given, reason = set(numbers), 0, "the video ends earlier"
    try:
        with _import_av().open(str(file)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    time = None if frame.time is None else round(float(frame.time), 3)
                    given += 1
                    yield Loaded(frame.to_ndarray(format="rgb24"), {"time": time})
                if given == len(numbers):
                    return
    except Exception as error:  # libav raises many types for a damaged file
        reason = one_line(error)
    for _ in range(len(numbers) - given):
        yield Loaded(BadPhotoError(f"damaged: frame cannot be decoded: {reason}"))


def _count_frames(file: Path) -> int:
    """Counts packets without decoding: the length in a container's header is often wrong."""
    with _import_av().open(str(file)) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise MissingExtraError("PyAV is not installed: `pip install 'ecvae-jax[video]'`") from None
    return av
