"""Whether a stored training may resume with given settings: which differences exist, and which are allowed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ecvae_jax.checkpoints.integrity import CheckpointError
from ecvae_jax.config import Config

FREE = frozenset(
    {
        "data.cache",
        *("train.log_every", "train.images_every", "train.checkpoint_every", "train.keep_checkpoints"),
        *("train.parallel", "train.max_skipped", "train.hang_after", "train.hang_exit"),
    }
)
"""Settings that cannot change the result of a training; they may always differ."""

CHANGEABLE = frozenset(
    {
        *("data.records", "data.mirror", "data.pairs", "data.color_jitter", "model.dtype", "model.remat"),
        *("objective.likelihood", "objective.scale", "objective.ssim_weight", "objective.beta", "objective.beta_ramp"),
        *("objective.perceptual_weight", "objective.perceptual_taps", "objective.perceptual_resolution"),
        *("objective.perceptual_every", "objective.perceptual_features"),
        *("prior.fit_every", "prior.fit_decay", "prior.pooling", "prior.least_floor"),
        *("optim.learning_rate", "optim.schedule", "optim.warmup_steps", "optim.clip_norm", "optim.ema_decay"),
        *("train.steps", "train.batch_size", "train.steps_per_call"),
    }
)
"""Settings that may differ if the user allows it. All others are fixed by the stored arrays: their shapes, the clusters
and the frozen prior, the sketches and landmarks that the network was trained on, the order of the data."""

_ABSENT = object()


class Difference:
    """One setting whose given value differs from the stored one."""

    def __init__(self, name: str, stored: Any, given: Any, allowed: bool) -> None:
        """Judges a difference; `allowed`: the user asked for it."""
        self.name, self.allowed = name, allowed
        rule = "" if name in CHANGEABLE else " (cannot be changed)"
        # Clipping is part of the optimizer's state: its norm can change, but its state cannot appear or vanish.
        if name == "optim.clip_norm" and bool(stored) != bool(given):
            self.allowed, rule = False, " (clipping cannot be turned on or off: its state is stored)"
        self.possible = not rule
        self.line = f"{name}: {stored!r} -> {given!r}{rule}"


def check_allowed(names: Collection[str]) -> None:
    """Raises ValueError if one of the names is not a setting that can change when a training resumes."""
    known = {f"{section}.{name}" for section, fields in dataclasses.asdict(Config()).items() for name in fields}
    for name in names:
        if name in CHANGEABLE | FREE:
            continue
        rule = "cannot be changed once a training has begun" if name in known else "is not a setting"
        raise ValueError(f"allow-change {name!r}: {rule}; these can: {', '.join(sorted(CHANGEABLE))}")


def check_resume(given: Config, stored: Mapping[str, Any], workdir: Path, allowed: Collection[str]) -> list[str]:
    """Returns a line for each changed setting, and one for the settings that the stored config lacks.

    A setting that the stored config lacks counts as its default. The user wants the `allowed` ones changed:
    section.field.

    Raises:
        CheckpointError: a setting differs that is not allowed, or that cannot change. Its notes list several.
    """
    wanted: dict[str, Any] = json.loads(given.to_json())
    defaults: dict[str, Any] = json.loads(Config().to_json())
    differences, new = [], []
    for section, fields in wanted.items():
        for name, value in fields.items():
            setting = f"{section}.{name}"
            before = stored.get(section, {}).get(name, _ABSENT)
            if before is _ABSENT:
                before = defaults[section][name]
                new.append(f"{setting}={before!r}")
            if value != before and setting not in FREE:
                differences.append(Difference(setting, before, value, setting in allowed))
    refused = [difference for difference in differences if not (difference.allowed and difference.possible)]
    if refused:
        raise _refusal(workdir, refused)
    lines = [f"changed on resume: {difference.line}" for difference in differences]
    if new:
        lines.insert(0, f"{workdir} was stored before these settings existed; using their defaults: {', '.join(new)}")
    return lines


def check_same_records(given: Mapping[str, Any], stored: Mapping[str, Any], workdir: Path) -> None:
    """Raises CheckpointError if the faces differ: clusters and initialization came from those at the start."""
    for name in ("faces", "fingerprint"):
        if name in given and name in stored and given[name] != stored[name]:
            raise CheckpointError(
                f"{workdir} holds a training on other faces ({name} {stored[name]}, the records now have "
                f"{given[name]}): use the original records, or another --workdir"
            )


def unknown_settings(stored: Mapping[str, Any]) -> list[str]:
    """Returns the settings of a stored config that this version does not know, as section.field."""
    known: dict[str, Any] = dataclasses.asdict(Config())
    return [f"{part}.{name}" for part, fields in stored.items() for name in fields if name not in known.get(part, {})]


def _refusal(workdir: Path, refused: list[Difference]) -> CheckpointError:
    cure = "resume it with the stored settings, use another --workdir"
    if all(difference.possible for difference in refused):
        cure += f", or `ecvae train --allow-change {','.join(difference.name for difference in refused)}`"
    if len(refused) == 1:
        return CheckpointError(
            f"{workdir} holds a training with other settings, stored -> given: {refused[0].line}; {cure}"
        )
    error = CheckpointError(
        f"{workdir} holds a training with {len(refused)} other settings, stored -> given below; {cure}"
    )
    for difference in refused:
        error.add_note(difference.line)
    return error
