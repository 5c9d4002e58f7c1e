"""The `ecvae` command: finds the subcommand, and turns errors into one line and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from ecvae_jax.cli.commands import COMMANDS
from ecvae_jax.cli.parsing import VERBOSE, parse, say, wrong_usage
from ecvae_jax.cli.runtime import keep_freed_memory, set_platform_flags, use_compilation_cache
from ecvae_jax.training.supervisor import TRY_AGAIN

_READER_LEFT = 128 + 13
"""Exit code where the reader of a pipe has left (`ecvae info X | head`): 128 + SIGPIPE, as of a shell's own tools."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `ecvae` and returns its exit code: 0 done, 1 failed, 2 wrong usage, 75 try again, 141 closed pipe."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbose = any(word in VERBOSE for word in words)
    try:
        code = _run([word for word in words if word not in VERBOSE], verbose)
        print(end="", flush=True)
        return code
    except OSError as error:  # of standard output; `_run` reports all others
        closed = _closed_pipes() if isinstance(error, BrokenPipeError) else []
        if verbose and not closed:
            raise
        for descriptor in closed or [1]:  # else Python reports the error again when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        if closed:
            return _READER_LEFT
        say(f"error: standard output: {error}")
        return 1


def _run(words: list[str], verbose: bool) -> int:
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
    command, rest = COMMANDS[words[0]], words[1:]
    set_platform_flags()
    keep_freed_memory()
    note = use_compilation_cache() if command.compiles else None
    if note:
        say(note)
    try:
        with _unwinding_on_signals(TRY_AGAIN if command.resumes else 128 + signal.SIGTERM):
            return command.run(parse(command.options, words[0], rest), rest)
    except SystemExit as stop:  # ours after a signal; tyro's: 0 after --help, 2 after an option it cannot read
        if stop.code == TRY_AGAIN:
            say("interrupted by SIGTERM; run the same command again to resume")
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        say("interrupted")
        return 1
    except Exception as error:
        if verbose or (isinstance(error, BrokenPipeError) and _closed_pipes()):
            raise
        line = " ".join(str(error).split()) or type(error).__name__
        expected = isinstance(error, (ValueError, OSError)) or type(error).__module__.startswith("ecvae_jax")
        kind = "" if expected else f"{type(error).__name__}: "
        say(f"error: {kind}{line}" + ("" if expected else "  (-v prints the traceback)"))
        say(*(f"    {note}" for note in getattr(error, "__notes__", ())))
        return 1


@contextlib.contextmanager
def _unwinding_on_signals(terminated: int) -> Iterator[None]:
    """Makes SIGTERM and SIGHUP unwind the program as Ctrl-C does, so that no half-written file or process remains.

    Once a training has a state, it handles the signals itself and stores that state first.

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


def _closed_pipes() -> list[int]:
    """Returns 1 and 2, stdout and stderr, where the reader has left; a pipe to a worker process may break instead."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return [descriptor for descriptor, _ in poll.poll(0)]


def _help() -> str:
    lines = ["usage: ecvae COMMAND [options]   (ecvae COMMAND --help lists the options; -v prints tracebacks)", ""]
    lines += [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
