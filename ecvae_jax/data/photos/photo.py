"""One photo file to upright RGB pixels, or a one-line reason for the failure."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ecvae_jax.data.errors import one_line

PHOTO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in "jpg jpeg jpe jfif png webp bmp dib tif tiff gif ppm pgm pbm pnm jp2 avif tga".split()  # noqa: SIM905
)


class BadPhotoError(Exception):
    """A photo that cannot be used; the message is the reason in one line."""


def read_photo(
    photo: Path | bytes | UInt8[np.ndarray, "h w 3"], max_megapixels: float = 100.0
) -> tuple[UInt8[np.ndarray, "h w 3"], list[str]]:
    """Returns the photo as upright 8-bit RGB, and notes on the conversions made.

    EXIF rotation is applied. Gray, CMYK, palette and 16-bit images are converted. Colors of another profile become
    sRGB. Transparency is composited on white. Only the first frame of an animation is used.

    Args:
        photo: a file, its bytes, or pixels, which stay unchanged.
        max_megapixels: larger photos are refused before decoding.

    Raises:
        BadPhotoError: the file is empty, unreadable, not an image, damaged, or larger than `max_megapixels`.
    """
    try:
        if isinstance(photo, np.ndarray):
            _check_size(photo.shape[1], photo.shape[0], max_megapixels)
            return np.broadcast_to(photo, (*photo.shape[:2], 3)), []
        if not (len(photo) if isinstance(photo, bytes) else photo.stat().st_size):
            raise BadPhotoError("empty file: 0 bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images and odd metadata; the rules here decide
            # Pillow's own limit would apply first and names no option. Opening reads only the header.
            Image.MAX_IMAGE_PIXELS = None
            with Image.open(io.BytesIO(photo) if isinstance(photo, bytes) else photo) as image:
                _check_size(image.width, image.height, max_megapixels)
                return _to_rgb(image)
    except BadPhotoError:
        raise
    except PermissionError:
        raise BadPhotoError("unreadable: no permission") from None
    except UnidentifiedImageError:
        raise BadPhotoError("not an image: unknown format") from None
    except MemoryError:
        raise BadPhotoError("too large: out of memory while decoding") from None
    except Exception as error:  # Pillow's decoders raise many types for a damaged file
        raise BadPhotoError(f"damaged: {one_line(error)}") from None


def _check_size(width: int, height: int, max_megapixels: float) -> None:
    megapixels = width * height / 1e6
    if megapixels > max_megapixels:
        raise BadPhotoError(
            f"too large: {width}×{height} = {megapixels:.0f} megapixels, at most {max_megapixels:g} (max_megapixels)"
        )


def _to_rgb(image: Image.Image) -> tuple[UInt8[np.ndarray, "h w 3"], list[str]]:
    notes = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"animation of {frames} frames, using the first")
        image.seek(0)
    image.load()
    before = image.size
    ImageOps.exif_transpose(image, in_place=True)
    if image.size != before:
        notes.append("rotated upright (EXIF)")
    image, color_notes = _to_srgb(image)
    notes += color_notes
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_gray_to_rgb(np.asarray(image), image.mode), [*notes, f"{image.mode} reduced to 8 bits"]
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        if np.asarray(rgba)[..., 3].min() < 255:
            notes.append("transparency composited on white")
    elif image.mode not in ("RGB", "L"):
        notes.append(f"{image.mode} converted to RGB")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), notes


def _to_srgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Returns the image in sRGB if it has a color profile, as those of cameras and scanners do."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "L", "CMYK"):
        return image, []
    try:
        profile_in = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = " ".join(ImageCms.getProfileDescription(profile_in).split())
        if "srgb" in name.lower():
            return image, []
        converted = ImageCms.profileToProfile(image, profile_in, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # a profile for another mode, or invalid bytes
        return image, ["unreadable color profile ignored"]
    return converted or image, [f"colors converted from {name!r}"]


def _deep_gray_to_rgb(values: np.ndarray, mode: str) -> UInt8[np.ndarray, "h w 3"]:
    """Returns 8-bit RGB of gray with more than 8 bits; the values of 32-bit and float images imply what white is."""
    values = np.nan_to_num(values.astype(np.float64))
    peak = values.max(initial=0.0)
    white = 1.0 if mode == "F" and peak <= 1.0 else 255.0
    if mode.startswith("I;16") or peak > 255.0:
        white = 65535.0
    gray = np.clip(np.round(values * (255.0 / white)), 0, 255).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)
