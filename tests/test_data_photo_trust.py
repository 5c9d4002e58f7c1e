"""Photos from strangers: no foreign decoder, no endless reading, and every color by what the file states."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import face_landmarks, write_landmarks
from PIL import Image, ImageCms
from test_data_prepare import report

from ecvae_jax.data.errors import BadPhotoError, DataError
from ecvae_jax.data.photos.photo import PHOTO_FORMATS, read_photo
from ecvae_jax.data.prepare.job import FaceJob, FaceWorker
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    """A smooth picture of many colors, inside the gamut of every space here."""
    y, x = np.mgrid[0:40, 0:60]
    return np.stack([60 + 2.5 * x, 70 + 3.5 * y, 200 - x - y], axis=-1).round().astype(np.uint8)


def linear(srgb: np.ndarray) -> np.ndarray:
    value = srgb / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def icc(name: str, exponent: float, space: bytes = b"RGB ", swap: bool = False) -> bytes:
    """Returns an ICC profile with sRGB's primaries, one exponent and any name; `swap` exchanges red and blue."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + fixed(*values)

    red, green, blue = (0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
    red, blue = (blue, red) if swap else (red, blue)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name.encode() + b"\0" + bytes(78)
    tags = [(b"desc", text), (b"cprt", b"text\0\0\0\0CC0\0"), (b"wtpt", xyz(0.9642, 1.0, 0.8249))]
    if space == b"GRAY":
        tags += [(b"kTRC", curve)]
    else:
        tags += [(b"rXYZ", xyz(*red)), (b"gXYZ", xyz(*green)), (b"bXYZ", xyz(*blue))]
        tags += [(key, curve) for key in (b"rTRC", b"gTRC", b"bTRC")]
    table, data, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for key, content in tags:
        content += bytes(-len(content) % 4)
        table += key + struct.pack(">II", at + len(data), len(content))
        data += content
    head = struct.pack(
        ">I4sI4s4s4s12s4s", at + len(data), b"lcms", 0x02400000, b"mntr", space, b"XYZ ", bytes(12), b"acsp"
    )
    return head + bytes(68 - len(head)) + fixed(0.9642, 1.0, 0.8249) + bytes(48) + table + data


def png(image: Image.Image, *chunks: tuple[bytes, bytes], **options: object) -> bytes:
    """Returns a PNG with chunks put in front of its pixels."""
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)  # type: ignore[arg-type]
    data = stream.getvalue()
    extra = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return data[:33] + extra + data[33:]


def numbers(*values: float) -> bytes:
    return struct.pack(f">{len(values)}I", *(round(value * 100_000) for value in values))


def raw_tiff(*pages: np.ndarray, subfile: int = 0, **tags: int) -> bytes:
    """Returns an uncompressed little-endian gray TIFF with these tags; `subfile` is that of the first page."""
    data = b"II*\0" + struct.pack("<I", 8 + pages[0].nbytes)
    for number, values in enumerate(pages):
        height, width = values.shape
        entries = {
            254: 0 if number else subfile, 256: width, 257: height, 258: values.itemsize * 8, 259: 1,
            262: tags.get("photometric", 1), 273: len(data), 277: 1, 278: height, 279: values.nbytes,
        }  # fmt: skip
        entries |= {281: tags["max_sample"]} if "max_sample" in tags else {}
        entries |= {339: tags.get("sample_format", 1)}
        data += values.astype(values.dtype.newbyteorder("<")).tobytes() + struct.pack("<H", len(entries))
        data += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
        more = pages[number + 1 :]
        data += struct.pack("<I", len(data) + 4 + more[0].nbytes if more else 0)
    return data


def assert_like(content: bytes, reference: np.ndarray, tolerance: float = 2.0) -> list[str]:
    pixels, notes = read_photo(content)
    assert np.abs(pixels.astype(int) - reference).max() <= tolerance, notes
    return notes


