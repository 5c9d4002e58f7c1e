"""Images as arrays and PNG files: float and 8-bit pixels, tiles, sketches. NumPy and Pillow only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from ecvae_jax.files import write_atomically

_GAP = 2
_WHITE = 255


def to_float(image: UInt8[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
    """Returns 8-bit pixels as float32 in [-1, 1]."""
    return image.astype(np.float32) / 127.5 - 1.0


def to_uint8(image: Float[np.ndarray, "*b h w c"]) -> UInt8[np.ndarray, "*b h w c"]:
    """Returns images in [-1, 1] as 8-bit pixels; values outside are clipped."""
    return np.clip(np.rint((np.asarray(image, np.float32) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def sketch_image(sketch: Float[np.ndarray, "*b h w s"]) -> UInt8[np.ndarray, "*b h w 3"]:
    """Returns sketches in [0, 1] as dark lines on white, all boundaries in one image."""
    lines = np.max(np.asarray(sketch, np.float32), axis=-1, keepdims=True)
    return np.repeat(np.rint(255.0 * (1.0 - lines)), 3, axis=-1).astype(np.uint8)


def tile(rows: Sequence[Sequence[UInt8[np.ndarray, "h w 3"] | None]]) -> UInt8[np.ndarray, "H W 3"]:
    """Returns rows of images of one size as one image, with a white gap of 2 px; None leaves a cell white.

    Raises:
        ValueError: the images differ in size, or no image is given.
    """
    shapes = {image.shape for row in rows for image in row if image is not None}
    if len(shapes) != 1:
        raise ValueError(f"images of sizes {sorted(shapes)}: a grid needs images of one size")
    height, width, _ = shapes.pop()
    columns = max(len(row) for row in rows)
    canvas = np.full((len(rows) * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), _WHITE, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            if image is not None:
                top, left = _GAP + r * (height + _GAP), _GAP + c * (width + _GAP)
                canvas[top : top + height, left : left + width] = image
    return canvas


def enlarge(picture: UInt8[np.ndarray, "h w 3"], factor: int) -> UInt8[np.ndarray, "H W 3"]:
    """Returns the picture with every pixel repeated `factor` times along both axes."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def save_png(image: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "n h w 3"], path: Path | str) -> None:
    """Writes a PNG atomically; several images form a row.

    Raises:
        ValueError: the name does not end in .png.
        UnsafePathError: the path is a link, a folder, a device, a FIFO or a socket.
        OSError: the folder cannot be created or written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"image {str(path)!r}: the name must end in .png")
    picture = image if image.ndim == 3 else image[0] if len(image) == 1 else tile([list(image)])
    write_atomically(path, lambda file: Image.fromarray(picture).save(file, format="PNG"))
