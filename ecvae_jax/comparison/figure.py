"""The comparison as a picture: each variant's difference to the reference, with its interval, measure by measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ecvae_jax.comparison.measures import BY_KEY, Measure
from ecvae_jax.comparison.results import Results
from ecvae_jax.comparison.variants import REFERENCE
from ecvae_jax.pictures import write_aside

_SHOWN = ("transfer_ssim", "transfer_sharpness", "transfer_identity", "sample_spread", "sample_frechet",
          "bits_per_dimension", "reconstruction_ssim", "kl")  # fmt: skip
_ACROSS = 4
_COLOURS = {1: "#1a7f37", 0: "#57606a", -1: "#cf222e"}


def draw_comparison(results: Results) -> Any:
    """Returns a Matplotlib figure: a panel a measure, a row a variant; small marks are the single seeds."""
    from matplotlib.figure import Figure

    keys = [key for key in _SHOWN if key in results.measured]
    names = list(results.to_reference)
    rows = -(-len(keys) // _ACROSS)
    figure = Figure(figsize=(3.1 * min(len(keys), _ACROSS) + 1.2, rows * (0.26 * max(len(names), 3) + 1.3) + 0.5),
                    dpi=130, layout="constrained")  # fmt: skip
    panels = figure.subplots(rows, min(len(keys), _ACROSS), sharey=True, squeeze=False)
    for panel in panels.flat[len(keys) :]:
        panel.set_axis_off()
    for key, panel in zip(keys, panels.flat, strict=False):
        _panel(panel, BY_KEY[key], results, names)
    for row in panels:
        row[0].set_yticks(range(len(names)), names)
        row[0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle(f"Difference to {REFERENCE}, {results.seeds} seeds, 95% intervals over people and seeds "
                    "(green better, red worse)", fontsize=10)  # fmt: skip
    return figure


def save_comparison(results: Results, path: Path) -> None:
    """Writes the figure as a PNG, aside and then renamed."""
    write_aside(path, lambda file: draw_comparison(results).savefig(file, format="png"))


def _panel(panel: Any, measure: Measure, results: Results, names: list[str]) -> None:
    panel.axvline(0, color="0.7", linewidth=1)
    for row, name in enumerate(names):
        apart = results.to_reference[name].get(measure.key)
        if apart is None:
            continue
        colour = _COLOURS[apart.told * measure.better]
        if apart.low is not None and apart.high is not None:
            panel.plot([measure.factor * apart.low, measure.factor * apart.high], [row, row], color=colour, linewidth=2)
        panel.plot([measure.factor * each for each in apart.per_seed], [row] * len(apart.per_seed), "|", color=colour,
                   alpha=0.6, markersize=7)  # fmt: skip
        panel.plot(measure.factor * apart.mean, row, "o", color=colour, markersize=5)
    value = results.summaries[REFERENCE].get(measure.key)
    own = "" if value is None else f"\n{REFERENCE}: {measure.factor * value.mean:.{measure.digits}f}"
    panel.set_title(measure.heading + own, fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(axis="x", color="0.92")
    panel.set_axisbelow(True)
