"""SIGTERM and SIGHUP while a command starts, compiles, blocks in C, swallows the exit, or has a child."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import Forked, run_python, wait_until

from ecvae_jax.cli.main import main
from ecvae_jax.config import Config
from ecvae_jax.training import loop
from ecvae_jax.training.supervisor import TRY_AGAIN

SHORT = """
import ctypes, os, signal, sys, time
from ecvae_jax.cli import stopping
stopping.GRACE = 0.2
def me(number=signal.SIGTERM): os.kill(os.getpid(), number)
"""
LOCKED = "lock = ctypes.CDLL(None).pthread_mutex_lock; mutex = ctypes.create_string_buffer(64)\n"
INSIDE = "with stopping.unwinding_on_signals(75, 'try again\\n'):\n"


def ended(code: str, tmp_path: Path) -> tuple[int, str]:
    process = Forked(SHORT + code, tmp_path / "log")
    return process.wait(), process.text()


def test_sigterm_ends_a_process_that_is_blocked_in_c(tmp_path: Path) -> None:
    """A mutex locked twice never returns to Python, and its lock of the interpreter is free."""
    code = f"{LOCKED}{INSIDE}    print('blocked', flush=True)\n    lock(mutex); lock(mutex)"
    process = Forked(SHORT + code, tmp_path / "log")
    wait_until(lambda: "blocked" in process.text(), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == TRY_AGAIN
    assert process.text() == "blocked\ntry again\n"


def test_sigterm_unwinds_first(tmp_path: Path) -> None:
    code = f"{INSIDE}    try: me()\n    finally: print('cleaned', flush=True)"
    assert ended(code, tmp_path) == (TRY_AGAIN, "try again\ncleaned\n")


def test_sigterm_ends_a_process_that_swallowed_the_exit(tmp_path: Path) -> None:
    code = f"{INSIDE}    try: me()\n    except BaseException: pass\n    while True: time.sleep(0.1)"
    assert ended(code, tmp_path) == (TRY_AGAIN, "try again\n")


def test_a_training_that_handles_sigterm_has_all_the_time_it_needs(tmp_path: Path) -> None:
    code = f"{INSIDE}    signal.signal(signal.SIGTERM, lambda *_: print('saving', flush=True))\n"
    code += "    me(); time.sleep(1.0); print('saved', flush=True); signal.signal(signal.SIGTERM, signal.SIG_DFL)"
    assert ended(code, tmp_path) == (0, "saving\nsaved\n")


def test_a_child_that_gets_sigterm_leaves_its_parent_alone(tmp_path: Path) -> None:
    code = (
        INSIDE
        + """
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
        me()
        time.sleep(9)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    time.sleep(0.6)
    print("alive", flush=True)
"""
    )
    assert ended(code, tmp_path) == (0, "3\nalive\n")


def test_a_hangup_is_ignored_under_nohup_and_ends_other_commands(tmp_path: Path) -> None:
    code = f"{INSIDE}    me(signal.SIGHUP); print('alive', flush=True)"
    assert ended(f"signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{code}", tmp_path) == (0, "alive\n")
    assert ended(f"signal.signal(signal.SIGHUP, signal.SIG_DFL)\n{code}", tmp_path)[0] == 128 + signal.SIGHUP


def test_sigterm_within_an_import_raises_nothing_there(tmp_path: Path) -> None:
    """C++ modules abort on an exception while they are initialized."""
    (tmp_path / "heavy.py").write_text(
        "import os, signal\ntry: os.kill(os.getpid(), signal.SIGTERM)\nfinally: print('raised')\n"
    )
    code = f"sys.path.insert(0, {str(tmp_path)!r})\n{INSIDE}    import heavy"
    assert ended(code, tmp_path) == (TRY_AGAIN, "try again\n")


def test_handlers_are_installed_before_the_imports_that_take_time() -> None:
    shown = run_python("import sys, ecvae_jax.cli.main; print(*sys.modules)").stdout.split()
    assert not {"tyro", "rich", "numpy", "jax", "ecvae_jax.cli.commands", "ecvae_jax.config"} & set(shown)


@pytest.mark.parametrize(("command", "code"), [("train", 75), ("compare", 75), ("info", 143)])
def test_sigterm_at_the_start_of_a_command(command: str, code: int) -> None:
    """Sent by the first import of the command itself."""
    text = (
        "import os, signal, sys\n"
        "class Sends:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'ecvae_jax.cli.commands': os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Sends())\n"
        "from ecvae_jax.cli.main import main\n"
        f"sys.exit(main(['-v', {command!r}, 'rendered']))"
    )
    result = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert result.returncode == code
    line = "ecvae: interrupted by SIGTERM; run the same command again to resume\n"
    assert result.stderr == (line if code == TRY_AGAIN else "")


def test_sigterm_while_the_first_step_compiles_waits_for_no_step(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is lost before the first step."""
    experiment = tmp_path / "config.json"
    experiment.write_text(tiny_config.to_json())
    command = ["train", str(experiment), "--workdir", str(tmp_path / "run")]

    def compiling(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the step was not interrupted")

    monkeypatch.setattr(loop, "map_step", lambda step, kind: compiling)
    assert main(command) == TRY_AGAIN
    assert capfd.readouterr().err.count("interrupted by SIGTERM; run the same command again to resume") == 1
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_experiment_file_cannot_hide_sigterm(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`load_config` reports what the file raises, also SystemExit."""
    (tmp_path / "slow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    assert main(["train", str(tmp_path / "slow.py"), "--workdir", str(tmp_path / "run")]) == TRY_AGAIN
    assert "cannot be run" not in capfd.readouterr().err
