"""A record is one line of the log, and a message one line of a command's output, whatever names are in it."""

from __future__ import annotations

import io
import logging
import re

import pytest

from recfs.cli.common import output
from recfs.cli.mounts.flood import FloodHandler
from recfs.cli.mounts.logs import LineFormatter
from recfs.errors import IoFailure

FORGED = "2026-11-21T09:03:15.453Z ERROR recfs.fs all is lost"
ENDS = ("\n", "\r\n", "\x0b", "\x85", "\u2028")
NAMES = [*(f"a{end}{FORGED}" for end in ENDS), "a\x1b[2Kb", "a\u202eb"]


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(stream: io.StringIO) -> logging.Logger:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s %(message)s"))
    made = logging.Logger("recfs.test")  # of its own: the guard over the others does not hear it
    made.addHandler(FloodHandler(handler))
    return made


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_make_no_lines_of_the_log(log: logging.Logger, stream: io.StringIO, name: str) -> None:
    """In the message, its arguments, an exception that is one of them, and one that is logged with its traceback."""
    log.warning("%s: gone", name)
    log.warning("%s", IoFailure(f"{name}: its bytes are missing"))
    log.warning("%r", OSError(5, "Input/output error", name))
    try:
        try:
            raise OSError(5, "Input/output error", name)
        except OSError as error:
            raise IoFailure(f"{name}: {error}") from error
    except IoFailure:
        log.exception("%s", name)
    lines = stream.getvalue().split("\n")
    begun = [line for line in lines if line and not line.startswith("    ")]
    assert len(begun) == 4
    assert all(line.startswith(("WARNING recfs.test ", "ERROR recfs.test ")) for line in begun)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", stream.getvalue())
    assert not any(line.startswith(FORGED) for line in re.split(r"[\r\n\x0b\x85\u2028]", stream.getvalue()))


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_make_no_lines_of_a_commands_output(capsys: pytest.CaptureFixture[str], name: str) -> None:
    output.say(f"problem: lost bytes: {name}")
    told = capsys.readouterr().out
    assert len(told.splitlines()) == 1
    assert told.rstrip("\n").isprintable()
