"""How the suite runs in several processes (pytest-xdist): what stays together, what runs alone, what a death costs.

`scripts/test` asks for workers; a plain pytest has none and is not changed by any of this. tests/conftest.py imports
the hooks.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import functools
import gc
import json
import os
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.pathlib import import_path
from xdist.scheduler import LoadScopeScheduling

FUSE_TESTS = Path(__file__).parents[1] / "fuse"
WORKERS_PER_CPU = 2
"""Some of the tests mostly wait: for a daemon to end, a time-out to pass, a disk to sync."""
PATIENCE = 4
"""How many times longer than its deadline says a test may take in a worker: the others take its CPU meanwhile."""
GRACE_S = 30.0
"""How long after its deadline a test that no signal could end takes its worker with it."""
_COMMON = "recfs_common_directory"
_ON_SHARED_MOUNT = {"mount", "place"}
"""Fixtures of tests that are on their module's mount, whether a scope tells or not."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`."""
    chosen = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS")
    return int(chosen) if chosen else WORKERS_PER_CPU * len(os.sched_getaffinity(0))


# --- what the controller and its workers share ---------------------------------------------------------------------


class Controller:
    """Hooks of the process that hands out the tests."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="recfs-workers-")

    def pytest_configure_node(self, node: Any) -> None:
        """Tell a new worker where what it shares with the others is."""
        node.workerinput[_COMMON] = self._directory.name

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> LoadScopeScheduling:
        """Ours."""
        config.option.loadscopereorder = False
        return Scheduler(config, log, _groups_file(Path(self._directory.name)))

    def pytest_handlecrashitem(self, report: pytest.TestReport) -> None:
        """Show what a worker left behind that ended itself."""
        for note in sorted(Path(self._directory.name).glob("died-*")):
            report.sections.append((note.name, note.read_text(errors="replace")))
            note.unlink()

    def pytest_unconfigure(self) -> None:
        """Clean up."""
        self._directory.cleanup()


def configure(config: pytest.Config) -> None:
    """Register the controller's hooks in a process that is one."""
    if getattr(config.option, "dist", "no") != "no" and common(config) is None:
        config.pluginmanager.register(Controller(), "recfs-workers")


def common(config: pytest.Config) -> Path | None:
    """The directory that the workers of a run share; None in a process that is no worker."""
    told: Mapping[str, Any] = getattr(config, "workerinput", {})
    return Path(told[_COMMON]) if _COMMON in told else None


def _groups_file(directory: Path) -> Path:
    return directory / "groups.json"


# --- collecting ----------------------------------------------------------------------------------------------------


def _test_files(arguments: Sequence[str]) -> list[Path]:
    """The test files below the directories that a run is asked for; none where it is asked for single ones."""
    places = [Path(argument) for argument in arguments]
    if not all(place.is_dir() for place in places):
        return []
    return sorted({file for place in places for file in place.rglob("test_*.py")})


