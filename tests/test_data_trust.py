"""Records from strangers: no file of the folder runs code, blocks, or leads outside the folder."""

from __future__ import annotations

import importlib
import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import make_records
from PIL import Image

from ecvae_jax.data import chunks
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import load_faces, record_splits
from ecvae_jax.data.manifest import RecordFile
from ecvae_jax.data.photos.sources import open_source
from ecvae_jax.data.records import FaceRecord, write_records
from ecvae_jax.data.shards import check_files, read_in_order

PLANTED = "import pathlib; pathlib.Path(__file__).with_name('RAN').write_text('x')\nclass Text: pass\n"
SHARD = "ecvae_faces-train.array_record-00000-of-00001"


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """Records with a planted module beside them, where `python -m` would find it."""
    folder = make_records(tmp_path / "stranger")
    (folder / "payload.py").write_text(PLANTED)
    (tmp_path / "payload.py").write_text(PLANTED)
    return folder


def replaced(value: object, name: str) -> object:
    """Returns the JSON with every `pythonClassName`, and every text that may be one, replaced by `name`."""
    if isinstance(value, dict):
        return {key: name if key == "pythonClassName" else replaced(item, name) for key, item in value.items()}
    return [replaced(item, name) for item in value] if isinstance(value, list) else value


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("name", ["stranger.payload.Text", "payload.Text", "this.Text"])
@pytest.mark.parametrize("file", ["features.json", "dataset_info.json", "metadata.json"])
def test_no_class_that_a_records_folder_names_is_imported(stranger: Path, file: str, name: str) -> None:
    """In a fresh process whose path holds the planted module, as `python -m ecvae_jax` in that folder has it."""
    content = json.loads((stranger / file).read_text())
    planted = {**replaced(content, name), "pythonClassName": name, "moduleName": name, "configName": name}  # type: ignore[dict-item]
    (stranger / file).write_text(json.dumps(planted))
    program = (
        "import sys\nfrom ecvae_jax import load_faces\nfrom ecvae_jax.data.faces import record_splits\n"
        "print(record_splits('stranger'), len(load_faces('stranger', 'train').images([0, 1])))\n"
        "assert not {'payload', 'stranger.payload', 'this'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(stranger.parent), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=stranger.parent, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "{'train': 23, 'test': 1} 2"
    assert not list(stranger.parent.rglob("RAN"))


@pytest.mark.parametrize("broken", ["", "{", "[]", "null", '"x"', "[" * 100_000, "\xff\xfe", "{}"])
@pytest.mark.parametrize("file", ["dataset_info.json", "metadata.json"])
def test_a_broken_manifest_is_refused_in_one_line(stranger: Path, file: str, broken: str) -> None:
    (stranger / file).write_text(broken, encoding="latin-1")
    with pytest.raises(DataError, match=r"^records '[^\n]*' cannot be read: [^\n]*; prepare them again$"):
        load_faces(stranger, "train")


def test_features_json_is_not_needed(stranger: Path) -> None:
    (stranger / "features.json").unlink()
    assert len(load_faces(stranger, "train")) == 23


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": 10**9}, "must be 68 or 98"),
        ({"points": "68"}, "must be 68 or 98"),
        ({"image_size": 10**7}, "whole number from 1 to"),
        ({"image_size": 33}, "not a JPEG of 33×33 px"),
        ({"margin": "1.5"}, "must be a positive number"),
        ({"margin": float("nan")}, "must be a positive number"),
    ],
)
def test_metadata_out_of_range_is_refused(stranger: Path, changes: dict[str, object], message: str) -> None:
    edit(stranger / "metadata.json", **changes)
    with pytest.raises(DataError, match=message):
        load_faces(stranger, "train").images([0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../../secret"}, "must be letters, digits and _"),
        ({"fileFormat": "tfrecord"}, "must be 'array_record'"),
        ({"splits": [{"name": "../train", "shardLengths": ["1"]}]}, "must be letters, digits and _"),
        ({"splits": [{"name": "train", "shardLengths": ["1"], "filepathTemplate": "/etc/passwd"}]}, "filepathTemplate"),
        ({"splits": [{"name": "train", "shardLengths": ["22"]}]}, "has 23 records, dataset_info.json states 22"),
        ({"splits": [{"name": "train", "shardLengths": [str(2**40)]}]}, "a file of"),
        ({"splits": [{"name": "train", "shardLengths": ["-1"]}]}, "a file of"),
        ({"splits": 3}, "cannot be read"),
    ],
)
def test_a_manifest_that_leads_elsewhere_is_refused(stranger: Path, changes: dict, message: str) -> None:
    edit(stranger / "dataset_info.json", **changes)
    with pytest.raises(DataError, match=message):
        load_faces(stranger, "train")


