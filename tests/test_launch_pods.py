"""launch/tpu_pod.sh against a stub of gcloud whose workers really run their commands; the lint of all launchers."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from recorders import GCLOUD, TRAINING, World

ROOT = Path(__file__).parent.parent
LAUNCHERS = sorted([*(ROOT / "launch").glob("*.sh"), *(ROOT / "launch").glob("*.sbatch")])
POD = ("--name", "pod", "--zone", "us-west4-a", "--type", "v5litepod-16", "--spot", "--bucket", "gs://faces")
AWKWARD = """/mnt/ecvae/my "records" & it's $HOME  * \\ ü"""
TRAIN = ("--", "configs/paper_256.py", "--workdir", "/mnt/ecvae/runs/a b", "--data.records", AWKWARD)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, ROOT)
    world.tool("gcloud", GCLOUD)
    world.tool("python", TRAINING)
    world.tool("sudo")
    world.tool("gcsfuse")
    world.tool("mountpoint", "sys.exit(1)")
    yield world
    world.close()


def launch(world: World, *arguments: str, outcomes: str = "0") -> subprocess.CompletedProcess[str]:
    world.write("outcomes", outcomes)
    return world.run("launch/tpu_pod.sh", *arguments, ECVAE_READY_PYTHON=str(world.bin / "python"))


def started(world: World, *arguments: str, outcomes: str) -> subprocess.Popen[str]:
    world.write("outcomes", outcomes)
    return world.start("launch/tpu_pod.sh", *arguments, ECVAE_READY_PYTHON=str(world.bin / "python"))


def read_until(stream: IO[str] | None, found: Callable[[str], bool]) -> None:
    assert stream is not None
    for line in stream:
        if found(line):
            return
    raise AssertionError("the launcher ended without the expected line")


def verbs(world: World) -> list[str]:
    """The verbs of the calls of gcloud, without the checks of the pod."""
    calls = [call for call in world.calls() if call[0] == "gcloud" and call[4] != "describe"]
    return [
        next((w.split("tpu_worker.sh ")[1].split()[0] for w in call if "tpu_worker.sh" in w), call[4]) for call in calls
    ]


def test_a_training_from_request_to_deletion(world: World) -> None:
    shown = launch(world, *POD, *TRAIN)
    assert shown.returncode == 0, shown.stderr
    assert verbs(world) == ["create", "scp", "ssh", "setup", "start", "follow", "result", "log", "delete"]
    create = next(call for call in world.calls() if "create" in call)
    assert {
        "--accelerator-type=v5litepod-16",
        "--runtime-version=v2-alpha-tpuv5-lite",
        "--spot",
        "--zone=us-west4-a",
    } <= {*create}
    # Every worker trains with unchanged arguments.
    trained = sorted(world.calls("trained"))
    assert trained == [[n, "-m", "ecvae_jax", "train", *TRAIN[1:], "--hosts", "auto"] for n in ("0", "1")]
    mounted = [call for call in world.calls() if call[0] == "gcsfuse"]
    assert mounted == [["gcsfuse", "--implicit-dirs", "--rename-dir-limit=100000", "faces", "/mnt/ecvae"]] * 2
    assert shown.stdout == "worker 0: step 1\n"
    logs = world.checkout / "logs" / "pod" / "attempt-1"
    assert {log.name: log.read_text() for log in logs.iterdir()} == {
        f"{n}.log": f"worker {n}: step 1\n" for n in (0, 1)
    }


def test_a_dry_run_prints_what_a_real_one_runs_and_runs_nothing(world: World) -> None:
    dry = launch(world, *POD, "--project", "mine", "--dry-run", *TRAIN)
    assert dry.returncode == 0
    assert world.calls() == []
    assert not (world.checkout / "logs").exists()
    printed = [shlex.split(line.removeprefix("+ ")) for line in dry.stdout.splitlines()]
    launch(world, *POD, "--project", "mine", *TRAIN)
    real = [call for call in world.calls() if call[0] == "gcloud"]

    def same(calls: list[list[str]]) -> list[list[str]]:
        # Each archive has another name, and the check of a pod takes one or two calls.
        calls = [[w for w in call if not w.endswith(".tgz") or ":" in w] for call in calls]
        return [call for call in calls if call[0] == "gcloud" and "describe" not in call]

    assert same(printed) == same(real)
    assert len(same(printed)) == 9


