"""Nothing is lost: what was written through the mount is in S3, every byte of it, whatever died on the way there."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.chaos_faults import Request

from .clients import pattern, sha256, sha256_of, state, wait_until, xattr
from .harness import Mount
from .s3 import MIB, PART, S3, UPLOAD, Match, evict, far, s3

__all__ = ["far", "s3"]

pytestmark = [pytest.mark.modeless, pytest.mark.timeout(150)]

LARGE = 2 * PART + 12_345
SIZES = [LARGE, 0, 1, 4095, 4096, 4097, 131_072, 1_000_003, 3 * MIB, 3 * MIB + 1]
Files = dict[str, bytes]


def content_of(number: int) -> bytes:
    """Files of mixed sizes, most of them small; the first is one that goes up in parts."""
    size = SIZES[number] if number < len(SIZES) else (number * 7919) % (300_000 if number % 3 else 20_000)
    return pattern(size, seed=number)


def write_files(store: Mount, numbers: range) -> Files:
    """Write them through the mount, over a few recordings; name (path in the mount) → bytes."""
    written: Files = {}
    for number in numbers:
        folder = store.recording(user=1 + number % 2, recording=1 + number % 5) / f"part {number % 3}"
        folder.mkdir(exist_ok=True)
        path = folder / f"datei-{number}-ü.bin"
        path.write_bytes(content_of(number))
        written[store.inner(path)] = content_of(number)
    return written


def assert_in_s3(s3: S3, files: Files) -> None:
    """S3 alone has them all, and nothing else; checksums and metadata are right."""
    assert s3.paths() == set(files)
    for path, content in files.items():
        found, metadata = s3.object(path)
        assert found == content, f"{path}: {len(found)} bytes in S3 are not the {len(content)} that were written"
        assert metadata["checksum-sha256"] == sha256(content)
    assert s3.unfinished() == []


def assert_read_back(store: Mount, files: Files) -> None:
    """A reader on the mount gets them all, with the checksum that recfs says."""
    for path, content in files.items():
        assert sha256_of(store.path / path) == sha256(content), path
        assert xattr(store.path / path, "sha256") == sha256(content), path


def local_copies(store: Mount) -> list[Path]:
    """Files in the home tree."""
    return [path for path in (store.root / "users").rglob("*") if path.is_file()]


def after_some(wanted: int, last_part: str = "partNumber=3") -> Match:
    """Matches uploads after the first *wanted*, and the last part of the large file."""
    seen = itertools.count()

    def match(request: Request) -> bool:
        return UPLOAD(request) and (last_part in request.target or next(seen) >= wanted)

    return match


def test_two_hundred_files_killed_during_the_uploads(s3: S3, far: Mount) -> None:
    with s3.holding(after_some(60)) as gate:
        files = write_files(far, range(200))
        wait_until(lambda: gate.waiting >= 4, "uploads are under way")
        in_flight = s3.paths()
        far.call("queue")  # writes what memory has, so that the parts that are done are known to be
        far.kill()
    assert 30 < len(in_flight) < 190, "it was to be killed in the middle"
    far.remount()
    far.drain()
    assert {state(far.path / path) for path in files} == {"stored"}
    assert_in_s3(s3, files)
    # What was there before the kill was not sent again, but for those whose confirmation never came.
    large = next(path for path, content in files.items() if len(content) == LARGE)
    parts = [each.target for each in s3.asked(UPLOAD) if "partNumber=1" in each.target]
    assert len(parts) == 1, f"the upload of {large} began anew: {parts}"
    twice = [path for path in files if path != large and s3.uploads_of(path) > 1]
    assert len(twice) <= 8, twice

    evict(far)
    assert local_copies(far) == []
    assert_read_back(far, files)
    far.drain()
    assert_in_s3(s3, files)
    far.assert_consistent()


def test_local_copies_removed_past_recfs_come_from_s3(s3: S3, far: Mount) -> None:
    files = write_files(far, range(40))
    far.drain()
    far.expect_log("removed out of band")
    far.umount()
    for path in local_copies(far):
        path.unlink()
    far.remount()
    assert_read_back(far, files)
    far.drain()
    assert {state(far.path / path) for path in files} == {"stored"}
    assert len(local_copies(far)) == len(files)
    assert_in_s3(s3, files)
    far.assert_consistent()


def test_everything_local_removed_past_recfs_comes_from_s3(s3: S3, far: Mount) -> None:
    """Directories, too: the whole home tree."""
    files = write_files(far, range(20))
    far.drain()
    far.expect_log("removed out of band|home")
    far.umount()
    shutil.rmtree(far.root / "users/1")
    far.remount()
    assert_read_back(far, files)
    new = far.path / "users/1/recordings/1/new"
    new.write_bytes(b"new")
    far.drain()
    assert_in_s3(s3, files | {far.inner(new): b"new"})


def test_killed_while_the_endpoint_is_down(s3: S3, far: Mount) -> None:
    files = write_files(far, range(10, 40))
    with s3.proxy.refusing():
        files |= write_files(far, range(40, 90))
        files |= write_files(far, range(1))
        # A pipeline without its S3 end: everything is committed, and nothing but uploads is left.
        wait_until(lambda: not {"writing", "sealing"} & set(far.status()["states"]), "all is committed")
        far.kill()
        far.remount()
        assert_read_back(far, {path: content for path, content in files.items() if far.home(far.path / path).exists()})
        files |= write_files(far, range(90, 110))
        wait_until(lambda: far.status()["s3"]["problem"], "the trouble shows")
        assert s3.paths() < set(files)
    far.drain()
    assert_in_s3(s3, files)
    evict(far)
    assert_read_back(far, files)
    assert far.status()["s3"]["problem"] is None


def test_killed_again_and_again(s3: S3, far: Mount) -> None:
    """Each life is allowed a few uploads."""
    files: Files = {}
    for life in range(5):
        with s3.holding(after_some(3, "partNumber=2"), reaches=life % 2 == 0) as gate:
            files |= write_files(far, range(life * 6, life * 6 + 6))
            wait_until(lambda gate=gate: gate.waiting >= 2, "uploads are under way")
            # The kernel tells of a close only after close(2) returned.
            wait_until(lambda: "writing" not in far.status()["states"], "all is closed")
            far.kill()
        far.remount()
    far.drain()
    assert_in_s3(s3, files)
    evict(far)
    assert_read_back(far, files)
    far.assert_consistent()


def test_an_orderly_umount_leaves_nothing_behind(s3: S3, far: Mount) -> None:
    files = write_files(far, range(30))
    far.umount()
    assert_in_s3(s3, files)
    far.remount()
    assert sorted(os.listdir(far.path / "users")) == ["1", "2"]
    assert {state(far.path / path) for path in files} == {"stored"}
