"""Intervals of paired differences, and the tables and sentences made from them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ecvae_jax.comparison import report, verdict
from ecvae_jax.comparison.measures import BY_KEY, MEASURES
from ecvae_jax.comparison.report import TABLES, draw_comparison, to_markdown
from ecvae_jax.comparison.results import BROKEN_DOWN, Results, gather, to_dict
from ecvae_jax.comparison.variants import VARIANTS, Question, plan_runs
from ecvae_jax.comparison.verdict import CLAIMS, conclusion, sentence, verdict_lines
from ecvae_jax.evaluation.statistics import Difference, paired_difference, summarize

ASKED = Question("equilibrium", "standard", "?")


def test_one_seed_and_one_value_a_person_is_the_paired_t_interval() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 12))
    found = paired_difference([first], [second], [f"p{i}" for i in range(12)])
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.people == 12


def test_numbers_of_whole_trainings_have_the_t_interval_over_seeds() -> None:
    first, second = [np.array([v]) for v in (1.0, 1.3, 0.9)], [np.array([v]) for v in (0.5, 0.6, 0.7)]
    found = paired_difference(first, second, None)
    expected = stats.ttest_rel([1.0, 1.3, 0.9], [0.5, 0.6, 0.7]).confidence_interval(0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.per_seed == pytest.approx((0.5, 0.7, 0.2))
    assert paired_difference(first[:1], second[:1], None) == Difference(0.5, None, None, (0.5,), 0)


def test_views_of_one_person_count_as_one_person() -> None:
    rng = np.random.default_rng(1)
    each = rng.normal(size=10)
    alone = paired_difference([each], [0 * each], list("abcdefghij"))
    people = [name for name in "abcdefghij" for _ in range(50)]
    repeated = paired_difference([each.repeat(50)], [0 * each.repeat(50)], people)
    assert alone is not None
    assert repeated is not None
    assert (alone.low, alone.high) == pytest.approx((repeated.low, repeated.high))


def test_the_interval_holds_the_truth_at_its_nominal_rate() -> None:
    rng = np.random.default_rng(2)
    people = [f"p{i}" for i in range(15) for _ in range(4)]
    for seed_effect, person_effect in ((1.0, 0.0), (0.0, 1.0), (0.7, 0.7)):
        held = 0
        for _ in range(300):
            seeds = seed_effect * rng.normal(size=(3, 1))
            persons = person_effect * rng.normal(size=(1, 15)).repeat(4, axis=1)
            apart = 0.5 + seeds + persons + 0.3 * rng.normal(size=(3, 60))
            found = paired_difference(list(apart), list(0 * apart), people)
            assert found is not None
            assert found.low is not None
            assert found.high is not None
            held += found.low <= 0.5 <= found.high
        assert held >= 0.92 * 300, (seed_effect, person_effect, held)
        assert seed_effect == person_effect or held <= 0.99 * 300, (seed_effect, person_effect, held)


def test_pairs_without_a_value_are_left_out_of_both() -> None:
    first, second = np.array([1.0, np.nan, 3.0, 5.0]), np.array([0.0, 7.0, np.nan, 3.0])
    found = paired_difference([first], [second], list("abcd"))
    assert found is not None
    assert found.mean == 1.5
    assert found.people == 2
    assert paired_difference([np.array([np.nan])], [np.array([1.0])], ["a"]) is None
    assert summarize([np.array([np.nan, 2.0]), np.array([4.0, 6.0])]) == (3.5, pytest.approx(4.5**0.5), 2)
    with pytest.raises(ValueError, match="same seeds and pairs"):
        paired_difference([first], [second, second], list("abcd"))


@pytest.mark.parametrize(
    ("key", "interval", "words"),
    [
        ("transfer_ssim", (0.002, -0.003, 0.006),
         "equilibrium − standard, transfer SSIM: +0.0020 [−0.0030, +0.0060]: no difference within 3 seeds"),
        ("transfer_ssim", (0.02, 0.01, 0.03), ": equilibrium is better"),
        ("transfer_ssim", (-0.02, -0.03, -0.01), ": standard is better"),
        ("transfer_identity", (-0.02, -0.03, -0.01), ": equilibrium is better"),
        ("kl", (5.0, 1.0, 9.0), "+5.0 [+1.0, +9.0]: larger"),
        ("transfer_sharpness", (0.05, 0.01, 0.09), "+5.0 [+1.0, +9.0]: equilibrium is better"),
        ("kl", (5.0, None, None), "+5.0 [?]: too few people for an interval"),
    ],
)  # fmt: skip
def test_a_difference_in_words(key: str, interval: tuple[Any, Any, Any], words: str) -> None:
    assert sentence(ASKED, BY_KEY[key], Difference(*interval, (0.0,) * 3, 20)).endswith(words)


def test_a_claim_is_confirmed_only_where_nothing_is_worse() -> None:
    better, worse, same = ((BY_KEY["transfer_ssim"], Difference(m, m - 1, m + 1, (m,) * 3, 9)) for m in (2, -2, 0))
    assert conclusion([better, same]) == "confirmed (1 of 2 measures better, none worse)"
    assert conclusion([worse, same]).startswith("the opposite (1 of 2")
    assert conclusion([worse, better]).startswith("undecided")
    assert conclusion([same, same]).startswith("not confirmed (2")
    assert conclusion([(BY_KEY["kl"], Difference(1, None, None, (1,), 0))]).startswith("unknown (one training")


def test_the_measures_come_from_the_table_of_metrics() -> None:
    claims = {claim.name: [measure.key for measure in MEASURES if measure.claim == claim.name] for claim in CLAIMS}
    assert claims == {
        "sharpness": ["transfer_sharpness", "transfer_detail", "reconstruction_sharpness", "sample_sharpness"],
        "diversity": ["sample_spread", "sample_identity_spread"],
        "appearance": [
            "transfer_psnr",
            "transfer_ssim",
            "transfer_identity",
            "transfer_identity_faceres",
            "reconstruction_ssim",
        ],
        "realism": [
            "transfer_lpips",
            "reconstruction_lpips",
            "sample_frechet",
            "sample_kernel",
            "sample_frechet_faceres",
            "bits_per_dimension",
        ],
    }
    assert {measure.claim for measure in MEASURES} == {*claims, ""}
    assert len(BY_KEY) == len(MEASURES) == 25
    for measure in MEASURES:
        assert [measure.key.startswith(beginnings) for beginnings in TABLES.values()].count(True) == 1, measure.key
    assert set(BY_KEY) >= {*BROKEN_DOWN, *report._FIGURE, *verdict._MAIN}
    ssim = BY_KEY["transfer_ssim"]
    assert (ssim.heading, ssim.digits, ssim.better, ssim.factor) == ("transfer SSIM", 4, 1, 1)


def synthetic() -> Results:
    """Three seeds, 40 pairs of 8 people: equilibrium has better SSIM, blurrier faces, and equal samples."""
    rng = np.random.default_rng(3)
    people = [f"p{i % 8}" for i in range(40)]
    runs = plan_runs([VARIANTS[name] for name in ("equilibrium", "mixture", "standard")], 3)

    def scores(name: str, seed: int) -> dict[str, Any]:
        shift = 0.02 if name == "equilibrium" else 0.0
        pair = np.random.default_rng(9).normal(size=40) * 0.05
        values = {
            "transfer_ssim": 0.6 + shift + pair + 0.001 * rng.normal(size=40),
            "transfer_psnr": 20 + pair + 0.001 * rng.normal(size=40),
            "transfer_sharpness": 0.7 - shift + pair + 0.001 * rng.normal(size=40),
            "sample_spread": 20 + rng.normal(size=16),
        }
        return {
            "people": {"pairs": people, "structures": people[:16]},
            "classes": {"by_turn": ["37.5+", "0-7.5"] * 20, "by_expression": ["other", "neutral", None, "other"] * 10},
            "values": {key: list(each) for key, each in values.items()},
            "numbers": {"kl": 300.0 + seed + 10 * (name == "mixture"), "sample_frechet": None},
            "baselines": {"copy": {"transfer_ssim": 0.4}},
        }

    facts = {"steps": 9, "batch_size": 8, "image_size": 64, "records": "made up", "split": "test", "version": "0"}
    return gather(runs, {run.name: scores(run.variant.name, run.seed) for run in runs}, facts)


def test_the_verdict_follows_the_numbers() -> None:
    text = "\n".join(verdict_lines(synthetic()))
    claims = dict(re.findall(r"\*\*(.*?)\?\*\*\n\n- equilibrium against standard: (.*)", text))
    assert claims['Sharper faces, less of a "mean" face'].startswith("the opposite (1 of 1")
    assert claims["More diverse faces"].startswith("not confirmed (1")
    assert claims["Appearance is kept better"].startswith("confirmed (1 of 2")
    assert claims["Better on extreme pose and expression"].startswith("confirmed (2 of 4")
    assert "transfer SSIM, head turned by 37.5+°" in text
    assert "transfer SSIM, other expression" in text
    assert "Fréchet" not in text
    assert re.search(r"\d+ intervals are listed. .* about \d+ of them", text)


def test_the_tables_hold_the_numbers_of_the_results() -> None:
    results = synthetic()
    text = to_markdown(results)
    tables = [block for block in text.split("\n\n") if block.startswith("| ")]
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    own = results.summaries["equilibrium"]["transfer_ssim"]
    assert f"| equilibrium | {results.summaries['equilibrium']['transfer_psnr'].mean:.2f} ± " in text
    assert f"{own.mean:.4f} ± {own.stddev:.4f}" in text
    assert "| *copy* | – | 0.4000 | – |" in text
    assert "0-7.5 (n = 20) | 37.5+ (n = 20)" in text
    apart = results.to_reference["standard"]["transfer_ssim"]
    assert apart.mean == pytest.approx(-0.02, abs=0.001)
    assert apart.sign == -1
    assert f"**−{-apart.mean:.4f} [" in text
    assert results.to_reference["mixture"]["kl"].mean == pytest.approx(10)
    stored = to_dict(results)
    assert stored["variants"]["standard"]["minus_reference"]["transfer_ssim"]["mean"] == apart.mean
    assert stored["questions"][0]["by_class"]["by_turn"]["37.5+"]["transfer_ssim"]["people"] == 4


def test_the_figure_has_a_panel_a_measure_and_a_dot_a_variant() -> None:
    figure = draw_comparison(synthetic())
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(panels) == 4
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["mixture", "standard"]
    assert sum(line.get_marker() == "o" for line in panels[0].lines) == 2
