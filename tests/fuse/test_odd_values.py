"""Times and sizes at and beyond the ends of their ranges, as programs bring them along."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .harness import Mount

pytestmark = pytest.mark.modes("auto", "off")

S = 10**9
FIRST, LAST = -(2**31) * S, 15_032_385_535 * S
TIMES = {
    "1601-01-01": FIRST,
    "0001-01-01": FIRST,
    "9999-12-31": LAST,
    "2300-01-01": 10_413_792_000 * S,
    "1969-12-31 23:59:59.5": -S // 2,
    "1969-12-31 23:59:59.999999999": -1,
    "2446-05-10 22:38:54.25": LAST - S + S // 4,
    "2262-04-11 23:47:17": 2**63 // S * S + S,
}


def far_times(folder: Path) -> dict[str, int]:
    """Make a file for each time."""
    for n, date in enumerate(TIMES):
        (folder / f"f{n}").write_bytes(b"x")
        subprocess.run(["touch", "-d", f"{date} UTC", folder / f"f{n}"], check=True, timeout=30)
    return {f"f{n}": kept for n, kept in enumerate(TIMES.values())}


def test_far_times_are_clamped_as_ext4_does(mount: Mount, rec: Path) -> None:
    kept = far_times(rec)
    os.utime(rec, ns=(0, -11_644_473_600 * S))
    for name, when in kept.items():
        info = (rec / name).stat()
        assert (info.st_atime_ns, info.st_mtime_ns) == (when, when), name
    assert rec.stat().st_mtime_ns == FIRST
    mount.drain()
    for name, when in kept.items():
        assert (mount.root / rec.relative_to(mount.path) / name).stat().st_mtime_ns == when, name
    mount.remount()
    assert {name: (rec / name).stat().st_mtime_ns for name in kept} == kept
    assert rec.stat().st_mtime_ns == FIRST


@pytest.mark.needs("rsync")
def test_far_times_come_with_rsync_tar_and_cp(mount: Mount, rec: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for n, when in enumerate((-11_644_473_600 * S, FIRST, LAST, 253_402_214_400 * S, -S // 2, 10_413_792_000 * S)):
        (source / f"f{n}").write_bytes(b"x")
        os.utime(source / f"f{n}", ns=(when, when))
    below = {path.name: min(max(path.stat().st_mtime_ns, FIRST), LAST) for path in source.iterdir()}
    for command in (
        ["rsync", "-a", f"{source}/", rec / "rsync"],
        ["cp", "-a", source, rec / "cp"],
        ["bash", "-c", f"mkdir '{rec}/tar' && tar -C '{source}' -cf - . | tar -C '{rec}/tar' -xf -"],
    ):
        subprocess.run(command, check=True, timeout=60)
    for way in ("rsync", "cp"):
        assert {path.name: path.stat().st_mtime_ns for path in (rec / way).iterdir()} == below, way
    assert {path.name: path.stat().st_mtime_ns // S for path in (rec / "tar").iterdir()} == {
        name: when // S for name, when in below.items()
    }
    mount.drain()


def test_sizes_beyond_what_the_disk_takes(mount: Mount, rec: Path) -> None:
    native = mount.root / ".recfs" / "probe"
    flags = os.O_RDWR | os.O_CREAT
    with closing_both(os.open(native, flags), os.open(rec / "file", flags)) as (below, here):
        for size in (999_999_999_999_999, 1 << 44, (1 << 44) - 4096, 2**63 - 2, 2**63 - 1, 1 << 40):
            assert outcome(os.ftruncate, here, size) == outcome(os.ftruncate, below, size), size
            assert os.fstat(here).st_size == os.fstat(below).st_size
            os.ftruncate(here, 0)
            os.ftruncate(below, 0)
            assert outcome(os.pwrite, here, b"x", size) == outcome(os.pwrite, below, b"x", size), size
            assert os.fstat(here).st_size == os.fstat(below).st_size
            os.ftruncate(here, 0)
            os.ftruncate(below, 0)
    native.unlink()
    mount.drain()
    assert mount.call("quota_check")["differences"] == []


@contextlib.contextmanager
def closing_both(*fds: int) -> Iterator[tuple[int, ...]]:
    """Close the descriptors at the end."""
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def outcome(function: Callable[..., object], *args: object) -> str:
    """The name of the error, or nothing."""
    try:
        function(*args)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""
