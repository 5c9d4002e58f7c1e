"""The listening socket, connections with time limits, and the end by a signal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from dataclasses import dataclass

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass(frozen=True)
class Patience:
    """Time limits of a connection, in seconds, and the number of connections."""

    request: float = 20.0
    """From the first byte of a request, or from the connection, to the request's last byte."""
    stall: float = 20.0
    """Without progress while an answer is sent."""
    idle: float = 30.0
    """Between two requests."""
    connections: int = 32
    """With more, requests are answered by 503."""


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket.

    Raises:
        OSError: the port is taken or not allowed, or this machine has no such address; the message says what to do.
    """
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OSError(f"host={host!r}: {error.strerror}; give an address of this machine") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a port is blocked for a minute after its use
        found.bind(address)
        found.listen(128)
    except OSError as error:
        found.close()
        raise OSError(_refusal(error, where, host)) from None
    return found


def _refusal(error: OSError, where: str, host: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken by another process: stop that, give another --port, or --port 0 for any free one"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where} is not allowed to this user: give a --port of 1024 or more"
    return f"host={host!r}: {error.strerror}; give an address of this machine"


def url_of(found: socket.socket, host: str) -> str:
    """Returns the address that a browser opens."""
    name = "127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host
    return f"http://{f'[{name}]' if ':' in name else name}:{found.getsockname()[1]}/"


def run(app: ASGIApp, found: socket.socket, patience: Patience = Patience()) -> None:
    """Serves an application until Ctrl-C or SIGTERM; answers that have begun get a second to finish."""
    config = uvicorn.Config(
        app,
        http=timed_protocol(patience),
        loop="asyncio",
        lifespan="off",
        ws="none",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=patience.connections,
        timeout_keep_alive=round(patience.idle),
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    # The server raises its signal again at the end: here it only means the end.
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(server.serve(sockets=[found]))
        except SystemExit as stop:
            if stop.code != 128 + signal.SIGTERM:
                raise


def timed_protocol(patience: Patience) -> type[H11Protocol]:
    """Returns uvicorn's connection with the time limits that it lacks: a client that stalls is cut off.

    uvicorn 0.54 limits only the pause between two requests. It waits without end for the rest of a header or a body,
    and for a client that reads no answer.
    """

    class Timed(H11Protocol):
        _reading: asyncio.TimerHandle | None = None
        _writing: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=0)  # bytes that wait at all count as a stall
            self._reading = self.loop.call_later(patience.request, transport.abort)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._await_rest(h11.IDLE, h11.SEND_BODY)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._await_rest(h11.SEND_BODY)  # of a request that was answered early, or came with the one before

        def _await_rest(self, *states: type[h11.Sentinel]) -> None:  # type: ignore[name-defined]
            if self.conn.their_state not in states:
                self._reading = _cancel(self._reading)
            elif self._reading is None:  # more bytes do not extend it: a drip is as slow as a stall
                self._reading = self.loop.call_later(patience.request, self.transport.abort)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._writing = self._writing or self.loop.call_later(patience.stall, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._writing = _cancel(self._writing)

        def connection_lost(self, exc: Exception | None) -> None:
            self._reading, self._writing = _cancel(self._reading), _cancel(self._writing)
            super().connection_lost(exc)

    return Timed


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
