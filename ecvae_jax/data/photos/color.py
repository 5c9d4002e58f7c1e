"""The one color path: the pixels of any photo to 8-bit sRGB, by the profile or the numbers that the file states.

In order of precedence, as in browsers: CICP (PNG, AVIF), the ICC profile, PNG's sRGB, gAMA and cHRM or TIFF's tags,
Exif's Adobe RGB.
A file that states nothing is sRGB by convention. `color_statement` reads the statement before the pixels are loaded.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms

from ecvae_jax.data.errors import BadPhotoError
from ecvae_jax.data.photos.primaries import ADOBE, BT2020, P3, SRGB, Chromaticities, convert_to_srgb, is_srgb, to_xyz
from ecvae_jax.data.photos.stated_colors import (
    is_adobe,
    read_bmp_profile,
    read_cicp,
    read_jp2_profile,
    read_tiff_chromaticities,
)

# ITU-T H.273; 2 is "unspecified". Television's curves are shown as sRGB, which is what players do.
_CICP_PRIMARIES = {1: SRGB, 2: SRGB, 5: SRGB, 6: SRGB, 7: SRGB, 9: BT2020, 12: P3}
_CICP_EXPONENTS = {1: 0.0, 2: 0.0, 4: 2.2, 5: 2.8, 6: 0.0, 7: 0.0, 8: 1.0, 13: 0.0, 14: 0.0, 15: 0.0}


_STRIP = 512
"""Rows."""


@dataclass(frozen=True)
class ColorStatement:
    """What a file states of its colors."""

    name: str
    """For the notes."""
    profile: bytes = b""
    """An ICC profile, or empty."""
    exponent: float = 0.0
    """Linear light = sample ** exponent; 0: sRGB's curve. Ignored with a profile."""
    chromaticities: Chromaticities = SRGB
    """Of white and the primaries. Ignored with a profile."""

    @property
    def is_srgb(self) -> bool:
        """Whether the numbers are sRGB's to within rounding: 1/2.2 (0.45455) is how PNG writes sRGB's curve."""
        return (
            not self.profile and is_srgb(self.chromaticities) and (not self.exponent or abs(self.exponent - 2.2) < 0.03)
        )


def color_statement(image: Image.Image, notes: list[str]) -> ColorStatement | None:
    """Returns what the file states, or None for sRGB; appends a note for a statement that cannot be used.

    Raises:
        BadPhotoError: the file states a high dynamic range, unknown primaries, or a profile in another file.
    """
    cicp = read_cicp(image)
    if cicp and cicp != (2, 2):
        primaries, transfer = cicp
        if primaries not in _CICP_PRIMARIES or transfer not in _CICP_EXPONENTS:
            raise BadPhotoError(
                f"colors of CICP {primaries}/{transfer}: high dynamic range or an unknown space; convert it to sRGB"
            )
        statement = ColorStatement("CICP", b"", _CICP_EXPONENTS[transfer], _CICP_PRIMARIES[primaries])
        return None if statement.is_srgb else statement
    profile = image.info.get("icc_profile") or read_bmp_profile(image) or read_jp2_profile(image)
    if profile:
        return ColorStatement("ICC", profile)
    if image.format == "PNG" and "srgb" in image.info:
        return None
    statement = _png_statement(image, notes) if image.format == "PNG" else _tiff_statement(image)
    if statement is not None:
        return None if statement.is_srgb else statement
    if is_adobe(image):
        return ColorStatement("Adobe RGB (Exif)", b"", 563 / 256, ADOBE)
    return None


