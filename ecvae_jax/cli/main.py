"""The `ecvae` command: finds the subcommand, and turns what goes wrong into one line and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from ecvae_jax.cli.commands import COMMANDS, COMPILE_NOTHING, RESUMABLE, SUMMARIES
from ecvae_jax.cli.parsing import VERBOSE, say, wrong_usage
from ecvae_jax.cli.runtime import keep_freed_memory, set_cpu_flags, use_compilation_cache
from ecvae_jax.training.supervisor import TRY_AGAIN


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `ecvae` and returns its exit code: 0 done, 1 failed, 2 wrong usage, 75 to be started again."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbose = any(word in VERBOSE for word in words)
    words = [word for word in words if word not in VERBOSE]
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        from ecvae_jax import __version__

        print(f"ecvae {__version__}")
        return 0
    if words[0] not in COMMANDS:
        close = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(COMMANDS)}"
        return wrong_usage(f"no command {words[0]!r}; {hint}")
    set_cpu_flags()
    keep_freed_memory()
    note = None if words[0] in COMPILE_NOTHING else use_compilation_cache()
    if note:
        say(note)
    try:
        with _stopping_cleanly(TRY_AGAIN if words[0] in RESUMABLE else 128 + signal.SIGTERM):
            return COMMANDS[words[0]](words[1:])
    except SystemExit as stop:  # ours after a signal; tyro's: 0 after --help, 2 after an option it cannot read
        if stop.code == TRY_AGAIN:
            say("interrupted by SIGTERM: the same command goes on")
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        say("interrupted")
        return 1
    except Exception as error:
        if verbose:
            raise
        lines = " ".join(str(error).split()) or type(error).__name__
        expected = isinstance(error, (ValueError, OSError)) or type(error).__module__.startswith("ecvae_jax")
        kind = "" if expected else f"{type(error).__name__}: "
        say(f"error: {kind}{lines}" + ("" if expected else "  (-v shows where)"))
        say(*(f"    {note}" for note in getattr(error, "__notes__", ())))
        return 1


@contextlib.contextmanager
def _stopping_cleanly(terminated: int) -> Iterator[None]:
    """Lets SIGTERM and SIGHUP unwind the program as Ctrl-C does, so that nothing half-written or running stays behind.

    A training catches them itself, once it has a state, and stores that first.

    Args:
        terminated: the exit code after SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise SystemExit(terminated if number == signal.SIGTERM else 128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _help() -> str:
    lines = ["usage: ecvae COMMAND [options]   (ecvae COMMAND --help tells its options; -v adds tracebacks)", ""]
    lines += [f"  {name:<10} {(kind.__doc__ or '').splitlines()[0]}" for name, kind in SUMMARIES.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
