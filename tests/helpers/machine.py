"""Why a test may be skipped where nothing should be (CI): what this machine lacks, looked at and not believed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from . import workers
from .userns import LEAVE_FUSE_MOUNTS, has_sys_admin

NO_SKIP = "RECFS_TEST_NO_SKIP"
"""Set in CI: a skip that `excused` does not excuse is a failure."""
NOBODY = 65534
_UNEXCUSED = pytest.StashKey[list[str]]()
OBJECT_STORE_CONTRACT = "tests/contract/object_store_contract.py"


def _succeeds(*command: str) -> bool:
    return shutil.which(command[0]) is not None and not subprocess.run(command, capture_output=True).returncode


def _no_passthrough() -> bool:
    major, minor = map(int, platform.release().split(".")[:2])
    return (major, minor) < (6, 9) or not has_sys_admin()


def _no_slices() -> bool:
    major, minor = map(int, platform.release().split(".")[:2])
    return (major, minor) < (6, 12) or not Path("/proc/self/sched").exists()  # CONFIG_SCHED_DEBUG


def _no_io_uring() -> bool:
    script = "import ctypes, sys; c = ctypes.CDLL(None, use_errno=True); c.syscall(425, 0, None)"
    return _succeeds(sys.executable, "-c", f"{script}; sys.exit(ctypes.get_errno() not in (1, 38))")  # EPERM, ENOSYS


def _no_overlayfs() -> bool:
    return not has_sys_admin() or (
        "\toverlay\n" not in Path("/proc/filesystems").read_text() and not _succeeds("modprobe", "overlay")
    )


def _no_small_disks() -> bool:
    return not has_sys_admin() or not Path("/dev/loop-control").exists()


def _python_is_private() -> bool:
    drop = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    return not _succeeds(*drop, sys.executable, "-c", "import pyfuse3") or not _succeeds(*drop, "cat", __file__)


def _no_zero_range() -> bool:
    with tempfile.NamedTemporaryFile(dir=os.environ.get("RECFS_TEST_DIR", "/dev/shm")) as file:
        return not _succeeds("fallocate", "--zero-range", "--length=4096", file.name)


def _no_systemd() -> bool:
    script = (
        "mount -t proc proc /proc && umount --lazy --recursive /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    )
    parted = (
        "unshare",
        "--mount",
        "--propagation",
        "slave",
        "--pid",
        "--cgroup",
        "--fork",
        "sh",
        "-c",
        LEAVE_FUSE_MOUNTS + script,
    )
    return not Path("/lib/systemd/systemd").exists() or not has_sys_admin() or not _succeeds(*parted)


FACTS: tuple[tuple[str, Callable[[], bool]], ...] = (
    (r"needs a systemd that can be process 1 of a namespace$", _no_systemd),
    (r"needs root$", lambda: os.geteuid() != 0),
    (r"runs in a user namespace already$", lambda: not has_sys_admin()),
    (r"needs user namespaces", lambda: not _succeeds("unshare", "--user", "--map-root-user", "true")),
    (r"needs CAP_SYS_ADMIN", lambda: not has_sys_admin()),
    (r"needs kernel passthrough", _no_passthrough),
    (r"needs time slices of Linux 6\.12", _no_slices),
    (r"needs io_uring", _no_io_uring),
    (r"needs overlayfs", _no_overlayfs),
    (r"needs a small (ext4|tmpfs)", _no_small_disks),
    (r"needs a small xfs", lambda: _no_small_disks() or "xfs" not in Path("/proc/filesystems").read_text("ascii")),
    (r"needs /dev/fuse for every user", lambda: not has_sys_admin()),
    (r"needs a file system with mode 0x1[01] of fallocate", _no_zero_range),
    (r"needs promtool", lambda: shutil.which("apt-get") is None),
    (r"needs a Python and a checkout that uid \d+ can read", _python_is_private),
)
"""What a reason may begin with, and whether this machine lacks that. Programs are missing here for no reason at all:
scripts/setup --dev installs them."""


def excused(reason: str) -> bool:
    """Whether this machine could not run a test that was skipped for *reason*."""
    return any(re.match(begins, reason) and lacks() for begins, lacks in FACTS)


def skip(reason: str) -> None:
    """Skip for *reason*, which begins with "needs"; where nothing may be skipped, fail unless the machine lacks it."""
    if os.environ.get(NO_SKIP) and not excused(reason):
        pytest.fail(f"in CI nothing is skipped that this machine could run: {reason}", pytrace=False)
    pytest.skip(reason)


def unexcused(reports: list[pytest.TestReport]) -> list[str]:
    """Skipped tests that this machine could have run, each with its reason.

    A contract says of each adapter what its server lacks, whatever the machine.
    """
    found = []
    for report in reports:
        place, _, said = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, str(report.longrepr))
        reason = said.removeprefix("Skipped: ")
        if not place.endswith(OBJECT_STORE_CONTRACT) and not excused(reason):
            found.append(f"{report.nodeid}: {reason}")
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI the run fails when a test was skipped that could have run, however it was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get(NO_SKIP) and reporter is not None and workers.common(session.config) is None:
        session.config.stash[_UNEXCUSED] = unexcused(reporter.getreports("skipped"))
        if session.config.stash[_UNEXCUSED] and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name them."""
    found = terminalreporter.config.stash.get(_UNEXCUSED, [])
    if found:
        terminalreporter.section("skipped, though this machine could have run them", red=True, bold=True)
        for line in found:
            terminalreporter.line(f"SKIPPED {line}")
