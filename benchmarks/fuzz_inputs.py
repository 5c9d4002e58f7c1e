"""Hostile and odd inputs for `benchmarks/fuzz.py`: each is a folder of a user's files and a command on it."""

from __future__ import annotations

import io
import os
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fuzz_damage import NAMES, VALUES, any_file, damage, edit_json, replace

import ecvae_jax
from ecvae_jax.config import Config

CHECKPOINT = Path(ecvae_jax.__file__).parent / "pretrained" / "face128" / "1000"


@dataclass
class Input:
    """One command on a user's files."""

    words: list[str]
    what: str
    variables: dict[str, str] = field(default_factory=dict)
    prepare_process: Callable[[], object] = lambda: None
    """Runs in the child before the command."""
    seconds: int = 30
    """For the command; more would be a hang."""


def files(user: Path, out: Path, rng: random.Random) -> Input:
    """A damaged photo beside good ones, perhaps under another format's suffix."""
    photo = rng.choice(sorted((user / "photos").glob("p*")))
    what = replace(photo, rng, user / "guard")
    if rng.random() < 0.2:
        photo = photo.rename(photo.with_suffix(rng.choice([".jpg", ".png", ".tif", ".webp", ".heic", ".eps"])))
    return Input(["prepare", f"{user}/photos", f"{out}/records", "--size", "64", "--workers", "1"], what)


