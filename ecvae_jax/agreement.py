"""What one process finds out and all processes must act on alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


class OtherProcessError(RuntimeError):
    """The first process failed at something that the others waited for; the message is its own."""


def run_on_host0(work: Callable[[], Any]) -> Any:
    """Returns what `work` returns on the first process, on every process; there all wait for it.

    With one process it is just called. With several, two of them that look at a shared folder a moment apart, or one
    that renames what the other lists, would decide differently and then wait for each other for ever.

    Args:
        work: returns something that JSON can hold.

    Raises:
        OtherProcessError: it failed on the first process, which raises the error itself.
    """
    if jax.process_count() == 1:
        return work()
    from jax.experimental.multihost_utils import broadcast_one_to_all

    failure: Exception | None = None
    told: dict[str, Any] = {}
    if jax.process_index() == 0:
        try:
            told = {"result": work()}
        except Exception as error:
            failure, told = error, {"error": str(error)}
    text = np.frombuffer(json.dumps(told).encode(), np.uint8)
    length = int(broadcast_one_to_all(np.asarray(len(text), np.int32)))
    padded = np.zeros(length, np.uint8)
    if jax.process_index() == 0:
        padded[:] = text
    told = json.loads(np.asarray(broadcast_one_to_all(padded), np.uint8).tobytes())
    if failure is not None:
        raise failure
    if "error" in told:
        raise OtherProcessError(told["error"])
    return told["result"]
