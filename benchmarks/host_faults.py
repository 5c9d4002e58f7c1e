"""Kills one of several hosts repeatedly and compares the training with an uninterrupted one.

    python benchmarks/host_faults.py [--kills 12] [--sigterms 3] [--hosts 2] [--devices 4] [--seed 0] [--steps 200]

As `benchmarks/faults.py`, with `ecvae train --hosts INDEX/COUNT@ADDRESS:PORT` in several processes on this machine.
SIGKILL ends a random host once all are connected: while they compile, between steps, or during a save; a few times
SIGTERM does. The others must exit with code 75, "try again"; their time is printed. Then all start again, until the
training is done. Every array of the state and every point of the curves must equal the uninterrupted training's, bit
for bit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faults import half_written, last_step, results, small_experiment, stored

from ecvae_jax.training.supervisor import TRY_AGAIN

EVERY = 10  # steps between two checkpoints
TIMEOUT = 600.0  # seconds after which a running host counts as hanging


@dataclass
class Tally:
    """Counts of the events so far."""

    kills: Counter[str] = field(default_factory=Counter)
    """Kills by the intended moment: compiling, training, saving."""
    of: Counter[int] = field(default_factory=Counter)
    """Kills by the index of the host."""
    leaving: dict[str, list[float]] = field(default_factory=lambda: {"SIGKILL": [], "SIGTERM": []})
    """Seconds from the signal until all hosts have ended."""
    repeated: int = 0
    trainings: int = 0
    different: list[str] = field(default_factory=list)
    """Differences to the uninterrupted training and wrong exit codes, a line each."""


class Hosts:
    """`ecvae train` on several hosts, each a process of this machine with its own virtual devices."""

    def __init__(self, config: Path, workdir: Path, logs: Path, hosts: int, devices: int) -> None:
        self.workdir, self.before, self.began = workdir, stored(workdir), time.time()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        logs.mkdir(parents=True)
        self.logs = [logs / f"host-{index}.log" for index in range(hosts)]
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}".strip()
        self.processes = []
        for index, log in enumerate(self.logs):
            command = [sys.executable, "-m", "ecvae_jax", "train", str(config), "--workdir", str(workdir),
                       "--hosts", f"{index}/{hosts}@127.0.0.1:{port}"]  # fmt: skip
            with log.open("wb") as file:
                environment = {**os.environ, "XLA_FLAGS": flags}
                self.processes.append(subprocess.Popen(command, env=environment, stdout=file, stderr=file))

    def text(self, index: int = 0) -> str:
        """Returns a host's log so far; host 0 logs the steps."""
        return self.logs[index].read_text()

    def last_step(self) -> int:
        """Returns the last logged step."""
        return last_step(self.text(), self.before)

    def is_saving(self) -> bool:
        """Returns whether this run is writing a checkpoint; leftovers are removed before the first step."""
        return self.last_step() > self.before and half_written(self.workdir, self.began)

    def reached(self, what: str) -> bool:
        """Returns whether the hosts are connected and compile ("compiling"), have taken a step, or save."""
        if what == "saving":
            return self.is_saving()
        if what == "training":
            return self.last_step() > self.before
        return "device(s) of " in self.text() or "resuming from step" in self.text()

    def wait_for(self, what: str) -> bool:
        """Waits until `reached`; returns False if a host ends first."""
        while all(process.poll() is None for process in self.processes):
            if self.reached(what):
                return True
            time.sleep(0.001 if what == "saving" else 0.02)
        return False

    def codes(self) -> Iterator[tuple[int, int | None]]:
        """Yields each host's index and exit code; a host that hangs is killed and has the code None."""
        deadline = time.monotonic() + TIMEOUT
        for index, process in enumerate(self.processes):
            try:
                yield index, process.wait(max(deadline - time.monotonic(), 1.0))
            except subprocess.TimeoutExpired:
                process.kill()
                yield index, None


