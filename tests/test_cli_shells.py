"""The scripts of `ecvae completion` run by zsh and fish themselves; tests/test_cli_habits.py has bash."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ecvae_jax.cli.main import main

needs_zsh = pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed: apt-get install zsh")
needs_fish = pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed: apt-get install fish")
PROMPT = "ready> "
LONG = 60.0
"""Seconds for one answer of a shell: far beyond what it takes."""


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script of the shell, alone in a folder, and beside it a folder with one photo."""
    assert main(["completion", request.param]) == 0
    (tmp_path / "site").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "anna at sea.jpg").touch()
    file = tmp_path / "site" / "_ecvae"
    file.write_text(capsys.readouterr().out)
    return file


def fish(script: Path, line: str) -> list[str]:
    """What fish proposes for the end of a line, without the descriptions."""
    code = f'source {script}; complete -C "{line}"'
    environment = {**os.environ, "HOME": str(script.parent)}
    shown = subprocess.run(
        ["fish", "--no-config", "-c", code],
        capture_output=True, text=True, check=True, env=environment, cwd=script.parents[1] / "photos",
    )  # fmt: skip
    assert shown.stderr == ""
    return [proposal.partition("\t")[0] for proposal in shown.stdout.splitlines()]


class Zsh:
    """An interactive zsh on a terminal, without the user's settings."""

    def __init__(self, folder: Path, setup: str) -> None:
        self.shown = ""
        pid, self.terminal = pty.fork()
        if not pid:
            os.chdir(folder)
            os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb", "PS1": "", "HOME": str(folder)})
        self.pid = pid
        self.type(f"unsetopt beep; LISTMAX=1000; autoload -Uz compinit; {setup}; PS1='{PROMPT[:3]}''{PROMPT[3:]}'\n")
        self.read_until(PROMPT)

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def read_until(self, text: str) -> str:
        """Returns what is shown up to a text; what follows is kept for the next call."""
        end = time.monotonic() + LONG
        while text not in self.shown:
            assert time.monotonic() < end, f"zsh shows {self.shown!r}, not {text!r}"
            if select.select([self.terminal], [], [], 0.2)[0]:
                self.shown += os.read(self.terminal, 65536).decode(errors="replace")
        found, _, self.shown = self.shown.partition(text)
        return found

    def completed(self, line: str) -> list[str]:
        """The words of the line after a tab, printed between two marks that the typed keys do not show."""
        self.type(f"{line}\t\x01print -rl -- '<''<' \x05 '>''>'\n")
        return self.read_until(">>").partition("<<")[2].split("\r\n")[1:-1]

    def proposed(self, line: str, wanted: str) -> str:
        """What is listed below an ambiguous line."""
        self.type(f"{line}\t")
        shown = self.read_until(wanted)
        self.type("\x15\n")
        return shown

    def close(self) -> None:
        self.type("\x15exit\n")
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


@needs_fish
@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish_completes_commands_options_choices_and_files(script: Path) -> None:
    assert fish(script, "ecvae tra") == ["train", "transfer"]
    assert fish(script, "ecvae transfer --check") == ["--checkpoint"]
    assert fish(script, "ecvae export --format s") == ["safetensors", "small", "stablehlo"]
    assert fish(script, "ecvae transfer --source an") == ["anna at sea.jpg"]
    assert fish(script, "ecvae transfer --source nothing") == []


@needs_zsh
@pytest.mark.parametrize("script", ["zsh"], indirect=True)
@pytest.mark.parametrize("installed", ["autoloaded", "sourced"])
def test_zsh_completes_commands_options_choices_and_files(script: Path, installed: str) -> None:
    setup = f"fpath=({script.parent} $fpath); compinit -u -D" if installed == "autoloaded" else "compinit -u -D"
    shell = Zsh(script.parents[1] / "photos", setup + ("" if installed == "autoloaded" else f"; source {script}"))
    try:
        assert shell.completed("ecvae transf") == ["ecvae", "transfer"]
        assert shell.completed("ecvae transfer --check") == ["ecvae", "transfer", "--checkpoint"]
        assert shell.completed("ecvae export --format st") == ["ecvae", "export", "--format", "stablehlo"]
        assert shell.completed("ecvae transfer --source an") == ["ecvae", "transfer", "--source", "anna at sea.jpg"]
        assert shell.completed("ecvae transfer --source nothing") == ["ecvae", "transfer", "--source", "nothing"]
        assert "train " in shell.proposed("ecvae tra", "transfer ")
    finally:
        shell.close()
