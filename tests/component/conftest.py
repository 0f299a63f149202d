"""Places and file systems for the component tests."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from recfs.catalogue import headroom, migrations
from recfs.stores import local
from tests.helpers import new_catalogues, slow_catalogue, virtual_time
from tests.helpers.log_guard import LogGuard

from .build import Filesystem, filesystem, pattern
from .watching import FILE, OTHER, Watched, watching

MEMORY = Path("/dev/shm")

# As the daemon does: an open may break the lease that the committer tries for a moment.
signal.signal(signal.SIGIO, signal.SIG_IGN)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test of this directory a clock that jumps to the next timer: no timer takes real time."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and "place" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.trio(run=virtual_time.run), append=False)


@pytest.fixture(autouse=True)
def small_reserves(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a store puts aside for full disks is little: memory for 28 MiB takes as long as the test beside it.

    Modules about full disks override this.
    """
    monkeypatch.setattr(local, "BALLAST_BYTES", 64 << 10)
    monkeypatch.setattr(headroom, "LOG_BYTES", 64 << 10)
    monkeypatch.setattr(headroom, "FILE_BYTES", 64 << 10)


@pytest.fixture(autouse=True)
def steps_of_new_catalogues(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new catalogue is a copy of one that went through all steps: thousands are made, and the steps take longest.

    Tests about the steps, or about what may go wrong in them, are marked `all_steps`.
    """
    if request.node.get_closest_marker("all_steps"):
        return
    monkeypatch.setattr(migrations.steps, "apply", new_catalogues.copied(migrations.steps.apply))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked so with a catalogue that takes its time, too."""
    if metafunc.definition.get_closest_marker("late_catalogue"):
        metafunc.parametrize("slow_calls", [False, True], ids=["at once", "late"], indirect=True)


@pytest.fixture(autouse=True)
def slow_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """With `--slow-catalogue`, or the mark `late_catalogue`, each call of the catalogue takes a moment."""
    wanted = getattr(request, "param", False) or request.config.getoption(slow_catalogue.OPTION)
    if not wanted or request.node.get_closest_marker("prompt_catalogue"):
        yield
        return
    dice = random.Random(f"{request.config.getoption(slow_catalogue.SEED)} {request.node.nodeid}")
    with slow_catalogue.slowed(dice):
        yield


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A directory, in memory where there is some, for fsync costs nothing there. Time is real."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="recfs-test-", dir=MEMORY))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def place(scratch: Path) -> Path:
    """Such a directory, for a store: time jumps to the next timer."""
    return scratch


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """A running file system with default settings; whole and consistent at the end."""
    async with filesystem(place) as running:
        yield running
        running.faults.heal()  # of a test that failed: with a fault that stays, what follows would never end
        if running.checked_at_end:
            await running.assert_consistent()


@pytest.fixture
def any_log(_log_guard: LogGuard) -> Iterator[None]:
    """What is logged depends on what fails."""
    yield
    _log_guard.messages.clear()


@pytest.fixture
async def watched(place: Path, autojump_clock: object) -> AsyncIterator[Watched]:
    """One with two files, whose watcher has looked at everything."""
    async with filesystem(place / "root") as fs:
        await fs.write(FILE, pattern(70_000))
        await fs.write(OTHER, b"other")
        await fs.drain()
        async with watching(fs) as made:
            yield made
