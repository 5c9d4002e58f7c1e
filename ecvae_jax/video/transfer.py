"""`ecvae transfer` to a video: a driver's motion, or a walk, drawn on one source."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.config import AdaptConfig
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.portraits import PortraitReader
from ecvae_jax.files import check_output
from ecvae_jax.model.model import Model
from ecvae_jax.progress import track
from ecvae_jax.video.draw import draw_frames
from ecvae_jax.video.jitter import Motion, measure_motion
from ecvae_jax.video.motion import absolute_motion, relative_motion, within
from ecvae_jax.video.options import OUT_SUFFIXES, VideoConfig, is_video
from ecvae_jax.video.paste import Paste
from ecvae_jax.video.paths import walk
from ecvae_jax.video.read import Driver, open_driver
from ecvae_jax.video.smooth import smooth_landmarks
from ecvae_jax.video.source import Source, crop_side, load_source
from ecvae_jax.video.track import Find, WindowedSearch, track_face
from ecvae_jax.video.write import beside, check_encoder, regular_times, write_video

_REACH = 0.06
"""Largest move of the head, in crop units: farther, the model draws the surroundings blurred (docs/video.md)."""

Pictures = Iterator[UInt8[np.ndarray, "h w 3"]]


class Plan(NamedTuple):
    """The structures of a video's frames, and when they are shown."""

    faces: Float[np.ndarray, "n p 2"]
    """Crop units of the source."""
    times: list[Fraction]
    durations: list[Fraction]
    notes: list[str]
    motion: Motion | None
    """Jitter and lag of the smoothed landmarks; None for a walk."""


def transfer_video(
    model: Model,
    source: str,
    driver: Path | None,
    out: Path,
    config: VideoConfig = VideoConfig(),  # noqa: B008
    transport: bool = True,
    adaptation: AdaptConfig = AdaptConfig(),  # noqa: B008
    enlarge: int = 1,
    find: Find | None = None,
) -> list[str]:
    """Writes a source with a driver's motion, or on a walk, as a video; returns notes, jitter and lag last.

    Args:
        source: a photo, or a face of records as RECORDS:SPLIT:INDEX.
        driver: the driver video; None with `config.path`.
        out: .mp4, .mov, .mkv, .webm or .gif.
        enlarge: factor of the face's crop; 1 with `config.paste`.
        find: finds the driver's faces, in the model's scheme; None: the model's detector.

    Raises:
        DataError: source or driver cannot be read, or shows no face.
        MissingExtraError: PyAV, its encoder or the detector is not installed.
        UnsafePathError: `out` is an input, or no regular file.
        ValueError: the suffix is unknown, or neither or both of driver and path are given.
        OSError: the video cannot be written.
    """
    if not is_video(out):
        raise ValueError(f"out={str(out)!r}: a video ends in {', '.join(OUT_SUFFIXES)}")
    if (driver is None) == (config.path is None):
        raise ValueError(f"driver={driver}, path={config.path}: give a driver video or a path, and not both")
    check_output(out, [source, *([driver] if driver else [])])
    film = open_driver(driver) if driver else None
    face = load_source(model, source)
    plan = _drive(model, face, film, config, find) if film else _walk(face, config)
    side = crop_side(face) * (1 if config.paste else enlarge)
    drawn = track(draw_frames(model, face, plan.faces, side, transport, adaptation), len(plan.faces), "frames drawn")
    pictures = map(Paste(face.photo, face.box), drawn) if config.paste else drawn
    if config.side_by_side:
        height = face.photo.shape[0] if config.paste else side
        pictures = beside(pictures, _left(film, face, len(plan.faces), height))
    audio = film.path if film and film.has_audio else None
    notes = [*face.notes, *plan.notes, *write_video(out, pictures, plan.times, plan.durations, audio)]
    rate = len(plan.times) / float(plan.times[-1] + plan.durations[-1] - plan.times[0])
    notes.append(
        f"{len(plan.times)} frames, {rate:.2f}/s{', audio copied' if audio and out.suffix != '.gif' else ''}: {out}"
    )
    return [*notes, plan.motion.to_line("motion")] if plan.motion else notes


def write_transfer_video(
    checkpoint: Path | None,
    source: str,
    driver: Path | None,
    out: Path,
    config: VideoConfig,
    transport: bool,
    adaptation: AdaptConfig,
    enlarge: int,
) -> list[str]:
    """Writes the video of `ecvae transfer`; returns notes. See `transfer_video`."""
    check_output(out, [source, *([driver] if driver else [])])
    check_encoder(out)
    if driver is not None:
        open_driver(driver)  # refused before the model loads
    return transfer_video(load_model(checkpoint), source, driver, out, config, transport, adaptation, enlarge)


def _drive(model: Model, face: Source, film: Driver, config: VideoConfig, find: Find | None) -> Plan:
    reader = PortraitReader.of_model(model)
    find = find or WindowedSearch(reader.load(video=True))
    clock: list[tuple[Fraction, Fraction]] = []

    def frames() -> Iterator:
        for frame in film:
            clock.append((frame.time, frame.duration))
            yield frame

    tracked = track_face(track(frames(), film.count, "frames tracked"), find, str(film.path))
    raw = reader.in_scheme(tracked.raw)
    smooth = smooth_landmarks(raw, tracked.times)
    notes = [*film.notes, *tracked.notes]
    if config.motion == "relative":
        faces, rest = relative_motion(smooth, face.landmarks)
        notes.append(f"motion relative to rest: the driver's frames like the one at {tracked.times[rest]:.2f} s")
    else:
        faces = absolute_motion(smooth, face.landmarks)
    faces, far = within(faces, face.landmarks, _REACH)
    if far:
        notes.append(f"{film.path}: the head moves far in {far} of {len(faces)} frames; the source's follows a part")
    motion = measure_motion(raw, smooth, tracked.times)
    return Plan(faces, [time for time, _ in clock], [length for _, length in clock], notes, motion)


def _walk(face: Source, config: VideoConfig) -> Plan:
    count = max(1, round(config.seconds * config.fps))
    if config.path is None:
        raise DataError("path=None: name a walk")
    return Plan(walk(face.landmarks, config.path, count), *regular_times(count, config.fps), [], None)


def _left(film: Driver | None, face: Source, count: int, height: int) -> Pictures:
    """Yields what is shown at the left: the driver's frames, or the source."""
    if film is not None:
        for frame in film:
            yield frame.pixels
        return
    still = (
        face.photo
        if face.photo.shape[0] >= height
        else np.asarray(Image.fromarray(face.view).resize((height, height), Image.Resampling.BICUBIC))
    )
    for _ in range(count):
        yield still
