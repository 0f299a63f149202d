"""A catalogue and a home tree that are not of one time: it is said, and nobody is given a checksum that is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from recfs.core.generation import Mark
from recfs.errors import CatalogueCorrupt, IoFailure, StoreError
from recfs.ports.object_errors import Unreachable
from recfs.state import generations
from recfs.stores.local import MARK_XATTR
from recfs.tier.queue.reasons import LOOKED_AT
from recfs.tier.queue.unanswered import KEPT_S
from tests.fake_object_store import FakeObjectStore

from .build import OPERATOR, REC, Filesystem, filesystem, pattern, until
from .test_tier import S3, evict, stored

ExpectLog = Callable[[str], None]
OLDER = "the catalogue is older than the home tree"
BOOKS = ("catalogue.db", "catalogue.db-wal", "catalogue.db-shm")


def back_up(fs: Filesystem, to: Path) -> None:
    """Copy the catalogue as docs/runbook.md says."""
    source = contextlib.closing(sqlite3.connect(fs.root / ".recfs/catalogue.db"))
    with source as db, contextlib.closing(sqlite3.connect(to)) as copy:
        db.backup(copy)


def restore(fs: Filesystem, backup: Path) -> None:
    """Put it back."""
    for name in BOOKS:
        (fs.root / ".recfs" / name).unlink(missing_ok=True)
    shutil.copy(backup, fs.root / ".recfs/catalogue.db")


async def checksums_are_right(fs: Filesystem, paths: dict[str, bytes]) -> None:
    """Every file has these bytes, and says their checksum."""
    for path, content in paths.items():
        assert await fs.read(path) == content, path
        node = await fs.node(path)
        assert await fs.state(path) == "committed", path
        assert node.sha256 == hashlib.sha256(content).digest(), path


async def problems(fs: Filesystem) -> str:
    """What `recfs status` calls a problem."""
    return "\n".join((await fs.answers()["status"]({}))["problems"])


@pytest.mark.parametrize("end", ["stop", "crash"])
@pytest.mark.slow
async def test_an_old_catalogue_beside_a_newer_tree(
    fs: Filesystem, tmp_path: Path, expect_log: ExpectLog, end: str
) -> None:
    fs.checked_at_end = False
    old, new = pattern(9000, seed=1), pattern(9000, seed=2)
    names = ("same", "overwritten", "appended", "in-place", "replaced", "removed", "renamed", "mode", "sub/below")
    for name in names:
        await fs.write(f"{REC}/{name}", old)
    await fs.write("users/6/recordings/1/of-another", old)
    await fs.vfs.symlink((await fs.node(REC)).ino, b"link", b"target", OPERATOR)
    await fs.drain()
    back_up(fs, tmp_path / "backup")
    await fs.stop()
    await fs.reopen()
    await fs.write(f"{REC}/overwritten", new)
    await fs.write(f"{REC}/appended", new, append=True)
    number = await fs.open(f"{REC}/in-place", os.O_RDWR)
    await fs.vfs.files.write(number, 0, new)
    await fs.close(number)
    await fs.write(f"{REC}/.part", new)
    await fs.rename(f"{REC}/.part", f"{REC}/replaced")
    await fs.unlink(f"{REC}/removed")
    await fs.rename(f"{REC}/renamed", f"{REC}/other-name")
    await fs.write(f"{REC}/made/deep/er", new)
    await fs.write("users/7/recordings/2/of-a-new-user", new)
    await fs.vfs.symlink((await fs.node(REC)).ino, b"link2", b"target2", OPERATOR)
    await fs.unlink(f"{REC}/sub/below")
    await fs.rmdir(f"{REC}/sub")
    await fs.drain()
    last_ino = (await fs.node("users/7/recordings/2/of-a-new-user")).ino
    await (fs.stop() if end == "stop" else fs.crash())
    restore(fs, tmp_path / "backup")
    for message in (OLDER, f"differ from what the catalogue says.*{REC}/over", "were not in the", "not on the disk"):
        expect_log(message)
    await fs.reopen()
    told = await problems(fs)
    report = fs.parts.recovered
    assert OLDER in told
    changed = ("overwritten", "appended", "in-place", "replaced")
    assert set(report.taken) >= {f"{REC}/{name}" for name in changed}
    assert sorted(report.gone) == sorted(f"{REC}/{name}" for name in ("removed", "renamed", "sub/below"))
    assert f"{REC}/made/deep/er" in report.found
    for name in (*changed, "removed", "renamed", "made/deep/er"):
        assert f"{REC}/{name}" in told
    for name in changed:
        assert await fs.state(f"{REC}/{name}") in ("sealing", "committed")
        assert (await fs.node(f"{REC}/{name}")).sha256 != hashlib.sha256(old).digest()
    await fs.drain()
    expected = {f"{REC}/{name}": new for name in ("overwritten", "in-place", "replaced", "made/deep/er")}
    expected |= {f"{REC}/{name}": old for name in ("same", "mode", "other-name")}
    expected |= {f"{REC}/appended": old + new, "users/6/recordings/1/of-another": old}
    expected |= {"users/7/recordings/2/of-a-new-user": new}
    await checksums_are_right(fs, expected)
    links = {name: await fs.vfs.readlink((await fs.node(f"{REC}/{name}")).ino) for name in ("link", "link2")}
    assert links == {"link": b"target", "link2": b"target2"}
    for path in report.gone:
        with pytest.raises(IoFailure, match="bytes are missing"):
            await fs.open(path)
        await fs.unlink(path)
    await fs.write(f"{REC}/fresh", b"fresh")
    assert (await fs.node(f"{REC}/fresh")).ino > last_ino, "no inode number is used twice"
    await fs.assert_consistent()
    await fs.stop()
    await fs.reopen()
    assert fs.parts.recovered.said == []
    await fs.assert_consistent()


@pytest.mark.usefixtures("any_log")
async def test_what_was_under_way_in_the_backup_is_judged_by_the_tree(fs: Filesystem, tmp_path: Path) -> None:
    """Rows of files being written, sealed and removed, of bytes in staging that are long gone."""
    fs.checked_at_end = False
    old, new = pattern(9000, seed=1), pattern(9000, seed=2)
    for name in ("overwritten", "removed", "moved"):
        await fs.write(f"{REC}/{name}", old)
    await fs.drain()
    await fs.stop()
    await fs.reopen(services=False)
    numbers = {}
    for name in ("overwritten", "new", "removed-later"):
        numbers[name] = await fs.open(f"{REC}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        await fs.vfs.files.write(numbers[name], 0, new[:5000])
    await fs.write(f"{REC}/sealing", old)
    await fs.unlink(f"{REC}/removed")
    await fs.rename(f"{REC}/moved", f"{REC}/moved-there")
    await fs.parts.behind.flush()
    back_up(fs, tmp_path / "backup")
    await fs.crash()
    await fs.reopen()
    for name in ("overwritten", "new"):
        await fs.write(f"{REC}/{name}", new)
    for name in ("removed", "moved"):
        await fs.write(f"{REC}/{name}", new)  # other files of these names, perhaps of these numbers
    await fs.unlink(f"{REC}/removed-later")
    await fs.drain()
    await fs.stop()
    restore(fs, tmp_path / "backup")
    await fs.reopen()
    await fs.drain()
    expected = {f"{REC}/{name}": new for name in ("overwritten", "new", "removed", "moved")}
    expected |= {f"{REC}/{name}": old for name in ("sealing", "moved-there")}
    await checksums_are_right(fs, expected)
    assert fs.leftovers("staging") == []
    with contextlib.suppress(IoFailure):
        assert await fs.read(f"{REC}/removed-later") == b""
    await fs.unlink(f"{REC}/removed-later")
    await fs.assert_consistent(lost=len(fs.leftovers("lost+found")))


async def start_fails(place: Path) -> BaseException:
    """What the start says."""
    async with trio.open_nursery() as nursery:
        with pytest.raises(StoreError) as caught:
            await Filesystem(nursery, place).start()
    return caught.value


async def killed(fs: Filesystem, tmp_path: Path) -> None:
    """Die, leaving the files of the catalogue as a dead process does."""
    for name in BOOKS:
        shutil.copy(fs.root / ".recfs" / name, tmp_path / name)
    await fs.crash()
    for name in BOOKS:
        shutil.copy(tmp_path / name, fs.root / ".recfs" / name)


async def test_a_log_that_is_gone_with_everything_in_it(fs: Filesystem, place: Path, tmp_path: Path) -> None:
    """After the first start the main file is empty: the store is not begun anew beside a full tree."""
    fs.checked_at_end = False
    await fs.write(f"{REC}/file", b"bytes")
    await fs.drain()
    await killed(fs, tmp_path)
    (fs.root / ".recfs/catalogue.db-wal").unlink()
    error = await start_fails(place)
    assert isinstance(error, CatalogueCorrupt)
    assert "its log, the -wal beside it, is missing" in str(error)
    assert (fs.root / REC / "file").read_bytes() == b"bytes"
    shutil.copy(tmp_path / "catalogue.db-wal", fs.root / ".recfs/catalogue.db-wal")
    await fs.reopen()
    assert await fs.read(f"{REC}/file") == b"bytes"


async def test_a_catalogue_that_is_gone(fs: Filesystem, place: Path) -> None:
    fs.checked_at_end = False
    await fs.write(f"{REC}/file", b"bytes")
    await fs.drain()
    await fs.stop()
    for how in (Path.unlink, Path.touch):
        how(fs.root / ".recfs/catalogue.db")
        assert "though the store has files" in str(await start_fails(place))
        assert (fs.root / REC / "file").read_bytes() == b"bytes"


@pytest.mark.parametrize("folded", ["at the start", "since"])
async def test_a_log_that_is_gone_with_the_last_changes(
    fs: Filesystem, tmp_path: Path, expect_log: ExpectLog, folded: str
) -> None:
    await fs.write(f"{REC}/file", b"first")
    await fs.drain()
    await fs.stop()
    await fs.reopen()
    if folded == "since":
        await fs.write(f"{REC}/other", b"other")
        await fs.drain()
        await fs.parts.catalogue.checkpoint(at_least_pages=1)
        await fs.parts.generations.look(0)  # which housekeeping does right afterwards
    await fs.write(f"{REC}/file", b"second")
    await fs.write(f"{REC}/new", b"new")
    await fs.drain()
    await killed(fs, tmp_path)
    for name in BOOKS[1:]:
        (fs.root / ".recfs" / name).unlink()
    expect_log(OLDER)
    expect_log("differ from")
    expect_log("were not in the catalogue")
    await fs.reopen()
    await fs.drain()
    await checksums_are_right(fs, {f"{REC}/file": b"second", f"{REC}/new": b"new"})


async def test_a_backup_of_the_same_run(fs: Filesystem, tmp_path: Path, expect_log: ExpectLog) -> None:
    """It may be as young as it likes: every batch counts."""
    await fs.write(f"{REC}/file", b"first")
    await fs.drain()
    back_up(fs, tmp_path / "backup")
    before = os.getxattr(fs.root / "users", MARK_XATTR)
    await fs.write(f"{REC}/file", b"second")
    await fs.drain()
    await until(lambda: os.getxattr(fs.root / "users", MARK_XATTR) != before)
    await fs.crash()
    restore(fs, tmp_path / "backup")
    expect_log(OLDER)
    expect_log("differ from")
    await fs.reopen()
    await fs.drain()
    await checksums_are_right(fs, {f"{REC}/file": b"second"})


async def test_nothing_is_compared_where_nothing_changed(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither after a stop nor after a death; and while nothing changes, nothing is written."""
    await fs.write(f"{REC}/file", b"bytes")
    await fs.drain()
    for end in (fs.stop, fs.crash, fs.crash, fs.stop):
        await end()
        await fs.reopen()
        assert fs.parts.recovered.said == []
    await fs.drain()
    await fs.parts.generations.advance()
    mark = os.getxattr(fs.root / "users", MARK_XATTR)
    monkeypatch.setattr(generations, "DURABLY_S", 0)
    await fs.parts.generations.look(0)
    assert os.getxattr(fs.root / "users", MARK_XATTR) == mark


