"""Every launch script is run: demo.sh in full, only shorter; the others as far as they go without the network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))


def run(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # One device and no settings of ours, as a newcomer has.
    clean = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS" and not k.startswith("ECVAE_")}
    return subprocess.run(
        ["bash", str(script), *arguments], env={**clean, **environment}, capture_output=True, text=True, cwd=ROOT
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_shell_can_read_it(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.slow
def test_demo_trains_evaluates_and_draws(tmp_path: Path) -> None:
    shown = run(
        ROOT / "launch" / "demo.sh", "--train.steps", "3", "--model.image-size", "32", "--model.widths", "16", "32",
        ECVAE_READY_PYTHON=sys.executable, ECVAE_DEMO=str(tmp_path),
    )
    assert shown.returncode == 0, shown.stderr[-2000:]
    lines = [line.split()[0] for line in shown.stdout.splitlines()]
    assert lines[:7] == ["reconstruction", "plain", "transfer", "copy", "warp", "likelihood", "samples"]
    assert (tmp_path / "transfer.png").is_file()
    assert (tmp_path / "sample.png").is_file()


def test_tests_are_run_in_the_environment_after_style_and_types(tmp_path: Path) -> None:
    # Style and types are noted only: this suite runs after they passed, and pyright takes half a minute.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$2" >> {tmp_path}/ran\n[ "$2" != pytest ] || exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    shown = run(ROOT / "launch" / "test.sh", "--collect-only", "tests/test_config.py", ECVAE_READY_PYTHON=str(python))
    assert shown.returncode == 0, shown.stdout[-2000:] + shown.stderr[-2000:]
    assert "test_json_round_trip" in shown.stdout
    # Types are checked beside the tests.
    assert (tmp_path / "ran").read_text().split()[:2] == ["ruff", "ruff"]
    assert sorted((tmp_path / "ran").read_text().split()[2:]) == ["pyright", "pytest"]


def test_what_fails_a_check_fails_the_test_command(tmp_path: Path) -> None:
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


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    shown = run(ROOT / "launch" / "test.sh", ECVAE_VENV=str(tmp_path), ECVAE_PYTHON=sys.executable)
    assert shown.returncode == 1
    assert "is there and is no Python environment" in shown.stderr
    assert (tmp_path / "mine").read_text() == "precious"


def test_an_environment_of_the_same_settings_is_used_again(tmp_path: Path) -> None:
    """The stamp of what was installed is all that is looked at, so the second call starts at once."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    settings = (ROOT / "pyproject.toml").read_bytes()
    stamp = subprocess.run(["cksum"], input=settings, capture_output=True, check=True).stdout.decode().strip()
    (tmp_path / "installed").write_text(f"{stamp} [dev]\n")
    code = f". {ROOT}/launch/environment.sh dev; echo $PYTHON"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ECVAE_")}
    environment = {**clean, "ECVAE_VENV": str(tmp_path), "ECVAE_PYTHON": sys.executable}
    shown = subprocess.run(["bash", "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == f"{tmp_path}/bin/python"
