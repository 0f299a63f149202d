"""Files that only S3 has, read by programs: right bytes, few requests, one download for all, none for a listing."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest

from .clients import output, pattern, python_client, run, sha256, state, wait_until, xattr
from .harness import Mount
from .s3 import GET, MIB, S3, evict, settle, standing
from .s3 import s3 as own_s3
from .s3 import shared_far as far
from .s3 import shared_s3 as s3

__all__ = ["far", "own_s3", "s3", "standing"]

BIG = pattern(24 * MIB + 777, seed=5)


@pytest.fixture
def big(s3: S3, far: Mount) -> Path:
    """A large file that is not here; what recfs asks from now on is for reading it.

    It is no recording, and not called one: that would be broken, and not uploaded.
    """
    path = far.recording() / "source.bin"
    path.write_bytes(BIG)
    settle(far)
    return path


def ranges(s3: S3, since: int = 0) -> list[tuple[int, int]]:
    """(first, last) byte of all ranged GETs."""
    found = []
    for request in s3.asked(GET)[since:]:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers["range"])
        assert wanted
        found.append((int(wanted[1]), int(wanted[2])))
    return found


def assert_nothing_twice(s3: S3) -> None:
    """No byte was asked for more than once."""
    asked = sorted(ranges(s3))
    assert all(before[1] < after[0] for before, after in itertools.pairwise(asked)), asked


def test_cat(s3: S3, far: Mount, big: Path) -> None:
    """In all modes: who moves the bytes changes while the file is open."""
    assert run("cat", big).stdout == BIG
    assert_nothing_twice(s3)
    wait_until(lambda: state(big) == "stored", "it is here")
    far.drain()
    assert far.home(big).read_bytes() == BIG
    asked = len(s3.asked())
    assert run("cat", big).stdout == BIG
    assert len(s3.asked()) == asked


@pytest.mark.smoke
def test_write_and_read_and_evict_in_all_modes(s3: S3, far: Mount) -> None:
    rec = far.recording()
    small, large = rec / "small", rec / "large"
    for round_ in range(2):
        for path, size in ((small, 5000), (large, 12 * MIB)):
            path.write_bytes(pattern(size, seed=round_))
        settle(far)
        for path, size in ((small, 5000), (large, 12 * MIB)):
            assert xattr(path, "location") == "s3"
            assert path.read_bytes() == pattern(size, seed=round_)
    with small.open("ab") as file:
        file.write(b"more")
    far.drain()
    assert s3.data(far.inner(small)) == small.read_bytes() == pattern(5000, seed=1) + b"more"


@pytest.mark.modeless
def test_dd_with_skip_fetches_what_it_needs(s3: S3, far: Mount, big: Path) -> None:
    there = run("dd", f"if={big}", "bs=64k", "skip=240", "count=4", "status=none").stdout
    assert there == BIG[240 * 65536 : 244 * 65536]
    wait_until(lambda: not far.status()["open_files"], "it is closed")
    fetched = sum(last - first + 1 for first, last in ranges(s3))
    assert fetched < 10 * MIB, f"{fetched} bytes for 256 KiB"
    assert xattr(big, "location") == "partial,s3"
    assert run("tail", "-c", "1000", big).stdout == BIG[-1000:]
    assert big.read_bytes() == BIG
    assert_nothing_twice(s3)


@pytest.mark.modeless
def test_two_readers_share_one_download(s3: S3, far: Mount, big: Path) -> None:
    found: Counter[str] = Counter()

    def read() -> None:
        found[sha256(run("cat", big).stdout)] += 1

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert found == {sha256(BIG): 2}
    assert_nothing_twice(s3)
    assert sum(last - first + 1 for first, last in ranges(s3)) == len(BIG)


@pytest.mark.modeless
@pytest.mark.parametrize("offset", [0, 17 * MIB + 5])
def test_the_first_byte_of_a_cold_file_takes_two_round_trips_at_most(
    s3: S3, far: Mount, big: Path, offset: int
) -> None:
    """Opening and reading, all answers being held back until nothing else can happen without them."""
    asked = len(s3.asked())
    with s3.holding(lambda request: True) as gate:
        reader = subprocess.Popen(
            ["dd", f"if={big}", "iflag=skip_bytes", f"skip={offset}", "bs=1", "count=1", "status=none"],
            stdout=subprocess.PIPE,
        )
        rounds = 0
        with reader:
            while reader.poll() is None:
                if wait_until(lambda: gate.waiting or reader.poll() is not None, "the byte, or a request") and (
                    gate.waiting
                ):
                    rounds += 1
                    assert rounds <= 2, [(each.method, each.target) for each in s3.asked()[asked:]]
                    gate.let_through()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        reader.wait(0.5)
            assert reader.stdout is not None
            assert reader.stdout.read() == BIG[offset : offset + 1]
        assert rounds >= 1, "it was to come from S3"


@pytest.mark.modeless
def test_a_player_that_seeks_about(s3: S3, big: Path) -> None:
    fd = os.open(big, os.O_RDONLY)
    try:
        for offset in (20 * MIB, 0, 11 * MIB + 1, 20 * MIB + 100_000, len(BIG) - 10, 5 * MIB):
            assert os.pread(fd, 100_000, offset) == BIG[offset : offset + 100_000]
        assert os.pread(fd, 10, len(BIG)) == b""
        assert os.lseek(fd, 0, os.SEEK_END) == len(BIG)
    finally:
        os.close(fd)
    assert_nothing_twice(s3)


@pytest.mark.modeless
def test_a_cold_file_is_mapped(far: Mount, big: Path) -> None:
    script = """
