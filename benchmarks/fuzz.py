"""Runs `ecvae` on hostile and odd inputs; counts crashes, hangs and changed files of the user.

    python benchmarks/fuzz.py [--inputs 2000] [--seed 0] [--jobs 2] [--first NUMBER] [--kinds K,K] [--cases DIR]
        [--only NUMBER]

Kinds: files, archives, landmarks, records, checkpoints, configs, paths, environments. Each input is a command in a
child forked from a process that has imported the libraries, with a folder of the user's files and a folder for what it
writes. It must end within 30 s (an evaluation of photos: 120 s), without a signal or a traceback, below 4 GiB, and
leave the user's files unchanged.
Seed, kinds and number of an input make it again: `--only NUMBER` runs one and shows its output. `--cases` also takes
every folder, archive, photo and video of a folder; experiment files there are not run.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0", ECVAE_COMPILATION_CACHE="off")

from fuzz_inputs import KINDS, Input, make_user

PRELOADED = ("tensorflow", "jax", "orbax.checkpoint", "sklearn.cluster", "ecvae_jax.cli.commands", "ecvae_jax.cli.info",
             "ecvae_jax.training.loop", "ecvae_jax.data.prepare.prepare", "ecvae_jax.checkpoints.load")  # fmt: skip
GIB = 4.0
CODES = (0, 1, 2, 75, 141)
ARCHIVES = (".zip", ".tar", ".gz", ".tgz")
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm")


@dataclass
class Child:
    """A command that runs."""

    kind: str
    name: str
    what: str
    folder: Path
    pid: int
    deadline: float
    before: dict[str, str]
    peak: float = 0.0
    """GiB."""
    ended_for: str = ""


def contents(user: Path) -> dict[str, str]:
    """Returns a digest of every entry, without following links."""
    found = {}
    for path in sorted(user.rglob("*")):
        mode = path.lstat().st_mode
        data = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        digest = hashlib.sha256(os.fsencode(data)).hexdigest()
        found[str(path.relative_to(user))] = f"{mode:o} {digest}"
    return found


def start(kind: str, name: str, made: Input, folder: Path) -> Child:
    """Forks a child that runs the command, with its output in FOLDER/log."""
    before = contents(folder / "user")
    pid = os.fork()
    if pid:
        return Child(
            kind,
            name,
            f"{made.what}: ecvae {' '.join(made.words)}",
            folder,
            pid,
            time.monotonic() + made.seconds,
            before,
        )
    code = 70
    try:
        os.setsid()
        log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        for stream, descriptor in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
            os.dup2(stream, descriptor)
        for path in ("home", "tmp"):
            (folder / path).mkdir()
        os.environ.update({"HOME": f"{folder}/home", "TMPDIR": f"{folder}/tmp"} | made.variables)
        os.chdir(folder / "out")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**32, 2**32))
        made.prepare_process()
        from ecvae_jax.cli.main import main

        code = main(made.words)
        sys.stdout.flush()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        os.write(log, traceback.format_exc().encode(errors="replace"))
    os._exit(code)


def resident(pid: int) -> float:
    """Returns the memory of the process in GiB; 0 once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (OSError, IndexError):
        return 0.0


def has_ended(child: Child) -> int | None:
    """Returns the exit code, negative for a signal, of a child that has ended or passed a limit; else None."""
    ended, status, _ = os.wait4(child.pid, os.WNOHANG)
    child.peak = max(child.peak, resident(child.pid))
    if not ended and (time.monotonic() > child.deadline or child.peak > GIB):
        child.ended_for = "hang" if child.peak <= GIB else "memory"
        os.killpg(child.pid, signal.SIGKILL)
        _, status, _ = os.wait4(child.pid, 0)
    elif not ended:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # what it left running
    return os.waitstatus_to_exitcode(status)


def judge(child: Child, code: int) -> list[str]:
    """Returns the faults of a child that has ended."""
    log = (child.folder / "log").read_text(errors="replace") if (child.folder / "log").exists() else ""
    faults = [child.ended_for] if child.ended_for else []
    if not faults and (code not in CODES or "Traceback (most recent call last)" in log):
        faults.append("crash")
    now = contents(child.folder / "user")
    if any(now.get(name) != digest for name, digest in child.before.items()):
        faults.append("changed")
    if "(-v prints the traceback)" in log:
        faults.append("unnamed")  # one line, but of an error that the package does not know
    return faults


