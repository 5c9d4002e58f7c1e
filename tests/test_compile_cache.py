"""The cache of compiled programs: written, read, turned off, damaged, read-only; each case in its own process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ecvae_jax.cli.runtime import _prune
from ecvae_jax.config import Config

OURS = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "ECVAE_COMPILATION_CACHE")

COMPILE = """
from ecvae_jax.cli.runtime import use_compilation_cache
print(use_compilation_cache())
import jax
from ecvae_jax.training.monitor import CompileLog
with CompileLog() as log:
    @jax.jit
    def program(x):
        return jax.numpy.sin(x) + 1
    log.mark()
    print(program(jax.numpy.arange(3.0)).tolist())
    print(log.since_mark())
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # One device: with eight, a training of three steps takes half a minute more, and the cache is the same.
    clean = {name: value for name, value in os.environ.items() if name not in (*OURS, "XLA_FLAGS")}
    return subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, check=True
    )


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*-cache"))


def test_second_process_reads_what_the_first_compiled(tmp_path: Path) -> None:
    first = run(COMPILE, XDG_CACHE_HOME=str(tmp_path)).stdout.splitlines()
    stored = entries(tmp_path / "ecvae_jax" / "xla")
    assert any(path.name.startswith("jit_program-") for path in stored)
    second = run(COMPILE, XDG_CACHE_HOME=str(tmp_path)).stdout.splitlines()
    assert entries(tmp_path) == stored
    assert re.fullmatch(r"compiled in \d+\.\d s \(not yet in the compile cache .*/ecvae_jax/xla\)", first[2])
    assert re.fullmatch(r"compiled in \d+\.\d s \(read from the compile cache .*/ecvae_jax/xla\)", second[2])
    assert first[:2] == second[:2]
    assert first[0] == "None"


@pytest.mark.parametrize("value", ["off", "OFF"])
def test_off_keeps_nothing(tmp_path: Path, value: str) -> None:
    shown = run(COMPILE, XDG_CACHE_HOME=str(tmp_path), ECVAE_COMPILATION_CACHE=value).stdout
    assert shown.startswith("None\n")
    assert "(no compile cache)" in shown
    assert not list(tmp_path.iterdir())


def test_own_folder_and_jaxs_own_variable(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    run(COMPILE, ECVAE_COMPILATION_CACHE=str(ours))
    assert entries(ours)
    before = entries(ours)
    code = f"{COMPILE}print(jax.config.jax_compilation_cache_dir)"
    shown = run(code, ECVAE_COMPILATION_CACHE=str(ours), JAX_COMPILATION_CACHE_DIR=str(theirs)).stdout
    assert shown.splitlines()[-1] == str(theirs)
    assert entries(ours) == before


@pytest.mark.parametrize(
    "environment", [{"ECVAE_COMPILATION_CACHE": "FILE/below"}, {"ECVAE_COMPILATION_CACHE": "/proc/here"}]
)
def test_unwritable_folder_is_a_note_and_no_failure(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "file").write_text("")
    values = {name: value.replace("FILE", str(tmp_path / "file")) for name, value in environment.items()}
    note, result, how = run(COMPILE, **values).stdout.splitlines()
    assert note.startswith("compiled programs are not kept (")
    assert note.endswith(": set ECVAE_COMPILATION_CACHE to a writable folder, or to off")
    assert result.startswith("[1.0, ")
    assert how.endswith("(no compile cache)")


NOTE = "import os; os.umask(0); from ecvae_jax.cli.runtime import use_compilation_cache as use; print(use())\n"
NOTE += "print(os.environ.get('JAX_COMPILATION_CACHE_DIR'))"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o720, 0o702])
@pytest.mark.parametrize("where", ["own", "link", "default", "parent"])
def test_a_folder_that_others_may_write_is_a_note_and_no_cache(tmp_path: Path, where: str, mode: int) -> None:
    """Its programs would be run. A link is as safe as the folder that it names."""
    folder = tmp_path / "ecvae_jax" / "xla"
    folder.mkdir(parents=True, mode=0o700)
    unsafe = folder.parent if where == "parent" else folder
    unsafe.chmod(mode)
    (tmp_path / "link").symlink_to(folder)
    named = {"own": folder, "link": tmp_path / "link"}
    variables = {"ECVAE_COMPILATION_CACHE": str(named[where])} if where in named else {"XDG_CACHE_HOME": str(tmp_path)}
    note, used = run(NOTE, **variables).stdout.splitlines()
    assert note.startswith(f"compiled programs are not kept (other users may write {unsafe}")
    assert "chmod go-w" in note
    assert used == "None"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_a_note_and_no_cache(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    note, used = run(NOTE, ECVAE_COMPILATION_CACHE=str(folder)).stdout.splitlines()
    assert note.startswith(f"compiled programs are not kept ({folder} belongs to user 65534")
    assert used == "None"


@pytest.mark.parametrize("variable", ["ECVAE_COMPILATION_CACHE", "XDG_CACHE_HOME"])
def test_folders_that_we_create_are_the_users_alone(tmp_path: Path, variable: str) -> None:
    """Whatever the umask is: `mkdir -p` gives a mode only to the last folder."""
    note, used = run(NOTE, **{variable: str(tmp_path / "a" / "b")}).stdout.splitlines()
    assert note == "None"
    made = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert Path(used) in made
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}


