"""The files of one folder over HTTP: regular files below it, and nothing else."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ecvae_jax.serve.guard import refused

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
_ANY_TYPE = "application/octet-stream"
"""Of .onnx, .bin and every other file: with nosniff, no browser runs or shows it."""
_LARGEST_JSON = 16 * 2**20
"""Bytes."""
_CHUNK = 64 * 1024


class Files:
    """An ASGI application that answers with the files of one folder; `/` is its index.html."""

    def __init__(self, folder: Path, changed: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Prepares for a folder.

        Args:
            changed: fields that replace those of JSON files, by the file's path.
        """
        self.folder, self.changed = folder, dict(changed or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        await self.respond(Request(scope))(scope, receive, send)

    def respond(self, request: Request) -> Response:
        """Returns the answer to one request."""
        if request.method not in ("GET", "HEAD"):
            return refused(405, f"{request.method[:16]}: files are only read; use GET", {"allow": "GET, HEAD"})
        path = request.scope["path"]
        names = ["index.html"] if path == "/" else path.removeprefix("/").split("/")
        try:
            file = open_below(self.folder, names)
            fields = self.changed.get("/".join(names))
            if fields is not None:
                with file:
                    return JSONResponse({**load_json(file), **fields}, headers={"cache-control": "no-store"})
        except (OSError, ValueError, TypeError):
            return refused(404, "no such file")
        found = os.fstat(file.fileno())
        tag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
        headers = {"etag": tag, "cache-control": "no-cache"}  # kept by the browser, asked for again by its tag
        if tag in request.headers.get("if-none-match", ""):
            file.close()
            return Response(status_code=304, headers=headers)
        headers["content-length"] = str(found.st_size)
        kind = _TYPES.get(Path(names[-1]).suffix.lower(), _ANY_TYPE)
        if request.method == "HEAD":
            file.close()
            return Response(headers=headers, media_type=kind)
        return StreamingResponse(_pieces(file, found.st_size), headers=headers, media_type=kind)


def open_below(folder: Path, names: Sequence[str]) -> IO[bytes]:
    """Returns a regular file below a folder, opened; no link is followed on the way, and no hidden name is opened.

    Each folder on the way is opened in the one before it, so a link that is put there meanwhile changes nothing.

    Raises:
        OSError: no such regular file exists.
        ValueError: a name is empty, hidden, or holds a separator.
    """
    if any(not name or name.startswith(".") or set(name) & set("/\\\0") for name in names):
        raise ValueError("names of a path must be visible and without separators")
    common = os.O_RDONLY | os.O_CLOEXEC
    place = os.open(folder, common | os.O_DIRECTORY)
    try:
        for name in names[:-1]:
            inner = os.open(name, common | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inner
        handle = os.open(names[-1], common | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)  # a FIFO would block
    finally:
        os.close(place)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileNotFoundError(names[-1])
    return os.fdopen(handle, "rb")


def load_json(file: IO[bytes]) -> Any:
    """Returns the content of a JSON file of a page, which may come from a stranger.

    Raises:
        ValueError: the file is too large, nested too deeply, or no JSON.
    """
    text = file.read(_LARGEST_JSON + 1)
    if len(text) > _LARGEST_JSON:
        raise ValueError(f"a JSON file of a page has at most {_LARGEST_JSON} bytes")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("a JSON file of a page is not nested so deeply") from None


async def _pieces(file: IO[bytes], size: int) -> AsyncIterator[bytes]:
    """Yields `size` bytes of the file, and closes it."""
    with file:
        while size > 0 and (piece := file.read(min(_CHUNK, size))):
            size -= len(piece)
            yield piece
