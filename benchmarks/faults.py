"""Kills a training repeatedly and compares its result with an uninterrupted one.

    python benchmarks/faults.py [--kills 50] [--sigterms 5] [--seed 0] [--steps 600] [--folder DIR]

SIGKILL ends a small training on rendered heads at random moments: at its start, between steps, during a save. The same
command resumes it until it is done; more kills take another training. A few times SIGTERM is sent instead. Parameters,
optimizer state and every point of every curve must equal the uninterrupted training's, bit for bit. That one is the
plain command; the others are forked from a process that has imported the libraries, which halves a start.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")  # as the command sets them before its imports

from ecvae_jax.cli.main import main as ecvae
from ecvae_jax.cli.runtime import set_platform_flags
from ecvae_jax.config import ClusterConfig, Config, DataConfig, ModelConfig, OptimConfig, TrainConfig

EVERY = 20  # steps between two checkpoints


@dataclass
class Tally:
    """Counts of the events so far."""

    kills: Counter[str] = field(default_factory=Counter)
    """Kills by their moment: starting, training, saving."""
    repeated: list[int] = field(default_factory=list)
    """Steps repeated after each kill."""
    leaving: list[float] = field(default_factory=list)
    """Seconds from SIGTERM to the end of the process."""
    trainings: int = 0
    different: list[str] = field(default_factory=list)
    """Differences to the uninterrupted training, a line each."""


def small_experiment(folder: Path, steps: int, every: int) -> tuple[Config, Path]:
    """Returns an experiment with a checkpoint every `every` steps, and its file; the folder caches programs."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    config = Config(
        data=DataConfig(cache="off"),  # a start must not decode every face
        clusters=ClusterConfig(count=6),
        model=ModelConfig(image_size=32, widths=(16, 16), z_dim=32, z_grid=4),
        optim=OptimConfig(warmup_steps=2),
        train=TrainConfig(steps=steps, batch_size=8, log_every=1, images_every=steps, checkpoint_every=every),
    )
    file = folder / "config.json"
    file.write_text(config.to_json())
    return config, file


