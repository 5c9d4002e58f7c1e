"""What a training tells while it runs: a progress bar or lines, the curves and image grids."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ecvae_jax.config import TrainConfig
from ecvae_jax.training.curves import Curves


class Reporter:
    """Progress on the terminal, `training.curves` in the working directory."""

    def __init__(self, config: TrainConfig, workdir: Path, start_step: int, writes: bool = True) -> None:
        """Opens the files, and a bar where there is a terminal; tells nothing at all where not `writes`."""
        self._config = config
        self._began = time.monotonic()
        self._window = (start_step, self._began)
        self._bar: Any = None
        self._task: Any = None
        self._curves = Curves(workdir, start_step) if writes else None
        if writes and sys.stderr.isatty():
            self._bar = _make_bar()
            self._task = self._bar.add_task("training", total=config.steps, completed=start_step, note="")

    def __enter__(self) -> Reporter:
        """Starts the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the bar and closes the files."""
        if self._bar is not None:
            self._bar.stop()
        if self._curves is not None:
            self._curves.close()

    def advance(self, step: int) -> None:
        """Moves the bar to `step`."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def say(self, line: str) -> None:
        """Prints a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        elif self._curves is not None:
            print(line, file=sys.stderr, flush=True)

    def metrics(self, step: int, values: Mapping[str, float], readings: Mapping[str, float]) -> None:
        """Writes the metrics of the steps since the last call, with their speed, and other `readings` beside them.

        The line for people has the time that is left as well.
        """
        if self._curves is None:
            return
        now = time.monotonic()
        steps, seconds = step - self._window[0], now - self._window[1]
        self._window = (step, now)
        speed = steps * self._config.batch_size / max(seconds, 1e-9)
        left = (self._config.steps - step) * self._config.batch_size / speed if speed else float("inf")
        self._curves.point(step, {**values, "images_per_second": speed, "seconds": seconds, **readings})
        line = (
            f"step {step}/{self._config.steps}  loss {values['loss']:.1f}  recon_nll {values['recon_nll']:.1f}  "
            f"kl {values['kl']:.1f}  ssim {values['ssim']:.3f}  clusters {values['effective_clusters']:.1f}  "
            f"{speed:.1f} images/s"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note=line.split("  ", 1)[1])
        else:
            print(f"{line}  {_duration(left)} left", file=sys.stderr, flush=True)

    def image(self, step: int, name: str, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes a picture to TensorBoard."""
        if self._curves is not None:
            self._curves.image(step, name, picture)

    @property
    def seconds(self) -> float:
        """Seconds since the reporter was made."""
        return time.monotonic() - self._began


def _make_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[note]}"))
    return Progress(*columns, console=Console(stderr=True))


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