# --- decoders ---


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.pnm"])
def test_no_photo_starts_ghostscript(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "gs"
    fake.write_text(f"#!/bin/sh\ntouch {tmp_path}/RAN\necho 10.0\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / name).write_bytes(POSTSCRIPT)
    for photo in (tmp_path / "photos" / name, POSTSCRIPT):
        with pytest.raises(BadPhotoError, match="not an image"):
            read_photo(photo)
    with pytest.raises(DataError, match="1 × not an image"):
        prepare(str(tmp_path / "photos"), tmp_path / "out", PrepareConfig(workers=1))
    assert not (tmp_path / "RAN").exists()
    assert not {"EPS", "WMF", "FITS", "GRIB", "HDF5", "BUFR"} & set(PHOTO_FORMATS)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_heic_gets_one_line_with_what_to_do(tmp_path: Path, brand: bytes) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(40))
    with pytest.raises(DataError, match="1 × HEIC, convert it to JPEG"):
        prepare(str(tmp_path / "photos"), tmp_path / "out", PrepareConfig(workers=1))


# --- limits ---


def test_a_large_file_is_not_opened(tmp_path: Path) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as stream:
        stream.write(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00")
        stream.truncate(2**42)
    with pytest.raises(BadPhotoError, match=r"^too large: 4398046\.5 MB, at most 64 \(max_megabytes\)$"):
        read_photo(tmp_path / "sparse.jpg")
    with pytest.raises(BadPhotoError, match=r"at most 0\.001 \(max_megabytes\)"):
        read_photo(bytes(2000), max_megabytes=0.001)


def test_a_photo_that_takes_too_long_is_rejected_and_the_next_is_read(tmp_path: Path) -> None:
    """Pillow looks for JPEG's next marker byte by byte, in Python: 46 s a GB."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(60_000_000))
    Image.new("RGB", (64, 64)).save(tmp_path / "photos" / "b.png")
    rows = {name: face_landmarks(64) for name in ("a.jpg", "b.png")}
    write_landmarks(tmp_path / "photos" / "landmarks68.csv", rows)
    options = PrepareConfig(size=32, workers=1, max_seconds=0.2)
    assert prepare(str(tmp_path / "photos"), tmp_path / "out", options).kept == 1
    assert report(tmp_path / "out")["a.jpg"]["reason"] == "takes too long: more than 0.2 s, the limit (max_seconds)"


def test_without_a_limit_reached_the_timer_is_gone() -> None:
    import signal

    before = signal.getsignal(signal.SIGVTALRM)
    FaceWorker(PrepareConfig(size=32), False)(FaceJob(b"x"))
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGVTALRM) is before


@pytest.mark.parametrize("wrong", [{"max_megabytes": 0.0}, {"max_megabytes": float("inf")}, {"max_seconds": -1.0}])
def test_limits_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        PrepareConfig(**wrong)


# --- metadata ---


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_bad_exif_tag_does_not_refuse_a_good_photo(reference: np.ndarray, kind: str, orientation: int) -> None:
    stored = Image.fromarray(reference)
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
            7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    if orientation in undo:
        stored = stored.transpose(getattr(Image.Transpose, undo[orientation]))
    stream = io.BytesIO()
    if kind == "TIFF":
        exif = stored.getexif()
        exif[274] = orientation
        stored.save(stream, kind, exif=exif)
    else:  # XResolution as text, as some editors write it; Pillow's writer would refuse it
        text = struct.pack("<HHIHH", 274, 3, 1, orientation, 0) + struct.pack("<HHI4s", 282, 2, 3, b"72\0\0")
        exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + text + bytes(4)
        stored.save(stream, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    notes = assert_like(stream.getvalue(), reference, 12 if kind == "JPEG" else 0)
    assert notes == (["rotated upright (EXIF)"] if orientation != 1 else [])


@pytest.mark.parametrize("marked", [True, False])
def test_a_thumbnail_as_first_page_is_passed_over(reference: np.ndarray, marked: bool) -> None:
    gray = reference[..., 0]
    document = raw_tiff(np.ascontiguousarray(gray[::4, ::4]), gray, subfile=int(marked))
    expected = np.repeat(gray[..., None], 3, axis=2)
    assert assert_like(document, expected, 0) == ["page 2 of 2 is used, the first is its thumbnail"]
    assert assert_like(raw_tiff(gray, gray[::-1].copy()), expected, 0) == ["animation of 2 frames, using the first"]


def test_the_size_of_the_chosen_page_is_checked() -> None:
    stream = io.BytesIO()
    pages = [Image.new("1", (40, 40)), Image.new("1", (2000, 2000))]
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(BadPhotoError, match="4 megapixels, at most 1"):
        read_photo(stream.getvalue(), max_megapixels=1)


# --- colors ---


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("name", ["Linear sRGB", "sRGB built-in", "Camera"])
def test_a_linear_profile_is_converted_whatever_its_name(reference: np.ndarray, mode: str, name: str) -> None:
    reference = reference[::4, ::4]  # 150 colors: a palette holds them
    light = Image.fromarray(np.rint(255 * linear(reference)).astype(np.uint8))
    image = light.convert("RGBA") if mode == "RGBA" else light.quantize(256) if mode == "P" else light
    notes = assert_like(png(image, icc_profile=icc(name, 1.0)), reference, 6)
    assert notes == ["P converted to RGB"] * (mode == "P") + [f"colors converted from {name!r}"]


def test_a_profile_is_applied_below_transparency(reference: np.ndarray) -> None:
    swapped = Image.fromarray(reference[..., ::-1])
    swapped.putalpha(Image.fromarray(np.where(np.arange(60) < 30, 255, 0).astype(np.uint8)[None].repeat(40, 0)))
    pixels, notes = read_photo(png(swapped, icc_profile=icc("Swapped", 2.2, swap=True)))
    assert np.abs(pixels[:, :30].astype(int) - reference[:, :30]).max() <= 3
    assert (pixels[:, 30:] == 255).all()
    assert len(notes) == 2


@pytest.mark.parametrize("space", [b"GRAY", b"RGB "])
@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_gray_photo_has_its_profile_applied(mode: str, space: bytes) -> None:
    gray = np.arange(40, 240, dtype=np.uint8)[None].repeat(4, 0)
    light = linear(gray)
    if mode == "I;16":
        image = Image.fromarray(np.rint(65535 * light).astype(np.uint16))
    else:
        image = Image.fromarray(np.rint(255 * light).astype(np.uint8)).convert(mode)
    expected = np.repeat(gray[..., None], 3, axis=2)
    notes = assert_like(png(image, icc_profile=icc("Linear", 1.0, space)), expected, 2 if mode == "I;16" else 7)
    assert notes[-1] == "colors converted from 'Linear'"


def test_srgb_by_any_name_changes_nothing(reference: np.ndarray) -> None:
    for profile in (
        SRGB,
        SRGB.replace(b"sRGB", b"Swap").replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be")),
    ):
        for image in (Image.fromarray(reference), Image.fromarray(reference).convert("RGBA")):
            assert assert_like(png(image, icc_profile=profile), reference, 0) == []


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
def test_gama_is_applied(reference: np.ndarray, mode: str) -> None:
    light = linear(reference)
    expected = reference
    if mode in ("L", "I;16"):
        expected = np.repeat(reference[..., :1], 3, axis=2)
        light = light[..., 0]
    if mode == "I;16":
        image = Image.fromarray(np.rint(65535 * light).astype(np.uint16))
    else:
        image = Image.fromarray(np.rint(255 * light).astype(np.uint8)).convert(mode)
    notes = assert_like(png(image, (b"gAMA", numbers(1.0))), expected, 6 if mode != "I;16" else 1)
    assert notes[-1] == "colors converted from gAMA"


CHRM_SRGB = numbers(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
CHRM_SWAPPED = numbers(0.3127, 0.329, 0.15, 0.06, 0.3, 0.6, 0.64, 0.33)


def test_chrm_is_applied_and_srgb_numbers_change_nothing(reference: np.ndarray) -> None:
    image, swapped = Image.fromarray(reference), Image.fromarray(reference[..., ::-1])
    assert assert_like(png(image, (b"gAMA", numbers(0.45455)), (b"cHRM", CHRM_SRGB)), reference, 0) == []
    notes = assert_like(png(swapped, (b"gAMA", numbers(0.45455)), (b"cHRM", CHRM_SWAPPED)), reference, 3)
    assert notes == ["colors converted from gAMA and cHRM"]
    # PNG's sRGB chunk counts before both
    assert (
        assert_like(png(image, (b"sRGB", b"\0"), (b"gAMA", numbers(1.0)), (b"cHRM", CHRM_SWAPPED)), reference, 0) == []
    )


@pytest.mark.parametrize(
    ("chunk", "note"),
    [
        ((b"gAMA", numbers(0.0)), "unusable gAMA 0 ignored"),
        ((b"gAMA", numbers(40000.0)), "unusable gAMA 40000 ignored"),
        ((b"cHRM", numbers(*([0.3] * 8))), "unusable cHRM ignored"),
        ((b"cHRM", numbers(*([0.0] * 8))), "unusable cHRM ignored"),
    ],
)
def test_numbers_without_sense_are_ignored_with_a_note(reference: np.ndarray, chunk: tuple, note: str) -> None:
    assert assert_like(png(Image.fromarray(reference), chunk), reference, 0) == [note]


def test_cicp_is_applied_or_refused(reference: np.ndarray) -> None:
    image = Image.fromarray(reference)
    assert assert_like(png(image, (b"cICP", bytes([1, 13, 0, 1]))), reference, 0) == []
    light = Image.fromarray(np.rint(255 * linear(reference)).astype(np.uint8))
    assert assert_like(png(light, (b"cICP", bytes([1, 8, 0, 1]))), reference, 6) == ["colors converted from CICP"]
    for transfer in (16, 18, 99):
        with pytest.raises(BadPhotoError, match="high dynamic range or an unknown space"):
            read_photo(png(image, (b"cICP", bytes([9, transfer, 0, 1]))))
    with pytest.raises(BadPhotoError, match="narrow range"):
        read_photo(png(image, (b"cICP", bytes([1, 13, 0, 0]))))


def test_display_p3_by_cicp_equals_display_p3_by_its_definition() -> None:
    """Muted colors, which are inside sRGB's gamut; the matrix is that of CSS Color 4."""
    p3 = np.array([[[180, 120, 120], [120, 180, 120], [120, 120, 180]]], np.uint8)
    css = np.array([[1.2249401, -0.2249401, 0], [-0.0420569, 1.0420569, 0], [-0.0196376, -0.0786361, 1.0982735]])
    light = np.clip(linear(p3) @ css.T, 0, 1)
    expected = np.rint(255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055))
    assert_like(png(Image.fromarray(p3), (b"cICP", bytes([12, 13, 0, 1]))), expected, 1)


def test_adobe_rgb_by_exif_is_converted(reference: np.ndarray) -> None:
    stream = io.BytesIO()
    image = Image.fromarray(reference)
    exif = image.getexif()
    exif.get_ifd(0x8769)[0xA001] = 2
    image.save(stream, "JPEG", exif=exif, quality=95)
    assert read_photo(stream.getvalue())[1] == ["colors converted from Adobe RGB (Exif)"]


def test_an_empty_alpha_channel_of_a_tga_is_ignored(reference: np.ndarray) -> None:
    image = Image.fromarray(reference).convert("RGBA")
    image.putalpha(0)
    stream = io.BytesIO()
    image.save(stream, "TGA")
    assert assert_like(stream.getvalue(), reference, 0) == ["empty alpha channel ignored"]


SRGB_ENDS = (0.64, 0.33, 0.03, 0.3, 0.6, 0.1, 0.15, 0.06, 0.79)


def bmp_v5(pixels: np.ndarray, kind: bytes, profile: bytes = b"", ends: tuple = SRGB_ENDS, gamma: float = 2.2) -> bytes:
    """Returns a bottom-up BMP of 24 bits with a header of version 5."""
    rows = np.ascontiguousarray(pixels[::-1, :, ::-1]).tobytes()  # 60 pixels: no padding
    place = (124 + len(rows), len(profile)) if profile else (0, 0)
    header = struct.pack("<IiiHHIIiiII", 124, pixels.shape[1], pixels.shape[0], 1, 24, 0, len(rows), 0, 0, 0, 0)
    header += bytes(16) + kind + struct.pack("<9i", *(round(value * 2**30) for value in ends))
    header += struct.pack("<3I", *[round(gamma * 65536)] * 3) + struct.pack("<IIII", 4, *place, 0)
    return b"BM" + struct.pack("<IHHI", 138 + len(rows) + len(profile), 0, 0, 138) + header + rows + profile


def test_an_embedded_profile_of_a_bmp_is_applied(reference: np.ndarray) -> None:
    light = np.rint(255 * linear(reference)).astype(np.uint8)
    notes = assert_like(bmp_v5(light, b"DEBM", icc("Linear", 1.0)), reference, 6)
    assert notes == ["colors converted from 'Linear'"]
    assert assert_like(bmp_v5(reference, b"DEBM", b"none"), reference, 0) == ["unreadable color profile ignored"]


@pytest.mark.parametrize("kind", [b"BGRs", b" niW", bytes(4)])
def test_a_bmp_of_srgb_is_unchanged(reference: np.ndarray, kind: bytes) -> None:
    assert assert_like(bmp_v5(reference, kind), reference, 0) == []
    assert assert_like(bmp_v5(reference, kind, ends=(0,) * 9, gamma=0), reference, 0) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"kind": bytes(4), "gamma": 1.0}, "calibrated by other numbers"),
        ({"kind": bytes(4), "ends": (*SRGB_ENDS[6:], *SRGB_ENDS[:6])}, "calibrated by other numbers"),
        ({"kind": bytes(4), "ends": (-1.0,) * 9}, "calibrated by other numbers"),
        ({"kind": b"KNIL", "profile": b"c:\\monitor.icm\0"}, "color profile is in another file"),
    ],
)
def test_a_bmp_of_colors_that_are_not_read_is_refused(reference: np.ndarray, content: dict, reason: str) -> None:
    with pytest.raises(BadPhotoError, match=reason):
        read_photo(bmp_v5(reference, **content))


