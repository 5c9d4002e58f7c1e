"""Habits of a command line: names and groups in --help, completion, JSON for programs, NO_COLOR, cheap imports."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ecvae_jax
from ecvae_jax.checkpoints.load import stored_versions
from ecvae_jax.cli.commands import COMMANDS
from ecvae_jax.cli.main import main
from ecvae_jax.cli.options.kinds import STDOUT
from ecvae_jax.cli.results import show

EXPERIMENTS = {"train", "compare", "plan", "bench"}


def help_of(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    assert main([command, "--help"]) == 0
    return capsys.readouterr().out


# --- Help


def test_every_command_is_in_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    blocks = capsys.readouterr().out.split("\n\n")[1:-1]
    groups = {block.splitlines()[0]: re.findall(r"^  ([a-z]+) ", block, re.MULTILINE) for block in blocks}
    assert sorted(name for names in groups.values() for name in names) == sorted(COMMANDS)
    assert groups["faces:"] == ["prepare", "morph"]
    assert {"transfer", "sample", "serve"} <= set(groups["a trained model:"])
    assert all(line.startswith("  ") for block in blocks for line in block.splitlines()[1:])


@pytest.mark.parametrize("command", COMMANDS)
def test_positionals_have_names_and_no_option_shows_none(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = help_of(command, capsys, monkeypatch)
    if command in EXPERIMENTS:
        assert shown.splitlines()[0].startswith(f"usage: ecvae {command} [CONFIG] ")
        assert "\nCONFIG: an experiment, before all options" in shown
        shown = shown.partition(" data options ")[0]
    usage = shown.partition("\n\n")[0]
    names = usage.rpartition("]")[2] if "[FOLDER]" not in usage else ""
    assert not {"STR", "PATH", "INT"} & set(names.split())
    assert "{None}|" not in shown
    assert "(default: None)" not in shown.partition("--path")[0]  # of a walk, None is a choice


@pytest.mark.parametrize(("command", "names"), [("prepare", "SOURCE OUT"), ("morph", "RECORDS OUT"), ("info", "PATH")])
def test_the_names_of_positionals(
    command: str, names: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert re.search(rf"\b{names}( |$)", help_of(command, capsys, monkeypatch).splitlines()[0])


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_no_color_is_respected(no_color: str, colored: bool, tmp_path: Path) -> None:
    terminal, other = pty.openpty()
    environment = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm-256color", "COLUMNS": "80"}
    subprocess.run(
        [sys.executable, "-m", "ecvae_jax", "morph", "--help"], env=environment, stdout=other, check=True, stderr=other
    )
    os.close(other)
    shown = b""
    try:
        while piece := os.read(terminal, 65536):
            shown += piece
    except OSError:  # the end, on Linux
        pass
    os.close(terminal)
    assert b"RECORDS" in shown
    assert (b"\x1b[" in shown) == colored


# --- Completion


def completed(script: Path, *words: str) -> list[str]:
    """What bash proposes for the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _ecvae; "
        'printf "%s\\n" "${#COMPREPLY[@]}" "${COMPREPLY[@]}"'
    )
    shown = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    count, *found = shown.stdout.splitlines()
    return found[: int(count)]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "ecvae.bash"
    with path.open("w") as file:
        subprocess.run([sys.executable, "-m", "ecvae_jax", "completion", "bash"], stdout=file, check=True)
    return path


def test_bash_completes_commands_options_and_choices(script: Path) -> None:
    assert completed(script, "ecvae", "tra") == ["train", "transfer"]
    assert completed(script, "ecvae", "") == ["-h", "--help", *sorted(COMMANDS)]
    assert completed(script, "ecvae", "transfer", "--check") == ["--checkpoint"]
    assert completed(script, "ecvae", "train", "--train.hang") == ["--train.hang-after", "--train.hang-exit"]
    assert completed(script, "ecvae", "export", "--format", "s") == ["small", "stablehlo", "safetensors"]


def test_a_description_is_no_proposal(script: Path) -> None:
    for command in ("transfer", "train", "evaluate"):
        proposed = completed(script, "ecvae", command, "--")
        assert all(word.startswith("--") for word in proposed), command


def test_bash_completes_files_where_nothing_else_is_known(script: Path) -> None:
    assert completed(script, "ecvae", "transfer", "--source", "a") == []
    assert "complete -o default -F _ecvae ecvae" in script.read_text()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "--checkpoint" in text
    assert "_tyro_ecvae" in text
    assert text.startswith("#compdef ecvae" if shell == "zsh" else "# AUTOMATICALLY GENERATED by tyro")
    if shutil.which(shell) is None:
        return  # its syntax is checked where the shell is installed
    (tmp_path / "script").write_text(text)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == 2
    assert "see `ecvae completion --help`" in capsys.readouterr().err


