"""The options of `ecvae prepare`, checked at construction. Imports nothing heavy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ecvae_jax.data.errors import DataError

DetectorName = Literal["dlib-68", "mediapipe-98", "mediapipe-68"]
DETECTORS: tuple[str, ...] = get_args(DetectorName)

BOXES = {"celeba": "0.253,0.427,0.742,0.826"}
"""Face boxes of known aligned sets: the median of dlib's detections on 147 of its photos."""


@dataclass(frozen=True)
class PrepareConfig:
    """How photos become records."""

    size: int = 256
    """Side of the stored crops in pixels; smaller crops are enlarged. Choose at most the size you train at."""
    margin: float = 1.7
    """Side of the square crop as a multiple of the longer side of the landmarks' bounding box."""
    detector: DetectorName = "dlib-68"
    """Finds faces if no landmarks are given. "dlib-68": dlib's HOG detector and its 68 points (extra `dlib`; its
    landmark model is for non-commercial use). "mediapipe-98", "mediapipe-68": MediaPipe's face mesh as 98 or 68 points
    (extra `mediapipe`; Apache-2.0)."""
    box: str = ""
    """For aligned photos: the box of every face, x0,y0,x1,y1 as fractions of the photo. No face is searched for, only
    its landmarks, which is a few times as fast. "celeba": CelebA's aligned photos."""
    landmarks: str = "auto"
    """"auto": landmarks68.csv, landmarks98.csv or landmarks.csv in the source, else .pts files beside the photos, else
    detect. "none": always detect. Any other value: the file to use. A CSV has the columns image (the photo's name in
    the source), x0, y0, x1, … in pixels of the upright photo; 0 is its left or upper edge. A .txt is a list in WFLW's
    format."""
    identity: Literal["auto", "folder", "prefix", "stem", "none"] = "auto"
    """What names a person. "folder": the photo's folder. "prefix": its file name without a trailing number
    (NAME_0001.jpg). "stem": its whole file name (the same ID.jpg in several folders). "none": each photo is a person.
    "auto" chooses and reports its choice. A MultiPIE tree has its subjects."""
    camera: str = ""
    """MultiPIE only: cameras to use, such as 05_1,14_0; empty: all. The same for the next four."""
    session: str = ""
    """Sessions, such as 01."""
    recording: str = ""
    """Recordings (expressions), such as 01,02."""
    illumination: str = ""
    """Illuminations, such as 07."""
    subject: str = ""
    """Subjects, such as 001,002."""
    frame_step: int = 1
    """Videos only: use every Nth frame."""
    validation: float = 0.05
    """Fraction of the people in the split `validation`. With `test` it may reach 1: records for evaluation only."""
    test: float = 0.05
    """Fraction of the people in the split `test`."""
    min_side: int = 32
    """Smallest crop in pixels of the photo; a smaller face is rejected."""
    max_megapixels: float = 100.0
    """A larger photo is rejected before it is decoded."""
    max_megabytes: float = 64.0
    """A larger file is rejected before it is opened. A photo of 24 megapixels in uncompressed 16-bit TIFF has 144."""
    max_seconds: float = 60.0
    """A photo that takes more seconds of CPU time is rejected. Beam's workers do not measure it."""
    quality: int = 95
    """JPEG quality of the stored crops (no chroma subsampling)."""
    preview: int = 0
    """Draw N of the faces, with landmarks and sketches, into OUT/preview.png."""
    workers: int = 0
    """Processes; 0: one per core. The result does not depend on it."""
    beam_runner: str = ""
    """Prepare by Apache Beam (extra `beam`): DirectRunner (this machine), DataflowRunner, FlinkRunner, SparkRunner."""
    beam_options: tuple[str, ...] = ()
    """The runner's options from Beam's documentation, name=value, such as direct_num_workers=4."""
    beam_paths: str = ""
    """Where Beam's workers see a folder of this machine, FOLDER=URL, such as /mnt/faces=gs://faces; it must contain
    SOURCE and OUT. Empty: under the same paths."""
    overwrite: bool = False
    """Replace OUT if it is a records folder."""

    def __post_init__(self) -> None:
        """Checks all values.

        Raises:
            DataError: an option is out of its range.
        """
        rules = {
            "size": (16 <= self.size <= 1024, "must be between 16 and 1024 px"),
            "margin": (1.0 <= self.margin <= 4.0, "must be between 1 and 4"),
            "detector": (self.detector in DETECTORS, f"must be one of {', '.join(DETECTORS)}"),
            "identity": (
                self.identity in ("auto", "folder", "prefix", "stem", "none"),
                "must be auto, folder, prefix, stem or none",
            ),
            "validation": (0.0 <= self.validation <= 1.0, "must be between 0 and 1"),
            "test": (0.0 <= self.test <= 1.0, "must be between 0 and 1"),
            "min_side": (self.min_side >= 1, "must be at least 1 px"),
            "max_megapixels": (0 < self.max_megapixels <= 2000, "must be positive and at most 2000"),
            "max_megabytes": (0 < self.max_megabytes <= 2000, "must be positive and at most 2000 MB"),
            "max_seconds": (0 < self.max_seconds <= 86_400, "must be positive and at most 86400 s"),
            "quality": (1 <= self.quality <= 100, "must be between 1 and 100"),
            "frame_step": (self.frame_step >= 1, "must be at least 1"),
            "preview": (self.preview >= 0, "must not be negative"),
            "workers": (self.workers >= 0, "must not be negative"),
        }
        for name, (valid, rule) in rules.items():
            if not valid:
                raise DataError(f"{name}={getattr(self, name)!r}: {rule}")
        _ = self.face_box
        if not self.beam_runner and (self.beam_options or self.beam_paths):
            name = "beam_options" if self.beam_options else "beam_paths"
            raise DataError(f"{name}={getattr(self, name)!r}: it needs beam_runner; give both or none")
        if self.beam_paths and not all(self.beam_paths.partition("=")):
            raise DataError(f"beam_paths={self.beam_paths!r}: write FOLDER=URL, such as /mnt/faces=gs://faces")
        if self.validation + self.test > 1.0:
            raise DataError(f"validation={self.validation} and test={self.test}: their sum must not exceed 1")

    @property
    def face_box(self) -> tuple[float, float, float, float] | None:
        """The box of every face as x0, y0, x1, y1 in fractions of the photo; None: faces are searched for.

        Raises:
            DataError: `box` is not a box.
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
        """Returns the path or URL under which Beam's workers see a path of this machine.

        Raises:
            DataError: the path is outside the folder of `beam_paths`.
        """
        here = os.path.abspath(path)  # links are kept: the workers may see their targets elsewhere
        if not self.beam_paths:
            return here
        folder, _, there = self.beam_paths.partition("=")
        if not Path(here).is_relative_to(os.path.abspath(folder)):
            raise DataError(
                f"{path} is not in {folder}, the folder of beam_paths that the workers can see; move it there"
            )
        return f"{there.rstrip('/')}/{Path(here).relative_to(os.path.abspath(folder)).as_posix()}"

    @property
    def filters(self) -> dict[str, str]:
        """The MultiPIE filters that are set."""
        names = ("camera", "session", "recording", "illumination", "subject")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    @property
    def processes(self) -> int:
        """Number of processes on this machine."""
        if self.workers:
            return self.workers
        affinity = getattr(os, "sched_getaffinity", None)  # the usable cores; not on every system
        return len(affinity(0)) if affinity else os.cpu_count() or 1
