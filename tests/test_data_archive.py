"""Photos in archives: the same records as from their folder, and one line for each damaged archive or member."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import tarfile
import tempfile
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest
from drawn_faces import make_photos
from hypothesis import given, settings
from hypothesis import strategies as st
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
        if kind == "zip" or length < 101:  # a zip without its end, or a tar without a member, cannot be listed
            with pytest.raises(DataError, match=r"^archive [^\n]*$"):
                open_source(str(cut))
            continue
        with contextlib.suppress(DataError):  # a tar keeps its complete members
            for loaded in open_source(str(cut)).load(0):
                assert isinstance(loaded.content, (bytes, BadPhotoError))


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz"])
def test_what_is_before_the_damaged_end_of_a_tar_is_kept_and_reported(tmp_path: Path, kind: str):
    noise = random.Random(0)
    photos = {f"{number}.png": noise.randbytes(200_000) for number in range(5)}
    with tarfile.open(tmp_path / f"cut.{kind}", f"w:{kind[4:]}" if kind != "tar" else "w") as target:
        for name, data in photos.items():
            add(target, name, data)
    packed = tmp_path / f"cut.{kind}"
    packed.write_bytes(packed.read_bytes()[:500_000])  # in the third photo
    source = open_source(str(packed))
    assert [photo.name for photo in source.photos] == ["0.png", "1.png", "2.png"]
    assert any(fact.startswith(f"cut.{kind} is damaged after 3 files: ") for fact in source.facts)
    for start in range(3):
        contents = [loaded.content for loaded in source.load(start)]
        assert contents[:-1] == [photos["0.png"], photos["1.png"]][start:]
        assert str(contents[-1]).startswith("damaged: file cannot be decoded: ")


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
    options = PrepareConfig(max_megabytes=0.5)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("a.png", bytes(10**6))
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as target:
        info = tarfile.TarInfo("a.png")
        info.size = 10**6
        target.addfile(info, io.BytesIO(bytes(10**6)))
    for name in ("bomb.zip", "bomb.tar.gz"):
        (loaded,) = open_source(str(tmp_path / name), options).load(0)
        assert str(loaded.content) == "too large: 1.0 MB in the archive, at most 0.5 (max_megabytes)"
        (loaded,) = open_source(str(tmp_path / name)).load(0)
        assert loaded.content == bytes(10**6)


def test_an_archive_without_photos_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr("a.txt", "x")
    with pytest.raises(DataError, match="no photo among its 1 files"):
        open_source(str(tmp_path / "a.zip"))


def add(target: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    target.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_every_member_of_a_tar_ends_in_the_report(tmp_path: Path, kind: str):
    make_photos(tmp_path / "photos", people=2, shots=1)
    a, b = sorted((tmp_path / "photos").glob("*.png"))
    with tarfile.open(tmp_path / f"odd.{kind}", f"w:{kind[4:]}" if kind != "tar" else "w") as target:
        add(target, a.name, a.read_bytes())
        add(target, b.name, b"superseded")
        add(target, "folder", kind=tarfile.DIRTYPE)
        add(target, "folder/hard.png", kind=tarfile.LNKTYPE, link=a.name)
        add(target, "soft.png", kind=tarfile.SYMTYPE, link="/etc/passwd")
        add(target, "device.png", kind=tarfile.CHRTYPE)
        add(target, "disk.png", kind=tarfile.BLKTYPE)
        add(target, "fifo.png", kind=tarfile.FIFOTYPE)
        add(target, "now_a_link.png", a.read_bytes())
        add(target, f"./{b.name}", b.read_bytes())
        add(target, "now_a_link.png", kind=tarfile.SYMTYPE, link=a.name)
    options = PrepareConfig(size=32, workers=1, landmarks=str(tmp_path / "photos" / "landmarks68.csv"))
    summary = prepare(str(tmp_path / f"odd.{kind}"), tmp_path / "out", options)
    lines = report(tmp_path / "out")
    assert {name for name, row in lines.items() if row["status"] == "kept"} == {a.name, b.name}
    assert {name: row["reason"].split(":")[0] for name, row in lines.items() if row["status"] == "skipped"} == {
        "folder/hard.png": f"hard link to {a.name}",
        "soft.png": "symbolic link to /etc/passwd",
        "device.png": "a device",
        "disk.png": "a device",
        "fifo.png": "a FIFO",
        "now_a_link.png": f"symbolic link to {a.name}",
    }
    assert summary.kept + summary.rejected + summary.skipped == summary.found == 8
    assert f"2 files of odd.{kind} have the name of a later one, which counts" in str(summary)


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_members_with_one_name_the_last_counts(tmp_path: Path, kind: str):
    contents = {"a.png": b"a", "b.png": b"b1", "c.png": b"c", "d.png": b"d1"}
    members = [*contents.items(), ("b.png", b"b2"), ("d.png", b"d2"), ("b.png", b"b3")]
    packed = tmp_path / f"twice.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(packed, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile's, of duplicates
            for name, data in members:
                archive.writestr(name, data)
    else:
        with tarfile.open(packed, f"w:{kind[4:]}" if kind != "tar" else "w") as target:
            for name, data in members:
                add(target, name, data)
    source = open_source(str(packed))
    read = {photo.name: loaded.content for photo, loaded in zip(source.photos, source.load(0), strict=True)}
    assert read == {**contents, "b.png": b"b3", "d.png": b"d2"}
    for start in range(5):
        assert list(source.load(start)) == list(source.load(0))[start:]


MEMBERS = st.lists(
    st.tuples(
        st.sampled_from(["a.png", "./a.png", "b.png", "c/d.jpg", "note.txt"]),
        st.sampled_from([tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]),
        st.binary(max_size=2000),
    ),
    max_size=8,
)


@given(MEMBERS, st.sampled_from(["tar", "tar.gz"]))
@settings(max_examples=60, deadline=None)
def test_any_tar_is_read_as_an_unpacker_would(members: list[tuple[str, bytes, bytes]], kind: str):
    """By name, the last member counts; each name is a photo or has its reason; reading starts anywhere."""
    last = {name.removeprefix("./"): (member, data) for name, member, data in members}
    photos = {n: data for n, (member, data) in last.items() if member == tarfile.REGTYPE and n != "note.txt"}
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / f"any.{kind}"
        with tarfile.open(packed, f"w:{kind[4:]}" if kind != "tar" else "w") as target:
            for name, member, data in members:
                add(target, name, data if member == tarfile.REGTYPE else b"", member, "a.png")
        if not photos:
            with pytest.raises(DataError, match="no photo among"):
                open_source(str(packed))
            return
        source = open_source(str(packed))
        contents = [loaded.content for loaded in source.load(0)]
        assert dict(zip([photo.name for photo in source.photos], contents, strict=True)) == photos
        assert sorted([*photos, *(name for name, _ in source.skipped)]) == sorted(last)
        assert all([loaded.content for loaded in source.load(k)] == contents[k:] for k in range(len(contents) + 1))


@given(st.sampled_from(KINDS), st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255)), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_damage_to_an_archive_is_a_line_or_a_bad_photo(kind: str, damage: list[tuple[int, int]]):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "photos").mkdir()
        for name in ("a.png", "b.png", "c.png"):
            (Path(folder) / "photos" / name).write_bytes(name.encode() * 300)
        packed = pack(Path(folder) / "photos", Path(folder) / f"photos.{kind}")
        content = bytearray(packed.read_bytes())
        for place, value in damage:
            content[place % len(content)] = value
        packed.write_bytes(bytes(content))
        with contextlib.suppress(DataError):
            source = open_source(str(packed))
            loaded = list(source.load(0))
            assert len(loaded) == len(source.photos)
            assert all(isinstance(one.content, (bytes, BadPhotoError)) for one in loaded)


def test_a_link_in_a_zip_is_no_photo(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr("a.png", "a")
        info = zipfile.ZipInfo("b.png")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        target.writestr(info, "/etc/passwd")
    source = open_source(str(tmp_path / "a.zip"))
    assert [photo.name for photo in source.photos] == ["a.png"]
    assert source.skipped == [("b.png", "symbolic link: not followed")]


def _header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("a.png")
    info.type, info.size = kind, size
    return info.tobuf()


def _sparse_map(blocks: int) -> bytes:
    """A header of an old GNU sparse file whose map has this number of blocks, each announcing one more."""
    head = bytearray(_header(tarfile.GNUTYPE_SPARSE, 0))
    head[482] = 1
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + bytes([*b"0" * 504, 1, *bytes(7)]) * blocks


BOMBS = {
    "pax": lambda: _header(tarfile.XHDTYPE, 2**26) + bytes(2**26),
    "global pax": lambda: _header(tarfile.XGLTYPE, 2**26) + bytes(2**26),
    "long name": lambda: _header(tarfile.GNUTYPE_LONGNAME, 2**26) + bytes(2**26),
    "long link": lambda: _header(tarfile.GNUTYPE_LONGLINK, 2**26) + bytes(2**26),
    "sparse map": lambda: _sparse_map(2**17),
    "nested pax": lambda: (_header(tarfile.XHDTYPE, 12) + b"12 path=abc\n".ljust(512, b"\0")) * 2000,
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", BOMBS)
def test_the_headers_of_a_tar_are_bounded(tmp_path: Path, kind: str, first: bool):
    photo = _header(tarfile.REGTYPE, 1) + b"x".ljust(512, b"\0")
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", compresslevel=1) as file:
        file.write((b"" if first else photo) + BOMBS[kind]() + photo + bytes(1024))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"^archive .* cannot be read: .*(exceeds 1 MB|recursion)"):
        open_source(str(tmp_path / "bomb.tar.gz"))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_long_names_and_pax_headers_of_honest_archives_are_read(tmp_path: Path):
    name = "/".join(["folder" * 20] * 10) + "/ä.png"
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "long.tar", "w", format=kind) as target:
            add(target, name, b"a")
        source = open_source(str(tmp_path / "long.tar"))
        assert [photo.name for photo in source.photos] == [name]
        assert next(source.load(0)).content == b"a"


def _with_size(content: bytearray, at: int, size: int) -> bytearray:
    """Returns a tar whose header at `at` states a size, with a fitting checksum."""
    content[at + 124 : at + 136] = size.to_bytes(12, "big", signed=True) if size < 0 else b"%011o\0" % size
    content[at + 148 : at + 156] = b" " * 8
    content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    return content


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("kind", ["checksum", "negative", "no size", "end mark", "joined"])
def test_what_a_damaged_header_hides_is_reported(tmp_path: Path, kind: str, gz: bool) -> None:
    """tarfile ends at the first header that it cannot read, without a word."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as target:
        add(target, "a.png", bytes(range(1, 200)))
        at = stream.tell()
        for name in ("b.png", "c.png", "landmarks68.csv"):
            add(target, name, bytes(range(1, 200)))
    content = bytearray(stream.getvalue())
    if kind == "checksum":
        content[at + 3] ^= 1
    elif kind == "end mark":
        content[at : at + 1024] = bytes(1024)
    elif kind == "joined":
        content = content + content
    else:
        content = _with_size(content, at, -1024 if kind == "negative" else 0)
    file = tmp_path / ("a.tar.gz" if gz else "a.tar")
    file.write_bytes(gzip.compress(content) if gz else content)
    source = open_source(str(file))
    reason = "more follows its end mark" if kind in ("end mark", "joined") else "damaged header"
    assert any(f"{file.name} is damaged after" in fact and reason in fact for fact in source.facts), source.facts
    assert len(list(source.load(0))) == len(source.photos)


def test_backslashes_in_a_zip_are_folders(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos", people=2, shots=1)
    file = tmp_path / "photos.zip"
    with zipfile.ZipFile(file, "w") as target:
        for path in sorted((tmp_path / "photos").iterdir()):
            target.write(path, f"set/{path.name}")
    file.write_bytes(file.read_bytes().replace(b"set/", b"set\\"))
    summary = prepare(str(file), tmp_path / "out", PrepareConfig(size=16, workers=1))
    assert summary.kept == 2
    assert report(tmp_path / "out")["set/landmarks68.csv"]["reason"] == "the landmarks that were used"
