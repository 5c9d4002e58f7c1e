"""A preparation by Apache Beam: its workers fill the lots, then write the files of records. The only import of Beam."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from etils import epath

from ecvae_jax.data.errors import DataError, MissingExtraError
from ecvae_jax.data.host_tf import load_tfds
from ecvae_jax.data.photos.given import GivenLandmarks
from ecvae_jax.data.photos.sources import Source
from ecvae_jax.data.prepare.lots import (
    PHOTOS,
    Lots,
    Place,
    has_outcomes,
    put_jobs,
    put_outcomes,
    put_shard,
    read_jobs,
    read_records,
    read_shard,
)
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.pool import SoloWorker
from ecvae_jax.data.records import write_shard

# One of Beam's modules logs that Google's client is missing.
logging.getLogger().addFilter(lambda record: not str(record.msg).startswith("apitools not found"))


try:
    import apache_beam as beam
    from apache_beam.metrics.metric import Metrics
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import create_runner
except ImportError:
    raise MissingExtraError(
        "Apache Beam is not installed: `pip install 'ecvae-jax[beam]'`, or leave --beam-runner out"
    ) from None

# Here and not in a worker's thread: while it loads, it replaces Python's import for all threads, and that one refuses
# relative imports.
load_tfds()

LOCAL = "DirectRunner"


class BeamWork:
    """Runs the two pipelines of a preparation where the options say: faces, then records."""

    def __init__(self, options: PrepareConfig, work: Path) -> None:
        """Checks runner, flags and paths. Makes nothing.

        Raises:
            DataError: Beam does not know the runner or one of its options, or the workers cannot see the folder.
        """
        self._options, self._flags = options, _flags(options)
        try:
            local = options.beam_runner == LOCAL
            self._runner = _local_runner(self._flags) if local else create_runner(options.beam_runner)
        except (ValueError, ImportError, AttributeError) as error:
            reason = str(error).split(". ")[0]
            raise DataError(
                f"beam_runner={options.beam_runner!r}: {reason}; give DirectRunner, DataflowRunner, FlinkRunner, "
                "SparkRunner or PortableRunner"
            ) from None
        options.seen_by_workers(work)

    def find_faces(self, lots: Lots, files: Source, given: GivenLandmarks | None) -> None:
        """Fills all missing lots.

        Raises:
            DataError: the photos of the source are not files.
        """
        missing = lots.missing()
        for number, group in groupby(lots.missing_jobs(files, given), lambda pair: pair[0]):
            jobs = []
            for _, job in group:
                if not isinstance(job.content, Path):
                    raise DataError(
                        f"source {files.label!r}: Beam's workers open photos by their paths, and these are not files; "
                        "unpack it into a folder, or leave --beam-runner out"
                    )
                jobs.append((self._options.seen_by_workers(job.content), job.landmarks))
            put_jobs(lots.folder, number, jobs)
        photos = sum(lots.size(number) for number in missing)
        print(f"{photos} photos go to Beam, in {len(missing)} lots of up to {PHOTOS}", file=sys.stderr)
        work = _FindFaces(self._options.seen_by_workers(lots.folder), self._options, given is None)
        with beam.Pipeline(runner=self._runner, options=self._flags) as pipeline:
            # Reshuffle, or one worker gets all lots.
            _ = pipeline | beam.Create(missing) | beam.Reshuffle() | beam.ParDo(work)

    def write_shards(self, lots: Lots, records: Path, shards: Mapping[str, Iterable[Place]]) -> None:
        """Writes files of records, by name, into the folder `records`."""
        for name, places in shards.items():
            put_shard(lots.folder, name, places)
        seen = self._options.seen_by_workers
        with beam.Pipeline(runner=self._runner, options=self._flags) as pipeline:
            _ = (
                pipeline
                | beam.Create(list(shards))
                | beam.Reshuffle()
                | beam.Map(_write_shard, lots=seen(lots.folder), records=seen(records))
            )


class _FindFaces(beam.DoFn):
    """Takes a lot's number; yields the number of its photos when they are done."""

    def __init__(self, folder: str, options: PrepareConfig, detect: bool) -> None:
        self._folder, self._options, self._detect = folder, options, detect

    def setup(self) -> None:
        """Prepares a process with the detector, one for each of Beam's processes and threads.

        A photo that kills it must not kill Beam's own worker: some runners wait for a dead worker forever.
        """
        self._worker = SoloWorker(self._options, self._detect)

    def teardown(self) -> None:
        """Ends the process."""
        self._worker.close()

    def process(self, number: int) -> Iterator[int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not has_outcomes(self._folder, number):  # else: the runner retries a lot whose end it missed
            outcomes = [self._worker(job) for job in read_jobs(self._folder, number)]
            put_outcomes(self._folder, number, outcomes)
            for outcome in outcomes:
                Metrics.counter("ecvae", "rejected" if outcome.reason else "faces").inc()
            yield len(outcomes)


def _write_shard(name: str, lots: str, records: str) -> None:
    # ArrayRecord writes local files only, and the file must appear complete: a retry may run beside the first try.
    with tempfile.TemporaryDirectory() as local:
        write_shard(Path(local) / name, read_records(lots, read_shard(lots, name)))
        aside = epath.Path(lots) / f".{name}.{os.path.basename(local)}"
        epath.Path(local, name).copy(aside)
        aside.replace(epath.Path(records) / name)


def _local_runner(flags: PipelineOptions) -> Any:
    """Returns what DirectRunner uses in the end; DirectRunner first searches network and home for a program, Prism."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    encoded = JobServiceHandle.encode_pipeline_options(flags.get_all_options())
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)  # else its processes lack the options
    return FnApiRunner(provision_info=ExtendedProvisionInfo(provision))


def _flags(options: PrepareConfig) -> PipelineOptions:
    """Returns Beam's options from name=value words. Beam only logs unknown ones; here they are an error."""
    words = [f"--{word.removeprefix('--')}" for word in options.beam_options]
    logger, handler, messages = (
        logging.getLogger("apache_beam.options.pipeline_options"),
        logging.Handler(),
        list[str](),
    )
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        given = PipelineOptions(words).get_all_options(drop_default=True)
    except (Exception, SystemExit) as error:
        raise DataError(f"beam_options={' '.join(options.beam_options)!r}: Beam refuses them: {error}") from None
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    unknown = [message for message in messages if message.startswith("Discarding")]
    if unknown:
        raise DataError(
            f"beam_options={' '.join(options.beam_options)!r}: {unknown[0]}; write them as name=value, as in Beam's "
            "documentation of the runner"
        )
    if options.beam_runner == LOCAL and "direct_num_workers" not in given:
        words.append(f"--direct_num_workers={options.processes}")
        if "direct_running_mode" not in given and options.processes > 1:
            words.append("--direct_running_mode=multi_processing")
    if "default_sdk_harness_log_level" not in given:
        words.append("--default_sdk_harness_log_level=ERROR")  # default: each worker logs its whole life
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return PipelineOptions(words)
