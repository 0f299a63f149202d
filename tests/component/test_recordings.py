"""The life of recordings: what expires, what stays, and what a death or a wrong clock does to that."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from recfs.core.life import Status
from recfs.errors import Busy, InvalidArgument, NoAttribute, NotFound, NotPermitted, ReadOnlyFile
from recfs.fs.attributes import Changes

from .build import OPERATOR, REC, USER, Filesystem, filesystem, pattern

DAY = 86_400.0
FILE = f"{REC}/video.mp4"
OTHER = "users/5/recordings/7"
RULES: dict[str, Any] = {"retention": [{"retention": "30d"}], "recordings": {"grace": "7d"}}


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """One whose recordings expire 30 days after their last change, and go 7 days later."""
    async with filesystem(place / "root", **RULES) as made:
        yield made


async def ask(fs: Filesystem, method: str, **params: Any) -> Any:
    """A control method."""
    return await fs.answers()[method](params)


async def sweep(fs: Filesystem, *, dry_run: bool = False) -> dict[str, str]:
    """Sweep now; what became of each recording of which something is to be said."""
    told = await ask(fs, "sweep_expired", dry_run=dry_run)
    return {each["path"]: each["action"] for each in told["recordings"]}


async def show(fs: Filesystem, path: str = REC) -> dict[str, Any]:
    """Everything of a recording."""
    found: dict[str, Any] = await ask(fs, "recording_show", path=path)
    return found


async def expired(fs: Filesystem) -> None:
    """A recording that has just expired."""
    await fs.write(FILE, pattern(5000))
    await fs.drain()
    fs.clock.advance(30.1 * DAY)
    assert await sweep(fs) == {REC: "expire"}


async def test_a_recording_expires_and_goes_after_its_grace(fs: Filesystem) -> None:
    await fs.write(FILE, pattern(5000))
    await fs.write(f"{REC}/deep/er/audio", b"bytes")
    await fs.drain()
    fs.clock.advance(29.9 * DAY)
    assert await sweep(fs) == {}
    fs.clock.advance(0.2 * DAY)
    assert await sweep(fs, dry_run=True) == {REC: "expire"}
    assert (await show(fs))["status"] == "active"
    assert await sweep(fs) == {REC: "expire"}
    told = await show(fs)
    assert (told["status"], told["rule"], told["due_s"]) == ("expired", 1, 7 * DAY)
    assert await fs.read(FILE) == pattern(5000)
    fs.clock.advance(6.9 * DAY)
    assert await sweep(fs) == {}
    fs.clock.advance(0.2 * DAY)
    assert await sweep(fs, dry_run=True) == {REC: "remove"}
    assert await fs.exists(FILE)
    assert await sweep(fs) == {REC: "remove"}
    assert not await fs.exists(REC)
    assert fs.account() == (0, 0)
    assert fs.rows("select count(*) from recording") == [0]
    await fs.assert_consistent()
    assert not (fs.root / REC).exists()


@pytest.mark.parametrize("change", ["write", "append", "mkdir", "unlink", "rename", "chmod", "xattr", "truncate"])
async def test_every_change_inside_counts(fs: Filesystem, change: str) -> None:
    await fs.write(f"{REC}/sub/file", b"bytes")
    await fs.write(f"{REC}/sub/second", b"bytes")
    await fs.drain()
    fs.clock.advance(29 * DAY)
    file = f"{REC}/sub/file"
    node = await fs.node(file)
    if change in ("write", "append"):
        await fs.write(file, b"more", append=change == "append")
    elif change == "mkdir":
        await fs.mkdirs(f"{REC}/sub/sub")
    elif change == "unlink":
        await fs.unlink(f"{REC}/sub/second")
    elif change == "rename":
        await fs.rename(file, f"{REC}/sub/other")
    elif change == "xattr":
        await fs.xattrs.set(node.ino, b"user.note", b"1", OPERATOR)
    else:
        await fs.vfs.setattr(node.ino, Changes(mode=0o600) if change == "chmod" else Changes(size=1), OPERATOR)
    await fs.stop()
    await fs.reopen()
    fs.clock.advance(2 * DAY)
    assert await sweep(fs) == {}
    fs.clock.advance(28.1 * DAY)
    assert await sweep(fs) == {REC: "expire"}


async def test_reading_is_no_change(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    fs.clock.advance(29 * DAY)
    assert await fs.read(FILE) == b"bytes"
    fs.clock.advance(2 * DAY)
    assert await sweep(fs) == {REC: "expire"}


async def test_an_active_writer_costs_one_row_a_minute(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    await fs.parts.behind.flush()
    folder = await fs.node(REC)
    before = folder.life
    for _ in range(5):
        fs.clock.advance(10)
        await fs.write(FILE, b"bytes", append=True)
    assert folder.life is before
    fs.clock.advance(20)
    await fs.write(FILE, b"bytes", append=True)
    assert folder.life.changed_ns > before.changed_ns


# --- what an expired recording refuses --------------------------------------------------------------------------------


async def test_an_expired_recording_takes_nothing_new(fs: Filesystem) -> None:
    await fs.write(f"{REC}/sub/file", b"bytes")
    await fs.write(f"{OTHER}/file", b"other")
    fs.clock.advance(30.1 * DAY)
    await sweep(fs)
    parent, node = (await fs.node(f"{REC}/sub")).ino, await fs.node(f"{REC}/sub/file")
    await ask(fs, "recording_keep", path=OTHER)
    with pytest.raises(ReadOnlyFile):
        await fs.open(f"{REC}/sub/new", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(ReadOnlyFile):
        await fs.open(f"{REC}/sub/file", os.O_WRONLY)
    with pytest.raises(ReadOnlyFile):
        await fs.open(f"{REC}/sub/file", os.O_RDWR)
    with pytest.raises(ReadOnlyFile):
        await fs.vfs.mkdir(parent, b"new", 0o755, OPERATOR)
    with pytest.raises(ReadOnlyFile):
        await fs.vfs.symlink(parent, b"new", b"target", OPERATOR)
    with pytest.raises(ReadOnlyFile):
        await fs.vfs.setattr(node.ino, Changes(size=1), OPERATOR)
    with pytest.raises(ReadOnlyFile):
        await fs.rename(f"{OTHER}/file", f"{REC}/sub/file")
    with pytest.raises(ReadOnlyFile):
        await fs.rename(f"{OTHER}/file", f"{REC}/sub/file", exchange=True)
    with pytest.raises(ReadOnlyFile):
        await fs.rename(f"{REC}/sub/file", f"{REC}/sub/renamed")
    assert await fs.read(f"{REC}/sub/file") == b"bytes"
    await fs.rename(f"{REC}/sub/file", f"{OTHER}/saved")
    assert await fs.read(f"{OTHER}/saved") == b"bytes"
    await fs.rmdir(f"{REC}/sub")


async def test_a_writer_holds_expiring_up_and_a_reader_holds_the_removal_up(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    number = await fs.open(FILE, os.O_RDWR)
    fs.clock.advance(40 * DAY)
    assert await sweep(fs) == {REC: "none"}
    told = await show(fs)
    assert told["reason"].endswith("but 1 file is open for writing")
    assert (told["status"], told["open_files"]) == ("active", 1)
    await fs.close(number)
    assert await sweep(fs) == {REC: "expire"}
    numbers = [await fs.open(FILE), await fs.open(FILE)]
    fs.clock.advance(8 * DAY)
    assert await sweep(fs) == {REC: "none"}
    assert (await show(fs))["reason"].endswith("is over, but 1 file is open")
    assert await fs.read_handle(numbers[0]) == b"bytes"
    for number in numbers:
        await fs.close(number)
    assert await sweep(fs) == {REC: "remove"}


async def test_who_comes_while_it_is_being_removed_finds_nothing(fs: Filesystem) -> None:
    await expired(fs)
    folder = await fs.node(REC)
    folder.life = folder.life._replace(status=Status.REMOVING)
    fs.parts.behind.recording(folder)
    for flags in (os.O_RDONLY, os.O_WRONLY):
        with pytest.raises((NotFound, ReadOnlyFile)):
            await fs.open(FILE, flags)
    for method, params in (
        ("recording_keep", {}),
        ("recording_expire", {}),
        ("recording_set_expiry", {"date": "never"}),
    ):
        with pytest.raises(Busy, match="being removed"):
            await ask(fs, method, path=REC, **params)
    with pytest.raises(Busy, match="being removed"):
        await fs.rename(REC, "users/5/recordings/9")
    await fs.stop()
    await fs.reopen()
    assert await sweep(fs) == {REC: "remove"}
    assert not await fs.exists(REC)


# --- clocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("put", [-1000 * DAY, 1000 * DAY])
async def test_a_clock_that_is_put_ahead_or_back_expires_nothing_and_keeps_nothing(fs: Filesystem, put: float) -> None:
    await fs.write(FILE, b"bytes")
    await fs.write(f"{OTHER}/file", b"dated")
    await ask(fs, "recording_set_expiry", path=OTHER, date="2026-12-05")  # a month ahead
    fs.clock.put(put)
    assert await sweep(fs) == {}
    fs.clock.advance(29 * DAY)
    assert await sweep(fs) == {}
    fs.clock.put(-put)
    assert await sweep(fs) == {}
    fs.clock.advance(2 * DAY)
    assert await sweep(fs) == {REC: "expire", OTHER: "expire"}


async def test_a_date_that_came_by_a_wrong_clock_is_judged_anew_when_it_is_right(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    fs.clock.put(1000 * DAY)
    await ask(fs, "recording_set_expiry", path=REC, date="2028-01-01")  # lies behind, by the clock as it is
    assert await sweep(fs) == {REC: "expire"}
    fs.clock.put(-1000 * DAY)
    assert await sweep(fs) == {REC: "revive"}
    assert (await show(fs))["status"] == "active"


async def test_what_a_wrong_clock_recorded_has_its_full_time_from_the_start_on(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    await fs.drain()
    await fs.stop()
    fs.clock.passed_ns -= round(1000 * DAY * 1e9)
    await fs.reopen()
    fs.clock.advance(29.9 * DAY)
    assert await sweep(fs) == {}
    fs.clock.advance(0.2 * DAY)
    assert await sweep(fs) == {REC: "expire"}


# --- what the operator says -------------------------------------------------------------------------------------------


async def test_what_is_kept_never_expires(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    await ask(fs, "recording_set_expiry", path=REC, date="2026-11-06")
    told = await ask(fs, "recording_keep", path=REC, note="for the court")
    assert (told["keep"], told["note"], told["set_by"]) == (True, "for the court", "recfs recording")
    fs.clock.advance(400 * DAY)
    assert await sweep(fs) == {}
    with pytest.raises(Busy, match="kept"):
        await ask(fs, "recording_expire", path=REC)
    await ask(fs, "recording_keep", path=REC, on=False)
    assert await sweep(fs) == {REC: "expire"}
    assert (await ask(fs, "recording_keep", path=REC))["status"] == "active"
    fs.clock.advance(400 * DAY)
    assert await sweep(fs) == {}
    assert await fs.read(FILE) == b"bytes"


async def test_the_operator_has_one_expire_and_has_it_back(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    told = await ask(fs, "recording_expire", path=REC)
    assert (told["status"], told["due_s"]) == ("expired", 7 * DAY)
    assert await sweep(fs) == {}, "no rule takes it back"
    fs.clock.advance(6 * DAY)
    assert (await ask(fs, "recording_expire", path=REC))["due_s"] == DAY, "asked again, its grace does not begin anew"
    assert (await ask(fs, "recording_set_expiry", path=REC, date="never"))["status"] == "active"
    await fs.write(FILE, b"more")
    await ask(fs, "recording_expire", path=REC)
    fs.clock.advance(7.1 * DAY)
    assert await sweep(fs) == {REC: "remove"}


async def test_a_date_goes_before_the_rule(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    await ask(fs, "recording_set_expiry", path=REC, date="2027-11-05T12:00:00Z")
    fs.clock.advance(364.9 * DAY)
    assert await sweep(fs) == {}
    fs.clock.advance(0.2 * DAY)
    assert await sweep(fs) == {REC: "expire"}
    with pytest.raises(InvalidArgument, match="no date"):
        await ask(fs, "recording_set_expiry", path=REC, date="tomorrow")


@pytest.mark.parametrize("date", ["", " ", None])
async def test_no_date_is_not_never(fs: Filesystem, date: str | None) -> None:
    """A script whose variable is not set would keep for ever what was to go."""
    await fs.write(FILE, b"bytes")
    await ask(fs, "recording_set_expiry", path=REC, date="2027-11-05")
    with pytest.raises(InvalidArgument, match="no date is given"):
        await ask(fs, "recording_set_expiry", path=REC, date=date)
    fs.clock.advance(366 * DAY)
    assert await sweep(fs) == {REC: "expire"}


@pytest.mark.parametrize("path", ["users/5", "users/5/recordings", f"{REC}/sub", FILE, "temp/5/1", ""])
async def test_what_is_no_recording(fs: Filesystem, path: str) -> None:
    await fs.write(FILE, b"bytes")
    await fs.mkdirs(f"{REC}/sub")
    await fs.mkdirs("temp/5/1")
    with pytest.raises(NotFound, match="no recording"):
        await ask(fs, "recording_keep", path=path)


async def test_attributes_are_read_by_all_and_set_by_the_operator(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    ino, xattrs = (await fs.node(REC)).ino, fs.xattrs
    assert await xattrs.get(ino, b"user.recfs.status") == b"active"
    assert await xattrs.get(ino, b"user.recfs.keep") == b"0"
    assert await xattrs.get(ino, b"user.recfs.expires_at") == b"2026-12-05T12:01:00Z", "a month, and a minute at most"
    for name, value in ((b"expires_at", b"2027-01-31"), (b"keep", b"1"), (b"status", b"active")):
        with pytest.raises(NotPermitted):
            await xattrs.set(ino, b"user.recfs." + name, value, USER)
        with pytest.raises(NotPermitted):
            await xattrs.remove(ino, b"user.recfs." + name, USER)
    with pytest.raises(NotPermitted):
        await xattrs.set(ino, b"user.recfs.status", b"expired", OPERATOR)
    await xattrs.set(ino, b"user.recfs.expires_at", b"2027-01-31", OPERATOR)
    assert await xattrs.get(ino, b"user.recfs.expires_at") == b"2027-01-31T00:00:00Z"
    await xattrs.set(ino, b"user.recfs.expires_at", b"1801396800000000000", OPERATOR)
    assert await xattrs.get(ino, b"user.recfs.expires_at") == b"2027-01-31T12:00:00Z"
    for wrong in (b"soon", b"2027", b"1801396800", b"\xff", b"99999-01-01"):
        with pytest.raises(InvalidArgument):
            await xattrs.set(ino, b"user.recfs.expires_at", wrong, OPERATOR)
    await xattrs.set(ino, b"user.recfs.keep", b"1", OPERATOR)
    with pytest.raises(NoAttribute):
        await xattrs.get(ino, b"user.recfs.expires_at")
    await xattrs.remove(ino, b"user.recfs.keep", OPERATOR)
    await xattrs.remove(ino, b"user.recfs.expires_at", OPERATOR)
    assert await xattrs.get(ino, b"user.recfs.expires_at") == b"2026-12-05T12:01:00Z"
    assert await xattrs.list(ino) == []
    for path, name in ((FILE, b"expires_at"), (FILE, b"keep"), ("users/5", b"status"), ("users/5", b"expires_at")):
        with pytest.raises(NoAttribute):  # a file's status is how far it is itself
            await xattrs.get((await fs.node(path)).ino, b"user.recfs." + name)


# --- names ----------------------------------------------------------------------------------------------------------


async def test_a_rename_keeps_the_life_and_a_new_directory_begins_another(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    await ask(fs, "recording_keep", path=REC)
    await fs.mkdirs("users/6/recordings")
    await fs.rename(REC, "users/6/recordings/1")
    assert (await show(fs, "users/6/recordings/1"))["keep"]
    await fs.rename("users/6/recordings/1", OTHER)
    await fs.stop()
    await fs.reopen()
    assert (await show(fs, OTHER))["keep"]
    await fs.unlink(f"{OTHER}/video.mp4")
    await fs.rmdir(OTHER)
    await fs.mkdirs(OTHER)
    told = await show(fs, OTHER)
    assert (told["keep"], told["status"], told["age_s"]) == (False, "active", 0)
    await fs.parts.behind.flush()
    assert fs.rows("select count(*) from recording") == [1]


async def test_a_recording_inside_another_one_comes_back_with_its_life(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    await ask(fs, "recording_keep", path=REC, note="mine")
    await fs.mkdirs(OTHER)
    await fs.rename(REC, f"{OTHER}/inside")
    assert [each["path"] for each in await ask(fs, "recording_list")] == [OTHER]
    await fs.stop()
    await fs.reopen()
    fs.clock.advance(20 * DAY)
    await fs.write(f"{OTHER}/inside/video.mp4", b"more")
    fs.clock.advance(20 * DAY)
    assert await sweep(fs) == {}, "a change inside the other counts for that"
    await fs.rename(f"{OTHER}/inside", REC)
    told = await show(fs)
    assert (told["keep"], told["note"]) == (True, "mine")


@pytest.mark.parametrize("to", [f"{OTHER}/in", "temp/5/9", "shared/old", "users/5/thumbnails/old"])
async def test_an_expired_recording_is_moved_nowhere_where_it_is_none(fs: Filesystem, to: str) -> None:
    await expired(fs)
    await fs.write(f"{OTHER}/other/file", b"young")
    await fs.mkdirs(to.rpartition("/")[0])
    for caller in (OPERATOR, USER):
        with pytest.raises((ReadOnlyFile, NotPermitted) if caller is USER else ReadOnlyFile):
            await fs.rename(REC, to, caller)
    assert (await show(fs))["status"] == Status.EXPIRED
    await fs.mkdirs(to)
    with pytest.raises(ReadOnlyFile):
        await fs.rename(REC, to, exchange=True)
    with pytest.raises(ReadOnlyFile):
        await fs.rename(to, REC, exchange=True)
    fs.clock.advance(7.1 * DAY)
    assert (await sweep(fs))[REC] == "remove"
    assert await fs.node(f"{OTHER}/other/file")


async def test_under_another_number_or_user_an_expired_recording_stays_so(fs: Filesystem) -> None:
    await expired(fs)
    await fs.mkdirs("users/6/recordings")
    await fs.rename(REC, "users/5/recordings/9")
    await fs.rename("users/5", "users/7")
    await fs.rename("users/7/recordings/9", "users/6/recordings/9")
    assert (await show(fs, "users/6/recordings/9"))["status"] == Status.EXPIRED
    with pytest.raises(ReadOnlyFile):
        await fs.write("users/6/recordings/9/new", b"x")
    fs.clock.advance(7.1 * DAY)
    assert await sweep(fs) == {"users/6/recordings/9": "remove"}


async def test_a_job_that_becomes_a_recording_begins_its_life_then(fs: Filesystem) -> None:
    await fs.write("temp/5/1/file", b"bytes")
    await fs.mkdirs("users/5/recordings")
    fs.clock.advance(20 * DAY)
    await fs.rename("temp/5/1", REC)
    assert (await show(fs))["age_s"] == 0
    fs.clock.advance(29 * DAY)
    assert await sweep(fs) == {}
    fs.clock.advance(2 * DAY)
    assert await sweep(fs) == {REC: "expire"}


async def test_a_file_that_is_still_mapped_holds_the_end_up(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    await fs.write(FILE, pattern(5000))
    await fs.drain()
    mapped = [(await fs.node(FILE)).ino]
    monkeypatch.setattr(fs.parts.committer, "still_mapped", lambda: mapped)
    fs.clock.advance(31 * DAY)
    assert await sweep(fs) == {REC: "none"}
    mapped.clear()
    assert await sweep(fs) == {REC: "expire"}
    fs.clock.advance(8 * DAY)
    mapped.append((await fs.node(FILE)).ino)
    assert await sweep(fs) == {REC: "none"}
    assert await fs.read(FILE) == pattern(5000)
    mapped.clear()
    assert await sweep(fs) == {REC: "remove"}


@pytest.mark.parametrize("note", ["caf\udce9", "x" * 4097])
async def test_a_note_that_is_no_text_is_refused(fs: Filesystem, note: str) -> None:
    await fs.write(FILE, b"bytes")
    with pytest.raises(InvalidArgument, match="a note"):
        await ask(fs, "recording_keep", path=REC, on=True, note=note)
    assert not (await show(fs))["keep"]
    assert (await ask(fs, "recording_keep", path=REC, on=True, note="café"))["note"] == "café"
