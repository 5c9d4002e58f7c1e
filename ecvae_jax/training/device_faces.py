"""The training images in the memory of every device (`data.cache` "device"): a step gathers its batch from them.

A host then sends a few kilobytes a step, row numbers and landmarks, in place of the pixels.
"""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, UInt8

from ecvae_jax.config import Config
from ecvae_jax.data.batches import available_memory, decode_faces
from ecvae_jax.data.errors import DataError
from ecvae_jax.data.faces import Faces
from ecvae_jax.training.parallel import replicated_sharding

_SHARE = 0.5
"""Largest part of the free memory for images; the rest is the step's."""


def device_images(config: Config, faces: Faces) -> UInt8[Array, "n h w 3"] | None:
    """Returns all training images with a copy on every device of every host; None unless `data.cache` is "device".

    Raises:
        DataError: they exceed half of a device's free memory.
    """
    if config.data.cache != "device":
        return None
    size = config.model.image_size
    check_fits(len(faces), size)
    images = decode_faces(faces, size)
    # Not device_put, which compares the copies of all hosts: the fingerprint of the records already agrees.
    return jax.make_array_from_process_local_data(replicated_sharding(), images, images.shape)


def check_fits(count: int, image_size: int) -> None:
    """Raises DataError if the images of `count` faces exceed the share of the memory that is theirs."""
    needed, free = count * image_size**2 * 3, _free_memory()
    if free is not None and needed > _SHARE * free:
        raise DataError(
            f"data.cache='device': {count:,} faces at {image_size} px need {needed / 1e9:.2f} GB of each device, more "
            f"than half of its free {free / 1e9:.2f} GB: take data.cache='host'"
        )


def _free_memory() -> float | None:
    """Returns the free bytes of the device that has least; None if unknown. CPU devices share the host's memory."""
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        free = available_memory()
        return None if free is None else free / (1 + len(devices))  # one copy for each, and one while decoding
    stats = [device.memory_stats() for device in devices]
    known = [each["bytes_limit"] - each["bytes_in_use"] for each in stats if each and "bytes_limit" in each]
    return float(np.min(known)) if known else None
