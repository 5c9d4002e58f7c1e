"""What a preparation may put in the place of OUT, and how: complete records appear there, earlier ones are never lost.

After a kill in the middle of `--overwrite`, the next preparation of that OUT moves the earlier records back
(`folders.replace_folder`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.photos.sources import Source
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.files import UnsafePathError, irregular, lies_in, unspelled
from ecvae_jax.folders import REPLACED, claim_folder, is_free, is_marked, replace_folder, restore_folder

REPORT = "report.csv"
PREVIEW = "preview.png"

_RECORD_FILES = re.compile(
    rf"dataset_info\.json|features\.json|metadata\.json|{re.escape(REPORT)}|{re.escape(PREVIEW)}"
    r"|ecvae_faces-(train|validation|test)\.array_record-\d+-of-\d+"
)
"""Names of all files that `prepare` and `morph` write."""


def work_folder(out: Path) -> Path:
    """Returns the hidden folder beside `out` in which all work happens."""
    return out.parent / f".{out.name}.partial"


def check_out(out: Path, files: Source, options: PrepareConfig) -> None:
    """Refuses an OUT that cannot be made, or whose replacement would delete anything but earlier records.

    Raises:
        DataError: OUT is not UTF-8, is a link, lies in the source, exists without `overwrite`, holds an input or a
            file that is not of records, or is not a records folder.
    """
    if odd := unspelled(out):
        raise DataError(odd)
    kind = irregular(out)
    if kind == "a link":
        raise DataError(f"{out} is a link: no link is followed for writing; give the path that it leads to")
    if out.name in ("", "..") or os.path.ismount(out):
        raise DataError(f"{str(out)!r} cannot be replaced by a folder: give the name of a folder in it")
    if files.root is not None and files.searched and out.resolve().is_relative_to(files.root.resolve()):
        raise DataError(f"{out} is inside the source {files.root}: give a folder outside it")
    if is_free(out):
        return
    if not options.overwrite:
        raise DataError(f"{out} exists: give another folder, or --overwrite to replace earlier records")
    if irregular(out / "dataset_info.json") or not (out / "dataset_info.json").is_file():
        raise DataError(f"{out} exists and is no records folder: --overwrite replaces only those; give another folder")
    for path in _inputs(files, options):
        if lies_in(path, out):
            raise DataError(f"{path} is an input and lies in {out}, which --overwrite deletes; give another folder")
    foreign = _foreign(out)
    if foreign:
        raise DataError(
            f"{out} holds {foreign!r}, which is not of records: --overwrite would delete it; move it away, or give "
            "another folder"
        )


def restore_replaced(out: Path) -> None:
    """Moves earlier records back to `out` if a kill in the middle of their replacement left them in the work folder.

    Raises:
        DataError: another preparation is at work there.
    """
    work = work_folder(out)
    aside = work / REPLACED
    if not is_free(out) or not is_marked(work) or irregular(aside) != "a folder":
        return
    lock = claim_folder(work)
    if lock is None:
        raise DataError(f"{work}: another preparation is at work there; wait for it, or stop it")
    with lock:
        restore_folder(aside, out)


def publish(records: Path, out: Path) -> None:
    """Moves `records` to `out`; earlier records there move into the work folder, which is removed later.

    Raises:
        UnsafePathError: `out` has got a file that is not of records, or became a link, since `check_out`.
        OSError: the folder cannot be renamed; the earlier records stay.
    """
    foreign = None
    if not is_free(out):
        foreign = out.name if irregular(out) != "a folder" else _foreign(out)
    if foreign:
        raise UnsafePathError(f"{out}: {foreign!r} is new there and not of records; move it away and rerun the command")
    replace_folder(records, out)


def _inputs(files: Source, options: PrepareConfig) -> Iterable[Path]:
    if files.root is not None and files.searched:
        yield files.root
    yield from files.inputs
    if options.landmarks not in ("auto", "none"):
        yield Path(options.landmarks)


def _foreign(out: Path) -> str | None:
    """Returns the name of an entry that is not a regular file of records, or None."""
    with os.scandir(out) as entries:
        for entry in entries:
            if not (_RECORD_FILES.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)):
                return entry.name
    return None
