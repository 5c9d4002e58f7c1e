"""The lines about an error that ends a command."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator


def failure_lines(error: Exception) -> list[str]:
    """Returns one line with the cause, then the notes of the error; an unexpected error is named by its type."""
    device = _device_refusal(error)
    if device:
        return [f"error: {device}"]
    line = " ".join(str(error).split()) or type(error).__name__
    expected = isinstance(error, (ValueError, OSError)) or type(error).__module__.startswith("ecvae_jax")
    if not expected:
        line = f"{type(error).__name__}: {line}  (-v prints the traceback)"
    return [f"error: {line}", *(f"    {note}" for note in getattr(error, "__notes__", ()))]


def _device_refusal(error: Exception) -> str | None:
    """Returns why JAX has no device, where that caused the error; else None.

    jax 0.10.2 raises a bare AssertionError for JAX_PLATFORMS=cuda without a GPU (xla_bridge.backends). A module that
    reads arrays may wrap it in an error about its file.
    """
    for cause in _chain(error):
        modules = {frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(cause.__traceback__)}
        if "jax._src.xla_bridge" in modules and isinstance(cause, (AssertionError, RuntimeError)):
            reason = " ".join(str(cause).split())
            wanted = os.environ.get("JAX_PLATFORMS", "")
            if not wanted:
                return f"JAX cannot start its devices: {reason}" if reason else None
            return (
                f"JAX_PLATFORMS={wanted!r}: JAX finds no such device here"
                + (f" ({reason})" if reason else "")
                + "; unset JAX_PLATFORMS, or set it to cpu"
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields the error, its cause, and the cause of that."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
