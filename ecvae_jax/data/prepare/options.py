"""The options of `ecvae prepare`, checked when they are made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ecvae_jax.data.errors import DataError

DetectorName = Literal["dlib-68", "mediapipe-98", "mediapipe-68"]


DETECTORS: tuple[str, ...] = get_args(DetectorName)

BOXES = {"celeba": "0.253,0.427,0.742,0.826"}
"""Boxes of well-known aligned sets: the median of what dlib's detector says on 147 of its photos."""


@dataclass(frozen=True)
class PrepareConfig:
    """How photos become records."""

    size: int = 256
    """Side of the stored crops in pixels. Choose no more than you train at: smaller crops are enlarged to it."""
    margin: float = 1.7
    """Side of the square crop as a multiple of the longer side of the landmarks' bounding box."""
    detector: DetectorName = "dlib-68"
    """What finds faces where no landmarks are given. "dlib-68": dlib's HOG detector and its 68 points (extra `dlib`;
    its landmark model is for non-commercial use). "mediapipe-98", "mediapipe-68": MediaPipe's face mesh read as 98 or
    68 points (extra `mediapipe`; Apache-2.0)."""
    box: str = ""
    """For photos that are aligned already: where every face is, x0,y0,x1,y1 as fractions of the photo, so that none is
    looked for and only its landmarks are found, a few times as fast. "celeba": CelebA's aligned photos."""
    landmarks: str = "auto"
    """"auto": landmarks68.csv, landmarks98.csv or landmarks.csv in the source's folder, or .pts files beside the
    photos, if there are any; "none": always detect; anything else: the file to use. A CSV has the columns image (the
    photo's name in the source), then x0, y0, x1, … in pixels, 0 being the photo's left or upper edge; a .txt is a list
    as WFLW has it."""
    identity: Literal["auto", "folder", "prefix", "stem", "none"] = "auto"
    """What names a person: the photo's folder, its file name without a trailing number (NAME_0001.jpg), its whole file
    name (the same ID.jpg in several folders), or nothing (each photo is its own). "auto" chooses and says what it
    chose. A MultiPIE tree has its subjects."""
    camera: str = ""
    """MultiPIE only: cameras to take, such as 05_1,14_0; empty: all. The same for the next four."""
    session: str = ""
    """Sessions, such as 01."""
    recording: str = ""
    """Recordings (what the face does), such as 01,02."""
    illumination: str = ""
    """Illuminations, such as 07."""
    subject: str = ""
    """Subjects, such as 001,002."""
    frame_step: int = 1
    """Videos only: take every so many frames."""
    validation: float = 0.05
    """Fraction of the people in the split `validation`."""
    test: float = 0.05
    """Fraction of the people in the split `test`."""
    min_side: int = 32
    """Smallest crop in pixels of the photo; a smaller face is rejected."""
    max_megapixels: float = 100.0
    """A photo of more is rejected before it is decoded."""
    quality: int = 95
    """JPEG quality of the stored crops (no chroma subsampling)."""
    preview: int = 0
    """Draw so many of the faces, with landmarks and sketches, into OUT/preview.png."""
    workers: int = 0
    """Processes; 0 is one for each core. The result does not depend on it."""
    beam_runner: str = ""
    """Prepare by Apache Beam (extra `beam`): DirectRunner (this machine), DataflowRunner, FlinkRunner, SparkRunner."""
    beam_options: tuple[str, ...] = ()
    """The runner's options as Beam's documentation has them, name=value, such as direct_num_workers=4."""
    beam_paths: str = ""
    """Where Beam's workers find a folder of this machine, FOLDER=URL, such as /mnt/faces=gs://faces; SOURCE and OUT
    must lie in it. Empty: under the same paths."""
    overwrite: bool = False
    """Replace OUT if it is an earlier records folder."""

    def __post_init__(self) -> None:
        """Refuses values out of range.

        Raises:
            DataError: an option is out of its range.
        """
        rules = {
            "size": (16 <= self.size <= 1024, "must be between 16 and 1024 px"),
            "margin": (1.0 <= self.margin <= 4.0, "must be between 1 and 4"),
            "detector": (self.detector in DETECTORS, f"must be one of {', '.join(DETECTORS)}"),
            "identity": (self.identity in ("auto", "folder", "prefix", "stem", "none"),
                         "must be auto, folder, prefix, stem or none"),
            "validation": (0.0 <= self.validation < 1.0, "must be at least 0 and less than 1"),
            "test": (0.0 <= self.test < 1.0, "must be at least 0 and less than 1"),
            "min_side": (self.min_side >= 1, "must be at least 1 px"),
            "max_megapixels": (self.max_megapixels > 0, "must be positive"),
            "quality": (1 <= self.quality <= 100, "must be between 1 and 100"),
            "frame_step": (self.frame_step >= 1, "must be at least 1"),
            "preview": (self.preview >= 0, "must not be negative"),
            "workers": (self.workers >= 0, "must not be negative"),
        }
        for name, (fine, rule) in rules.items():
            if not fine:
                raise DataError(f"{name}={getattr(self, name)!r}: {rule}")
        _ = self.face_box
        if not self.beam_runner and (self.beam_options or self.beam_paths):
            name = "beam_options" if self.beam_options else "beam_paths"
            raise DataError(f"{name}={getattr(self, name)!r}: it needs beam_runner; give both or none")
        if self.beam_paths and not all(self.beam_paths.partition("=")):
            raise DataError(f"beam_paths={self.beam_paths!r}: write FOLDER=URL, such as /mnt/faces=gs://faces")
        if self.validation + self.test >= 1.0:
            raise DataError(f"validation={self.validation} and test={self.test}: their sum must stay below 1")

    @property
    def face_box(self) -> tuple[float, float, float, float] | None:
        """What `box` means; none where faces are to be looked for.

        Raises:
            DataError: it is no box.
        """
        if not self.box:
            return None
        try:
            x0, y0, x1, y1 = (float(part) for part in BOXES.get(self.box, self.box).split(","))
        except ValueError:
            x0, y0, x1, y1 = 0.0, 0.0, 0.0, 0.0
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise DataError(
                f"box={self.box!r}: give x0,y0,x1,y1 between 0 and 1, the left and upper edge first, or one of "
                f"{', '.join(BOXES)}"
            )
        return x0, y0, x1, y1

    def seen_by_workers(self, path: Path) -> str:
        """Returns where Beam's workers find a path of this machine.

        Raises:
            DataError: it lies outside the folder of `beam_paths`.
        """
        here = os.path.abspath(path)  # a link stays one: the workers may see it elsewhere
        if not self.beam_paths:
            return here
        folder, _, there = self.beam_paths.partition("=")
        if not Path(here).is_relative_to(os.path.abspath(folder)):
            raise DataError(
                f"{path} does not lie in {folder}, the folder of beam_paths that the workers can see; move it there"
            )
        return f"{there.rstrip('/')}/{Path(here).relative_to(os.path.abspath(folder)).as_posix()}"

    @property
    def filters(self) -> dict[str, str]:
        """The MultiPIE filters that are set."""
        names = ("camera", "session", "recording", "illumination", "subject")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    @property
    def processes(self) -> int:
        """Number of processes that `workers` means on this machine."""
        if self.workers:
            return self.workers
        affinity = getattr(os, "sched_getaffinity", None)  # the cores we may use, where the system tells
        return len(affinity(0)) if affinity else os.cpu_count() or 1