import hashlib, mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
    with mmap.mmap(fd, 0, flags=flags, prot=mmap.PROT_READ) as view:
        print(view[20_000_000:20_000_010].hex(), hashlib.sha256(view).hexdigest())
"""
    wanted = f"{BIG[20_000_000:20_000_010].hex()} {sha256(BIG)}"
    assert python_client(script, big).split("\n")[:2] == [wanted, wanted]


@pytest.mark.modeless
def test_a_cold_file_that_is_removed_while_it_is_open(s3: S3, far: Mount, big: Path) -> None:
    """It is read to its end; its object goes with the last close."""
    fd = os.open(big, os.O_RDONLY)
    try:
        assert os.pread(fd, 1000, 0) == BIG[:1000]
        big.unlink()
        with pytest.raises(OSError, match=r"Stale|Input/output|No such"):
            os.open(f"/proc/self/fd/{fd}", os.O_RDWR)  # its bytes are not to be had again
        assert b"".join(os.pread(fd, MIB, offset) for offset in range(0, len(BIG), MIB)) == BIG
    finally:
        os.close(fd)
    wait_until(lambda: not s3.paths(), "the object is gone")


@pytest.mark.modeless
def test_a_reader_of_a_file_that_is_being_uploaded_reads_it_here(s3: S3, far: Mount) -> None:
    path = far.recording() / "file"
    with s3.holding(lambda request: request.method == "PUT") as gate:
        path.write_bytes(BIG)
        wait_until(lambda: gate.waiting, "the upload is under way")
        assert state(path) == "uploading"
        assert path.read_bytes() == BIG
        assert s3.asked(GET) == []
    far.drain()
    assert state(path) == "stored"


@pytest.mark.needs("ffmpeg", "ffprobe")
@pytest.mark.modeless
def test_ffprobe_and_a_remux_of_a_cold_file(own_s3: S3, store: Mount, outside: Path) -> None:
    s3 = own_s3
    store.start(config=s3.config(cache={"fetch_whole_below": 65536, "read_ahead_max": MIB}))
    quiet = ["ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "error", "-y"]
    native = outside / "source.mp4"
    source = "testsrc2=size=640x360:rate=25:duration=8"
    run(*quiet, "-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast", "-crf", "4", native)
    assert native.stat().st_size > 3 * MIB
    path = store.recording() / "source.mp4"
    run("cp", native, path)
    settle(store)
    probe = ["ffprobe", "-loglevel", "error", "-of", "json", "-show_streams", "-show_entries", "format=duration,size"]
    assert output(*probe, path) == output(*probe, native).replace(str(native), str(path))
    settle(store)
    remuxed = store.recording() / "out.mkv"
    run(*quiet, "-i", path, "-c", "copy", remuxed)
    hashes = ["-map", "0", "-c", "copy", "-f", "hash", "-"]
    wanted = output(*quiet, "-i", native, *hashes)
    assert output(*quiet, "-i", remuxed, *hashes) == wanted
    settle(store)
    assert output(*quiet, "-i", remuxed, *hashes) == wanted
    assert s3.asked(GET)


@pytest.mark.modeless
def test_looking_costs_no_request(s3: S3, far: Mount) -> None:
    """ls, du, find, stat and attributes of stored and evicted files, warm and after a start."""
    for number in range(60):
        path = far.recording(user=number % 3, recording=number % 4) / "a" / f"file{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pattern(number * 100, seed=number))
    far.drain()
    evict(far, far.path / "users/1")
    for _ in range(2):
        asked = len(s3.asked())
        listed = output("ls", "-lR", far.path)
        assert listed.count("file") == 60
        used = int(output("du", "-sb", "--apparent-size", far.path / "users").split()[0])
        assert used >= sum(number * 100 for number in range(60))
        assert output("find", far.path, "-type", "f", "-size", "+0").count("file") == 59
        for path in far.path.rglob("file*"):
            assert xattr(path, "sha256")
            assert xattr(path, "location") == ("s3" if "users/1/" in str(path) else "local,s3")
        assert far.call("ls_files", path="", recursive=True, state=None)
        assert far.status()["s3"]["problem"] is None
        assert len(s3.asked()) == asked, s3.asked()[asked:]
        far.remount()
