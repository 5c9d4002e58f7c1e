"""The `ecvae` command: exit codes, one-line errors, and each subcommand run for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import face_landmarks
from PIL import Image
from support.processes import Forked

from ecvae_jax import __version__
from ecvae_jax.cli.commands import COMMANDS
from ecvae_jax.cli.main import main
from ecvae_jax.config import Config


@pytest.fixture(scope="module")
def workdir(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training made by the command itself, from an experiment file."""
    folder = tmp_path_factory.mktemp("cli")
    experiment = folder / "experiment.py"
    text = tiny_config.to_json()
    experiment.write_text(f"from ecvae_jax.config import Config\nconfig = Config.from_json({text!r})\n")
    assert main(["train", str(experiment), "--workdir", str(folder / "run"), "--train.log-every", "2"]) == 0
    return folder / "run"


def test_help_lists_every_command_without_loading_jax() -> None:
    code = (
        "import sys; from ecvae_jax.cli.main import main; assert main(['--help']) == 0; "
        "heavy = {'jax', 'numpy', 'tensorflow', 'flax', 'optax', 'orbax', 'sklearn', 'scipy', 'dlib', 'PIL'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in shown.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: ecvae {command}" in capsys.readouterr().out


def test_version_and_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    assert main([]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["trian"], 2, "did you mean 'train'?"),
        (["frobnicate"], 2, "the commands are"),
        (["train", "missing.py", "--workdir", "x"], 1, "config 'missing.py': no such file"),
        (["train", "--train.steps", "0"], 2, "steps=0: must be at least 1"),
        (["train", "exits.py", "--workdir", "x"], 1, "config 'exits.py' cannot be run: SystemExit: 0"),
        (["train", "--workdir", "x", "exits.py"], 2, "CONFIG comes first: ecvae train CONFIG [options]"),
        (["evaluate", "--checkpoint", "nowhere", "--limit", "0"], 2, "limit=0: must be at least 1"),
        (["evaluate", "--checkpoint", "nowhere", "--seed", "-1"], 2, "seed=-1: must not be negative"),
        (["evaluate", "--checkpoint", "nowhere", "--out", "."], 2, "is a folder"),
        (["evaluate", "--checkpoint", "nowhere", "--markdown", "."], 2, "markdown='.': is a folder"),
        (["evaluate", "--checkpoint", "nowhere", "--figure", "a.jpg"], 2, "figure='a.jpg': must end in .png"),
        (["evaluate", "--checkpoint", "nowhere", "--save-images", "exits.py"], 2, "save_images='exits.py': is a file"),
        (["evaluate", "--checkpoint", "nowhere", "--features", "inception"], 1, "must be MODULE:FUNCTION"),
        (["evaluate", "--checkpoint", "nowhere", "--metrics", "lpips"], 2, "--metrics"),
        (["sample", "--checkpoint", "nowhere", "--structure", "a", "--seed", "-1"], 2, "seed=-1"),
        (["train", "--train.stepz", "5"], 2, "train.stepz"),
        (["train", "--allow-change", "train.steps,model.z_dim"], 2, "allow-change 'model.z_dim': cannot be changed"),
        (["transfer", "--checkpoint", "c"], 2, "--source"),
        (["sample", "--checkpoint", "c", "--structure", "a", "--n", "x"], 2, "--n"),
        (["sample", "--checkpoint", "c", "--structure", "a", "--n", "0"], 2, "n=0: must be at least 1"),
        (["sample", "--structure", "a", "--temperature", "-1"], 2, "temperature=-1.0: must be 0 or more"),
        (["sample", "--structure", "a", "--data", "r"], 2, "add --from posterior"),
        (["export", "c", "o", "--data", "r"], 2, "add --density 64"),
        (["export", "c", "o", "p"], 2, "3 paths: give [CHECKPOINT] OUT"),
        (["export", "c", "o", "--overwrite"], 2, "a checkpoint is not replaced"),
        (["export", "nowhere", "o", "--format", "onnx"], 1, "checkpoint 'nowhere': no such"),
        (["sample", "--checkpoint", "c", "--structure", "a", "--out", "a.jpg"], 2, "must end in .png"),
        (["train", "--data.records", "elsewhere"], 2, "--workdir is required"),
        (["train", "--data.records", "elsewhere", "--workdir", "WORK"], 1, "no such folder"),
        (["transfer", "--checkpoint", "nowhere", "--source", "a", "--target", "b"], 1, "checkpoint 'nowhere': no such"),
        (["sample", "--checkpoint", "nowhere", "--structure", "a", "--enlarge", "0"], 2, "enlarge=0"),
        (["evaluate", "--checkpoint", "nowhere"], 1, "checkpoint 'nowhere': no such"),
        (["compare", "--seeds", "2"], 2, "--workdir is required"),
        (["compare", "--workdir", "x", "--seeds", "0"], 2, "seeds=0: must be at least 1"),
        (["compare", "--workdir", "x", "exits.py"], 2, "CONFIG comes first: ecvae compare CONFIG [options]"),
        (["compare", "--workdir", "x", "--variants", "standart"], 1, "did you mean 'standard'?"),
        (["compare", "--workdir", "x", "--variants", "standard", "--split", "tset"], 1, "split 'tset'"),
        (["figure", "4", "--checkpoint", "nowhere"], 2, "see `ecvae figure --help`"),
        (["figure", "2", "--checkpoint", "nowhere"], 1, "checkpoint 'nowhere': no such"),
        (["figure", "2", "--checkpoint", "nowhere", "--out", "a.jpg"], 2, "must end in .png"),
        (["info", "nowhere"], 1, "no such folder"),
        (["prepare", "nowhere", "out"], 1, "nowhere"),
    ],
)
def test_wrong_input_is_one_line_and_a_code(
    arguments: list[str],
    code: int,
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exits.py").write_text("import sys; sys.exit(0)")
    assert main([word.replace("WORK", str(tmp_path / "w")) for word in arguments]) == code
    shown = capsys.readouterr()
    printed = shown.err + shown.out
    assert words in printed
    assert "Traceback" not in printed
    assert len(printed.strip().splitlines()) == 1
    assert shown.err.startswith("ecvae: error: ")


def test_verbose_shows_the_traceback() -> None:
    from ecvae_jax.checkpoints.store import CheckpointError

    with pytest.raises(CheckpointError):
        main(["info", "nowhere", "-v"])


def test_info_of_a_checkpoint_has_one_line_a_fact(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(workdir)]) == 0
    shown = capsys.readouterr().out
    assert "step 10 of 10" in shown
    assert "98 landmarks, 6 clusters" in shown
    facts, settings = shown.split("\nsettings\n")
    assert not {"{", "'"} & set(facts)  # no Python objects
    assert "\n  detector     exact\n" in facts
    assert Config.from_json(settings).train.steps == 10


