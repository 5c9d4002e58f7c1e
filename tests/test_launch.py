"""Every launch script runs: demo.sh in full with a short training, the others as far as possible offline."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))


def run(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # One device and default settings, as on a new machine.
    clean = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS" and not k.startswith("ECVAE_")}
    return subprocess.run(
        ["bash", str(script), *arguments], env={**clean, **environment}, capture_output=True, text=True, cwd=ROOT
    )


def source_environment(extras: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = f". {ROOT}/launch/environment.sh {extras}; echo $PYTHON"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ECVAE_")}
    return subprocess.run(["bash", "-c", code], cwd=ROOT, env={**clean, **environment}, capture_output=True, text=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shell_can_read_it(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.slow
def test_demo_trains_evaluates_and_draws(tmp_path: Path) -> None:
    shown = run(
        ROOT / "launch" / "demo.sh",
        "--train.steps",
        "3",
        "--model.image-size",
        "32",
        "--model.widths",
        "16",
        "32",
        ECVAE_READY_PYTHON=sys.executable,
        ECVAE_DEMO=str(tmp_path),
    )
    assert shown.returncode == 0, shown.stderr[-2000:]
    lines = [line.split()[0] for line in shown.stdout.splitlines()]
    assert lines[:8] == ["reconstruction", "plain", "transfer", "copy", "warp", "likelihood", "kl", "samples"]
    assert (tmp_path / "transfer.png").is_file()
    assert (tmp_path / "sample.png").is_file()


def test_test_command_runs_style_types_and_tests(tmp_path: Path) -> None:
    # The stub only records style and types: they passed before this suite, and pyright takes half a minute.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$2" >> {tmp_path}/ran\n[ "$2" != pytest ] || exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    shown = run(ROOT / "launch" / "test.sh", "--collect-only", "tests/test_config.py", ECVAE_READY_PYTHON=str(python))
    assert shown.returncode == 0, shown.stdout[-2000:] + shown.stderr[-2000:]
    assert "test_json_round_trip" in shown.stdout
    # Types are checked beside the tests.
    assert (tmp_path / "ran").read_text().split()[:2] == ["ruff", "ruff"]
    assert sorted((tmp_path / "ran").read_text().split()[2:]) == ["pyright", "pytest"]


def test_failed_check_fails_the_test_command(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$2" != pyright ]\n')
    python.chmod(0o755)
    assert run(ROOT / "launch" / "test.sh", ECVAE_READY_PYTHON=str(python)).returncode == 1


def test_no_python_is_one_line(tmp_path: Path) -> None:
    shown = run(ROOT / "launch" / "demo.sh", ECVAE_PYTHON="/does/not/exist", ECVAE_VENV=str(tmp_path / "venv"))
    assert shown.returncode == 1
    assert "Python 3.11, 3.12 or 3.13" in shown.stderr
    assert len(shown.stderr.strip().splitlines()) == 1


def test_ci_runs_the_test_command() -> None:
    assert "bash launch/test.sh" in (ROOT / ".ci" / "run").read_text()


def test_heads_without_their_assets_are_one_line(tmp_path: Path) -> None:
    script = ROOT / "launch" / "render_heads.sh"
    usage = run(script)
    assert usage.returncode == 2
    assert usage.stderr.startswith("usage: bash launch/render_heads.sh OUT")
    shown = run(script, str(tmp_path / "out"), ECVAE_READY_PYTHON=sys.executable, ECVAE_HEAD_ASSETS=str(tmp_path))
    assert shown.returncode == 1
    assert "has no mpfb2/3dobjs/base.obj" in shown.stderr
    assert len(shown.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_foreign_folder_is_unchanged(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    shown = run(ROOT / "launch" / "test.sh", ECVAE_VENV=str(tmp_path), ECVAE_PYTHON=sys.executable)
    assert shown.returncode == 1
    assert "exists and is no Python environment" in shown.stderr
    assert (tmp_path / "mine").read_text() == "precious"


def test_environment_of_the_same_settings_is_reused(tmp_path: Path) -> None:
    """Only the stamp of the installed settings is compared, so the second call starts at once."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    settings = (ROOT / "pyproject.toml").read_bytes()
    stamp = subprocess.run(["cksum"], input=settings, capture_output=True, check=True).stdout.decode().strip()
    (tmp_path / "installed").write_text(f"{stamp} [dev]\n")
    shown = source_environment("dev", ECVAE_VENV=str(tmp_path), ECVAE_PYTHON=sys.executable)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip() == f"{tmp_path}/bin/python"


# Stands for the Python that creates the environment, and, copied into it, for the Python inside.
CREATOR = """#!/bin/sh
case "$*" in
  --version) echo Python 3.12.0 ;;
  "-m venv "*) mkdir -p "$3/bin"; touch "$3/pyvenv.cfg"; cp "$0" "$3/bin/python" ;;
  "-m pip install "*) echo "noise: $*"; echo "WARNING: noise" >&2; case "$*" in *--editable*) exit CODE ;; esac ;;
esac
"""


@pytest.mark.parametrize("code", [0, 1])
def test_installation_prints_one_line_a_step_and_names_its_log(tmp_path: Path, code: int) -> None:
    python, venv = tmp_path / "python", tmp_path / "venv"
    python.write_text(CREATOR.replace("CODE", str(code)))
    python.chmod(0o755)
    shown = source_environment("mediapipe", ECVAE_VENV=str(venv), ECVAE_PYTHON=str(python))
    assert shown.returncode == code
    lines = shown.stderr.splitlines()
    assert all(line.startswith("launch: ") for line in lines)
    assert "noise: -m pip install" in (venv / "install.log").read_text()
    assert "WARNING: noise" in (venv / "install.log").read_text()
    if code:
        assert len(lines) == 4
        assert lines[-1] == f"launch: installing ecvae_jax[mediapipe] failed; see the end of {venv}/install.log"
        assert not (venv / "installed").exists()
    else:
        assert len(lines) == 4  # environment, pip, the package, MediaPipe's networks
        assert shown.stdout.strip() == f"{venv}/bin/python"
