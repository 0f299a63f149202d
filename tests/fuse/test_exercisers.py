"""The exercisers of the field, bounded: stress-ng's file-system stressors all at once, and fio in several processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .clients import run, sha256_of, xattr
from .harness import Mount

pytestmark = [pytest.mark.slow, pytest.mark.timeout(330)]

SPAN_S = 6
"""How long the stressors of a group run. They come to their number of operations sooner on an idle machine."""
LIMIT_S = 300.0
STRESSORS = {
    "names": "access chdir chmod chown dentry dir dirdeep dirmany filename getdent rename symlink touch utime",
    "bytes": "fallocate fpunch fsize hdd io iomix readahead seek sendfile splice sync-file",
    "descriptors": "dup fcntl file-ioctl flock fstat inotify lease locka lockf lockofd open xattr",
}
"""Left out of what Debian 12's stress-ng has for file systems: link (hard links are refused, semantics 3.10), mknod
(devices and FIFOs, 3.10), chattr and inode-flags (flags, 3.12), handle (open_by_handle_at), verity and fiemap (FUSE has
neither), copy-file (takes 128 MiB at least)."""
OPTIONS = {
    "dirdeep": ["--dirdeep-inodes=300"],
    "fallocate": ["--fallocate-bytes=8m"],
    "hdd": ["--hdd-bytes=8m"],
    "iomix": ["--iomix-bytes=8m"],
    "readahead": ["--readahead-bytes=8m"],
    "seek": ["--seek-size=8m"],
    "sync-file": ["--sync-file-bytes=8m"],
}


@pytest.mark.needs("stress-ng")
@pytest.mark.parametrize(
    "group",
    [
        pytest.param("names", marks=pytest.mark.modes("auto")),
        pytest.param("bytes", marks=pytest.mark.alone),  # `io` has sync(2) write all disks, `iomix` drops all caches
        pytest.param("descriptors", marks=pytest.mark.modes("auto", "off")),
    ],
)
def test_stressors(mount: Mount, rec: Path, group: str) -> None:
    """No stressor fails or hangs, the daemon is up, the counters are right, and what was left can be removed."""
    chosen: list[str] = []
    for name in STRESSORS[group].split():
        chosen += [f"--{name}=1", f"--{name}-ops=2000", *OPTIONS.get(name, [])]
    said = run("stress-ng", "--verify", "--timeout", f"{SPAN_S}s", "--temp-path", rec, *chosen, timeout_s=LIMIT_S)
    text = (said.stdout + said.stderr).decode(errors="replace")
    assert "successful run completed" in text, text
    assert "skipped" not in text, text
    mount.assert_consistent()
    assert list(rec.iterdir()) == [], "stress-ng removes what it made"


@pytest.mark.needs("fio")
@pytest.mark.parametrize(
    ("engine", "direct"), [("psync", 0), ("psync", 1), ("mmap", 0)], ids=["buffered", "direct", "mmap"]
)
def test_fio_in_several_processes(mount: Mount, rec: Path, tmp_path: Path, engine: str, direct: int) -> None:
    """Four write, rewrite and read at random, each its own file, and find what they wrote; so does who comes later."""
    jobs = ["--name=job", "--numjobs=4", f"--directory={rec}", f"--ioengine={engine}", f"--direct={direct}"]
    work = ["--rw=randrw", "--size=4M", "--bsrange=4k-64k", "--overwrite=1", "--randrepeat=1", "--end_fsync=1"]
    check = ["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--output-format=terse"]
    run("fio", *jobs, *work, *check, cwd=tmp_path, timeout_s=LIMIT_S)  # it keeps its state where it is started
    mount.assert_consistent()
    files = sorted(rec.iterdir())
    assert [file.stat().st_size for file in files] == [4 << 20] * 4
    for file in files:
        assert xattr(file, "sha256") == sha256_of(file) == sha256_of(mount.home(file))
