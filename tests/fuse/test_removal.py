"""Removal: after rm -rf there are no bytes, no rows, no charge; with retention the bytes are in the trash."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from pathlib import Path

import pytest

from recfs.errors import NotFound

from .clients import pattern, recfs, run, sha256, sha256_of
from .harness import BASE_CONFIG, Mount, errno_is, sizes_below

pytestmark = pytest.mark.modes("auto")

FACTS = "st_size", "st_mode", "st_uid", "st_gid", "st_mtime_ns"
CONTENTS = {
    "source.mp4": pattern(2_000_000, seed=1),
    "video.mp4": pattern(500_000, seed=2),
    "transcription/master.json": pattern(5_000, seed=3),
    "assets/custom_thumbnail.png": pattern(40_000, seed=4),
}


def fill(rec: Path) -> Path:
    """Write a recording as the real ones are."""
    for name, content in CONTENTS.items():
        (rec / name).parent.mkdir(exist_ok=True)
        (rec / name).write_bytes(content)
    (rec / "link").symlink_to("source.mp4")
    return rec


def rows_of(store: Mount, table: str) -> int:
    """Count the rows of a table of the catalogue, as another process sees them."""
    with sqlite3.connect(f"file:{store.root}/.recfs/catalogue.db?mode=ro", uri=True) as catalogue:
        count: int = catalogue.execute(f"select count(*) from {table}").fetchone()[0]
    catalogue.close()
    return count


def bytes_under(top: Path) -> int:
    """Sum the sizes of the files below a directory on disk."""
    return sum(size for _, size in sizes_below(top))


def test_a_removed_recording_leaves_nothing(store: Mount) -> None:
    store.start()
    kept = fill(store.recording(5, 141))
    store.drain()
    rows, used = rows_of(store, "node"), store.quota("5")
    rec = fill(store.recording(5, 142))
    os.setxattr(rec / "source.mp4", "user.title", b"x")
    store.drain()
    assert rows_of(store, "node") > rows
    run("rm", "-rf", rec)
    store.drain()
    assert not store.home(rec).exists()
    assert store.leftovers("staging") == store.leftovers("trash") == []
    assert bytes_under(store.root / "users") == bytes_under(store.home(kept))
    assert rows_of(store, "node") == rows
    assert rows_of(store, "garbage") == rows_of(store, "xattr") == 0
    after = store.quota("5")
    assert (after["used_bytes"], after["used_files"]) == (used["used_bytes"], used["used_files"])
    with pytest.raises(NotFound):
        store.info(rec)
    store.assert_consistent()
    assert sha256_of(kept / "source.mp4") == sha256(CONTENTS["source.mp4"])


@pytest.mark.modes("auto", "off")
def test_removing_while_files_are_sealing(store: Mount) -> None:
    store.start()
    rec = fill(store.recording(5, 142))
    run("rm", "-rf", rec)  # the pipeline is still at work on them
    store.drain()
    assert not store.home(rec).exists()
    assert store.leftovers("staging") == store.leftovers("lost+found") == []
    assert store.quota("5")["used_bytes"] == 0
    store.assert_consistent()


@pytest.mark.modes("auto", "off")
def test_removing_while_a_file_is_open(store: Mount) -> None:
    store.start()
    rec = fill(store.recording(5, 142))
    reader = os.open(rec / "source.mp4", os.O_RDONLY)
    writer = os.open(rec / "video.mp4", os.O_WRONLY)
    run("rm", "-rf", rec)
    os.write(writer, b"into nothing")
    assert sha256(os.pread(reader, 3_000_000, 0)) == sha256(CONTENTS["source.mp4"])
    os.close(reader)
    os.close(writer)
    store.drain()
    assert not store.home(rec).exists()
    assert store.leftovers("staging") == []
    assert store.quota("5")["used_bytes"] == 0


def test_retention_keeps_the_bytes_in_the_trash(store: Mount) -> None:
    store.start(config=f'{BASE_CONFIG}[trash]\nretention = "1h"\n')
    rec = fill(store.recording(5, 142))
    store.drain()
    run("rm", "-rf", rec)
    (store.recording(5, 143) / "file").write_bytes(pattern(30_000, seed=7))
    store.drain()
    (store.recording(5, 143) / "file").write_bytes(b"overwritten")
    store.drain()
    assert not store.home(rec).exists()
    found = sorted(sha256_of(p) for p in store.leftovers("trash") if not p.is_symlink())
    assert found == sorted([*(sha256(c) for c in CONTENTS.values()), sha256(pattern(30_000, seed=7))])
    assert store.quota("5")["used_bytes"] == len(b"overwritten"), "what lies in the trash is not charged"
    store.assert_consistent()
    store.kill()
    store.remount()
    store.drain()
    assert sorted(sha256_of(p) for p in store.leftovers("trash") if not p.is_symlink()) == found


def test_a_short_retention_empties_the_trash(store: Mount) -> None:
    store.start(config=f'{BASE_CONFIG}[trash]\nretention = "1h"\n')
    run("rm", "-rf", fill(store.recording(5, 142)))
    store.drain()
    assert store.leftovers("trash") != []
    store.umount()
    store.start()  # retention is off now: what is in the trash is due
    store.drain()
    assert store.leftovers("trash") == []
    assert rows_of(store, "garbage") == 0


def test_a_recording_comes_back_from_the_trash(store: Mount) -> None:
    """With `recfs trash`, beside a daemon and without one."""
    store.start(config=f'{BASE_CONFIG}[trash]\nretention = "1h"\n')
    rec = fill(store.recording(5, 142))
    os.utime(rec / "source.mp4", ns=(1_500_000_000_123_456_789, 1_500_000_000_123_456_789))
    (rec / "source.mp4").chmod(0o640)
    os.chown(rec / "source.mp4", 1005, 1006)
    store.drain()
    before = (rec / "source.mp4").stat()
    run("rm", "-rf", rec)
    assert not rec.exists()
    listed = json.loads(recfs("--json", "trash", "list", rec).stdout)["entries"]
    assert {each["path"] for each in listed if each["kind"] == "dir"} >= {"users/5/recordings/142"}
    assert {each["path"]: each["size_bytes"] for each in listed if each["kind"] == "file"} == {
        f"users/5/recordings/142/{name}": len(content) for name, content in CONTENTS.items()
    }
    assert recfs("trash", "restore", rec).stdout.startswith(b"5 files and 3 directories restored")
    for name, content in CONTENTS.items():
        assert sha256_of(rec / name) == sha256(content)
    after = (rec / "source.mp4").stat()
    assert [getattr(after, each) for each in FACTS] == [getattr(before, each) for each in FACTS]
    assert sorted(os.listdir(rec)) == sorted({name.partition("/")[0] for name in CONTENTS} | {"link"})
    store.drain()
    store.assert_consistent()
    run("rm", rec / "video.mp4")
    store.umount()
    done = recfs("trash", "restore", "--config", store.base / "recfs.conf", "users/5/recordings/142/video.mp4")
    assert done.stdout.startswith(b"1 file restored")
    store.start()
    assert sha256_of(rec / "video.mp4") == sha256(CONTENTS["video.mp4"])
    store.drain()
    assert store.leftovers("trash") == []
    store.assert_consistent()


def test_the_same_names_can_be_used_at_once(store: Mount) -> None:
    store.start()
    for turn in range(5):
        rec = fill(store.recording(5, 142))
        (rec / "source.mp4").write_bytes(pattern(100_000, seed=100 + turn))
        run("rm", "-rf", rec)
    rec = fill(store.recording(5, 142))
    store.drain()
    assert store.leftovers("lost+found") == [], "removing raced with committing"
    for name, content in CONTENTS.items():
        assert sha256_of(rec / name) == sha256_of(store.home(rec / name)) == sha256(content)
    store.remount()
    assert sha256_of(rec / "source.mp4") == sha256(CONTENTS["source.mp4"])
    store.assert_consistent()


def test_rmdir_of_users_and_recordings(store: Mount) -> None:
    rec = store.start().recording(5, 142)
    user = rec.parent.parent
    with errno_is(errno.ENOTEMPTY):
        rec.parent.rmdir()
    for path in (rec, rec.parent, user / "thumbnails", user):
        path.rmdir()
    assert os.listdir(store.path / "users") == []
    store.drain()
    assert os.listdir(store.root / "users") == []