def train(arguments: list[str], log: Path) -> None:
    """Runs `ecvae train` with its messages in the file `log`."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 2)
    sys.exit(ecvae(["train", *arguments]))


class Run:
    """`ecvae train` in a separate process."""

    def __init__(self, config: Path, workdir: Path, log: Path) -> None:
        self.workdir, self.log = workdir, log
        self.before = stored(workdir)
        self.began = time.time()
        log.touch()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tensorflow", "tensorboard", "ecvae_jax.training.loop"])
        self.process = context.Process(target=train, args=([str(config), "--workdir", str(workdir)], log))
        self.process.start()

    def text(self) -> str:
        """Returns the log so far."""
        return self.log.read_text()

    def last_step(self) -> int:
        """Returns the last logged step; every step is logged."""
        return last_step(self.text(), self.before)

    def wait_for(self, what: str) -> bool:
        """Waits for the first step ("training") or a half-written checkpoint ("saving"); False if it ends first."""
        while self.process.exitcode is None:
            if what == "saving" and self.is_saving():
                return True
            if what == "training" and self.last_step() > self.before:
                return True
            time.sleep(0.001 if what == "saving" else 0.02)
        return False

    def is_saving(self) -> bool:
        """Returns whether this run is writing a checkpoint; leftovers are removed before the first step."""
        return self.last_step() > self.before and half_written(self.workdir, self.began)

    def end(self, number: int) -> float:
        """Sends SIGKILL or SIGTERM and returns the seconds until the process has ended."""
        began = time.monotonic()
        if number == signal.SIGKILL:
            self.process.kill()
        else:
            self.process.terminate()
        self.process.join()
        return time.monotonic() - began


def half_written(workdir: Path, since: float) -> bool:
    """Returns whether a half-written checkpoint was touched since a time."""
    for folder in (workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"):
        try:
            if folder.stat().st_mtime > since:
                return True
        except FileNotFoundError:
            continue
    return False


def last_step(text: str, before: int) -> int:
    """Returns the last step of a log that has a line for each; `before` without one."""
    steps = re.findall(r"^step (\d+)/", text, re.MULTILINE)
    return int(steps[-1]) if steps else before


def stored(workdir: Path) -> int:
    """Returns the step of the last checkpoint; 0 without one."""
    folder = workdir / "checkpoints"
    return max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0) if folder.is_dir() else 0


def interrupt(run: Run, rng: random.Random, startup: float, sigterm: bool, tally: Tally) -> bool:
    """Ends the process at a random moment; returns False if it was done before."""
    what = "training" if sigterm else rng.choice(["starting", "training", "saving"])
    if what == "starting":
        time.sleep(rng.uniform(0.0, startup))
    elif not run.wait_for(what):
        return False
    else:
        time.sleep(rng.uniform(0.0, 0.15 if what == "saving" else 1.0))
    if run.process.exitcode is not None:
        return False
    last = run.last_step()
    if sigterm:
        tally.leaving.append(run.end(signal.SIGTERM))
        if run.process.exitcode == 0:
            return False
        if run.process.exitcode != 75 or stored(run.workdir) < last:
            tally.different.append(f"SIGTERM: exit code {run.process.exitcode}, step {stored(run.workdir)} stored")
        return True
    run.end(signal.SIGKILL)
    if run.process.exitcode == 0:
        return False
    last, kept = run.last_step(), stored(run.workdir)
    moment = "saving" if run.is_saving() else "training" if last > run.before else "starting"
    tally.kills[moment] += 1
    tally.repeated.append(max(last - kept, 0))
    if kept < run.before:
        tally.different.append(f"a kill lost the checkpoint of step {run.before}")
    return True


def check_resumed(run: Run, tally: Tally) -> None:
    """Checks the step that a run resumed from against the one stored when it began."""
    resumed = re.search(r"resuming from step (\d+)", run.text())
    if run.before and resumed is not None and int(resumed[1]) != run.before:
        tally.different.append(f"resumed from step {resumed[1]}, {run.before} was stored")
    failed = re.search(r"^ecvae: error: .*", run.text(), re.MULTILINE)
    if failed is not None or "Traceback" in run.text():
        tally.different.append(failed[0] if failed else run.text()[-500:])


def results(config: Config, workdir: Path) -> dict[str, bytes]:
    """Returns the bytes of a training's results by name: the arrays of its state, and the points of its curves."""
    import jax
    import numpy as np
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from ecvae_jax.checkpoints.store import Checkpoints
    from ecvae_jax.training.loop import restore_state

    checkpoints = Checkpoints(workdir, config, {})
    state, _ = restore_state(checkpoints, config)
    checkpoints.close()
    found = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
             for path, leaf in jax.tree_util.tree_leaves_with_path(state)}  # fmt: skip
    events = EventAccumulator(str(workdir / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    for name in events.Tags()["tensors"]:
        if name not in ("images_per_second", "seconds", "compile_seconds", "peak_memory_gib"):  # differ by process
            points = {point.step: point.tensor_proto.SerializeToString() for point in events.Tensors(name)}
            found |= {f"{name} at {step}": value for step, value in points.items()}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--sigterms", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--folder", type=Path, help="folder for the runs; default: a temporary one")
    options = parser.parse_args()
    rng, tally, began = random.Random(options.seed), Tally(), time.monotonic()
    temporary = tempfile.TemporaryDirectory(prefix="ecvae-faults-")
    folder = options.folder or Path(temporary.name)
    config, file = small_experiment(folder, options.steps, EVERY)

    set_platform_flags()  # no effect once JAX is imported, as in the process the runs are forked from
    command = [sys.executable, "-m", "ecvae_jax", "train", str(file), "--workdir", str(folder / "uninterrupted")]
    subprocess.run(command, check=True)
    expected = results(config, folder / "uninterrupted")
    startup, number = 10.0, 0
    sigterms = options.sigterms
    while sum(tally.kills.values()) < options.kills or len(tally.leaving) < sigterms:
        workdir = folder / f"interrupted-{tally.trainings}"
        while True:
            number += 1
            enough = sum(tally.kills.values()) >= options.kills and len(tally.leaving) >= sigterms
            run = Run(file, workdir, folder / f"run-{number}.log")
            start = time.monotonic()
            sigterm = len(tally.leaving) < sigterms and (number % 6 == 0 or sum(tally.kills.values()) >= options.kills)
            ended = not enough and interrupt(run, rng, startup, sigterm, tally)
            run.process.join()
            if ended and run.last_step() > run.before:
                startup = time.monotonic() - start
            check_resumed(run, tally)
            print(f"{time.monotonic() - began:6.0f} s  {sum(tally.kills.values())} kills {dict(tally.kills)}, "
                  f"{len(tally.leaving)} SIGTERM; step {stored(workdir)} is stored", flush=True)  # fmt: skip
            if not ended:
                break
            if tally.different:
                print("\n".join(tally.different))
                return 1
        tally.trainings += 1
        found = results(config, workdir)
        tally.different += [f"{workdir.name}: {name}" for name in expected if found.get(name) != expected[name]]
        tally.different += [f"{workdir.name}: {name} is new" for name in found.keys() - expected.keys()]
    kills = ", ".join(f"{count} while {moment}" for moment, count in sorted(tally.kills.items()))
    print(f"{sum(tally.kills.values())} kills ({kills}) in {tally.trainings} trainings of {options.steps} steps, a "
          f"checkpoint every {EVERY}; {number} starts; {time.monotonic() - began:.0f} s")  # fmt: skip
    print(f"repeated steps: {sum(tally.repeated)} in all, at most {max(tally.repeated, default=0)} after one kill")
    slowest = max(tally.leaving, default=0)
    print(f"{len(tally.leaving)} SIGTERM: state stored and process ended after at most {slowest:.1f} s")
    print(f"bitwise equal to uninterrupted ({len(expected)} arrays and points): {'no' if tally.different else 'yes'}")
    print("\n".join(tally.different[:20]))
    return bool(tally.different)


if __name__ == "__main__":
    sys.exit(main())
