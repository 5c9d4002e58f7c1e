"""Hosts meet at host 0's port, or each ends with one line: another program there, too many hosts, too few."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ecvae_jax.training import rendezvous
from ecvae_jax.training.hosts import join_hosts
from ecvae_jax.training.rendezvous import RendezvousError, find_host0, gather_hosts

SOON = 0.3
"""Seconds instead of minutes and tens of seconds."""


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_ANSWER", SOON)


@pytest.fixture
def address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A port on which a program listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other


def answering(server: socket.socket, answer: bytes) -> None:
    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(answer)
                connection.recv(1000)

    threading.Thread(target=serve, daemon=True).start()


def test_hosts_in_any_order_meet_and_leave_the_port_free(address: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        early = [pool.submit(find_host0, address, index, 3, 60.0, 1.0) for index in (2, 1)]
        pool.submit(gather_hosts, address, 3, 60.0).result()
        assert [one.result() for one in early] == [None, None]
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        pass


def test_a_taken_port_ends_every_host_in_one_line(taken: socket.socket) -> None:
    """The port may be shared, as JAX's coordinator opens it."""
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(ValueError, match=r"^hosts='0/2@127.0.0.1:\d+': port \d+ of host 0 cannot be opened \(Address"):
        join_hosts(f"0/2@{address}")
    with pytest.raises(ValueError, match=r"^hosts='1/2@127.0.0.1:\d+': another program than host 0 .*does not answer"):
        join_hosts(f"1/2@{address}")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "in another way"),
        (b"\0\0\x18\x04\0\0\0\0\0\0", "a coordinator of JAX"),
        (b"", "closes"),
    ],
)
def test_another_program_is_recognized(taken: socket.socket, answer: bytes, reason: str) -> None:
    answering(taken, answer)
    with pytest.raises(RendezvousError, match=f"another program than host 0 .*{reason}"):
        find_host0(f"127.0.0.1:{taken.getsockname()[1]}", 1, 2, 60.0, SOON)


def test_hosts_that_do_not_come_are_named(address: str) -> None:
    with pytest.raises(RendezvousError, match=r"of 4 hosts these did not come within 0\.1 s: 1, 2, 3;"):
        gather_hosts(address, 4, 0.1)
    with pytest.raises(RendezvousError, match=r"cannot connect to host 0 .*refused"):
        find_host0(address, 1, 2, 0.1, 1.0)


@pytest.mark.parametrize(("index", "count", "reason"), [(1, 3, "expects 2 hosts, not 3"), (2, 2, "has come already")])
def test_a_host_of_another_training_is_refused(address: str, index: int, count: int, reason: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        gathering = pool.submit(gather_hosts, address, 2, 60.0)
        with pytest.raises(RendezvousError, match=f"refuses this host: .*{reason}"):
            find_host0(address, index, count, 60.0, 1.0)
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as scanner:
            scanner.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert scanner.recv(100) == b""
        find_host0(address, 1, 2, 60.0, 1.0)
        gathering.result()
