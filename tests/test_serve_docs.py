"""The clients of docs/serve.md against a server with the bundled model: the pixels of `ecvae transfer`."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.processes import Forked, wait_until

from ecvae_jax.cli.main import main
from ecvae_jax.data.faces import load_faces

NEEDED = ("starlette", "uvicorn", "pydantic", "dlib")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(importlib.util.find_spec, NEEDED)), reason="needs the extras serve and dlib"),
]
PAGE = (Path(__file__).parents[1] / "docs" / "serve.md").read_text()


def block(language: str) -> str:
    return PAGE.split(f"```{language}\n")[1].split("```")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos of rendered heads, and the picture of the command."""
    work = tmp_path_factory.mktemp("clients")
    heads = load_faces("rendered", "test")
    for name, index in (("anna.jpg", 0), ("smile.jpg", 30)):
        image = Image.fromarray(heads.image(index)).resize((320, 320), Image.Resampling.BICUBIC)
        image.save(work / name, quality=95)
    (work / "page").mkdir()
    (work / "page" / "index.html").write_text("the page")
    command = ["transfer", "--source", str(work / "anna.jpg"), "--target", str(work / "smile.jpg")]
    assert main([*command, "--checkpoint", "face128", "--out", str(work / "grid.png")]) == 0
    return work


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    words = ["serve", str(folder / "page"), "--compute", "--checkpoint", "face128", "--port", "0"]
    server = Forked(f"import sys; from ecvae_jax.cli.main import main; sys.exit(main({words!r}))", folder / "log")
    wait_until(lambda: "http://" in server.text(), server)
    yield re.findall(r"http://\S+", server.text())[0]
    server.kill()


def difference(folder: Path, name: str) -> int:
    """Largest difference from the command's picture, in levels."""
    wanted = np.asarray(Image.open(folder / "grid.png"))[-130:-2, -130:-2].astype(int)
    return int(np.abs(np.asarray(Image.open(folder / name)).astype(int) - wanted).max())


@pytest.mark.skipif(not all(map(shutil.which, ("bash", "curl", "jq"))), reason="needs curl and jq")
def test_curl_draws_the_pixels_of_the_command(folder: Path, url: str) -> None:
    lines = block("sh").splitlines()
    assert lines[0].startswith("ecvae serve --compute")
    script = "\n".join(["set -eo pipefail", *lines[1:]]).replace("http://127.0.0.1:8000/", url)
    subprocess.run(["bash", "-c", script], cwd=folder, check=True)
    assert difference(folder, "anna_smiles.png") == 0


def test_python_draws_them_within_one_level(folder: Path, url: str) -> None:
    command = [sys.executable, "-c", block("python serve"), url, "anna.jpg", "smile.jpg"]
    subprocess.run(command, cwd=folder, check=True)
    assert difference(folder, "drawn.png") <= 1
