"""One training on two hosts, here two processes: same numbers, interrupted, one of them lost."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from support.processes import LONG, QUICK_COMPILATION, Forked, environment, wait_until
from support.shared import shared_folder
from support.training import assert_close, assert_same

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.cli.main import main
from ecvae_jax.config import Config
from ecvae_jax.training.loop import train
from ecvae_jax.training.supervisor import TRY_AGAIN, check_hosts

ROOT = Path(__file__).parent.parent
STEPS, STORED = 16, 8


@pytest.fixture(scope="session")
def experiment(tiny_config: Config) -> Config:
    # A constant learning rate: a longer training then has the same beginning.
    return dataclasses.replace(
        tiny_config,
        optim=dataclasses.replace(tiny_config.optim, schedule="constant"),
        train=dataclasses.replace(tiny_config.train, steps=STEPS, log_every=4, checkpoint_every=STORED),
    )


@pytest.fixture(scope="session")
def config_file(experiment: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    path.write_text(experiment.to_json())
    return path


def of_two() -> dict[str, str]:
    """Returns the environment of one of two hosts, which have the devices of this process together."""
    return environment(devices=jax.device_count() // 2)


def arguments_of_hosts(arguments: list[str]) -> list[list[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [["train", *arguments, "--hosts", f"{index}/2@127.0.0.1:{port}"] for index in range(2)]


def fork_hosts(arguments: list[str], folder: Path, code: str, **variables: str) -> list[Forked]:
    """Returns two forked processes that train together; `code` runs before `ecvae` and knows its host, `index`.

    A forked process skips JAX's exit handler. Hosts that refuse to train need it: it waits until all leave.
    """
    ending = "code = main({!r})\nif code == 1:\n    jax.distributed.shutdown()\nsys.exit(code)"
    return [
        Forked(
            f"index = {index}\n{code}\nimport sys, jax\nfrom ecvae_jax.cli.main import main\n{ending.format(words)}",
            folder / f"host-{index}.log",
            # The process trains itself instead of supervising another one.
            {**of_two(), "ECVAE_WATCHED": "1", **variables},
        )
        for index, words in enumerate(arguments_of_hosts(arguments))
    ]


def end_with(hosts: list[Forked], expected: int) -> None:
    """Waits for the hosts; their logs are shown where an exit code is not the expected one."""
    codes = [host.wait() for host in hosts]
    assert codes == [expected] * len(hosts), "\n".join(host.text()[-3000:] for host in hosts)


@pytest.fixture(scope="session")
def undisturbed(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of two processes."""

    def make(workdir: Path) -> None:
        hosts = fork_hosts([str(config_file), "--workdir", str(workdir)], tmp_path_factory.mktemp("logs"), "")
        end_with(hosts, 0)
        assert f"{jax.device_count()} cpu device(s) of 2 hosts" in hosts[0].text()
        assert "step 4/" not in hosts[1].text()  # host 0 alone writes
        assert "trained to step 16" in hosts[1].text()

    workdir = shared_folder(tmp_path_factory, "two_hosts", make)
    assert len(list((workdir / "tensorboard").iterdir())) == 1
    return workdir


