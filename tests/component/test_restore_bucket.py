"""`recfs restore-catalogue` of a store with files in S3: what lies in the bucket, and what the backup says of it."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.model import State
from recfs.errors import StoreError
from recfs.fs.attributes import Changes
from recfs.fs.recovery import survey
from recfs.ports.object_errors import PrefixTaken, Unreachable
from recfs.rescue.restore import Restore
from recfs.state.nodes import DirNode
from recfs.stores.beneath import Beneath
from tests.fake_object_store import FakeObjectStore

from .build import REC, Filesystem, filesystem, pattern
from .far import bucket
from .test_generations import S3, evict
from .test_restore_catalogue import attribute, backed_up, note

OTHER_REC = "users/5/recordings/200"
OLD, NEW = pattern(9000, seed=1), pattern(9000, seed=2)
pytestmark = pytest.mark.usefixtures("any_log")


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """A running store with a bucket."""
    async with filesystem(place / "store", start=False, **S3) as made:
        made.objects = FakeObjectStore()
        made.checked_at_end = False
        await made.start()
        yield made


async def away(fs: Filesystem, name: str, data: bytes) -> None:
    """A file whose bytes only S3 has."""
    await fs.write(f"{REC}/{name}", data)
    await fs.drain()
    await evict(fs, f"{REC}/{name}")


async def restored(fs: Filesystem, **options: Any) -> dict[str, Any]:
    """What the command says; the store is in use again afterwards."""
    await fs.stop()
    restore = Restore(fs.config, lambda line: None, fs.objects)
    options = {"forget": False} | options
    found = await trio.to_thread.run_sync(lambda: restore.run(None, None, **options))
    await fs.reopen()
    await fs.drain()
    return found


async def holds(fs: Filesystem, expected: dict[str, bytes]) -> None:
    """Every file has its bytes, says their checksum, and the bucket has them, too."""
    for name, data in expected.items():
        path = f"{REC}/{name}"
        assert await fs.read(path) == data, name
        node = await fs.node(path)
        assert node.sha256 == hashlib.sha256(data).digest(), name
        assert node.size == len(data)
    await fs.drain()
    keys = bucket(fs).keys()
    assert {key: bucket(fs).data(key) for key in keys} == {f"{REC}/{name}": data for name, data in expected.items()}
    for name in expected:
        assert (await fs.node(f"{REC}/{name}")).state is State.STORED, name


@pytest.mark.slow
async def test_everything_that_changed_here_and_there_is_there_byte_for_byte(fs: Filesystem) -> None:
    for name in ("same", "here", "overwritten", "renamed", "renamed-here", "changed", "fetched"):
        await away(fs, name, OLD + name.encode())
        await note(fs, f"{REC}/{name}", name.encode())
    for name in ("here", "renamed-here", "fetched"):
        assert await fs.read(f"{REC}/{name}")
    await fs.drain()
    await evict(fs, f"{REC}/fetched")
    await fs.drain()
    inos = {name: (await fs.node(f"{REC}/{name}")).ino for name in ("renamed", "renamed-here")}
    await backed_up(fs)
    await fs.write(f"{REC}/overwritten", NEW)
    await fs.rename(f"{REC}/renamed", f"{REC}/other-name")
    await fs.rename(f"{REC}/renamed-here", f"{REC}/other-name-here")
    await away(fs, "changed", NEW + b"changed")
    assert await fs.read(f"{REC}/fetched")
    await away(fs, "new-and-away", NEW + b"away")
    await fs.write(f"{REC}/new", NEW + b"new")
    await fs.vfs.setattr((await fs.node(f"{REC}/same")).ino, _mode(0o600), _operator())
    await fs.drain()
    expected = {name: OLD + name.encode() for name in ("same", "here", "fetched")}
    expected |= {"overwritten": NEW, "changed": NEW + b"changed", "new-and-away": NEW + b"away", "new": NEW + b"new"}
    expected |= {"other-name": OLD + b"renamed", "other-name-here": OLD + b"renamed-here"}
    sent = len([call for call in bucket(fs).calls if call[0] == "put_file"])
    found = await restored(fs)
    afar = found["bucket"]
    assert afar["came"] == [f"{REC}/new-and-away"]
    assert afar["changed"] == [f"{REC}/changed"]
    assert afar["moved"] == [f"{REC}/renamed -> {REC}/other-name"]
    assert f"{REC}/renamed-here -> {REC}/other-name-here" in found["moved"]
    assert afar["lost"] == afar["again"] == afar["strange"] == found["gone"] == []
    await holds(fs, expected)
    assert await fs.names(REC) == sorted(expected)
    assert (await fs.node(f"{REC}/other-name")).ino == inos["renamed"]
    assert await attribute(fs, f"{REC}/other-name") == b"renamed"
    assert (await fs.node(f"{REC}/other-name-here")).ino == inos["renamed-here"]
    assert len([call for call in bucket(fs).calls if call[0] == "put_file"]) == sent, "nothing is sent again"
    assert fs.account() == (sum(map(len, expected.values())), len(expected))
    await fs.assert_consistent()


def _mode(mode: int) -> Any:
    return Changes(mode=mode)


def _operator() -> Any:
    from .build import OPERATOR

    return OPERATOR


@pytest.mark.parametrize("forget", [False, True])
async def test_what_the_bucket_has_no_more(fs: Filesystem, forget: bool) -> None:
    """Deleted since, or by somebody else: of what is here it gets another copy, of the rest there is none."""
    await away(fs, "away", OLD)
    await fs.write(f"{REC}/here", NEW)
    await fs.drain()
    await backed_up(fs)
    for name in ("away", "here"):
        bucket(fs).vanish(f"{REC}/{name}")
    found = await restored(fs, forget=forget)
    assert found["bucket"]["lost"] == [f"{REC}/away"]
    assert found["bucket"]["again"] == [f"{REC}/here"]
    assert bucket(fs).data(f"{REC}/here") == NEW
    assert await fs.exists(f"{REC}/away") is not forget
    if forget:
        await holds(fs, {"here": NEW})
        await fs.assert_consistent()


async def test_what_recfs_did_not_write_there_is_left_alone(fs: Filesystem) -> None:
    await away(fs, "away", OLD)
    await fs.write(f"{REC}/here", OLD)
    await fs.drain()
    await backed_up(fs)
    foreign = {"elsewhere/x": b"x", "users/x/y": b"y", f"{REC}/unknown": b"z", f"{REC}/here/below": b"b", "top": b"t"}
    for key, data in foreign.items():
        bucket(fs).tamper(key, data)
    found = await restored(fs)
    assert sorted(found["bucket"]["strange"]) == sorted(["users/x/y", f"{REC}/unknown", f"{REC}/here/below"])
    assert await fs.names(REC) == ["away", "here"]
    assert {key: bucket(fs).data(key) for key in foreign} == foreign


async def test_owner_mode_and_time_come_from_the_metadata(fs: Filesystem) -> None:
    await fs.write(f"{REC}/old", OLD)
    await backed_up(fs)
    await fs.write(f"{REC}/deep/er/new", NEW)
    await fs.vfs.setattr((await fs.node(f"{REC}/deep/er/new")).ino, _mode(0o640), _operator())
    await fs.drain()
    await evict(fs, f"{REC}/deep/er/new")
    before = await fs.node(f"{REC}/deep/er/new")
    await fs.stop()
    for folder in ("deep/er", "deep"):
        os.rmdir(fs.root / REC / folder)
    await fs.reopen()
    found = await restored(fs)
    assert found["bucket"]["came"] == [f"{REC}/deep/er/new"]
    after = await fs.node(f"{REC}/deep/er/new")
    assert (after.mode, after.uid, after.gid, after.mtime_ns) == (before.mode, before.uid, before.gid, before.mtime_ns)
    assert await fs.read(f"{REC}/deep/er/new") == NEW
    await fs.assert_consistent()


async def test_of_what_was_overwritten_and_left_again_mode_and_owner_too(fs: Filesystem) -> None:
    await away(fs, "file", OLD)
    await backed_up(fs)
    await fs.write(f"{REC}/file", NEW)
    await fs.vfs.setattr((await fs.node(f"{REC}/file")).ino, _mode(0o600), _operator())
    await fs.vfs.setattr((await fs.node(f"{REC}/file")).ino, Changes(uid=12345, gid=54321), _operator())
    await fs.drain()
    await evict(fs, f"{REC}/file")
    await fs.drain()
    found = await restored(fs)
    assert found["bucket"]["changed"] == [f"{REC}/file"]
    after = await fs.node(f"{REC}/file")
    assert (after.mode, after.uid, after.gid) == (0o600, 12345, 54321)
    assert await fs.read(f"{REC}/file") == NEW


async def test_what_has_left_the_disk_since_is_not_told_as_missing(fs: Filesystem) -> None:
    """S3 had it when the backup was made: a dry run, which does not ask, has no reason to say that it is nowhere."""
    await fs.write(f"{REC}/file", OLD)
    await fs.drain()
    await backed_up(fs)
    await evict(fs, f"{REC}/file")
    await fs.drain()
    await fs.stop()
    restore = Restore(fs.config, lambda line: None, fs.objects)
    finds = (await trio.to_thread.run_sync(lambda: restore.dry_run(None, None)))["finds"]
    await fs.reopen()
    assert [each for each in finds if each["what"] == "gone"] == []


async def test_while_s3_is_away_it_waits_and_no_daemon_takes_the_store(fs: Filesystem) -> None:
    await away(fs, "away", OLD)
    await backed_up(fs)
    await away(fs, "new", NEW)
    await fs.stop()
    bucket(fs).fail("*", Unreachable("no route"), times=10_000)
    restore = Restore(fs.config, lambda line: None, fs.objects)
    for _ in range(2):
        with pytest.raises(Unreachable):
            await trio.to_thread.run_sync(lambda: restore.run(None, None, forget=False))
    async with trio.open_nursery() as nursery:
        other = Filesystem(nursery, fs.root, **S3)
        other.objects = fs.objects
        with pytest.raises(StoreError, match="has not been compared with the bucket yet"):
            await other.start()
    bucket(fs).heal()
    found = await trio.to_thread.run_sync(lambda: restore.run(None, None, forget=False))
    assert found["bucket"]["came"] == [f"{REC}/new"]
    await fs.reopen()
    await fs.drain()
    assert await fs.read(f"{REC}/new") == NEW
    assert await fs.read(f"{REC}/away") == OLD
    assert not (fs.root / ".recfs/restore.json").exists()


async def test_it_can_be_done_without_the_bucket(fs: Filesystem) -> None:
    await away(fs, "away", OLD)
    await backed_up(fs)
    bucket(fs).fail("*", Unreachable("no route"), times=10_000)
    await fs.stop()
    restore = Restore(fs.config, lambda line: None, fs.objects)
    await trio.to_thread.run_sync(lambda: restore.run(None, None, forget=False, bucket=False))
    bucket(fs).heal()
    await fs.reopen()
    await fs.drain()
    assert await fs.read(f"{REC}/away") == OLD


async def test_a_prefix_that_is_anothers_is_not_taken_for_this_stores(fs: Filesystem, place: Path) -> None:
    await away(fs, "away", OLD)
    await backed_up(fs)
    async with filesystem(place / "other", start=False, **S3) as other:
        other.objects, other.checked_at_end = fs.objects, False
        await other.start()
        await other.parts.tier.ownership.claim()  # type: ignore[union-attr]
    await fs.stop()
    restore = Restore(fs.config, lambda line: None, fs.objects)
    with pytest.raises(PrefixTaken, match="not this store's"):
        await trio.to_thread.run_sync(lambda: restore.run(None, None, forget=False))
    await fs.parts.tier.ownership.mark()  # type: ignore[union-attr]
    await trio.to_thread.run_sync(lambda: restore.run(None, None, forget=False, bucket=False))


@pytest.mark.slow
async def test_a_death_before_any_answer_is_made_up_for(fs: Filesystem, place: Path) -> None:
    """Run again, it comes to the same."""
    await away(fs, "lost", OLD + b"lost")
    await away(fs, "renamed", OLD)
    await backed_up(fs)
    await fs.rename(f"{REC}/renamed", f"{REC}/other-name")
    await away(fs, "new", NEW)
    await fs.drain()
    bucket(fs).vanish(f"{REC}/lost")
    await fs.stop()
    restore, failed = Restore(fs.config, lambda line: None, fs.objects), 0
    for skip in range(50):
        bucket(fs).heal()
        bucket(fs).fail("*", Unreachable("gone"), times=1, skip=skip)
        try:
            found = await trio.to_thread.run_sync(lambda: restore.run(None, None, forget=False))
        except Unreachable:
            failed += 1
        if bucket(fs)._faults[0].times:
            break  # it was not met
    assert failed >= 4
    bucket(fs).heal()
    assert found["bucket"]["lost"] == [f"{REC}/lost"]
    await fs.reopen()
    await fs.drain()
    assert await fs.read(f"{REC}/other-name") == OLD
    assert await fs.read(f"{REC}/new") == NEW
    assert await fs.names(REC) == ["lost", "new", "other-name"]


async def dated(fs: Filesystem, path: str) -> int:
    """Give a recording a date; its number in the mount."""
    folder = await fs.node(path)
    await fs.xattrs.set(folder.ino, b"user.recfs.expires_at", b"2040-01-01T00:00:00Z", _operator())
    return folder.ino


async def has_date(fs: Filesystem, path: str) -> bool:
    """Whether it has one."""
    node = await fs.node(path)
    assert isinstance(node, DirNode)
    return node.life is not None and node.life.expires_ns is not None


async def later(monkeypatch: pytest.MonkeyPatch, fs: Filesystem) -> None:
    """A backup, made long after what is there came into being."""
    monkeypatch.setattr(survey, "SECOND_NS", 0)
    await backed_up(fs)


async def test_a_recording_that_s3_alone_has_keeps_its_dates(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was renamed since, and nothing of it is on the disk but its directory; a new one has its name."""
    await away(fs, "source.mp4", OLD)
    await note(fs, f"{REC}/source.mp4", b"note")
    ino = await dated(fs, REC)
    await later(monkeypatch, fs)
    await fs.rename(REC, OTHER_REC)
    await fs.write(f"{REC}/source.mp4", NEW)
    await fs.drain()
    await evict(fs, f"{REC}/source.mp4")
    await fs.drain()
    found = await restored(fs)
    assert found["moved"] == [f"{REC} -> {OTHER_REC}"]
    assert found["remade"] == found["gone"] == found["bucket"]["lost"] == []
    assert (await fs.node(OTHER_REC)).ino == ino
    assert await has_date(fs, OTHER_REC)
    assert not await has_date(fs, REC)
    assert await attribute(fs, f"{OTHER_REC}/source.mp4") == b"note"
    assert await fs.read(f"{OTHER_REC}/source.mp4") == OLD
    assert await fs.read(f"{REC}/source.mp4") == NEW
    await fs.assert_consistent()


