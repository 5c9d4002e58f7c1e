"""Stubs of gcloud, kubectl, srun, … first on PATH: each records its calls and answers by a script.

The stub of gcloud keeps a small cloud in a folder: a pod of two workers whose homes are folders. Its ssh is bash, so
the commands of the launcher really run.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

RECORD = f"""#!{sys.executable} -SE
import json, os, pathlib, signal, shutil, subprocess, sys, time
world = pathlib.Path(os.environ["WORLD"])
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with open(world / "calls", "a") as calls:
    calls.write(json.dumps([name, *words]) + "\\n")
"""

GCLOUD = """
queue = world / "queue"  # state of the request; no file: no request
def made():
    return int((world / "made").read_text()) if (world / "made").exists() else 0
def option(name):
    return next((word.split("=", 1)[1] for word in words if word.startswith(name + "=")), None)
def workers():
    return [world / "homes" / n for n in (("0", "1") if option("--worker") == "all" else ("0",))]
def connected():
    return queue.exists() and queue.read_text() == "ACTIVE"
def ssh():
    folder, sessions = option("--output-directory"), []
    for home in workers():
        out = open(f"{folder}/{home.name}.log", "w") if folder else None
        environment = {**os.environ, "HOME": str(home), "WORKER": home.name}
        sessions.append(subprocess.Popen(["bash", "-c", option("--command")], cwd=home, env=environment, stdout=out))
    while any(session.poll() is None for session in sessions):
        if not connected():
            for session in sessions:
                session.kill()
            return 255
        time.sleep(0.02)
    return next((session.returncode for session in sessions if session.returncode), 0)

match words[2:4]:
    case ["queued-resources", "describe"]:
        if (world / "no-answer").exists():
            sys.exit("ERROR: (gcloud) You do not currently have an active account selected.")
        if not queue.exists():
            sys.exit("ERROR: (gcloud) NOT_FOUND: Resource 'pod' was not found")
        print(queue.read_text())
    case ["tpu-vm", "describe"]:
        print("READY")
    case ["queued-resources", "create"]:
        (world / "made").write_text(str(made() + 1))
        states = (world / "states").read_text().split() if (world / "states").exists() else []
        queue.write_text(states[made() - 1] if made() <= len(states) else "ACTIVE")
        for n in ("0", "1"):
            (world / "homes" / n).mkdir(parents=True)
    case ["queued-resources", "delete"]:
        for pid in (world / "homes").glob("*/ecvae-run/[kt]*"):
            try:
                os.kill(int(pid.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(world / "homes", ignore_errors=True)
        queue.unlink()
    case ["tpu-vm", "scp"]:
        for home in workers():
            shutil.copy(words[4], home / words[5].split(":")[1])
    case ["tpu-vm", "ssh"]:
        code = ssh() if connected() else 255
        outcome = (world / "outcomes").read_text().split()[made() - 1]
        if outcome.startswith("late") and option("--command").endswith("result"):
            queue.write_text("SUSPENDED")  # preempted just after the training failed of it
        sys.exit(code)
    case other:
        sys.exit(f"unknown: gcloud {other}")
"""

# The Python of the workers: a training that ends with the outcome of its pod.
TRAINING = """
outcome = (world / "outcomes").read_text().split()[int((world / "made").read_text()) - 1]
with open(world / "trained", "a") as trained:
    trained.write(json.dumps([os.environ["WORKER"], *words]) + "\\n")
def leave(*_):
    (world / f"stopped-{os.environ['WORKER']}").touch()
    print("state stored", flush=True)
    os._exit(75)
signal.signal(signal.SIGTERM, leave)
print(f"worker {os.environ['WORKER']}: step 1", flush=True)
if outcome.startswith("preempted"):
    time.sleep(0.3)
    (world / "queue").write_text("SUSPENDED")
    time.sleep(0 if outcome == "preempted-1" else 60)
    sys.exit(1)
if outcome == "runs":
    while True:
        time.sleep(60)
sys.exit(int(outcome.removeprefix("late-")))
"""


def _reset_sigint() -> None:
    """Resets SIGINT, which background jobs of a script ignore; bash cannot trap an ignored signal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class World:
    """A folder with stubs, their recorded calls, and a small checkout to launch from."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.bin, self.checkout = folder, folder / "bin", folder / "checkout"
        self.bin.mkdir()
        shutil.copytree(root / "launch", self.checkout / "launch")
        for name in ("pyproject.toml", "README.md", "LICENSE", "ecvae_jax/__init__.py", "configs/paper_256.py"):
            (self.checkout / name).parent.mkdir(exist_ok=True)
            shutil.copy(root / name, self.checkout / name)

    def tool(self, name: str, body: str = "") -> None:
        """Puts a stub first on PATH; `body` is Python with `words`, its arguments, and `world`, a folder."""
        (self.bin / name).write_text(RECORD + body)
        (self.bin / name).chmod(0o755)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def calls(self, name: str = "calls") -> list[list[str]]:
        file = self.folder / name
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def environment(self, **more: str) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("ECVAE_", "SLURM_", "JAX_"))}
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return {**clean, "PATH": path, "WORLD": str(self.folder), "ECVAE_POLL": "0.05", **more}

    def start(self, script: str | Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(self.checkout / script), *arguments],
            env=self.environment(**environment),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_reset_sigint,
        )

    def run(self, script: str | Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *arguments, **environment)
        out, err = process.communicate()
        return subprocess.CompletedProcess([str(script), *arguments], process.returncode, out, err)

    def bare_path(self) -> str:
        """Returns a PATH with only the tools that the scripts themselves need."""
        for name in ("bash", "dirname", "cat", "mktemp", "seq", "hostname", "id"):
            where = shutil.which(name)
            assert where is not None, name
            (self.bin / name).symlink_to(where)
        return str(self.bin)

    def close(self) -> None:
        """Kills the trainings that a test left running."""
        for pid in self.folder.glob("homes/*/ecvae-run/[kt]*"):
            number = int(pid.read_text())
            # Another process may have the pid by now: kill only one that was started in this world.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if str(self.folder).encode() in Path(f"/proc/{number}/environ").read_bytes():
                    os.kill(number, signal.SIGKILL)