@pytest.mark.slow
def test_the_launch_script_trains_to_the_same_bits(config_file: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Its processes are those a user starts: new ones, each with its supervisor."""
    script, workdir = ROOT / "launch" / "local_multiprocess.sh", tmp_path / "run"
    shown = subprocess.run(
        ["bash", str(script), "2", str(jax.device_count() // 2), str(config_file), "--workdir", str(workdir)],
        # The script sets the number of devices. Equal bits need equal flags of compilation.
        env=environment(XLA_FLAGS=" ".join(QUICK_COMPILATION), ECVAE_READY_PYTHON=sys.executable),
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    assert shown.returncode == 0, shown.stderr[-3000:]
    assert f"{jax.device_count()} cpu device(s) of 2 hosts" in shown.stderr
    log = (workdir / "host-1.log").read_text()
    assert "step 4/" not in log
    assert "trained to step 16" in log
    assert_same(load_model(workdir).params, load_model(undisturbed).params)


@pytest.mark.slow
def test_a_checkpoint_of_two_hosts_resumes_in_one_process(
    experiment: Config, undisturbed: Path, tmp_path: Path
) -> None:
    """Both end alike, up to rounding: all devices in one process, or half of them in each of two."""
    copy = shutil.copytree(undisturbed, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints" / str(STEPS))
    outcome = train(experiment, copy)
    assert outcome.finished
    assert_close(load_model(copy).params, load_model(undisturbed).params)
    alone = tmp_path / "alone"
    assert train(experiment, alone).finished
    stored = Path("checkpoints") / str(STORED)
    assert_close(load_model(alone / stored).params, load_model(undisturbed / stored).params)
    assert_same(load_model(alone).frozen, load_model(undisturbed).frozen)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["shard_map", "pmap"])
def test_calls_of_several_steps_train_two_hosts_as_single_steps_do(
    config_file: Path, undisturbed: Path, tmp_path: Path, parallel: str
) -> None:
    """Up to rounding, as in one process (test_training_calls.py)."""
    words = ["--train.steps-per-call", "3", "--train.parallel", parallel]
    end_with(fork_hosts([str(config_file), "--workdir", str(tmp_path / "run"), *words], tmp_path, ""), 0)
    for folder in (".", f"checkpoints/{STORED}"):  # step 8 ends a call of two steps
        assert_close(load_model(tmp_path / "run" / folder).params, load_model(undisturbed / folder).params)


# Seconds by which host 0 is late, and the timeout: in real time beyond the 30 s of JAX's connections and heartbeats.
@pytest.mark.parametrize(("late", "end", "timeout"), [(1, 8, "6"), pytest.param(45, 35, "30", marks=pytest.mark.slow)])
def test_a_signal_to_one_host_stops_both_and_both_resume_to_the_same_bits(
    config_file: Path, undisturbed: Path, tmp_path: Path, late: int, end: int, timeout: str
) -> None:
    """In a workdir named like a pattern: Orbax merges the parts of the hosts by a glob that starts with the folder."""
    workdir = tmp_path / "w[1]"
    arguments = [str(config_file), "--workdir", str(workdir)]
    # Host 0 reads the faces for longer than the others wait by default.
    slowly = (
        "import time\n"
        "import ecvae_jax.training.loop as loop\n"
        "load_faces = loop.load_faces\n"
        f"loop.load_faces = lambda *given: (time.sleep(0 if index else {late}), load_faces(*given))[1]\n"
        "map_step = loop.map_step\n"
        "def slow(step, kind):\n"
        "    mapped = map_step(step, kind)\n"
        "    return lambda *given: (time.sleep(0.4), mapped(*given))[1]\n"
        "loop.map_step = slow"
    )
    hosts = fork_hosts(arguments, tmp_path, slowly, ECVAE_HOST_TIMEOUT=timeout)
    wait_until((workdir / "checkpoints" / str(STORED)).is_dir, *hosts)
    hosts[1].send_signal(signal.SIGTERM)
    end_with(hosts, TRY_AGAIN)
    stopped = load_model(workdir).step
    assert STORED <= stopped < STEPS
    for host in hosts:
        assert f"interrupted at step {stopped} of {STEPS}" in host.text()
    # Host 0 is late for the first step, and at the end later than the heartbeat's timeout.
    dawdling = (
        "import time\n"
        "import ecvae_jax.training.loop as loop\n"
        "def after(seconds, work):\n"
        "    return lambda *given: (time.sleep(0 if index else seconds), work(*given))[1]\n"
        f"loop.first_examples, loop.peak_memory = after({late}, loop.first_examples), after({end}, loop.peak_memory)"
    )
    hosts = fork_hosts(arguments, tmp_path, dawdling, ECVAE_HOST_TIMEOUT=timeout)
    end_with(hosts, 0)
    assert_same(load_model(workdir).params, load_model(undisturbed).params)


@pytest.mark.parametrize("signaled", [(0, 1), (1,)])
def test_sigterm_between_joining_and_the_first_step_ends_both_to_be_tried_again(
    config_file: Path, tmp_path: Path, signaled: tuple[int, ...]
) -> None:
    """Also where one host alone gets it: the other one notices that host's end."""
    workdir = tmp_path / "run"
    waiting = (
        "import time\n"
        "import ecvae_jax.training.loop as loop\n"
        "load_faces = loop.load_faces\n"
        "def loading(*given):\n"
        "    print('joined', flush=True)\n"
        f"    time.sleep({LONG} if index in {signaled} else 0)\n"
        "    return load_faces(*given)\n"
        "loop.load_faces = loading"
    )
    hosts = fork_hosts([str(config_file), "--workdir", str(workdir)], tmp_path, waiting)
    wait_until(lambda: all("joined" in host.text() for host in hosts), *hosts)
    for index in signaled:
        hosts[index].send_signal(signal.SIGTERM)
    end_with(hosts, TRY_AGAIN)
    assert not list(workdir.rglob("checkpoints/*"))
    for index in signaled:
        line = "ecvae: interrupted by SIGTERM; run the same command again to resume"
        assert hosts[index].text().count(line) == 1
        assert "Traceback" not in hosts[index].text()


def test_a_lost_host_stops_the_other_with_a_message(config_file: Path, undisturbed: Path, tmp_path: Path) -> None:
    """By pmap, whose numbers until then are those of shard_map."""
    workdir = tmp_path / "run"
    arguments = [str(config_file), "--workdir", str(workdir), "--train.parallel", "pmap", "--train.steps", "100000",
                 "--train.keep-checkpoints", "100000"]  # fmt: skip
    hosts = fork_hosts(arguments, tmp_path, "", ECVAE_HOST_TIMEOUT="6")
    wait_until((workdir / "checkpoints" / str(STORED)).is_dir, *hosts)
    hosts[1].kill()
    assert hosts[0].wait() == TRY_AGAIN
    # JAX's threads may write their own lines at any time.
    said = [line for line in hosts[0].text().splitlines() if line.startswith("ecvae: error: ")]
    assert len(said) == 1
    assert said[0].startswith("ecvae: error: another host of this training was lost")
    assert str(workdir) in said[0]
    stored = Path("checkpoints") / str(STORED)
    assert_close(load_model(workdir / stored).params, load_model(undisturbed / stored).params)


def refused(hosts: list[Forked], workdir: Path) -> str:
    """Waits for hosts that refuse to train; returns their line, the same on both."""
    end_with(hosts, 1)
    lines = [[line for line in host.text().splitlines() if not line.startswith("[Gloo]")] for host in hosts]
    assert lines[0] == lines[1]
    (line,) = lines[0]
    assert line.startswith("ecvae: error: the hosts of this training differ: ")
    assert not workdir.exists()
    return line


def test_hosts_with_other_settings_name_them_and_train_nothing(config_file: Path, tmp_path: Path) -> None:
    """Without the comparison, another learning rate trains to the end and stores a mixture of both networks."""
    workdir = tmp_path / "run"
    other = (
        "import ecvae_jax.training.facts as facts, ecvae_jax.training.loop as loop, dataclasses\n"
        "train = loop.train\n"
        "def changed(config, *given):\n"
        "    if index:\n"
        "        optim = dataclasses.replace(config.optim, learning_rate=1e-4)\n"
        "        train_config = dataclasses.replace(config.train, steps=20, batch_size=16, seed=1, hang_after=7.0)\n"
        "        config = dataclasses.replace(config, optim=optim, train=train_config)\n"
        "        facts.code_hash = lambda: 'f' * 16\n"
        "    return train(config, *given)\n"
        "loop.train = changed"
    )
    line = refused(fork_hosts([str(config_file), "--workdir", str(workdir)], tmp_path, other), workdir)
    assert "optim.learning_rate: 0.003 on host 0, 0.0001 on host 1" in line
    assert "train.steps: 16 on host 0, 20 on host 1" in line
    assert "train.batch_size: 8 on host 0, 16 on host 1" in line
    assert "train.seed: 0 on host 0, 1 on host 1" in line
    assert 'code of ecvae_jax: "' in line
    assert "hang_after" not in line  # each host may choose it
    assert line.endswith(": start the same command, with the same installation and records, on every host")


def test_hosts_with_other_records_under_one_name_train_nothing(experiment: Config, tmp_path: Path) -> None:
    from ecvae_jax.data.faces import load_faces
    from ecvae_jax.data.records import FaceRecord, write_records

    faces = load_faces(experiment.data.records, "train")
    columns = (faces.encoded(range(48)), faces.landmarks, faces.identities, faces.groups, faces.names, faces.tags)
    half = [FaceRecord(*fields) for fields in zip(*columns, strict=False)]
    shutil.copytree(experiment.data.records, tmp_path / "0" / "records")
    write_records(tmp_path / "1" / "records", {"train": half}, faces.metadata)
    config = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, records="records"))
    (tmp_path / "tiny.json").write_text(config.to_json())
    workdir = tmp_path / "run"
    moved = f"import os; os.chdir(f'{tmp_path}/{{index}}')"
    line = refused(fork_hosts([str(tmp_path / "tiny.json"), "--workdir", str(workdir)], tmp_path, moved), workdir)
    assert "records: faces: 96 on host 0, 48 on host 1" in line
    assert "records: fingerprint: " in line