def inputs(options: argparse.Namespace, base: Path, work: Path) -> Iterator[tuple[str, str, Input, Path]]:
    """Yields kind, name, input and folder of each input, made when it is asked for."""
    names = options.kinds.split(",")
    numbers = range(options.first, options.inputs) if options.only is None else [options.only]
    for number in numbers:
        kind, folder = names[number % len(names)], work / str(number)
        shutil.copytree(base, folder / "user", symlinks=True)
        (folder / "out").mkdir()
        made = KINDS[kind](folder / "user", folder / "out", random.Random(f"{options.seed}:{number}"))
        yield kind, str(number), made, folder
    if options.cases is None or options.only is not None:
        return
    groups = [
        path for path in sorted(options.cases.rglob("*")) if path.is_dir() and any(map(Path.is_file, path.iterdir()))
    ]
    singles = [path for path in sorted(options.cases.rglob("*")) if path.suffix.lower() in (*ARCHIVES, *VIDEOS)]
    for number, case in enumerate([*groups, *singles]):
        folder = work / f"case{number}"
        (folder / "out").mkdir(parents=True)
        mine = folder / "user" / case.name
        mine.parent.mkdir()
        (shutil.copytree if case.is_dir() else shutil.copyfile)(case, mine)
        source = f"video:{mine}" if case.suffix.lower() in VIDEOS else str(mine)
        yield (
            "cases",
            str(case),
            Input(["prepare", source, f"{folder}/out/records", "--workers", "1"], case.name),
            folder,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ecvae-fuzz-") as name:
        work = Path(name)
        base = work / "base"
        child = os.fork()
        if not child:  # its threads and devices must not be in the process that forks the others
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            make_user(base)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            return 1
        for module in PRELOADED:
            importlib.import_module(module)
        return report(options, run(options, base, work), time.monotonic() - began)


def run(options: argparse.Namespace, base: Path, work: Path) -> list[tuple[Child, int, list[str]]]:
    """Returns every child with its exit code and faults; prints the faults as they are found."""
    waiting, running, done = inputs(options, base, work), list[Child](), list[tuple[Child, int, list[str]]]()
    more = True

    def stop(*_: object) -> None:
        nonlocal more
        more = False

    signal.signal(signal.SIGINT, stop)  # Ctrl-C: no further inputs, and the report
    while more or running:
        while more and len(running) < options.jobs:
            following = next(waiting, None)
            if following is None:
                more = False
            else:
                running.append(start(*following))
        time.sleep(0.02)
        for child in list(running):
            code = has_ended(child)
            if code is None:
                continue
            running.remove(child)
            faults = judge(child, code)
            done.append((child, code, faults))
            if faults or options.only is not None:
                print(
                    f"{','.join(faults) or 'no fault'}: {child.kind} {child.name}, exit code {code}: {child.what}"[
                        :400
                    ],
                    flush=True,
                )
            log = (child.folder / "log").read_text(errors="replace") if (child.folder / "log").exists() else ""
            if options.only is not None:
                print(log)
            elif faults and log.strip():
                print(f"    {log.strip().splitlines()[-1]}"[:300])
            shutil.rmtree(child.folder, ignore_errors=True)
    return done


def report(options: argparse.Namespace, done: list[tuple[Child, int, list[str]]], seconds: float) -> int:
    """Prints one line a kind and the sums; returns 1 if an input had a fault, else 0."""
    columns = ("crash", "hang", "memory", "changed", "unnamed")
    print(f"{'kind':<14}{'inputs':>8}{'code 0':>8}" + "".join(f"{column:>9}" for column in columns) + f"{'GiB':>7}")
    for kind in [*dict.fromkeys(child.kind for child, _, _ in done), "all"]:
        rows = [row for row in done if kind in (row[0].kind, "all")]
        counts = Counter(fault for *_, faults in rows for fault in faults)
        peak = max(child.peak for child, *_ in rows)
        good = sum(code == 0 for _, code, _ in rows)
        print(f"{kind:<14}{len(rows):>8}{good:>8}" + "".join(f"{counts[c]:>9}" for c in columns) + f"{peak:>7.2f}")
    print(f"seed {options.seed}, {options.jobs} at a time, {seconds:.0f} s")
    return int(any(set(faults) - {"unnamed"} for *_, faults in done))


if __name__ == "__main__":
    sys.exit(main())
