"""Whether a training may go on from a stored one: what differs between their settings, and what of that may."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ecvae_jax.checkpoints.integrity import CheckpointError
from ecvae_jax.config import Config

FREE = frozenset({
    "data.cache", "train.log_every", "train.images_every", "train.checkpoint_every", "train.keep_checkpoints",
    "train.parallel", "train.max_skipped", "train.hang_after", "train.hang_exit",
})  # fmt: skip
"""What cannot change the result of a training, and may always be set anew."""

CHANGEABLE = frozenset({
    "data.records", "data.mirror", "data.pairs", "data.color_jitter",
    "model.dtype",
    "objective.likelihood", "objective.scale", "objective.ssim_weight", "objective.beta", "objective.beta_ramp",
    "optim.learning_rate", "optim.schedule", "optim.warmup_steps", "optim.clip_norm", "optim.ema_decay",
    "train.steps", "train.batch_size",
})  # fmt: skip
"""What a training can go on with changed where its user asks for it. All else is built into the stored arrays: their
shapes, the clusters and the frozen prior, what the network knows of sketches and landmarks, the order of the data."""

_ABSENT = object()


class Difference:
    """One setting that is not what was stored."""

    def __init__(self, name: str, stored: Any, given: Any, allowed: bool) -> None:
        """Judges a difference; `allowed` says that the user asked for it."""
        self.name, self.allowed = name, allowed
        rule = "" if name in CHANGEABLE else " (cannot be changed)"
        # Clipping is a part of the optimizer's state: it can be set otherwise, but not come or go.
        if name == "optim.clip_norm" and bool(stored) != bool(given):
            self.allowed, rule = False, " (clipping cannot be turned on or off: its state is stored)"
        self.possible = not rule
        self.line = f"{name}: {stored!r} -> {given!r}{rule}"


def check_allowed(names: Collection[str]) -> None:
    """Raises ValueError where one of the names is no setting that can be changed when a training goes on."""
    known = {f"{section}.{name}" for section, fields in dataclasses.asdict(Config()).items() for name in fields}
    for name in names:
        if name in CHANGEABLE | FREE:
            continue
        rule = "cannot be changed once a training has begun" if name in known else "is no setting"
        raise ValueError(f"allow-change {name!r}: {rule}; these can: {', '.join(sorted(CHANGEABLE))}")


def check_continuation(given: Config, stored: Mapping[str, Any], workdir: Path, allowed: Collection[str]) -> list[str]:
    """Returns lines that tell what is taken anew; a setting that the stored config lacks counts as its default.

    Args:
        given: what the training is to go on with.
        stored: the config in its checkpoint, as JSON.
        workdir: of the training, for the message.
        allowed: settings, as section.field, that the user wants changed.

    Raises:
        CheckpointError: other settings differ, or one that cannot be changed. Its notes are a line each.
    """
    wanted: dict[str, Any] = json.loads(given.to_json())
    defaults: dict[str, Any] = json.loads(Config().to_json())
    differences, new = [], []
    for section, fields in wanted.items():
        for name, value in fields.items():
            full = f"{section}.{name}"
            before = stored.get(section, {}).get(name, _ABSENT)
            if before is _ABSENT:
                before = defaults[section][name]
                new.append(f"{full}={before!r}")
            if value != before and full not in FREE:
                differences.append(Difference(full, before, value, full in allowed))
    lines = []
    if new:
        lines.append(f"{workdir} was stored before these settings existed, their defaults are taken: {', '.join(new)}")
    refused = [difference for difference in differences if not (difference.allowed and difference.possible)]
    if refused:
        raise _refusal(workdir, refused)
    lines += [f"changed from here on: {difference.line}" for difference in differences]
    return lines


def check_same_records(wanted: Mapping[str, Any], stored: Mapping[str, Any], workdir: Path) -> None:
    """Raises CheckpointError where the faces are others: clusters and initialization came from those at the start."""
    for name in ("faces", "fingerprint"):
        if name in wanted and name in stored and wanted[name] != stored[name]:
            raise CheckpointError(
                f"{workdir} holds a training on other faces ({name} {stored[name]}, the records now have "
                f"{wanted[name]}): give the records that it began with, or another --workdir"
            )


def unknown_settings(stored: Mapping[str, Any]) -> list[str]:
    """Returns the settings of a stored config that this version does not know, as section.field."""
    known: dict[str, Any] = dataclasses.asdict(Config())
    return [f"{section}.{name}" for section, fields in stored.items() for name in fields
            if name not in known.get(section, {})]  # fmt: skip


def _refusal(workdir: Path, refused: list[Difference]) -> CheckpointError:
    possible = all(difference.possible for difference in refused)
    cure = "take them, or another --workdir"
    if possible:
        cure += f", or `ecvae train --allow-change {','.join(difference.name for difference in refused)}`"
    if len(refused) == 1:
        return CheckpointError(
            f"{workdir} holds a training with other settings, stored -> given: {refused[0].line}; "
            f"a training is continued with the same: {cure}"
        )
    error = CheckpointError(
        f"{workdir} holds a training with {len(refused)} other settings, stored -> given below; "
        f"a training is continued with the same: {cure}"
    )
    for difference in refused:
        error.add_note(difference.line)
    return error
