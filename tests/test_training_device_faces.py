"""`data.cache` "device": images in the devices' memory, the same batches and the same training bit for bit."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import assert_same, before_step, restored

from ecvae_jax.comparison.variants import with_settings
from ecvae_jax.config import Config, DataConfig
from ecvae_jax.data.batches import Faces, decode_faces, load_faces, training_batches
from ecvae_jax.data.errors import DataError
from ecvae_jax.training import device_faces
from ecvae_jax.training.device_faces import check_fits, device_images
from ecvae_jax.training.facts import host_facts
from ecvae_jax.training.loop import train
from ecvae_jax.training.step import with_images


@pytest.fixture(scope="module")
def faces(tiny_config: Config) -> Faces:
    return load_faces(tiny_config.data.records, "train")


def test_every_device_holds_all_images(tiny_config: Config, faces: Faces) -> None:
    assert device_images(tiny_config, faces) is None
    images = device_images(with_settings(tiny_config, {"data.cache": "device"}), faces)
    assert images is not None
    assert len(images.addressable_shards) == jax.device_count()
    for shard in images.addressable_shards:
        np.testing.assert_array_equal(shard.data, decode_faces(faces, 32))


@pytest.mark.parametrize("settings", [{}, {"mirror": False}, {"pairs": 0.0}])
@pytest.mark.parametrize("hosts", [1, 2])
def test_gathered_batches_are_those_of_the_host(faces: Faces, settings: dict, hosts: int) -> None:
    images = jnp.asarray(decode_faces(faces, 32))
    for host in range(hosts):
        ours, theirs = (
            itertools.islice(
                training_batches(faces, DataConfig(cache=cache, **settings), 32, 8, 3, 10, host, hosts), 15
            )
            for cache in ("device", "host")
        )
        for one, other in zip(ours, theirs, strict=True):
            assert all(value.ndim < 4 for value in one.values())  # no pixels
            gathered = with_images(jax.tree.map(jnp.asarray, one), images)
            assert_same(dict(sorted(gathered.items())), dict(sorted(other.items())))


@pytest.mark.parametrize("parallel", ["shard_map", pytest.param("pmap", marks=pytest.mark.slow)])
def test_a_training_is_the_same_and_resumes_bit_for_bit(
    tiny_config: Config, tiny_workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: str
) -> None:
    config = with_settings(tiny_config, {"data.cache": "device", "train.parallel": parallel})
    before_step(monkeypatch, 4, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert train(config, tmp_path).step == 4
    monkeypatch.undo()
    assert train(config, tmp_path).finished
    assert_same(restored(tiny_config, tiny_workdir), restored(tiny_config, tmp_path))


def test_a_set_that_does_not_fit_is_refused_in_one_line(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_faces, "available_memory", lambda: 1e9)
    free = 1e9 / (1 + jax.local_device_count())
    check_fits(int(0.49 * free / (256 * 256 * 3)), 256)
    line = r"10,000 faces at 256 px need 1\.97 GB of each device, more than half of its free 0\.33 GB"
    with pytest.raises(DataError, match=line):
        check_fits(10_000, 256)
    monkeypatch.setattr(device_faces, "available_memory", lambda: 1e5)
    with pytest.raises(DataError, match=r"take data\.cache='host'$"):
        train(with_settings(tiny_config, {"data.cache": "device"}), tmp_path)


def test_hosts_must_agree_on_it_and_may_differ_in_their_own_cache(tiny_config: Config, tmp_path: Path) -> None:
    host, off, device = (
        host_facts(with_settings(tiny_config, {"data.cache": cache}), tmp_path, None, ())
        for cache in ("host", "off", "device")
    )
    assert host == off
    assert {name for name in host if host[name] != device[name]} == {"data.cache device"}


def test_old_names_are_read(tiny_config: Config) -> None:
    text = tiny_config.to_json()
    assert Config.from_json(text.replace('"cache": "host"', '"cache": true')) == tiny_config
    assert Config.from_json(text.replace('"cache": "host"', '"cache": false')).data.cache == "off"
