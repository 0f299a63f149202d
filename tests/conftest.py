"""What every test gets: a clean environment, the `fuse` and `needs` markers, swept mounts, a log guard.

Fakes, builders and mount fixtures live with the tests that use them.
"""

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.helpers import machine, slow_catalogue, tables, workers
from tests.helpers.log_guard import LogGuard
from tests.helpers.machine import NO_SKIP
from tests.helpers.media import media_samples
from tests.helpers.workers import pytest_xdist_auto_num_workers

__all__ = ["media_samples", "pytest_xdist_auto_num_workers"]  # the latter is asked for before pytest_configure

FUSE_DEVICE = Path("/dev/fuse")
LEAKING_VARIABLES = re.compile(r"(RECFS_(?!TEST_)|AWS_)\w*|NOTIFY_SOCKET")
WORKER_PID = ".worker"
WEED = Path(__file__).parents[1] / ".venv/bin/weed"


def pytest_addoption(parser: pytest.Parser) -> None:
    """What a run can be asked for."""
    slow_catalogue.add_option(parser)


def pytest_sessionfinish() -> None:
    """Who asked a silent mount and was given up has ended since; nobody else looks after it."""
    where = sys.modules.get("recfs.cli.common.where")
    for child in where._UNANSWERED if where is not None else ():
        child.wait(20)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the developer's own store, credentials and service manager out; let CI skip no test."""
    # Hundreds of daemons are started: none of them should have to compile recfs first.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # A deadline for one example, in wall-clock time, is a promise about how busy the machine is.
    hypothesis.settings.register_profile("recfs", deadline=None)
    hypothesis.settings.load_profile("recfs")
    config.pluginmanager.register(machine, "recfs-test-machine")
    config.pluginmanager.register(tables, "recfs-test-tables")
    config.pluginmanager.register(workers, "recfs-test-workers")
    workers.configure(config)
    for name in list(os.environ):
        if LEAKING_VARIABLES.fullmatch(name):
            del os.environ[name]
    if os.environ.get("CI"):
        os.environ[NO_SKIP] = "1"


# --- tests that need something of the machine -----------------------------------------------------


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, with the reason, what cannot run on this machine; in CI nothing may be missing, and it fails."""
    programs = [name for marker in item.iter_markers("needs") for name in marker.args]
    missing = []
    if item.get_closest_marker("fuse"):
        programs.append("fusermount3")
        if not os.access(FUSE_DEVICE, os.R_OK | os.W_OK):
            missing.append(str(FUSE_DEVICE))
    missing += [name for name in programs if shutil.which(name) is None]
    if item.get_closest_marker("seaweedfs") and not WEED.exists():
        missing.append(f"{WEED} (scripts/setup --dev installs it, where there is a build for the machine)")
    if missing:
        reason = f"not on this machine: {', '.join(missing)}"
        if os.environ.get(NO_SKIP):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


# --- mounts left behind ---------------------------------------------------------------------------


def fuse_mounts_below(directory: Path) -> list[Path]:
    """FUSE mount points below *directory*, deepest first, from the table: a stat on a dead mount can hang."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        escaped = fields.split()[4]
        point = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), escaped)
        path = Path(os.fsdecode(point))
        if rest.startswith(b"fuse") and path.is_relative_to(directory):
            mounts.append(path)
    return sorted(mounts, key=lambda path: len(path.parts), reverse=True)


def unmount(mount: Path) -> None:
    """Detach *mount*; its daemon ends when nobody uses it any more."""
    subprocess.run(["fusermount3", "-uz", mount], check=False)


_RUN = re.compile(r"pytest-\d+")
"""The directory of a run (pytest's make_numbered_dir)."""


def session_alive(basetemp: Path) -> bool:
    """Whether the pytest that made *basetemp* still runs: until then its pid is in the lock file there."""
    return running(basetemp / ".lock")


def running(pid_file: Path) -> bool:
    """Whether the process runs that wrote its pid there."""
    try:
        os.kill(int(pid_file.read_text()), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def sweep(runs: Path, own: Path) -> None:
    """Detach what runs in *runs* left mounted that have ended, and what workers of this run did that died."""
    for mount in fuse_mounts_below(runs):
        run, *inner = mount.relative_to(runs).parts
        if _RUN.fullmatch(run) is None:
            continue  # with --basetemp, what lies beside that is anybody's
        worker = runs / run / inner[0] if inner else runs / run
        dead_worker = (worker / WORKER_PID).exists() and not running(worker / WORKER_PID)
        if not mount.is_relative_to(own) and (dead_worker or not session_alive(runs / run)):
            unmount(mount)


@pytest.fixture(scope="session", autouse=True)
def _sweep_mounts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Detach what aborted runs left mounted, and at the end what this one did; spare running sessions."""
    own = run = tmp_path_factory.getbasetemp()
    if workers.common(request.config) is not None:  # <run>/popen-gw0: the controller wrote <run>/.lock
        run = own.parent
        (own / WORKER_PID).write_text(str(os.getpid()))
    sweep(run.parent, own)
    yield
    for mount in fuse_mounts_below(own):
        unmount(mount)


# --- log guard ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _log_guard(request: pytest.FixtureRequest) -> Iterator[LogGuard]:
    guard = LogGuard()
    guard.expected += [pattern for marker in request.node.iter_markers("expect_log") for pattern in marker.args]
    guard.possible += [pattern for marker in request.node.iter_markers("may_log") for pattern in marker.args]
    logger = logging.getLogger("recfs")
    logger.addHandler(guard)
    yield guard
    logger.removeHandler(guard)
    if verdict := guard.verdict():
        pytest.fail(f"log of recfs, WARNING and above:\n{verdict}", pytrace=False)


@pytest.fixture
def expect_log(_log_guard: LogGuard) -> Callable[[str], None]:
    """`expect_log(pattern)`: a message "LEVEL logger: text" that matches this expression has to come."""
    return _log_guard.expected.append


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes a Ceph cluster, which is minutes to install, unless it is asked for."""
    if os.environ.get("RECFS_TEST_RGW"):
        return
    out = [item for item in items if item.get_closest_marker("rgw") is not None]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item.get_closest_marker("rgw") is None]
