"""`ecvae compare`: trainings, scores, and the report of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ecvae_jax import __version__
from ecvae_jax.comparison.figure import save_comparison
from ecvae_jax.comparison.results import Results, gather, to_dict
from ecvae_jax.comparison.runs import complete, load_scoring, plan_runs
from ecvae_jax.comparison.tables import to_markdown
from ecvae_jax.comparison.variants import choose_variants, usable_variants
from ecvae_jax.config import Config
from ecvae_jax.data.faces import load_faces
from ecvae_jax.evaluation.report import write_text


def compare(
    config: Config,
    workdir: Path,
    variants: Sequence[str] = (),
    seeds: int = 3,
    limit: int = 500,
    split: str = "test",
    metrics: str = "all",
) -> Results:
    """Returns the comparison, written as comparison.json, .md and .png into `workdir`, its trainings in `workdir/runs`.

    What is there already is not done again: the same call goes on where it was interrupted. More seeds or variants may
    be asked for later; other settings of scoring score the same trainings again.

    Args:
        config: the experiment that the variants change; its seed is not used.
        workdir: folder.
        variants: names in `variants.VARIANTS`; none: all. The reference is always one of them.
        seeds: trainings of each variant, with the seeds 0, 1, …
        limit: at most so many pairs are scored.
        split: of the records, to score on.
        metrics: "pixels", or "all": with dlib's identity and structure.

    Raises:
        ValueError: no such variant, seeds or limit below 1, or what `runs.complete` raises.
        DataError: the records cannot be used.
        CheckpointError: `workdir` holds trainings of another experiment.
        InterruptedComparisonError: Ctrl-C or SIGTERM; what was done is stored.
    """
    if seeds < 1 or limit < 1:
        raise ValueError(f"seeds={seeds}, limit={limit}: must be at least 1")
    chosen = choose_variants(variants)
    scoring, notes = load_scoring(config, split, limit, metrics)
    usable, left_out = usable_variants(chosen, config, len(load_faces(config.data.records, "train")))
    runs = plan_runs(usable, seeds)
    scores = complete(runs, config, workdir, scoring)
    facts = {
        "version": __version__, "steps": config.train.steps, "batch_size": config.train.batch_size,
        "image_size": config.model.image_size, "records": scoring.faces.metadata.get("source", config.data.records),
        "notes": [*notes, *left_out], **scoring.settings,
    }  # fmt: skip
    results = gather(runs, scores, facts)
    write_text(workdir / "comparison.json", json.dumps(to_dict(results), indent=1, allow_nan=False) + "\n")
    write_text(workdir / "comparison.md", to_markdown(results))
    save_comparison(results, workdir / "comparison.png")
    return results