async def test_a_version_that_had_not_come_home_is_not_said_to_be_gone(
    fs: Filesystem, tmp_path: Path, expect_log: ExpectLog
) -> None:
    """It lies in staging, with its label: appended to after the backup, and closed as the daemon died."""
    fs.checked_at_end = False
    await fs.write(f"{REC}/file", b"first, ")
    await fs.drain()
    back_up(fs, tmp_path / "backup")
    await fs.stop()
    await fs.reopen(services=False)
    await fs.write(f"{REC}/file", b"second", append=True)
    await fs.crash()
    restore(fs, tmp_path / "backup")
    expect_log(OLDER)
    await fs.reopen()
    assert fs.parts.recovered.gone == []
    assert "not on the disk" not in await problems(fs)
    await fs.drain()
    await checksums_are_right(fs, {f"{REC}/file": b"first, second"})


async def test_a_tree_that_was_restored(fs: Filesystem, tmp_path: Path, expect_log: ExpectLog) -> None:
    fs.checked_at_end = False
    await fs.write(f"{REC}/file", b"first")
    await fs.drain()
    await fs.stop()
    shutil.copytree(fs.root / "users", tmp_path / "users")
    await fs.reopen()
    await fs.write(f"{REC}/file", b"second")
    await fs.write(f"{REC}/new", b"new")
    await fs.drain()
    await fs.stop()
    await fs.reopen()
    await fs.stop()
    shutil.rmtree(fs.root / "users")
    subprocess.run(["cp", "-a", tmp_path / "users", fs.root / "users"], check=True, timeout=60)
    os.setxattr(fs.root / "users", MARK_XATTR, os.getxattr(tmp_path / "users", MARK_XATTR))
    for message in ("the home tree is older than the catalogue", "differ from", "not on the disk"):
        expect_log(message)
    await fs.reopen()
    assert fs.parts.recovered.gone == [f"{REC}/new"]
    await fs.drain()
    await checksums_are_right(fs, {f"{REC}/file": b"first"})
    with pytest.raises(IoFailure, match="bytes are missing"):
        await fs.read(f"{REC}/new")


