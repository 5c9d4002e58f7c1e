"""One photo file to upright RGB pixels, or the one-line reason why it cannot be."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

PHOTO_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".tga",
))  # fmt: skip


class BadPhotoError(Exception):
    """A photo that cannot be used; the message is the reason, in one line."""


def read_photo(
    photo: Path | bytes | UInt8[np.ndarray, "h w 3"], max_megapixels: float = 100.0
) -> tuple[UInt8[np.ndarray, "h w 3"], list[str]]:
    """Returns the photo as upright 8-bit RGB, and notes on what had to be done to it.

    EXIF rotation is applied; gray, CMYK, palette and 16-bit images are converted; colors of another profile become
    sRGB's; transparency is laid on white; of an animation the first frame is taken.

    Args:
        photo: a file, the bytes of one, or pixels as they are.
        max_megapixels: a larger one is refused before it is decoded.

    Raises:
        BadPhotoError: the file is empty, unreadable, no image, damaged, or larger than `max_megapixels`.
    """
    try:
        if isinstance(photo, np.ndarray):
            _check_size(photo.shape[1], photo.shape[0], max_megapixels)
            return np.broadcast_to(photo, (*photo.shape[:2], 3)), []
        if not (len(photo) if isinstance(photo, bytes) else photo.stat().st_size):
            raise BadPhotoError("empty file: 0 bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images and odd metadata; our own rules decide
            # Its limit would come before ours and names no option. Opening reads the header only.
            Image.MAX_IMAGE_PIXELS = None
            with Image.open(io.BytesIO(photo) if isinstance(photo, bytes) else photo) as image:
                _check_size(image.width, image.height, max_megapixels)
                return _to_rgb(image)
    except BadPhotoError:
        raise
    except PermissionError:
        raise BadPhotoError("unreadable: no permission") from None
    except UnidentifiedImageError:
        raise BadPhotoError("not an image: its content is of no known format") from None
    except MemoryError:
        raise BadPhotoError("too large: out of memory while decoding") from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything; the file is the culprit
        raise BadPhotoError(f"damaged: {_one_line(error)}") from None


def _check_size(width: int, height: int, max_megapixels: float) -> None:
    megapixels = width * height / 1e6
    if megapixels > max_megapixels:
        raise BadPhotoError(
            f"too large: {width}×{height} = {megapixels:.0f} megapixels, at most {max_megapixels:g} (max_megapixels)"
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _to_rgb(image: Image.Image) -> tuple[UInt8[np.ndarray, "h w 3"], list[str]]:
    notes = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"animation of {frames} frames, the first is taken")
        image.seek(0)
    image.load()
    before = image.size
    ImageOps.exif_transpose(image, in_place=True)
    if image.size != before:
        notes.append("turned upright (EXIF)")
    image, said = _to_srgb(image)
    notes += said
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_gray_to_rgb(np.asarray(image), image.mode), [*notes, f"{image.mode} reduced to 8 bits"]
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        if np.asarray(rgba)[..., 3].min() < 255:
            notes.append("transparency laid on white")
    elif image.mode not in ("RGB", "L"):
        notes.append(f"{image.mode} converted to RGB")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), notes


def _to_srgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """The image in sRGB where it brings a color profile of its own; cameras and scanners do."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "L", "CMYK"):
        return image, []
    try:
        theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = " ".join(ImageCms.getProfileDescription(theirs).split())
        if "srgb" in name.lower():
            return image, []
        converted = ImageCms.profileToProfile(image, theirs, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # a profile for another mode, or no profile at all
        return image, ["color profile cannot be read and is left out"]
    return converted or image, [f"colors converted from {name!r}"]


def _deep_gray_to_rgb(values: np.ndarray, mode: str) -> UInt8[np.ndarray, "h w 3"]:
    """8-bit RGB of gray with more than 8 bits; 32-bit and float images do not tell what white is: their values do."""
    values = np.nan_to_num(values.astype(np.float64))
    peak = values.max(initial=0.0)
    white = 1.0 if mode == "F" and peak <= 1.0 else 255.0
    if mode.startswith("I;16") or peak > 255.0:
        white = 65535.0
    gray = np.clip(np.round(values * (255.0 / white)), 0, 255).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)
