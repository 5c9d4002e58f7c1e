"""Pictures to judge a preparation by: faces with their landmarks, and their sketches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from ecvae_jax.config import SketchConfig
from ecvae_jax.data.faces import Faces, load_faces, record_splits
from ecvae_jax.images import save_png, sketch_image, tile
from ecvae_jax.structure.scheme import get_scheme
from ecvae_jax.structure.sketch import draw_sketch

_SIDE = 192
"""Pixels of a face in the contact sheet."""
_COLUMNS = 4
_BRAILLE = 0x2800
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Bits of a braille character's eight dots, in their places."""


def write_preview(records: Path, count: int, out: Path) -> None:
    """Writes a contact sheet of `count` faces, spread evenly over the records, each with its landmarks and sketch.

    Raises:
        DataError: the records cannot be read.
        OSError: the picture cannot be written.
    """
    pairs = []
    total = sum(record_splits(records).values())
    wanted = set(np.linspace(0, total - 1, min(count, total)).astype(int).tolist())
    first = 0
    for split, size in record_splits(records).items():
        chosen = sorted(index - first for index in wanted if first <= index < first + size)
        first += size
        if chosen:
            pairs += _pairs(load_faces(records, split), chosen)
    rows = [
        [picture for pair in pairs[start : start + _COLUMNS] for picture in pair]
        for start in range(0, len(pairs), _COLUMNS)
    ]
    save_png(tile(rows), out)


def _pairs(faces: Faces, indices: list[int]) -> list[tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]]:
    images, landmarks = faces.images(indices, _SIDE), faces.landmarks[indices]
    sketches = sketch_image(sketch(landmarks, _SIDE))
    return [(_dotted(image, points), drawn) for image, points, drawn in zip(images, landmarks, sketches, strict=True)]


def sketch(landmarks: Float[np.ndarray, "n p 2"], side: int) -> Float[np.ndarray, "n side side 1"]:
    """Returns sketches with all boundaries in one map, with the default settings of a model."""
    settings = SketchConfig()
    scheme = get_scheme(landmarks.shape[1])
    drawn = draw_sketch(landmarks, scheme, side, max(settings.sigma, 0.7 / side), settings.samples_per_span, "single")
    return np.asarray(drawn)


def _dotted(image: UInt8[np.ndarray, "h w 3"], points: Float[np.ndarray, "p 2"]) -> UInt8[np.ndarray, "h w 3"]:
    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture)
    for x, y in points * len(image):
        canvas.ellipse([x - 1.5, y - 1.5, x + 1.5, y + 1.5], fill=(0, 255, 255), outline=(0, 60, 60))
    return np.asarray(picture)


def braille(maps: Float[np.ndarray, "n side side"], across: int) -> list[str]:
    """Returns small drawings as lines of text, `across` drawings per row: a dot where a map exceeds 0.5.

    A character holds two dots across and four down, so the side must be a multiple of 4.
    """
    n, side, _ = maps.shape
    bits = (maps > 0.5).reshape(n, side // 4, 4, side // 2, 2).transpose(0, 1, 3, 2, 4)
    codes = _BRAILLE + (bits * _DOTS).sum(axis=(3, 4))
    lines = []
    for start in range(0, n, across):
        row_codes = codes[start : start + across]
        lines += ["  ".join("".join(map(chr, row)) for row in rows) for rows in row_codes.transpose(1, 0, 2)]
    return lines
