"""Files the kernel reads and writes by itself: what is seen of them at once, what is committed in the end.

Nothing here depends on the mode, but for what `recfs status` says. What programs do with them beyond that is in
test_passthrough_programs.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.userns import has_sys_admin

from .clients import Peer, as_user, need_root, pattern, sha256, sha256_of, state, wait_until, xattr
from .harness import Mount

MIB = 1 << 20
TICK_NS = 20_000_000
"""More than the coarsest step of a file system's clock."""
CREATE = os.O_RDWR | os.O_CREAT
UID = 12345


def opened(mount: Mount, file: Path) -> dict[str, Any]:
    """What status says of an open file."""
    (entry,) = (entry for entry in mount.status()["open_files"] if entry["path"] == mount.inner(file))
    return dict(entry)


def commit(mount: Mount, file: Path, content: bytes) -> None:
    """Prove that a closed file is committed, with these bytes at home and the right checksum."""
    mount.drain()
    assert state(file) == "committed"
    assert file.stat().st_size == len(content)
    assert sha256_of(file) == sha256(content) == sha256_of(mount.home(file)) == xattr(file, "sha256")


def written(mount: Mount, file: Path, content: bytes) -> None:
    """Make a committed file."""
    file.write_bytes(content)
    commit(mount, file, content)


# --- what status says ------------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_status_tells_what_the_kernel_does(mount: Mount, passthrough: str) -> None:
    told = mount.status()["passthrough"]
    possible = has_sys_admin()
    assert told["wanted"] == passthrough
    assert told["reads"] is (possible and passthrough != "off"), "no silent way back to the slow path"
    assert told["writes"] is (possible and passthrough == "auto")
    assert told["open_flags"], "the extension is part of a complete installation"
    assert told["interrupts"]
    assert told["killpriv"]
    if possible or passthrough == "off":
        assert told["why_not"] is None
    else:
        assert "CAP_SYS_ADMIN" in told["why_not"]
        assert f"kernel passthrough: off: {told['why_not']}" in mount.log(), "the log says so, too"


def test_status_counts_the_opens_of_a_file(mount: Mount, rec: Path, passthrough: str) -> None:
    told = mount.status()["passthrough"]
    file = rec / "file"
    with file.open("wb"), file.open("rb"), file.open("rb"):
        entry = opened(mount, file)
        assert (entry["writers"], entry["readers"], entry["state"]) == (1, 2, "writing")
        assert entry["passthrough"] == (3 if told["writes"] else 0)
    written(mount, file, b"x")
    with file.open("rb"):
        assert opened(mount, file)["passthrough"] == (1 if told["reads"] else 0)
        with file.open("r+b"):  # one that is asked at each write, beside a reader that is not
            assert opened(mount, file)["passthrough"] == (2 if told["reads"] else 0)


# --- mappings --------------------------------------------------------------------------------------------------------


def test_a_growing_mapping_and_a_writer_see_each_other(place: Path) -> None:
    file = place / "file"
    with Peer() as mapper, Peer() as writer:
        mapper.open(file, CREATE)
        writer.open(file, os.O_RDWR)
        expected = bytearray()
        for turn in range(1, 5):
            start, end = len(expected), turn * 100_000
            expected.extend(bytes(end - start))
            mapper(f"os.ftruncate(fd, {end})")
            mapper(f"view = mmap.mmap(fd, {end})")
            mapper(f"view[{start}:{start + 6}] = b'mapped'")
            assert writer(f"os.pread(fd, 6, {start})") == b"mapped"
            assert writer("os.fstat(fd).st_size") == end == file.stat().st_size
            writer(f"os.pwrite(fd, b'written', {start + 50_000})")
            assert mapper(f"view[{start + 50_000}:{start + 50_007}]") == b"written"
            mapper("view.flush()")
            expected[start : start + 6], expected[start + 50_000 : start + 50_007] = b"mapped", b"written"
        for peer in (mapper, writer):
            peer("os.close(fd)")
        mapper("view[-3:] = b'end'")  # it has a descriptor of its own
        mapper("view.close()")
        expected[-3:] = b"end"
    assert sha256_of(file) == sha256(bytes(expected))


