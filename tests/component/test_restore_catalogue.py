"""`recfs restore-catalogue`: an older catalogue in the place of the store's own, and what has changed since."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest
import trio

from recfs.core.upkeep.backups import Kept
from recfs.errors import BackupDamaged, InvalidArgument, IoFailure, NotAStore, NotFound, RootBusy, StoreError
from recfs.fs.attributes import Changes
from recfs.fs.recovery import comparison
from recfs.rescue.restore import Restore
from recfs.stores import restoring

from .build import OPERATOR, REC, Filesystem, filesystem, pattern
from .test_generations import checksums_are_right
from .watching import watching

ExpectLog = Callable[[str], None]
KEEPS: dict[str, Any] = {"trash": {"retention": 86_400}}
OLD, NEW = pattern(9000, seed=1), pattern(9000, seed=2)


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """A running store that keeps what is deleted."""
    async with filesystem(place / "store", **KEEPS) as running:
        running.checked_at_end = False
        yield running


async def backed_up(fs: Filesystem) -> Kept:
    """A backup, made while the store is in use."""
    await fs.drain()
    fs.clock.advance(1)
    return await fs.parts.work.upkeep.backups.make()


async def restored(fs: Filesystem, wanted: str | None = None, **options: Any) -> dict[str, Any]:
    """What the command says, with the store at rest; the store is in use again afterwards."""
    await fs.stop()
    said: list[str] = []
    restore = Restore(fs.config, said.append)
    options = {"identity": None, "forget": False} | options
    found = await trio.to_thread.run_sync(
        lambda: restore.run(wanted, options["identity"], forget=options["forget"])
    )  # virtual time stands still meanwhile
    assert said
    await fs.reopen()
    return found


async def attribute(fs: Filesystem, path: str, name: bytes = b"user.note") -> bytes:
    """What a user wrote to a file."""
    return bytes(await fs.xattrs.get((await fs.node(path)).ino, name))


async def note(fs: Filesystem, path: str, value: bytes) -> None:
    """Write it."""
    await fs.xattrs.set((await fs.node(path)).ino, b"user.note", value, OPERATOR)


def aside(fs: Filesystem) -> list[str]:
    """What a restore has left beside the catalogue, but for what it keeps."""
    return sorted(
        each.name
        for each in (fs.root / ".recfs").iterdir()
        if each.name.startswith(("restore", "recfs-backup", restoring.NEXT))
    )


@pytest.mark.usefixtures("any_log")
@pytest.mark.slow
async def test_everything_that_changed_since_is_there_byte_for_byte(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "TICK_NS", 0)  # what was written in the second before the backup is as it was
    names = ("same", "overwritten", "appended", "in-place", "replaced", "deleted", "renamed", "moved", "mode")
    for name in names:
        await fs.write(f"{REC}/{name}", OLD + name.encode())
        await note(fs, f"{REC}/{name}", b"of " + name.encode())
    await fs.write(f"{REC}/folder/below/deep", OLD)
    await note(fs, f"{REC}/folder/below/deep", b"deep down")
    await fs.write("users/6/recordings/1/of-another", OLD)
    await fs.vfs.symlink((await fs.node(REC)).ino, b"link", b"target", OPERATOR)
    inos = {name: (await fs.node(f"{REC}/{name}")).ino for name in (*names, "folder", "folder/below/deep")}
    made = await backed_up(fs)
    await fs.write(f"{REC}/overwritten", NEW)
    await fs.write(f"{REC}/appended", NEW, append=True)
    number = await fs.open(f"{REC}/in-place", os.O_RDWR)
    await fs.vfs.files.write(number, 0, NEW)
    await fs.close(number)
    await fs.write(f"{REC}/.part", NEW)
    await fs.rename(f"{REC}/.part", f"{REC}/replaced")
    await fs.unlink(f"{REC}/deleted")
    await fs.rename(f"{REC}/renamed", f"{REC}/other-name")
    await fs.mkdirs("users/7/recordings/1/sub")
    await fs.rename(f"{REC}/moved", "users/7/recordings/1/sub/moved")
    await fs.rename(f"{REC}/folder", "users/7/recordings/1/folder-2")
    await fs.write("users/7/recordings/1/folder-2/below/new", NEW)
    await fs.vfs.setattr((await fs.node(f"{REC}/mode")).ino, Changes(mode=0o600), OPERATOR)
    await fs.write("users/8/recordings/2/of-a-new-user", NEW)
    await fs.write(f"{REC}/made-and-deleted", NEW)
    await fs.drain()
    await fs.unlink(f"{REC}/made-and-deleted")
    await fs.drain()
    before = await fs.tree()
    last_ino = (await fs.node("users/8/recordings/2/of-a-new-user")).ino
    found = await restored(fs)
    assert found["backup"] == made.header.name
    assert await fs.tree() == before
    assert set(found["moved"]) == {
        f"{REC}/renamed -> {REC}/other-name",
        f"{REC}/moved -> users/7/recordings/1/sub/moved",
        f"{REC}/folder -> users/7/recordings/1/folder-2",
    }
    assert set(found["taken"]) == {
        f"{REC}/{name}" for name in ("overwritten", "appended", "in-place", "replaced", "mode")
    }
    assert f"{REC}/deleted" in found["trashed"]
    assert found["gone"] == found["forgotten"] == found["set_aside"] == []
    for path, ino in (
        (f"{REC}/other-name", inos["renamed"]),
        ("users/7/recordings/1/sub/moved", inos["moved"]),
        ("users/7/recordings/1/folder-2", inos["folder"]),
        ("users/7/recordings/1/folder-2/below/deep", inos["folder/below/deep"]),
        (f"{REC}/same", inos["same"]),
    ):
        assert (await fs.node(path)).ino == ino, path
    assert await attribute(fs, f"{REC}/other-name") == b"of renamed"
    assert await attribute(fs, "users/7/recordings/1/folder-2/below/deep") == b"deep down"
    assert (await fs.node(f"{REC}/mode")).mode == 0o600
    await checksums_are_right(fs, {path: data for path, data in before.items() if data and not data.startswith(b"->")})
    lost = fs.leftovers("lost+found")
    assert [(fs.root / ".recfs/lost+found" / name).read_bytes() for name in lost] == [NEW]
    assert f"lost+found/{lost[0]}" in found["lost"][0]
    kept = await fs.answers()["trash_list"]({})
    assert {each["path"] for each in kept["entries"]} >= {f"{REC}/deleted", f"{REC}/overwritten"}
    number = next(each["number"] for each in kept["entries"] if each["path"] == f"{REC}/deleted")
    await fs.answers()["trash_restore"]({"ids": [number]})
    assert await fs.read(f"{REC}/deleted") == OLD + b"deleted"
    await fs.write(f"{REC}/fresh", b"fresh")
    assert (await fs.node(f"{REC}/fresh")).ino > last_ino, "no inode number is used twice"
    await fs.drain()
    trash = len((await fs.answers()["trash_list"]({}))["entries"])
    await fs.assert_consistent(lost=1, trash=trash)
    assert aside(fs) == []
    await fs.stop()
    await fs.reopen()
    assert fs.parts.recovered.said == []


@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("forget", [False, True])
async def test_what_is_nowhere_is_named_and_its_row_stays_unless_it_is_told_to_go(place: Path, forget: bool) -> None:
    async with filesystem(place / "store") as fs:
        fs.checked_at_end = False
        await fs.write(f"{REC}/gone", OLD)
        await fs.write(f"{REC}/folder/gone-too", OLD)
        await fs.write(f"{REC}/stays", OLD)
        await backed_up(fs)
        for path in ("gone", "folder/gone-too"):
            await fs.unlink(f"{REC}/{path}")
        await fs.rmdir(f"{REC}/folder")
        await fs.drain()
        found = await restored(fs, forget=forget)
        missing = [f"{REC}/folder/gone-too", f"{REC}/gone"]
        assert sorted(found["forgotten" if forget else "gone"]) == missing
        assert found["gone" if forget else "forgotten"] == []
        assert await fs.read(f"{REC}/stays") == OLD
        if forget:
            assert await fs.names(REC) == ["stays"]
            assert fs.account() == (len(OLD), 1)
            await fs.assert_consistent()
            return
        assert await fs.names(REC) == ["folder", "gone", "stays"]
        with pytest.raises(IoFailure, match="bytes are missing"):
            await fs.read(f"{REC}/gone")
        assert (await fs.node(f"{REC}/gone")).sha256 == hashlib.sha256(OLD).digest(), "what is left of it"
        for path in missing:
            await fs.unlink(path)
        await fs.assert_consistent()


@pytest.mark.usefixtures("any_log", "autojump_clock")
async def test_what_is_nowhere_stays_so_for_whoever_watches(place: Path) -> None:
    """Its row is all that is left: it goes when a user removes it, or the operator says so; its bytes may come back."""
    async with filesystem(place / "store") as fs:
        fs.checked_at_end = False
        names = ["accepted", "back", "other-bytes", "removed"]
        for name in names:
            await fs.write(f"{REC}/{name}", OLD)
        await fs.write(f"{REC}/stays", OLD)
        await note(fs, f"{REC}/back", b"kept")
        await backed_up(fs)
        home, kept = fs.root / REC, place / "kept"
        (home / "back").rename(kept)
        for name in ("accepted", "other-bytes", "removed"):
            (home / name).unlink()
        await restored(fs)
        for again in (False, True):
            if again:
                await fs.stop()
                await fs.reopen()
            async with watching(fs) as watched:
                await watched.settled()
                assert watched.count("removed") == 0
                assert (watched.waiting, watched.watcher.as_json()["missing_files"]) == (0, 4)
                assert await fs.names(REC) == [*names, "stays"]
                assert sorted(watched.problems()) == [f"{REC}/{name}" for name in names]
                assert all("nowhere" in why for why in watched.problems().values())
                with pytest.raises(IoFailure, match="bytes are missing"):
                    await fs.read(f"{REC}/back")
        async with watching(fs) as watched:
            await watched.settled()
            kept.rename(home / "back")
            (home / "other-bytes").write_bytes(NEW)
            await fs.unlink(f"{REC}/removed")
            await watched.settled()
            assert await fs.names(REC) == ["accepted", "back", "other-bytes", "stays"]
            assert list(watched.problems()) == [f"{REC}/accepted"]
            assert await fs.read(f"{REC}/back") == OLD
            assert await attribute(fs, f"{REC}/back") == b"kept"
            assert await fs.read(f"{REC}/other-bytes") == NEW
            (home / "back").unlink()  # it is a file like others again
            await watched.settled()
            assert await fs.names(REC) == ["accepted", "other-bytes", "stays"]
            assert (await fs.answers()["status"]({}))["set_aside"]
            assert watched.watcher.accept() == 1
            await watched.settled()
            assert watched.problems() == {}
            assert watched.watcher.as_json()["missing_files"] == 0
        assert await fs.names(REC) == ["other-bytes", "stays"]
        await fs.assert_consistent()


@pytest.mark.usefixtures("any_log")
async def test_a_dry_run_tells_what_there_would_be_and_changes_nothing(fs: Filesystem) -> None:
    for name in ("same", "renamed", "deleted", "changed"):
        await fs.write(f"{REC}/{name}", OLD)
    await backed_up(fs)
    await fs.rename(f"{REC}/renamed", f"{REC}/other-name")
    await fs.unlink(f"{REC}/deleted")
    await fs.write(f"{REC}/changed", NEW)
    await fs.write(f"{REC}/new/file", NEW)
    await fs.drain()
    before = await fs.tree()
    await fs.stop()

    def disk() -> dict[str, tuple[int, int, int]]:
        return {
            str(path): (info.st_size, info.st_mtime_ns, info.st_ino)
            for path in fs.root.rglob("*")
            if path.name not in ("lock", "catalogue.db-shm") and not path.is_dir() and (info := path.lstat())
        }

    there = disk()
    found = await trio.to_thread.run_sync(lambda: Restore(fs.config, lambda line: None).dry_run(None, None))
    assert disk() == there
    told = {(each["what"], each["path"]) for each in found["finds"]}
    assert told >= {
        ("moved", f"{REC}/renamed -> {REC}/other-name"),
        ("changed", f"{REC}/changed"),
        ("came", f"{REC}/new"),
        ("came", f"{REC}/new/file"),
    }
    assert any(what == "in trash" and f"{REC}/deleted" in path for what, path in told)
    assert not any(what == "gone" for what, _ in told)
    await fs.reopen()
    assert await fs.tree() == before
    assert fs.parts.recovered.said == []


@pytest.mark.usefixtures("any_log")
async def test_a_dry_run_counts_as_come_what_a_restore_takes_and_names_what_it_leaves_alone(fs: Filesystem) -> None:
    await fs.write(f"{REC}/same", OLD)
    await backed_up(fs)
    await fs.write(f"{REC}/new/file", NEW)
    await fs.drain()
    await fs.stop()
    (fs.root / "users/no id/recordings/1").mkdir(parents=True)
    (fs.root / "users/no id/recordings/1/file").write_bytes(NEW)
    (fs.root / "users/5/notes").write_bytes(NEW)
    os.mkfifo(fs.root / REC / "pipe")
    restore = Restore(fs.config, lambda line: None)
    found = await trio.to_thread.run_sync(lambda: restore.dry_run(None, None))
    paths = {what: {each["path"] for each in found["finds"] if each["what"] == what} for what in ("came", "refused")}
    assert paths["refused"] == {"users/no id", "users/5/notes", f"{REC}/pipe"}
    done = await trio.to_thread.run_sync(lambda: restore.run(None, None, forget=False))
    assert paths["came"] == set(done["found"]) == {f"{REC}/new", f"{REC}/new/file"}
    assert (fs.root / "users/no id/recordings/1/file").read_bytes() == NEW
    await fs.reopen()


@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("harm", ["missing", "garbage", "log gone"])
async def test_a_damaged_catalogue_is_replaced_and_kept(fs: Filesystem, tmp_path: Path, harm: str) -> None:
    await fs.write(f"{REC}/file", OLD)
    await backed_up(fs)
    await fs.write(f"{REC}/new", NEW)
    await fs.drain()
    await fs.stop()
    catalogue = fs.root / ".recfs/catalogue.db"
    damaged = os.urandom(9000)
    if harm == "missing":
        catalogue.unlink()
    else:
        catalogue.write_bytes(damaged)
        (fs.root / ".recfs/catalogue.db-wal").write_bytes(damaged)
    found = await trio.to_thread.run_sync(lambda: Restore(fs.config, lambda line: None).run(None, None, forget=False))
    await fs.reopen()
    await checksums_are_right(fs, {f"{REC}/file": OLD, f"{REC}/new": NEW})
    kept = fs.root / ".recfs" / found["kept_as"]
    if harm == "missing":
        assert not kept.exists()
    else:
        assert kept.read_bytes() == damaged
        assert Path(f"{kept}-wal").read_bytes() == damaged
        modes = {stat.S_IMODE(os.stat(path).st_mode) for path in (catalogue, kept, f"{kept}-wal")}
        assert modes == {0o600}, "nobody else reads them"
    await fs.assert_consistent()


@pytest.mark.usefixtures("any_log")
async def test_a_file_that_lies_anywhere_is_taken_and_one_of_another_store_is_not(
    fs: Filesystem, place: Path, tmp_path: Path
) -> None:
    await fs.write(f"{REC}/file", OLD)
    made = await backed_up(fs)
    lonely = tmp_path / "any.db"
    shutil.copy(fs.root / ".recfs/backups" / made.header.name, lonely)
    async with filesystem(place / "other") as other:
        await other.write(f"{REC}/theirs", NEW)
        theirs = await backed_up(other)
        foreign = other.root / ".recfs/backups" / theirs.header.name
        await fs.write(f"{REC}/file", NEW)
        await fs.drain()
        await fs.stop()
        restore = Restore(fs.config, lambda line: None)
        with pytest.raises(StoreError, match="another store's"):
            await trio.to_thread.run_sync(lambda: restore.run(str(foreign), None, forget=False))
    await fs.reopen()
    found = await restored(fs, str(lonely))
    assert found["taken"] == [f"{REC}/file"]
    assert await fs.read(f"{REC}/file") == NEW
    await fs.drain()
    await fs.assert_consistent(trash=1)


async def test_what_cannot_be_restored_changes_nothing(place: Path, tmp_path: Path) -> None:
    key, other = (pyrage.x25519.Identity.generate() for _ in range(2))
    (tmp_path / "other.txt").write_text(str(other))
    async with filesystem(place / "store", backup={"recipients": [str(key.to_public())]}) as fs:
        await fs.write(f"{REC}/file", OLD)
        made = await backed_up(fs)
        restore = Restore(fs.config, lambda line: None)

        async def run(wanted: str | None = None, identity: Path | None = None) -> None:
            await trio.to_thread.run_sync(lambda: restore.run(wanted, identity, forget=False))

        with pytest.raises(RootBusy):
            await run()
        await fs.stop()
        before = (fs.root / ".recfs/catalogue.db").read_bytes()
        with pytest.raises(InvalidArgument, match="give --identity"):
            await run()
        with pytest.raises(InvalidArgument, match="other keys"):
            await run(None, tmp_path / "other.txt")
        with pytest.raises(NotFound):
            await run("catalogue-x.db")
        file = fs.root / ".recfs/backups" / made.header.name
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        (tmp_path / "key.txt").write_text(str(key))
        with pytest.raises(BackupDamaged):
            await run(None, tmp_path / "key.txt")
        nowhere = fs.config.model_copy(update={"root": tmp_path / "nowhere"})
        with pytest.raises(NotAStore):
            await trio.to_thread.run_sync(lambda: Restore(nowhere, print).run(None, None, forget=False))
        assert not (tmp_path / "nowhere").exists()
        assert (fs.root / ".recfs/catalogue.db").read_bytes() == before
        assert aside(fs) == []
        await fs.reopen()
        assert fs.parts.recovered.said == []


# --- deaths --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("any_log")
@pytest.mark.slow
async def test_a_death_before_any_step_leaves_the_one_catalogue_or_the_other(place: Path) -> None:
    """Dies while it is put in place, again while the next start compares; the third one finds all of it."""
    step, done = 0, False
    while not done:
        step += 1
        async with filesystem(place / str(step), **KEEPS) as fs:
            fs.checked_at_end = False
            for name in ("same", "renamed", "deleted", "changed"):
                await fs.write(f"{REC}/{name}", OLD)
            await note(fs, f"{REC}/renamed", b"kept")
            made = await backed_up(fs)
            await fs.rename(f"{REC}/renamed", f"{REC}/other-name")
            await fs.unlink(f"{REC}/deleted")
            await fs.write(f"{REC}/changed", NEW)
            await fs.write(f"{REC}/new", NEW)
            await fs.drain()
            before = await fs.tree()
            await fs.stop()
            backup = fs.root / ".recfs/backups" / made.header.name
            with fs.faults.installed():
                done = await fs.until_stopped(lambda fs, file=backup: _place(fs, file), step)  # type: ignore[misc]
            await fs.start_and_die(1 + step * 7 % 23)
            await fs.reopen()
            await fs.drain()
            assert await fs.tree() == before, step
            await checksums_are_right(fs, {path: data for path, data in before.items() if data})
            assert aside(fs) == []
            if done:
                assert await attribute(fs, f"{REC}/other-name") == b"kept"
            trash = len((await fs.answers()["trash_list"]({}))["entries"])
            await fs.assert_consistent(trash=trash)
    assert step > 5


async def _place(fs: Filesystem, backup: Path) -> None:
    private = fs.root / ".recfs"
    shutil.copy(backup, private / restoring.NEXT)
    restoring.place(private, restoring.Restoration("the backup", f"{restoring.ASIDE}now"))


@pytest.mark.usefixtures("any_log")
async def test_the_command_goes_on_with_a_restore_that_died(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", OLD)
    made = await backed_up(fs)
    await fs.write(f"{REC}/file", NEW)
    await fs.drain()
    await fs.stop()
    private = fs.root / ".recfs"
    shutil.copy(private / "backups" / made.header.name, private / restoring.NEXT)
    restoring.note(private, restoring.Restoration("an earlier one", f"{restoring.ASIDE}now"))
    (private / "recfs-backup-left").mkdir()
    await fs.reopen()
    found = fs.parts.recovered
    assert found.taken == [f"{REC}/file"], "a start does as much"
    await fs.stop()
    shutil.copy(private / "backups" / made.header.name, private / restoring.NEXT)
    restoring.note(private, restoring.Restoration("a later one", f"{restoring.ASIDE}then"))
    await fs.reopen()
    await fs.stop()
    shutil.copy(private / "backups" / made.header.name, private / restoring.NEXT)
    restoring.note(private, restoring.Restoration("the last one", f"{restoring.ASIDE}last"))
    told = await trio.to_thread.run_sync(
        lambda: Restore(fs.config, lambda line: None).run("ignored", None, forget=False)
    )
    assert told["backup"] == "the last one"
    assert aside(fs) == []
    await fs.reopen()
    assert await fs.read(f"{REC}/file") == NEW


async def test_a_note_that_says_nothing_is_not_ignored(fs: Filesystem) -> None:
    await fs.stop()
    (fs.root / ".recfs" / restoring.NOTE).write_text("{}")
    with pytest.raises(StoreError, match="cannot be read: move it away"):
        restoring.under_way(fs.root / ".recfs")
    (fs.root / ".recfs" / restoring.NOTE).unlink()
    (fs.root / ".recfs" / restoring.NEXT).write_text("half of one")
    await fs.reopen()
    assert aside(fs) == []


@pytest.mark.usefixtures("any_log")
async def test_the_trash_is_kept_whatever_the_commands_configuration_says(fs: Filesystem) -> None:
    await fs.write(f"{REC}/deleted", OLD)
    await backed_up(fs)
    await fs.unlink(f"{REC}/deleted")
    await fs.drain()
    await fs.stop()
    careless = fs.config.model_copy(update={"trash": type(fs.config.trash)()})
    found = await trio.to_thread.run_sync(lambda: Restore(careless, lambda line: None).run(None, None, forget=False))
    assert f"{REC}/deleted" in found["trashed"]
    await fs.reopen()
    kept = await fs.answers()["trash_list"]({})
    assert [each["path"] for each in kept["entries"]] == [f"{REC}/deleted"]


@pytest.mark.usefixtures("any_log")
async def test_no_job_expires_for_what_the_backup_does_not_know_of_it(fs: Filesystem) -> None:
    await fs.write("temp/5/77/part", OLD)
    made = await backed_up(fs)
    fs.clock.advance(20 * 3600)
    await fs.write("temp/5/77/part", NEW)
    await fs.drain()
    await fs.stop()
    await _place(fs, fs.root / ".recfs/backups" / made.header.name)
    fs.clock.advance(20 * 3600)
    await fs.reopen()
    assert [each["action"] for each in (await fs.answers()["sweep_temp"]({}))["jobs"]] == ["kept"]
    assert await fs.read("temp/5/77/part") == NEW


@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("missing", [False, True], ids=["kept", "forgotten"])
async def test_names_that_are_of_another_kind_by_now_are_what_lies_on_the_disk(fs: Filesystem, missing: bool) -> None:
    rec = await fs.node((await fs.mkdirs(REC)).path)
    for name in ("file-dir", "file-link"):
        await fs.write(f"{REC}/{name}", OLD)
    for name in ("dir-file", "dir-link"):
        await fs.write(f"{REC}/{name}/below/old", OLD)
    for name in ("link-file", "link-dir"):
        await fs.vfs.symlink(rec.ino, name.encode(), b"old", OPERATOR)
    made = await backed_up(fs)
    for name in ("file-dir", "file-link", "link-file", "link-dir"):
        await fs.unlink(f"{REC}/{name}")
    for name in ("dir-file", "dir-link"):
        await fs.unlink(f"{REC}/{name}/below/old")
        await fs.rmdir(f"{REC}/{name}/below")
        await fs.rmdir(f"{REC}/{name}")
    for name in ("file-dir", "link-dir"):
        await fs.write(f"{REC}/{name}/sub/precious", NEW)
    for name in ("dir-file", "link-file"):
        await fs.write(f"{REC}/{name}", NEW)
    for name in ("file-link", "dir-link"):
        await fs.vfs.symlink(rec.ino, name.encode(), b"new", OPERATOR)
    await fs.drain()
    await fs.stop()
    dry = Restore(fs.config, lambda said: None)
    told = await trio.to_thread.run_sync(lambda: dry.dry_run(made.header.name, None))
    came = {each["path"] for each in told["finds"] if each["what"] == "came"}
    names = ("file-dir", "file-link", "dir-file", "dir-link", "link-file", "link-dir")
    assert {f"{REC}/{name}" for name in names} <= came
    await fs.reopen()
    found = await restored(fs, made.header.name, forget=missing)
    assert not [each for each in found["lost"] if "trash" not in each]
    await fs.drain()
    for name in ("file-dir", "link-dir"):
        assert await fs.read(f"{REC}/{name}/sub/precious") == NEW
    for name in ("dir-file", "link-file"):
        assert await fs.read(f"{REC}/{name}") == NEW
    for name in ("file-link", "dir-link"):
        assert (await fs.node(f"{REC}/{name}")).target == b"new"
    assert (await fs.answers()["quota_check"]({"repair": False}))["differences"] == []
    await fs.assert_consistent(trash=len((await fs.answers()["trash_list"]({}))["entries"]))


@pytest.mark.usefixtures("any_log")
async def test_a_damaged_backup_is_left_out_where_none_is_named(fs: Filesystem) -> None:
    await fs.write(f"{REC}/one", OLD)
    good = await backed_up(fs)
    await fs.write(f"{REC}/two", OLD)
    bad = await backed_up(fs)
    path = Path(bad.place) / bad.header.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = await restored(fs)
    assert found["backup"] == good.header.name
    await fs.drain()
    assert await fs.read(f"{REC}/two") == OLD


@pytest.mark.usefixtures("any_log")
async def test_bytes_in_the_trash_under_a_number_that_was_given_out_again_are_not_taken_for_others(
    fs: Filesystem,
) -> None:
    await fs.write(f"{REC}/a", b"old a")
    await fs.drain()
    await fs.unlink(f"{REC}/a")
    made = await backed_up(fs)
    (entry,) = (await fs.answers()["trash_list"]({}))["entries"]
    trash = fs.root / ".recfs/trash" / str(entry["number"])
    await fs.stop()
    trash.unlink()
    trash.write_bytes(b"new b")  # as another catalogue has had it since
    await fs.reopen()
    await restored(fs, made.header.name)
    assert (await fs.answers()["trash_list"]({}))["entries"] == []
    lost = [each.read_bytes() for each in (fs.root / ".recfs/lost+found").iterdir()]
    assert lost == [b"new b"]
