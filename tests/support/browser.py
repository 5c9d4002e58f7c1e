"""Debian's Chromium on the page, served here, with every other address cut off."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

CHROMIUM = Path("/usr/bin/chromium")
ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Headers that give a page threads."""
READY = 240_000
"""Milliseconds for loading: a shared machine may be slow."""


class _Files(SimpleHTTPRequestHandler):
    extensions_map: ClassVar = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *args: Any, headers: dict[str, str], **named: Any) -> None:
        self.extra = headers
        super().__init__(*args, **named)

    def end_headers(self) -> None:
        for name, value in self.extra.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path, headers: dict[str, str]) -> Iterator[str]:
    """Serves a folder on a free port of 127.0.0.1; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=str(folder), headers=headers))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Shown:
    """The loaded page, and what went wrong on it."""

    tab: Any
    context: Any
    problems: list[str] = field(default_factory=list)
    """Messages of the console's errors, of scripts, and of the content security policy."""
    refused: list[str] = field(default_factory=list)
    """Requests to other addresses."""
    requests: list[str] = field(default_factory=list)

    def status(self, text: str) -> None:
        """Waits until the page says a text."""
        self.tab.locator("#status", has_text=text).wait_for(timeout=READY)
        self.settle()

    def settle(self) -> None:
        """Waits until nothing is being drawn."""
        self.tab.locator("#main[data-drawing=false]").wait_for(timeout=READY)

    def pixels(self) -> Any:
        """Returns the drawn picture, h w 3."""
        import numpy as np

        side, data = self.tab.evaluate(
            "() => { const c = document.getElementById('after');"
            " return [c.width, Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]; }"
        )
        return np.asarray(data, np.uint8).reshape(side, side, 4)[..., :3].astype(int)

    def slide(self, name: str, value: float) -> None:
        """Sets a slider, and waits for the picture."""
        self.tab.locator(f"#{name}").fill(str(value))
        self.settle()

    def points(self) -> Any:
        """Returns the landmarks that are shown, crop units, p 2."""
        import numpy as np

        return np.array(
            self.tab.evaluate(
                "() => [...document.querySelectorAll('circle.point')]"
                ".map((point) => [point.cx.baseVal.value, point.cy.baseVal.value])"
            )
        )


@contextlib.contextmanager
def opened(play: Any, address: str, query: str = "", **options: Any) -> Iterator[Shown]:
    """Opens the page in a new browser and waits until it has drawn its first face."""
    browser = play.chromium.launch(
        executable_path=str(CHROMIUM),
        args=["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
    )
    context = browser.new_context(accept_downloads=True, **options)
    shown = Shown(context.new_page(), context)

    def allow(route: Any) -> None:
        url = route.request.url
        shown.requests.append(url)
        if url.startswith(address):
            route.continue_()
        else:
            shown.refused.append(url)
            route.abort()

    context.route("**/*", allow)
    shown.tab.on("console", lambda message: shown.problems.append(message.text) if message.type == "error" else None)
    shown.tab.on("pageerror", lambda error: shown.problems.append(str(error)))
    try:
        shown.tab.goto(address + query)
        shown.status("face found")
        yield shown
    finally:
        browser.close()
