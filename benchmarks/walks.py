"""The files of `ecvae_jax` that a walk passes through, in the order of their first call; CONTRIBUTING lists them.

python benchmarks/walks.py prepare|train|transfer|compare
"""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import ecvae_jax
from ecvae_jax.cli.main import main as ecvae

ROOT = Path(ecvae_jax.__file__).parent
COMPARISON = ROOT.parent / "configs" / "comparison.py"
LENGTH = ["--train.steps", "2", "--train.batch-size", "8", "--train.log-every", "1"]
WALKS = {
    "prepare": ["prepare", "photos", "records", "--size", "64", "--workers", "1"],
    "train": ["train", "--workdir", "run", *LENGTH],
    "transfer": ["transfer", "--source", "photos/0.jpg", "--target", "photos/24.jpg", "--out", "out.png"],
    "compare": ["compare", str(COMPARISON), "--workdir", "runs", "--seeds", "1", "--variants", "standard",
                "--metrics", "pixels", "--limit", "8", *LENGTH],
}  # fmt: skip


def make_photos() -> None:
    """Writes rendered heads as photos, which dlib reads."""
    from PIL import Image

    from ecvae_jax.data.faces import load_faces

    os.mkdir("photos")
    faces = load_faces("rendered", "test")
    for index in (0, 24, 48, 72):
        Image.fromarray(faces.image(index, 256)).save(f"photos/{index}.jpg", quality=95)


def walk(words: list[str]) -> dict[str, str]:
    """Returns the first function called in each file of the package, by the file; bodies of modules do not count."""
    passed: dict[str, str] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(f"{ROOT}/"):
            passed.setdefault(str(Path(code.co_filename).relative_to(ROOT)), code.co_name)

    threading.setprofile(note)
    sys.setprofile(note)
    code = ecvae(words)
    sys.setprofile(None)
    threading.setprofile(None)
    if code:
        raise SystemExit(code)
    return passed


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_photos()
        found = walk(WALKS[sys.argv[1]])
    print("\n".join(f"{file:<34} {name}" for file, name in found.items()))
    print(f"{len(found)} files")
