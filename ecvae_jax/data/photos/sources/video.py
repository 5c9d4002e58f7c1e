"""Frames of videos, decoded by PyAV."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ecvae_jax.data.errors import BadPhotoError, DataError, MissingExtraError
from ecvae_jax.data.photos.sources.folder import file_stamp, list_files
from ecvae_jax.data.photos.sources.source import Loaded, Photo, Source, damage_fact, load_until_damage, until_damage

_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpeg,mpegvideo,mpegts,asf,flv,m4v"
_HDR = (16, 18)
"""Transfer curves PQ and HLG, ITU-T H.273."""
_OTHER_CURVES = (8, 9, 10, 17)
"""Linear light, logarithms, digital cinema."""
_OTHER_PRIMARIES = (8, 10, 11, 12)
"""Film, XYZ, and the two P3."""
_BT2020 = 9
_BT2020_MATRICES = (9, 10)
_UNSTATED = 2
_MATRICES = (0, 1, _UNSTATED, 4, 5, 6, 7)
"""Of Y'CbCr to RGB, ITU-T H.273, that libswscale applies; it takes any other one for BT.601."""
_ASSUMED = {"BT.601": "ITU601", "BT.709": "ITU709"}
_MOST_ASPECT = 4
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
    facts: list[str] = []
    assumed: dict[str, int] = {}
    for name, file in videos.items():
        damage: list[str] = []
        count = sum(until_damage(_packets(file), damage))
        if not count:
            skipped.append((name, f"unreadable video: {damage[0]}" if damage else "the video has no frames"))
            continue
        facts += damage_fact(name, count, "frames", damage)
        with open_container(file) as container:
            matrix = assumed_matrix(picture_stream(container).codec_context)
        if matrix:
            assumed[matrix] = assumed.get(matrix, 0) + 1
        person, stamp = os.path.splitext(name)[0], f"{file_stamp(file)} {frame_step}"
        numbers = list(range(0, count, frame_step))
        photos += [Photo(f"{name}#{n:06d}", person, person, {"frame": n}, stamp) for n in numbers]
        chosen.append((file, numbers))
    if not photos:
        why = f": {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"source 'video:{path}': no readable frame{why}")
    fact = f"identities: {len(chosen)}, one per video; {len(photos)} frames, every {frame_step}th"
    label = f"video:{path.resolve().name}"
    assumptions = [
        f"{many} of {len(chosen)} videos: {assumed_fact(matrix)}" for matrix, many in sorted(assumed.items())
    ]
    facts = [fact, *assumptions, *facts]
    return Source(label, photos, lambda start: _load(chosen, start), None, sorted(skipped), facts, inputs=(path,))


def _load(videos: list[tuple[Path, list[int]]], start: int) -> Iterator[Loaded]:
    for file, numbers in videos:
        if start >= len(numbers):
            start -= len(numbers)
            continue
        yield from load_until_damage(_frames(file, set(numbers[start:])), len(numbers) - start, "frame")
        start = 0


def _frames(file: Path, wanted: set[int]) -> Iterator[Loaded]:
    with open_container(file) as container:
        stream = picture_stream(container)
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                time = None if frame.time is None else round(float(frame.time), 3)
                yield Loaded(upright_frame(frame, stream), {"time": time})


def upright_frame(frame: Any, stream: Any) -> UInt8[np.ndarray, "h w 3"] | BadPhotoError:
    """Returns a frame as a player shows it: with square pixels and turned by the display matrix, or why not.

    Phones store portraits sideways and state the turn; DV and DVD store pixels that are not square.
    """
    if frame.color_trc in _HDR or frame.color_primaries == _BT2020 or frame.colorspace in _BT2020_MATRICES:
        return BadPhotoError("high dynamic range or BT.2020 video: convert it to BT.709")
    if frame.color_trc in _OTHER_CURVES or frame.color_primaries in _OTHER_PRIMARIES:
        stated = f"curve {int(frame.color_trc)}, primaries {int(frame.color_primaries)}"
        return BadPhotoError(f"colors of the video ({stated} of ITU-T H.273): convert it to BT.709")
    if frame.colorspace not in _MATRICES:
        return BadPhotoError(f"color matrix {int(frame.colorspace)} (ITU-T H.273) of the video: convert it to BT.709")
    matrix = assumed_matrix(frame)
    # libswscale takes BT.601 at any size
    pixels = frame.to_ndarray(format="rgb24", **({"src_colorspace": _ASSUMED[matrix]} if matrix else {}))
    aspect = float(stream.sample_aspect_ratio or 1)
    if not 1 / _MOST_ASPECT <= aspect <= _MOST_ASPECT:
        return BadPhotoError(f"pixel aspect of {aspect:g}: must be between 1/{_MOST_ASPECT} and {_MOST_ASPECT}")
    if abs(aspect - 1) > 0.001:  # the shorter side is enlarged, so that no pixel is lost
        height, width = pixels.shape[:2]
        size = (round(width * max(aspect, 1)), round(height * max(1 / aspect, 1)))
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    # 3 × 3 numbers, row by row, of a row vector (x, y, 1): x' = a·x + c·y, y' = b·x + d·y
    a, b, _, c, d = (value / 65536 for value in struct.unpack("<5i", bytes(matrix)[:20]))
    if max(abs(b), abs(c)) < 0.01 * min(abs(a), abs(d)):
        across, down = a, d
    elif max(abs(a), abs(d)) < 0.01 * min(abs(b), abs(c)):
        pixels, across, down = pixels.transpose(1, 0, 2), c, b
    else:
        return BadPhotoError("display matrix of the video turns by an odd angle: turn it by 0, 90, 180 or 270°")
    return np.ascontiguousarray(pixels[:: 1 if down > 0 else -1, :: 1 if across > 0 else -1])


def assumed_matrix(stated: Any) -> str | None:
    """Returns the color matrix taken for a frame or codec context that states none, or None where it states one.

    The size decides, as in players: high definition has that of BT.709.
    """
    if stated.colorspace != _UNSTATED:
        return None
    return "BT.709" if stated.width >= 1280 or stated.height > 576 else "BT.601"


def assumed_fact(matrix: str) -> str:
    """Returns the message about that assumption."""
    return f"no color matrix is stated, {matrix} is assumed by the size"


def _packets(file: Path) -> Iterator[bool]:
    """Yields for each packet whether it is a frame. Decodes none: the length in a container's header is often wrong."""
    with open_container(file) as container:
        yield from (packet.size > 0 for packet in container.demux(picture_stream(container)))


def picture_stream(container: Any) -> Any:
    """Returns the first video stream of an open container. The cover of a song is a video stream of one frame: none.

    Raises:
        BadPhotoError: there is none.
    """
    cover = _import_av().stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & cover:
            return stream
    raise BadPhotoError("no video stream; give a file with moving pictures")


def open_container(file: Path) -> Any:
    """Returns the open container. libav chooses by content: a playlist in a .mp4 would open other files and URLs."""
    # discardcorrupt: the last packet of a file that is cut off would give a half gray frame
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file", "fflags": "+discardcorrupt"}
    return _import_av().open(f"file:{file.absolute()}", options=options)


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise MissingExtraError("PyAV is not installed: `pip install 'ecvae-jax[video]'`") from None
    return av
