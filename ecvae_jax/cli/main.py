"""The `ecvae` command: finds the subcommand, and turns errors into one line and an exit code."""

from __future__ import annotations

import difflib
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence

from ecvae_jax.cli.stopping import Stopping, unwinding_on_signals
from ecvae_jax.cli.streams import OutputError, prepare_streams
from ecvae_jax.training.supervisor import TRY_AGAIN

_RESUMING = ("train", "compare")
"""Commands that resume after SIGTERM (a preempted machine) when run again; they then exit with 75."""

_READER_LEFT = 128 + 13
"""Exit code where the reader of a pipe has left (`ecvae info X | head`): 128 + SIGPIPE, as of a shell's own tools."""

_INTERRUPTED = "ecvae: interrupted by SIGTERM; run the same command again to resume\n"


_UNWRITTEN = "ecvae: interrupted by SIGTERM; nothing was written: run the same command again\n"


def _is_long(words: Sequence[str]) -> bool:
    """Returns whether the command writes a video, which takes minutes: it exits with 75 after SIGTERM."""
    videos = (".mp4", ".mov", ".mkv", ".webm", ".gif")
    return words[:1] == ["transfer"] and any(word.lower().endswith(videos) for word in words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `ecvae` and returns its exit code: 0 done, 1 failed, 2 wrong usage, 75 try again, 141 closed pipe."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    resumes = next((word for word in words if not word.startswith("-")), None) in _RESUMING
    code, last_words = (TRY_AGAIN, _INTERRUPTED) if resumes else (128 + signal.SIGTERM, "")
    if _is_long(words):
        code, last_words = TRY_AGAIN, _UNWRITTEN
    prepare_streams()  # before any file is opened, or it gets the number of a closed stream
    # The imports below take seconds on a busy machine.
    with unwinding_on_signals(code, last_words) as stopping:
        try:
            return _main(words, stopping)
        except BaseException:
            if stopping is None or stopping.number is None:
                raise
            return stopping.code  # a library may have turned the SystemExit of the signal into another error


def _main(words: list[str], stopping: Stopping | None) -> int:
    from ecvae_jax.cli.parsing import VERBOSE, say

    verbose = any(word in VERBOSE for word in words)
    try:
        code = _run([word for word in words if word not in VERBOSE], verbose, stopping)
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


def _run(words: list[str], verbose: bool, stopping: Stopping | None) -> int:
    from ecvae_jax.cli.commands import COMMANDS
    from ecvae_jax.cli.parsing import parse, say, wrong_usage
    from ecvae_jax.cli.runtime import (
        check_environment,
        keep_freed_memory,
        set_platform_flags,
        use_compilation_cache,
        widen_terminal,
    )

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
    try:
        check_environment()
        widen_terminal()
        set_platform_flags()
        keep_freed_memory()
        note = use_compilation_cache() if command.compiles else None
        if note:
            say(note)
        return command.run(parse(command.options, words[0], rest), rest)
    except SystemExit as stop:  # tyro's: 0 after --help, 2 after an option it cannot read
        if stopping is not None and stopping.number is not None:
            raise
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        say("interrupted")
        return 1
    except Exception as error:
        signaled = stopping is not None and stopping.number is not None
        if verbose or signaled or isinstance(error, OutputError):
            raise
        if isinstance(error, BrokenPipeError) and _closed_pipes():
            raise
        say(*failure_lines(error))
        return 1


def failure_lines(error: Exception) -> list[str]:
    """Returns one line with the cause, then the notes of the error; an unexpected error is named by its type."""
    device = _device_refusal(error)
    if device:
        return [f"error: {device}"]
    if _is_of_a_deep_path(error):  # Path.mkdir makes parents by recursion
        return ["error: a path has too many folders inside each other: give a shorter one"]
    line = " ".join(str(error).split()) or type(error).__name__
    expected = isinstance(error, (ValueError, OSError)) or type(error).__module__.startswith("ecvae_jax")
    if not expected:
        line = f"{type(error).__name__}: {line}  (-v prints the traceback)"
    return [f"error: {line}", *(f"    {note}" for note in getattr(error, "__notes__", ()))]


def _is_of_a_deep_path(error: Exception) -> bool:
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return isinstance(error, RecursionError) and sum(name.startswith("pathlib") for name in modules) > 100


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


def _closed_pipes() -> list[int]:
    """Returns 1 and 2, stdout and stderr, where the reader has left; a pipe to a worker process may break instead."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return [descriptor for descriptor, _ in poll.poll(0)]


def _help() -> str:
    from ecvae_jax.cli.commands import COMMANDS, FACES, MODEL, OTHERS, TRAINING

    lines = ["usage: ecvae COMMAND [options]   (ecvae COMMAND --help lists the options; -v prints tracebacks)"]
    for group in (FACES, TRAINING, MODEL, OTHERS):
        lines += ["", f"{group}:"]
        lines += [f"  {name:<10} {command.summary}" for name, command in COMMANDS.items() if command.group == group]
    return "\n".join(
        [
            *lines,
            "",
            "  ecvae --version prints the version. Results are on standard output, messages on standard error.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
