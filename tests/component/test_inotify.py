"""The reader of inotify's events, and the kernel's limits for it: real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from recfs.disk.watching import inotify
from tests.helpers.machine import skip

from .build import REC
from .watching import Watched

if TYPE_CHECKING:
    import pytest

_AT_THE_LIMITS = """
import os, sys
from pathlib import Path
from recfs.disk.watching.inotify import Marks, Watches, limit_of

Path("/proc/sys/user/max_inotify_watches").write_text("3")
watches = Watches(Marks(lambda: None))
opened = [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]
for number, fd in enumerate(opened):
    watches.add(number, fd)
print(len(watches), watches.limit)
watches.forget(0)
watches.limit = None  # as a scan does
for number, fd in enumerate(opened):
    watches.add(number, fd)
print(len(watches), watches.limit, watches.wants(0, os.fstat(opened[0]).st_ino))
watches.close()
Path("/proc/sys/user/max_inotify_instances").write_text("0")
try:
    Watches(Marks(lambda: None))
except OSError as error:
    print(limit_of(error))
"""


def test_the_kernels_limits_are_named(tmp_path: Path) -> None:
    unshare = ("unshare", "--user", "--map-root-user")
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        skip("needs user namespaces")
    folders = [tmp_path / str(number) for number in range(5)]
    for each in folders:
        each.mkdir()
    command = [*unshare, sys.executable, "-c", _AT_THE_LIMITS, *folders]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines() == [
        "3 fs.inotify.max_user_watches",
        "3 fs.inotify.max_user_watches False",
        "fs.inotify.max_user_instances",
    ], done.stderr


async def test_a_reader_that_failed_goes_on(
    watched: Watched, expect_log: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows what it would have told: everything is looked at. What comes later is told by events again."""
    expect_log("everything is looked at instead|left alone")
    monkeypatch.setattr(inotify, "RETRY_S", 0.01)
    scans, watches, failures = watched.watcher.scans, watched.watcher._watches, [MemoryError()]
    assert watches is not None
    mark = watches._reader.mark

    def fail_once(events: bytes) -> None:
        if failures:
            raise failures.pop()
        mark(events)

    with mock.patch.object(watches._reader, "mark", fail_once):
        os.mkfifo(watched.home / REC / "first")  # one event alone
        await watched.seen(lambda: watched.watcher.scans == scans + 1)
        await watched.seen(lambda: watched.problems())
        (watched.home / REC / "told").write_bytes(b"told")
        await watched.seen(lambda: watched.count("adopted") == 1)
    assert watched.watcher.scans == scans + 1
    assert list(watched.problems()) == [f"{REC}/first"]
    (watched.home / REC / "first").unlink()
    await watched.seen(lambda: not watched.problems())
    await watched.fs.drain()
    assert await watched.fs.read(f"{REC}/told") == b"told"
    await watched.fs.assert_consistent()