def test_shipped_files_exist() -> None:
    dry = subprocess.run(
        ["bash", str(ROOT / "launch" / "tpu_pod.sh"), *POD, "--dry-run", *TRAIN],
        capture_output=True,
        text=True,
        check=True,
    )
    (tar,) = [shlex.split(line) for line in dry.stdout.splitlines() if line.startswith("+ tar")]
    assert "ecvae_jax" in tar
    assert all((ROOT / name).exists() for name in tar[4:] if not name.startswith("--"))


def test_lost_pod_is_replaced_and_the_training_resumes(world: World) -> None:
    shown = launch(world, *POD, *TRAIN, outcomes="preempted 75 preempted-1 late-1 0")
    assert shown.returncode == 0, shown.stderr
    assert [verb for verb in verbs(world) if verb in ("create", "start", "delete")] == ["create", "start", "delete"] * 5
    assert len({tuple(call) for call in world.calls("trained")}) == 2  # the same command, on both workers, each time
    assert "attempt 5 of 20" in shown.stderr


@pytest.mark.parametrize("outcome", ["1", "late-2", "134"])
def test_failed_training_is_not_restarted_and_its_pod_is_deleted(world: World, outcome: str) -> None:
    shown = launch(world, *POD, *TRAIN, outcomes=f"{outcome} 0")
    assert shown.returncode == int(outcome.removeprefix("late-"))
    assert [verb for verb in verbs(world) if verb in ("create", "start", "log", "delete")] == [
        "create",
        "start",
        "log",
        "delete",
    ]
    assert not (world.folder / "queue").exists()


@pytest.mark.slow  # two lost pods; one is lost below
def test_number_of_attempts_is_limited(world: World) -> None:
    shown = launch(world, *POD, "--attempts", "2", *TRAIN, outcomes="75 75 0")
    assert shown.returncode == 75
    assert verbs(world).count("create") == verbs(world).count("delete") == 2
    assert shown.stderr.splitlines()[-1].startswith("launch: the pod was lost 2 times")


def test_failed_request_is_retried(world: World) -> None:
    world.write("states", "FAILED ACTIVE")
    world.write("queue", "SUSPENDED")  # left by a preemption of an earlier call
    assert launch(world, *POD, *TRAIN, outcomes="none 0").returncode == 0
    assert [verb for verb in verbs(world) if verb in ("create", "delete")] == ["delete", *["create", "delete"] * 2]


def test_kept_pod_is_named_with_the_command_that_deletes_it(world: World) -> None:
    shown = launch(world, *POD, "--keep", *TRAIN)
    assert shown.returncode == 0
    assert "delete" not in verbs(world)
    assert "gcloud compute tpus queued-resources delete pod --force --zone=us-west4-a" in shown.stderr


def test_ctrl_c_stores_the_state_on_all_workers_and_prints_how_to_resume(world: World) -> None:
    process = started(world, *POD, *TRAIN, outcomes="runs")
    read_until(process.stdout, lambda line: "step 1" in line)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert (world.folder / "stopped-0").exists()
    assert (world.folder / "stopped-1").exists()
    assert "delete" not in verbs(world)
    assert "costs money until it is deleted" in err
    assert "gcloud compute tpus queued-resources delete pod --force --zone=us-west4-a" in err
    # The printed command is the given one, and resumes in the same pod.
    again = next(line.split("resume: ")[1] for line in err.splitlines() if "resume: " in line)
    assert shlex.split(again) == ["bash", "launch/tpu_pod.sh", *POD, *TRAIN]
    assert launch(world, *shlex.split(again)[2:], outcomes="0").returncode == 0
    assert verbs(world).count("create") == 1


def test_ctrl_c_while_waiting_deletes_the_request(world: World) -> None:
    world.write("states", "WAITING_FOR_RESOURCES")
    process = started(world, *POD, *TRAIN, outcomes="0")
    read_until(process.stderr, lambda line: "WAITING" in line)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert verbs(world) == ["create", "delete"]