def _import_first(config: pytest.Config) -> None:
    """Import the test files, each worker beginning with others: what one has compiled, the others find compiled.

    All begin to collect at the same moment, and compiling takes twice as long as all the rest of it. What cannot be
    imported is reported when it is collected.
    """
    files = _test_files(config.args)
    number = int(getattr(config, "workerinput", {})["workerid"].removeprefix("gw"))
    begin = len(files) * number // int(getattr(config, "workerinput", {})["workercount"])
    for file in files[begin:] + files[:begin]:
        with contextlib.suppress(Exception, pytest.skip.Exception):
            import_path(
                file,
                mode=config.getoption("importmode"),
                root=config.rootpath,
                consider_namespace_packages=config.getini("consider_namespace_packages"),
            )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """In a worker: without a look for garbage, of which there is none, among a million objects that stay."""
    if common(session.config) is None:
        return (yield)
    gc.disable()
    try:
        _import_first(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# --- who runs what -------------------------------------------------------------------------------------------------


@functools.cache
def _is_on_mount(path: Path) -> bool:
    return FUSE_TESTS in path.parents


def shares_fixtures(item: pytest.Item) -> bool:
    """Whether a fixture of the item lives longer than the item, and is more than a setting."""
    definitions: Mapping[str, Any] = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    shared = {name for name, found in definitions.items() for each in found if each.scope in ("module", "class")}
    return bool(shared - {"passthrough", "mount_config"})


def group_of(item: pytest.Item) -> str:
    """Name of the items that the same worker has to run.

    On a mount: those of a module with one value of `passthrough`, for they share the mount; those with a store of their
    own are free, each a group. Elsewhere a file is a group, so that what it imports and starts is made once. All that
    takes one SeaweedFS server, on a mount or not, is a group. What may take long and shares nothing is free anywhere.
    """
    if item.get_closest_marker("alone"):
        return "alone"
    if (seaweedfs := item.get_closest_marker("seaweedfs")) is not None:
        return " ".join(("seaweedfs", *seaweedfs.args))
    fixtures = set(getattr(item, "fixturenames", ()))
    if _takes_long(item) and not fixtures & _ON_SHARED_MOUNT and not shares_fixtures(item):
        return item.nodeid
    if not _is_on_mount(item.path):
        return str(item.path)
    if "store" in fixtures and not shares_fixtures(item):
        return item.nodeid
    params: Mapping[str, object] = getattr(getattr(item, "callspec", None), "params", {})
    return f"{item.path} {params.get('passthrough')}"


def deadline_s(item: pytest.Item) -> float:
    """How many seconds the item may take, as pytest-timeout sees it."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker and marker.args else item.config.getini("timeout"))


def _takes_long(item: pytest.Item) -> bool:
    """Whether it is slow, and was given more time than others."""
    return item.get_closest_marker("slow") is not None and deadline_s(item) > float(item.config.getini("timeout"))


def _cost(item: pytest.Item) -> float:
    """A rough guess of the seconds that an item takes. Its deadline tells: that of a usual one is two minutes."""
    if item.get_closest_marker("slow") is not None:
        return deadline_s(item) / 24
    return 0.5 if _is_on_mount(item.path) else 0.05


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker: be patient, put the items in groups, those that take longest first, and tell the controller."""
    directory = common(config)
    if directory is None:
        return
    groups = {item: group_of(item) for item in items}
    costs: dict[str, float] = {}
    for item, group in groups.items():
        costs[group] = costs.get(group, 0.0) + _cost(item)
    for item in items:
        item.add_marker(pytest.mark.timeout(PATIENCE * deadline_s(item)), append=False)
    items.sort(key=lambda item: (groups[item] == "alone", -costs[groups[item]], groups[item]))  # stable within a group
    written = directory / f"groups-{os.getpid()}"
    written.write_text(json.dumps({item.nodeid: groups[item] for item in items}))
    written.rename(_groups_file(directory))  # the same for all workers, or xdist refuses to go on


class Scheduler(LoadScopeScheduling):
    """xdist's, with our groups in our order; and no worker is given a test that another died of."""

    def __init__(self, config: pytest.Config, log: Any, groups_file: Path) -> None:
        super().__init__(config, log)
        self._groups_file = groups_file
        self._groups: dict[str, str] = {}

    def _split_scope(self, nodeid: str) -> str:
        if not self._groups:
            self._groups = json.loads(self._groups_file.read_text())
        return self._groups[nodeid]

    def _reschedule(self, node: Any) -> None:
        # A worker begins a test when it knows the next one, or that there is none: one alone would never be begun.
        # What is not registered replaces a dead one, and is not ready: another was sooner.
        while node in self.registered_collections:
            super()._reschedule(node)
            if node.shutting_down or self._pending_of(self.assigned_work[node]) > 1:
                break

    def remove_node(self, node: Any) -> str | None:
        """Forget a worker that has ended. Returns the test it died of, if any; what it had not begun is for others."""
        for unit in self.assigned_work[node].values():
            for nodeid, done in unit.items():
                if not done:
                    unit[nodeid] = True
                    super().remove_node(node)
                    return nodeid
        super().remove_node(node)
        return None


# --- tests that need the machine for themselves ------------------------------------------------------------------


@contextlib.contextmanager
def _turn(directory: Path, *, alone: bool) -> Generator[None]:
    """Wait until a test that runs alone has ended, or, for such a test, until all others have."""
    with (directory / "turn").open("a") as turn, (directory / "running").open("a") as running:
        fcntl.flock(turn, fcntl.LOCK_EX)  # who waits for all the others lets nobody overtake
        fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield


def _end_worker(directory: Path, nodeid: str, limit_s: float) -> None:
    with (directory / f"died-{os.getpid()}").open("w") as note:
        note.write(f"{nodeid} still ran {GRACE_S:.0f} s after its deadline of {limit_s:.0f} s\n")
        note.flush()
        faulthandler.dump_traceback(note)
    os._exit(1)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """In a worker: wait for the test's turn, and end the worker with a test that nothing else ends.

    pytest-timeout stops a test with a signal, which a system call on a dead mount does not hear.
    """
    directory = common(item.config)
    if directory is None:
        return (yield)
    limit_s = deadline_s(item)
    with _turn(directory, alone=item.get_closest_marker("alone") is not None):
        last_resort = threading.Timer(limit_s + GRACE_S, _end_worker, [directory, item.nodeid, limit_s])
        last_resort.daemon = True
        last_resort.start()
        try:
            return (yield)
        finally:
            last_resort.cancel()
