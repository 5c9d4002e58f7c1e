"""The rules for files: what is written, followed, locked, replaced and removed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecvae_jax.cli.main import main
from ecvae_jax.evaluation import protocol
from ecvae_jax.evaluation.pairs import Pairs
from ecvae_jax.evaluation.report import Report
from ecvae_jax.export.folder import ExportError, FolderKind
from ecvae_jax.files import (
    UnsafePathError,
    check_output,
    irregular,
    lies_in,
    lock_file,
    open_regular,
    write_atomically,
    write_text,
)
from ecvae_jax.folders import MARK, claim_folder, clear_folder, temporary_folder
from ecvae_jax.images import save_png

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices and gives files away")


def _link(path: Path) -> None:
    (path.parent / "target").write_text("precious")
    path.symlink_to("target")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


MAKERS = {
    "a link": _link,
    "a FIFO": os.mkfifo,
    "a socket": _socket,
    "a folder": Path.mkdir,
    "a device": lambda path: os.mknod(path, 0o20666, os.makedev(1, 3)),
}
MADE = [pytest.param(kind, make, marks=needs_root if kind == "a device" else ()) for kind, make in MAKERS.items()]


def age(path: Path) -> None:
    """Makes a file look older than one that a process has created and not locked yet."""
    os.utime(path, (1, 1))


@pytest.mark.parametrize(("kind", "make"), MADE)
def test_only_regular_files_are_written(tmp_path: Path, kind: str, make: Callable[[Path], None]) -> None:
    path = tmp_path / "out.png"
    make(path)
    before = path.lstat()
    assert irregular(path) == kind
    for refused in (
        lambda: write_text(path, "x"),
        lambda: write_atomically(path, lambda file: file.write(b"x")),
        lambda: save_png(np.zeros((2, 2, 3), np.uint8), path),
        lambda: check_output(path),
        lambda: lock_file(path),
        lambda: open_regular(path, os.O_WRONLY | os.O_CREAT),
    ):
        with pytest.raises(UnsafePathError, match=kind):
            refused()
    after = path.lstat()
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name != "target") == ["out.png"]
    assert kind != "a link" or (tmp_path / "target").read_text() == "precious"


def test_a_link_to_nothing_is_not_written_either(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("elsewhere")
    with pytest.raises(UnsafePathError, match="a link"):
        write_text(tmp_path / "out", "x")
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_keeps_the_content_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("mine")
    first = lock_file(tmp_path / "lock")
    assert first is not None
    assert lock_file(tmp_path / "lock") is None
    first.close()
    second = lock_file(tmp_path / "lock")
    assert second is not None
    assert second.read() == "mine"
    second.close()


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    photo, other = tmp_path / "photos" / "deep" / "a.png", tmp_path / "b.png"
    photo.write_bytes(b"a")
    other.write_bytes(b"b")
    (tmp_path / "hard.png").hardlink_to(photo)
    (tmp_path / "soft.png").symlink_to(photo)
    (tmp_path / "way").symlink_to(tmp_path / "photos" / "deep")
    same = [photo, tmp_path / "hard.png", tmp_path / "way" / "a.png", tmp_path / "photos" / ".." / "hard.png"]
    for out in same:
        for source in (photo, tmp_path / "soft.png", str(tmp_path / "hard.png")):
            with pytest.raises(UnsafePathError, match="is a file that this command reads; give another file name"):
                check_output(out, ["rendered:test:0", other, source])
        check_output(out, [other, tmp_path / "gone.png", "x" * 5000])
    with pytest.raises(UnsafePathError, match=r"lies in .*photos, which this command reads"):
        check_output(tmp_path / "way" / "a.png", [tmp_path / "photos"])
    check_output(tmp_path / "photos" / "new.png", [tmp_path / "photos"])
    assert lies_in(tmp_path / "way" / "new.png", tmp_path / "photos")
    assert not lies_in(tmp_path / "photos", tmp_path / "photos" / "deep")


def test_an_output_whose_folder_cannot_be_made_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnsafePathError, match="file is not a folder"):
        check_output(tmp_path / "file" / "deep" / "out.png")
    check_output(tmp_path / "new" / "deep" / "out.png")
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the system has no /proc")
def test_an_output_in_a_folder_that_is_not_writable_is_refused() -> None:
    with pytest.raises(UnsafePathError, match="the folder /proc cannot be written"):
        check_output(Path("/proc/out.png"))


def test_a_disk_error_names_the_file(tmp_path: Path) -> None:
    def full(file: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: cannot write.*out\.json"):
        write_atomically(tmp_path / "out.json", full)
    assert not list(tmp_path.iterdir())


WRITE = """
import os, sys
from pathlib import Path
from ecvae_jax.files import write_atomically
from ecvae_jax.folders import temporary_folder
def stop(file=None):
    if sys.argv[2] == "kill": os.kill(os.getpid(), 9)
    print("ready", flush=True)
    sys.stdin.read()
