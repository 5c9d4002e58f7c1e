"""`run_on_host0`: work of one process whose result every process needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


class OtherProcessError(RuntimeError):
    """The first process failed while the others waited for its result; the message is that of its error."""


def run_on_host0(work: Callable[[], Any]) -> Any:
    """Returns the result of `work`, run on the first process, on every process; all wait for it.

    Processes that look at a shared folder one after the other could decide differently, and would then deadlock.

    Args:
        work: its result must be JSON.

    Raises:
        OtherProcessError: `work` failed on the first process, which raises the error itself.
    """
    if jax.process_count() == 1:
        return work()
    from jax.experimental.multihost_utils import broadcast_one_to_all

    failure: Exception | None = None
    message: dict[str, Any] = {}
    if jax.process_index() == 0:
        try:
            message = {"result": work()}
        except Exception as error:
            failure, message = error, {"error": str(error)}
    text = np.frombuffer(json.dumps(message).encode(), np.uint8)
    length = int(broadcast_one_to_all(np.asarray(len(text), np.int32)))
    padded = np.zeros(length, np.uint8)
    if jax.process_index() == 0:
        padded[:] = text
    message = json.loads(np.asarray(broadcast_one_to_all(padded), np.uint8).tobytes())
    if failure is not None:
        raise failure
    if "error" in message:
        raise OtherProcessError(message["error"])
    return message["result"]