def interrupt(hosts: Hosts, rng: random.Random, number: signal.Signals, tally: Tally) -> bool:
    """Ends a host at a random moment and waits for the others; returns False if the training was done before."""
    what = "training" if number == signal.SIGTERM else rng.choice(["compiling", "training", "saving"])
    if not hosts.wait_for(what):
        return False
    time.sleep(rng.uniform(0.0, {"compiling": 4.0, "training": 1.0, "saving": 0.15}[what]))
    victim = rng.randrange(len(hosts.processes))
    if any(process.poll() is not None for process in hosts.processes):
        return False
    last, began = hosts.last_step(), time.monotonic()
    hosts.processes[victim].send_signal(number)
    codes = dict(hosts.codes())
    if all(code in (0, -number) for code in codes.values()) and 0 in codes.values():
        return False  # the signal came after the last step
    tally.leaving[number.name].append(time.monotonic() - began)
    due = {index: -number if index == victim and number == signal.SIGKILL else TRY_AGAIN for index in codes}
    if codes != due:
        tally.different.append(f"{number.name} to host {victim} while {what}: exit codes {codes}, expected {due}")
    kept = stored(hosts.workdir)
    if number == signal.SIGTERM:
        tally.different += [f"SIGTERM after step {last}: only step {kept} is stored"] if kept < last else []
    else:
        tally.kills[what] += 1
        tally.of[victim] += 1
        tally.repeated += max(hosts.last_step() - kept, 0)
        tally.different += [f"a kill lost the checkpoint of step {hosts.before}"] if kept < hosts.before else []
    return True


def main() -> int:
    """Trains, kills, and prints the tally; returns 1 if there are differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--sigterms", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="folder for the runs; default: a temporary one")
    options = parser.parse_args()
    rng, tally, began = random.Random(options.seed), Tally(), time.monotonic()
    temporary = tempfile.TemporaryDirectory(prefix="ecvae-host-faults-")
    folder = options.folder or Path(temporary.name)
    config, file = small_experiment(folder, options.steps, EVERY)

    def start(workdir: Path, number: int) -> Hosts:
        return Hosts(file, workdir, folder / f"run-{number}", options.hosts, options.devices)

    alone = start(folder / "uninterrupted", 0)
    if set(dict(alone.codes()).values()) != {0}:
        sys.exit(f"the uninterrupted training failed:\n{alone.text()[-2000:]}")
    expected = results(config, folder / "uninterrupted")
    number = 0

    def missing() -> tuple[int, int]:
        return options.kills - sum(tally.kills.values()), options.sigterms - len(tally.leaving["SIGTERM"])

    while max(missing()) > 0 and not tally.different:
        workdir = folder / f"interrupted-{tally.trainings}"
        ended = True
        while ended and not tally.different:
            number += 1
            hosts = start(workdir, number)
            kills, sigterms = missing()
            terminate = sigterms > 0 and (number % 4 == 0 or kills <= 0)
            sent = signal.SIGTERM if terminate else signal.SIGKILL
            ended = max(kills, sigterms) > 0 and interrupt(hosts, rng, sent, tally)
            if not ended:
                codes = dict(hosts.codes())
                tally.different += [f"exit codes {codes}: {hosts.text()[-500:]}"] if any(codes.values()) else []
            print(f"{time.monotonic() - began:6.0f} s  {sum(tally.kills.values())} kills {dict(tally.kills)}, "
                  f"{len(tally.leaving['SIGTERM'])} SIGTERM; step {stored(workdir)} is stored", flush=True)  # fmt: skip
        tally.trainings += 1
        if tally.different:
            break
        found = results(config, workdir)
        tally.different += [f"{workdir.name}: {name}" for name in expected.keys() | found.keys()
                            if found.get(name) != expected.get(name)]  # fmt: skip
    kills = ", ".join(f"{count} while {moment}" for moment, count in sorted(tally.kills.items()))
    victims = ", ".join(f"{count} of host {index}" for index, count in sorted(tally.of.items()))
    print(f"{sum(tally.kills.values())} kills ({kills}; {victims}) in {tally.trainings} trainings of {options.steps} "
          f"steps on {options.hosts} hosts × {options.devices} devices, a checkpoint every {EVERY}; {number} starts; "
          f"{time.monotonic() - began:.0f} s")  # fmt: skip
    for name, seconds in tally.leaving.items():
        print(f"{len(seconds)} {name}: all hosts had ended after at most {max(seconds, default=0):.1f} s")
    print(f"repeated steps: {tally.repeated}")
    print(f"bitwise equal to uninterrupted ({len(expected)} arrays and points): {'no' if tally.different else 'yes'}")
    print("\n".join(tally.different[:20]))
    return bool(tally.different)


if __name__ == "__main__":
    sys.exit(main())
