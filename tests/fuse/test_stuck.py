"""A daemon that is killed while it tells the kernel of a change, for which the kernel waits for the daemon."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from recfs.fuse.mounting import is_stuck

from .clients import PYTHON, wait_until
from .harness import BASE_CONFIG, Mount

pytestmark = [pytest.mark.modeless, pytest.mark.slow, pytest.mark.timeout(90)]

DAEMON = """
import trio
from recfs.fs.vfs import Vfs
from recfs.fuse.kernel import PyfuseKernelCache
mkdir, init = Vfs.mkdir, PyfuseKernelCache.__init__
made = []
def kept(self):
    init(self)
    made.append(self)
PyfuseKernelCache.__init__ = kept
async def held(self, parent, name, mode, caller):
    if name == b"held":
        made[-1].forget_entry(parent, b"other", 0)  # waits for the directory, which the caller of mkdir(2) has
        await trio.sleep_forever()
    return await mkdir(self, parent, name, mode, caller)
Vfs.mkdir = held
"""


def _waits_in_the_kernel(pid: int) -> bool:
    """A thread that is about to tell the kernel something waits uninterruptibly (proc_pid_stat(5), state D)."""
    stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return any(stat.rpartition(")")[2].split()[0] == "D" for stat in stats)


def test_the_next_start_frees_a_killed_daemon_and_those_who_wait_for_it(store: Mount, outside: Path) -> None:
    (outside / "sitecustomize.py").write_text(DAEMON)  # imported by every Python that has it on its path
    path = os.pathsep.join(filter(None, (str(outside), os.environ.get("PYTHONPATH"))))
    rec = store.start(config=BASE_CONFIG, env={"PYTHONPATH": path}).recording()
    (rec / "other").mkdir()
    store.drain()
    killed = store.process
    assert killed is not None
    pid = killed.pid
    with subprocess.Popen([*PYTHON, "import os, sys; os.mkdir(sys.argv[1])", rec / "held"]) as client:
        wait_until(lambda: _waits_in_the_kernel(pid), "the notification waits for the directory")
        killed.kill()
        wait_until(lambda: is_stuck(pid), "only threads of it are left")
        assert client.poll() is None
        store.forsake()
        store.remount()
        assert client.wait(20) != 0
    assert killed.wait(20) != 0
    assert (rec / "other").is_dir()