def test_damaged_entry_is_recompiled_and_replaced(tmp_path: Path) -> None:
    good = run(COMPILE, ECVAE_COMPILATION_CACHE=str(tmp_path)).stdout.splitlines()
    (entry,) = tmp_path.glob("jit_program-*-cache")
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2])
    damaged = run(COMPILE, ECVAE_COMPILATION_CACHE=str(tmp_path))
    assert damaged.stdout.splitlines()[1] == good[1]
    assert damaged.stderr == ""
    assert entry.stat().st_size > len(whole) // 2
    assert "read from" in run(COMPILE, ECVAE_COMPILATION_CACHE=str(tmp_path)).stdout


def test_least_recently_used_entries_are_pruned_first(tmp_path: Path) -> None:
    for age, name in enumerate("abcd"):
        path = tmp_path / f"{name}-cache"
        path.write_bytes(b"x" * 10)
        os.utime(path, (1000 - age, 1000 - age))
    os.utime(tmp_path / "d-cache", (2000, 500))  # oldest but last read
    _prune(tmp_path, most_bytes=25)
    assert [path.name for path in entries(tmp_path)] == ["a-cache", "d-cache"]
    _prune(tmp_path / "missing", most_bytes=25)


@pytest.mark.slow
def test_trainings_are_bitwise_the_same_compiled_or_read_from_the_cache(tiny_config: Config, tmp_path: Path) -> None:
    experiment = tmp_path / "config.json"
    experiment.write_text(tiny_config.to_json())
    code = (
        "import os, hashlib\nfrom pathlib import Path\nfrom ecvae_jax.cli.main import main\n"
        f"work = Path({str(tmp_path)!r}) / os.environ['NAME']\n"
        f"assert main(['train', {str(experiment)!r}, '--workdir', str(work), '--train.steps', '3']) == 0\n"
        "import jax\nfrom ecvae_jax.checkpoints.load import load_model\n"
        "model = load_model(work)\n"
        "leaves = [leaf.tobytes() for leaf in jax.tree.leaves(jax.device_get(model.params))]\n"
        "print(hashlib.sha256(b''.join(leaves)).hexdigest())\n"
    )
    cache = str(tmp_path / "cache")
    compiled, read = (run(code, NAME=name, ECVAE_COMPILATION_CACHE=cache) for name in ("compiled", "read"))
    assert "not yet in the compile cache" in compiled.stderr
    assert "read from the compile cache" in read.stderr
    assert read.stdout == compiled.stdout
