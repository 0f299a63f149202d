"""Whatever the log's handler raises, or its disk answers: no request, service, start or stop fails for it."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyfuse3
import pytest

from recfs.cli.mounts.flood import FloodHandler
from recfs.cli.mounts.logs import set_up_logging
from recfs.fuse.guard import guarded

from .build import REC, filesystem
from .curses import ERRORS

FULL = Path("/dev/full")
"""Takes no byte: every write(2) is ENOSPC."""


class Broken(logging.Handler):
    """Raises in each of its methods that a log calls."""

    def __init__(self, error: Exception, *methods: str) -> None:
        super().__init__()
        self._error = error
        self._methods = methods
        self.hits = 0

    def mend(self) -> None:
        """Raise nothing any more."""
        self._methods = ()

    def _strike(self, method: str) -> None:
        if method in self._methods:
            self.hits += 1
            raise self._error

    def emit(self, record: logging.LogRecord) -> None:
        self._strike("emit")

    def flush(self) -> None:
        self._strike("flush")

    def close(self) -> None:
        self._strike("close")


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, with nothing but the handlers of the test, at level DEBUG."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    root.setLevel(logging.DEBUG)
    yield root
    for handler in root.handlers:
        handler.close()
    root.handlers = before
    root.setLevel(level)


@guarded
async def fails() -> None:
    """A request that meets a bug."""
    raise ValueError("a bug")


async def live(place: Path) -> None:
    """Start, work, a bug in a request, stop, and start again: none of them notices the log."""
    async with filesystem(place) as fs:
        await fs.write(f"{REC}/file", b"bytes")
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await fails()
        assert raised.value.errno == errno.EIO
        fs.parts.problems.note("test", 1, OSError(errno.EIO, "set aside"))
        fs.parts.problems.solved("test", 1)
        logging.getLogger("recfs.test").warning("%s", "a line")
        await fs.drain()
        assert (fs.root / REC / "file").read_bytes() == b"bytes"
        await fs.reopen()
        assert await fs.read(f"{REC}/file") == b"bytes"
        await fs.assert_consistent()


@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("error", ERRORS, ids=str)
@pytest.mark.table(3)
async def test_a_handler_that_raises(place: Path, root_logger: logging.Logger, error: Exception) -> None:
    broken = Broken(error, "emit", "flush", "close")
    handler = FloodHandler(broken)
    root_logger.addHandler(handler)
    await live(place)
    handler.flush()
    handler.close()
    assert broken.hits > 3
    broken.mend()  # logging flushes all that still exist at the end of the process


@pytest.mark.usefixtures("any_log")
async def test_a_full_disk_below_the_log(place: Path, root_logger: logging.Logger, capfd: Any) -> None:
    if not os.access(FULL, os.W_OK):
        pytest.fail("every Linux has /dev/full")
    set_up_logging("debug", FULL)
    await live(place)
    root_logger.handlers[0].close()
    assert "Logging error" not in capfd.readouterr().err


@pytest.mark.usefixtures("any_log")
async def test_a_log_whose_place_becomes_something_else(
    place: Path, tmp_path: Path, root_logger: logging.Logger
) -> None:
    """Rotated away, and a directory, a dangling link or nothing stands there instead; then it can be written again."""
    file = tmp_path / "logs" / "log"
    file.parent.mkdir()
    set_up_logging("debug", file)
    log = logging.getLogger("recfs.test")
    file.rename(tmp_path / "logs" / "log.1")
    file.mkdir()
    await live(place / "folder")
    file.rmdir()
    file.symlink_to(tmp_path / "nowhere" / "log")
    await live(place / "link")
    file.unlink()
    log.warning("it is back")
    text = file.read_text()
    assert "could not be written" in text
    assert "it is back" in text
