"""Gray photos of more than 8 bits, and the pages of a TIFF: what the file states, or a refusal. Nothing is guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from ecvae_jax.data.errors import BadPhotoError

_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT, _MAX_SAMPLE, _SUBFILE, _OLD_SUBFILE = 262, 258, 339, 281, 254, 255
_PLANES, _COMPRESSION = 284, 259
_SIGNED, _FLOAT = 2, 3
_MASK = 4
"""The bit of a page that is the mask of another."""
_PAGES = 16
"""Pages that are compared; the photo of a camera is among the first few."""
_CONVERT = "convert it to 8 bits"


def is_deep(image: Image.Image) -> bool:
    """Returns whether Pillow keeps the image's samples in more than 8 bits; that is gray of 12, 16 or 32 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def gray_levels(image: Image.Image) -> Float[np.ndarray, "h w"]:
    """Returns a deep gray image as float32: 0 is black, 1 is white.

    Raises:
        BadPhotoError: the file does not state which sample is white, or has samples below black.
    """
    values = np.asarray(image)
    tags = _tags(image)
    if image.format != "TIFF" and image.mode == "F":
        raise BadPhotoError(f"samples without a range: float samples of {image.format}; {_CONVERT}")
    if image.format != "TIFF":  # Pillow scales those of PNG, JPEG 2000 and PGM to 16 bits
        return np.clip(values.astype(np.float32) / np.float32(65535), 0, 1)
    if image.mode == "F":
        low, high = (float(end) for end in (values.min(), values.max()))
        if not (low >= 0 and high <= 1):  # also where one is NaN
            raise BadPhotoError(f"samples without a range: float from {low:g} to {high:g}, must be 0 to 1; {_CONVERT}")
        white = 1.0
    else:
        bits = int(_first(tags, _BITS, 16))
        values = values.view(np.uint32) if bits == 32 and values.dtype == np.int32 else values
        white, peak = float(_first(tags, _MAX_SAMPLE, 2**bits - 1)), int(values.max())
        if peak > white or not white:
            raise BadPhotoError(f"samples without a range: {peak} is above the file's white, {white:.0f}; {_CONVERT}")
        if bits != 12 and _MAX_SAMPLE not in tags and peak < white / 4:
            raise BadPhotoError(_narrow(peak, white))
    levels = values.astype(np.float32) / np.float32(white)
    return 1 - levels if tags.get(_PHOTOMETRIC) == 0 else levels  # 0: WhiteIsZero, which Pillow ignores here


def check_samples(image: Image.Image) -> None:
    """Accepts a TIFF whose samples Pillow has reduced to 8 bits correctly; any other image.

    Raises:
        BadPhotoError: the samples are signed, lie in planes that Pillow misreads, or do not use the range of their
            bits.
    """
    tags = _tags(image)
    formats, bits = tags.get(_SAMPLE_FORMAT, ()), _first(tags, _BITS, 8)
    if _SIGNED in (formats if isinstance(formats, tuple) else (formats,)):
        raise BadPhotoError(f"samples without a range: signed numbers, black and white are not stated; {_CONVERT}")
    in_planes = _first(tags, _PLANES, 1) == 2
    # Pillow 12.3 reads planes as 8 bits without a word where it unpacks them itself, and Lab's without their offset.
    if in_planes and (image.mode == "LAB" or (bits > 8 and _first(tags, _COMPRESSION, 1) == 1)):
        raise BadPhotoError(f"{bits}-bit {image.mode} in planes, which the decoder misreads; {_CONVERT} of one plane")
    if bits <= 8 or is_deep(image) or image.mode not in ("RGB", "RGBA"):
        return
    white = 2 ** int(bits) - 1
    peak = max(high for _, high in image.convert("RGB").getextrema())  # type: ignore[misc]
    if _first(tags, _MAX_SAMPLE, white) != white or peak < 64:
        raise BadPhotoError(_narrow(int(peak) * (white + 1) // 256, white))


def choose_page(image: Image.Image) -> str:
    """Seeks the full picture among a TIFF's pages, where the first is its thumbnail; returns a note, or "".

    A thumbnail is marked as one, or a later page has its shape and at least twice its area.
    """
    pages = []
    count = getattr(image, "n_frames", 1)
    for number in range(min(count, _PAGES)):
        image.seek(number)
        if number and int(_tags(image).get(_SUBFILE, 0)) & _MASK:
            continue
        reduced = bool(int(_tags(image).get(_SUBFILE, 0)) & 1) or _tags(image).get(_OLD_SUBFILE) == 2
        pages.append((number, image.width, image.height, reduced))
    _, width, height, reduced = pages[0]
    others = [page for page in pages if not page[3]]
    if not reduced:
        others = [
            page
            for page in others
            if page[1] * page[2] >= 2 * width * height and abs(page[1] * height / (page[2] * width) - 1) < 0.05
        ]
    best = max(others, key=lambda page: page[1] * page[2]) if others else pages[0]
    image.seek(best[0])
    return f"page {best[0] + 1} of {count} is used, the first is its thumbnail" if best[0] else ""


def _narrow(peak: int, white: float) -> str:
    return (
        f"samples without a range: none of the {white:.0f} levels above {peak} is used, and the file does not state "
        f"its white; {_CONVERT}"
    )


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {})


def _first(tags: Any, tag: int, default: float) -> float:
    value = tags.get(tag, default)
    return value[0] if isinstance(value, tuple) else value
