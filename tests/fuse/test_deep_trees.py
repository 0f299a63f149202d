"""Trees deeper than a path can tell, made and removed by programs that go into them step by step."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .clients import PYTHON
from .harness import Mount

pytestmark = pytest.mark.modeless

LONG = "d" * 200
DIG = """
import os, sys
os.chdir(sys.argv[1])
for _ in range(int(sys.argv[3])):
    os.mkdir(sys.argv[2]); os.chdir(sys.argv[2])
with open("file", "w") as file:
    file.write("hello")
"""
LOOK = """
import os, sys
os.chdir(sys.argv[1])
for _ in range(int(sys.argv[3])):
    os.chdir(sys.argv[2])
print(open("file").read())
"""


def inside(script: str, folder: Path, name: str, depth: int) -> str:
    """Run a script that goes down *depth* times into *name*, in a process of its own."""
    command = [*PYTHON, script, str(folder), name, str(depth)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout.strip()


def test_paths_longer_than_path_max(mount: Mount, rec: Path, tmp_path: Path) -> None:
    inside(DIG, rec, LONG, 25)
    mount.drain()
    assert mount.call("status")["problems"] == []
    assert inside(LOOK, rec, LONG, 25) == "hello"
    mount.kill()
    mount.start()
    assert inside(LOOK, rec, LONG, 25) == "hello"
    (rec / "other" / ("e" * 250)).mkdir(parents=True)
    os.rename(rec / LONG, rec / "other" / ("e" * 250) / LONG)
    mount.drain()
    assert inside(LOOK, rec / "other" / ("e" * 250), LONG, 25) == "hello"
    subprocess.run(["rm", "-rf", rec / "other"], check=True, timeout=60)
    mount.drain()
    assert os.listdir(mount.root / rec.relative_to(mount.path)) == []
    assert mount.call("quota_check")["differences"] == []
    mount.remount()
    assert os.listdir(rec) == []


@pytest.mark.needs("rsync")
def test_deep_trees_come_with_tar_and_cp(mount: Mount, rec: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    inside(DIG, source, LONG, 19)  # what these programs themselves can do natively, below a short name
    for command in (
        ["rsync", "-a", f"{source}/", rec / "a"],
        ["cp", "-a", source, rec / "b"],
        ["bash", "-c", f"mkdir '{rec}/c' && tar -C '{source}' -cf - . | tar -C '{rec}/c' -xf -"],
    ):
        subprocess.run(command, check=True, timeout=120)
    mount.drain()
    for way in "abc":
        assert inside(LOOK, rec / way, LONG, 19) == "hello", way
    subprocess.run(["rm", "-rf", *(rec / way for way in "abc")], check=True, timeout=60)


@pytest.mark.slow
def test_a_tree_deeper_than_calls_nest(mount: Mount, rec: Path) -> None:
    depth = 1200
    inside(DIG, rec, "d", depth)
    assert inside(LOOK, rec, "d", depth) == "hello"
    mount.kill()
    mount.start()
    mount.drain()
    assert inside(LOOK, rec, "d", depth) == "hello"
    mount.remount()
    subprocess.run(["rm", "-rf", rec / "d"], check=True, timeout=120)
    (rec / "d").mkdir()
    mount.drain()
    assert os.listdir(mount.root / rec.relative_to(mount.path)) == ["d"]
    assert mount.call("quota_check")["differences"] == []
