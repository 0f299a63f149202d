"""A gateway for each test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.web.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A gateway on a directory."""
    site = Site(tmp_path)
    yield site
    site.context.close()
    site.context.trail.close()


@pytest.fixture
def tree() -> Iterator[Path]:
    """A plain directory with the tree of a store."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="recfs-web-", dir=memory if memory.is_dir() else None) as made:
        root = Path(made)
        for each in ("users/5/recordings", "users/7/recordings", "temp", "shared"):
            (root / each).mkdir(parents=True)
        yield root