def test_what_a_mapping_wrote_is_committed(mount: Mount, rec: Path) -> None:
    written(mount, rec / "file", bytes(50_000))
    with Peer() as mapper:
        mapper.open(rec / "file", os.O_RDWR)
        mapper("os.ftruncate(fd, 100_000)")
        mapper("view = mmap.mmap(fd, 0)")
        mapper("view[0:3] = b'one'")
        mapper("os.close(fd)")
        assert state(rec / "file") == "writing"
        mapper("view[90_000:90_003] = b'two'")
        mapper("view.close()")
    commit(mount, rec / "file", b"one" + bytes(89_997) + b"two" + bytes(9_997))


@pytest.mark.parametrize("fresh", [True, False], ids=["new", "committed before"])
def test_a_mapping_that_outlives_its_descriptor(mount: Mount, rec: Path, fresh: bool) -> None:
    """As of linkers: open, map, close, write. No `committed` file may change under its checksum."""
    file = rec / "file"
    if not fresh:
        written(mount, file, bytes(100_000))
    with Peer() as mapper:
        mapper.open(file, CREATE)
        mapper("os.ftruncate(fd, 100_000)")
        mapper("view = map_shared(fd, 100_000)")
        mapper("os.close(fd)")
        mount.call("drain", timeout_s=1.0)  # a chance to commit it too early
        mapper("view[0:3] = b'one'")
        mapper("unmap(view)")
    wait_until(lambda: state(file) == "committed", "it is committed", 40)
    commit(mount, file, b"one" + bytes(99_997))


def test_a_checked_writer_maps_a_file_with_readers(mount: Mount, user: Path, rec: Path) -> None:
    """Near its limit a writer is asked at each write; the mapping it makes goes past that all the same."""
    written(mount, rec / "file", bytes(50_000))
    os.setxattr(user, "user.recfs.quota.max_bytes", b"100000")
    with (rec / "file").open("rb") as reader, Peer() as mapper:
        mapper.open(rec / "file", os.O_RDWR)
        mapper("view = mmap.mmap(fd, 0)")
        mapper("view[100:106] = b'mapped'")
        assert os.pread(reader.fileno(), 6, 100) == b"mapped"
        mapper("os.close(fd), view.close()")
    commit(mount, rec / "file", bytes(100) + b"mapped" + bytes(49_894))


# --- sizes, times, truncation ----------------------------------------------------------------------------------------


def test_size_and_time_are_right_at_once(place: Path) -> None:
    file = place / "file"
    with Peer() as writer:
        writer.open(file, CREATE)
        os.stat(file)  # so that the kernel has something to remember
        for turn in range(1, 4):
            before = time.time_ns()
            writer(f"os.write(fd, bytes({turn} * 1000))")
            seen = file.stat()
            assert seen.st_size == sum(range(turn + 1)) * 1000
            assert before - TICK_NS <= seen.st_mtime_ns <= time.time_ns() + TICK_NS
            assert seen.st_ctime_ns >= before - TICK_NS
            wait_until(lambda before=before: time.time_ns() > before + 2 * TICK_NS, "the clock ticks")
        last = file.stat()
        writer("os.pwrite(fd, b'the same size', 0)")
        assert file.stat().st_mtime_ns > last.st_mtime_ns
        assert file.stat().st_size == last.st_size
        writer("os.close(fd)")


def test_times_set_after_writing_stay(place: Path) -> None:
    """rsync and cp -p: write, set the time, close."""
    file = place / "file"
    then = 1_600_000_000_123_456_789
    with Peer() as writer:
        writer.open(file, CREATE)
        writer("os.write(fd, bytes(100_000))")
        writer(f"os.utime(fd, ns=({then}, {then}))")
        assert file.stat().st_mtime_ns == then
        writer("os.close(fd)")
        assert (file.stat().st_mtime_ns, file.stat().st_size) == (then, 100_000)


def test_times_set_after_writing_are_committed(mount: Mount, rec: Path) -> None:
    then = 1_600_000_000_123_456_789
    with Peer() as writer:
        writer.open(rec / "file", CREATE)
        writer(f"os.write(fd, b'x'), os.utime(fd, ns=({then}, {then})), os.close(fd)")
    commit(mount, rec / "file", b"x")
    assert (rec / "file").stat().st_mtime_ns == then == mount.home(rec / "file").stat().st_mtime_ns


