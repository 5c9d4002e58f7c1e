"""Face detectors, chosen by name; each imports its library only when it is loaded."""

from __future__ import annotations

from ecvae_jax.data.detect.detector import Detector
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.prepare.options import DETECTORS


def load_detector(name: str) -> Detector:
    """Returns the detector of that name.

    Raises:
        DataError: there is no such detector.
        MissingExtraError: what it needs is not installed.
    """
    if name == "dlib-68":
        from ecvae_jax.data.detect.dlib import Dlib68

        return Dlib68()
    if name in DETECTORS:
        from ecvae_jax.data.detect.mediapipe.mesh import MediaPipeMesh

        return MediaPipeMesh(int(name.removeprefix("mediapipe-")))
    raise DataError(f"detector={name!r}: must be one of {', '.join(DETECTORS)}")


def choose_detector(points: int, trained_with: str = "") -> str:
    """Returns the detector for photos that a model will read.

    It is the one that its records were made with, so that the landmarks mean the same (98 points are read as 68 by the
    same rule as in training); where that is not known, dlib's for 68 points and MediaPipe's for 98.

    Args:
        points: landmark scheme of the model, 98 or 68.
        trained_with: the records' `detector`, whose first word names it.
    """
    word = trained_with.split(" ")[0]
    if word in DETECTORS and int(word.rpartition("-")[2]) >= points:
        return word
    return "dlib-68" if points == 68 else "mediapipe-98"
