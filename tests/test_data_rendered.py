"""The embedded records match their README. Needs no renderer and decodes few images."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.manifest import find_records

PEOPLE = {"train": 200, "validation": 20, "test": 20}
VIEWS = 24


@pytest.fixture(scope="module")
def faces():
    return {split: load_faces("rendered", split) for split in PEOPLE}


def test_files_are_small_enough_and_carry_their_provenance():
    files = [p for p in find_records("rendered").rglob("*") if p.is_file()]
    sizes = [p.stat().st_size for p in files]
    assert max(sizes) <= 7.5e6
    assert sum(sizes) <= 24e6
    text = (find_records("rendered") / "README.md").read_text()
    assert "CC0" in text
    assert "MakeHuman" in text


def test_people_are_counted_and_in_one_split_only(faces):
    people = {split: Counter(f.identities) for split, f in faces.items()}
    for split, count in PEOPLE.items():
        assert len(people[split]) == count
        assert set(people[split].values()) == {VIEWS}
    assert sum(len(p) for p in people.values()) == len(set().union(*people.values()))
    names = [name for f in faces.values() for name in f.names]
    assert len(set(names)) == len(names)


def test_a_group_is_one_person_under_one_light(faces):
    constant = ("light", "background", "hair", "glasses", "beard", "eyes", "camera_distance")
    for f in faces.values():
        groups: dict[str, list[int]] = {}
        for i, group in enumerate(f.groups):
            groups.setdefault(group, []).append(i)
        for members in groups.values():
            assert len(members) == VIEWS // 2
            assert len({f.identities[i] for i in members}) == 1
            for tag in constant:
                assert all(f.tags[i][tag] == f.tags[members[0]][tag] for i in members), tag
        lights = {(f.identities[i], str(f.tags[i]["light"])) for i in range(len(f))}
        assert len(lights) == 2 * len(set(f.identities))


def test_each_group_begins_near_frontal_and_neutral(faces):
    for f in faces.values():
        seen: set[str] = set()
        for i, group in enumerate(f.groups):
            if group not in seen:
                seen.add(group)
                assert f.tags[i]["expression"] == {"neutral": 1.0}
                assert abs(f.tags[i]["yaw"]) < 8


def test_poses_and_expressions_cover_the_documented_range(faces):
    tags = [tag for f in faces.values() for tag in f.tags]
    yaw, pitch, roll = (np.array([t[name] for t in tags]) for name in ("yaw", "pitch", "roll"))
    assert np.abs(yaw).max() <= 45
    assert np.abs(pitch).max() <= 20
    assert np.abs(roll).max() <= 12
    assert yaw.min() < -43
    assert yaw.max() > 43
    assert pitch.std() > 5
    single = Counter(next(iter(t["expression"])) for t in tags if len(t["expression"]) == 1)
    assert len(single) >= 9
    assert min(single.values()) > 100
    assert sum(len(t["expression"]) > 1 for t in tags) > 1000


def test_people_look_different(faces):
    f = faces["train"]
    styles = Counter(t["hair"]["style"] for t in f.tags)
    assert len(styles) >= 12
    assert styles.most_common(1)[0][1] < 0.25 * len(f)
    assert len({t["hair"]["colour"] for t in f.tags}) >= 8
    worn = np.mean([t["glasses"] is not None for t in f.tags])
    assert 0.05 < worn < 0.3


def test_the_crop_is_the_square_about_the_landmarks(faces):
    for f in faces.values():
        low, high = f.landmarks.min(1), f.landmarks.max(1)
        longer = (high - low).max(1) * f.metadata["margin"]
        scale = np.array([t["framing"]["scale"] for t in f.tags])
        np.testing.assert_allclose(longer, 1 / scale, atol=2e-3)
        assert np.abs((low + high) / 2 - 0.5).max() <= 0.031
        assert low.min() > 0
        assert high.max() < 1


def test_landmarks_turn_with_the_tagged_pose(faces):
    f = faces["train"]
    points = f.landmarks
    eyes = points[:, [60, 72]]
    tilt = np.degrees(np.arctan2(*(eyes[:, 1] - eyes[:, 0]).T[::-1]))
    roll, yaw, pitch = (np.array([t[name] for t in f.tags]) for name in ("roll", "yaw", "pitch"))
    frontal = np.abs(yaw) < 10
    assert np.corrcoef(tilt[frontal], roll[frontal])[0, 1] > 0.9  # y is down: clockwise is positive
    middle = points[:, [0, 32], 0].mean(1)
    assert np.corrcoef(points[:, 54, 0] - middle, yaw)[0, 1] > 0.95
    height = points[:, 54, 1] - points[:, [60, 72], 1].mean(1)
    assert np.corrcoef(height, pitch)[0, 1] < -0.5  # looking up lifts the nose towards the eyes


def test_the_pupil_is_darker_than_the_white_beside_it(faces):
    f = faces["test"]
    neutral = [i for i, t in enumerate(f.tags) if t["expression"] == {"neutral": 1.0} and not t["glasses"]]
    frontal = [i for i in neutral if abs(f.tags[i]["yaw"]) < 6]
    darker = []
    for i in frontal:
        gray = np.asarray(Image.open(io.BytesIO(f.encoded([i])[0])).convert("L"), float)
        for pupil, corners in ((96, (60, 64)), (97, (68, 72))):
            at = [f.landmarks[i, pupil]] + [0.5 * (f.landmarks[i, pupil] + f.landmarks[i, c]) for c in corners]
            values = [gray[int(y * f.image_size), int(x * f.image_size)] for x, y in at]
            darker.append(values[0] < max(values[1:]))
    assert len(darker) >= 40
    assert np.mean(darker) > 0.85


def test_the_metadata_has_the_license(faces):
    for f in faces.values():
        assert f.metadata["licence"] == "CC0-1.0"
        assert f.metadata["points"] == 98
        assert f.image_size == 128
