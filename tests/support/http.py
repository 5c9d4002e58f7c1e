"""Requests to an ASGI application without a network: paths arrive as they are, which clients would tidy up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

HOST = "127.0.0.1:8000"


@dataclass(frozen=True)
class Answer:
    """What the application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The line of a refusal."""
        line = self.json["error"]
        assert "\n" not in line
        assert len(line) < 300
        return line


async def send(
    app: Any, method: str, path: str, headers: dict[str, str] | None = None, pieces: Sequence[bytes] = (b"",)
) -> Answer:
    """Returns the answer to one request, whose body comes in pieces; no Content-Length is stated."""
    named = {"host": HOST, **(headers or {})}
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path, "root_path": "",
        "raw_path": path.encode(), "query_string": b"", "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8000),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
    }  # fmt: skip
    left, sent = list(pieces), []

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()  # the client waits for its answer
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def collect(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, collect)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:]))


def ask(
    app: Any, path: str, method: str = "GET", headers: dict[str, str] | None = None, pieces: Sequence[bytes] = (b"",)
) -> Answer:
    """Returns the answer to one request; see `send`."""
    return asyncio.run(send(app, method, path, headers, pieces))


def post(app: Any, path: str, body: Any, accept: str = "*/*") -> Answer:
    """Returns the answer to a JSON body; bytes are sent as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ask(app, path, "POST", {"content-type": "application/json", "accept": accept}, [data])
