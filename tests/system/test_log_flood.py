"""A log that the same line over and over cannot fill, and in which no name can forge a line."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recfs.cli.mounts.flood import BURST, WINDOW_S, FloodHandler
from recfs.cli.mounts.logs import LineFormatter, set_up_logging


class Target(logging.Handler):
    """Keeps what it is given; fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.failing: Exception | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.failing is not None:
            raise self.failing
        self.lines.append(record.getMessage())


class Log:
    """A logger whose handler limits, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.target = Target()
        self.handler = FloodHandler(self.target, clock=lambda: self.now)
        self.logger = logging.Logger("recfs.fuse", logging.DEBUG)
        self.logger.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        return self.target.lines


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    yield made
    made.handler.close()


def refuse(log: Log, user: str, times: int) -> None:
    for n in range(times):
        log.logger.info("%s: %s (%s)", "write", OSError(f"users/{user}/recordings/1/f{n}: quota"), "EDQUOT")


def test_the_same_over_and_over_is_counted(log: Log) -> None:
    refuse(log, "5", 4221)
    assert len(log.lines) == BURST
    log.now = WINDOW_S
    refuse(log, "5", 1)
    assert "… and 4,211 more like it in the last 10 s" in log.lines[BURST]
    assert "f4220" in log.lines[BURST], "the last of them is told"
    assert "f0" in log.lines[BURST + 1]


def test_the_count_comes_when_the_flood_has_stopped(log: Log) -> None:
    refuse(log, "5", BURST + 1)
    log.now = WINDOW_S
    log.handler.tell()
    assert "… and 1 more like it" in log.lines[-1]
    log.handler.tell()
    assert len(log.lines) == BURST + 1, "once"


def test_the_count_comes_at_the_end(log: Log) -> None:
    refuse(log, "5", BURST + 7)
    log.handler.close()
    assert "… and 7 more like it" in log.lines[-1]


def test_other_users_and_other_kinds_are_not_drowned(log: Log) -> None:
    refuse(log, "5", 1000)
    refuse(log, "6", 1)
    log.logger.error("home tree: %s", "users/5/recordings/1/f: fsync")
    log.logger.error("catalogue: %s", "users/5/recordings/1/f: fsync")
    for kind in (ValueError, KeyError):
        try:
            raise kind("users/5/x")
        except kind:
            log.logger.exception("%s: unexpected error", "write")
    assert len(log.lines) == BURST + 5


def test_debug_is_not_limited(log: Log) -> None:
    for _ in range(3 * BURST):
        log.logger.debug("control request %s", "status")
    assert len(log.lines) == 3 * BURST


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), OSError(errno.EBADF, "closed"), ValueError("x"), OverflowError("x")]
)
def test_a_handler_that_fails_stops_nobody(log: Log, error: Exception) -> None:
    log.target.failing = error
    log.logger.error("one")
    log.logger.error("two")
    log.target.failing = None
    log.logger.error("three")
    assert log.lines == ["lines of this log that could not be written: 2", "three"]


def test_without_threads_the_count_comes_with_a_later_line(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_timer: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Timer, "start", start)
        refuse(log, "5", BURST + 3)
        log.handler.tell()
    assert len(log.lines) == BURST, "no line is counted as lost"
    refuse(log, "5", 1)
    assert log.handler._timer is not None, "with a thread the count comes by itself"
    log.now = WINDOW_S
    log.handler.tell()
    assert "… and 4 more like it" in log.lines[-1]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), ValueError("x"), OverflowError("x")], ids=repr)
def test_counts_that_cannot_be_written_stop_nobody(log: Log, error: Exception) -> None:
    refuse(log, "5", BURST + 1)
    log.target.failing = error
    log.now = WINDOW_S
    log.handler.tell()
    log.handler.flush()
    log.target.failing = None
    log.logger.info("later")
    assert log.lines[-2:] == ["lines of this log that could not be written: 1", "later"]


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in before:
            handler.close()
    root.handlers[:], root.level = before, level


@pytest.mark.usefixtures("root_logger")
def test_a_log_whose_directory_went_stops_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    set_up_logging("info", folder / "log")
    (folder / "log").unlink()
    folder.rmdir()
    logging.getLogger("recfs.test").info("nobody reads this")
    folder.mkdir()
    logging.getLogger("recfs.test").info("and \udcff this")
    text = (folder / "log").read_text()
    assert "lines of this log that could not be written: 1" in text
    assert r"and \udcff this" in text


def test_names_forge_no_lines() -> None:
    record = logging.LogRecord("recfs", logging.INFO, "", 0, "%s: gone", ("a\n2026 ERROR x\x1b[2J\u2028",), None)
    assert LineFormatter("%(message)s").format(record) == "a\\n2026 ERROR x\\x1b[2J\\u2028: gone"
    try:
        raise ValueError("b\nc")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    for line in LineFormatter("%(message)s").format(record).split(os.linesep)[1:]:
        assert line.startswith("    ")


def test_a_long_message_is_cut() -> None:
    """The path of a file may have any length."""
    record = logging.LogRecord("recfs", logging.INFO, "", 0, "%s: gone", ("x" * 100_000,), None)
    line = LineFormatter("%(message)s").format(record)
    assert len(line) < 5000
    assert line.endswith("x: gone")