@pytest.mark.parametrize("file", ["dataset_info.json", "metadata.json", SHARD])
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_a_fifo_or_a_device_in_a_records_folder_is_refused_at_once(stranger: Path, file: str, kind: str) -> None:
    (stranger / file).unlink()
    if kind == "fifo":
        os.mkfifo(stranger / file)
    else:
        (stranger / file).symlink_to("/dev/zero")
    message = "not a records folder" if file == "dataset_info.json" else "is not a regular file"
    with pytest.raises(DataError, match=message):
        load_faces(stranger, "train")
    if file != SHARD:
        with pytest.raises(DataError, match="is not a regular file"):
            record_splits(stranger)


def records_with(folder: Path, image: bytes, landmark: float = 0.25) -> Path:
    metadata = {"points": 68, "image_size": 32, "source": "drawn", "detector": "none", "margin": 1.5}
    landmarks = np.full((68, 2), landmark, np.float32)
    write_records(folder, {"train": [FaceRecord(image, landmarks, "a", "a", "a", {})]}, metadata)
    return folder


def encoded(kind: str, size: tuple[int, int] = (32, 32)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(encoded("PNG"), id="png"),
        pytest.param(encoded("TIFF"), id="tiff"),
        pytest.param(encoded("JPEG", (33, 32)), id="another size"),
        pytest.param(encoded("JPEG")[:2] + b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff" + encoded("JPEG")[2:], id="bomb"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n", id="postscript"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xd8\xff", id="cut"),
    ],
)
def test_records_hold_jpegs_of_the_stated_size_only(tmp_path: Path, image: bytes) -> None:
    faces = load_faces(records_with(tmp_path / "out", image), "train")
    for read in (faces.images, faces.encoded):
        with pytest.raises(DataError, match="an image is not a JPEG of 32×32 px"):
            read([0])


def claim(shard: Path, stored: int | None = None, decoded: int | None = None, kind: bytes = b"r") -> None:
    """Changes what the first chunk of records claims; its header follows the block's and the signature's."""
    content = bytearray(shard.read_bytes())
    _, before, _, _, after = struct.unpack_from("<5Q", content, 64)
    struct.pack_into("<Q", content, 72, before if stored is None else stored)
    struct.pack_into("<Q", content, 96, after if decoded is None else decoded)
    content[88:89] = kind
    shard.write_bytes(content)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"decoded": 2**40}, "has a chunk at byte 64 that claims 1099511627776 bytes: at most 64 MiB"),
        ({"decoded": 2**64 - 1}, "at most 64 MiB"),
        ({"stored": 2**40}, "at most 64 MiB"),
        ({"decoded": 60 * 2**20}, "claims to hold more than 8 times its"),
        ({"stored": 10**6}, "is damaged"),
        ({"stored": 0}, "at most 64 MiB"),
        ({"decoded": 0}, "is damaged: no ArrayRecord chunk begins at byte 64"),
        ({"kind": b"t"}, "is damaged: no ArrayRecord chunk begins at byte 64"),
    ],
)
def test_the_sizes_that_a_chunk_claims_are_bounded(stranger: Path, claims: dict, reason: str) -> None:
    claim(stranger / SHARD, **claims)
    with pytest.raises(DataError, match=reason):
        load_faces(stranger, "train")


