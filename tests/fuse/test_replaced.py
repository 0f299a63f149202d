"""Names that change their meaning while others use them: every open finds the old version or the new one."""

from __future__ import annotations

import ast
import os
from collections import Counter
from pathlib import Path

import pytest

from .clients import python_client
from .harness import Mount

pytestmark = pytest.mark.modes("auto", "off")

CLIENTS = """
import collections, ctypes, multiprocessing as mp, os, sys, time
folder, how, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
name, other = folder + "/name", folder + "/other"
end = time.monotonic() + seconds
libc = ctypes.CDLL(None, use_errno=True)

def version(number, path):
    with open(path, "wb") as file:
        file.write(b"%08d" % number * 512)

def replace():
    number = 0
    while time.monotonic() < end:
        number += 1
        if how == "directories":
            os.mkdir(other)
            os.rename(other, name)
            continue
        if os.path.exists(other):
            os.unlink(other)  # others may have it open still
        version(number, other)
        if how == "exchange":
            assert not libc.renameat2(-100, other.encode(), -100, name.encode(), 2), os.strerror(ctypes.get_errno())
        elif how == "unlink":
            os.unlink(name)
            os.rename(other, name)
        else:
            os.rename(other, name)

def judge(data):
    return "whole" if len(data) == 4096 and data == data[:8] * 512 else f"torn ({len(data)} bytes)"

def read():
    with open(name, "rb") as file:
        return judge(file.read())

def update():
    fd = os.open(name, os.O_RDWR)
    found = judge(os.pread(fd, 5000, 0))
    os.close(fd)
    return found

def attributes():
    fd = os.open(name, os.O_PATH)
    try:
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    except FileNotFoundError:  # O_PATH holds no bytes: those of the replaced file may be gone by now
        os.close(fd)
        return "gone"
    found = judge(os.read(again, 5000)) if os.stat(name).st_size == 4096 == os.fstat(fd).st_size else "size"
    os.close(fd)
    os.close(again)
    return found

def listing():
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
    found = "whole" if not os.listdir(fd) and not os.listdir(name) and os.fstat(fd).st_nlink in (0, 1) else "wrong"
    os.close(fd)
    os.stat(name)
    return found

def client(act, told):
    seen = collections.Counter()
    while time.monotonic() < end:
        try:
            seen[act()] += 1
        except FileNotFoundError as error:
            seen["absent" if how == "unlink" else str(error)] += 1
        except OSError as error:
            seen[f"{act.__name__}: {error}"] += 1
    told.put(seen)

acts = [listing, listing] if how == "directories" else [read, read, update, attributes]
if how == "directories":
    os.mkdir(name)
else:
    version(0, name)
told = mp.Queue()
processes = [mp.Process(target=client, args=(act, told)) for act in acts]
replacer = mp.Process(target=replace)
for one in (*processes, replacer):
    one.start()
total = sum((told.get(timeout=seconds + 30) for _ in acts), collections.Counter())
for one in (*processes, replacer):
    one.join()
assert not replacer.exitcode
print(dict(total))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["rename", "exchange", "unlink", "directories"])
def test_every_open_finds_the_old_version_or_the_new_one(mount: Mount, rec: Path, how: str) -> None:
    seen = Counter(ast.literal_eval(python_client(CLIENTS, rec, how, "2.5")))
    assert set(seen) <= {"whole", "absent", "gone"}, seen
    assert seen["absent"] == 0 or how == "unlink"
    assert seen["whole"]
    mount.drain()


@pytest.mark.slow
def test_truncating_writers_of_a_name_that_is_replaced(mount: Mount, rec: Path) -> None:
    """O_TRUNC, O_APPEND and truncate(2): each reaches one version."""
    script = """
import multiprocessing as mp, os, sys, time
name, end = sys.argv[1] + "/name", time.monotonic() + 2.5

def replace():
    while time.monotonic() < end:
        with open(name + ".new", "wb") as file:
            file.write(b"x" * 4096)
        os.rename(name + ".new", name)

def write(act):
    while time.monotonic() < end:
        if act == "truncate":
            os.truncate(name, 17)
        else:
            fd = os.open(name, os.O_WRONLY | (os.O_TRUNC if act == "empty" else os.O_APPEND))
            os.write(fd, b"y")
            os.close(fd)

open(name, "wb").close()
all = [mp.Process(target=replace)] + [mp.Process(target=write, args=(act,)) for act in ("truncate", "empty", "append")]
for one in all:
    one.start()
for one in all:
    one.join()
print([one.exitcode for one in all])
"""
    assert python_client(script, rec) == "[0, 0, 0, 0]\n"
    mount.drain()
    assert mount.info(rec / "name")["state"] == "committed"


def test_an_open_directory_that_was_replaced_has_attributes(rec: Path) -> None:
    """fstat(2), a listing, and no new names in it."""
    (rec / "old").mkdir()
    (rec / "new").mkdir()
    fd = os.open(rec / "old", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.rename(rec / "new", rec / "old")
        found = os.fstat(fd)
        assert found.st_nlink == 0
        assert found.st_ino != (rec / "old").stat().st_ino
        assert os.listdir(fd) == []
        with pytest.raises(FileNotFoundError):
            os.mkdir("name", dir_fd=fd)
    finally:
        os.close(fd)
