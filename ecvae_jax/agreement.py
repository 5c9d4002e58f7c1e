"""Agreement of the processes of one training: work of one whose result all need, and facts that all must share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

_MOST_NAMED = 8
"""Largest number of differences that a message lists."""
_MOST_LETTERS = 60
"""Largest length of a value in a message."""

T = TypeVar("T")


class OtherProcessError(RuntimeError):
    """Another process failed while this one waited for its result; the message is that of its error."""


class DisagreementError(ValueError):
    """The processes of one training differ in something that all must share."""


def run_on_host0(work: Callable[[], Any]) -> Any:
    """Returns the result of `work`, run on the first process, on every process; all wait for it.

    Processes that look at a shared folder one after the other could decide differently, and would then deadlock. The
    result must be JSON.

    Raises:
        OtherProcessError: `work` failed on the first process, which raises the error itself.
    """
    if jax.process_count() == 1:
        return work()
    failure: Exception | None = None
    message: dict[str, Any] = {}
    if jax.process_index() == 0:
        try:
            message = {"result": work()}
        except Exception as error:
            failure, message = error, {"error": str(error)}
    first = _gather(message)[0]
    if failure is not None:
        raise failure
    if "error" in first:
        raise OtherProcessError(first["error"])
    return first["result"]


def run_on_every_host(work: Callable[[], T]) -> T:
    """Returns the result of `work`, run on every process; if it fails on one of them, all raise.

    Without it the others would wait for the failed one, and report it as lost.

    Raises:
        OtherProcessError: `work` failed on another process only.
    """
    if jax.process_count() == 1:
        return work()
    failure: Exception | None = None
    result: T | None = None
    try:
        result = work()
    except Exception as error:
        failure = error
    texts = _gather(None if failure is None else str(failure))
    if failure is not None:
        raise failure
    for host, text in enumerate(texts):
        if text is not None:
            raise OtherProcessError(f"host {host} failed: {text}")
    return result  # type: ignore[return-value]


def check_agreement(facts: Mapping[str, Any]) -> None:
    """Raises DisagreementError on every process if a fact differs between processes; one line names all differences.

    Facts are JSON values.
    """
    if jax.process_count() == 1:
        return
    given = _gather(dict(facts))
    names = dict.fromkeys(name for each in given for name in each)
    lines = [line for name in names if (line := _difference(name, [_text(each, name) for each in given]))]
    if lines:
        more = f"; and {len(lines) - _MOST_NAMED} more" if len(lines) > _MOST_NAMED else ""
        raise DisagreementError(
            f"the hosts of this training differ: {'; '.join(lines[:_MOST_NAMED])}{more}: "
            "start the same command, with the same installation and records, on every host"
        )


def check_devices() -> None:
    """Raises DisagreementError if processes have other numbers or kinds of devices; needs no communication.

    JAX's own collectives of host data raise an unclear error then, or wait without end.
    """
    counts = Counter((device.process_index, device.device_kind) for device in jax.devices())
    by_host: dict[int, list[str]] = {}
    for (host, kind), count in sorted(counts.items()):
        by_host.setdefault(host, []).append(f"{count} × {kind}")
    line = _difference("devices", [" and ".join(by_host[host]) for host in sorted(by_host)])
    if line:
        raise DisagreementError(f"the hosts of this training differ: {line}: use equal machines")


def _difference(name: str, texts: list[str]) -> str | None:
    """Returns the values by host in one line, or None if all are equal."""
    hosts: dict[str, list[int]] = {}
    for host, text in enumerate(texts):
        hosts.setdefault(text, []).append(host)
    if len(hosts) == 1:
        return None
    shown = [f"{_shortened(text)} on host{'s' * (len(of) > 1)} {_numbers(of)}" for text, of in list(hosts.items())[:3]]
    return f"{name}: {', '.join(shown)}" + (", …" if len(hosts) > 3 else "")


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}…"


def _numbers(hosts: list[int]) -> str:
    return ", ".join(map(str, hosts[:4])) + (", …" if len(hosts) > 4 else "")


def _text(facts: Mapping[str, Any], name: str) -> str:
    return json.dumps(facts[name], ensure_ascii=False) if name in facts else "absent"


def _gather(message: Any) -> list[Any]:
    """Returns the JSON value of each process, on every process."""
    from jax.experimental.multihost_utils import process_allgather

    text = np.frombuffer(json.dumps(message).encode(), np.uint8)
    lengths = np.asarray(process_allgather(np.asarray(len(text), np.int32)))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(text)] = text
    rows = np.asarray(process_allgather(padded))
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]
