"""One training on two hosts, here two processes with four devices each: same numbers, stopped, one of them lost."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.cli.main import main
from ecvae_jax.config import Config
from ecvae_jax.training.loop import train
from ecvae_jax.training.supervisor import TRY_AGAIN, check_hosts

ROOT = Path(__file__).parent.parent
STEPS, STORED = 16, 8
# A host that waits for another one in vain must not hang a test for ever; on a loaded machine starting takes minutes.
LONG = 500


def environment() -> dict[str, str]:
    flags = " ".join(f for f in os.environ["XLA_FLAGS"].split() if "host_platform_device_count" not in f)
    return {**os.environ, "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=4"}


@pytest.fixture(scope="module")
def experiment(tiny_config: Config) -> Config:
    # A constant learning rate: a longer training then has the same beginning.
    return dataclasses.replace(
        tiny_config,
        optim=dataclasses.replace(tiny_config.optim, schedule="constant"),
        train=dataclasses.replace(tiny_config.train, steps=STEPS, log_every=4, checkpoint_every=STORED),
    )


@pytest.fixture(scope="module")
def config_file(experiment: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    path.write_text(experiment.to_json())
    return path


@pytest.fixture(scope="module")
def undisturbed(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of two processes with four devices each, started by the launch script."""
    workdir = tmp_path_factory.mktemp("hosts") / "run"
    script = ROOT / "launch" / "local_multiprocess.sh"
    shown = subprocess.run(
        ["bash", str(script), "2", "4", str(config_file), "--workdir", str(workdir)],
        env={**os.environ, "ECVAE_READY_PYTHON": sys.executable, "XLA_FLAGS": ""},
        capture_output=True, text=True, timeout=LONG,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr[-3000:]
    assert "8 cpu device(s) of 2 hosts" in shown.stderr
    told = (workdir / "host-1.log").read_text()
    assert "step 4/" not in told  # host 0 alone writes
    assert "trained to step 16" in told
    assert len(list((workdir / "tensorboard").iterdir())) == 1
    return workdir


def start_hosts(arguments: list[str], folder: Path, code: str = "") -> list[subprocess.Popen[bytes]]:
    """Two processes that train together; `code` runs in them before `ecvae` does and knows which one it is, `index`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for index in range(2):
        words = ["train", *arguments, "--hosts", f"{index}/2@127.0.0.1:{port}"]
        # With code of its own the process that is started has to train itself instead of watching over another one.
        before = f"index = {index}\n{code}\n"
        command = ["-c", f"{before}import sys\nfrom ecvae_jax.cli import main\nsys.exit(main({words!r}))"]
        watched = {"ECVAE_WATCHED": "1"} if code else {}
        with (folder / f"host-{index}.log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, *(command if code else ["-m", "ecvae_jax", *words])],
                    env={**environment(), **watched},
                    stderr=log,
                    stdout=log,
                )
            )
    return started


def wait_for(folder: Path, hosts: list[subprocess.Popen[bytes]], logs: Path) -> None:
    deadline = time.monotonic() + LONG
    while not folder.is_dir():
        assert all(host.poll() is None for host in hosts), (logs / "host-0.log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def end_with(hosts: list[subprocess.Popen[bytes]], logs: Path, expected: int) -> None:
    """Waits for the hosts; what they said is shown where one ends with another code than the expected one."""
    codes = [host.wait(LONG) for host in hosts]
    said = "\n".join((logs / f"host-{index}.log").read_text()[-3000:] for index in range(len(hosts)))
    assert codes == [expected] * len(hosts), said


def close(first, second) -> None:
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4)


def same(first, second) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(second)))


def test_a_checkpoint_of_two_hosts_goes_on_in_one_process(
    experiment: Config, undisturbed: Path, tmp_path: Path
) -> None:
    """And both have come to the same, to rounding: eight devices in one process, or four in each of two."""
    copy = shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints" / str(STEPS))
    outcome = train(experiment, copy)
    assert outcome.finished
    close(load_model(copy).params, load_model(undisturbed).params)
    alone = tmp_path / "alone"
    assert train(experiment, alone).finished
    close(load_model(alone / "checkpoints" / str(STORED)).params,
          load_model(undisturbed / "checkpoints" / str(STORED)).params)  # fmt: skip
    assert same(load_model(alone).frozen, load_model(undisturbed).frozen)


def test_a_signal_to_one_host_stops_both_and_both_go_on_to_the_same_bits(
    config_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    arguments = [str(config_file), "--workdir", str(workdir)]
    # The first host reads the faces for longer than the others wait for it by default.
    slowly = (
        "import time\n"
        "import ecvae_jax.training.loop as loop\n"
        "load_faces = loop.load_faces\n"
        "loop.load_faces = lambda *given: (time.sleep(0 if index else 35), load_faces(*given))[1]\n"
        "map_step = loop.map_step\n"
        "def slow(step, kind):\n"
        "    mapped = map_step(step, kind)\n"
        "    return lambda state, batch: (time.sleep(0.5), mapped(state, batch))[1]\n"
        "loop.map_step = slow"
    )
    hosts = start_hosts(arguments, tmp_path, slowly)
    wait_for(workdir / "checkpoints" / str(STORED), hosts, tmp_path)
    hosts[1].send_signal(signal.SIGTERM)
    end_with(hosts, tmp_path, TRY_AGAIN)
    stopped = load_model(workdir).step
    assert STORED <= stopped < STEPS
    for index in range(2):
        assert f"interrupted at step {stopped} of {STEPS}" in (tmp_path / f"host-{index}.log").read_text()
    # The first host comes later than the others wait for it by default: to the first step, and to the end.
    dawdling = (
        "import time\n"
        "import ecvae_jax.training.loop as loop\n"
        "def after(seconds, work):\n"
        "    return lambda *given: (time.sleep(0 if index else seconds), work(*given))[1]\n"
        "loop.first_examples, loop.peak_memory = after(45, loop.first_examples), after(35, loop.peak_memory)"
    )
    hosts = start_hosts(arguments, tmp_path, dawdling)
    end_with(hosts, tmp_path, 0)
    assert same(load_model(workdir).params, load_model(undisturbed).params)


def test_a_lost_host_stops_the_other_with_a_message(config_file: Path, undisturbed: Path, tmp_path: Path) -> None:
    """By pmap, whose numbers until then are those of shard_map."""
    workdir = tmp_path / "run"
    arguments = [str(config_file), "--workdir", str(workdir), "--train.parallel", "pmap", "--train.steps", "100000",
                 "--train.keep-checkpoints", "100000"]  # fmt: skip
    hosts = start_hosts(arguments, tmp_path)
    wait_for(workdir / "checkpoints" / str(STORED), hosts, tmp_path)
    hosts[1].kill()
    assert hosts[0].wait(LONG) == TRY_AGAIN
    last = (tmp_path / "host-0.log").read_text().strip().splitlines()[-1]
    assert last.startswith("ecvae: error: another host of this training was lost")
    assert str(workdir) in last
    stored = Path("checkpoints") / str(STORED)
    close(load_model(workdir / stored).params, load_model(undisturbed / stored).params)


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ("two", "hosts='two': must be one, auto or INDEX/COUNT@ADDRESS:PORT"),
        ("0/2@host", "must be one, auto or INDEX/COUNT@ADDRESS:PORT"),
        ("2/2@host:1", "INDEX counts from 0, so the last of 2 is 1"),
    ],
)
def test_hosts_that_cannot_be_read_are_wrong_usage(hosts: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="hosts="):
        check_hosts(hosts)
    assert main(["train", "--hosts", hosts]) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert "\n" not in said


def test_no_hosts_to_detect_is_one_line(tmp_path: Path) -> None:
    clusters = ("SLURM", "OMPI", "JAX_COORD")
    clean = {name: value for name, value in environment().items() if not name.startswith(clusters)}
    command = [sys.executable, "-m", "ecvae_jax", "train", "--workdir", str(tmp_path / "run"), "--hosts", "auto"]
    shown = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=LONG)
    assert shown.returncode == 1
    assert shown.stderr.count("\n") == 1
    assert "hosts=auto: no cluster detected" in shown.stderr
    # The process that trains is another one than was started; it is told of -v as well.
    asked = subprocess.run([*command, "-v"], env=clean, capture_output=True, text=True, timeout=LONG)
    assert asked.returncode == 1
    assert asked.stderr.startswith("Traceback")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [(), ("2", "0", "c.py", "--workdir", "w"), ("2", "4", "c.py", "--train.steps", "3")])
def test_the_launch_script_says_how_it_is_used(words: tuple[str, ...]) -> None:
    script = ROOT / "launch" / "local_multiprocess.sh"
    shown = subprocess.run(["bash", str(script), *words], capture_output=True, text=True)
    assert shown.returncode == 2
    assert shown.stderr.startswith("usage: bash launch/local_multiprocess.sh PROCESSES DEVICES CONFIG")
