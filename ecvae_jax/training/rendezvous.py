"""The rendezvous of the hosts: each proves at host 0's port that it belongs here, before JAX connects them.

jax 0.10.2 does not notice a taken port. Its coordinator shares the port with any other one of the user, and the two
trainings abort each other. A host that finds another program there waits 300 s. Here host 0 opens the port exclusively,
and the other hosts expect its answer. Lines of text: `ecvae-jax INDEX/COUNT`, then `ecvae-jax wait`, later
`ecvae-jax go`, or `ecvae-jax no REASON`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time

_NAME = b"ecvae-jax "
_LONGEST = 200  # bytes of a line
_ANSWER = 10.0  # seconds: host 0 does nothing else meanwhile
_PAUSE = 0.2  # seconds


class RendezvousError(ValueError):
    """The hosts of a training do not find each other; the message is one line."""


def gather_hosts(address: str, count: int, patience: float) -> None:
    """Returns on host 0 when all other hosts have come; the port is free again then.

    Args:
        address: of host 0, as ADDRESS:PORT.
        count: number of hosts.
        patience: seconds.

    Raises:
        RendezvousError: the port is taken, or a host does not come.
    """
    place = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", f"[::]:{_split(address)[1]}")
    try:
        listener = _listen(*_split(place))
    except OSError as error:
        raise RendezvousError(
            f"port {_split(place)[1]} of host 0 cannot be opened ({error.strerror}): "
            "end the program that uses it, or choose another port on every host"
        ) from None
    arrived: dict[int, socket.socket] = {}
    nameless: list[socket.socket] = []
    deadline = time.monotonic() + patience
    with listener, contextlib.ExitStack() as opened:
        while len(arrived) < count - 1:
            if time.monotonic() > deadline:
                missing = ", ".join(str(i) for i in range(1, count) if i not in arrived)
                raise RendezvousError(
                    f"of {count} hosts these did not come within {patience:g} s: {missing}; is each started, and can "
                    f"it reach host 0 at {address}?"
                )
            ready, _, _ = select.select([listener, *arrived.values(), *nameless], [], [], 1.0)
            if listener in ready:
                connection, _ = listener.accept()
                connection.setblocking(False)
                nameless.append(opened.enter_context(connection))
            for index, connection in list(arrived.items()):
                if connection in ready:  # it says nothing more: it has ended
                    del arrived[index]
                    connection.close()
            for connection in [one for one in nameless if one in ready]:
                nameless.remove(connection)
                index = _welcome(connection, count, arrived)
                if index is None:
                    connection.close()
                else:
                    arrived[index] = connection
        listener.close()  # first: JAX opens the port as soon as the others know
        for connection in arrived.values():
            with contextlib.suppress(OSError):
                connection.sendall(_NAME + b"go\n")


def find_host0(address: str, index: int, count: int, patience: float, ending: float) -> None:
    """Returns on a host other than 0 when all hosts have come.

    Args:
        address: of host 0, as ADDRESS:PORT.
        index: of this host.
        count: number of hosts.
        patience: seconds.
        ending: seconds after which an interrupted training has left host 0's port; the next one may start meanwhile.

    Raises:
        RendezvousError: host 0 does not answer, another program does, or host 0 expects other hosts.
    """
    deadline = time.monotonic() + patience
    busy_since: float | None = None
    while True:
        found, reason = _ask(address, f"{index}/{count}", deadline)
        if found == "go":
            return
        if found == "refused":
            raise RendezvousError(f"host 0 at {address} refuses this host: {reason}")
        if found == "foreign" or (busy_since and time.monotonic() - busy_since > ending):
            raise RendezvousError(
                f"another program than host 0 of this training answers at {address} ({reason}): "
                "end it, or choose another port on every host"
            )
        busy_since = (busy_since or time.monotonic()) if found == "busy" else None
        if time.monotonic() > deadline:
            raise RendezvousError(
                f"cannot connect to host 0 at {address} within {patience:g} s ({reason}): is every host started, and "
                "can each reach it?"
            )
        time.sleep(_PAUSE)


def _welcome(connection: socket.socket, count: int, arrived: dict[int, socket.socket]) -> int | None:
    """Returns the index of the host that has sent its line, or None for any other program and a wrong host."""
    try:
        line = connection.recv(_LONGEST)
        words = line.removeprefix(_NAME).strip().split(b"/")
        if not line.startswith(_NAME) or len(words) != 2 or not all(word.isdigit() for word in words):
            return None
        index, of = map(int, words)
        reason = f"it expects {count} hosts, not {of}" if of != count else ""
        if not reason and (not 0 < index < count or index in arrived):
            reason = f"host {index} has come already; give each host another INDEX"
        connection.sendall(_NAME + (f"no {reason}\n" if reason else "wait\n").encode())
    except OSError:
        return None
    return None if reason else index


def _ask(address: str, line: str, deadline: float) -> tuple[str, str]:
    """Returns what happened, and the reason.

    "go": all hosts have come. "absent": nothing answers. "refused": host 0 expects other hosts. "busy": perhaps an
    interrupted training that is about to end. "foreign": another program.
    """
    text = b""
    try:
        with socket.create_connection(_split(address), timeout=_ANSWER) as connection:
            connection.sendall(_NAME + line.encode() + b"\n")
            while len(text) < 2 * _LONGEST:
                more = connection.recv(_LONGEST)
                text += more
                if text.endswith(b"\n") and text.startswith(_NAME):
                    last = text.removeprefix(_NAME).split(b"\n" + _NAME)[-1].strip().decode(errors="replace")
                    if last == "go":
                        return "go", ""
                    if last.startswith("no "):
                        return "refused", last.removeprefix("no ")
                    connection.settimeout(max(deadline - time.monotonic(), 0.1))  # until all hosts have come
                elif text[3:4] == b"\x04" and len(text) >= 9:  # the frame that opens HTTP/2, which is JAX's
                    return "busy", "a coordinator of JAX"
                elif not more or not text.startswith(_NAME[: len(text)]):
                    break
    except TimeoutError:
        if text.startswith(_NAME):
            return "absent", "not all hosts have come"
        return ("foreign", "it does not answer") if time.monotonic() < deadline else ("absent", "timed out")
    except OSError as error:
        if not text and isinstance(error, ConnectionResetError):
            return "busy", "it closes the connection"
        return "absent", error.strerror or str(error)
    if text.startswith(_NAME):
        return "absent", "host 0 has ended"
    return ("foreign", "it answers in another way") if text else ("busy", "it closes the connection")


def _listen(host: str, port: int) -> socket.socket:
    """Returns a socket at the port that no other program shares."""
    if host in ("", "::") and socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # a kernel without IPv6
            socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
            return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    family = socket.AF_INET6 if ":" in host and host != "::" else socket.AF_INET
    return socket.create_server(("" if host == "::" else host, port), family=family, backlog=1024)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
