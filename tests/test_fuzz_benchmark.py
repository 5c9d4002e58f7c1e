"""benchmarks/fuzz.py counts a crash, a hang, memory and a changed file as such, and nothing else."""

from __future__ import annotations

from pathlib import Path

from support.processes import run_python

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

PLANTED = """
import os, signal, sys, time
sys.path.insert(0, {folder!r})
import fuzz
from fuzz_inputs import Input

def user(folder):
    folder.mkdir()
    (folder / "thesis.txt").write_text("the only copy")

def kind(act):
    return lambda user, out, rng: Input(["--version"], "planted", {{}}, lambda: act(user, out), seconds=2)

def unlink(user, out): (user / "thesis.txt").unlink()
def segfault(user, out): os.kill(os.getpid(), signal.SIGSEGV)
def fail(user, out): 1 / 0
def sleep(user, out): time.sleep(60)
def fill(user, out): global kept; kept = b"x" * 10**9; time.sleep(60)
def write(user, out): (out / "picture.png").write_text("new"); (user / "more.txt").write_text("new")

fuzz.GIB, fuzz.PRELOADED, fuzz.make_user = 0.5, (), user
fuzz.KINDS.clear()
fuzz.KINDS.update({{act.__name__: kind(act) for act in (unlink, segfault, fail, sleep, fill, write)}})
sys.argv = ["fuzz.py", "--inputs", "6"]
sys.exit(fuzz.main())
"""


def test_each_planted_fault_is_counted_as_what_it_is() -> None:
    shown = run_python(PLANTED.format(folder=str(BENCHMARKS)), check=False)
    assert shown.returncode == 1, shown.stderr
    rows = [line.split() for line in shown.stdout.splitlines()]
    counts = {
        row[0]: row[2:7] for row in rows if row and row[0] in ("unlink", "segfault", "fail", "sleep", "fill", "write")
    }
    #        code 0, crash, hang, memory, changed
    assert counts == {
        "unlink": ["1", "0", "0", "0", "1"],
        "segfault": ["0", "1", "0", "0", "0"],
        "fail": ["0", "1", "0", "0", "0"],
        "sleep": ["0", "0", "1", "0", "0"],
        "fill": ["0", "0", "0", "1", "0"],
        "write": ["1", "0", "0", "0", "0"],
    }
