"""The verdict in words, made from the intervals: each claim of the paper, and whether the numbers confirm it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ecvae_jax.comparison.measures import BY_KEY, MEASURES, Measure
from ecvae_jax.comparison.results import Results
from ecvae_jax.comparison.variants import QUESTIONS, Question
from ecvae_jax.evaluation.statistics import Difference


class Claim(NamedTuple):
    """A claim of the paper about its prior."""

    words: str
    name: str
    """Its evidence is the measures with this `claim`, as METRICS assigns them."""
    classes: tuple[tuple[str, str], ...] = ()
    """Breakdowns and one class of each; `LAST` is that of the largest angles. Empty: all pairs."""


LAST = "the last"

CLAIMS = (
    Claim('Sharper faces, less of a "mean" face', "sharpness"),
    Claim("More diverse faces", "diversity"),
    Claim("Appearance is kept better", "appearance"),
    Claim("Samples are more like true faces", "realism"),
    Claim(
        "Better on extreme pose and expression",
        "appearance",
        (("by_turn", LAST), ("by_view", LAST), ("by_expression", "other")),
    ),
)

CLAIMED_OF = QUESTIONS[:4]
"""The claims are about these: equilibrium against each other prior, with pairs of views and without."""

_MAIN = ("transfer_ssim", "transfer_sharpness", "sample_spread", "kl", "bits_per_dimension")
_CLASS_WORDS = {"by_turn": "head turned by {}°", "by_view": "target seen from {}°", "by_expression": "{} expression"}

Row = tuple[str, Measure, Difference]
"""The class of pairs in words ("": all), the measure, and its difference."""


def verdict_lines(results: Results) -> list[str]:
    """Returns the verdict as lines of Markdown: claim by claim with a conclusion, then the other questions."""
    lines: list[str] = []
    intervals = 0
    for claim in CLAIMS:
        asked = [question for question in CLAIMED_OF if question in results.answers]
        answers = {question: _evidence(claim, question, results) for question in asked}
        found = {question: rows for question, rows in answers.items() if rows}
        if not found:
            continue
        lines += [f"**{claim.words}?**", ""]
        for question, rows in found.items():
            against = f"{question.first} against {question.second}"
            lines.append(f"- {against}: {conclusion([(measure, each) for _, measure, each in rows])}")
            lines += [f"  - {sentence(question, measure, each, where)}" for where, measure, each in rows]
            intervals += len(rows)
        lines.append("")
    others = [question for question in results.answers if question not in CLAIMED_OF]
    if others:
        lines += ["**Other questions**", ""]
    for question in others:
        lines.append(f"- {question.asks} ({question.first} − {question.second})")
        for _, measure, each in _pick([BY_KEY[key] for key in _MAIN], "", results.answers[question]):
            lines.append(f"  - {sentence(question, measure, each)}")
            intervals += 1
    if intervals:
        by_chance = f"about {max(1, round(intervals / 20))} of them would exclude zero by chance"
        lines += ["", f"{intervals} intervals are listed. Without any difference, {by_chance}."]
    return lines


def sentence(question: Question, measure: Measure, difference: Difference, where: str = "") -> str:
    """Returns one difference in words: value, interval, and which variant is better."""
    place = f", {where}" if where else ""
    head = f"{question.first} − {question.second}, {measure.heading}{place}: {with_interval(measure, difference)}"
    seeds = len(difference.per_seed)
    if difference.low is None:
        return f"{head}: too few {'trainings' if difference.people == 0 else 'people'} for an interval"
    if difference.sign == 0:
        return f"{head}: no difference within {seeds} {'seed' if seeds == 1 else 'seeds'}"
    if measure.better == 0:
        return f"{head}: {'larger' if difference.sign > 0 else 'smaller'}"
    winner = question.first if difference.sign == measure.better else question.second
    return f"{head}: {winner} is better"


def conclusion(rows: Sequence[tuple[Measure, Difference]]) -> str:
    """Returns "confirmed" if some measure is better and none worse, and so on."""
    signs = [difference.sign * measure.better for measure, difference in rows]
    better, worse, count = sum(s > 0 for s in signs), sum(s < 0 for s in signs), len(signs)
    if better and not worse:
        return f"confirmed ({better} of {count} measures better, none worse)"
    if worse and not better:
        return f"the opposite ({worse} of {count} measures worse, none better)"
    if better:
        return f"undecided ({better} of {count} measures better, {worse} worse)"
    if any(difference.low is None for _, difference in rows):
        return "unknown (one training or one person gives no interval)"
    return f"not confirmed ({count} measures, all intervals hold zero)"


def with_interval(measure: Measure, difference: Difference) -> str:
    """Returns the difference with its sign and interval, in the unit of the tables."""
    if difference.low is None or difference.high is None:
        return f"{_signed(measure, difference.mean)} [?]"
    low, high = _signed(measure, difference.low), _signed(measure, difference.high)
    return f"{_signed(measure, difference.mean)} [{low}, {high}]"


def _signed(measure: Measure, value: float) -> str:
    return f"{measure.factor * value:+.{measure.digits}f}".replace("-", "−")


def _evidence(claim: Claim, question: Question, results: Results) -> list[Row]:
    measures = [measure for measure in MEASURES if measure.claim == claim.name]
    if not claim.classes:
        return _pick(measures, "", results.answers[question])
    rows: list[Row] = []
    for breakdown, label in claim.classes:
        labels = results.class_answers[question].get(breakdown, {})
        chosen = list(labels)[-1] if label == LAST and labels else label
        if chosen in labels:
            rows += _pick(measures, _CLASS_WORDS[breakdown].format(chosen), labels[chosen])
    return rows


def _pick(measures: Sequence[Measure], where: str, differences: Mapping[str, Difference]) -> list[Row]:
    return [(where, measure, differences[measure.key]) for measure in measures if measure.key in differences]
