"""Builders that `tfds.load` knows by name once this module is imported: `ecvae_faces` and `multi_pie`.

Both read what a user puts into a folder (tensorflow-datasets' `manual_dir`), since faces are not there for anybody to
download:

    import ecvae_jax.data.registered
    tfds.load("ecvae_faces", split="train", download_and_prepare_kwargs={
        "download_config": tfds.download.DownloadConfig(manual_dir=RECORDS)})

A records folder can also be read without any of this, by `tfds.builder_from_directory(RECORDS)`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ecvae_jax.data.builders import LocalDatasetInfo
from ecvae_jax.data.faces import load_faces, record_splits
from ecvae_jax.data.host_tf import load_tfds
from ecvae_jax.data.options import PrepareConfig
from ecvae_jax.data.sources.multipie import open_multipie
from ecvae_jax.data.sources.source import Photo
from ecvae_jax.data.splits import assign_splits

tfds = load_tfds()

_VALIDATION, _TEST = PrepareConfig.validation, PrepareConfig.test


class EcvaeFaces(tfds.core.GeneratorBasedBuilder):  # pyright: ignore
    """Faces prepared by `ecvae prepare`: square crops with landmarks, in the splits of the records."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir is a records folder, made by `ecvae prepare SOURCE manual_dir`."

    def _info(self) -> Any:
        return LocalDatasetInfo(
            builder=self,
            description="Square face crops with landmarks in crop units (0..1 across the crop, x right, y down).",
            features=tfds.features.FeaturesDict({
                "image": tfds.features.Image(shape=(None, None, 3), dtype=np.uint8, encoding_format="jpeg"),
                "landmarks": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
                "identity": tfds.features.Text(),
                "group": tfds.features.Text(doc="one person under one light and background"),
                "name": tfds.features.Text(),
                "tags": tfds.features.Text(doc="one JSON object"),
            }),
            supervised_keys=None,
            citation=_PAPER,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        records = Path(dl_manager.manual_dir)
        return {split: self._generate_examples(records, split) for split in record_splits(records)}

    def _generate_examples(self, records: Path, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        faces = load_faces(records, split)
        for index in range(len(faces)):
            yield index, {
                "image": io.BytesIO(faces.encoded([index])[0]),  # stored byte for byte
                "landmarks": faces.landmarks[index],
                "identity": faces.identities[index],
                "group": faces.groups[index],
                "name": faces.names[index],
                "tags": json.dumps(faces.tags[index], sort_keys=True),
            }


class MultiPie(tfds.core.GeneratorBasedBuilder):  # pyright: ignore
    """CMU Multi-PIE: whole pictures as they were delivered, with what their names tell; split by subject."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Multi-PIE is sold under a licence. manual_dir is the folder above session01, session02, …, as in "
        "session01/multiview/001/01/05_1/001_01_01_051_07.png."
    )

    def _info(self) -> Any:
        words = ("subject", "session", "recording", "camera", "illumination", "expression", "flash", "group", "name")
        return LocalDatasetInfo(
            builder=self,
            description="Over 750,000 pictures of 337 people, 15 cameras, 19 flashes, up to four sessions.",
            features=tfds.features.FeaturesDict({
                "image": tfds.features.Image(shape=(None, None, 3), dtype=np.uint8),
                **{word: tfds.features.Text() for word in words},
                "yaw": tfds.features.Scalar(dtype=np.int64, doc="degrees, negative to the left of the picture"),
            }),
            supervised_keys=None,
            citation=_MULTI_PIE,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        root = Path(dl_manager.manual_dir)
        photos = open_multipie(root, PrepareConfig()).photos
        splits = assign_splits((photo.identity for photo in photos), _VALIDATION, _TEST)
        return {
            split: self._generate_examples(root, [photo for photo in photos if splits[photo.identity] == split])
            for split in sorted(set(splits.values()))
        }

    def _generate_examples(self, root: Path, photos: list[Photo]) -> Iterator[tuple[str, dict[str, Any]]]:
        for photo in photos:
            words = {name: str(photo.tags.get(name, "")) for name in
                     ("subject", "session", "recording", "camera", "illumination", "expression", "flash")}  # fmt: skip
            yield photo.name, {
                "image": root / photo.name, **words, "group": photo.group, "name": photo.name,
                "yaw": int(photo.tags.get("yaw", 0)),
            }  # fmt: skip


_PAPER = """@inproceedings{qian2018extending,
  title={Extending the Capacity of CVAE for Face Synthesis and Modeling},
  author={Qian, Shengju and Wu, Wayne and Liu, Yangxiaokang and Zhu, Beier and Shen, Fumin},
  booktitle={NeurIPS Workshop on Bayesian Deep Learning},
  year={2018}
}"""

_MULTI_PIE = """@article{gross2010multipie,
  title={Multi-PIE},
  author={Gross, Ralph and Matthews, Iain and Cohn, Jeffrey and Kanade, Takeo and Baker, Simon},
  journal={Image and Vision Computing},
  volume={28},
  number={5},
  pages={807--813},
  year={2010}
}"""
