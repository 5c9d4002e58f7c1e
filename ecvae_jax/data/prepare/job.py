"""The work on one photo: decode, find the face, crop, encode."""

from __future__ import annotations

import contextlib
import io
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from ecvae_jax.data.detect import load_detector
from ecvae_jax.data.detect.detector import Detector
from ecvae_jax.data.errors import BadPhotoError
from ecvae_jax.data.photos.crop import cut_crop, to_crop_units
from ecvae_jax.data.photos.face_check import check_face
from ecvae_jax.data.photos.photo import TURNED, read_photo
from ecvae_jax.data.photos.sources.source import Content
from ecvae_jax.data.prepare.options import PrepareConfig


@dataclass(frozen=True)
class FaceJob:
    """One photo to prepare, with what the source knows of it in `tags`."""

    content: Content
    landmarks: Float[np.ndarray, "p 2"] | None = None
    """Pixels, given by the user; None: detected."""
    tags: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FaceOutcome:
    """The outcome of a photo: a face, or the reason for its rejection."""

    reason: str = ""
    """Empty for a face."""
    image: bytes = b""
    """JPEG bytes of the crop."""
    landmarks: Float[np.ndarray, "p 2"] | None = None
    """Crop units; None if rejected."""
    crop: dict[str, Any] = field(default_factory=dict)
    """{"x0", "y0", "side"} of the crop in its photo, {"width", "height"} of the photo: pixels."""
    notes: tuple[str, ...] = ()
    """What was done, and what the user should know."""
    tags: dict[str, Any] = field(default_factory=dict)
    """For the record's tags."""


class FaceWorker:
    """Does face jobs; loads a detector only if landmarks must be found."""

    def __init__(self, options: PrepareConfig, detect: bool) -> None:
        """Loads the detector if `detect`.

        Raises:
            MissingExtraError: the detector is not installed.
        """
        self._options = options
        self._detector: Detector | None = load_detector(options.detector) if detect else None

    def __call__(self, job: FaceJob) -> FaceOutcome:
        """Returns the outcome of the photo; a bad photo is an outcome, not an exception."""
        notes: list[str] = []
        try:
            with _limited(self._options.max_seconds):
                return self._face(job, notes)
        except BadPhotoError as error:
            return FaceOutcome(reason=str(error), notes=tuple(notes))
        except Exception as error:  # of a detector or an encoder: one photo must not end the whole preparation
            message = " ".join(str(error).split())[:200]
            return FaceOutcome(reason=f"failed: {type(error).__name__}: {message}", notes=tuple(notes))

    def _face(self, job: FaceJob, notes: list[str]) -> FaceOutcome:
        if isinstance(job.content, BadPhotoError):
            raise job.content
        limits = self._options
        photo, read_notes = read_photo(job.content, limits.max_megapixels, limits.max_megabytes)
        notes += read_notes
        landmarks, face_notes = self._landmarks(photo, job)
        notes += face_notes
        height, width = photo.shape[:2]
        given_in_turned = job.landmarks is not None and TURNED in read_notes
        box, box_notes = check_face(landmarks, height, width, limits.margin, limits.min_side, given_in_turned)
        notes += box_notes
        size = limits.size
        if box.side < size:
            notes.append(f"crop of {box.side:.0f} px enlarged to {size} px")
        stream = io.BytesIO()
        # Not `optimize=True`: libjpeg then needs the whole picture in one buffer, and noise exceeds it.
        crop_image = Image.fromarray(cut_crop(photo, box, size))
        crop_image.save(stream, "JPEG", quality=self._options.quality, subsampling=0)
        crop = {key: round(value, 3) for key, value in box._asdict().items()}
        crop |= {"width": photo.shape[1], "height": photo.shape[0]}
        return FaceOutcome("", stream.getvalue(), to_crop_units(landmarks, box), crop, tuple(notes), job.tags)

    def _landmarks(self, photo: np.ndarray, job: FaceJob) -> tuple[Float[np.ndarray, "p 2"], list[str]]:
        if job.landmarks is not None:
            return job.landmarks, []
        if self._detector is None:
            raise BadPhotoError("no landmarks: none are given for it")
        box = self._options.face_box
        if box:
            height, width = photo.shape[:2]
            x0, y0, x1, y1 = box
            face = self._detector.measure(photo, (x0 * width, y0 * height, x1 * width, y1 * height))
            faces = [face] if face else []
        else:
            faces = self._detector.detect(photo)
        if not faces:
            raise BadPhotoError("no face found")
        notes = [f"{len(faces)} faces, the largest is taken"] if len(faces) > 1 else []
        return faces[0].landmarks, notes


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raises `BadPhotoError` in the block after that many seconds of this process's CPU time.

    CPU time, so that a busy machine gives the same records. A call into C is stopped when it returns; the limits on
    bytes and megapixels bound each. Threads have no signals; Beam's give their photos to a process (`SoloWorker`).
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise BadPhotoError(f"takes too long: more than {seconds:g} s, the limit (max_seconds)")

    before = signal.signal(signal.SIGVTALRM, stop)
    # Again after each second: a library may catch the first.
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)