def test_killed_launcher_finds_its_training_again(world: World) -> None:
    process = started(world, *POD, *TRAIN, outcomes="runs")
    read_until(process.stdout, lambda line: "step 1" in line)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    trainings = [int(pid.read_text()) for pid in world.folder.glob("homes/*/ecvae-run/training")]
    process = started(world, *POD, *TRAIN, outcomes="runs")
    read_until(process.stdout, lambda line: "step 1" in line)
    for pid in trainings:
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == 137
    assert verbs(world).count("create") == verbs(world).count("start") == 1


def test_pod_is_deleted_if_the_setup_fails(world: World) -> None:
    world.tool("gcsfuse", "sys.exit('no such bucket')")
    shown = launch(world, *POD, *TRAIN)
    assert shown.returncode == 1
    assert "no such bucket" in shown.stderr
    assert verbs(world) == ["create", "scp", "ssh", "setup", "delete"]


def test_worker_without_a_supported_python_gets_one(world: World) -> None:
    world.tool("sudo")
    shown = world.run(
        "launch/tpu_worker.sh", "setup", "--nfs", "10.0.0.2:/faces", PATH=world.bare_path(), HOME=str(world.folder)
    )
    assert shown.returncode == 1  # the stub installs nothing, and launch/environment.sh reports it
    assert "Python 3.11, 3.12 or 3.13" in shown.stderr
    sudo = [call[1:] for call in world.calls() if call[0] == "sudo"]
    assert sudo[0] == ["add-apt-repository", "-y", "ppa:deadsnakes/ppa"]
    assert any(call[-2:] == ["python3.12", "python3.12-venv"] for call in sudo)
    assert ["mount", "-t", "nfs", "10.0.0.2:/faces", "/mnt/ecvae"] in sudo


def test_error_of_gcloud_ends_the_launcher(world: World) -> None:
    world.write("no-answer", "")
    shown = launch(world, *POD, *TRAIN)
    assert shown.returncode == 1
    assert "You do not currently have an active account selected" in shown.stderr
    assert verbs(world) == []


def test_no_gcloud_is_one_line(world: World) -> None:
    (world.bin / "gcloud").unlink()
    shown = world.run("launch/tpu_pod.sh", *POD, *TRAIN, PATH=world.bare_path())
    assert shown.returncode == 1
    assert shown.stderr == "launch: gcloud was not found; install the Google Cloud CLI\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--name ''"),
        (("--name",), "--name: a value is missing"),
        (("--name", "--zone"), "--name: a value is missing"),
        (("--nmae", "pod"), "--nmae: unknown option"),
        ((*POD, "--name", "My Pod", *TRAIN), "--name 'My Pod': must be lowercase letters"),
        ((*POD, "--zone", "us-west4", *TRAIN), "--zone 'us-west4'"),
        ((*POD, "--type", "v5litepod", *TRAIN), "--type 'v5litepod'"),
        ((*POD, "--type", "v9-8", *TRAIN), "name one with --version"),
        ((*POD, "--attempts", "0", *TRAIN), "--attempts '0'"),
        ((*POD, "--nfs", "10.0.0.2:/faces", *TRAIN), "give one of --bucket and --nfs"),
        ((*POD[:-2], *TRAIN), "checkpoints must outlive the pod"),
        (POD, "must be a config in this checkout"),
        ((*POD, "--", "configs/none.py", *TRAIN[2:]), "'configs/none.py': must be a config in this checkout"),
        ((*POD, *TRAIN[:2]), "--workdir '': must be a folder in /mnt/ecvae"),
        ((*POD, *TRAIN[:2], "--workdir=runs/x"), "--workdir 'runs/x': must be a folder in /mnt/ecvae"),
    ],
)
def test_wrong_arguments_are_one_line(world: World, arguments: tuple[str, ...], says: str) -> None:
    shown = launch(world, *arguments)
    assert shown.returncode == 2
    assert says in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert world.calls() == []


@pytest.mark.parametrize("script", LAUNCHERS, ids=lambda script: script.name)
def test_launchers_are_linted(script: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert shellcheck is not None, "shellcheck is in the extra dev: pip install -e '.[dev]'"
    shown = subprocess.run([shellcheck, "--external-sources", str(script)], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0, shown.stdout
