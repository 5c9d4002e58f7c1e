"""The server on a real port: slow and stalled clients, many of them, and the end by a signal."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from support.processes import Forked, wait_until

LARGE = 32 * 2**20
"""Bytes of a file that no socket's buffers hold."""

SERVER = """
import sys
from pathlib import Path
from ecvae_jax.serve.guard import Guard
from ecvae_jax.serve.listen import Patience, listen, run, url_of
from ecvae_jax.serve.static import Files
{before}
found = listen("127.0.0.1", 0)
print(url_of(found, "127.0.0.1"), flush=True)
run({app}, found, Patience({patience}))
"""

BODIES = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from ecvae_jax.serve.api import _read
from ecvae_jax.serve import bodies
from ecvae_jax.serve.guard import RefusedError, refused

async def draw(request):
    await _read(request, bodies.Draw)
    return PlainTextResponse("read")

handlers = {RefusedError: lambda request, refusal: refused(refusal.status, refusal.line)}
app = Starlette(routes=[Route("/draw", draw, methods=["POST"])], exception_handlers=handlers)
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text("the page")
    with (folder / "large.bin").open("wb") as file:
        file.truncate(LARGE)
    return folder


Start = Callable[..., tuple[Forked, int]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server and returns its process and port; kills it at the end."""
    started: list[Forked] = []

    def run(code: str) -> tuple[Forked, int]:
        process = Forked(code, tmp_path / f"log{len(started)}")
        started.append(process)
        wait_until(lambda: re.search(r"http://\S+:\d+/", process.text()) is not None, process)
        return process, int(re.findall(r":(\d+)/", process.text())[0])

    yield run
    for process in started:
        process.kill()


def static(page: Path, patience: str) -> str:
    return SERVER.format(before="", app=f"Guard(Files(Path({str(page)!r})), '127.0.0.1')", patience=patience)


def connect(port: int, data: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(data)
    return client


def get(port: int, path: str = "/") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def is_cut(client: socket.socket) -> bool:
    """Whether the server ends the connection without an answer; fails after a minute."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def until_cut(client: socket.socket) -> bytes:
    """What arrives until the server ends the connection; fails after a minute."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(2**20):
            received += piece
    return received


HEAD = b"POST /draw HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def test_stalled_clients_are_cut_and_do_not_block_others(page: Path, start: Start) -> None:
    process, port = start(static(page, "request=0.5, stall=0.5"))
    silent, half = connect(port), connect(port, b"GET / HTTP/1.1\r\nHo")
    assert get(port) == (200, b"the page")
    assert is_cut(silent)
    assert is_cut(half)
    assert get(port) == (200, b"the page")
    assert process.text().count("\n") == 1  # the address, and nothing about the stalled


def test_a_dripping_client_is_cut(page: Path, start: Start) -> None:
    """Each byte comes in time; the request as a whole does not."""
    _, port = start(static(page, "request=0.5"))
    client = connect(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
    client.settimeout(0.05)
    for _ in range(400):
        try:
            client.sendall(b"x")
            if client.recv(1) == b"":
                return
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return
    raise AssertionError("after 400 bytes the server still waits")


def test_a_client_that_reads_nothing_is_cut(page: Path, start: Start) -> None:
    _, port = start(static(page, "stall=0.5"))
    lazy = connect(port, b"GET /large.bin HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert get(port, "/large.bin") == (200, bytes(LARGE))
    assert lazy.recv(12) == b"HTTP/1.1 200"
    # Once the server has cut it, only what the buffers hold arrives.
    before = time.monotonic()
    while time.monotonic() < before + 1.5:
        get(port)
        time.sleep(0.1)
    assert len(until_cut(lazy)) < LARGE


def test_a_body_that_stalls_is_cut_and_one_too_large_is_answered(start: Start) -> None:
    _, port = start(SERVER.format(before=BODIES, app="app", patience="request=0.5"))
    stalled = connect(port, HEAD + b"Content-Length: 100\r\n\r\n{")
    large = connect(port, HEAD + b"Content-Length: 99999999999\r\n\r\n{")
    assert until_cut(large).startswith(b"HTTP/1.1 413 ")
    assert until_cut(stalled) == b""
    chunked = connect(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        for _ in range(6):
            chunked.sendall(b"100000\r\n" + bytes(0x100000) + b"\r\n")
    assert chunked.recv(2**16).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "data",
    [
        b"\0\xff\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000,
        b"GET " + b"/" * 100_000,
    ],
)
def test_what_is_no_request_is_refused(page: Path, start: Start, data: bytes) -> None:
    process, port = start(static(page, "request=2"))
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        answer = connect(port, data).recv(100)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 ")) or not answer
    assert get(port) == (200, b"the page")
    assert "Traceback" not in process.text()


def test_a_crowd_of_connections_is_refused_and_leaves(page: Path, start: Start) -> None:
    _, port = start(static(page, "connections=8, request=2"))
    crowd = [connect(port) for _ in range(8)]
    wait_until(lambda: get(port)[0] == 503, seconds=30)
    for client in crowd:
        client.close()
    wait_until(lambda: get(port)[0] == 200, seconds=30)


def test_requests_follow_one_another_on_a_connection(page: Path, start: Start) -> None:
    _, port = start(static(page, "request=0.5"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(4):  # together longer than one request may take
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"the page"
        time.sleep(0.2)
    connection.request("GET", "/large.bin")
    assert len(connection.getresponse().read()) == LARGE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly(page: Path, start: Start, number: int) -> None:
    code = f"import sys; from ecvae_jax.cli.main import main; sys.exit(main(['serve', {str(page)!r}, '--port', '0']))"
    process, port = start(code)
    assert get(port) == (200, b"the page")
    idle = connect(port)
    process.send_signal(number)
    assert process.wait() == 0
    assert is_cut(idle)
    assert process.text() == f"http://127.0.0.1:{port}/\n"
    with pytest.raises(ConnectionRefusedError):
        connect(port)


def test_a_port_that_is_taken_is_one_line(page: Path, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    from ecvae_jax.cli.main import main

    _, port = start(static(page, ""))
    assert main(["serve", str(page), "--port", str(port)]) == 1
    assert capsys.readouterr().err == (
        f"ecvae: error: 127.0.0.1:{port} is taken by another process: stop that, give another --port, or --port 0 for "
        "any free one\n"
    )


def test_static_files_need_no_jax(page: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from ecvae_jax.cli.commands import COMMANDS
from ecvae_jax.serve import listen
listen.run = lambda *arguments: None
import ecvae_jax.serve.serving as serving
serving.run = lambda *arguments: None
from ecvae_jax.cli.main import main
code = main(["serve", {str(page)!r}, "--port", "0"])
print(code, sorted({{"jax", "numpy", "tensorflow", "PIL"}} & set(sys.modules)))
"""
    import subprocess
    import sys

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "0 []"