def test_hosts_with_other_numbers_of_devices_are_refused(config_file: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    other = "import os\nos.environ['XLA_FLAGS'] = f'--xla_force_host_platform_device_count={1 + index}'"
    line = refused(fork_hosts([str(config_file), "--workdir", str(workdir)], tmp_path, other), workdir)
    assert line.endswith("differ: devices: 1 × cpu on host 0, 2 × cpu on host 1: use equal machines")


def test_records_missing_on_one_host_end_both_at_once(experiment: Config, tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    shutil.copytree(experiment.data.records, tmp_path / "1" / "records")
    config = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, records="records"))
    (tmp_path / "tiny.json").write_text(config.to_json())
    moved = f"import os; os.chdir(f'{tmp_path}/{{index}}')"
    hosts = fork_hosts([str(tmp_path / "tiny.json"), "--workdir", str(tmp_path / "run")], tmp_path, moved)
    end_with(hosts, 1)
    assert "ecvae: error: records 'records': no such folder" in hosts[0].text()
    assert "ecvae: error: host 0 failed: records 'records': no such folder" in hosts[1].text()


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
    shown = capsys.readouterr().err.strip()
    assert words in shown
    assert "\n" not in shown


def test_no_hosts_to_detect_is_one_line(tmp_path: Path) -> None:
    clean = environment(("SLURM", "OMPI", "JAX_COORD"))
    command = [sys.executable, "-m", "ecvae_jax", "train", "--workdir", str(tmp_path / "run"), "--hosts", "auto"]
    shown = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=LONG)
    assert shown.returncode == 1
    assert shown.stderr.count("\n") == 1
    assert "hosts=auto: no cluster detected" in shown.stderr
    # The training runs in a child process, which must receive -v too.
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
