"""Fixtures of the real-mount suite: where stores live, which mounts a test gets, and what ends them.

`mount` is one running mount shared by a module; `user`, `rec` and `place` give each test directories of its
own on it. `store` is a store of the test's own, not yet started, for tests that kill, remount or configure.
RECFS_TEST_DIR says where stores are made (default /dev/shm, else the temporary directory).
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from .harness import BASE_CONFIG, Mount, abort_all, mounted, remove_tree

DEFAULT_TIMEOUT_S = 120.0
MODES = tuple(os.environ.get("RECFS_TEST_MODES", "auto read off").split())
"""Values of the config key `passthrough` that every test is run with."""
_PREFIX = "recfs-fuse-"
_numbers = itertools.count(1)
_user_ids = itertools.count(1000)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what lies in this directory, give each test a deadline, and leave out what a mode cannot change."""
    here = f"{Path(__file__).parent}{os.sep}"
    superfluous = []
    for item in items:
        if not str(item.path).startswith(here):  # of ten thousand: what pathlib has to say of each takes a second
            continue
        item.add_marker(pytest.mark.fuse)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(DEFAULT_TIMEOUT_S))
        params: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
        marker = item.get_closest_marker("modes")
        wanted: tuple[object, ...] = marker.args if marker else MODES
        if params.get("place") == "native" or item.get_closest_marker("modeless") is not None:
            wanted = MODES[:1]
        if params.get("passthrough", wanted[0]) not in wanted:
            superfluous.append(item)
    if superfluous:
        config.hook.pytest_deselected(items=superfluous)
        left_out = set(superfluous)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of the daemon's log beside every failure."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Mount):
                report.sections.append((f"recfs daemon log ({value.base.name})", value.log()[-8000:]))
    return report


def _scratch() -> Path:
    chosen = os.environ.get("RECFS_TEST_DIR")
    if chosen:
        return Path(chosen)
    memory = Path("/dev/shm")
    # Containers give /dev/shm 64 MiB: below the default min_free, every write would be refused.
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30
    return memory if roomy and os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def _sweep_stale(scratch: Path) -> None:
    """Clear what test runs left behind whose process is gone."""
    for left in scratch.glob(f"{_PREFIX}*"):
        owner = re.match(rf"{_PREFIX}(\d+)-", left.name)
        if owner and not Path("/proc", owner[1]).exists():
            remove_tree(left)


@pytest.fixture(scope="session")
def workspace() -> Iterator[Path]:
    """The directory all stores of this run live in; it is gone afterwards, mounts and all."""
    scratch = _scratch()
    _sweep_stale(scratch)
    base = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=scratch))
    base.chmod(0o755)  # other users walk through it to the mounts
    yield base
    for mount in list(Mount.alive):
        mount.close()
    remove_tree(base)


@pytest.fixture(scope="module", params=MODES, autouse=True)
def passthrough(request: pytest.FixtureRequest) -> Iterator[str]:
    """How far the kernel is let to do reads and writes by itself; what users see must not depend on it."""
    Mount.passthrough = request.param
    yield request.param
    Mount.passthrough = "auto"


@pytest.fixture(scope="module")
def mount_config() -> str | None:
    """The config of the module's shared mount, without `root`; a module may override this fixture."""
    return BASE_CONFIG


@pytest.fixture(scope="module")
def mount(workspace: Path, mount_config: str | None, passthrough: str) -> Iterator[Mount]:
    """A running mount shared by the tests of a module; its counters must be right at the end."""
    shared = Mount(workspace / f"m{next(_numbers)}")
    try:
        shared.start(config=mount_config)
        yield shared
        shared.check()
        shared.drop_descriptors()
        shared.assert_consistent()
        assert shared.leftovers("lost+found") == [], "recfs lost track of bytes it wrote itself"
        shared.umount()
        shared.check()
    finally:
        shared.close()


@pytest.fixture
def store(workspace: Path, passthrough: str) -> Iterator[Mount]:
    """A store of the test's own with its mount point; the test starts (and kills) the daemon itself."""
    own = Mount(workspace / f"s{next(_numbers)}")
    try:
        yield own
        own.check()
        if own.process is not None:
            own.umount()
            own.check()
    finally:
        own.close()
        remove_tree(own.base)


@pytest.fixture
def user(mount: Mount) -> Path:
    """A fresh users/<id> on the shared mount."""
    path = mount.path / "users" / str(next(_user_ids))
    path.mkdir()
    return path


@pytest.fixture
def rec(user: Path) -> Path:
    """A fresh users/<id>/recordings/<id> on the shared mount."""
    path = user / "recordings" / "1"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def own_rec(store: Mount) -> Path:
    """A recording that is on disk, on the test's own store, which is running now."""
    path = store.start().recording()
    store.drain()
    return path


@pytest.fixture(params=["native", "recfs"])
def place(request: pytest.FixtureRequest, workspace: Path) -> Path:
    """An empty directory: once a native one, once a recording on the mount.

    The native run proves that the test states what a directory does, the other that recfs does the same.
    """
    if request.param == "recfs":
        path: Path = request.getfixturevalue("rec")
        return path
    native = workspace / f"native{next(_numbers)}"
    native.mkdir()
    return native


@pytest.fixture
def outside(workspace: Path) -> Iterator[Path]:
    """A scratch directory that is not on a mount."""
    path = workspace / f"outside{next(_numbers)}"
    path.mkdir()
    path.chmod(0o777)
    yield path
    remove_tree(path)


@pytest.fixture(autouse=True)
def _watchdog(request: pytest.FixtureRequest) -> Iterator[None]:
    """End the daemons when a test overruns its deadline, before pytest-timeout ends the whole run.

    A call that waits for a FUSE daemon cannot be ended by a signal handler, only by the daemon's end.
    """
    marker = request.node.get_closest_marker("timeout")
    deadline_s = float(marker.args[0]) if marker and marker.args else DEFAULT_TIMEOUT_S
    timer = threading.Timer(deadline_s * 0.9, abort_all, [f"{request.node.nodeid} took over {deadline_s * 0.9:.0f} s"])
    timer.daemon = True
    timer.start()
    yield
    timer.cancel()
    timer.join()


@pytest.fixture(autouse=True)
def _daemon_log_guard() -> Iterator[None]:
    """Blame the test during which a daemon logged trouble or died, and not the next one."""
    yield
    for running in list(Mount.alive):
        try:
            running.check()
        finally:
            running.revive()


@pytest.fixture
def second_mount_point(workspace: Path) -> Iterator[Path]:
    """Another empty mount point."""
    path = workspace / f"other{next(_numbers)}"
    path.mkdir()
    yield path
    if mounted(path):
        subprocess.run(["umount", "--lazy", str(path)], check=False, timeout=10)


@pytest.fixture
def background() -> Iterator[list[subprocess.Popen[bytes]]]:
    """A list for client processes the test starts; what still runs at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(10)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
