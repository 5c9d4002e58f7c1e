"""The most memory a training has taken so far."""

from __future__ import annotations

import resource
import sys

import jax

_GIB = 2**30


def peak_memory() -> tuple[float, str]:
    """Returns the peak in GiB, and of what: of the fullest device of this process, or of the process itself.

    XLA's CPU backend keeps no account of its memory, which is the process's.
    """
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [each["peak_bytes_in_use"] for each in stats if each and "peak_bytes_in_use" in each]
    if peaks:
        return max(peaks) / _GIB, "device"
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident * (1 if sys.platform == "darwin" else 1024) / _GIB, "process"