@pytest.mark.parametrize("first", ["reader", "writer"])
def test_truncating_under_writers_and_readers(place: Path, first: str) -> None:
    file = place / "file"
    file.write_bytes(pattern(100_000))
    with Peer() as one, Peer() as other:
        reader, writer = (one, other) if first == "reader" else (other, one)
        flags = {reader: os.O_RDONLY, writer: os.O_RDWR}
        for peer in (one, other):
            peer.open(file, flags[peer])
        assert writer("os.lseek(fd, 0, os.SEEK_END)") == 100_000
        os.truncate(file, 40_000)
        assert reader("len(os.pread(fd, 200_000, 0))") == 40_000 == reader("os.fstat(fd).st_size")
        writer("os.write(fd, b'after a hole')")
        assert reader("os.pread(fd, 200_000, 0)") == pattern(40_000) + bytes(60_000) + b"after a hole"
        writer("os.ftruncate(fd, 150_000)")
        assert reader("os.pread(fd, 200_000, 100_000)") == b"after a hole" + bytes(49_988)
        with file.open("wb") as third:  # O_TRUNC
            assert reader("os.pread(fd, 10, 0)") == b""
            assert file.stat().st_size == 0
            third.write(b"third")
        writer("os.pwrite(fd, b'writer', 5)")
        assert reader("os.pread(fd, 100, 0)") == b"thirdwriter"
        os.truncate(file, 8)
        assert writer("os.fstat(fd).st_size") == 8
    assert file.read_bytes() == b"thirdwri"


@pytest.mark.parametrize("size", [0, 30_000, 150_000])
def test_truncating_a_committed_file_that_is_being_read(mount: Mount, rec: Path, size: int) -> None:
    file = rec / "file"
    written(mount, file, pattern(100_000))
    expected = pattern(100_000)[:size] + bytes(max(0, size - 100_000))
    with file.open("rb") as reader:
        assert os.pread(reader.fileno(), 200_000, 0) == pattern(100_000)
        os.truncate(file, size)
        assert os.pread(reader.fileno(), 200_000, 0) == expected
        commit(mount, file, expected)
        assert os.pread(reader.fileno(), 200_000, 0) == expected
    assert int(xattr(rec, "rbytes")) == size
    assert mount.leftovers("staging") == []


def test_overwriting_a_committed_file_that_is_being_read(mount: Mount, rec: Path) -> None:
    file = rec / "file"
    written(mount, file, pattern(100_000))
    with file.open("rb") as reader:
        file.write_bytes(pattern(5_000, seed=1))
        assert os.pread(reader.fileno(), 200_000, 0) == pattern(5_000, seed=1)
        commit(mount, file, pattern(5_000, seed=1))
    assert mount.leftovers("staging") == mount.leftovers("trash") == []


# --- readers and writers of one file ---------------------------------------------------------------------------------


def test_a_reader_follows_a_writer_near_its_limit(mount: Mount, user: Path, rec: Path) -> None:
    """The reader was there first, so the kernel reads; the writer is asked at each write."""
    file = rec / "file"
    written(mount, file, b"begun ")
    os.setxattr(user, "user.recfs.quota.max_bytes", b"1000")
    with file.open("rb") as reader, Peer() as writer:
        writer.open(file, os.O_RDWR | os.O_APPEND)
        for turn in range(1, 4):
            writer("os.write(fd, bytes(100))")
            assert os.pread(reader.fileno(), 1000, 0) == b"begun " + bytes(turn * 100)
            assert file.stat().st_size == 6 + turn * 100 == int(xattr(user, "quota.used_bytes"))
        assert writer("os.write(fd, bytes(900))") == 694, "exact to the byte"
        with pytest.raises(OSError, match="quota"):
            writer("os.write(fd, b'x')")
    commit(mount, file, b"begun " + bytes(994))


def test_opening_for_writing_alone_changes_nothing(mount: Mount, rec: Path) -> None:
    """Tools that only touch(1) or probe a file do not make recfs hash it again."""
    file = rec / "file"
    written(mount, file, pattern(100_000))
    long_ago = time.time_ns() - 10**12
    os.utime(mount.home(file), ns=(long_ago, long_ago))
    before = mount.home(file).stat().st_ino
    with file.open("r+b") as stream:
        assert stream.read() == pattern(100_000)
    wait_until(lambda: state(file) in ("committed", "sealing"), "its close is noticed")
    wait_until(lambda: state(file) == "committed", "the daemon hears of the close")
    commit(mount, file, pattern(100_000))
    assert mount.home(file).stat().st_ino == before


