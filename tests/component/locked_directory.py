"""A directory of the home tree that somebody locked by hand (chmod 000), for a daemon whom that stops.

Run by test_upkeep_troubles.py, in a process without the capabilities that would have it pass.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .build import REC, Filesystem, pattern
from .sweeping import swept
from .test_leftovers import later
from .test_recordings import ask
from .test_tier import evict, stored, tiered

if TYPE_CHECKING:
    import trio

FILE = f"{REC}/file"


@pytest.fixture
async def locked(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """A store with a directory that somebody locked by hand."""
    fs = tiered(nursery, place / "root")
    await fs.start()
    await fs.write(FILE, b"beside")
    for number in range(5):
        await fs.write(f"{REC}/locked/{number}", pattern(5000, number))
    await fs.drain()
    await evict(fs, f"{REC}/locked/4")
    await fs.drain()
    later(fs)
    (fs.root / REC / "locked").chmod(0)
    yield fs
    (fs.root / REC / "locked").chmod(0o755)
    for number in range(5):
        assert await fs.read(f"{REC}/locked/{number}") == pattern(5000, number)
    await fs.drain()
    assert set(stored(fs)) == {FILE, *(f"{REC}/locked/{number}" for number in range(5))}
    await fs.assert_consistent()
    await fs.stop()


@pytest.mark.may_log("Permission denied|have lost their bytes|orphans: |locked|not where they should be")
@pytest.mark.parametrize("mode", ["report", "adopt", "delete"])
async def test_what_cannot_be_looked_at_is_not_taken_for_gone(locked: Filesystem, mode: str) -> None:
    """A look for orphans says that it could not look there; it forgets no copy, uploads nothing anew, moves nothing."""
    ended = await swept(locked, "orphans" if mode == "report" else f"orphans-{mode}")
    assert (ended["outcome"], "Permission denied" in ended["result"]) == ("done", True), ended
    for number in range(4):
        assert str((await locked.node(f"{REC}/locked/{number}")).state) == "stored"
    assert os.listdir(locked.root / ".recfs/lost+found") == []
    assert await locked.read(FILE) == b"beside"


@pytest.mark.may_log("Permission denied|locked|corrupt")
async def test_what_cannot_be_read_is_told_and_comes_back(locked: Filesystem) -> None:
    """Reading and verifying say so; nothing becomes corrupt, or other bytes."""
    told = await ask(locked, "verify", path=REC, level="hash")
    assert (told["unreadable"], told["corrupt"], told["repaired"]) == (4, 0, 0)
    for number in range(4):
        with pytest.raises(PermissionError):
            await locked.read(f"{REC}/locked/{number}")
        assert str((await locked.node(f"{REC}/locked/{number}")).state) == "stored"
