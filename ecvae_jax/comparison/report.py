"""The comparison as Markdown: how it was made, the verdict, and the tables that it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecvae_jax.comparison.measures import BY_KEY, Measure
from ecvae_jax.comparison.results import BROKEN_DOWN, Results
from ecvae_jax.comparison.variants import REFERENCE, Question
from ecvae_jax.comparison.verdict import verdict_lines, with_interval
from ecvae_jax.evaluation.statistics import Difference, Summary
from ecvae_jax.files import write_atomically

_GROUPS = {
    "Transfer": ("transfer_psnr", "transfer_ssim", "transfer_sharpness", "transfer_detail", "transfer_identity",
                 "transfer_nme", "transfer_face_found"),
    "Reconstruction and likelihood": ("reconstruction_psnr", "reconstruction_ssim", "reconstruction_sharpness",
                                      "recon_nll", "kl", "bits_per_dimension"),
    "Samples from the prior": ("sample_spread", "sample_identity_spread", "sample_sharpness", "sample_frechet",
                               "sample_kernel", "effective_clusters", "prior_distance"),
}  # fmt: skip


_BREAKDOWNS = {
    "by_turn": "by the turn between source and target, degrees of yaw",
    "by_view": "by the yaw of the target, degrees",
    "by_expression": "by the target's expression",
}


_HOW = (
    "Every variant is the same experiment with the settings named changed. Trainings of one seed see the same faces in "
    "the same order (the order is a function of seed and step) and begin from the same random draws; all are scored on "
    "the same pairs of people that none has seen.",
    "± is the standard deviation between trainings of different seeds. In brackets stands the 95% interval of the "
    "difference, paired over people and seeds: the variance between people of the differences averaged over seeds, "
    "plus that between seeds, Student's t with Satterthwaite's degrees of freedom. Measures without a value a pair "
    "(Fréchet, kernel, nats, bits) have the interval over seeds alone, which is wide. Bold: zero lies outside.",
    "Sharpness is the mean length of the luminance gradient over that of the true image, fine detail what a blur by 1 "
    "pixel takes away, likewise: 100% is as sharp as the true image, and artifacts count too. The spread of samples is "
    "the standard deviation of a pixel over 8 samples of one structure; noise spreads too, so that it is read beside "
    "the distances. The KL of the mixture is to the mixture itself (64 draws), not the bound that it trains on. "
    "Identity and structure are measured by dlib.",
)  # fmt: skip


def to_markdown(results: Results) -> str:
    """Returns the whole report as Markdown."""
    facts = results.facts
    lines = [
        "# The priors compared", "",
        f"{len(results.variants)} variants × {results.seeds} seeds, {facts['steps']} steps of {facts['batch_size']} "
        f"images at {facts['image_size']} px on {facts['records']}; scored on {facts['pairs']} pairs of "
        f"{facts['people']} people of the {facts['split']} split. ecvae_jax {facts['version']}.", "",
        *(f"- {note}" for note in facts.get("notes", [])), "",
        "## Verdict", "", *verdict_lines(results), "",
        "## Variants", "", *_variants(results), "",
    ]  # fmt: skip
    for title, keys in _GROUPS.items():
        shown = [key for key in keys if key in results.measured]
        if shown:
            lines += [f"## {title}", "", *_means(results, shown), "", f"Difference to {REFERENCE}:", "",
                      *_differences(results, shown), ""]  # fmt: skip
    for breakdown, words in _BREAKDOWNS.items():
        if breakdown in results.breakdowns:
            lines += [f"## Transfer {words}", "", *_breakdown(results, breakdown), ""]
    lines += ["## How it was measured", "", *(f"{part}\n" for part in _HOW)]
    return "\n".join(lines).rstrip() + "\n"


def _variants(results: Results) -> list[str]:
    rows = [["variant", "what it is", "settings"]]
    for variant in results.variants:
        settings = ", ".join(f"`{key}={value}`" for key, value in variant.settings.items())
        rows.append([variant.name, variant.words, settings + (f"; scored from {variant.trained_as}'s training"
                                                             if variant.trained_as else "")])  # fmt: skip
    return _table(rows)


def _means(results: Results, keys: Sequence[str]) -> list[str]:
    rows = [["", *(BY_KEY[key].heading for key in keys)]]
    rows += [[v.name, *(_mean(key, results.summaries[v.name].get(key)) for key in keys)] for v in results.variants]
    for name, row in results.baselines.items():
        if any(key in row for key in keys):
            single = {key: Summary(value, None, 1) for key, value in row.items()}
            rows.append([f"*{name}*", *(_mean(key, single.get(key)) for key in keys)])
    return _table(rows)


def _differences(results: Results, keys: Sequence[str]) -> list[str]:
    rows = [["", *(BY_KEY[key].heading for key in keys)]]
    rows += [[name, *(_apart(key, row.get(key)) for key in keys)] for name, row in results.to_reference.items()]
    return _table(rows) if len(rows) > 1 else ["(nothing else was trained)"]


def _breakdown(results: Results, breakdown: str) -> list[str]:
    classes = results.breakdowns[breakdown]
    sizes = results.class_sizes[breakdown]
    lines: list[str] = []
    for key in BROKEN_DOWN:
        head = ["", *(f"{label} (n = {sizes[label]})" for label in classes)]
        rows = [head]
        rows += [[v.name, *(_mean(key, rows_of[v.name].get(key)) for rows_of in classes.values())]
                 for v in results.variants]  # fmt: skip
        lines += [f"{BY_KEY[key].heading}:", "", *_table(rows), ""]
        questions: list[Question] = list(results.answers)
        if questions:
            rows = [head]
            for question in questions:
                answers: Mapping[str, Mapping[str, Difference]] = results.class_answers[question][breakdown]
                rows.append([f"{question.first} − {question.second}",
                             *(_apart(key, answers[label].get(key)) for label in classes)])  # fmt: skip
            lines += [*_table(rows), ""]
    return lines


def _mean(key: str, summary: Summary | None) -> str:
    if summary is None:
        return "–"
    measure = BY_KEY[key]
    text = f"{measure.factor * summary.mean:.{measure.digits}f}"
    return text if summary.stddev is None else f"{text} ± {measure.factor * summary.stddev:.{measure.digits}f}"


def _apart(key: str, apart: Difference | None) -> str:
    if apart is None:
        return "–"
    text = with_interval(BY_KEY[key], apart)
    return f"**{text}**" if apart.told else text


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]

_SHOWN = ("transfer_ssim", "transfer_sharpness", "transfer_identity", "sample_spread", "sample_frechet",
          "bits_per_dimension", "reconstruction_ssim", "kl")  # fmt: skip


_ACROSS = 4


_COLORS = {1: "#1a7f37", 0: "#57606a", -1: "#cf222e"}


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
    write_atomically(path, lambda file: draw_comparison(results).savefig(file, format="png"))


def _panel(panel: Any, measure: Measure, results: Results, names: list[str]) -> None:
    panel.axvline(0, color="0.7", linewidth=1)
    for row, name in enumerate(names):
        apart = results.to_reference[name].get(measure.key)
        if apart is None:
            continue
        color = _COLORS[apart.told * measure.better]
        if apart.low is not None and apart.high is not None:
            panel.plot([measure.factor * apart.low, measure.factor * apart.high], [row, row], color=color, linewidth=2)
        panel.plot([measure.factor * each for each in apart.per_seed], [row] * len(apart.per_seed), "|", color=color,
                   alpha=0.6, markersize=7)  # fmt: skip
        panel.plot(measure.factor * apart.mean, row, "o", color=color, markersize=5)
    value = results.summaries[REFERENCE].get(measure.key)
    own = "" if value is None else f"\n{REFERENCE}: {measure.factor * value.mean:.{measure.digits}f}"
    panel.set_title(measure.heading + own, fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(axis="x", color="0.92")
    panel.set_axisbelow(True)
