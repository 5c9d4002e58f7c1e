"""The protocol of face detectors. In `__init__`, which loads them, it would close an import circle."""

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
    """A method that finds faces and their landmarks."""

    name: str
    """Stored in the records: the method and its version."""
    points: int
    """Landmarks per face, 98 or 68."""

    def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """Returns the faces of an RGB photo, the largest first; an empty list if none is found."""
        ...

    def measure(self, image: UInt8[np.ndarray, "h w 3"], box: tuple[float, float, float, float]) -> DetectedFace | None:
        """Returns the face in a known box (x0, y0, x1, y1 in pixels), or None if the box shows no face."""
        ...