# --- JSON


def test_json_of_a_checkpoint(tiny_workdir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["info", str(tiny_workdir), "--json", "-"]) == 0
    shown = capsys.readouterr()
    facts = json.loads(shown.out)
    assert shown.err == ""
    model = ecvae_jax.load_model(tiny_workdir)
    assert (facts["kind"], facts["step"], facts["steps"]) == ("checkpoint", 10, 10)
    assert facts["config"] == json.loads(model.config.to_json())
    assert facts["parameters"] > 10000
    assert facts["versions"]["jax"] == version("jax")
    out = tmp_path / "facts.json"
    assert main(["info", str(tiny_workdir), "--json", str(out)]) == 0
    shown = capsys.readouterr()
    assert json.loads(out.read_text()) == facts
    assert shown.out.startswith("checkpoint ")
    assert shown.err == f"ecvae: written: {out}\n"


def test_json_of_records(tiny_records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tiny_records), "--json", "-"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["splits"] == {
        "test": {"faces": 48, "identities": 2, "groups": facts["splits"]["test"]["groups"]},
        "train": {"faces": 96, "identities": 4, "groups": facts["splits"]["train"]["groups"]},
    }
    assert facts["metadata"]["points"] == 98
    assert facts["bytes"] > 100_000


def test_json_of_an_evaluation(tiny_workdir: Path, tiny_records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "--checkpoint", str(tiny_workdir), "--data", str(tiny_records), "--metrics", "pixels"]
    assert main([*command, "--limit", "4", "--json", "-"]) == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["model"]["pairs"] == 4
    assert all(line.startswith("ecvae: ") for line in shown.err.splitlines())


def test_json_of_a_preparation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (120, 120, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    from drawn_faces import face_landmarks

    row = "a.png," + ",".join(f"{value:.2f}" for value in face_landmarks(120).reshape(-1))
    (tmp_path / "photos" / "landmarks68.csv").write_text(
        "image," + ",".join(f"x{i},y{i}" for i in range(68)) + f"\n{row}\n"
    )
    out = tmp_path / "out"
    assert main(["prepare", str(tmp_path / "photos"), str(out), "--size", "64", "--json", "-"]) == 0
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert (summary["found"], summary["kept"], summary["skipped"], summary["out"]) == (3, 1, 2, str(out))
    assert "1 kept" in shown.err


def test_results_are_lines_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def lines() -> list[str]:
        return ["first", "second"]

    show(lines, lambda: {"a": 1}, None)
    show(lines, lambda: {"a": 1}, tmp_path / "a.json")
    assert capsys.readouterr().out == "first\nsecond\n" * 2
    show(lines, lambda: {"a": 1}, STDOUT)
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        show(lines, lambda: {"a": float("nan")}, STDOUT)


@pytest.mark.parametrize("command", ["info rendered", "plan --topology v5e:2x2", "bench", "compare", "prepare a b"])
def test_json_goes_to_no_folder(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), "--json", "."]) == 2
    assert capsys.readouterr().err == (
        f"ecvae: error: json='.': is a folder; give a file name; see `ecvae {command.split()[0]} --help`\n"
    )


# --- Versions


def test_checkpoints_and_exports_name_their_versions(
    tiny_workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = {"Python": sys.version.split()[0], "ecvae_jax": ecvae_jax.__version__}
    wanted |= {name: version(name) for name in ("jax", "jaxlib", "flax", "orbax-checkpoint", "numpy")}
    assert stored_versions(tiny_workdir) == wanted
    assert main(["export", str(tiny_workdir), str(tmp_path / "small")]) == 0
    assert stored_versions(tmp_path / "small") == wanted
    pytest.importorskip("safetensors")
    assert main(["export", str(tiny_workdir), str(tmp_path / "st"), "--format", "safetensors"]) == 0
    assert json.loads((tmp_path / "st" / "model.json").read_text())["versions"] == wanted
    capsys.readouterr()
    assert main(["info", str(tmp_path / "small")]) == 0
    assert f"written by   Python {wanted['Python']}, ecvae_jax {ecvae_jax.__version__}, jax" in capsys.readouterr().out


def test_a_checkpoint_of_an_older_version_has_none() -> None:
    assert set(stored_versions("face256")) <= {
        "Python",
        "ecvae_jax",
        "jax",
        "jaxlib",
        "flax",
        "orbax-checkpoint",
        "numpy",
    }


# --- Imports


def test_drawing_imports_no_library_of_training_or_evaluation() -> None:
    code = (
        "import sys, ecvae_jax.synthesis.grids; "
        "heavy = {'tensorflow', 'tensorboard', 'sklearn', 'matplotlib', 'skimage', 'dlib', 'av', 'onnx', 'optax', "
        "'scipy.sparse.linalg'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