def test_every_setting_that_differs_has_a_line(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(workdir.parent / "experiment.py"), "--workdir", str(workdir)]
    assert main([*command, "--model.z-dim", "64", "--train.steps", "12", "--allow-change", "train.steps"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "other settings, stored -> given: model.z_dim: 32 -> 64 (cannot be changed)" in line
    assert main([*command, "--optim.learning-rate", "0.001", "--train.steps", "12"]) == 1
    first, *others = capsys.readouterr().err.splitlines()
    assert "--allow-change optim.learning_rate,train.steps`" in first
    assert others == ["ecvae:     optim.learning_rate: 0.003 -> 0.001", "ecvae:     train.steps: 10 -> 12"]


def test_info_of_records(tiny_records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tiny_records)]) == 0
    shown = capsys.readouterr().out
    assert "96 faces, 4 identities" in shown
    assert "48 faces, 2 identities" in shown
    assert "yaw" in shown
    assert "inside the crop; roll" in shown
    assert "centers of 8 clusters" in shown
    assert sum(0x2800 < ord(character) <= 0x28FF for character in shown) > 200  # drawings


def test_transfer_draws_a_grid(workdir: Path, tiny_records: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    command = ["transfer", "--checkpoint", str(workdir), "--out", str(out), "--enlarge", "2"]
    command += ["--source", f"{tiny_records}:test:0,24", "--target", f"{tiny_records}:test:1-3"]
    assert main(command) == 0
    picture = np.asarray(Image.open(out))
    assert picture.shape == (2 * (4 * 34 + 2), 2 * (5 * 34 + 2), 3)  # two borders and 2 × 3 faces, doubled
    plain = picture.copy()
    assert main([*command, "--no-transport"]) == 0
    assert not np.array_equal(np.asarray(Image.open(out)), plain)


def test_sample_draws_a_grid(workdir: Path, tiny_records: Path, tmp_path: Path) -> None:
    out = tmp_path / "sample.png"
    command = ["sample", "--checkpoint", str(workdir), "--structure", f"{tiny_records}:test:0,9", "--n", "3"]
    assert main([*command, "--out", str(out)]) == 0
    assert np.asarray(Image.open(out)).shape == (2 * 34 + 2, 4 * 34 + 2, 3)


def test_evaluate_prints_and_writes(
    workdir: Path, tiny_records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    command = ["evaluate", "--checkpoint", str(workdir), "--data", str(tiny_records), "--out", str(out)]
    assert main([*command, "--metrics", "pixels"]) == 0
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["reconstruction", "plain", "transfer", "copy", "warp", "likelihood", "kl", "samples"]
    stored = json.loads(out.read_text())
    assert stored["model"]["pairs"] == stored["copy"]["pairs"] == 48
    assert stored["model"]["identity"] is stored["warp"]["nme"] is stored["copy"]["face_found"] is None


def test_prepare_a_folder_with_given_landmarks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, source = np.random.default_rng(0), tmp_path / "photos"
    source.mkdir()
    rows = ["image," + ",".join(f"x{i},y{i}" for i in range(68))]
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(rng.integers(0, 255, (120, 120, 3)).astype(np.uint8)).save(source / name)
        rows.append(name + "," + ",".join(f"{v:.2f}" for v in face_landmarks(120).reshape(-1)))
    (source / "landmarks68.csv").write_text("\n".join(rows) + "\n")
    (source / "broken.jpg").write_bytes(b"")
    assert main(["prepare", str(source), str(tmp_path / "out"), "--size", "64"]) == 0
    report = (tmp_path / "out" / "report.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in report[1:]] == [
        ["a.png", "kept"],
        ["b.png", "kept"],
        ["broken.jpg", "rejected"],
        ["c.png", "kept"],
        ["landmarks68.csv", "skipped"],
    ]
    assert main(["info", str(tmp_path / "out")]) == 0
    assert "68" in capsys.readouterr().out
    assert main(["prepare", str(source), str(tmp_path / "out")]) == 1


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "train --help",
        "train --help -v",
        "info rendered",
        pytest.param("info rendered -v", marks=pytest.mark.slow),
        "info nowhere",
    ],
)
@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout-and-stderr"])
def test_closed_pipe_is_quiet(words: str, both: bool, tmp_path: Path) -> None:
    """As in `ecvae info X | head`, where the reader leaves first: exit code 141, as of `yes | head`."""
    reader, writer = os.pipe()
    os.close(reader)
    with (tmp_path / "err").open("w") as err:
        command = [sys.executable, "-m", "ecvae_jax", *words.split()]
        ended = subprocess.run(command, stdout=writer, stderr=writer if both else err)
    os.close(writer)
    failed = "nowhere" in words and not both  # it writes nothing to the pipe
    assert ended.returncode == (1 if failed else 141)
    assert len((tmp_path / "err").read_text().splitlines()) == failed


