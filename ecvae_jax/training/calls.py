"""The calls of a training: which steps one program runs, and their batches, placed on the devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ecvae_jax.config import Config, Span
from ecvae_jax.training.parallel import HostBatch, place_batch
from ecvae_jax.training.step import read_by_step


class CallSteps(NamedTuple):
    """Steps of one call, both ends included; the first step of a training is 1."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1


def calls(config: Config, start: int, profile: Span | None = None) -> Iterator[CallSteps]:
    """Yields the calls after step `start`, of at most `train.steps_per_call` steps.

    A call ends at every line of the log, picture and checkpoint, at both ends of `profile`, and where the next step
    differs from its own in having the LPIPS term, which is in step 1 and every `perceptual_every`-th after it.
    """
    train, every = config.train, config.objective.perceptual_every
    edges = () if profile is None else (profile.first - 1, profile.last)

    def ends(step: int) -> bool:
        due = any(step % each == 0 for each in (train.log_every, train.images_every, train.checkpoint_every))
        return due or step in edges or has_perceptual(step, every) != has_perceptual(step + 1, every)

    first = start + 1
    for step in range(start + 1, train.steps + 1):
        if step - first + 1 == train.steps_per_call or step == train.steps or ends(step):
            yield CallSteps(first, step)
            first = step + 1


def has_perceptual(step: int, every: int) -> bool:
    """Returns whether a step has the LPIPS term, if the objective has one."""
    return (step - 1) % every == 0


def feed(
    config: Config, batches: Iterator[HostBatch], steps: Iterator[CallSteps], ahead: bool | None = None
) -> Iterator[tuple[CallSteps, Mapping[str, Any]]]:
    """Yields each call with its batch, or with `train.steps_per_call` > 1 its batches along a leading axis.

    That axis has one length: a shorter call repeats its last batch, which no step reads.

    Args:
        ahead: place the batch of the next call before this one is dispatched, so that its transfer needs no wait.
            None: except on CPUs, where nothing is transferred.
    """
    size, parallel = config.train.steps_per_call, config.train.parallel

    def fetch(call: CallSteps) -> Mapping[str, Any]:
        read = [read_by_step(config, next(batches)) for _ in range(len(call))]
        if size > 1:
            read += read[-1:] * (size - len(call))
            return place_batch({name: np.stack([batch[name] for batch in read]) for name in read[0]}, parallel, True)
        return place_batch(read[0], parallel) if ahead and parallel == "shard_map" else read[0]

    if ahead is None:
        ahead = jax.default_backend() != "cpu"
    held = []
    for call in steps:
        held.append((call, fetch(call)))
        if len(held) > int(ahead):
            yield held.pop(0)
    yield from held


def by_step(metrics: Sequence[tuple[CallSteps, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Returns the metrics of each step, in order, of those of calls; without an axis of steps they are of one step."""
    found: list[dict[str, Any]] = []
    for call, each in metrics:
        if each["loss"].ndim:
            found += [{name: value[i] for name, value in each.items()} for i in range(len(call))]
        else:
            found.append(dict(each))
    return found
