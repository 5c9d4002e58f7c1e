"""The figure of the network shows the numbers of its config, for both frames and for a z without places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import pytest
from PIL import Image

from ecvae_jax.config import Config, ModelConfig, load_config
from ecvae_jax.figures.architecture import draw_architecture, parameter_counts
from ecvae_jax.model.conditioning import sketch_channels
from ecvae_jax.model.cvae import init_params

CONFIGS = Path(__file__).parent.parent / "configs"


def words(config: Config) -> list[str]:
    """Every text of the figure."""
    from matplotlib.text import Text

    return [text.get_text() for text in draw_architecture(config).findobj(Text) if text.get_text()]


@pytest.mark.parametrize("name", ["demo", "shipped", "paper_256"])
def test_the_figure_shows_every_level_width_and_z(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.py")
    shown, model = words(config), config.model
    columns = 3 + (model.frame == "face")
    for side in model.level_sides:
        assert f"{side} × {side}" in shown
    for level, width in enumerate(model.widths):
        boxes = sum(text.startswith(f"{width}  ×") for text in shown)
        assert boxes >= 3, f"level {level}: {boxes} boxes of {width} channels, of {columns} columns"
    everything = "\n".join(shown)
    grid = model.z_grid
    for number in (
        f"d = {model.z_dim}",
        f"{grid} × {grid} × {model.z_dim // grid**2}",
        f"K = {config.clusters.count}",
        f"{config.data.points} × 2",
        f"{config.prior.kind} prior",
        f"$σ_k$ = {config.prior.stddev:g}",
        f"{model.image_size} × {model.image_size} × {sketch_channels(config.architecture)}",
    ):
        assert number in everything
    assert ("face frame" in everything) == (model.frame == "face")


def test_a_z_without_places_is_one_vector_and_a_standard_prior_has_no_means() -> None:
    config = Config(model=ModelConfig(z_grid=1))
    config = replace(config, prior=replace(config.prior, kind="standard"))
    everything = "\n".join(words(config))
    assert "one vector" in everything
    assert "N( 0, I )" in everything
    assert "μ_k" not in everything


def test_the_parameters_are_those_of_the_network(tiny_config: Config) -> None:
    params = init_params(jax.random.key(0), tiny_config.architecture)
    counted = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sum(parameter_counts(tiny_config).values()) == counted


def test_the_figure_is_1200_pixels_wide(tmp_path: Path) -> None:
    draw_architecture(Config(), "The default network.").savefig(tmp_path / "model.png", format="png")
    with Image.open(tmp_path / "model.png") as image:
        assert image.width == 1200
