"""One photo file to upright RGB pixels, or a one-line reason for the failure."""

from __future__ import annotations

import functools
import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from ecvae_jax.data.errors import BadPhotoError, one_line
from ecvae_jax.data.photos.color import color_statement, levels_to_srgb, to_srgb
from ecvae_jax.data.photos.samples import check_samples, choose_page, gray_levels, is_deep

__all__ = ["PHOTO_FORMATS", "PHOTO_SUFFIXES", "TURNED", "BadPhotoError", "read_photo"]

PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "TGA")
"""The decoders that may see a photo. Pillow chooses by content: EPS in a .jpg would start Ghostscript."""
PHOTO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in "jpg jpeg jpe jfif png webp bmp dib tif tiff gif ppm pgm pbm pnm jp2 avif tga heic heif".split()  # noqa: SIM905
)
"""HEIC is among them, so that the report names what to do."""
TURNED = "rotated upright (EXIF)"
"""The note for a photo whose Exif orientation was applied."""

_ORIENTATION = 274
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")


def read_photo(
    photo: Path | bytes | UInt8[np.ndarray, "h w 3"], max_megapixels: float = 100.0, max_megabytes: float = 64.0
) -> tuple[UInt8[np.ndarray, "h w 3"], list[str]]:
    """Returns the photo as upright 8-bit sRGB, and notes on the conversions made.

    EXIF rotation is applied. Gray, CMYK, palette and 16-bit images are converted. Colors become sRGB (`color`).
    Transparency is composited on white. Only the first frame of an animation is used.

    Args:
        photo: a file, its bytes, or pixels, which stay unchanged.
        max_megapixels: larger photos are refused before decoding.
        max_megabytes: larger files are refused before opening: Pillow searches a damaged JPEG byte by byte.

    Raises:
        BadPhotoError: the file is empty, unreadable, not an image, damaged, too large, or of unknown colors.
    """
    try:
        if isinstance(photo, np.ndarray):
            _check_size(photo.shape[1], photo.shape[0], max_megapixels)
            return np.broadcast_to(photo, (*photo.shape[:2], 3)), []
        size = len(photo) if isinstance(photo, bytes) else photo.stat().st_size
        if not size:
            raise BadPhotoError("empty file: 0 bytes")
        if size > max_megabytes * 1e6:
            raise BadPhotoError(f"too large: {size / 1e6:.1f} MB, at most {max_megabytes:g} (max_megabytes)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images and odd metadata; the rules here decide
            # Pillow's own limit would apply first and names no option. Opening reads only the header.
            Image.MAX_IMAGE_PIXELS = None
            source = io.BytesIO(photo) if isinstance(photo, bytes) else photo
            with Image.open(source, formats=_formats()) as image:
                return _to_rgb(image, max_megapixels)
    except BadPhotoError:
        raise
    except PermissionError:
        raise BadPhotoError("unreadable: no permission") from None
    except UnidentifiedImageError:
        if _is_heic(photo):
            raise BadPhotoError("HEIC, convert it to JPEG: no decoder for it is installed") from None
        raise BadPhotoError("not an image: unknown format") from None
    except MemoryError:
        raise BadPhotoError("too large: out of memory while decoding") from None
    except Exception as error:  # Pillow's decoders raise many types for a damaged file
        raise BadPhotoError(f"damaged: {one_line(error)}") from None


@functools.lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in PHOTO_FORMATS if name in Image.OPEN)  # some builds of Pillow lack AVIF


def _check_size(width: int, height: int, max_megapixels: float) -> None:
    megapixels = width * height / 1e6
    if megapixels > max_megapixels:
        raise BadPhotoError(
            f"too large: {width}×{height} = {megapixels:.0f} megapixels, at most {max_megapixels:g} (max_megapixels)"
        )


def _to_rgb(image: Image.Image, max_megapixels: float) -> tuple[UInt8[np.ndarray, "h w 3"], list[str]]:
    notes = []
    _check_size(image.width, image.height, max_megapixels)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        notes.append(f"animation of {frames} frames, using the first")
        image.seek(0)
        if image.format == "TIFF":
            notes = [note] if (note := choose_page(image)) else notes
            _check_size(image.width, image.height, max_megapixels)
    statement = color_statement(image, notes)
    if image.format != "TIFF":
        # A PNG's Exif may follow its pixels: getexif would load them, hide their damage, and leave them black.
        image.load()
    upright = _orientation(image, notes)
    image.load()
    if image.format == "TIFF":  # Pillow has turned it while loading
        check_samples(image)
    if upright != 1:
        notes.append(TURNED)
    if is_deep(image):
        notes.append(f"{image.mode} reduced to 8 bits")
        pixels = levels_to_srgb(gray_levels(image), statement, notes)
    else:
        pixels = to_srgb(image, statement, notes)
    if upright != 1 and image.format != "TIFF":
        pixels = np.asarray(Image.fromarray(pixels).transpose(_UPRIGHT[upright]))
    return pixels, notes


def _orientation(image: Image.Image, notes: list[str]) -> int:
    """Returns the Exif orientation, 1 to 8. `ImageOps.exif_transpose` would refuse a photo for any other bad tag."""
    try:
        tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else image.getexif()
        value = tags.get(_ORIENTATION, 1) if tags is not None else 1
    except BadPhotoError:
        raise
    except Exception:  # Exif holds anything; Pillow raises many types
        notes.append("unreadable EXIF ignored")
        return 1
    if isinstance(value, bytes) and len(value) == 1:  # of the type BYTE
        value = value[0]
    return value if value in _UPRIGHT else 1


def _is_heic(photo: Path | bytes | np.ndarray) -> bool:
    if isinstance(photo, Path):
        with photo.open("rb") as stream:
            head = stream.read(12)
    else:
        head = bytes(photo[:12]) if isinstance(photo, bytes) else b""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS
