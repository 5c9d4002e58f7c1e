"""A training resumes with the same settings or with changes its user allows, never with another network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ecvae_jax.checkpoints.resume import CHANGEABLE, FREE, check_allowed, check_resume, unknown_settings
from ecvae_jax.checkpoints.store import CheckpointError
from ecvae_jax.config import Config

RUN = Path("run")
BEGUN = Config()


def given(**sections: dict[str, Any]) -> Config:
    changes = {name: dataclasses.replace(getattr(BEGUN, name), **fields) for name, fields in sections.items()}
    return dataclasses.replace(BEGUN, **changes)


def stored() -> dict[str, Any]:
    return json.loads(BEGUN.to_json())


def test_the_same_settings_resume_without_a_message() -> None:
    assert check_resume(BEGUN, stored(), RUN, ()) == []
    assert check_resume(given(train={"log_every": 3, "max_skipped": 9}), stored(), RUN, ()) == []


def test_every_difference_is_a_line() -> None:
    other = given(optim={"learning_rate": 0.001}, train={"steps": 9, "seed": 3}, model={"widths": (32, 64)})
    with pytest.raises(CheckpointError, match="run holds a training with 4 other settings, stored") as caught:
        check_resume(other, stored(), RUN, ())
    assert caught.value.__notes__ == [
        "model.widths: [32, 64, 128] -> [32, 64] (cannot be changed)",
        "optim.learning_rate: 0.003 -> 0.001",
        "train.steps: 2000 -> 9",
        "train.seed: 0 -> 3 (cannot be changed)",
    ]
    assert "--allow-change" not in str(caught.value)  # it would not help


def test_what_may_be_changed_is_changed_where_it_is_asked_for() -> None:
    other = given(optim={"learning_rate": 0.001}, train={"steps": 9})
    with pytest.raises(CheckpointError, match=r"or `ecvae train --allow-change optim\.learning_rate,train\.steps`"):
        check_resume(other, stored(), RUN, ())
    with pytest.raises(CheckpointError, match=r"train\.steps: 2000 -> 9; .* --allow-change train\.steps`$"):
        check_resume(other, stored(), RUN, ["optim.learning_rate"])
    lines = check_resume(other, stored(), RUN, ["optim.learning_rate", "train.steps"])
    assert lines == [
        "changed on resume: optim.learning_rate: 0.003 -> 0.001", "changed on resume: train.steps: 2000 -> 9",
    ]  # fmt: skip


def test_what_is_built_in_stays_whatever_is_asked_for() -> None:
    with pytest.raises(CheckpointError, match=r"model\.z_dim: 256 -> 64 \(cannot be changed\)"):
        check_resume(given(model={"z_dim": 64}), stored(), RUN, ["model.z_dim"])
    clipping = given(optim={"clip_norm": 2.0})
    assert check_resume(clipping, stored(), RUN, ["optim.clip_norm"])
    with pytest.raises(CheckpointError, match="cannot be turned on or off"):
        check_resume(given(optim={"clip_norm": 0.0}), stored(), RUN, ["optim.clip_norm"])


def test_an_older_config_takes_the_defaults_and_says_so() -> None:
    older = stored()
    del older["train"]["max_skipped"], older["optim"]["schedule"]
    (line,) = check_resume(BEGUN, older, RUN, ())
    assert line.endswith("using their defaults: optim.schedule='cosine', train.max_skipped=5")
    with pytest.raises(CheckpointError, match=r"optim\.schedule: 'cosine' -> 'linear'"):
        check_resume(given(optim={"schedule": "linear"}), older, RUN, ())


def test_settings_of_a_newer_version_are_found() -> None:
    newer = stored()
    newer["train"]["turbo"] = True
    newer["audio"] = {"rate": 3}
    assert unknown_settings(newer) == ["train.turbo", "audio.rate"]
    assert unknown_settings(stored()) == []


def test_only_settings_that_can_be_changed_can_be_asked_for() -> None:
    check_allowed(["train.steps", "optim.learning_rate", "train.log_every"])
    with pytest.raises(ValueError, match=r"allow-change 'model\.z_dim': cannot be changed once a training has begun"):
        check_allowed(["model.z_dim"])
    with pytest.raises(ValueError, match="allow-change 'steps': is not a setting; these can: data"):
        check_allowed(["steps"])


def test_every_name_of_the_tables_is_a_setting() -> None:
    known = {f"{section}.{name}" for section, fields in stored().items() for name in fields}
    assert known >= FREE | CHANGEABLE
    assert not FREE & CHANGEABLE
