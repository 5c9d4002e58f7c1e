"""Options of a video; imports nothing heavy, as the command line reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ecvae_jax.config.checks import check

OUT_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".gif")
"""Suffixes of the videos that are written; the suffix chooses the format."""

PathName = Literal["circle", "turn", "nod", "smile", "laugh", "surprise", "blink", "wink", "kiss"]


def is_video(out: Path) -> bool:
    """Returns whether an output's name asks for a video."""
    return out.suffix.lower() in OUT_SUFFIXES


@dataclass(frozen=True)
class VideoConfig:
    """A video: how the driver moves the source, and what is shown."""

    motion: Literal["relative", "absolute"] = "relative"
    """relative: the driver's motion from its frame nearest to the source's pose and expression, on the source's face.
    absolute: the driver's own structure."""
    paste: bool = False
    """Put the face back into the source photo. Without it, the video shows the face's crop."""
    side_by_side: bool = False
    """Show the driver, or the source photo, at the left."""
    path: PathName | None = None
    """A walk instead of a driver: a closed loop from the source's own face. Needs no --target."""
    seconds: float = 3.0
    """Length of a walk."""
    fps: int = 25
    """Frames per second of a walk. A driven video has the driver's frame times."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check(self.motion in ("relative", "absolute"), "motion", self.motion, "must be relative or absolute")
        names = get_args(PathName)
        check(self.path is None or self.path in names, "path", self.path, f"must be one of {', '.join(names)}")
        check(0 < self.seconds <= 600, "seconds", self.seconds, "must be above 0, at most 600")
        check(1 <= self.fps <= 120, "fps", self.fps, "must be between 1 and 120")