@pytest.mark.parametrize(
    ("records", "reason"), [([65 * 2**20], "at most 64 MiB"), ([12 * 2**20] * 2, "more than 8 times its")]
)
def test_records_that_unpack_to_much_more_than_their_file_are_not_unpacked(
    stranger: Path, records: list[int], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    array_record_module = importlib.import_module("array_record.python.array_record_module")
    writer = array_record_module.ArrayRecordWriter(str(stranger / SHARD), "group_size:1,zstd:3")
    for size in records:
        writer.write(bytes(size))
    writer.close()
    assert (stranger / SHARD).stat().st_size < 200_000
    monkeypatch.setattr(array_record_module, "ArrayRecordReader", lambda *_: pytest.fail("the library opens it"))
    with pytest.raises(DataError, match=reason):
        load_faces(stranger, "train")


@pytest.mark.parametrize("cut", [-1, -65536, 64, 100, 70_000])
def test_a_cut_file_of_records_is_refused(stranger: Path, cut: int) -> None:
    content = (stranger / SHARD).read_bytes()
    (stranger / SHARD).write_bytes(content[:cut])
    with pytest.raises(DataError, match=f"{SHARD} is damaged: "):
        load_faces(stranger, "train")


@pytest.mark.parametrize("group_size", [1, 5])
@pytest.mark.parametrize("limits", [{"_READ_RECORDS": 1}, {"_READ_RECORDS": 7}, {"_READ_BYTES": 9000}, {}])
def test_reads_of_any_size_give_the_same_records(
    stranger: Path, group_size: int, limits: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of 1 kB to 140 kB: chunks and their headers cross the borders of 64 KiB blocks."""
    from array_record.python.array_record_module import ArrayRecordWriter

    for name, value in limits.items():
        monkeypatch.setattr(chunks, name, value)
    random = np.random.default_rng(0)
    records = [random.bytes(int(size)) for size in np.exp(random.uniform(np.log(1e3), np.log(14e4), 60))]
    file = stranger / "noise.array_record"
    writer = ArrayRecordWriter(str(file), f"group_size:{group_size},zstd:3")
    for record in records:
        writer.write(record)
    writer.close()
    files = [RecordFile(str(file), len(records))]
    reads = check_files(files)
    assert list(read_in_order(files, reads)) == records
    most = max(map(len, reads[0]))
    assert most <= max(limits.get("_READ_RECORDS", 60), group_size)


@pytest.mark.parametrize("wrong", ["its index does not name the chunks", "its end does not name its index"])
def test_an_index_that_leads_into_a_chunk_is_refused(stranger: Path, wrong: str) -> None:
    """No header on the way through the file names a chunk that is hidden inside another chunk's bytes."""
    from array_record.python.array_record_module import ArrayRecordWriter

    file = stranger / "hidden.array_record"
    writer = ArrayRecordWriter(str(file), "group_size:1,uncompressed")
    for size in range(1000, 1040):
        writer.write(bytes(size))
    writer.close()
    assert chunks.plan_reads(file)[-1].stop == 40
    data = bytearray(file.read_bytes())
    named = [data.find(b"\x08\xd4\x08\x10"), data.find(b"\x08", len(data) - 2**16 + 68)]  # 0x454: the second chunk
    data[named["end" in wrong] + 1] += 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=wrong):
        chunks.plan_reads(file)


def test_landmarks_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a landmark is NaN or infinite"):
        load_faces(records_with(tmp_path / "out", encoded("JPEG"), float("nan")), "train")


def test_a_prepared_set_of_tfds_cannot_name_code_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ecvae_jax.data.host_tf import load_tfds

    tfds = load_tfds()
    folder = make_records(tmp_path / "sets" / "foreign_faces" / "1.0.0")
    (tmp_path / "payload.py").write_text(PLANTED)
    for shard in folder.glob("*.array_record*"):
        shard.rename(folder / shard.name.replace("ecvae_faces", "foreign_faces"))
    edit(folder / "dataset_info.json", name="foreign_faces", version="1.0.0")
    builder = tfds.builder
    monkeypatch.setattr(tfds, "builder", lambda name: builder(name, data_dir=str(tmp_path / "sets")))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(open_source("tfds:foreign_faces:train").photos) == 23
    text = (folder / "features.json").read_text()
    (folder / "features.json").write_text(
        text.replace("tensorflow_datasets.core.features.text_feature.Text", "payload.Text")
    )
    with pytest.raises(DataError, match=r"names the class 'payload\.Text'"):
        open_source("tfds:foreign_faces:train")
    assert not (tmp_path / "RAN").exists()


def test_splits_are_named_once(stranger: Path) -> None:
    info = json.loads((stranger / "dataset_info.json").read_text())
    edit(stranger / "dataset_info.json", splits=[*info["splits"], info["splits"][0]])
    with pytest.raises(DataError, match="twice; keep one"):
        record_splits(str(stranger))
    edit(stranger / "dataset_info.json", splits=[])
    with pytest.raises(DataError, match="names no split"):
        record_splits(str(stranger))


def test_metadata_of_a_stranger_does_not_command_the_terminal(
    stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ecvae_jax.cli.main import main

    edit(stranger / "metadata.json", source="\x1b]0;title\x07\x1b[31m", detector="\x9b31m")
    assert main(["info", str(stranger)]) == 0
    printed = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b"} & set(printed)
    assert "\\x1b[31m" in printed
    assert main(["info", str(stranger) + "\x1b[31m"]) == 1
    assert "\x1b" not in capsys.readouterr().err
