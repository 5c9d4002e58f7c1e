"""Photos in archives: the same records as from their folder, and one line for each damaged archive or member."""

from __future__ import annotations

import contextlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from drawn_faces import make_photos
from test_data_prepare import all_faces, report

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.photo import BadPhotoError
from ecvae_jax.data.photos.sources import open_source
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.prepare import prepare

KINDS = ["zip", "tar", "tar.gz", "tar.xz"]


def pack(folder: Path, out: Path) -> Path:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if out.suffix == ".zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
            for file in files:
                target.write(file, file.relative_to(folder).as_posix())
    else:
        with tarfile.open(out, f"w:{out.suffix[1:]}" if out.suffix != ".tar" else "w") as target:
            for file in files:
                target.add(file, "./" + file.relative_to(folder).as_posix())
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_gives_what_its_folder_gives(tmp_path: Path, kind: str):
    make_photos(tmp_path / "photos")
    landmarks = str(tmp_path / "photos" / "landmarks68.csv")
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no photo")
    packed = pack(tmp_path / "photos", tmp_path / f"photos.{kind}")
    options = PrepareConfig(size=32, workers=1, landmarks=landmarks)
    folder = prepare(str(tmp_path / "photos"), tmp_path / "one", options)
    from_archive = prepare(str(packed), tmp_path / "two", options)
    assert (folder.kept, folder.rejected, folder.found) == (12, 1, 14)
    assert (from_archive.kept, from_archive.rejected, from_archive.found) == (12, 1, 14)
    one, two = all_faces(tmp_path / "one"), all_faces(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        assert (one[name][0] == two[name][0]).all()
        assert one[name][2] == two[name][2]
    statuses = [{name: row["status"] for name, row in report(tmp_path / out).items()} for out in ("one", "two")]
    assert statuses[0] == statuses[1]


@pytest.mark.parametrize("kind", KINDS)
def test_reading_starts_at_any_photo(tmp_path: Path, kind: str):
    make_photos(tmp_path / "photos", people=3)
    source = open_source(str(pack(tmp_path / "photos", tmp_path / f"photos.{kind}")))
    whole = list(source.load(0))
    assert len(whole) == len(source.photos) == 6
    for start in range(7):
        assert list(source.load(start)) == whole[start:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_archive_gives_one_line(tmp_path: Path, kind: str):
    make_photos(tmp_path / "photos")
    packed = pack(tmp_path / "photos", tmp_path / f"photos.{kind}")
    for length in (0, 100, packed.stat().st_size // 2):
        cut = tmp_path / f"cut.{kind}"
        cut.write_bytes(packed.read_bytes()[:length])
        if kind != "tar" or length == 0:  # a zip without its end or a truncated compressed tar cannot be listed
            with pytest.raises(DataError, match=r"^archive [^\n]*$"):
                open_source(str(cut))
            continue
        with contextlib.suppress(DataError):  # a plain tar keeps its complete members
            for loaded in open_source(str(cut)).load(0):
                assert isinstance(loaded.content, (bytes, BadPhotoError))


def test_a_damaged_member_does_not_affect_the_others(tmp_path: Path):
    make_photos(tmp_path / "photos", people=2, shots=1)
    packed = pack(tmp_path / "photos", tmp_path / "photos.zip")
    data = bytearray(packed.read_bytes())
    with zipfile.ZipFile(packed) as whole:
        first, second = (info for info in whole.infolist() if info.filename.endswith(".png"))
    for offset in range(first.header_offset + 60, first.header_offset + 90):
        data[offset] ^= 0xFF
    packed.write_bytes(bytes(data))
    contents = [loaded.content for loaded in open_source(str(packed)).load(0)]
    assert isinstance(contents[0], BadPhotoError)
    assert str(contents[0]).startswith("damaged: ")
    assert contents[1] == (tmp_path / "photos" / second.filename).read_bytes()


def test_a_member_too_large_to_be_a_photo_is_not_unpacked(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("a.png", bytes(10**6))
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as target:
        info = tarfile.TarInfo("a.png")
        info.size = 10**6
        target.addfile(info, io.BytesIO(bytes(10**6)))
    for name in ("bomb.zip", "bomb.tar.gz"):
        (loaded,) = open_source(str(tmp_path / name), PrepareConfig(max_megabytes=0.5)).load(0)
        assert str(loaded.content) == "too large: 1.0 MB in the archive, at most 0.5 (max_megabytes)"


def test_an_archive_without_photos_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr("a.txt", "x")
    with pytest.raises(DataError, match="no photo among its 1 files"):
        open_source(str(tmp_path / "a.zip"))