@pytest.mark.parametrize("attributes", ["kept", "lost"])
async def test_a_copy_is_compared(place: Path, expect_log: ExpectLog, attributes: str) -> None:
    async with filesystem(place / "store") as first:
        for name in ("same", "changed"):
            await first.write(f"{REC}/{name}", b"first")
        await first.drain()
        await first.stop()
    command = ["cp", "-a" if attributes == "kept" else "-dR", place / "store", place / "copy"]
    subprocess.run([*command, "--preserve=mode,ownership,timestamps"], check=True, timeout=60)
    if attributes == "lost":
        with contextlib.suppress(OSError):
            os.removexattr(place / "copy/users", MARK_XATTR)
    (place / "copy" / REC / "changed").write_bytes(b"other")
    expect_log("copied or restored" if attributes == "kept" else "copied without its attributes")
    expect_log(f"1 files differ from what the catalogue says.*{REC}/changed")
    async with filesystem(place / "copy") as second:
        await second.drain()
        await checksums_are_right(second, {f"{REC}/same": b"first", f"{REC}/changed": b"other"})
        await second.assert_consistent()


async def test_the_catalogue_of_another_store_is_refused(place: Path) -> None:
    for name in ("one", "two"):
        async with filesystem(place / name) as fs:
            await fs.write(f"{REC}/{name}", b"bytes")
            await fs.drain()
    shutil.copy(place / "two/.recfs/catalogue.db", place / "one/.recfs/catalogue.db")
    assert "belong to two stores" in str(await start_fails(place / "one"))
    assert (place / "one" / REC / "one").read_bytes() == b"bytes"


