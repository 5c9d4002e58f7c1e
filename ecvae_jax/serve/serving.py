"""`serve`: the page of a model, or a folder, on one port; with `compute` the model behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

from ecvae_jax.files import irregular
from ecvae_jax.folders import temporary_folder
from ecvae_jax.serve.guard import Guard
from ecvae_jax.serve.listen import listen, run, url_of
from ecvae_jax.serve.static import Files, load_json, open_below

_BROWSER_MODEL = "face128"
"""Default of a page that the browser computes; on a server with a GPU the default is larger."""

if TYPE_CHECKING:  # late: a folder is served without JAX
    from ecvae_jax.model.model import Model


def serve(
    folder: Path | None,
    checkpoint: Path | None,
    host: str,
    port: int,
    compute: bool,
    ready: Callable[[str], object],
    say: Callable[[str], object],
) -> None:
    """Serves until Ctrl-C or SIGTERM.

    Args:
        folder: a page that `ecvae page` wrote; None: one is built for the model, and removed at the end.
        checkpoint: as for `load_model`.
        port: 0 takes any free one.
        ready: called with the address once it is open and all programs are compiled.
        say: called with notes.

    Raises:
        OSError: the address cannot be used.
        ValueError: the folder is no folder with an index.html.
        CheckpointError: the checkpoint cannot be read.
    """
    if folder is not None:
        check_page(folder)
    with listen(host, port) as found:  # first: a port that is taken costs no minute of compiling
        if host in ("0.0.0.0", "::"):
            say("anyone who reaches this machine can use the page, as there is no password")
        with contextlib.ExitStack() as stack:
            page, app = folder, None
            if compute or page is None:
                from ecvae_jax.checkpoints.load import load_model

                model = load_model(checkpoint if compute else checkpoint or _BROWSER_MODEL)
                page = page or stack.enter_context(_built(model, say))
                app = _computing(page, model, host, say) if compute else None
            ready(url_of(found, host))
            run(app or Guard(Files(page), host), found)


def check_page(folder: Path) -> None:
    """Raises ValueError if a folder cannot be served."""
    if not folder.is_dir():
        raise ValueError(f"folder {str(folder)!r}: no such folder; write one with `ecvae page OUT`, or leave it out")
    if irregular(folder / "index.html") or not (folder / "index.html").is_file():
        raise ValueError(f"folder {str(folder)!r}: has no index.html; write a page with `ecvae page OUT`")


@contextlib.contextmanager
def _built(model: Model, say: Callable[[str], object]) -> Iterator[Path]:
    """Yields the page of a model in a temporary folder."""
    from ecvae_jax.page.build import write_page

    with temporary_folder(Path(gettempdir()) / "ecvae-page") as work:
        say("building the page …")
        write_page(model, work / "page")
        yield work / "page"


def _computing(page: Path, model: Model, host: str, say: Callable[[str], object]) -> Guard:
    from ecvae_jax.serve.api import make_app
    from ecvae_jax.serve.engine import Engine

    engine = Engine(model)
    check_points(page, engine.points)
    say(f"compiling for {engine.side} px; the first time takes a minute …")
    engine.warm_up()
    return make_app(Files(page, {"page.json": {"compute": True}}), host, engine)


def check_points(page: Path, points: int) -> None:
    """Raises ValueError if a page was written for another landmark scheme than the server's model has."""
    try:
        with open_below(page, ["model.json"]) as file:
            theirs = load_json(file)["points"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # no page of ours
    if theirs != points:
        raise ValueError(
            f"folder {str(page)!r}: its page has {theirs} landmarks, and the model reads {points}; leave FOLDER out, "
            "or give the --checkpoint of the page"
        )
