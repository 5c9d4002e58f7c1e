"""New people between two others: their views, pixels and split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.morph import write_morphs
from ecvae_jax.data.records import FaceRecord, write_records


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of six people by the name of person and view; the last two are kept for validation and test."""
    faces = load_faces("rendered", "test")
    names = sorted(set(faces.identities))[:6]
    out = tmp_path_factory.mktemp("people") / "records"
    splits: dict[str, list[FaceRecord]] = {"train": [], "validation": [], "test": []}
    for number, person in enumerate(names):
        indices = [i for i, identity in enumerate(faces.identities) if identity == person][:4]
        split = ("train", "train", "train", "train", "validation", "test")[number]
        for view, (i, jpeg) in enumerate(zip(indices, faces.encoded(indices), strict=True)):
            name, tags = f"{person}/{person}_{view}.png", {"yaw": faces.tags[i]["yaw"]}
            splits[split].append(FaceRecord(jpeg, faces.landmarks[i], person, person, name, tags))
    write_records(out, splits, dict(faces.metadata))
    return out


def test_morphs_lie_between_two_people_of_the_training_split(people: Path, tmp_path: Path) -> None:
    assert write_morphs(str(people), tmp_path / "morphs", 3, seed=1) == 12
    faces, morphs = load_faces(people, "train"), load_faces(tmp_path / "morphs", "train")
    assert len(set(morphs.identities)) == 3
    assert set(morphs.identities).isdisjoint(faces.identities)
    assert all(group.startswith("morph") for group in morphs.groups)
    places = {name: i for i, name in enumerate(faces.names)}
    for index, tags in enumerate(morphs.tags):
        first, second, share = tags["morph"]
        mine = morphs.identities[index]
        a, b = (places[morphs.names[index].replace(mine, person)] for person in (first, second))
        assert 0.35 <= share <= 0.65
        expected = (1 - share) * faces.landmarks[a] + share * faces.landmarks[b]
        np.testing.assert_allclose(morphs.landmarks[index], expected, atol=1e-3)
        # The pixels differ from both faces, by about as much as the faces differ from each other at most.
        image, one, other = (x.astype(float) for x in (morphs.image(index), faces.image(a), faces.image(b)))
        middle = np.s_[40:90, 40:90]
        distance = np.abs(one[middle] - other[middle]).mean()
        assert 0.1 * distance < np.abs(image[middle] - one[middle]).mean() < 1.2 * distance


def test_the_same_seed_makes_the_same_people(people: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 5)):
        write_morphs(str(people), tmp_path / name, 2, seed=seed)
    a, b, c = (load_faces(tmp_path / name, "train") for name in "abc")
    assert a.fingerprint == b.fingerprint != c.fingerprint
    assert np.array_equal(a.images(range(4)), b.images(range(4)))


def test_people_without_common_views_are_refused(people: Path, tmp_path: Path) -> None:
    faces = load_faces(people, "train")
    rest = zip(faces.encoded(range(8)), faces.landmarks, faces.identities, faces.groups, strict=False)
    records = [FaceRecord(*fields, f"photo{i}.png", {}) for i, fields in enumerate(rest)]
    write_records(tmp_path / "mixed", {"train": records}, dict(faces.metadata))
    with pytest.raises(DataError, match="no two people of its training split have two views in common"):
        write_morphs(str(tmp_path / "mixed"), tmp_path / "none", 1)
    assert not (tmp_path / "none").exists()
    with pytest.raises(DataError, match="people=0"):
        write_morphs(str(people), tmp_path / "none", 0)
