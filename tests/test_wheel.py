"""The wheel, in an empty folder: the README's five lines draw the pixels of `ecvae transfer` from photos."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecvae_jax.data.faces import load_faces

ROOT = Path(__file__).parent.parent


def run(*words: str, folder: Path, **variables: str) -> None:
    result = subprocess.run(
        [sys.executable, *words], cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert not result.returncode, result.stdout + result.stderr


def build_wheel(folder: Path) -> Path:
    """Builds from a copy of the tracked files: setuptools writes beside its sources."""
    source = folder / "source"
    for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")[:-1]:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    # Without network where the installed setuptools can read pyproject.toml.
    new_enough = int(metadata.version("setuptools").split(".")[0]) >= 77
    alone = ["--no-build-isolation"] if new_enough else []
    run("-m", "pip", "wheel", "--no-deps", *alone, "--wheel-dir", str(folder), ".", folder=source)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_the_five_lines_run_from_a_wheel_in_an_empty_folder(tmp_path: Path) -> None:
    pytest.importorskip("dlib", reason="needs the extra dlib")
    package, empty = tmp_path / "package", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        wheel.extractall(package)
    faces = load_faces("rendered", "test")
    for name, index in (("anna", 0), ("smile", 49)):
        Image.fromarray(faces.image(index, 256)).save(empty / f"{name}.jpg", quality=95)

    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code += f"\nassert ec.__file__.startswith({str(package)!r}), ec.__file__\n"
    run("-c", code, folder=empty, PYTHONPATH=str(package))
    command = ["transfer", "--source", "anna.jpg", "--target", "smile.jpg", "--out", "grid.png"]
    run("-m", "ecvae_jax", *command, folder=empty, PYTHONPATH=str(package))

    drawn, grid = (np.asarray(Image.open(empty / name)) for name in ("out.png", "grid.png"))
    side, gap = drawn.shape[0], 2
    corner = gap + 2 * (side + gap)  # behind the photo and its sketch
    assert np.array_equal(drawn, grid[corner : corner + side, corner : corner + side])
    assert drawn.std() > 20
    assert sorted(path.name for path in empty.iterdir()) == ["anna.jpg", "grid.png", "out.png", "smile.jpg"]
