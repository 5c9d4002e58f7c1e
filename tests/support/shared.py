"""Folders made once and read by every worker of pytest-xdist."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def shared_folder(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Returns the folder `name`, filled by `make` in the first process that asks; the others wait.

    Tests only read it. A test that changes something takes a copy.
    """
    base = factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, finished = root / "shared" / name, root / "shared" / f"{name}.finished"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{finished}.lock"):
        if not finished.exists():
            # A path inside the result must hold, so it is made in place: a failed attempt leaves a part behind.
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            finished.touch()
    return folder
