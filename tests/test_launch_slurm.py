"""launch/slurm.sbatch with stubs of srun and scontrol, run from a copy elsewhere, as sbatch does."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from recorders import World

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "launch" / "slurm.sbatch"
TRAIN = ("configs/paper_256.py", "/nfs/runs/a b", "--data.records", """/nfs/my "records" & it's $HOME""")
SRUN = """
(world / "gpus").write_text(os.environ["JAX_LOCAL_DEVICE_IDS"])
codes = (world / "code").read_text()
if codes == "until stopped":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    (world / "training").touch()
    time.sleep(60)
sys.exit(int(codes))
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, ROOT)
    world.tool("srun", SRUN)
    world.tool("scontrol")
    (world.folder / "spool").mkdir()
    shutil.copy(SCRIPT, world.folder / "spool" / "slurm_script")
    return world


def settings(world: World, **more: str) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_SUBMIT_DIR": str(world.checkout),
        "SLURM_GPUS_ON_NODE": "4",
        "ECVAE_READY_PYTHON": "/env/bin/python",
        **more,
    }


def submit(world: World, code: int | str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    world.write("code", str(code))
    return world.run(world.folder / "spool" / "slurm_script", *(arguments or TRAIN), **settings(world, **more))


def test_one_process_per_node_with_all_its_gpus(world: World) -> None:
    shown = submit(world, 0, SLURM_CPUS_PER_TASK="12")
    assert shown.returncode == 0, shown.stderr
    (srun,) = world.calls()
    step, training = srun[: srun.index("/env/bin/python")], srun[srun.index("/env/bin/python") + 1 :]
    assert step[:3] == ["srun", "--ntasks-per-node=1", "--cpus-per-task=12"]
    # srun reports the highest exit code: a stopped task, which exits with 75, must not hide a failure.
    assert "--kill-on-bad-exit=0" in step
    config, workdir, *more = TRAIN
    assert training == ["-m", "ecvae_jax", "train", config, "--workdir", workdir, "--hosts", "auto", *more]
    assert (world.folder / "gpus").read_text() == "0,1,2,3"


def test_stopped_training_is_requeued(world: World) -> None:
    shown = submit(world, 75)
    assert shown.returncode == 75
    assert world.calls()[1:] == [["scontrol", "requeue", "4711"]]


@pytest.mark.parametrize("code", [1, 2, 134, 137])
def test_failed_training_is_not_requeued(world: World, code: int) -> None:
    assert submit(world, code).returncode == code
    assert [call[0] for call in world.calls()] == ["srun"]


def test_number_of_requeues_is_limited(world: World) -> None:
    assert submit(world, 75, ECVAE_RESTARTS="3", SLURM_RESTART_COUNT="2").returncode == 75
    assert world.calls()[-1] == ["scontrol", "requeue", "4711"]
    shown = submit(world, 75, ECVAE_RESTARTS="3", SLURM_RESTART_COUNT="3")
    assert shown.returncode == 75
    assert world.calls()[-1][0] == "srun"
    assert "was already requeued 3 times" in shown.stderr


def test_cancelled_job_is_not_requeued(world: World) -> None:
    world.write("code", "until stopped")
    process = world.start(world.folder / "spool" / "slurm_script", *TRAIN, **settings(world))
    while not (world.folder / "training").exists():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGTERM)  # scancel signals the script and its tasks
    _, err = process.communicate()
    assert process.returncode == 75
    assert [call[0] for call in world.calls()] == ["srun"]
    assert "its state is stored" in err


def test_script_requests_what_it_relies_on() -> None:
    asked = [line.removeprefix("#SBATCH ") for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert {"--ntasks-per-node=1", "--requeue", "--open-mode=append", "--output=%x-%j.log"} <= {*asked}
    (stop,) = [line for line in asked if line.startswith("--signal=")]
    sent, seconds = stop.removeprefix("--signal=").split("@")
    assert sent == "TERM"  # without B:, so that the tasks get it
    assert int(seconds) >= 60
    # sbatch reads these lines only up to the first command.
    commands = [n for n, line in enumerate(SCRIPT.read_text().splitlines()) if line and not line.startswith("#")]
    assert all(n < commands[0] for n, line in enumerate(SCRIPT.read_text().splitlines()) if line.startswith("#SBATCH"))


def test_a_dry_run_prints_what_a_job_runs_and_runs_nothing(world: World) -> None:
    world.write("code", "0")
    dry = world.run("launch/slurm.sbatch", "--dry-run", *TRAIN, ECVAE_READY_PYTHON="/env/bin/python")
    assert dry.returncode == 0, dry.stderr
    assert world.calls() == []
    lines = [line.removeprefix("+ ") for line in dry.stdout.splitlines()]
    assert lines[:2] == [". launch/environment.sh cuda", "export JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7"]
    submit(world, 0)
    assert shlex.split(lines[2]) == world.calls()[0]


@pytest.mark.parametrize(
    ("arguments", "more", "says"),
    [
        (("configs/paper_256.py",), {}, "usage: sbatch launch/slurm.sbatch CONFIG WORKDIR"),
        (("configs/none.py", "/nfs/run"), {}, "CONFIG 'configs/none.py': must be a file"),
        (("configs/paper_256.py", "--workdir"), {}, "WORKDIR '--workdir': must be a folder"),
        (
            TRAIN,
            {"SLURM_JOB_ID": ""},
            "this is not a Slurm job; submit it: sbatch launch/slurm.sbatch configs/paper_256.py",
        ),
        (TRAIN, {"SLURM_GPUS_ON_NODE": ""}, "the job has no GPUs"),
        (TRAIN, {"ECVAE_RESTARTS": "many"}, "ECVAE_RESTARTS='many': must be a number"),
        (TRAIN, {"SLURM_SUBMIT_DIR": "/"}, "/: not a checkout of ecvae_jax"),
    ],
)
def test_wrong_usage_is_one_line(world: World, arguments: tuple[str, ...], more: dict[str, str], says: str) -> None:
    shown = submit(world, 0, *arguments, **more)
    assert shown.returncode == 2
    assert says in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert world.calls() == []


def test_no_slurm_is_one_line(world: World) -> None:
    (world.bin / "srun").unlink()
    shown = submit(world, 0, PATH=world.bare_path())
    assert shown.returncode == 1
    assert shown.stderr.startswith("launch: srun was not found")
    assert len(shown.stderr.splitlines()) == 1