async def test_a_new_recording_that_got_the_number_of_one_that_is_gone_does_not_get_its_dates(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be removed in its place."""
    await away(fs, "source.mp4", OLD)
    await dated(fs, REC)
    await later(monkeypatch, fs)
    await fs.rename(REC, OTHER_REC)  # stands for another directory that got the same number
    await fs.drain()
    monkeypatch.setattr(Beneath, "born_ns", lambda self, path: time.time_ns())
    found = await restored(fs)
    assert found["moved"] == []
    assert not await has_date(fs, OTHER_REC)


async def test_recordings_that_s3_alone_has_and_that_have_changed_places(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, data in ((REC, OLD), (OTHER_REC, NEW)):
        await fs.write(f"{path}/source.mp4", data)
        await fs.drain()
        await evict(fs, f"{path}/source.mp4")
        await note(fs, f"{path}/source.mp4", path.encode())
    ino = await dated(fs, REC)
    await later(monkeypatch, fs)
    await fs.rename(REC, "users/5/recordings/999")
    await fs.rename(OTHER_REC, REC)
    await fs.rename("users/5/recordings/999", OTHER_REC)
    await fs.drain()
    found = await restored(fs)
    assert found["remade"] == found["bucket"]["lost"] == found["bucket"]["changed"] == []
    assert (await fs.node(OTHER_REC)).ino == ino
    assert await has_date(fs, OTHER_REC)
    assert not await has_date(fs, REC)
    for path, was, data in ((OTHER_REC, REC, OLD), (REC, OTHER_REC, NEW)):
        assert await attribute(fs, f"{path}/source.mp4") == was.encode()
        assert await fs.read(f"{path}/source.mp4") == data
    await fs.drain()
    await fs.assert_consistent()


@pytest.mark.parametrize("ring", ["ab", "abc"])
async def test_files_that_s3_alone_has_and_that_have_changed_places(fs: Filesystem, ring: str) -> None:
    """What is known of each goes with its bytes."""
    for name in ring:
        await away(fs, name, OLD + name.encode())
        await note(fs, f"{REC}/{name}", name.encode())
    inos = {name: (await fs.node(f"{REC}/{name}")).ino for name in ring}
    await backed_up(fs)
    await fs.rename(f"{REC}/{ring[-1]}", f"{REC}/held")
    for before, after in reversed(list(itertools.pairwise(ring))):
        await fs.rename(f"{REC}/{before}", f"{REC}/{after}")
    await fs.rename(f"{REC}/held", f"{REC}/{ring[0]}")
    await fs.drain()
    found = await restored(fs)
    assert len(found["bucket"]["moved"]) == len(ring)
    assert found["bucket"]["changed"] == found["bucket"]["lost"] == []
    for number, name in enumerate(ring):
        was = ring[number - 1]
        assert (await fs.node(f"{REC}/{name}")).ino == inos[was]
        assert await attribute(fs, f"{REC}/{name}") == was.encode()
        assert await fs.read(f"{REC}/{name}") == OLD + was.encode()
    assert sorted(await fs.names(REC)) == sorted(ring)
    await fs.drain()
    await fs.assert_consistent()


async def test_files_that_s3_alone_has_and_that_were_rotated(fs: Filesystem) -> None:
    """The last one's bytes are overwritten, and the first name is a new file's."""
    for name in "abc":
        await away(fs, name, OLD + name.encode())
        await note(fs, f"{REC}/{name}", name.encode())
    await backed_up(fs)
    await fs.rename(f"{REC}/b", f"{REC}/c")
    await fs.rename(f"{REC}/a", f"{REC}/b")
    await away(fs, "a", NEW)
    await fs.drain()
    found = await restored(fs)
    assert found["bucket"]["lost"] == []
    for name, was in (("b", b"a"), ("c", b"b")):
        assert await attribute(fs, f"{REC}/{name}") == was
        assert await fs.read(f"{REC}/{name}") == OLD + was
    assert await fs.read(f"{REC}/a") == NEW
    assert sorted(await fs.names(REC)) == ["a", "b", "c"]
    await fs.drain()
    await fs.assert_consistent()


async def test_a_file_that_left_its_directory_for_its_old_name(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two recordings have changed places, and a file of one went back: its object is where it was. Nothing is lost of
    what has its name in the other.
    """
    for path, data in ((REC, OLD), (OTHER_REC, NEW)):
        await fs.write(f"{path}/b", data)
        await fs.write(f"{path}/here", path.encode())
        await fs.drain()
        await evict(fs, f"{path}/b")
        await note(fs, f"{path}/b", path.encode())
    await later(monkeypatch, fs)
    await fs.rename(REC, "users/5/recordings/999")
    await fs.rename(OTHER_REC, REC)
    await fs.rename("users/5/recordings/999", OTHER_REC)
    await fs.drain()
    await fs.unlink(f"{OTHER_REC}/b")
    await fs.rename(f"{REC}/b", f"{OTHER_REC}/b")
    await fs.drain()
    third = OLD + b"third"
    await away(fs, "b", third)
    await fs.drain()
    assert bucket(fs).data(f"{REC}/b") == third
    await restored(fs)
    assert await fs.read(f"{REC}/b") == third
    assert await fs.read(f"{OTHER_REC}/b") == NEW
    assert await attribute(fs, f"{OTHER_REC}/b") == OTHER_REC.encode()
    for path in (REC, OTHER_REC):
        assert sorted(await fs.names(path)) == ["b", "here"]
    await fs.drain()
    await fs.assert_consistent()


async def _described(fs: Filesystem, name: str) -> tuple[int, int, int, int]:
    node = await fs.node(f"{REC}/{name}")
    return stat.S_IMODE(node.mode), node.uid, node.gid, node.mtime_ns


async def test_mode_owner_and_time_that_changed_since_come_from_the_metadata(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files that S3 alone has, and whose bytes and etags are the same. What the backup knows better is told S3."""
    monkeypatch.setattr(bucket(fs), "_now", time.time_ns)
    for name in ("described", "renamed", "before"):
        await away(fs, name, OLD + name.encode())
    before = await fs.node(f"{REC}/before")
    await fs.vfs.setattr(before.ino, _mode(0o444), _operator())
    await backed_up(fs)
    await fs.rename(f"{REC}/renamed", f"{REC}/named")
    for name in ("described", "named"):
        ino = (await fs.node(f"{REC}/{name}")).ino
        await fs.vfs.setattr(ino, Changes(mode=0o600, uid=12345, gid=54321, mtime_ns=10**18), _operator())
    await fs.drain()
    found = await restored(fs)
    assert found["bucket"]["changed"] == found["bucket"]["lost"] == []
    for name in ("described", "named"):
        assert await _described(fs, name) == (0o600, 12345, 54321, 10**18), name
    assert (await _described(fs, "before"))[0] == 0o444
    await holds(fs, {"described": OLD + b"described", "named": OLD + b"renamed", "before": OLD + b"before"})


async def test_a_mode_that_s3_was_not_told_before_the_backup_is_kept_and_told(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there was put there just before, and says what was true then."""
    monkeypatch.setattr(bucket(fs), "_now", time.time_ns)
    await away(fs, "file", OLD)
    await fs.vfs.setattr((await fs.node(f"{REC}/file")).ino, _mode(0o444), _operator())
    await fs.parts.work.upkeep.backups.make()
    await fs.crash()
    assert bucket(fs).head(f"{REC}/file").metadata["mode"] == "0644"  # type: ignore[union-attr]
    restore = Restore(fs.config, lambda line: None, fs.objects)
    await trio.to_thread.run_sync(lambda: restore.run(None, None, forget=False))
    await fs.reopen()
    await fs.drain()
    assert (await _described(fs, "file"))[0] == 0o444
    assert bucket(fs).head(f"{REC}/file").metadata["mode"] == "0444"  # type: ignore[union-attr]


async def test_an_owner_that_no_machine_has_is_bounded(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata are what anybody with the bucket's keys has written."""
    monkeypatch.setattr(bucket(fs), "_now", time.time_ns)
    await away(fs, "known", OLD)
    await backed_up(fs)
    await away(fs, "new", NEW)
    for name in ("known", "new"):
        held = bucket(fs)._objects[f"{REC}/{name}"]
        held.metadata = held.metadata | {"owner": "9999999999:9999999999", "mode": "7777777"}
    await restored(fs)
    for name in ("known", "new"):
        node = await fs.node(f"{REC}/{name}")
        assert max(node.uid, node.gid) < 1 << 32, name
        assert node.mode <= 0o7777, name
    assert await fs.read(f"{REC}/known") == OLD
    assert await fs.read(f"{REC}/new") == NEW
