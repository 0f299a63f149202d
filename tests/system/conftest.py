"""A daemon that answers from samples, for what the commands print."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .fake_daemon import FakeDaemon


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the fake daemon's store is."""
    return tmp_path / "store"


@pytest.fixture
def daemon(root: Path) -> Iterator[FakeDaemon]:
    """A running one."""
    with FakeDaemon(root) as running:
        yield running