async def test_a_thread_that_comes_to_a_mark_after_the_end_leaves_that_of_the_next_run(fs: Filesystem) -> None:
    """A stop leaves it behind."""
    before = fs.parts.generations
    mark = Mark.decode(os.getxattr(fs.root / "users", MARK_XATTR))
    assert mark is not None
    await fs.write(f"{REC}/file", b"bytes")
    await fs.drain()
    await fs.reopen()
    before._write_mark(mark)
    await fs.reopen()
    assert fs.parts.recovered.said == []


@pytest.mark.expect_log("copied without its attributes")
async def test_on_a_file_system_without_attributes_nothing_is_looked_for(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noticed once that they are gone, and not at every start."""
    await fs.write(f"{REC}/file", b"bytes")
    await fs.drain()
    await fs.stop()
    os.removexattr(fs.root / "users", MARK_XATTR)
    monkeypatch.setattr("recfs.stores.local.LocalStore.mark_tree", lambda self, mark, durable=False: False)
    await fs.reopen()
    assert "nothing tells" in "".join(fs.parts.recovered.said)
    for _ in range(2):
        await fs.stop()
        await fs.reopen()
        assert fs.parts.recovered.said == []


@pytest.mark.usefixtures("any_log")
async def test_with_s3_every_file_ends_with_its_bytes_here_and_there(place: Path, tmp_path: Path) -> None:
    """Overwritten and stored anew, evicted, fetched, removed since the backup of the catalogue."""
    old, new = pattern(9000, seed=1), pattern(9000, seed=2)
    async with filesystem(place, start=False, **S3) as fs:
        fs.objects = FakeObjectStore()
        fs.checked_at_end = False
        await fs.start()
        for name in ("same", "overwritten", "evicted", "fetched", "removed"):
            await fs.write(f"{REC}/{name}", old)
        await fs.drain()
        await evict(fs, f"{REC}/fetched")
        back_up(fs, tmp_path / "backup")
        await fs.stop()
        await fs.reopen()
        await fs.write(f"{REC}/overwritten", new)
        await fs.write(f"{REC}/new", new)
        assert await fs.read(f"{REC}/fetched") == old
        await fs.unlink(f"{REC}/removed")
        await fs.drain()
        await evict(fs, f"{REC}/evicted")
        await fs.stop()
        restore(fs, tmp_path / "backup")
        await fs.reopen()
        expected = {"same": old, "overwritten": new, "evicted": old, "fetched": old, "new": new}
        for name, content in expected.items():
            assert await fs.read(f"{REC}/{name}") == content, name
        await fs.drain()
        for name, content in expected.items():
            assert await fs.state(f"{REC}/{name}") == "stored", name
            assert (await fs.node(f"{REC}/{name}")).sha256 == hashlib.sha256(content).digest()
        await fs.unlink(f"{REC}/removed")
        await fs.drain()
        assert {key: data for key, data in stored(fs).items() if "removed" not in key} == {
            f"{REC}/{name}": content for name, content in expected.items()
        }


@pytest.mark.usefixtures("any_log")
async def test_a_deletion_in_s3_of_the_backups_time_takes_no_newer_object(place: Path, tmp_path: Path) -> None:
    """The key is another file's by now, and S3 alone has its bytes."""
    async with filesystem(place, start=False, **S3) as fs:
        fs.objects = FakeObjectStore()
        fs.checked_at_end = False
        await fs.start()
        await fs.write(f"{REC}/file", b"first")
        await fs.drain()
        fs.objects.fail("delete", Unreachable("not now"), times=1 << 30)
        await fs.unlink(f"{REC}/file")
        await fs.parts.work.draining.drain(uploads=False)
        await fs.parts.behind.flush()
        back_up(fs, tmp_path / "backup")
        assert fs.rows("select kind, key from journal") == [("delete", f"{REC}/file")]
        fs.objects.heal()
        await fs.stop()
        await fs.reopen()
        await fs.write(f"{REC}/file", b"second")
        await until(lambda: any(row.error == LOOKED_AT for row in fs.tier.journal.rows.values()))
        fs.clock.advance(KEPT_S)  # until then the deletion may come in between
        fs.tier.journal.wake.set()
        await until(lambda: not any(row.error == LOOKED_AT for row in fs.tier.journal.rows.values()))
        await fs.drain()
        await evict(fs, f"{REC}/file")
        await fs.stop()
        restore(fs, tmp_path / "backup")
        await fs.reopen()
        await fs.drain()
        fs.clock.advance(24 * 3600)
        fs.tier.journal.wake.set()
        await fs.drain()
        assert stored(fs) == {f"{REC}/file": b"second"}
        assert f"their objects stay, for they may be others' by now: {REC}/file" in await problems(fs)