if sys.argv[1] == "file":
    write_atomically(Path("out.png"), stop)
else:
    with temporary_folder(Path("out")) as work:
        (work / "half").touch()
        stop()
"""


def start(folder: Path, kind: str, end: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", WRITE, kind, end]
    return subprocess.Popen(words, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    mine = [tmp_path / name for name in (".out.notes.ecvae.tmp", ".out.notes.part", ".out2.x.ecvae.tmp")]
    for path in mine:
        path.mkdir()
        (path / "thesis.txt").write_text("mine")
    (mine[2] / MARK).touch()  # ours, but of another OUT
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / MARK).touch()
    (tmp_path / ".out.link.ecvae.tmp").symlink_to("home")
    for kind in ("file", "folder"):
        assert start(tmp_path, kind, "kill").wait(60) == -signal.SIGKILL
    before = {path.name for path in tmp_path.iterdir()}
    with start(tmp_path, "file", "wait") as file, start(tmp_path, "folder", "wait") as folder:
        for process in (file, folder):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for path in [*tmp_path.glob(".out.png.*"), *tmp_path.glob(f"*/{MARK}")]:
            age(path)
        running = {path.name for path in tmp_path.iterdir()} - before
        assert len(running) == 2
        write_text(tmp_path / "other.txt", "x")
        with temporary_folder(tmp_path / "out") as work:
            assert work.parent == tmp_path
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {*(path.name for path in mine), "home", ".out.link.ecvae.tmp", "other.txt", *running}
        assert all((path / "thesis.txt").read_text() == "mine" for path in mine)
        file.communicate("")
        folder.communicate("")
    assert {path.name for path in tmp_path.iterdir()} == left - running | {"out.png"}


def test_only_our_folders_are_claimed(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    (tmp_path / "marked").mkdir()
    (tmp_path / "marked" / MARK).symlink_to("../home/thesis.txt")
    (tmp_path / "link").symlink_to("home")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch()
    expected = {"home": "ecvae did not make it", "marked": "ecvae did not make it", "link": "is a link"}
    for name, message in {**expected, "dangling": "is a link", "file": "is a file"}.items():
        with pytest.raises(UnsafePathError, match=message):
            claim_folder(tmp_path / name)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "empty").mkdir()  # as after a kill between its making and its marking
    for name in ("empty", "new"):
        for _ in range(2):
            lock = claim_folder(tmp_path / name)
            assert lock is not None
            assert claim_folder(tmp_path / name) is None
            lock.close()


@needs_root
def test_the_folder_of_another_user_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / MARK).touch()
    os.chown(tmp_path / "work", 65534, 65534)
    with pytest.raises(UnsafePathError, match="another user"):
        claim_folder(tmp_path / "work")


def test_clearing_a_folder_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "kept").mkdir()
    for name in ("a", "sub/b", "kept/c"):
        (work / name).symlink_to(tmp_path / "home")
    (work / "lots").symlink_to(tmp_path / "home")
    (work / "file").symlink_to(tmp_path / "home" / "thesis.txt")
    clear_folder(work, {"kept", "lots", "file"})
    assert [path.name for path in work.iterdir()] == ["kept"]
    assert (tmp_path / "home" / "thesis.txt").read_text() == "mine"


def entries(folder: Path) -> dict[Path, tuple[int, ...]]:
    """Returns what identifies each entry. Not the time of the last access: listing a folder changes it."""
    fields = ("st_ino", "st_mode", "st_nlink", "st_size", "st_mtime_ns", "st_ctime_ns")
    return {path: tuple(getattr(path.lstat(), field) for field in fields) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "words",
    [
        "transfer --source me.png --target rendered:test:0 --out me.png",
        "transfer --source rendered:test:0 --target you.png me.png --out me.png",
        "transfer --source rendered:test:0 --target you.png --out ../work/you.png",
        "transfer --source rec:test:0 --target you.png --out rec/preview.png",
        "transfer --source me.png --target you.png --out hard.png",
        "transfer --source me.png --target you.png --out link.png",
        "transfer --source me.png --target you.png --out folder.png",
        "transfer --source me.png --target you.png --out fifo.png",
        "transfer --source me.png --target you.png --out me.png/new.png",
        "sample --structure me.png --out me.png",
        "evaluate --data rec --out rec/dataset_info.json",
        "evaluate --data rendered+rec --markdown rec/dataset_info.json",
        "evaluate --checkpoint run --out run/checkpoints/5/config.json",
        "evaluate --pairs a b --figure a/x.png",
        "evaluate --pairs a b --out fifo.png",
        "evaluate --pairs source b --save-images .",
        "evaluate --out one.json --markdown one.json",
        "figure 2 --data rec --out rec/preview.png",
        "plan me.json --topology v5e:2x2 --json me.json",
        "plan --topology v5e:2x2 --json fifo.png",
    ],
)
def test_outputs_are_compared_with_inputs_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    work = tmp_path / "work"
    for name in ("a", "b", "source", "rec", "run/checkpoints/5", "folder.png"):
        (work / name).mkdir(parents=True)
    for name in ("me.png", "you.png", "a/x.png", "b/x.png", "source/x.png", "rec/preview.png"):
        Image.new("RGB", (8, 8)).save(work / name)
    for name in ("rec/dataset_info.json", "run/checkpoints/5/config.json", "me.json"):
        (work / name).write_text("{}")
    (work / "hard.png").hardlink_to(work / "me.png")
    (work / "link.png").symlink_to("you.png")
    os.mkfifo(work / "fifo.png")
    monkeypatch.chdir(work)
    before = entries(work)
    assert main(words.split()) in (1, 2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    wanted = "this command reads|give another file name|no link is followed|give three names"
    assert any(part in line for part in wanted.split("|")), line
    assert entries(work) == before


def test_a_report_is_written_before_anything_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of standard output that leaves, as in `ecvae evaluate | head -0`, loses no report."""

    class Closed:
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

        def flush(self) -> None: ...

    images, landmarks = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 68, 2), np.float32)
    pairs = Pairs(["a"], ["Ann"], images, landmarks, images, landmarks, [{}], [{}], {}, [])
    report = Report({}, {"samples": {"count": 1}}, {}, [], pairs, {})
    monkeypatch.setattr(protocol, "evaluate_checkpoint", lambda *args, **kwargs: report)
    monkeypatch.setattr(sys, "stdout", Closed())
    assert main(["evaluate", "--out", str(tmp_path / "report.json")]) != 0
    assert json.loads((tmp_path / "report.json").read_text())["samples"] == {"count": 1}


