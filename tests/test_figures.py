"""The figures of the paper: the choice of faces by tags, and the contents of the pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecvae_jax.checkpoints.load import load_model
from ecvae_jax.cli.main import main
from ecvae_jax.comparison.variants import with_settings
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import Faces, load_faces
from ecvae_jax.figures.choose import choose_expressions, choose_sources, choose_yaws, tagged_faces
from ecvae_jax.figures.latent import draw_latent, latent_space
from ecvae_jax.figures.transfers import YAWS, face_page
from ecvae_jax.model.conditioning import make_condition
from ecvae_jax.model.model import Model


@pytest.fixture(scope="module")
def model(tiny_workdir: Path) -> Model:
    return load_model(tiny_workdir)


@pytest.fixture(scope="module")
def faces() -> Faces:
    return load_faces("rendered", "test")


def test_sources_are_frontal_neutral_faces_of_different_people(faces: Faces) -> None:
    found = tagged_faces(faces)
    sources = choose_sources(found, 4, without="head225")
    assert len({face.person for face in sources}) == 4
    assert "head225" not in {face.person for face in sources}
    assert all(face.neutral and abs(face.yaw) < 10 for face in sources)
    assert len(choose_sources(found, 99)) == 20


def test_expressions_are_different_ones_of_one_person_neutral_first(faces: Faces) -> None:
    found = tagged_faces(faces)
    chosen = choose_expressions(found, 7)
    assert len(chosen) >= 6
    assert len({face.sitting for face in chosen}) == 1
    assert [face.neutral for face in chosen] == [True] + [False] * (len(chosen) - 1)
    assert len({face.expression for face in chosen}) == len(chosen)
    assert choose_expressions(found, 4)[0].neutral
    assert len(choose_expressions(found, 4)) == 4
    assert all(abs(face.yaw) <= 25 for face in chosen)
    with pytest.raises(DataError, match="no sitting shows two expressions"):
        choose_expressions([face for face in tagged_faces(faces) if face.neutral], 7)


def test_yaws_are_near_their_steps_and_of_other_people(faces: Faces) -> None:
    found = tagged_faces(faces)
    chosen = choose_yaws(found, YAWS, without=["head220", "head221"])
    assert [face.yaw for face in chosen] == pytest.approx(YAWS, abs=8)
    assert {"head220", "head221"}.isdisjoint(face.person for face in chosen)
    assert sum(face.neutral for face in chosen) >= 5
    with pytest.raises(DataError, match="too few people"):
        choose_yaws(found, YAWS, without=[face.person for face in found])


def test_records_without_tags_are_refused(tiny_records: Path) -> None:
    faces = load_faces(tiny_records, "test")
    faces.tags = [{"camera": 3}] * len(faces)
    with pytest.raises(DataError, match="no face has the tags yaw and expression"):
        tagged_faces(faces)


def test_the_latent_space_is_that_of_the_prior(model: Model, tiny_records: Path) -> None:
    faces = load_faces(tiny_records, "test")
    space = latent_space(model, faces)
    condition = make_condition(
        model.architecture, model.params, model.frozen, faces.landmarks[[face.index for face in space.shown]]
    )
    np.testing.assert_allclose(space.weights, condition.cluster_weights, atol=1e-5)
    np.testing.assert_allclose(space.means, space.weights @ space.components, atol=1e-5)
    np.testing.assert_allclose(space.stddev, condition.reference.stddev[:, 0], rtol=1e-5)
    assert space.posteriors.shape == (48, 2)
    assert 0.3 < space.share <= 1
    true = np.linalg.norm(np.asarray(condition.reference.mean)[:, None] - np.asarray(condition.reference.mean), axis=-1)
    seen = np.linalg.norm(space.means[:, None] - space.means, axis=-1)
    assert (seen <= true + 1e-5).all()  # a projection never increases distances


def test_a_model_without_cluster_means_has_no_figure_2(model: Model, faces: Faces) -> None:
    standard = dataclasses.replace(model, config=with_settings(model.config, {"prior.kind": "standard"}))
    with pytest.raises(DataError, match=r"prior\.kind='standard', mean_norm=1\): use an equilibrium"):
        draw_latent(standard, faces, "")


def test_a_page_holds_its_faces_pixel_for_pixel(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)
    face_page([[first, None], [None, second]], ["a", "b"], ["x", "y"], "title", ["below"]).savefig(tmp_path / "p.png")
    picture = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
    wanted = first.repeat(2, axis=0).repeat(2, axis=1)
    places = np.lib.stride_tricks.sliding_window_view(picture[..., 0], (128, 128))
    near = np.argwhere((places[:, :, ::16, ::16] == wanted[::16, ::16, 0]).all(axis=(2, 3)))
    assert any(np.array_equal(picture[y : y + 128, x : x + 128], wanted) for y, x in near)


@pytest.mark.parametrize("which", ["2", "3a", "3b"])
def test_each_figure_is_one_command(which: str, tiny_workdir: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / f"{which}.png"
    assert main(["figure", which, "--checkpoint", str(tiny_workdir), "--out", str(out)]) == 0
    picture = np.asarray(Image.open(out))
    assert min(picture.shape[:2]) > 400
    assert picture[..., :3].std() > 20
    assert [path.name for path in out.parent.iterdir()] == [out.name]
