"""The log file is rotated away by others; the daemon begins a new one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from recfs.cli.mounts.logs import set_up_logging


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    root.setLevel(level)


def test_a_log_that_was_rotated_away_is_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "log"
    set_up_logging("info", file)
    log = logging.getLogger("recfs.test_rotation")
    log.info("before")
    file.rename(tmp_path / "log.1")
    log.info("after")
    assert "before" in (tmp_path / "log.1").read_text()
    assert "after" not in (tmp_path / "log.1").read_text()
    assert "after" in file.read_text()
