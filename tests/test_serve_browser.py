"""The page in Chromium as `ecvae serve` shows it: isolated, within its policy, computed here or by the server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("onnx", reason="needs the extra page")
pytest.importorskip("playwright.sync_api", reason="needs the extra browser")
pytest.importorskip("support.browser")

from PIL import Image
from playwright.sync_api import sync_playwright
from support.browser import CHROMIUM, READY, opened
from support.processes import Forked, wait_until

from ecvae_jax.cli.main import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed"),
]


@pytest.fixture(scope="module")
def play() -> Iterator[Any]:
    with sync_playwright() as play:
        yield play


@pytest.fixture(params=["", "--compute"], ids=["here", "server"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, bool]]:
    """The address of `ecvae serve` without FOLDER, and whether it computes."""
    words = ["serve", "--checkpoint", "face128", "--port", "0", *filter(None, [request.param])]
    process = Forked(f"import sys; from ecvae_jax.cli.main import main; sys.exit(main({words!r}))", tmp_path / "log")
    wait_until(lambda: "http://" in process.text(), process)
    yield re.findall(r"http://\S+", process.text())[0], bool(request.param)
    process.send_signal(15)
    assert process.wait() == 0


def test_the_served_page_draws_within_its_policy(server: tuple[str, bool], play: Any, tmp_path: Path) -> None:
    address, computes = server
    with opened(play, address, viewport={"width": 1280, "height": 900}) as shown:
        assert shown.tab.evaluate("self.crossOriginIsolated")
        assert ("by the server" in shown.tab.inner_text("#engine")) == computes
        before = shown.pixels()
        assert before.shape == (384, 384, 3)  # the photo's own pixels, also where the server draws
        shown.slide("slider-smile", 0.8)
        smiling = shown.pixels()
        assert np.abs(smiling - before).max() > 30
        shown.tab.locator("#random").click()
        shown.status("new person")
        assert not np.array_equal(shown.pixels(), smiling)
        asked = [url for url in shown.requests if f"{address}api/" in url]
        assert bool([url for url in asked if url.endswith("api/draw")]) == computes
        shown.tab.locator("#people button").nth(0).click()
        shown.status("face1.jpg: face found")
        shown.slide("slider-smile", 0.8)
        with shown.tab.expect_download(timeout=READY) as download:
            shown.tab.locator("#saveJson").click()
        download.value.save_as(tmp_path / "face.json")
        drawn = shown.pixels()
        assert shown.refused == []
        assert shown.problems == []
    out = tmp_path / "replay.png"
    assert (
        main(["transfer", "--replay", str(tmp_path / "face.json"), "--checkpoint", "face128", "--out", str(out)]) == 0
    )
    replayed = np.asarray(Image.open(out)).astype(int)
    assert np.abs(replayed - drawn).max() <= 1
