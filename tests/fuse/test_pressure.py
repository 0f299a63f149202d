"""While something in the daemon is held up, names in the same directory are made, listed and removed all the same."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from .clients import wait_until
from .harness import BASE_CONFIG, Mount

pytestmark = [pytest.mark.modeless, pytest.mark.timeout(90)]

_WAIT = """
import os, pathlib, time
def held():
    while pathlib.Path({hold!r}).exists():
        pathlib.Path({met!r}).touch()
        time.sleep(0.02)
"""
HELD_UP = {
    "the pool of staging files": """
import recfs.disk.staging
from recfs.stores.local import LocalStore
recfs.disk.staging.POOL_SIZE = 4
make = LocalStore.make_staging
LocalStore.make_staging = lambda self, ids: (held(), make(self, ids))[1]
""",
    "moves on the disk": """
from recfs.stores.local import LocalStore
apply = LocalStore.apply
LocalStore.apply = lambda self, *args, **how: (held(), apply(self, *args, **how))[1]
""",
    "the log of the catalogue": """
import recfs.catalogue.sqlite
class Os:
    def __getattr__(self, name):
        return getattr(os, name)
    def fdatasync(self, fd):
        held()
        os.fdatasync(fd)
recfs.catalogue.sqlite.os = Os()
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("reason", HELD_UP)
def test_names_go_on_while_something_is_held_up(store: Mount, outside: Path, reason: str) -> None:
    """Also with more closed files than max_pending. Nothing is measured: the hold ends only afterwards."""
    hold, met = outside / "hold", outside / "met"
    code = _WAIT.format(met=str(met), hold=str(hold)) + HELD_UP[reason]
    (outside / "sitecustomize.py").write_text(code)  # imported by every Python that has it on its path
    path = os.pathsep.join(filter(None, (str(outside), os.environ.get("PYTHONPATH"))))
    rec = store.start(config=f"{BASE_CONFIG}[commit]\nmax_pending = 2\n", env={"PYTHONPATH": path}).recording()
    for n in range(4):
        (rec / f"old{n}").write_bytes(b"bytes")
    store.drain()
    met.unlink(missing_ok=True)
    hold.touch()
    # Many at once: each has to find the directory free.
    makers = [subprocess.Popen(["sh", "-c", f": > {rec}/by{n}"]) for n in range(8)]
    with contextlib.ExitStack() as stack:
        stack.callback(hold.unlink)
        for maker in makers:
            assert maker.wait(30) == 0
        for n in range(4):
            (rec / f"new{n}").write_bytes(b"bytes")
        (rec / "dir").mkdir()
        (rec / "link").symlink_to("old0")
        os.rename(rec / "old1", rec / "moved")
        (rec / "old2").unlink()
        wait_until(met.exists, f"{reason} is held up")
        names = {*(f"by{n}" for n in range(8)), *(f"new{n}" for n in range(4)), "dir", "link", "moved", "old0", "old3"}
        assert set(os.listdir(rec)) == names
        assert (rec / "moved").stat().st_size == 5
        assert hold.exists()
    store.drain()
    assert set(os.listdir(rec)) == names
    assert (rec / "moved").read_bytes() == b"bytes"
    store.assert_consistent()