def to_srgb(image: Image.Image, statement: ColorStatement | None, notes: list[str]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels in 8-bit sRGB, transparency composited on white; appends notes on the conversions."""
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _on_white(image, statement, notes)
    if image.mode not in ("RGB", "L", "1", "CMYK"):
        notes.append(f"{image.mode} converted to RGB")
        image = image.convert("RGB")
    return np.asarray(_converted(image.convert("L") if image.mode == "1" else image, statement, notes))


def _on_white(image: Image.Image, statement: ColorStatement | None, notes: list[str]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a transparent image on white. It goes by strips: a whole photo would be held in five copies."""
    out = np.empty((image.height, image.width, 3), np.uint8)
    # the fourth channel of these formats is often left empty
    may_be_unused = image.format in ("TGA", "BMP", "DIB") and image.mode == "RGBA"
    unused = may_be_unused and not np.asarray(image.getchannel("A")).any()
    lowest = 255
    for top in range(0, image.height, _STRIP):
        rgba = image.crop((0, top, image.width, min(top + _STRIP, image.height))).convert("RGBA")
        color = rgba.getchannel("R") if image.mode in ("1", "L", "LA") else rgba.convert("RGB")
        color = _converted(color, statement, [] if top else notes).convert("RGBA")
        alpha = Image.new("L", rgba.size, 255) if unused else rgba.getchannel("A")
        lowest = min(lowest, int(np.asarray(alpha).min()))
        color.putalpha(alpha)
        white = Image.new("RGBA", color.size, "white")
        out[top : top + _STRIP] = np.asarray(Image.alpha_composite(white, color).convert("RGB"))
    if unused:
        notes.append("empty alpha channel ignored")
    elif lowest < 255:
        notes.append("transparency composited on white")
    return out


def levels_to_srgb(
    levels: Float[np.ndarray, "h w"], statement: ColorStatement | None, notes: list[str]
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns deep gray, 0..1, in 8-bit sRGB: the statement is applied to all 256 levels and interpolated."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    curve = np.asarray(_converted(ramp, statement, notes), np.float32)[0, :, 0]
    gray = np.empty(levels.shape, np.uint8)
    for row in range(levels.shape[0]):
        gray[row] = np.rint(np.interp(levels[row] * 255, np.arange(256), curve))
    return np.repeat(gray[:, :, None], 3, axis=2)


def _converted(image: Image.Image, statement: ColorStatement | None, notes: list[str]) -> Image.Image:
    """Returns an image of mode L, RGB or CMYK as RGB in sRGB."""
    if statement is None or not statement.profile:
        if image.mode == "CMYK":
            notes.append("CMYK converted to RGB")
        rgb = image.convert("RGB")
        if statement is None:
            return rgb
        notes.append(f"colors converted from {statement.name}")
        return convert_to_srgb(rgb, statement.exponent, statement.chromaticities)
    try:
        space, name, same = _inspect(statement.profile)
        if space not in {"L": ("GRAY", "RGB"), "RGB": ("RGB",), "CMYK": ("CMYK",)}[image.mode]:
            raise ValueError(f"profile of {space} for {image.mode}")
        if same:
            return image.convert("RGB")
        if image.mode == "L":
            converted = Image.fromarray(_gray_table(statement.profile, space)[np.asarray(image)])
        else:
            converted = ImageCms.profileToProfile(image, _open(statement.profile), _srgb(), outputMode="RGB")
        assert converted is not None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # a profile for another mode, or invalid bytes
        notes.append("unreadable color profile ignored")
        return image.convert("RGB")
    notes.append(f"colors converted from {name!r}")
    return converted


def _png_statement(image: Image.Image, notes: list[str]) -> ColorStatement | None:
    gamma, chroma = image.info.get("gamma"), image.info.get("chromaticity")
    if gamma is None and chroma is None:
        return None
    if gamma is not None and not 0.05 <= gamma <= 10:
        notes.append(f"unusable gAMA {gamma:g} ignored")
        gamma = None
    chromaticities = SRGB
    if chroma is not None:
        try:
            to_xyz(tuple(chroma))
            chromaticities = tuple(chroma)
        except (ValueError, np.linalg.LinAlgError):
            notes.append("unusable cHRM ignored")
    return ColorStatement("gAMA and cHRM" if chroma else "gAMA", b"", 1 / gamma if gamma else 0.0, chromaticities)


def _tiff_statement(image: Image.Image) -> ColorStatement | None:
    chromaticities = read_tiff_chromaticities(image)
    if not chromaticities:
        return None
    try:
        to_xyz(chromaticities)  # type: ignore[arg-type]
    except (ValueError, np.linalg.LinAlgError):
        raise BadPhotoError("unusable PrimaryChromaticities of a TIFF: convert it to sRGB") from None
    return ColorStatement("PrimaryChromaticities", b"", 0.0, chromaticities)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=16)
def _inspect(profile: bytes) -> tuple[str, str, bool]:
    """Returns a profile's color space and name, and whether it is sRGB: by what it does, since names lie."""
    opened = _open(profile)
    name = " ".join(ImageCms.getProfileDescription(opened).split())
    space = str(getattr(opened.profile, "xcolor_space", "")).strip()
    if space not in ("GRAY", "RGB"):
        return space, name, False
    if space == "GRAY":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    else:
        axis = np.linspace(0, 255, 17).astype(np.uint8)
        probe = Image.fromarray(np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(1, -1, 3))
    converted = ImageCms.profileToProfile(probe, opened, _srgb(), outputMode="RGB")
    assert converted is not None
    change = np.abs(np.asarray(converted, int) - np.asarray(probe.convert("RGB"), int))
    return space, name, bool(change.max() <= 4 and change.mean() < 0.6)


def _gray_table(profile: bytes, space: str) -> UInt8[np.ndarray, "256 3"]:
    """Returns sRGB for each gray level. Little CMS 2.19's table for gray is 9 levels off in linear light's shadows."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    ramp = ramp.convert("RGB") if space == "RGB" else ramp
    exact = ImageCms.Flags.NOOPTIMIZE
    converted = ImageCms.profileToProfile(ramp, _open(profile), _srgb(), outputMode="RGB", flags=exact)
    return np.asarray(converted)[0]


def _open(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


@functools.lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
