"""Colors and damage of photos that the decoder does not report: converted or refused, never kept without a word."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from ecvae_jax.data.errors import BadPhotoError
from ecvae_jax.data.photos.photo import read_photo

MUTED = np.stack(np.meshgrid(np.arange(80, 176, 4), np.arange(90, 160, 5)), -1).astype(np.uint8)
MUTED = np.concatenate([MUTED, 250 - MUTED[..., :1]], axis=-1)


def saved(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(MUTED).save(stream, kind, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def adobe_exif() -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    return exif.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_adobe_rgb_by_exif_is_converted_in_every_format(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    plain, _ = read_photo(saved("PNG"))
    converted, notes = read_photo(saved(kind, exif=adobe_exif(), **options))
    assert "colors converted from Adobe RGB (Exif)" in notes
    assert np.abs(converted.astype(int) - plain).max() > 5  # more saturated
    expected, _ = read_photo(saved("JPEG", exif=adobe_exif(), quality=100, subsampling=0))
    assert np.abs(converted.astype(int) - expected).mean() < 1


def jp2(*, space: int = 16, profile: bytes = b"") -> bytes:
    """Returns a JPEG 2000 file whose `colr` box states a space by its number or has a profile."""
    data = saved("JPEG2000")
    at = data.index(b"colr")
    if not profile:
        return data[: at + 7] + struct.pack(">I", space) + data[at + 11 :]
    header = data.index(b"jp2h") - 4
    body = struct.pack(">I", 11 + len(profile)) + b"colr\x02\0\0" + profile
    size = int.from_bytes(data[header : header + 4], "big") - 15 + len(body)
    return data[:header] + struct.pack(">I", size) + data[header + 4 : at - 4] + body + data[at + 11 :]


@pytest.mark.parametrize("space", [14, 20, 21, 99])
def test_a_jpeg_2000_of_another_color_space_is_refused(space: int) -> None:
    with pytest.raises(BadPhotoError, match=f"color space {space} of JPEG 2000: convert it to sRGB"):
        read_photo(jp2(space=space))
    assert np.array_equal(read_photo(jp2(space=16))[0], MUTED)


def test_a_profile_of_a_jpeg_2000_is_applied() -> None:
    from test_data_photo_trust import icc

    photo, notes = read_photo(jp2(profile=icc("swapped", 2.2, swap=True)))
    assert notes == ["colors converted from 'swapped'"]
    assert np.abs(photo.astype(int) - MUTED[..., ::-1]).max() <= 8
    photo, notes = read_photo(jp2(profile=b"no profile"))
    assert notes == ["unreadable color profile ignored"]


def tiff(**tags: tuple) -> bytes:
    numbers = {"curve": 301, "white": 318, "primaries": 319}
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, values in tags.items():
        info.tagtype[numbers[name]] = 3 if name == "curve" else 5
        info[numbers[name]] = values
    return saved("TIFF", tiffinfo=info)


def test_the_color_tags_of_a_tiff_are_applied_or_refused() -> None:
    line = tuple(np.tile(np.arange(256) * 257, 3).tolist())
    with pytest.raises(BadPhotoError, match="TransferFunction is not the curve of sRGB"):
        read_photo(tiff(curve=line))
    value = np.arange(256) / 255
    curve = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    photo, notes = read_photo(tiff(curve=tuple(np.rint(65535 * np.tile(curve, 3)).astype(int).tolist())))
    assert np.array_equal(photo, MUTED)
    assert notes == []
    srgb = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
    photo, notes = read_photo(tiff(white=(0.3127, 0.329), primaries=srgb))
    assert np.array_equal(photo, MUTED)
    assert notes == []
    photo, notes = read_photo(tiff(primaries=(*srgb[4:], *srgb[2:4], *srgb[:2])))  # red and blue exchanged
    assert np.abs(photo.astype(int) - MUTED[..., ::-1]).max() <= 3
    assert notes == ["colors converted from PrimaryChromaticities"]
    with pytest.raises(BadPhotoError, match="unusable PrimaryChromaticities"):
        read_photo(tiff(primaries=(0.3, 0.3) * 3))


def planar(mode: int, bits: int) -> bytes:
    """Returns an uncompressed TIFF of three planes; `mode` is its photometric interpretation."""
    height, width, _ = MUTED.shape
    planes = np.moveaxis(MUTED, 2, 0).astype("<u2" if bits == 16 else "u1") * (257 if bits == 16 else 1)
    size = planes[0].nbytes
    at = 8 + 2 + 9 * 12 + 4
    starts = at + 6 + 24
    entries = [
        (256, 3, 1, struct.pack("<HH", width, 0)),
        (257, 3, 1, struct.pack("<HH", height, 0)),
        (258, 3, 3, struct.pack("<I", at)),
        (259, 3, 1, struct.pack("<HH", 1, 0)),
        (262, 3, 1, struct.pack("<HH", mode, 0)),
        (273, 4, 3, struct.pack("<I", at + 6)),
        (277, 3, 1, struct.pack("<HH", 3, 0)),
        (279, 4, 3, struct.pack("<I", at + 18)),
        (284, 3, 1, struct.pack("<HH", 2, 0)),
    ]
    table = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    arrays = struct.pack("<3H", bits, bits, bits) + struct.pack("<3I", *(starts + i * size for i in range(3)))
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4)
    return head + arrays + struct.pack("<3I", size, size, size) + planes.tobytes()


def test_samples_in_planes_are_read_or_refused() -> None:
    assert np.array_equal(read_photo(planar(2, 8))[0], MUTED)
    for mode, bits in ((2, 16), (8, 8)):
        with pytest.raises(BadPhotoError, match=f"{bits}-bit .* in planes, which the decoder misreads"):
            read_photo(planar(mode, bits))


def test_a_float_map_has_no_range() -> None:
    content = b"Pf\n8 8\n-1.0\n" + np.full((8, 8), 0.5, "<f4").tobytes()
    with pytest.raises(BadPhotoError, match="float samples of PPM"):
        read_photo(content)


def test_a_damaged_png_is_not_a_black_one() -> None:
    content = bytearray(saved("PNG"))
    content[content.index(b"IDAT") + 20] ^= 0xFF
    with pytest.raises(BadPhotoError, match="damaged"):
        read_photo(bytes(content))


def test_a_mask_among_the_pages_is_not_the_photo() -> None:
    stream = io.BytesIO()
    mask = Image.new("L", (2 * MUTED.shape[1], 2 * MUTED.shape[0]), 255)
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[254] = 4
    mask.encoderinfo = {"tiffinfo": info}
    Image.fromarray(MUTED).save(stream, "TIFF", save_all=True, append_images=[mask])
    photo, _ = read_photo(stream.getvalue())
    assert np.array_equal(photo, MUTED)


def test_an_orientation_of_one_byte_is_applied() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI", 274, 1, 1) + b"\x06\0\0\0" + bytes(4)
    photo, notes = read_photo(saved("JPEG", exif=exif, quality=95))
    assert photo.shape[:2] == MUTED.shape[1::-1]
    assert notes == ["rotated upright (EXIF)"]
