"""The two Beam pipelines of a preparation, faces and records: the only place that imports Apache Beam."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ecvae_jax.data.errors import DataError, MissingExtraError
from ecvae_jax.data.prepare.lots import is_done, put, read_faces, take
from ecvae_jax.data.prepare.options import PrepareConfig
from ecvae_jax.data.prepare.pool import SoloWorker
from ecvae_jax.data.records import build_records, face_example

# Of Beam's own modules one complains that a client of Google's is not there.
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

LOCAL = "DirectRunner"


class BeamRunner:
    """Runs both pipelines, where the options say."""

    def __init__(self, options: PrepareConfig) -> None:
        """Checks runner and flags.

        Raises:
            DataError: Beam does not know the runner, or one of its flags.
        """
        self._options, self._flags = options, _flags(options)
        try:
            local = options.beam_runner == LOCAL
            self._runner = _local_runner(self._flags) if local else create_runner(options.beam_runner)
        except (ValueError, ImportError, AttributeError) as error:
            said = str(error).split(". ")[0]
            raise DataError(
                f"beam_runner={options.beam_runner!r}: {said}; give DirectRunner, DataflowRunner, FlinkRunner, "
                "SparkRunner or PortableRunner"
            ) from None

    def find_faces(self, folder: str, lots: Sequence[int], detect: bool) -> None:
        """Has the outcomes of `lots` written into `folder`, as the workers see it.

        Args:
            folder: of the lots.
            lots: their numbers.
            detect: landmarks are to be found.
        """
        with beam.Pipeline(runner=self._runner, options=self._flags) as pipeline:
            _ = (
                pipeline
                | beam.Create(lots)
                | beam.Reshuffle()  # or one worker would get them all
                | beam.ParDo(_FindFaces(folder, self._options, detect))
            )

    def write_records(
        self, out: Path, folder: str, lots: Mapping[str, Sequence[int]], metadata: dict[str, Any],
        seen: Callable[[Path], str],
    ) -> None:  # fmt: skip
        """Writes a records folder, as `builders.write_records` does.

        Args:
            out: folder to make; it must not exist.
            folder: of the lots, as the workers see it.
            lots: of each split, the numbers of those that have faces of it.
            metadata: as there.
            seen: where the workers find a path of this machine.
        """
        examples = {split: _ReadFaces(folder, numbers, split) for split, numbers in lots.items()}
        build_records(out, examples, metadata, seen, beam_runner=self._runner, beam_options=self._flags)


class _FindFaces(beam.DoFn):
    """A lot's number in; the number of its photos out, when they are done."""

    def __init__(self, folder: str, options: PrepareConfig, detect: bool) -> None:
        self._folder, self._options, self._detect = folder, options, detect

    def setup(self) -> None:
        """Makes ready the process that has the detector: one for each of Beam's processes and threads.

        It is not Beam's own: a photo that kills it would take a worker along, and some runners wait for that forever.
        """
        self._worker = SoloWorker(self._options, self._detect)

    def teardown(self) -> None:
        """Ends the process."""
        self._worker.close()

    def process(self, number: int) -> Iterator[int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not is_done(self._folder, number):  # else: the runner tries again what it had lost sight of
            outcomes = [self._worker(job) for job in take(self._folder, number)]
            put(self._folder, number, outcomes)
            for outcome in outcomes:
                Metrics.counter("ecvae", "rejected" if outcome.reason else "faces").inc()
            yield len(outcomes)


class _ReadFaces(beam.PTransform):
    """The examples of one split, as tensorflow-datasets takes them."""

    def __init__(self, folder: str, lots: Sequence[int], split: str) -> None:
        super().__init__()
        self._folder, self._lots, self._split = folder, list(lots), split

    def expand(self, pipeline: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (
            pipeline
            | beam.Create(self._lots)
            | beam.Reshuffle()
            | beam.FlatMap(_examples, folder=self._folder, split=self._split)
        )


def _examples(number: int, folder: str, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for key, record in read_faces(folder, number, split):
        yield key, face_example(record)


def _local_runner(flags: PipelineOptions) -> Any:
    """What Beam's DirectRunner comes to, without its first search for a program named Prism in network and home."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    encoded = JobServiceHandle.encode_pipeline_options(flags.get_all_options())
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)  # or its processes would not know them
    return FnApiRunner(provision_info=ExtendedProvisionInfo(provision))


class _Said(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _flags(options: PrepareConfig) -> PipelineOptions:
    """Beam's options from the words given; it only logs what it does not understand, we refuse it."""
    words = [f"--{word.removeprefix('--')}" for word in options.beam_options]
    logger, said = logging.getLogger("apache_beam.options.pipeline_options"), _Said()
    logger.addHandler(said)
    passed_on, logger.propagate = logger.propagate, False
    try:
        given = PipelineOptions(words).get_all_options(drop_default=True)
    except (Exception, SystemExit) as error:
        raise DataError(f"beam_options={' '.join(options.beam_options)!r}: Beam refuses them: {error}") from None
    finally:
        logger.removeHandler(said)
        logger.propagate = passed_on
    unknown = [message for message in said.messages if message.startswith("Discarding")]
    if unknown:
        raise DataError(
            f"beam_options={' '.join(options.beam_options)!r}: {unknown[0]}; write them as name=value, as Beam's "
            "documentation of the runner has them"
        )
    if options.beam_runner == LOCAL and "direct_num_workers" not in given:
        words.append(f"--direct_num_workers={options.processes}")
        if "direct_running_mode" not in given and options.processes > 1:
            words.append("--direct_running_mode=multi_processing")
    if "default_sdk_harness_log_level" not in given:
        words.append("--default_sdk_harness_log_level=ERROR")  # else each worker tells its life
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return PipelineOptions(words)
