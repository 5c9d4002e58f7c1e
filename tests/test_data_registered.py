"""The builders that tfds.load knows by name, under tensorflow-datasets' own harness."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import draw_face, make_records

from ecvae_jax.data import registered
from ecvae_jax.data.faces import load_faces
from ecvae_jax.data.host_tf import load_tfds

tfds = load_tfds()


def make_tree(root: Path) -> int:
    """A MultiPIE tree of drawn faces; returns the number of pictures."""
    count = 0
    for subject in range(1, 9):
        for camera in ("05_1", "14_0"):
            name = f"{subject:03d}_01_02_{camera.replace('_', '')}_07.png"
            file = root / "session01" / "multiview" / f"{subject:03d}" / "02" / camera / name
            file.parent.mkdir(parents=True)
            draw_face(48, shift=subject).save(file)
            count += 1
    return count


class TestEcvaeFaces(tfds.testing.DatasetBuilderTestCase):
    """tfds' harness: features, splits, overlaps, as_dataset, registration."""

    DATASET_CLASS = registered.EcvaeFaces
    SPLITS = {"train": 23, "test": 1}  # noqa: RUF012 # the harness wants it so

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory()
        cls.EXAMPLE_DIR = str(make_records(Path(cls.folder.name) / "records"))
        super().setUpClass()

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        cls.folder.cleanup()


class TestMultiPie(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = registered.MultiPie
    SPLITS = {"train": 12, "validation": 2, "test": 2}  # noqa: RUF012 # the harness wants it so

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory()
        cls.EXAMPLE_DIR = str(Path(cls.folder.name) / "tree")
        assert make_tree(Path(cls.EXAMPLE_DIR)) == 16
        super().setUpClass()

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        cls.folder.cleanup()


PROGRAM = r"""
import sys
import tensorflow_datasets as tfds
import ecvae_jax.data.registered
name, manual, data = sys.argv[1:]
config = tfds.download.DownloadConfig(manual_dir=manual)
sets = tfds.load(name, data_dir=data, download_and_prepare_kwargs={"download_config": config})
for split, examples in sorted(sets.items()):
    for example in examples.as_numpy_iterator():
        mean = round(float(example["image"].mean()), 2)
        print(split, example["name"].decode(), *example["image"].shape, mean, sep="\t")
"""


def load_elsewhere(name: str, manual: Path, data: Path) -> list[list[str]]:
    command = [sys.executable, "-c", PROGRAM, name, str(manual), str(data)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr[-2000:]
    return [line.split("\t") for line in shown.stdout.splitlines() if "\t" in line]


def test_another_program_loads_prepared_records_by_name(tmp_path: Path):
    records = make_records(tmp_path / "records")
    lines = load_elsewhere("ecvae_faces", records, tmp_path / "tfds")
    assert len(lines) == 24
    for split in ("train", "test"):
        faces = load_faces(records, split)
        means = {name: faces.image(i).mean() for i, name in enumerate(faces.names)}
        here = {line[1]: line for line in lines if line[0] == split}
        assert here.keys() == means.keys()
        for name, line in here.items():
            assert [int(n) for n in line[2:5]] == [32, 32, 3]
            assert float(line[5]) == pytest.approx(means[name], abs=2.0)  # TensorFlow decodes JPEG faster and coarser


def test_another_program_loads_multi_pie_split_by_subject(tmp_path: Path):
    make_tree(tmp_path / "tree")
    lines = load_elsewhere("multi_pie", tmp_path / "tree", tmp_path / "tfds")
    assert len(lines) == 16
    subjects: dict[str, set[str]] = {}
    for line in lines:
        subjects.setdefault(line[0], set()).add(line[1].split("/")[2])
    assert sum(map(len, subjects.values())) == len(set.union(*subjects.values())) == 8
    assert np.all([line[2:5] == ["48", "48", "3"] for line in lines])
