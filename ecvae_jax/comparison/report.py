"""The comparison as Markdown and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ecvae_jax.comparison.measures import BY_KEY, MEASURES, Measure
from ecvae_jax.comparison.results import BROKEN_DOWN, Results
from ecvae_jax.comparison.variants import REFERENCE
from ecvae_jax.comparison.verdict import verdict_lines, with_interval
from ecvae_jax.evaluation.report import markdown_table
from ecvae_jax.evaluation.statistics import Difference, Summary
from ecvae_jax.files import write_atomically

TABLES = {
    "Transfer": ("transfer_",),
    "Reconstruction and likelihood": ("reconstruction_", "recon_nll", "kl", "bits_per_dimension"),
    "Samples from the prior": ("sample_", "effective_clusters", "prior_distance"),
}
"""Beginnings of the measures' keys, by table; each measure is in one."""

_BREAKDOWNS = {
    "by_turn": "by the turn between source and target, degrees of yaw",
    "by_view": "by the yaw of the target, degrees",
    "by_expression": "by the target's expression",
}

_HOW = (
    "Each variant is the base experiment with the listed settings changed. Trainings of one seed see the same faces in "
    "the same order, a function of seed and step, and start from the same random draws. All are scored on the same "
    "pairs, of people that none was trained on.",
    "± is the standard deviation between trainings of different seeds. Brackets hold the 95% interval of the "
    "difference, paired over people and seeds. Its variance is the sum of the variance between people of the "
    "differences averaged over seeds, and the variance between seeds; Student's t with Satterthwaite's degrees of "
    "freedom. Measures with one value a training (Fréchet, kernel, nats, bits) have an interval over seeds alone, "
    "which is wide. Bold: the interval excludes zero.",
    "Sharpness is the mean length of the luminance gradient over that of the true image. Fine detail is the root mean "
    "square of what a 1-pixel blur removes, over that of the true image. Artifacts raise both. The spread of samples "
    "is the standard deviation of a pixel over 8 samples of one structure; noise raises it, so read it beside the "
    "distances. The KL of the mixture is to the mixture itself (64 draws), not its training bound. Identity and "
    "structure are measured by dlib.",
)

_FIGURE = ("transfer_ssim", "transfer_sharpness", "transfer_identity", "sample_spread", "sample_frechet",
           "bits_per_dimension", "reconstruction_ssim", "kl")  # fmt: skip
_ACROSS = 4
_COLORS = {1: "#1a7f37", 0: "#57606a", -1: "#cf222e"}


def to_markdown(results: Results) -> str:
    """Returns the report as Markdown: verdict, variants, tables, breakdowns, and how it was measured."""
    facts = results.facts
    lines = [
        "# The priors compared",
        "",
        f"{len(results.variants)} variants × {results.seeds} seeds, {facts['steps']} steps of {facts['batch_size']} "
        f"images at {facts['image_size']} px on {facts['records']}; scored on {facts['pairs']} pairs of "
        f"{facts['people']} people of the {facts['split']} split. ecvae_jax {facts['version']}.",
        "",
        *(f"- {note}" for note in facts.get("notes", [])),
        *("", "## Verdict", "", *verdict_lines(results)),
        *("", "## Variants", "", _variants(results), ""),
    ]
    for title, beginnings in TABLES.items():
        shown = [m for m in MEASURES if m.key.startswith(beginnings) and m.key in results.measured]
        if shown:
            lines += [f"## {title}", "", _means(results, shown), "", f"Difference to {REFERENCE}:", ""]
            lines += [_differences(results, shown), ""]
    for breakdown, words in _BREAKDOWNS.items():
        if breakdown in results.breakdowns:
            lines += [f"## Transfer {words}", "", *_breakdown(results, breakdown), ""]
    lines += ["## How it was measured", "", *(f"{part}\n" for part in _HOW)]
    return "\n".join(lines).rstrip() + "\n"


