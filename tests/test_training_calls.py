"""Several steps in one call: the same bits however steps are grouped, and calls that end where a training must stop."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import pytest
from support.training import assert_close, assert_same, assert_same_curves, at_step, restored, scalars, with_train

from ecvae_jax.config import Config, Span
from ecvae_jax.data.batches import load_faces, training_batches
from ecvae_jax.training import calls as calls_module
from ecvae_jax.training.calls import calls, feed
from ecvae_jax.training.loop import train


def test_calls_end_where_the_loop_must_act(tiny_config: Config) -> None:
    config = with_train(tiny_config, steps=15, steps_per_call=4, log_every=6, images_every=15, checkpoint_every=9)
    assert list(calls(config, 0)) == [(1, 4), (5, 6), (7, 9), (10, 12), (13, 15)]
    assert list(calls(config, 7)) == [(8, 9), (10, 12), (13, 15)]
    assert list(calls(config, 7, Span(12, 14))) == [(8, 9), (10, 11), (12, 12), (13, 14), (15, 15)]
    for start in range(15):
        taken = [step for call in calls(config, start) for step in range(call.first, call.last + 1)]
        assert taken == list(range(start + 1, 16))


def test_a_call_has_the_perceptual_term_in_all_steps_or_in_none(tiny_config: Config) -> None:
    config = with_train(tiny_config, steps=10, steps_per_call=2, log_every=10, images_every=10, checkpoint_every=10)
    thirds = dataclasses.replace(config, objective=dataclasses.replace(config.objective, perceptual_every=3))
    assert list(calls(thirds, 0)) == [(1, 1), (2, 3), (4, 4), (5, 6), (7, 7), (8, 9), (10, 10)]


@pytest.fixture(scope="module")
def by_five(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training of `tiny_config` as two calls of five steps."""
    folder = tmp_path_factory.mktemp("by_five")
    assert train(with_train(tiny_config, steps_per_call=5), folder).finished
    return folder


def test_calls_of_several_steps_train_as_single_steps_do(
    tiny_config: Config, tiny_workdir: Path, by_five: Path
) -> None:
    """To rounding: XLA compiles the body of a loop in another way."""
    assert_close(restored(tiny_config, tiny_workdir), restored(with_train(tiny_config, steps_per_call=5), by_five))
    assert sorted(p.name for p in (by_five / "checkpoints").iterdir() if p.name.isdigit()) == ["10", "5"]
    single, several = scalars(tiny_workdir), scalars(by_five)
    assert single.keys() == several.keys()
    for name in ("loss", "kl", "learning_rate", "beta"):
        assert several[name] == pytest.approx(single[name], rel=1e-4)


def test_bits_do_not_depend_on_how_steps_are_grouped_nor_on_interruptions(
    tiny_config: Config, by_five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of 3, 2, 1, 3, 1 steps, interrupted after step 3, with batches placed ahead."""
    monkeypatch.setattr(calls_module.jax, "default_backend", lambda: "gpu")
    config, seen = with_train(tiny_config, steps_per_call=5, checkpoint_every=3), []

    def interrupt(step: int, metrics: object) -> None:
        seen.append(step)
        at_step(2, lambda: os.kill(os.getpid(), signal.SIGINT))(step, metrics)

    assert train(config, tmp_path, on_step=interrupt).step == 3
    assert train(config, tmp_path, on_step=interrupt).finished
    assert seen == list(range(1, 11))
    whole = with_train(tiny_config, steps_per_call=5)
    assert_same(restored(whole, by_five), restored(whole, tmp_path))
    assert_same_curves(by_five, tmp_path)


@pytest.mark.slow  # the calls themselves are compared by both maps below
def test_pmap_trains_as_shard_map_does(tiny_config: Config, by_five: Path, tmp_path: Path) -> None:
    config = with_train(tiny_config, steps_per_call=5, parallel="pmap")
    assert train(config, tmp_path).finished
    assert_close(restored(config, by_five), restored(config, tmp_path))


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("parallel", ["shard_map", "pmap"])
def test_batches_reach_their_calls_in_order(
    tiny_config: Config, ahead: bool, parallel: Literal["shard_map", "pmap"]
) -> None:
    """With `ahead`, those of one call more are placed before a call begins."""
    config = with_train(tiny_config, steps=5, steps_per_call=2, log_every=5, checkpoint_every=5, parallel=parallel)
    faces = load_faces(config.data.records, "train")
    wanted = list(itertools.islice(training_batches(faces, config.data, 32, 8, 0), 5))
    taken: list[int] = []

    def counted():
        for number, batch in enumerate(wanted, 1):
            taken.append(number)
            yield batch

    found = []
    for call, batch in feed(config, counted(), calls(config, 0), ahead):
        assert taken[-1] == (min(call.last + 2, 5) if ahead else call.last)
        given = np.asarray(batch["landmarks"]).reshape(2, *wanted[0]["landmarks"].shape)
        found += list(given[: len(call)])
        assert parallel == "pmap" or all(isinstance(value, jax.Array) for value in batch.values())
    assert np.array_equal(found, [batch["landmarks"] for batch in wanted])
