"""Sums of metrics: means without skipped steps, how many were skipped, and when they are too many."""

from __future__ import annotations

import numpy as np
import pytest

from ecvae_jax.training.metrics import MetricAverages


def steps(*kl: float) -> list[dict[str, np.ndarray]]:
    return [{name: np.float32(value) for name, value in
             {"loss": 2 * one, "kl": one, "gradient_norm": one, "skipped": float(not np.isfinite(one))}.items()}
            for one in kl]  # fmt: skip


def test_skipped_steps_are_counted_and_not_in_the_means() -> None:
    window = MetricAverages({})
    assert window.add(steps(1.0, np.nan, 3.0, np.inf), 4, most=2) is None
    assert window.means() == {"loss": 4.0, "kl": 2.0, "gradient_norm": 2.0, "skipped": 2.0}
    assert window.skipped == 2
    assert str(window.last_skipped) == "step 4: kl is inf"


def test_only_steps_in_a_row_are_too_many_whatever_window_or_process_they_are_in() -> None:
    window = MetricAverages({})
    assert window.add(steps(np.nan, 1.0, np.nan), 3, most=3) is None
    window = MetricAverages(dict(window.next().totals))
    assert window.skipped == 0
    assert window.add(steps(np.nan), 4, most=3) is None
    assert window.means() == {}  # no step of this window was taken
    resumed = MetricAverages(dict(window.totals))
    failed = resumed.add(steps(np.nan, 1.0), 6, most=3)
    assert failed is not None
    assert (failed.step, failed.why) == (5, "kl is nan")


def test_the_cause_is_named_before_what_follows_from_it() -> None:
    values = {"gradient_norm": np.nan, "loss": np.nan, "kl": 1.0, "recon_nll": np.inf, "skipped": 1.0}
    failed = MetricAverages({}).add([{name: np.float32(value) for name, value in values.items()}], 1, most=1)
    assert str(failed) == "step 1: recon_nll is inf"
    values |= {"loss": 1.0, "recon_nll": 1.0}
    failed = MetricAverages({}).add([{name: np.float32(value) for name, value in values.items()}], 1, most=1)
    assert str(failed) == "step 1: gradient_norm is nan"


def test_totals_of_an_older_checkpoint_are_continued() -> None:
    window = MetricAverages({"steps": 2.0, "loss": 6.0})
    assert window.add([{"loss": np.float32(6.0), "skipped": np.float32(0.0)}], 3, most=1) is None
    assert window.means() == {"loss": pytest.approx(4.0), "skipped": 0.0}
