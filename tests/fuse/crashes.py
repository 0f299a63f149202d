"""How the crash tests crash: kill the daemon at a known point of a client's work, start again, look."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from pathlib import Path

from .clients import PYTHON
from .harness import Mount


def crash(store: Mount, *open_files: int) -> None:
    """Kill the daemon, drop what the test had open, and start again."""
    store.kill()
    for fd in open_files:
        with contextlib.suppress(OSError):
            os.close(fd)
    store.remount()


def _describe(store: Mount, staged: Path) -> str:
    """Say what the label and the catalogue know of a staging file."""
    with contextlib.closing(sqlite3.connect(f"file:{store.root}/.recfs/catalogue.db?mode=ro", uri=True)) as catalogue:
        wanted = (staged.name,)
        of_node = "select ino, name, state from node join placement using (ino) where staging = ?"
        nodes = catalogue.execute(of_node, wanted).fetchall()
        garbage = catalogue.execute("select gid, path, held_by from garbage where staging = ?", wanted).fetchall()
    labels = {name: os.getxattr(staged, name) for name in os.listxattr(staged)}
    return f"{staged.name} labels={labels} node={nodes} garbage={garbage}"


def assert_recovered(store: Mount) -> None:
    """Counters are right, and every byte in staging belongs to a file that shows as incomplete."""
    store.assert_consistent()
    rows = store.call("ls_files", path="", recursive=True, state="incomplete")
    names = [row["path"] for row in rows]
    kept = [p for p in names if (store.path / p).stat().st_size > 0]
    staged = store.leftovers("staging")
    assert len(staged) <= len(kept), (
        f"bytes of nobody in staging: {[_describe(store, p) for p in staged]}; incomplete: {names}"
    )
    assert store.leftovers("trash") == []


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


def client(script: str, *args: str | Path) -> subprocess.Popen[str]:
    """Start a client that prints a line for everything the file system acknowledged."""
    argv = [*PYTHON, "import os, sys, hashlib\n" + script, *map(str, args)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def kill_during(store: Mount, process: subprocess.Popen[str], after: int) -> list[str]:
    """Kill the daemon once the client has printed `after` lines; return all lines it got to print."""
    assert process.stdout is not None
    with process:
        lines = [process.stdout.readline() for _ in range(after)]
        assert all(lines), f"the client ended too early, after {sum(map(bool, lines))} lines"
        # The dead mount stays until the client has met it: the directory below could be written to.
        store.kill(unmount=False)
        lines += process.stdout.readlines()
    store.clear()
    store.remount()
    return [line.rstrip("\n") for line in lines]
