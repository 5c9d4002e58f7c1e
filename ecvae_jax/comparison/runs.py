"""The trainings of a comparison and their scores: each runs once, is stored, and resumes after an interruption."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecvae_jax import __version__
from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.comparison.measures import measure_run
from ecvae_jax.comparison.report import save_comparison, to_markdown
from ecvae_jax.comparison.results import Results, gather, to_dict
from ecvae_jax.comparison.variants import Run, choose_variants, plan_runs, usable_variants
from ecvae_jax.config import Config
from ecvae_jax.data.faces import Faces, load_faces
from ecvae_jax.evaluation.scoring import Measures, load_measures
from ecvae_jax.files import read_regular, write_text
from ecvae_jax.progress import duration
from ecvae_jax.training.loop import train

RUNS = "runs"
SCORES = "scores.json"
"""In the folder of each run; written last, so that its presence marks a finished run."""

_FORMAT = 2
_LARGEST_SCORES = 16 * 2**20
"""Bytes."""
_SCORED_ALONE = 0.1  # of the time of a run with training, for the estimate of the time left


@dataclass(frozen=True)
class Scoring:
    """How every run is scored; the `settings` are stored with the scores, and a run with other ones is scored again."""

    faces: Faces
    limit: int
    measures: Measures
    settings: dict[str, Any]


class InterruptedComparisonError(Exception):
    """The signal `stopped_by` interrupted a training, which has saved a checkpoint."""

    def __init__(self, message: str, stopped_by: int | None) -> None:
        super().__init__(message)
        self.stopped_by = stopped_by


def load_scoring(config: Config, split: str, limit: int, metrics: str) -> tuple[Scoring, list[str]]:
    """Returns how runs are scored, and a note if dlib is missing.

    Raises:
        DataError: the records have no such split.
    """
    measures, notes = load_measures(metrics)
    faces = load_faces(config.data.records, split)
    known = "all" if measures.faces else "pixels"
    settings = {"split": split, "limit": limit, "metrics": known, "fingerprint": faces.fingerprint}
    return Scoring(faces, limit, measures, settings), notes


def complete(runs: Sequence[Run], base: Config, workdir: Path, scoring: Scoring) -> dict[str, dict[str, Any]]:
    """Returns the scores of every run by its name; trains and scores missing runs, a line each on standard error.

    Raises:
        InterruptedComparisonError: Ctrl-C or SIGTERM during a training.
        CheckpointError: the folder of a run holds another experiment.
        ValueError: see `training.loop.train` and `measures.measure_run`.
    """
    folder = workdir / RUNS
    done = {run.name: _stored(folder, run, base, scoring) for run in runs}
    missing = [run for run in runs if done[run.name] is None]
    # A variant that shares a training costs only its scoring, if that training is done before.
    weights = [1.0 if run.name == run.training else _SCORED_ALONE for run in missing]
    if len(missing) < len(runs):
        _say(f"{len(runs) - len(missing)} of {len(runs)} runs are already done")
    began = time.monotonic()
    for number, run in enumerate(missing):
        start = time.monotonic()
        _say(f"[{len(runs) - len(missing) + number + 1}/{len(runs)}] {run.variant.name}, seed {run.seed}")
        scores = _complete_one(run, base, folder, scoring)
        done[run.name] = scores
        spent = time.monotonic() - began
        left = spent / sum(weights[: number + 1]) * sum(weights[number + 1 :])
        _say(f"    {_glance(scores)}; {duration(time.monotonic() - start)}, about {duration(left)} left")
    return {name: scores for name, scores in done.items() if scores is not None}


def _complete_one(run: Run, base: Config, folder: Path, scoring: Scoring) -> dict[str, Any]:
    config = run.variant.config(base, run.seed)
    outcome = train(config, folder / run.training)
    if not outcome.finished:
        message = (
            f"interrupted in {run.training} at step {outcome.step} of {config.train.steps}: run the same command again "
            "to resume"
        )
        raise InterruptedComparisonError(message, outcome.stopped_by)
    model = load_model(folder / run.training)
    measured = measure_run(model, scoring.faces, scoring.limit, run.variant.transport, scoring.measures)
    scores = {**_made(config, scoring), **measured}
    write_text(folder / run.name / SCORES, json.dumps(scores, allow_nan=False) + "\n")
    return scores


def _made(config: Config, scoring: Scoring) -> dict[str, Any]:
    """What scores are stored with: those of another experiment or scoring are not used."""
    return {"format": _FORMAT, "settings": scoring.settings, "config": json.loads(config.to_json())}


def _stored(folder: Path, run: Run, base: Config, scoring: Scoring) -> dict[str, Any] | None:
    """The stored scores of a run; None if they are missing or come from other settings.

    `train` itself refuses another experiment, and accepts one that differs only in settings without effect on results.
    """
    path, made = folder / run.name / SCORES, _made(run.variant.config(base, run.seed), scoring)
    try:
        scores = json.loads(read_regular(path, _LARGEST_SCORES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        _say(f"{path} cannot be read: the run is scored again")
        return None
    if not isinstance(scores, dict):
        scores = {}
    with contextlib.suppress(TypeError, ValueError):  # later fields of an experiment get their defaults
        scores["config"] = json.loads(Config.from_json(json.dumps(scores.get("config"))).to_json())
    other = [key for key, value in made.items() if scores.get(key) != value]
    if not other:
        return scores
    if other == ["settings"]:
        before = scores["settings"] if isinstance(scores["settings"], dict) else {}
        changed = [key for key, value in scoring.settings.items() if before.get(key) != value]
        old = ", ".join(f"{key} {before.get(key)}" for key in changed)
        _say(f"{path.parent.name}: was scored with {old}; it is scored again")
    return None


def _glance(scores: dict[str, Any]) -> str:
    values = scores["values"]
    psnr, ssim = (sum(values[key]) / len(values[key]) for key in ("transfer_psnr", "transfer_ssim"))
    return f"transfer {psnr:.2f} dB, SSIM {ssim:.4f}"


def _say(line: str) -> None:
    print(f"ecvae: {line}", file=sys.stderr, flush=True)


def compare(
    config: Config,
    workdir: Path,
    variants: Sequence[str] = (),
    seeds: int = 3,
    limit: int = 500,
    split: str = "test",
    metrics: str = "all",
) -> Results:
    """Returns the comparison, written as comparison.json, .md and .png into `workdir`; trainings are in `workdir/runs`.

    Finished runs are not repeated, and an interrupted call resumes when run again. A later call may ask for more seeds
    or variants; other settings of scoring score the same trainings again.

    Args:
        config: the experiment that the variants change; its seed is not used.
        variants: names in VARIANTS; empty: all. The reference is always included.
        seeds: trainings of each variant, with the seeds 0 to seeds − 1.
        metrics: "pixels", or "all": with dlib's identity and structure.

    Raises:
        ValueError: an unknown variant, seeds or limit below 1, or see `complete`.
        DataError: the records cannot be used.
        CheckpointError: `workdir` holds trainings of another experiment.
        InterruptedComparisonError: Ctrl-C or SIGTERM; finished runs and checkpoints are stored.
    """
    if seeds < 1 or limit < 1:
        raise ValueError(f"seeds={seeds}, limit={limit}: must be at least 1")
    chosen = choose_variants(variants)
    scoring, notes = load_scoring(config, split, limit, metrics)
    usable, left_out = usable_variants(chosen, config, len(load_faces(config.data.records, "train")))
    runs = plan_runs(usable, seeds)
    scores = complete(runs, config, workdir, scoring)
    facts = {
        "version": __version__,
        "steps": config.train.steps,
        "batch_size": config.train.batch_size,
        "image_size": config.model.image_size,
        "records": scoring.faces.metadata.get("source", config.data.records),
        "notes": [*notes, *left_out],
        **scoring.settings,
    }
    results = gather(runs, scores, facts)
    write_text(workdir / "comparison.json", json.dumps(to_dict(results), indent=1, allow_nan=False) + "\n")
    write_text(workdir / "comparison.md", to_markdown(results))
    save_comparison(results, workdir / "comparison.png")
    return results
