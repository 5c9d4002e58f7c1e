"""The subcommands of the page: page, serve."""

from __future__ import annotations

from collections.abc import Sequence

from ecvae_jax.cli.options.page import PageOptions, ServeOptions
from ecvae_jax.cli.parsing import say


def page(options: PageOptions, words: Sequence[str]) -> int:
    """Runs `ecvae page OUT`."""
    from ecvae_jax.checkpoints.load import load_model
    from ecvae_jax.page.build import PAGE, write_page

    PAGE.check_replaceable(options.out, options.overwrite)
    model = load_model(options.checkpoint or "face128")
    size = write_page(model, options.out, options.half, options.overwrite)
    say(f"{options.out}: {size / 1e6:.1f} MB; show it with `ecvae serve {options.out}`")
    return 0


def serve(options: ServeOptions, words: Sequence[str]) -> int:
    """Runs `ecvae serve [FOLDER]` until Ctrl-C or SIGTERM."""
    try:
        from ecvae_jax.serve.serving import serve as run_server

        run_server(
            options.folder,
            options.checkpoint,
            options.host,
            options.port,
            options.compute,
            ready=lambda url: print(url, flush=True),
            say=say,
        )
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in ("starlette", "uvicorn", "h11", "pydantic"):
            raise
        say(f"error: {package} is not installed: pip install 'ecvae-jax[serve]'")
        return 1
    return 0
