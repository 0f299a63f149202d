"""A program that is killed in the moment its call has returned: what it was told holds (docs/semantics.md, 7.18)."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from .clients import PYTHON, need_root, pattern, state
from .harness import Mount

CONTENT = pattern(300_000, seed=1)
SCRIPT = """
import os, signal, sys
call, rec, user = sys.argv[1:]
content = sys.stdin.buffer.read()
if call in ("write", "fsync", "close"):
    fd = os.open(rec + "/new", os.O_WRONLY | os.O_CREAT)
    done = 0
    while done < len(content):
        done += os.write(fd, content[done:])
    if call == "fsync":
        os.fsync(fd)
    elif call == "close":
        os.close(fd)
elif call == "rename":
    os.rename(rec + "/old", rec + "/new")
elif call == "unlink":
    os.unlink(rec + "/old")
elif call == "setxattr":
    os.setxattr(rec + "/old", "user.a", b"1")
elif call == "quota":
    os.setxattr(user, "user.recfs.quota.max_files", b"77")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("call", ["write", "fsync", "close", "rename", "unlink", "setxattr", "quota"])
def test_a_program_that_is_killed(mount: Mount, rec: Path, call: str) -> None:
    """The kernel closes its files: what it wrote is sealed as it is; everything else is done, and stays."""
    if call == "quota":
        need_root()
    (rec / "old").write_bytes(CONTENT)
    mount.drain()
    user = rec.parents[1]
    done = subprocess.run([*PYTHON, SCRIPT, call, str(rec), str(user)], input=CONTENT, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    mount.drain()
    names = sorted(os.listdir(rec))
    if call in ("write", "fsync", "close"):
        assert names == ["new", "old"]
    else:
        assert names == {"rename": ["new"], "unlink": []}.get(call, ["old"])
    for name in names:
        assert (rec / name).read_bytes() == CONTENT
        assert state(rec / name) == "committed"
    if call == "setxattr":
        assert os.getxattr(rec / "old", "user.a") == b"1"
    elif call == "quota":
        assert os.getxattr(user, "user.recfs.quota.max_files") == b"77"
