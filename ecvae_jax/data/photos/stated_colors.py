"""What a file states of its colors and Pillow does not read: CICP, profiles of BMP and JPEG 2000, TIFF's tags, Exif."""

from __future__ import annotations

import io
import struct

import numpy as np
from jaxtyping import Float
from PIL import Image

from ecvae_jax.data.errors import BadPhotoError
from ecvae_jax.data.photos.primaries import D65, SRGB, srgb_encoded

_LARGEST_PROFILE = 16 * 2**20
"""Bytes."""
_JP2_SPACES = (16, 17, 18)
"""sRGB, gray and sYCC, ISO/IEC 15444-1; the decoder converts the last one."""
_TRANSFER_FUNCTION, _WHITE_POINT, _PRIMARIES = 301, 318, 319


def read_cicp(image: Image.Image) -> tuple[int, int] | None:
    """Returns the primaries and transfer of a PNG's cICP chunk or an AVIF's nclx box; Pillow reads neither.

    Raises:
        BadPhotoError: a PNG's levels are of narrow range. An AVIF's decoder widens them.
    """
    stream = getattr(image, "fp", None) if image.format in ("PNG", "AVIF") else None
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
                content = stream.read(4)
                if content[3:] == b"\0":
                    raise BadPhotoError("colors of narrow range (cICP, 16 to 235): convert it to sRGB")
                return (content[0], content[1]) if len(content) == 4 else None
            if len(head) < 8 or kind == b"IDAT":
                return None
            stream.seek(length + 4, io.SEEK_CUR)
        return None
    finally:
        stream.seek(place)


def read_bmp_profile(image: Image.Image) -> bytes:
    """Returns the ICC profile of a BMP of version 4 or 5, or b"" for sRGB; Pillow reads neither.

    Raises:
        BadPhotoError: its colors are calibrated by other numbers than sRGB's, or its profile is in another file.
    """
    stream = getattr(image, "fp", None) if image.format in ("BMP", "DIB") else None
    if stream is None:
        return b""
    place = stream.tell()
    try:
        start = 14 if image.format == "BMP" else 0
        stream.seek(start)
        header = stream.read(124)
        size = int.from_bytes(header[:4], "little")
        if size < 108 or len(header) < 108:
            return b""
        kind = header[56:60]
        if kind == b"KNIL":
            raise BadPhotoError("BMP whose color profile is in another file: convert it to sRGB")
        if kind == b"DEBM" and size >= 124:
            at, length = struct.unpack("<II", header[112:120])
            stream.seek(start + at)
            return stream.read(min(length, _LARGEST_PROFILE)) or b"empty"
        if kind == bytes(4):
            numbers = struct.unpack("<9i3I", header[60:108])
            if not any(numbers):
                return b""
            if not _is_srgb_of_bmp(numbers):
                raise BadPhotoError("BMP calibrated by other numbers than those of sRGB: convert it to sRGB")
        return b""
    finally:
        stream.seek(place)


def _is_srgb_of_bmp(numbers: tuple[int, ...]) -> bool:
    """Returns whether nine coordinates, 2.30 bits, and three exponents, 16.16 bits, are sRGB's to within rounding.

    Writers store the primaries' x, y, z or their X, Y, Z; x and y follow from both.
    """
    ends = np.asarray(numbers[:9], np.float64).reshape(3, 3)
    sums = ends.sum(axis=1, keepdims=True)
    if not (sums > 0).all():
        return False
    exponents = np.asarray(numbers[9:]) / 65536
    xy = (ends / sums)[:, :2].ravel()
    return bool(np.abs(xy - SRGB[2:]).max() < 0.005 and (np.abs(exponents - 2.2) < 0.03).all())


def read_jp2_profile(image: Image.Image) -> bytes:
    """Returns the ICC profile of a JPEG 2000 file, or b"" for sRGB, its YCC or gray; Pillow reads none.

    Raises:
        BadPhotoError: the file states another color space by its number.
    """
    head = _head(image, "JPEG2000")
    at = head.find(b"colr")
    if at < 4 or not head.startswith(b"\0\0\0\x0cjP"):
        return b""
    length, method = int.from_bytes(head[at - 4 : at], "big"), head[at + 4]
    if method == 1:
        space = int.from_bytes(head[at + 7 : at + 11], "big")
        if space not in _JP2_SPACES:
            raise BadPhotoError(f"color space {space} of JPEG 2000: convert it to sRGB")
        return b""
    if method in (2, 3):
        return head[at + 7 : at - 4 + length] or b"empty"
    raise BadPhotoError(f"colors of JPEG 2000 by method {method}: convert it to sRGB")


def read_tiff_chromaticities(image: Image.Image) -> tuple[float, ...]:
    """Returns a TIFF's white and primaries, in cHRM's order, or ().

    Raises:
        BadPhotoError: the file states another curve than sRGB's (TransferFunction), or unusable numbers.
    """
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    try:
        curve = np.asarray(tags.get(_TRANSFER_FUNCTION, ()), np.float64)
        white = tuple(float(each) for each in tags.get(_WHITE_POINT, D65))
        primaries = tuple(float(each) for each in tags.get(_PRIMARIES, SRGB[2:]))
    except (TypeError, ValueError, ZeroDivisionError):
        raise BadPhotoError("unreadable color tags of a TIFF: convert it to sRGB") from None
    if curve.size and not _is_srgb_curve(curve):
        raise BadPhotoError("a TIFF whose TransferFunction is not the curve of sRGB: convert it to sRGB")
    if len(white) != 2 or len(primaries) != 6:
        raise BadPhotoError("unreadable color tags of a TIFF: convert it to sRGB")
    return (*white, *primaries) if _WHITE_POINT in tags or _PRIMARIES in tags else ()


def _is_srgb_curve(curve: Float[np.ndarray, " n"]) -> bool:
    """Returns whether tables of linear light, 0..65535, are sRGB's or exponent 2.2 to within 2 levels on average."""
    tables = [curve] if curve.size % 3 or curve.size in (2**8, 2**16) else np.split(curve, 3)
    levels = np.linspace(0, 255, len(tables[0]))
    shown = [255 * srgb_encoded(np.clip(np.nan_to_num(table) / 65535, 0, 1)) for table in tables]
    return all(np.abs(each - levels).mean() <= 2 for each in shown)


def is_adobe(image: Image.Image) -> bool:
    """Returns whether Exif names Adobe RGB: interoperability index R03 of DCF, or color space 2 as Nikon's."""
    try:
        if image.format == "PNG":  # getexif would load the pixels
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
        else:
            exif = image.getexif()
        return exif.get_ifd(0x8769).get(0xA001) == 2 or exif.get_ifd(0xA005).get(1) == "R03"
    except Exception:  # Exif holds anything; Pillow raises many types
        return False


def _head(image: Image.Image, *formats: str) -> bytes:
    """Returns the first bytes of a file of these formats, or b""."""
    stream = getattr(image, "fp", None) if image.format in formats else None
    if stream is None:
        return b""
    place = stream.tell()
    try:
        stream.seek(0)
        return stream.read(_LARGEST_PROFILE)
    finally:
        stream.seek(place)
