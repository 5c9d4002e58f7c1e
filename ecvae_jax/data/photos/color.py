"""The one color path: the pixels of any photo to 8-bit sRGB, by the profile or the numbers that the file states.

In order of precedence, as in browsers: CICP (PNG, AVIF), the ICC profile, PNG's sRGB, gAMA and cHRM, Exif's Adobe RGB.
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

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""CIE x and y of white, red, green and blue: the order of PNG's cHRM."""

_D65 = (0.3127, 0.3290)
_SRGB: Chromaticities = (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
_P3: Chromaticities = (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
_ADOBE: Chromaticities = (*_D65, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060)
_BT2020: Chromaticities = (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
# ITU-T H.273; 2 is "unspecified". Television's curves are shown as sRGB, which is what players do.
_CICP_PRIMARIES = {1: _SRGB, 2: _SRGB, 5: _SRGB, 6: _SRGB, 7: _SRGB, 9: _BT2020, 12: _P3}
_CICP_EXPONENTS = {1: 0.0, 2: 0.0, 4: 2.2, 5: 2.8, 6: 0.0, 7: 0.0, 8: 1.0, 13: 0.0, 14: 0.0, 15: 0.0}
_BLOCK = 1 << 20
"""Pixels converted at once; float arrays of a whole photo would take a gigabyte."""
_FINE = 4095
"""Steps of the table from linear light to sRGB's square root scale."""


@dataclass(frozen=True)
class ColorStatement:
    """What a file states of its colors.

    Attributes:
        name: for the notes.
        profile: an ICC profile, or empty.
        exponent: linear light = sample ** exponent; 0: sRGB's curve. Ignored with a profile.
        chromaticities: of white and the primaries. Ignored with a profile.
    """

    name: str
    profile: bytes = b""
    exponent: float = 0.0
    chromaticities: Chromaticities = _SRGB

    @property
    def is_srgb(self) -> bool:
        """Whether the numbers are sRGB's to within rounding: 1/2.2 (0.45455) is how PNG writes sRGB's curve."""
        same = np.abs(np.subtract(self.chromaticities, _SRGB)).max() < 0.002
        return not self.profile and bool(same) and (not self.exponent or abs(self.exponent - 2.2) < 0.03)


def color_statement(image: Image.Image, notes: list[str]) -> ColorStatement | None:
    """Returns what the file states, or None for sRGB; appends a note for a statement that cannot be used.

    Raises:
        BadPhotoError: the file states a high dynamic range, or unknown primaries.
    """
    cicp = _cicp(image)
    if cicp and cicp != (2, 2):
        primaries, transfer = cicp
        if primaries not in _CICP_PRIMARIES or transfer not in _CICP_EXPONENTS:
            raise BadPhotoError(
                f"colors of CICP {primaries}/{transfer}: high dynamic range or an unknown space; convert it to sRGB"
            )
        statement = ColorStatement("CICP", b"", _CICP_EXPONENTS[transfer], _CICP_PRIMARIES[primaries])
        return None if statement.is_srgb else statement
    profile = image.info.get("icc_profile")
    if profile:
        return ColorStatement("ICC", profile)
    if image.format == "PNG" and "srgb" not in image.info:
        statement = _png_statement(image, notes)
        return None if statement is None or statement.is_srgb else statement
    if image.format in ("JPEG", "MPO") and _is_adobe(image):
        return ColorStatement("Adobe RGB (Exif)", b"", 563 / 256, _ADOBE)
    return None


def to_srgb(image: Image.Image, statement: ColorStatement | None, notes: list[str]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels in 8-bit sRGB, transparency composited on white; appends notes on the conversions."""
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        gray = image.mode in ("1", "L", "LA")
        color = _converted(rgba.getchannel("R") if gray else rgba.convert("RGB"), statement, notes).convert("RGBA")
        lowest, highest = alpha.getextrema()
        if highest == 0 and image.format in ("TGA", "BMP", "DIB"):  # their fourth channel is often left empty
            notes.append("empty alpha channel ignored")
            alpha = Image.new("L", alpha.size, 255)
        elif lowest < 255:  # type: ignore[operator]
            notes.append("transparency composited on white")
        color.putalpha(alpha)
        return np.asarray(Image.alpha_composite(Image.new("RGBA", color.size, "white"), color).convert("RGB"))
    if image.mode not in ("RGB", "L", "1", "CMYK"):
        notes.append(f"{image.mode} converted to RGB")
        image = image.convert("RGB")
    return np.asarray(_converted(image.convert("L") if image.mode == "1" else image, statement, notes))


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
        return _from_numbers(rgb, statement)
    try:
        space, name, same = _inspect(statement.profile)
        if space not in {"L": ("GRAY", "RGB"), "RGB": ("RGB",), "CMYK": ("CMYK",)}[image.mode]:
            raise ValueError(f"profile of {space} for {image.mode}")
        if same:
            return image.convert("RGB")
        source = image.convert("RGB") if space == "RGB" else image
        converted = ImageCms.profileToProfile(source, _open(statement.profile), _srgb(), outputMode="RGB")
        assert converted is not None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # a profile for another mode, or invalid bytes
        notes.append("unreadable color profile ignored")
        return image.convert("RGB")
    notes.append(f"colors converted from {name!r}")
    return converted


def _from_numbers(image: Image.Image, statement: ColorStatement) -> Image.Image:
    samples = np.arange(256) / 255
    linear = (_srgb_linear(samples) if not statement.exponent else samples**statement.exponent).astype(np.float32)
    if np.abs(np.subtract(statement.chromaticities, _SRGB)).max() < 0.002:
        table = np.rint(255 * _srgb_encoded(linear)).astype(int).tolist()
        return image.point(table * 3)
    matrix = (np.linalg.inv(_to_xyz(_SRGB)) @ _to_xyz(statement.chromaticities)).astype(np.float32)
    # Spaced by square roots: sRGB's curve is steep near black.
    encoded = np.rint(255 * _srgb_encoded((np.arange(_FINE + 1) / _FINE) ** 2)).astype(np.uint8)
    pixels = np.asarray(image).reshape(-1, 3)
    out = np.empty_like(pixels)
    for start in range(0, len(pixels), _BLOCK):
        light = np.clip(linear[pixels[start : start + _BLOCK]] @ matrix.T, 0, 1)
        out[start : start + _BLOCK] = encoded[np.rint(np.sqrt(light) * _FINE).astype(np.uint16)]
    return Image.fromarray(out.reshape(image.height, image.width, 3))


def _srgb_linear(sample: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Returns linear light of sRGB samples, 0..1 (IEC 61966-2-1)."""
    return np.where(sample <= 0.04045, sample / 12.92, ((sample + 0.055) / 1.055) ** 2.4)


def _srgb_encoded(light: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def _to_xyz(chromaticities: Chromaticities) -> Float[np.ndarray, "3 3"]:
    """Returns the matrix from linear RGB to XYZ, with white adapted to D65 by Bradford's transform.

    Raises:
        ValueError: the primaries span no plane.
    """
    pairs = np.asarray(chromaticities, np.float64).reshape(4, 2)
    if not (np.isfinite(pairs).all() and (pairs[:, 1] > 1e-4).all() and (pairs >= 0).all() and (pairs <= 2).all()):
        raise ValueError("chromaticities outside the diagram")
    xyz = np.stack([pairs[:, 0] / pairs[:, 1], np.ones(4), (1 - pairs.sum(axis=1)) / pairs[:, 1]])
    white, primaries = xyz[:, 0], xyz[:, 1:]
    if abs(np.linalg.det(primaries / np.linalg.norm(primaries, axis=0))) < 1e-3:
        raise ValueError("primaries on a line")
    matrix = primaries * np.linalg.solve(primaries, white)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d65 = np.array([_D65[0] / _D65[1], 1.0, (1 - sum(_D65)) / _D65[1]])
    adapt = np.linalg.inv(bradford) @ np.diag((bradford @ d65) / (bradford @ white)) @ bradford
    return adapt @ matrix


def _png_statement(image: Image.Image, notes: list[str]) -> ColorStatement | None:
    gamma, chroma = image.info.get("gamma"), image.info.get("chromaticity")
    if gamma is None and chroma is None:
        return None
    if gamma is not None and not 0.05 <= gamma <= 10:
        notes.append(f"unusable gAMA {gamma:g} ignored")
        gamma = None
    chromaticities = _SRGB
    if chroma is not None:
        try:
            _to_xyz(tuple(chroma))
            chromaticities = tuple(chroma)
        except (ValueError, np.linalg.LinAlgError):
            notes.append("unusable cHRM ignored")
    return ColorStatement("gAMA and cHRM" if chroma else "gAMA", b"", 1 / gamma if gamma else 0.0, chromaticities)


def _cicp(image: Image.Image) -> tuple[int, int] | None:
    """Returns the primaries and transfer of a PNG's cICP chunk or an AVIF's nclx box; Pillow reads neither."""
    stream = image.fp if image.format in ("PNG", "AVIF") else None
    if stream is None:
        return None
    place = stream.tell()
    try:
        stream.seek(0)
        if image.format == "AVIF":
            box = stream.read(1 << 16).partition(b"colrnclx")[2][:4]
            return (int.from_bytes(box[:2], "big"), int.from_bytes(box[2:], "big")) if len(box) == 4 else None
        stream.seek(8)
        for _ in range(1000):
            head = stream.read(8)
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind == b"cICP":
                content = stream.read(2)
                return (content[0], content[1]) if len(content) == 2 else None
            if len(head) < 8 or kind == b"IDAT":
                return None
            stream.seek(length + 4, io.SEEK_CUR)
        return None
    finally:
        stream.seek(place)


def _is_adobe(image: Image.Image) -> bool:
    """Returns whether Exif names Adobe RGB: interoperability index R03 of DCF, or color space 2 as Nikon's."""
    try:
        exif = image.getexif()
        return exif.get_ifd(0x8769).get(0xA001) == 2 or exif.get_ifd(0xA005).get(1) == "R03"
    except Exception:  # Exif holds anything; Pillow raises many types
        return False


@functools.lru_cache(maxsize=16)
def _inspect(profile: bytes) -> tuple[str, str, bool]:
    """Returns a profile's color space and name, and whether it is sRGB: by what it does, since names lie."""
    opened = _open(profile)
    name = " ".join(ImageCms.getProfileDescription(opened).split())
    space = opened.profile.xcolor_space.strip()
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


def _open(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


@functools.lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
