"""The comparison in plain words, made from the intervals: what the paper claims, and whether it is seen here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ecvae_jax.comparison.measures import BY_KEY, Measure
from ecvae_jax.comparison.results import Results
from ecvae_jax.comparison.variants import QUESTIONS, Question
from ecvae_jax.evaluation.statistics import Difference


class Claim(NamedTuple):
    """What the paper says of its prior, and what would show it."""

    words: str
    measures: tuple[str, ...]
    classes: tuple[tuple[str, str], ...] = ()
    """Breakdowns and which of their classes are meant; `LAST` is the one of the largest angles. None: all pairs."""


LAST = "the last"

CLAIMS = (
    Claim("Sharper faces, less of a \"mean\" face",
          ("transfer_sharpness", "transfer_detail", "reconstruction_sharpness", "sample_sharpness")),
    Claim("More diverse faces", ("sample_spread", "sample_identity_spread")),
    Claim("Appearance is kept better", ("transfer_psnr", "transfer_ssim", "transfer_identity", "reconstruction_ssim")),
    Claim("Samples are more like true faces", ("sample_frechet", "sample_kernel", "bits_per_dimension")),
    Claim("Better on extreme pose and expression", ("transfer_psnr", "transfer_ssim"),
          (("by_turn", LAST), ("by_view", LAST), ("by_expression", "other"))),
)  # fmt: skip

CLAIMED_OF = QUESTIONS[:4]
"""Pairs of variants that the claims are about: equilibrium against each other prior, with pairs and without."""

_MAIN = ("transfer_ssim", "transfer_sharpness", "sample_spread", "kl", "bits_per_dimension")
_CLASS_WORDS = {"by_turn": "head turned by {}°", "by_view": "target seen from {}°", "by_expression": "{} expression"}


def verdict_lines(results: Results) -> list[str]:
    """Returns the verdict as lines of Markdown: claim by claim with a conclusion, then the other questions."""
    lines: list[str] = []
    told = 0
    for claim in CLAIMS:
        answered = [(question, _of_claim(claim, question, results)) for question in CLAIMED_OF
                    if question in results.answers]  # fmt: skip
        if not any(rows for _, rows in answered):
            continue
        lines += [f"**{claim.words}?**", ""]
        for question, rows in answered:
            if rows:
                against = f"{question.first} against {question.second}"
                lines.append(f"- {against}: {conclusion([(measure, apart) for _, measure, apart in rows])}")
                lines += [f"  - {sentence(question, measure, apart, where)}" for where, measure, apart in rows]
                told += len(rows)
        lines.append("")
    others = [question for question in results.answers if question not in CLAIMED_OF]
    if others:
        lines += ["**What else was asked**", ""]
    for question in others:
        lines.append(f"- {question.asks} ({question.first} − {question.second})")
        for key in _MAIN:
            if key in results.answers[question]:
                lines.append(f"  - {sentence(question, BY_KEY[key], results.answers[question][key])}")
                told += 1
    if told:
        lines += ["", f"{told} intervals are told here; if nothing differed, about {max(1, round(told / 20))} of them "
                      "would still leave out zero by chance."]  # fmt: skip
    return lines


def sentence(question: Question, measure: Measure, apart: Difference, where: str = "") -> str:
    """Returns one difference in words: numbers, interval, and what they show."""
    place = f", {where}" if where else ""
    head = f"{question.first} − {question.second}, {measure.heading}{place}: {with_interval(measure, apart)}"
    seeds = len(apart.per_seed)
    if apart.low is None:
        return f"{head}: too few {'trainings' if apart.people == 0 else 'people'} to tell"
    if apart.told == 0:
        return f"{head}: no difference that {seeds} {'seed' if seeds == 1 else 'seeds'} can show"
    if measure.better == 0:
        return f"{head}: {'larger' if apart.told > 0 else 'smaller'}"
    winner = question.first if apart.told == measure.better else question.second
    return f"{head}: {winner} is better"


def conclusion(rows: Sequence[tuple[Measure, Difference]]) -> str:
    """Returns whether a claim is confirmed: by a measure that is better where none is worse; and so on."""
    signs = [apart.told * measure.better for measure, apart in rows]
    better, worse, count = sum(s > 0 for s in signs), sum(s < 0 for s in signs), len(signs)
    if better and not worse:
        return f"confirmed ({better} of {count} measures better, none worse)"
    if worse and not better:
        return f"the opposite is seen ({worse} of {count} measures worse, none better)"
    if better:
        return f"undecided ({better} of {count} measures better, {worse} worse)"
    if any(apart.low is None for _, apart in rows):
        return "cannot be told (one training or one person gives no interval)"
    return f"not confirmed ({count} measures, no difference told)"


def with_interval(measure: Measure, apart: Difference) -> str:
    """Returns the difference with its sign and interval, in the unit of the tables."""
    if apart.low is None or apart.high is None:
        return f"{_signed(measure, apart.mean)} [?]"
    return f"{_signed(measure, apart.mean)} [{_signed(measure, apart.low)}, {_signed(measure, apart.high)}]"


def _signed(measure: Measure, value: float) -> str:
    text = f"{measure.factor * value:+.{measure.digits}f}"
    return text.replace("-", "−")


def _of_claim(claim: Claim, question: Question, results: Results) -> list[tuple[str, Measure, Difference]]:
    """The differences that speak of a claim: where (a class, or nothing), of what, how much."""
    if not claim.classes:
        return _pick(claim.measures, "", results.answers[question])
    rows: list[tuple[str, Measure, Difference]] = []
    for breakdown, label in claim.classes:
        labels = results.class_answers[question].get(breakdown, {})
        meant = list(labels)[-1] if label == LAST and labels else label
        if meant in labels:
            rows += _pick(claim.measures, _CLASS_WORDS[breakdown].format(meant), labels[meant])
    return rows


def _pick(
    keys: Sequence[str], where: str, differences: Mapping[str, Difference]
) -> list[tuple[str, Measure, Difference]]:
    return [(where, BY_KEY[key], differences[key]) for key in keys if key in differences]
