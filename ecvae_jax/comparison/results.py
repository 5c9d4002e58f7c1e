"""Results from the scores of all runs: means over seeds, paired differences, breakdowns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ecvae_jax.comparison.measures import BY_KEY, MEASURES
from ecvae_jax.comparison.variants import QUESTIONS, REFERENCE, Question, Run, Variant
from ecvae_jax.evaluation.statistics import Difference, Summary, paired_difference, summarize

BROKEN_DOWN = ("transfer_ssim", "transfer_psnr", "transfer_sharpness")
"""Measures that are also reported for each class of pairs."""

Values = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Results:
    """All numbers of a comparison. Measures by key, variants by name."""

    variants: Sequence[Variant]
    seeds: int
    summaries: Mapping[str, Mapping[str, Summary]]
    to_reference: Mapping[str, Mapping[str, Difference]]
    """Variant minus `REFERENCE`."""
    answers: Mapping[Question, Mapping[str, Difference]]
    """First minus second, for questions whose two variants both ran."""
    breakdowns: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Summary]]]]
    """Breakdown, class, variant, measure."""
    class_answers: Mapping[Question, Mapping[str, Mapping[str, Mapping[str, Difference]]]]
    """Question, breakdown, class, measure."""
    class_sizes: Mapping[str, Mapping[str, int]]
    baselines: Mapping[str, Mapping[str, float]]
    facts: Mapping[str, Any]

    @property
    def measured(self) -> list[str]:
        """Keys of the measures that any variant has, in the order of MEASURES."""
        return [each.key for each in MEASURES if any(each.key in row for row in self.summaries.values())]


def gather(runs: Sequence[Run], scores: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]) -> Results:
    """Returns the results of finished runs.

    `scores` are by the name of the run; `facts` of experiment and scoring go into the report.
    """
    variants = list({run.variant.name: run.variant for run in runs}.values())
    table = {v.name: [scores[run.name] for run in runs if run.variant.name == v.name] for v in variants}
    first = scores[runs[0].name]
    classes: dict[str, dict[str, np.ndarray]] = {
        name: {label: np.array([each == label for each in labels]) for label in _ordered(labels)}
        for name, labels in first["classes"].items()
    }
    questions = [question for question in QUESTIONS if question.first in table and question.second in table]

    def by_class(compute: Callable[[np.ndarray], Any]) -> dict[str, dict[str, Any]]:
        return {
            breakdown: {label: compute(chosen) for label, chosen in labels.items()}
            for breakdown, labels in classes.items()
        }

    return Results(
        variants=variants,
        seeds=len(table[variants[0].name]),
        summaries={name: _summaries(rows) for name, rows in table.items()},
        to_reference={name: _differences(rows, table[REFERENCE]) for name, rows in table.items() if name != REFERENCE},
        answers={q: _differences(table[q.first], table[q.second]) for q in questions},
        breakdowns=by_class(lambda chosen: {name: _summaries(rows, chosen) for name, rows in table.items()}),
        class_answers={
            q: by_class(lambda chosen, q=q: _differences(table[q.first], table[q.second], chosen)) for q in questions
        },
        class_sizes=by_class(lambda chosen: int(chosen.sum())),
        baselines=first["baselines"],
        facts={**facts, "pairs": len(first["people"]["pairs"]), "people": len(set(first["people"]["pairs"]))},
    )


def to_dict(results: Results) -> dict[str, Any]:
    """Returns the results as plain dictionaries for JSON, as fractions instead of percent."""
    return {
        "facts": dict(results.facts),
        "variants": {
            v.name: {
                "words": v.words,
                "settings": dict(v.settings),
                "transport": v.transport,
                "trained_as": v.training,
                "measures": _plain(results.summaries[v.name]),
                "minus_reference": _plain(results.to_reference.get(v.name, {})),
            }
            for v in results.variants
        },
        "questions": [
            {**q._asdict(), "differences": _plain(answers), "by_class": _plain(results.class_answers[q])}
            for q, answers in results.answers.items()
        ],
        "breakdowns": {
            breakdown: {
                label: {"pairs": results.class_sizes[breakdown][label], **_plain(rows)}
                for label, rows in labels.items()
            }
            for breakdown, labels in results.breakdowns.items()
        },
        "baselines": _plain(results.baselines),
    }


def _plain(value: Any) -> Any:
    """Nested mappings of summaries and differences as dictionaries."""
    if isinstance(value, Summary | Difference):
        return value._asdict()
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _values(scores: Mapping[str, Any], key: str, chosen: np.ndarray | None) -> Values | None:
    """One measure's values in one run; a single one for measures over runs."""
    if BY_KEY[key].over == "runs":
        number = scores["numbers"].get(key)
        return None if number is None else np.array([float(number)])
    if key not in scores["values"]:
        return None
    values = np.array([np.nan if value is None else value for value in scores["values"][key]], np.float64)
    return values if chosen is None else values[chosen]


def _columns(rows: Sequence[Mapping[str, Any]], chosen: np.ndarray | None) -> Iterator[tuple[str, list[Values]]]:
    """Each measure that all runs of a variant have, with its values by run; for a class only `BROKEN_DOWN`."""
    for key in BROKEN_DOWN if chosen is not None else BY_KEY:
        columns = [_values(row, key, chosen) for row in rows]
        present = [column for column in columns if column is not None]
        if len(present) == len(rows):
            yield key, present


def _summaries(rows: Sequence[Mapping[str, Any]], chosen: np.ndarray | None = None) -> dict[str, Summary]:
    found = {key: summarize(columns) for key, columns in _columns(rows, chosen)}
    return {key: each for key, each in found.items() if each is not None}


def _differences(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], chosen: np.ndarray | None = None
) -> dict[str, Difference]:
    others = dict(_columns(second, chosen))
    found: dict[str, Difference] = {}
    for key, columns in _columns(first, chosen):
        if key not in others:
            continue
        over = BY_KEY[key].over
        people = None if over == "runs" else np.asarray(first[0]["people"][over])
        if people is not None and chosen is not None:
            people = people[chosen]
        difference = paired_difference(columns, others[key], None if people is None else list(people))
        if difference is not None:
            found[key] = difference
    return found


def _ordered(labels: Sequence[str | None]) -> list[str]:
    """Classes ordered by their first angle, "neutral" before "other"."""

    def start(label: str) -> tuple[float, str]:
        head = label.split("-")[0].rstrip("+")
        try:
            return float(head), label
        except ValueError:
            return float("inf"), label

    return sorted({label for label in labels if label is not None}, key=start)
