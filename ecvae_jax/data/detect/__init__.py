"""Face detectors by name; each imports its library only when it is loaded.

To add a detector:

1. Write a module here with a class that follows `detector.Detector`. Its `name` starts with its key in `_LOADERS`.
2. Add its key and a loader to `_LOADERS`. The key ends in the number of landmarks: NAME-68 or NAME-98.
3. Add the key to `DetectorName` in `data/prepare/options.py`, which the command line offers.
4. Add its library to pyproject's extras and to `DOORS` in `tests/test_project_layers.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from ecvae_jax.data.detect.detector import Detector
from ecvae_jax.data.errors import DataError


def load_detector(name: str, video: bool = False) -> Detector:
    """Returns the detector of that name.

    Args:
        video: one that reads a face at rest alike in every frame, at a higher cost.

    Raises:
        DataError: no such detector exists.
        MissingExtraError: a library or model file of it is not installed.
    """
    if name not in _LOADERS:
        raise DataError(f"detector={name!r}: must be one of {', '.join(_LOADERS)}")
    return _LOADERS[name](video)


def recorded_detector(text: str) -> str | None:
    """Returns the detector that a records folder names as its `detector`; None for exact or given landmarks."""
    word = text.split(" ")[0]
    return word if word in _LOADERS else None


def choose_detector(points: int, trained_with: str = "") -> str:
    """Returns the name of the detector for photos that a model will read.

    It is the detector of the model's records, so that landmarks mean the same. A model of 68 points may use a detector
    of 98: training converts 98 points by the same rule. The default is dlib for 68 points and MediaPipe for 98.

    Args:
        points: landmark scheme of the model, 98 or 68.
        trained_with: `detector` in the records' metadata.
    """
    name = recorded_detector(trained_with)
    if name and int(name.rpartition("-")[2]) >= points:
        return name
    return "dlib-68" if points == 68 else "mediapipe-98"


def _dlib_68(video: bool) -> Detector:
    from ecvae_jax.data.detect.dlib import Dlib68

    return Dlib68(steady=video)


def _mediapipe(points: int) -> Detector:
    from ecvae_jax.data.detect.mediapipe.mesh import MediaPipeMesh

    return MediaPipeMesh(points)


_LOADERS: dict[str, Callable[[bool], Detector]] = {
    "dlib-68": _dlib_68,
    "mediapipe-98": lambda video: _mediapipe(98),
    "mediapipe-68": lambda video: _mediapipe(68),
}
