"""Standard streams that are closed, full, or of an encoding without the characters of a text."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecvae_jax.cli.streams import prepare_streams

HELP = "train --help"  # longer than Python's buffer, with characters outside ASCII


def shell(line: str, encoding: str = "utf-8") -> tuple[int, str, str]:
    """Returns exit code, standard output and standard error of `ecvae LINE` in a shell."""
    command = f"PYTHONIOENCODING={encoding} exec {sys.executable} -m ecvae_jax {line}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, encoding=encoding)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("words", [HELP, "--version"])
def test_full_standard_output_is_reported_once(words: str) -> None:
    code, _, err = shell(f"{words} > /dev/full")
    assert (code, err) == (1, "ecvae: error: standard output: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("words", [HELP, "--version"])
def test_closed_standard_output_is_reported_once(words: str) -> None:
    assert shell(f"{words} >&-") == (1, "", "ecvae: error: standard output: [Errno 9] Bad file descriptor\n")


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&- 2>&-", "<&- >&- 2>&-"])
def test_messages_without_a_reader_end_no_command(streams: str) -> None:
    """Without standard error Python prints them on standard output, or fails."""
    assert shell(f"info nowhere {streams}") == (1, "", "")
    if ">&- 2" not in streams:
        code, out, _ = shell(f"--version {streams}")
        assert (code, out.split()[0]) == (0, "ecvae")


def test_no_file_of_a_command_becomes_its_standard_stream(tmp_path) -> None:
    code = f"""
import os, sys
from ecvae_jax.cli.streams import prepare_streams
prepare_streams()
with open({str(tmp_path / "file")!r}, "w") as file:
    assert file.fileno() > 2
    print("message", file=sys.stderr, flush=True)
    os.system("echo message >&2")
"""
    subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=True)
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_results_and_messages_are_spelled_in_what_the_encoding_has(encoding: str) -> None:
    code, out, err = shell(HELP, encoding)
    assert (code, err) == (0, "")
    assert "--train.steps" in out
    assert "\\u" not in out
    code, _, err = shell("info photos-ü-→", encoding)
    assert code == 1
    assert "nowhere" not in err
    assert "->" in err


@given(st.text(), st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8"]))
def test_every_text_can_be_printed_in_every_encoding(text: str, encoding: str) -> None:
    prepare_streams()
    spelled = text.encode(encoding, "ecvae_readable").decode(encoding)
    if text.isascii():
        assert spelled == text


def test_names_of_files_that_are_no_unicode_can_be_printed() -> None:
    prepare_streams()
    assert b"\xff.jpg".decode("utf-8", "surrogateescape").encode("utf-8", "ecvae_readable") == b"\\udcff.jpg"
    assert "3 × 4 = 12 µm, ±1°".encode("ascii", "ecvae_readable") == b"3 x 4 = 12 um, +/-1 deg"