def archives(user: Path, out: Path, rng: random.Random) -> Input:
    """A zip or tar file with odd members, perhaps damaged."""
    photos = sorted((user / "photos").iterdir())
    name = rng.choice(["a.zip", "a.tar", "a.tar.gz", "a.tgz"])
    member = rng.choice(["../up.jpg", "/abs.jpg", "p0.jpg", "dir/", *(n for n in NAMES if n and "\0" not in n)])
    content = rng.choice([photos[0].read_bytes(), b"", bytes(10 ** rng.choice([3, 8]))])
    if name.endswith("zip"):
        with zipfile.ZipFile(user / name, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
            for photo in photos:
                archive.write(photo, photo.name)
            archive.writestr(zipfile.ZipInfo(member.encode("utf-8", "replace").decode()), content)
    else:
        with tarfile.open(user / name, "w:gz" if "gz" in name else "w") as archive:
            for photo in photos:
                archive.add(photo, photo.name)
            info = tarfile.TarInfo(member)
            info.type = rng.choice(
                [tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
            )
            info.linkname = rng.choice(["p0.jpg", "../../guard/thesis.txt", "/dev/zero", member])
            info.size = len(content) if info.type == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    what = f"{name} with {member!r}"
    if rng.random() < 0.5:
        (user / name).write_bytes(damage((user / name).read_bytes(), rng))
        what += ", damaged"
    return Input(["prepare", f"{user}/{name}", f"{out}/records", "--size", "64", "--workers", "1"], what)


def landmarks(user: Path, out: Path, rng: random.Random) -> Input:
    """Landmarks that are damaged, or written in another way."""
    table = user / "photos" / "landmarks98.csv"
    text = table.read_text()
    lines = text.splitlines()
    kind = rng.choice(["damaged", ";", "tabs", "prefix", "case", "68", "shuffled", "negative", "pts", "huge row"])
    if kind == "damaged":
        table.write_bytes(damage(text.encode(), rng))
    elif kind in (";", "tabs"):
        table.write_text(text.replace(",", ";" if kind == ";" else "\t"))
    elif kind in ("prefix", "case"):
        rows = [f"photos/{line}" if kind == "prefix" else line.upper() for line in lines[1:]]
        table.write_text("\n".join([lines[0], *rows]))
    elif kind == "68":
        table.rename(table.with_name(rng.choice(["landmarks68.csv", "LANDMARKS98.CSV", "landmarks0.csv"])))
    elif kind == "pts":
        body = "\n".join(f"{rng.uniform(-9, 200):.2f} {rng.choice(VALUES)}" for _ in range(rng.choice([0, 39, 68, 98])))
        mark = rng.choice(["version: 1\nn_points: 68\n{\n%s\n}\n", "%s", "{%s"])
        table.unlink()
        (user / "photos" / rng.choice(["p0.pts", "p0.PTS"])).write_text(mark % body)
    else:
        cells = [line.split(",") for line in lines]
        row = cells[1 + rng.randrange(len(cells) - 1)]
        if kind == "shuffled":
            row[1:] = rng.sample(row[1:], len(row) - 1)
        elif kind == "negative":
            row[1:35] = ["-1"] * 34
        else:
            row[1] = "9" * 10**6
        table.write_text("\n".join(map(",".join, cells)))
    return Input(["prepare", f"{user}/photos", f"{out}/records", "--size", "64", "--workers", "1"], kind)


def records(user: Path, out: Path, rng: random.Random) -> Input:
    """A stranger's records folder with one file damaged or replaced, or its JSON edited."""
    folder = user / "records"
    if rng.random() < 0.3:
        return Input(["info", str(folder)], edit_json(rng.choice(sorted(folder.glob("*.json"))), rng))
    return Input(["info", str(folder)], replace(any_file(folder, rng), rng, user / "guard"))


def checkpoints(user: Path, out: Path, rng: random.Random) -> Input:
    """A stranger's checkpoint with one file damaged or replaced, or its settings edited."""
    folder = user / "run" / "checkpoints" / CHECKPOINT.name
    shutil.copytree(CHECKPOINT, folder)
    config = folder / "config" / "metadata"
    what = edit_json(config, rng) if rng.random() < 0.4 else replace(any_file(folder, rng), rng, user / "guard")
    return Input(["info", rng.choice([f"{user}/run", str(folder)])], what)


def configs(user: Path, out: Path, rng: random.Random) -> Input:
    """A stranger's settings; the records do not exist, so a config that is read trains nothing."""
    path = user / f"config.{rng.choice(['json', 'json', 'JSON', 'py', 'yaml'])}"
    path.write_text(Config().to_json())
    if rng.random() < 0.7:
        what = edit_json(path, rng)
    else:
        path.write_bytes(damage(path.read_bytes(), rng))
        what = "damaged"
    return Input(["train", str(path), "--workdir", f"{out}/run", "--data.records", f"{user}/nowhere"], what)


def paths(user: Path, out: Path, rng: random.Random) -> Input:
    """An odd path in one place of a command, in the user's folder."""
    (user / "loop").symlink_to(user / "loop")
    (user / "link").symlink_to(user / "guard")
    os.mkfifo(user / "fifo")
    path = rng.choice(NAMES)
    if "/dev/" not in path and rng.random() < 0.5:
        path = f"{user}/{path}"
    if "\0" in path:  # no shell can pass it
        path = path.replace("\0", "")
    model = ["--source", "rendered:test:0", "--target", "nowhere"]
    words = rng.choice(
        [
            ["info", path], ["prepare", path, f"{out}/records"], ["prepare", f"{user}/photos", path, "--overwrite"],
            ["train", path, "--workdir", f"{out}/run"], ["export", path, f"{out}/small"],
            ["train", "--workdir", path, "--data.records", f"{user}/nowhere"], ["morph", path, f"{out}/morphs"],
            ["export", str(CHECKPOINT), path], ["transfer", *model, "--out", path],
            ["transfer", *model, "--checkpoint", path],
            ["evaluate", "--pairs", path, f"{user}/photos"], ["evaluate", "--data", path, "--out", f"{out}/r.json"],
            ["prepare", f"{user}/photos", f"{out}/records", "--landmarks", path],
        ]
    )  # fmt: skip
    # The path may lead to the user's photos. Their evaluation is honest work: it compiles for half a minute.
    seconds = 120 if words[0] == "evaluate" else 30
    return Input(words, f"path {path[:60]!r}", prepare_process=lambda: os.chdir(user), seconds=seconds)


def environments(user: Path, out: Path, rng: random.Random) -> Input:
    """Odd variables, descriptors, masks and limits of the process; JAX itself has read its variables before."""
    names = ("ECVAE_COMPILATION_CACHE", "XDG_CACHE_HOME", "HOME", "TMPDIR", "COLUMNS", "TERM", "LANG", "XLA_FLAGS",
             "JAX_TRANSFER_GUARD", "ECVAE_HOST_TIMEOUT", "PYTHONPATH", "SLURM_JOB_ID", "NO_COLOR")  # fmt: skip
    values = (
        *(v for v in VALUES if v != "\0"),
        "/nowhere",
        "/proc",
        "disallow",
        "off",
        "gs://",
        f"{user}/guard/thesis.txt",
    )
    variables = {name: rng.choice(values) for name in rng.sample(names, rng.choice([1, 2, 4]))}
    variables.pop("XLA_FLAGS", None)  # XLA aborts on an unknown flag and names it
    folder = out / "cwd"
    full = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)

    def no_folder() -> None:
        folder.mkdir()
        os.chdir(folder)
        folder.rmdir()

    changes: dict[str, Callable[[], object]] = {
        "variables": lambda: None,
        "closed stdin": lambda: os.close(0),
        "full stdout": lambda: os.dup2(full, 1),
        "closed stdout": lambda: os.close(1),
        "umask 0": lambda: os.umask(0),
        "umask 777": lambda: os.umask(0o777),
        "no folder": no_folder,
    }
    what = rng.choice(list(changes))
    words = rng.choice(
        [
            ["--help"], ["train", "--help"], ["info", f"{user}/records"], ["info", "nowhere"], ["--version"],
            ["prepare", f"{user}/photos", f"{out}/records", "--size", "64", "--workers", "1"],
            ["transfer", "--source", f"{user}/nowhere.png", "--target", "rendered:test:0", "--out", f"{out}/o.png"],
        ]
    )  # fmt: skip
    return Input(words, f"{what}, {variables}", variables, changes[what])


KINDS = {
    make.__name__: make for make in (files, archives, landmarks, records, checkpoints, configs, paths, environments)
}
"""Each makes an input in a user's folder (photos, records, guard) that writes to `out`."""


def make_user(user: Path) -> None:
    """Writes the folder that every input starts from: photos of rendered heads with landmarks, records, a guard."""
    from PIL import Image

    from ecvae_jax.cli.main import main
    from ecvae_jax.data.faces import load_faces

    (user / "photos").mkdir(parents=True)
    (user / "guard").mkdir()
    (user / "guard" / "thesis.txt").write_text("the only copy\n")
    faces = load_faces("rendered", "test")
    rows = ["image," + ",".join(f"x{i},y{i}" for i in range(98))]
    for number, suffix in enumerate((".jpg", ".png", ".tif", ".bmp", ".webp")):
        image = Image.open(io.BytesIO(faces.encoded([24 * number])[0]))
        image.save(user / "photos" / f"p{number}{suffix}")
        points = faces.landmarks[24 * number] * image.width
        rows.append(f"p{number}{suffix}," + ",".join(f"{value:.2f}" for value in points.ravel()))
    (user / "photos" / "landmarks98.csv").write_text("\n".join(rows) + "\n")
    words = ["prepare", str(user / "photos"), str(user / "records"), "--size", "64", "--workers", "1"]
    if main(words):
        raise SystemExit("the photos of the rendered heads cannot be prepared")
