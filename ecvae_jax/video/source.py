"""The source of a video: its photo, the place of its face in it, and the model's view of that face."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from ecvae_jax.data.photos.crop import CropBox, cut_crop
from ecvae_jax.data.portraits import PortraitReader
from ecvae_jax.model.model import Model

LONGEST_SIDE = 1920
"""Pixels: a larger photo is reduced for the video, which players' decoders bound."""
LARGEST_CROP = 512
"""Pixels a side of the drawn face; a larger one is enlarged to its place in the photo."""


class Source(NamedTuple):
    """One face in its photo."""

    photo: UInt8[np.ndarray, "h w 3"]
    box: CropBox
    landmarks: Float[np.ndarray, "p 2"]
    """Crop units."""
    view: UInt8[np.ndarray, "s s 3"]
    """The crop at the model's resolution."""
    notes: list[str]

    def crop(self, side: int) -> UInt8[np.ndarray, "k k 3"]:
        """Returns the crop at `side` pixels."""
        return self.view if side == self.view.shape[0] else cut_crop(self.photo, self.box, side)


def load_source(model: Model, spec: str) -> Source:
    """Returns the face of a photo, or of records as RECORDS:SPLIT:INDEX.

    Raises:
        DataError: the source cannot be read, or shows no face.
        MissingExtraError: the detector is not installed.
    """
    reader, size = PortraitReader.of_model(model), model.config.model.image_size
    if not Path(spec).is_file():
        portraits = reader.read([spec])[0]
        view = portraits.images[0]
        return Source(view, CropBox(0.0, 0.0, float(size)), portraits.landmarks[0], view, portraits.notes)
    found = reader.find(Path(spec))
    photo, box, notes = found.photo, found.box, list(found.notes)
    scale = LONGEST_SIDE / max(photo.shape[:2])
    if scale < 1:
        width, height = (max(2, round(length * scale)) for length in photo.shape[1::-1])
        photo = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BOX))
        box = CropBox(*(length * scale for length in box))
        notes.append(f"{spec}: reduced to {width}×{height} px for the video")
    return Source(photo, box, found.landmarks, cut_crop(found.photo, found.box, size), notes)


def crop_side(source: Source) -> int:
    """Returns the side of the drawn face: that of its crop in the photo, within the model's and the largest; even."""
    side = int(np.clip(source.box.side, source.view.shape[0], LARGEST_CROP))
    return side + side % 2


def one_source(specs: tuple[str, ...]) -> str:
    """Returns the only source of a video.

    Raises:
        ValueError: there are several, or one names several faces.
    """
    if len(specs) != 1 or re.search(r":[\d,-]*[,-]", specs[0]):
        raise ValueError(f"source={', '.join(specs)}: a video has one source; name one photo, or one face of records")
    return specs[0]