def draw_comparison(results: Results) -> Any:
    """Returns a Matplotlib figure: a panel a measure, a row a variant; small marks are the single seeds."""
    from matplotlib.figure import Figure

    keys = [key for key in _FIGURE if key in results.measured]
    names = list(results.to_reference)
    rows, columns = -(-len(keys) // _ACROSS), min(len(keys), _ACROSS)
    size = (3.1 * columns + 1.2, rows * (0.26 * max(len(names), 3) + 1.3) + 0.5)
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel in panels.flat[len(keys) :]:
        panel.set_axis_off()
    for key, panel in zip(keys, panels.flat, strict=False):
        _panel(panel, BY_KEY[key], results, names)
    for row in panels:
        row[0].set_yticks(range(len(names)), names)
        row[0].set_ylim(len(names) - 0.4, -0.6)
    title = f"Difference to {REFERENCE}, {results.seeds} seeds, 95% intervals over people and seeds"
    figure.suptitle(f"{title} (green better, red worse)", fontsize=10)
    return figure


def save_comparison(results: Results, path: Path) -> None:
    """Writes the figure as a PNG, atomically."""
    write_atomically(path, lambda file: draw_comparison(results).savefig(file, format="png"))


def _variants(results: Results) -> str:
    rows = []
    for variant in results.variants:
        settings = ", ".join(f"`{key}={value}`" for key, value in variant.settings.items())
        if variant.trained_as:
            settings += f"; scored from {variant.trained_as}'s training"
        rows.append([variant.name, variant.words, settings])
    return markdown_table(["variant", "what it is", "settings"], rows)


def _means(results: Results, measures: Sequence[Measure]) -> str:
    found = {v.name: results.summaries[v.name] for v in results.variants}
    for name, means in results.baselines.items():
        if any(m.key in means for m in measures):
            found[f"*{name}*"] = {key: Summary(value, None, 1) for key, value in means.items()}
    rows = [[name, *(_mean(m, means.get(m.key)) for m in measures)] for name, means in found.items()]
    return markdown_table(["", *(m.heading for m in measures)], rows)


def _differences(results: Results, measures: Sequence[Measure]) -> str:
    rows = [[name, *(_difference(m, row.get(m.key)) for m in measures)] for name, row in results.to_reference.items()]
    return markdown_table(["", *(m.heading for m in measures)], rows) if rows else "(no other variant was trained)"


def _breakdown(results: Results, breakdown: str) -> list[str]:
    classes, sizes = results.breakdowns[breakdown], results.class_sizes[breakdown]
    head = ["", *(f"{label} (n = {sizes[label]})" for label in classes)]
    lines: list[str] = []
    for key in BROKEN_DOWN:
        measure = BY_KEY[key]
        rows = [
            [v.name, *(_mean(measure, summaries[v.name].get(key)) for summaries in classes.values())]
            for v in results.variants
        ]
        lines += [f"{measure.heading}:", "", markdown_table(head, rows), ""]
        rows = []
        for question in results.answers:
            answers = results.class_answers[question][breakdown]
            cells = (_difference(measure, answers[label].get(key)) for label in classes)
            rows.append([f"{question.first} − {question.second}", *cells])
        if rows:
            lines += [markdown_table(head, rows), ""]
    return lines


def _mean(measure: Measure, summary: Summary | None) -> str:
    if summary is None:
        return "–"
    text = f"{measure.factor * summary.mean:.{measure.digits}f}"
    return text if summary.stddev is None else f"{text} ± {measure.factor * summary.stddev:.{measure.digits}f}"


def _difference(measure: Measure, difference: Difference | None) -> str:
    if difference is None:
        return "–"
    text = with_interval(measure, difference)
    return f"**{text}**" if difference.sign else text


def _panel(panel: Any, measure: Measure, results: Results, names: list[str]) -> None:
    panel.axvline(0, color="0.7", linewidth=1)
    factor = measure.factor
    for row, name in enumerate(names):
        difference = results.to_reference[name].get(measure.key)
        if difference is None:
            continue
        color = _COLORS[difference.sign * measure.better]
        if difference.low is not None and difference.high is not None:
            panel.plot([factor * difference.low, factor * difference.high], [row, row], color=color, linewidth=2)
        seeds = [factor * each for each in difference.per_seed]
        panel.plot(seeds, [row] * len(seeds), "|", color=color, alpha=0.6, markersize=7)
        panel.plot(factor * difference.mean, row, "o", color=color, markersize=5)
    value = results.summaries[REFERENCE].get(measure.key)
    mean = "" if value is None else f"\n{REFERENCE}: {factor * value.mean:.{measure.digits}f}"
    panel.set_title(measure.heading + mean, fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(axis="x", color="0.92")
    panel.set_axisbelow(True)