# --- samples ---

RAMP = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(4, 0)
GRAY = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None].repeat(4, 0), 3, axis=2)


def test_white_is_zero_is_inverted_in_every_depth() -> None:
    assert_like(raw_tiff(65535 - RAMP, photometric=0), GRAY, 0)
    assert_like(raw_tiff((255 - GRAY[..., 0]).astype(np.uint8), photometric=0), GRAY, 0)
    assert_like(raw_tiff(RAMP), GRAY, 0)


def test_a_stated_maximum_is_white() -> None:
    assert_like(raw_tiff(RAMP // 16, max_sample=4095), GRAY, 1)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(raw_tiff(RAMP // 16), id="12 bits in 16"),
        pytest.param(raw_tiff(RAMP // 4), id="14 bits in 16"),
        pytest.param(raw_tiff((RAMP.astype(int) - 32768).astype(np.int16), sample_format=2), id="signed"),
        pytest.param(raw_tiff((RAMP * 1.0).astype(np.float32), sample_format=3), id="float to 65535"),
        pytest.param(raw_tiff((RAMP / 65535 - 0.5).astype(np.float32), sample_format=3), id="float below 0"),
        pytest.param(raw_tiff(RAMP.astype(np.uint32)), id="16 bits in 32"),
        pytest.param(raw_tiff(RAMP, max_sample=4095), id="above the stated maximum"),
    ],
)
def test_samples_without_a_stated_range_are_refused(content: bytes) -> None:
    with pytest.raises(BadPhotoError, match="samples without a range: "):
        read_photo(content)


def test_samples_of_a_stated_range_are_scaled() -> None:
    assert_like(raw_tiff((RAMP / 65535).astype(np.float32), sample_format=3), GRAY, 0)
    stream = io.BytesIO()
    Image.fromarray(RAMP // 257).save(stream, "PNG")  # dark, and PNG states its range
    assert read_photo(stream.getvalue())[0].max() == 1