REPLACE = """
import os, signal, sys
from pathlib import Path
from ecvae_jax import folders
from ecvae_jax.export.folder import FolderKind
folders._exchange = lambda first, second: False  # as on a system without renameat2
rename = Path.rename
def killing(self, target):
    rename(self, target)
    if Path(target).name == "replaced":
        os.kill(os.getpid(), signal.SIGKILL)
Path.rename = killing
kind = FolderKind("thing", "about.json", "a-thing")
kind.write({"about.json": b'{"kind": "a-thing", "files": {"new": {}}}', "new": b"new"}, Path("out"), overwrite=True)
"""


def test_a_kill_in_the_middle_of_an_exports_replacement_loses_nothing(tmp_path: Path) -> None:
    kind, out = FolderKind("thing", "about.json", "a-thing"), tmp_path / "out"
    about = b'{"kind": "a-thing", "files": {"old": {}}}'
    kind.write({"about.json": about, "old": b"old"}, out, overwrite=False)
    process = subprocess.run([sys.executable, "-c", REPLACE], cwd=tmp_path)
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    for mark in tmp_path.glob(f".out.*/{MARK}"):
        os.utime(mark, (0, 0))  # as a second later
    with pytest.raises(ExportError, match="exists: give the name of a new folder"):
        kind.write({"about.json": about}, out, overwrite=False)
    assert (out / "old").read_bytes() == b"old"
    kind.write({"about.json": b'{"kind": "a-thing", "files": {}}'}, out, overwrite=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "about.json"]
