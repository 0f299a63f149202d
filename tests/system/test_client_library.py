"""recfs.client as applications meet it: what importing it loads, its types, and the examples of its documents."""

from __future__ import annotations

import doctest
import importlib
import importlib.metadata
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from recfs import client

ROOT = Path(__file__).parents[2]
MODULES = sorted(f"recfs.client.{found.name}" for found in pkgutil.iter_modules(client.__path__))
FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL

_LOADED = """
import json, sys
before = set(sys.modules)
import recfs.client
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def python(code: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    return done.stdout


def test_importing_it_loads_nothing_but_itself_and_the_standard_library() -> None:
    loaded = json.loads(python(_LOADED))
    of_recfs = {name for name in loaded if name.split(".")[0] == "recfs"}
    assert of_recfs == {"recfs", "recfs.client"} | set(MODULES) - {"recfs.client.filesystem", "recfs.client.opened"}
    others = {name.split(".")[0] for name in loaded} - {"recfs"}
    assert {name for name in others if name not in sys.stdlib_module_names} == set()


def test_the_daemons_libraries_are_not_needed() -> None:
    """Without any of them, nor of the optional ones, it can be imported and works on asyncio."""
    code = """
import asyncio, sys, tempfile
for name in ("anyio", "fsspec", "pyfuse3", "trio", "boto3", "botocore", "pydantic", "click", "sniffio"):
    sys.modules[name] = None
from recfs.client import StorageBackend, temp_job
with tempfile.TemporaryDirectory() as root:
    backend = StorageBackend(root)
    asyncio.run(backend.save("shared/a.txt", b"works"))
    print(asyncio.run(backend.load("shared/a.txt")).decode())
"""
    assert python(code) == "works\n"


def test_another_event_loop_without_anyio_says_what_is_missing() -> None:
    code = """
import sys, trio
sys.modules["anyio"] = None
from recfs.client import ExtraMissing, facts_async
try:
    trio.run(facts_async, "/etc/passwd")
except ExtraMissing as error:
    print(error)
"""
    assert "recfs[client]" in python(code)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_modules(name: str, tmp_path: Path) -> None:
    """Each example has a directory of its own, with a small file in it."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for number, test in enumerate(finder.find(importlib.import_module(name))):
        folder = tmp_path / str(number)
        folder.mkdir()
        if name.endswith("file_facts"):
            (folder / "video.mp4").write_bytes(b"hello")
        test.globs["folder"] = folder
        runner.run(test)
    assert runner.failures == 0


def test_enough_has_an_example() -> None:
    """Those of `recfs.client` that are called have one, but for what needs a daemon or is shown with its other half."""
    without = {
        name
        for name in client.__all__
        if callable(getattr(client, name)) and ">>>" not in (getattr(client, name).__doc__ or "")
    }
    errors = {name for name in without if isinstance(getattr(client, name), type)} - {"events"}
    assert without - errors == {
        "events", "default_root", "facts_async", "wait_committed_async", "note_upload", "noted_upload",
    }  # fmt: skip


def test_examples_of_the_guide(tmp_path: Path) -> None:
    failed, tried = doctest.testfile(
        str(ROOT / "docs" / "client.md"), module_relative=False, optionflags=FLAGS, globs={"root": tmp_path}
    )
    assert failed == 0
    assert tried > 20


EXAMPLE = """
import asyncio
from pathlib import Path

from recfs.client import Facts, StorageBackend, StoragePathBuilder, Upload, atomic_write, events, facts, next_version
from recfs.client import sanitize_name, temp_job, wait_committed


async def take(root: Path, name: str, data: bytes) -> str:
    paths = StoragePathBuilder()
    backend = StorageBackend(root, s3_url="s3://bucket")
    url: str = await backend.save(paths.asset(5, 142, sanitize_name(name)), data, upload=Upload(name))
    async with atomic_write(root / url) as file:
        await file.write(data)
    async with temp_job(5, root=root) as job:
        (job / "a").write_bytes(data)
    async for event in events(root, kinds=["committed"]):
        print(event.cursor, event.path)
    return url


def rest(root: Path) -> Facts:
    with next_version(root, "topics") as version:
        version.file.write(b"[]")
    with atomic_write(root / "a", verify=lambda path: path.stat().st_size) as file:
        file.write(b"x")
    for event in events(root, follow=False):
        print(event.kind)
    duration = facts(root / "a").media.get("duration_s", 0)
    print(duration, version.path.name)
    return wait_committed(root / "a", 5)


asyncio.run(take(Path("/mnt"), "a", b""))
"""


@pytest.mark.slow
def test_types_hold_for_applications(tmp_path: Path) -> None:
    """A program that uses it passes mypy --strict, and one that uses it wrongly does not: its types are known."""
    (tmp_path / "right.py").write_text(EXAMPLE)
    (tmp_path / "wrong.py").write_text("from recfs.client import facts\nnumber: int = facts('a').sha256\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "right.py", "wrong.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
        env=os.environ | {"MYPYPATH": str(ROOT)},
    )  # fmt: skip
    told = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(told) == 1, done.stdout + done.stderr
    assert told[0].startswith("wrong.py:2: error: Incompatible types in assignment"), told


def test_fsspec_finds_it_by_its_entry_point() -> None:
    found = {each.name: each.value for each in importlib.metadata.entry_points(group="fsspec.specs")}
    assert found["recfs"] == "recfs.client.filesystem:RecfsFileSystem"


def test_the_marker_of_types_is_there() -> None:
    assert os.path.exists(ROOT / "recfs" / "py.typed")
