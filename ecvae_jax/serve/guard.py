"""What every request must satisfy, and the headers of every answer: the server is for one user's own browser."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS: Mapping[str, str] = {
    # The first two make the page cross-origin isolated, which WebAssembly's threads need.
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self' 'wasm-unsafe-eval'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "media-src 'self' blob:",
            "connect-src 'self'",
            "worker-src 'self'",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Headers of every answer. There is none of CORS: no other origin reads an answer."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class RefusedError(Exception):
    """A request that is refused: the status, and one line that says why."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status, self.line = status, line


def refused(status: int, line: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Returns the answer to a refused request: JSON with one line, `error`."""
    return JSONResponse({"error": line}, status, headers={"cache-control": "no-store", **(headers or {})})


class Guard:
    """An ASGI application behind the checks of host and origin, which puts `HEADERS` on every answer."""

    def __init__(self, app: ASGIApp, bound: str) -> None:
        """Wraps `app`; `bound` is the name or address that the server listens on."""
        self.app, self.bound = app, bound

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            check_request(Headers(scope=scope), scope["method"], self.bound)
        except RefusedError as refusal:
            await refused(refusal.status, refusal.line)(scope, receive, send_guarded)
            return
        await self.app(scope, receive, send_guarded)


def check_request(headers: Headers, method: str, bound: str) -> None:
    """Accepts a request that names this server and comes from its own page, or from no page.

    Raises:
        RefusedError: the Host is another name (DNS rebinding), or the page that sends it has another origin.
    """
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not is_own_name(_name(hosts[0]), bound):
        raise RefusedError(403, "Host header: is no name of this server; open the address that ecvae serve printed")
    for origin in headers.getlist("origin"):
        parts = urlsplit(origin) if origin.startswith(("http://", "https://")) else None
        if parts is None or parts.netloc.lower() != hosts[0].lower():
            raise RefusedError(403, "Origin header: another page may not use this server")
    navigates = headers.get("sec-fetch-mode") == "navigate" and method in ("GET", "HEAD")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not navigates:
        raise RefusedError(403, "Sec-Fetch-Site header: another page may not use this server")


def is_own_name(name: str | None, bound: str) -> bool:
    """Returns whether a host name without its port is this server's.

    A tunnel changes the port, so any port passes. An attacker's page has a name of the attacker's (DNS rebinding), so
    of a server on all addresses every address passes.

    Args:
        name: of the Host header; None where that is malformed.
        bound: name or address that the server listens on.
    """
    if name is None:
        return False
    if name == bound.lower():
        return True
    if _is_loopback(bound):
        return name in _LOOPBACK
    if bound in ("0.0.0.0", "::"):
        return _is_address(name) or name in {"localhost", socket.gethostname().lower(), socket.getfqdn().lower()}
    return False


def _name(host: str) -> str | None:
    """Returns the name in a Host header in lower case, without port and brackets; None where it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    plain = parts.username is None and not (parts.path or parts.query or parts.fragment)
    return parts.hostname if plain else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(bound: str) -> bool:
    return bound == "localhost" or (_is_address(bound) and ipaddress.ip_address(bound).is_loopback)


def one_of(accept: str, kinds: Iterable[str]) -> str | None:
    """Returns the first of the media types that an Accept header names literally; None if it names none."""
    named = {part.split(";")[0].strip().lower() for part in accept.split(",")}
    return next((kind for kind in kinds if kind in named), None)
