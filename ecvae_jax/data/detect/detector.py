"""The protocol of face detectors."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, UInt8


class DetectedFace(NamedTuple):
    """One face, in pixels of the photo; 0 is the photo's left or upper edge."""

    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 of the detector's box."""
    landmarks: Float[np.ndarray, "p 2"]
    points: int

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


class Detector(Protocol):
    """Anything that finds faces and their landmarks."""

    name: str
    """What is written into the records: the method and its version."""
    points: int
    """Landmarks per face, 98 or 68."""

    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """Returns the faces in an RGB photo, the largest first; none if there is none."""
        ...

    def measure(self, image: UInt8[np.ndarray, "h w 3"], box: tuple[float, float, float, float]) -> DetectedFace | None:
        """Returns the face in a box that is known, x0, y0, x1, y1 in pixels; none where none is seen in it."""
        ...