def test_readers_while_a_file_is_being_sealed(mount: Mount, rec: Path) -> None:
    file = rec / "file"
    content = pattern(24 * MIB)
    read = "hashlib.sha256(os.pread(fd, 1 << 30, 0)).hexdigest()"
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(Peer()) for _ in range(3)]
        with file.open("wb") as stream:
            stream.write(content)
            readers[0].open(file, os.O_RDONLY)
        for peer in readers[1:]:
            peer.open(file, os.O_RDONLY)
        for peer in readers:
            peer("import hashlib")
            peer.send(read)
        assert [peer.answer() for peer in readers] == [sha256(content)] * 3
        mount.drain()
        assert xattr(file, "sha256") == sha256(content)
        assert [peer(read) for peer in readers] == [sha256(content)] * 3
    wait_until(mount.home(file).exists, "it comes home when its last reader is gone")
    commit(mount, file, content)


# --- whose bytes, whose bits -----------------------------------------------------------------------------------------


def test_charges_follow_a_file_that_moves_while_it_is_written(mount: Mount, user: Path, rec: Path) -> None:
    other = mount.path / "users" / f"{user.name}0"
    target = other / "recordings" / "1"
    target.mkdir(parents=True)

    def used() -> tuple[str, str]:
        return xattr(user, "quota.used_bytes"), xattr(other, "quota.used_bytes")

    with Peer() as writer:
        writer.open(rec / "file", CREATE)
        writer("os.write(fd, bytes(60_000))")
        assert used() == ("60000", "0")
        writer("os.write(fd, bytes(40_000))")
        os.rename(rec / "file", target / "file")
        writer("os.write(fd, bytes(50_000))")
        assert used() == ("0", "150000")
        assert (target / "file").stat().st_size == 150_000
        (target / "file").unlink()
        writer("os.write(fd, bytes(50_000))")
        assert writer("os.fstat(fd).st_size") == 200_000
        assert used() == ("0", "0")
    mount.assert_consistent()
    assert mount.leftovers("staging") == []


def test_a_writer_goes_on_while_its_recording_moves(mount: Mount, user: Path, rec: Path) -> None:
    with Peer() as writer:
        writer.open(rec / "file", CREATE)
        writer("os.write(fd, b'one ')")
        os.rename(rec, user / "recordings" / "2")
        writer("os.write(fd, b'two')")
    commit(mount, user / "recordings" / "2" / "file", b"one two")


def test_set_user_id_goes_with_the_next_byte(place: Path) -> None:
    """Given to a file that somebody has open for writing: the kernel may be writing without asking."""
    need_root()
    file = place / "tool"
    file.write_bytes(b"#!/bin/sh\n")
    file.chmod(0o777)
    place.chmod(0o755)
    with Peer(UID) as writer:
        writer.open(file, os.O_WRONLY | os.O_APPEND)
        writer("os.write(fd, b'harmless')")
        file.chmod(0o6777)
        assert stat.S_IMODE(file.stat().st_mode) == 0o6777
        writer("os.write(fd, b'evil')")
        assert stat.S_IMODE(file.stat().st_mode) == 0o777
        file.chmod(0o6777)
        writer("os.ftruncate(fd, 3)")
        assert stat.S_IMODE(file.stat().st_mode) == 0o777
    file.chmod(0o6777)
    with Peer(UID) as writer:
        writer.open(file, os.O_WRONLY)
        assert stat.S_IMODE(file.stat().st_mode) == 0o6777, "opening changes nothing yet"
        writer("os.write(fd, b'evil')")
        assert stat.S_IMODE(file.stat().st_mode) == 0o777
    file.chmod(0o6777)
    as_user(UID, ["sh", "-c", f": > {file}"])  # O_TRUNC
    assert stat.S_IMODE(file.stat().st_mode) == 0o777


def test_chown_clears_set_user_id(place: Path) -> None:
    need_root()
    file = place / "tool"
    with file.open("wb", buffering=0) as stream:
        file.chmod(0o6777)
        os.chown(file, UID, UID)
        assert stat.S_IMODE(file.stat().st_mode) == 0o777
        stream.write(b"x")
    assert stat.S_IMODE(file.stat().st_mode) == 0o777