@pytest.mark.parametrize(
    ("variables", "words", "line"),
    [
        ({"JAX_PLATFORMS": "cuda"}, "info PATH", "JAX_PLATFORMS='cuda': JAX finds no such device here"),
        ({"JAX_PLATFORMS": "abacus"}, "train --workdir PATH/w", "JAX_PLATFORMS='abacus': JAX finds no such device"),
        ({"JAX_TRANSFER_GUARD": "disallow"}, "info PATH", "JAX_TRANSFER_GUARD='disallow': commands move arrays"),
        (
            {"JAX_TRANSFER_GUARD_DEVICE_TO_HOST": "disallow_explicit"},
            "train",
            "JAX_TRANSFER_GUARD_DEVICE_TO_HOST='disallow_explicit': commands move arrays",
        ),
        ({"JAX_NUMPY_DTYPE_PROMOTION": "strict"}, "train", "JAX_NUMPY_DTYPE_PROMOTION='strict': commands combine"),
        ({"JAX_DISABLE_JIT": "1"}, "train", "JAX_DISABLE_JIT='1': without compiled programs"),
    ],
)
def test_an_environment_without_a_device_or_transfers_is_one_line(
    variables: dict[str, str], words: str, line: str, tiny_workdir: Path
) -> None:
    command = [word.replace("PATH", str(tiny_workdir)) for word in words.split()]
    ended = subprocess.run(
        [sys.executable, "-m", "ecvae_jax", *command], env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith(f"ecvae: error: {line}")
    assert "unset" in ended.stderr


def test_a_report_is_written_before_it_is_printed(workdir: Path, tiny_records: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    command = ["evaluate", "--checkpoint", str(workdir), "--data", str(tiny_records), "--metrics", "pixels"]
    command += ["--limit", "4"]
    code = (
        "import os, sys; from ecvae_jax.cli.main import main\n"
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
        f"sys.exit(main({[*command, '--out', str(out)]!r}))"
    )
    ended = Forked(code, tmp_path / "err")
    assert ended.wait() == 1
    assert "No space left on device" in ended.text()
    assert json.loads(out.read_text())["model"]["pairs"] == 4


def test_a_path_of_too_many_folders_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`Path.mkdir` makes parents by recursion."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "photos" / "a.png")
    assert main(["prepare", "photos", "a/" * 1500 + "o"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "ecvae: error: a path has too many folders inside each other: give a shorter one"
    )


def test_module_is_the_command() -> None:
    shown = subprocess.run([sys.executable, "-m", "ecvae_jax", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"ecvae {__version__}\n"


@pytest.mark.parametrize("columns", ["1", "5", "39"])
def test_the_help_ends_on_a_narrow_terminal(columns: str) -> None:
    command = [sys.executable, "-m", "ecvae_jax", "completion", "--help"]
    ended = subprocess.run(command, env={**os.environ, "COLUMNS": columns}, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 0
    assert max(map(len, ended.stdout.splitlines())) > int(columns)


@pytest.mark.parametrize(
    "command",
    ["prepare PHOTOS OUT --workers 1 --size 16", "info OUT", "train --workdir OUT", "export face128 OUT"],
)
def test_a_path_that_is_not_utf_8_is_one_line(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from drawn_faces import make_photos

    make_photos(tmp_path / "photos", people=1, shots=1)
    out = tmp_path / "o\udcff"
    if command.startswith("info"):
        out.mkdir()
        (out / "dataset_info.json").write_text("{}")
    words = [{"PHOTOS": str(tmp_path / "photos"), "OUT": str(out)}.get(word, word) for word in command.split()]
    assert main(words) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "is not UTF-8 here: give another name" in lines[0]
