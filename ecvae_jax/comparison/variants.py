"""The variants: the given experiment with a few settings changed; and the questions that two of them answer."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from ecvae_jax.config import Config

REFERENCE = "equilibrium"
"""Baseline: variants are reported as differences from it, seed by seed."""


@dataclass(frozen=True)
class Variant:
    """One row of the comparison."""

    name: str
    words: str
    """Description for the table."""
    settings: Mapping[str, Any]
    """`section.field`: value, applied to the given experiment."""
    trained_as: str = ""
    """The variant whose training is scored; empty: its own."""
    transport: bool = True
    """Whether scoring moves z between priors."""

    @property
    def training(self) -> str:
        """Name of the variant whose training is scored."""
        return self.trained_as or self.name

    def config(self, base: Config, seed: int) -> Config:
        """Returns the experiment with this variant's settings and the seed."""
        return with_settings(base, {**self.settings, "train.seed": seed})


class Run(NamedTuple):
    """One variant with one seed."""

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.variant.name}-seed{self.seed}"

    @property
    def training(self) -> str:
        """Name of its training's folder, which may be another variant's."""
        return f"{self.variant.training}-seed{self.seed}"


class Question(NamedTuple):
    """Two variants that differ in one thing."""

    first: str
    second: str
    asks: str


def _variant(name: str, words: str, trained_as: str = "", transport: bool = True, **settings: Any) -> Variant:
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return Variant(name, words, MappingProxyType(dotted), trained_as, transport)


# No "standard-plain": a posterior relative to N(0, I) is a plain one (a test holds both trainings equal).
VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        _variant(REFERENCE, "Eq. 4, the paper's", prior__kind="equilibrium"),
        # Right after the variant whose training it shares, while its compiled programs are still cached.
        _variant("no-transport", "equilibrium, z not moved to the target's prior", trained_as=REFERENCE,
                 transport=False, prior__kind="equilibrium"),
        _variant("mixture", "Eq. 3, Gaussian mixture", prior__kind="mixture"),
        _variant("standard", "Eq. 2, N(0, I)", prior__kind="standard"),
        _variant("literal", "equilibrium, weights by the paper's formula",
                 prior__kind="equilibrium", clusters__mode="literal"),
        _variant("equilibrium-plain", "equilibrium, posterior not relative to the prior",
                 prior__kind="equilibrium", model__posterior="plain"),
        _variant("mixture-plain", "mixture, posterior not relative to the prior",
                 prior__kind="mixture", model__posterior="plain"),
        _variant("learned", "equilibrium, means trained with the network",
                 prior__kind="equilibrium", prior__learned=True),
        _variant("learned-plain", "equilibrium, means trained, posterior not relative to the prior",
                 prior__kind="equilibrium", prior__learned=True, model__posterior="plain"),
        _variant("covariance", "Eq. 4 with one fitted covariance for all clusters", prior__kind="covariance"),
        _variant("covariance-clusters", "Eq. 4 with a fitted covariance for each cluster",
                 prior__kind="covariance", prior__pooling=100.0),
        _variant("covariance-shared", "one fitted covariance, one noise for all clusters: the width is every face's",
                 prior__kind="covariance", prior__noise="shared"),
        _variant("equilibrium-self", "equilibrium, self-reconstruction only (the paper's)",
                 prior__kind="equilibrium", data__pairs=0.0),
        _variant("mixture-self", "mixture, self-reconstruction only", prior__kind="mixture", data__pairs=0.0),
        _variant("standard-self", "N(0, I), self-reconstruction only", prior__kind="standard", data__pairs=0.0),
        _variant("means-0", "equilibrium without its means: only the width depends on the face",
                 prior__kind="equilibrium", prior__mean_norm=0.0),
        _variant("means-10", "equilibrium, means ten times as long", prior__kind="equilibrium", prior__mean_norm=10.0),
        _variant("k-8", "equilibrium, K = 8", prior__kind="equilibrium", clusters__count=8),
        _variant("k-128", "equilibrium, K = 128", prior__kind="equilibrium", clusters__count=128),
        _variant("stddev-0.05", "equilibrium, σ_k = 0.05", prior__kind="equilibrium", prior__stddev=0.05),
        _variant("stddev-0.2", "equilibrium, σ_k = 0.2", prior__kind="equilibrium", prior__stddev=0.2),
    )
}  # fmt: skip

QUESTIONS = (
    Question(REFERENCE, "standard", "is the equilibrium prior better than the vanilla one?"),
    Question(REFERENCE, "mixture", "is it better than the Gaussian mixture?"),
    Question("equilibrium-self", "standard-self", "with self-reconstruction only, as in the paper: is it better than "
             "the vanilla one?"),
    Question("equilibrium-self", "mixture-self", "with self-reconstruction only: is it better than the mixture?"),
    Question("equilibrium-plain", "standard", "with a plain posterior: is it better than the vanilla one?"),
    Question(REFERENCE, "equilibrium-plain", "does the relative posterior help?"),
    Question(REFERENCE, "no-transport", "does moving z to the target's prior help?"),
    Question(REFERENCE, "literal", "do centered weights help against the paper's literal ones?"),
    Question(REFERENCE, "means-0", "do the cluster means help at all?"),
    Question("learned", REFERENCE, "does it help to train the cluster means, which the paper keeps fixed?"),
    Question("learned-plain", "equilibrium-plain", "with a plain posterior: does it help to train them?"),
    Question("covariance", REFERENCE, "do fitted covariances help?"),
    Question("covariance-clusters", "covariance", "do they help more if each cluster has its own?"),
    Question("covariance-shared", "covariance", "do they help more if every face has the same width?"),
    Question("literal", "standard", "literal weights give nearly every face the same prior: is it the vanilla one?"),
)  # fmt: skip


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """Returns the experiment with the fields `section.field` replaced."""
    for dotted, value in settings.items():
        section, name = dotted.split(".")
        config = dataclasses.replace(
            config, **{section: dataclasses.replace(getattr(config, section), **{name: value})}
        )
    return config


def choose_variants(names: Sequence[str]) -> list[Variant]:
    """Returns the named variants in the order of VARIANTS (all if none is named), the reference always included.

    Raises:
        ValueError: an unknown name.
    """
    for name in names:
        if name not in VARIANTS:
            close = difflib.get_close_matches(name, VARIANTS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the variants are {', '.join(VARIANTS)}"
            raise ValueError(f"variants: no variant {name!r}; {hint}")
    return [variant for name, variant in VARIANTS.items() if not names or name in names or name == REFERENCE]


def usable_variants(variants: Sequence[Variant], base: Config, faces: int) -> tuple[list[Variant], list[str]]:
    """Returns the variants that can be trained and differ from each other, and a note for each that is left out.

    k-means needs at least one training face a cluster.
    """
    kept: list[Variant] = []
    notes: list[str] = []
    seen: dict[tuple[Config, bool, str], str] = {}
    for variant in variants:
        config = variant.config(base, 0)
        # A variant that shares a training has the experiment of another variant on purpose.
        same = seen.setdefault((config, variant.transport, variant.trained_as), variant.name)
        if config.clusters.count > faces:
            notes.append(f"{variant.name} is left out: {config.clusters.count} clusters for {faces} faces")
        elif same != variant.name:
            notes.append(f"{variant.name} is left out: with this experiment it equals {same}")
        else:
            kept.append(variant)
    return kept, notes


def plan_runs(variants: Sequence[Variant], seeds: int) -> list[Run]:
    """Returns the runs, seed by seed, so that an unfinished comparison is balanced over the variants."""
    return [Run(variant, seed) for seed in range(seeds) for variant in variants]
