"""Two thousand damaged photos: each is in the report, kept or with one line of reason, and none stops the rest."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face, face_landmarks, write_landmarks
from test_data_prepare import report

from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare

SIDE = 48
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "ppm": "PPM"}


def originals() -> dict[str, bytes]:
    """The same drawn face in each format, some with what photos bring: EXIF, a palette, layers."""
    face = draw_face(SIDE)
    found = {}
    for suffix, kind in FORMATS.items():
        stream = io.BytesIO()
        if kind == "JPEG":
            exif = face.getexif()
            exif[0x0112] = 6
            face.save(stream, kind, exif=exif, progressive=True)
        elif kind == "GIF":
            face.quantize(32).save(stream, kind, save_all=True, append_images=[face.quantize(8)])
        elif kind == "PNG":
            face.convert("RGBA").save(stream, kind)
        elif kind == "TIFF":
            face.save(stream, kind, compression="tiff_lzw")
        else:
            face.save(stream, kind)
        found[suffix] = stream.getvalue()
    return found


def mutate(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """One of: bytes changed, cut off, a block doubled, removed or zeroed, a number made huge, the head of another."""
    array = bytearray(data)
    place = int(rng.integers(len(array)))
    length = int(rng.integers(1, 64))
    match int(rng.integers(8)):
        case 0:
            for _ in range(length):
                array[int(rng.integers(len(array)))] = int(rng.integers(256))
        case 1:
            array[int(rng.integers(min(64, len(array))))] ^= 1 << int(rng.integers(8))  # in the header
        case 2:
            return bytes(array[:place])
        case 3:
            array[place:place] = array[place : place + length] * 3
        case 4:
            del array[place : place + length]
        case 5:
            array[place : place + length] = bytes(len(array[place : place + length]))
        case 6:
            array[place : place + 4] = b"\xff\xff\xff\x7f"
        case _:
            return other[: min(place, 40)] + bytes(array[min(place, 40) :])
    return bytes(array)


@pytest.mark.parametrize("count", [210, pytest.param(2100, marks=pytest.mark.slow)])
def test_damaged_photos_all_end_in_the_report(tmp_path: Path, count: int):
    rng, whole = np.random.default_rng(20261124), originals()
    suffixes = list(whole)
    (tmp_path / "photos").mkdir()
    rows = {}
    for number in range(count):
        suffix, other = suffixes[number % len(suffixes)], suffixes[int(rng.integers(len(suffixes)))]
        name = f"{number:05d}.{suffix}"
        (tmp_path / "photos" / name).write_bytes(mutate(rng, whole[suffix], whole[other]))
        rows[name] = face_landmarks(SIDE)
    for suffix, data in whole.items():
        (tmp_path / "photos" / f"whole.{suffix}").write_bytes(data)
        rows[f"whole.{suffix}"] = face_landmarks(SIDE)
    write_landmarks(tmp_path / "photos" / "landmarks68.csv", rows)
    options = PrepareConfig(size=16, workers=2, identity="none", max_megapixels=20)
    summary = prepare(str(tmp_path / "photos"), tmp_path / "out", options)
    lines = report(tmp_path / "out")
    assert set(lines) == {path.name for path in (tmp_path / "photos").iterdir()}
    assert summary.found == count + len(whole) + 1 == summary.kept + summary.rejected + summary.skipped
    assert all(lines[f"whole.{suffix}"]["status"] == "kept" for suffix in whole)
    assert summary.rejected > count / 8
    assert summary.kept > count / 8
    for line in lines.values():
        assert line["status"] in ("kept", "rejected", "skipped")
        assert bool(line["reason"]) == (line["status"] != "kept")
        assert "\n" not in line["reason"] + line["notes"]
    unforeseen = {name: line["reason"] for name, line in lines.items() if line["reason"].startswith("failed")}
    assert not unforeseen
