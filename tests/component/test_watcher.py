"""What is done to the home tree past recfs, and what the watcher makes of it. Time is virtual, the events are real."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import pytest
import trio
from watchdog.observers.inotify_c import InotifyFD

from recfs.core.foreign import UNFINISHED_TIMES
from recfs.disk.watching import inotify
from recfs.disk.watching.inotify import Marks
from recfs.errors import QuotaExceeded
from recfs.fs.attributes import Changes
from recfs.fs.foreign import judging
from recfs.stores.steps import Outcome, Step
from tests.helpers.machine import skip

from .build import OPERATOR, REC, USER, filesystem, pattern, until
from .watching import FILE, OTHER, QUIET_S, Watched, watching

ExpectLog = Callable[[str], None]


async def test_a_file_that_was_put_there_is_adopted(watched: Watched) -> None:
    fs = watched.fs
    new = watched.home / REC / "new"
    new.write_bytes(b"new")
    new.chmod(0o640)
    os.utime(new, ns=(1, 1_700_000_000_123_456_789))
    await watched.settled()
    node = await fs.node(f"{REC}/new")
    assert (node.mode, node.mtime_ns, node.bytes) == (0o640, 1_700_000_000_123_456_789, 3)
    assert await fs.state(f"{REC}/new") == "committed"
    assert await fs.read(f"{REC}/new") == b"new"
    assert fs.account() == (70_000 + 5 + 3, 3)
    assert new.stat().st_mtime_ns == 1_700_000_000_123_456_789
    await fs.assert_consistent()


async def test_events_alone_are_enough(watched: Watched) -> None:
    fs, scans = watched.fs, watched.watcher.scans
    (watched.home / "users/7/recordings/1/deep/er").mkdir(parents=True)
    (watched.home / "users/7/recordings/1/deep/er/file").write_bytes(b"file")
    (watched.home / "users/7/recordings/1/link").symlink_to("deep")
    await watched.seen(lambda: watched.count("adopted") == 7)
    await fs.drain()
    assert await fs.tree("users/7/recordings") == {
        "users/7/recordings/1": None,
        "users/7/recordings/1/deep": None,
        "users/7/recordings/1/deep/er": None,
        "users/7/recordings/1/deep/er/file": b"file",
        "users/7/recordings/1/link": b"-> deep",
    }
    assert fs.account("7") == (4, 2)
    assert watched.watcher.scans == scans
    await fs.assert_consistent()


async def test_a_changed_file_is_a_new_version(watched: Watched) -> None:
    fs = watched.fs
    before = await fs.node(FILE)
    sha256 = before.sha256
    with (watched.home / FILE).open("ab") as stream:
        stream.write(b"more")
    (watched.home / f"{REC}/sub/.new").write_bytes(b"replaced")
    (watched.home / f"{REC}/sub/.new").rename(watched.home / OTHER)
    await watched.settled()
    after = await fs.node(FILE)
    assert after.ino == before.ino
    assert after.sha256 != sha256
    assert await fs.read(FILE) == pattern(70_000) + b"more"
    assert await fs.read(OTHER) == b"replaced"
    assert fs.account() == (70_004 + 8, 2)
    assert {before.ino, (await fs.node(OTHER)).ino} <= set(fs.kernel.inodes)
    await fs.assert_consistent()


async def test_a_removed_file_loses_its_name(watched: Watched) -> None:
    fs = watched.fs
    (watched.home / FILE).unlink()
    await watched.settled()
    assert await fs.names(REC) == ["sub"]
    assert fs.account() == (5, 1)
    await fs.assert_consistent()


async def test_a_removed_directory_goes_with_all_in_it(watched: Watched) -> None:
    fs = watched.fs
    shutil.rmtree(watched.home / "users/5/recordings")
    await watched.settled()
    assert await fs.tree("users/5") == {"users/5/thumbnails": None}
    assert fs.account() == (0, 0)
    await fs.assert_consistent()


async def test_a_directory_that_recfs_removes_is_watched_no_more(watched: Watched) -> None:
    """At once: its files going on the disk, one by one, would be so many events to read."""
    fs = watched.fs
    before = watched.watcher.as_json()["watched"]
    folder = await fs.node(REC)
    await fs.vfs.trees.remove(folder)
    assert watched.watcher.as_json()["watched"] == before - 2
    assert (watched.home / FILE).exists()  # so far only the books say that it is gone
    await watched.settled()
    assert not (watched.home / REC).exists()
    await fs.assert_consistent()


async def test_what_is_moved_is_renamed(watched: Watched) -> None:
    fs = watched.fs
    file, sub = await fs.node(FILE), await fs.node(f"{REC}/sub")
    await fs.mkdirs("users/6/recordings/1")
    await fs.drain()
    (watched.home / FILE).rename(watched.home / "users/6/recordings/1/moved")
    (watched.home / f"{REC}/sub").rename(watched.home / f"{REC}/folder")
    await watched.settled()
    assert (await fs.node("users/6/recordings/1/moved")).ino == file.ino
    assert (await fs.node(f"{REC}/folder")).ino == sub.ino
    assert await fs.tree(REC) == {f"{REC}/folder": None, f"{REC}/folder/other": b"other"}
    assert (fs.account("5"), fs.account("6")) == ((5, 1), (70_000, 1))
    assert watched.count("adopted") == 0
    await fs.assert_consistent()


async def test_a_whole_directory_is_moved_in_and_about(watched: Watched) -> None:
    """By events alone. Its watches go with it."""
    fs, scans, outside = watched.fs, watched.watcher.scans, watched.home / "outside"
    (outside / "deep/er").mkdir(parents=True)
    for number in range(30):
        (outside / f"deep/er/{number}").write_bytes(b"%d" % number)
    outside.rename(watched.home / REC / "came")
    await watched.seen(lambda: watched.count("adopted") == 33)
    await fs.drain()
    number = (await fs.node(f"{REC}/came/deep/er/29")).ino
    (watched.home / REC / "came/deep").rename(watched.home / REC / "sub/deep")
    await watched.seen(lambda: watched.count("moved") == 1)
    (watched.home / REC / "sub/deep/er/late").write_bytes(b"late")
    await watched.seen(lambda: watched.count("adopted") == 34)
    await fs.drain()
    assert (await fs.node(f"{REC}/sub/deep/er/29")).ino == number
    assert await fs.read(f"{REC}/sub/deep/er/late") == b"late"
    assert await fs.names(f"{REC}/came") == []
    assert watched.count("removed") == 0
    assert watched.watcher.scans == scans
    await fs.assert_consistent()


async def test_what_has_another_kind_by_now(watched: Watched) -> None:
    fs, home = watched.fs, watched.home / REC
    (home / "link").symlink_to("file")
    await watched.settled()
    number = (await fs.node(f"{REC}/link")).ino
    (home / "new").symlink_to("sub")
    (home / "new").rename(home / "link")
    (home / "file").unlink()
    (home / "file").mkdir()
    (home / "file/inside").write_bytes(b"inside")
    shutil.rmtree(home / "sub")
    (home / "sub").write_bytes(b"a file now")
    await watched.settled()
    assert await fs.tree(REC) == {
        f"{REC}/link": b"-> sub",
        FILE: None,
        f"{REC}/file/inside": b"inside",
        f"{REC}/sub": b"a file now",
    }
    assert (await fs.node(f"{REC}/link")).ino != number
    await fs.assert_consistent()


async def test_a_directory_that_another_took_the_place_of(watched: Watched) -> None:
    fs, home = watched.fs, watched.home / REC
    number = (await fs.node(f"{REC}/sub")).ino
    (home / "new").mkdir()
    (home / "new/other").write_bytes(b"another")
    (home / "new/more").write_bytes(b"more")
    (home / "sub").rename(watched.home / "gone")
    (home / "new").rename(home / "sub")
    await watched.settled()
    assert (await fs.node(f"{REC}/sub")).ino == number
    assert await fs.tree(f"{REC}/sub") == {OTHER: b"another", f"{REC}/sub/more": b"more"}
    (home / "sub/last").write_bytes(b"the new one is watched")
    await watched.seen(lambda: "last" in os.listdir(home / "sub") and watched.count("adopted") >= 2)
    assert await fs.exists(f"{REC}/sub/last")
    await fs.assert_consistent()


async def test_mode_and_owner_follow(watched: Watched) -> None:
    fs, home = watched.fs, watched.home / REC
    if not fs.parts.store.shows_attributes:
        skip("needs root: else modes and owners on the disk are the daemon's")
    (home / "file").chmod(0o600)
    (home / "sub").chmod(0o2750)
    os.chown(home / "sub", 1005, 1006)
    await watched.seen(lambda: watched.count("described") == 2)
    file, sub = await fs.node(FILE), await fs.node(f"{REC}/sub")
    assert (file.mode, sub.mode, sub.uid, sub.gid) == (0o600, 0o2750, 1005, 1006)
    assert {file.ino, sub.ino} <= set(fs.kernel.inodes)
    assert await fs.state(FILE) == "committed"
    await fs.drain()
    assert (home / "sub").stat().st_mode & 0o7777 == 0o2750
    await fs.assert_consistent()


@pytest.mark.slow
async def test_a_directory_is_shown_before_it_is_full(watched: Watched) -> None:
    """Files keep coming, faster than it is ever quiet; how many looks that takes is the threads' affair."""
    fs, new = watched.fs, watched.home / REC / "new"
    new.mkdir(mode=0o700)
    come = 0
    while not await fs.exists(f"{REC}/new") or len(await fs.names(f"{REC}/new")) <= 10:
        (new / str(come)).write_bytes(b"%d" % come)
        come += 1
        assert come < 500
        watched.watcher.scan()
        await trio.sleep(0.5 * QUIET_S)
    new.chmod(0o755)  # as cp -a and rsync do at the end
    await watched.settled()
    assert (await fs.node(f"{REC}/new")).mode == (0o755 if fs.parts.store.shows_attributes else 0o700)
    assert len(await fs.names(f"{REC}/new")) == come
    await fs.assert_consistent()


async def test_a_file_waits_until_it_is_quiet(watched: Watched) -> None:
    fs = watched.fs
    with (watched.home / REC / "new").open("wb") as stream:
        for _ in range(5):
            stream.write(b"part")
            stream.flush()
            watched.watcher.scan()
            await trio.sleep(0.6 * QUIET_S)
            assert not await fs.exists(f"{REC}/new")
    await watched.settled()
    assert await fs.read(f"{REC}/new") == b"part" * 5


async def test_a_file_waits_while_somebody_has_it_open_for_writing(watched: Watched) -> None:
    fs, new = watched.fs, watched.home / REC / "new"
    with new.open("wb") as stream:
        try:
            with new.open("rb") as reader:
                fcntl.fcntl(reader, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                skip(f"needs a file system and a user that can have leases: {error}")
        watched.watcher.scan()
        for _ in range(10):
            await trio.sleep(2 * QUIET_S)
            assert not await fs.exists(f"{REC}/new")
        stream.write(b"done")
    await watched.settled()
    assert await fs.read(f"{REC}/new") == b"done"


async def test_half_a_copy_of_rsync_is_waited_for(watched: Watched) -> None:
    fs, half = watched.fs, watched.home / REC / ".video.mp4.aZ3x9Q"
    half.write_bytes(b"half")
    watched.watcher.scan()
    await trio.sleep(UNFINISHED_TIMES * QUIET_S / 2)
    assert await fs.names(REC) == ["file", "sub"]
    half.write_bytes(b"all of it")
    half.rename(watched.home / REC / "video.mp4")
    await watched.settled()
    assert await fs.names(REC) == ["file", "sub", "video.mp4"]
    half.write_bytes(b"given up")  # and somebody has to see what is left of that
    watched.watcher.scan()
    with trio.fail_after(10 * UNFINISHED_TIMES * QUIET_S):
        while half.name not in await fs.names(REC):  # noqa: ASYNC110  # the watcher announces nothing
            await trio.sleep(QUIET_S)


async def test_what_no_level_allows_is_told_and_left_alone(watched: Watched, expect_log: ExpectLog) -> None:
    expect_log("left alone")
    fs, home = watched.fs, watched.home
    (home / "users/file").write_bytes(b"no user")
    (home / "users/5/folder").mkdir()
    (home / "users/5/folder/inside").write_bytes(b"inside")
    os.mkfifo(home / REC / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(home / REC, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    os.link(home / FILE, home / REC / "linked")
    await watched.settled()
    told = watched.problems()
    assert "holds only directories" in told.pop("users/file")
    assert "holds only the directories" in told.pop("users/5/folder")
    assert "a FIFO" in told.pop(f"{REC}/fifo")
    assert "a socket" in told.pop(f"{REC}/socket")
    assert "2 hard links" in told.pop(f"{REC}/linked")
    assert told == {}
    assert await fs.names(REC) == ["file", "sub"]
    assert await fs.state(FILE) == "committed"
    assert (home / "users/5/folder/inside").read_bytes() == b"inside"
    (home / REC / "fifo").unlink()
    (home / REC / "linked").rename(home / REC / "fifo")
    (home / FILE).unlink()
    await watched.settled()
    assert sorted(watched.problems()) == ["users/5/folder", f"{REC}/socket", "users/file"]
    assert await fs.names(REC) == ["fifo", "sub"], "the file that was left of the two was renamed"


async def test_many_that_are_left_alone_are_not_all_told(
    watched: Watched, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_log("left alone")
    monkeypatch.setattr(judging, "MOST_TOLD", 5)
    for number in range(9):
        os.mkfifo(watched.home / REC / f"fifo{number}")
    (watched.home / REC / "new").write_bytes(b"new")
    await watched.settled()
    assert len(watched.problems()) == 5
    assert await watched.fs.exists(f"{REC}/new")
    for number in range(9):
        (watched.home / REC / f"fifo{number}").unlink()
    await watched.settled()
    assert watched.problems() == {}


async def test_limits_are_charged_and_not_asked(place: Path, autojump_clock: object) -> None:
    async with filesystem(place / "root", quota={"max_bytes": 100}) as fs:
        await fs.write(FILE, b"file")
        await fs.drain()
        async with watching(fs) as watched:
            (watched.home / REC / "large").write_bytes(bytes(1000))
            await watched.settled()
        assert fs.account() == (1004, 2)
        with pytest.raises(QuotaExceeded):
            await fs.write(f"{REC}/more", b"more")
        await fs.assert_consistent()


@pytest.mark.slow
async def test_a_hidden_name_shows_what_was_put_there(watched: Watched) -> None:
    fs, name = watched.fs, "users/5/thumbnails/intro.png"
    await fs.write("shared/thumbnails/intro.png", b"shared")
    assert await fs.read(name) == b"shared"
    await fs.unlink(name)
    await fs.drain()
    assert not await fs.exists(name)
    (watched.home / name).write_bytes(b"own")
    await watched.settled()
    assert await fs.read(name) == b"own"
    (watched.home / name).unlink()
    await watched.settled()
    assert await fs.read(name) == b"shared"
    await fs.assert_consistent()


async def test_a_job_that_is_filled_past_recfs_is_not_idle(watched: Watched) -> None:
    fs = watched.fs
    await fs.mkdirs("temp/5/1")
    await fs.drain()
    fs.clock.advance(3600.0)
    (watched.home / "temp/5/1/part").write_bytes(b"part")
    await watched.settled()
    assert (await fs.node("temp/5/1")).activity_ns == fs.clock.steady_ns()


async def test_a_file_that_is_open_is_looked_at_afterwards(watched: Watched) -> None:
    fs = watched.fs
    number = await fs.open(FILE)
    (watched.home / FILE).write_bytes(b"changed")
    watched.watcher.scan()
    await trio.sleep(5 * QUIET_S)
    assert watched.count("changed") == 0
    await fs.close(number)
    await until(lambda: watched.count("changed"))
    await fs.drain()
    assert await fs.read(FILE) == b"changed"
    await fs.assert_consistent()


@pytest.mark.slow
async def test_nothing_of_recfs_own_is_taken_for_foreign(watched: Watched) -> None:
    """Creates, overwrites, renames, exchanges and removals beside looks at everything."""
    fs, busy = watched.fs, True

    async def look() -> None:
        while busy:
            watched.watcher.scan()
            await trio.sleep(0.2)

    async def work(user: int) -> None:
        rec = f"users/{user}/recordings/1"
        for number in range(24):
            await fs.write(f"{rec}/{number}/file", pattern(100 * number, user), caller=USER)
            await trio.sleep(0.03 * (number % 4))
            if number % 3 == 0:
                await fs.write(f"{rec}/{number}/file", b"again", append=True)
            if number % 3 == 1:
                await fs.rename(f"{rec}/{number}", f"{rec}/renamed{number}")
            if number % 15 == 5:
                await fs.rename(f"{rec}/{number}/file", f"{rec}/{number}/other")
                await fs.rename(f"{rec}/{number - 2}", f"{rec}/{number}/below")
            if number % 15 == 6:
                await fs.unlink(f"{rec}/{number}/file")
            if number % 15 == 8:
                await fs.rename(f"{rec}/0/file", f"{rec}/{number}/file", exchange=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        async with trio.open_nursery() as workers:
            for user in (6, 7, 8):
                workers.start_soon(work, user)
        busy = False
    before = await fs.tree("users")
    await watched.settled()
    assert await fs.tree("users") == before
    assert watched.found() == 0
    await fs.assert_consistent()


async def test_nothing_is_believed_while_the_publisher_moves_anything(watched: Watched) -> None:
    """Its batch, held up here, may be of just that entry: the metadata is ahead of the disk then."""
    fs, publisher = watched.fs, watched.fs.parts.publisher
    (watched.home / REC / "new").write_bytes(b"new")
    publisher._arranging = True
    watched.watcher.scan()
    await trio.sleep(10 * QUIET_S)
    assert watched.found() == 0
    publisher._arranging = False
    publisher._done.set()
    publisher._done = trio.Event()
    await watched.settled()
    assert watched.found() == 1
    assert await fs.exists(f"{REC}/new")


async def test_what_moves_nothing_holds_nobody_up(watched: Watched) -> None:
    fs, store, seen = watched.fs, watched.fs.parts.store, list[tuple[str, bool]]()
    apply = store.apply

    def look(steps: Sequence[Step], **options: bool) -> list[Outcome]:
        seen.extend((step.kind.name, fs.parts.publisher._arranging) for step in steps)
        return apply(steps, **options)

    with mock.patch.object(store, "apply", look):
        await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(mode=0o600), OPERATOR)
        await fs.drain()
        await fs.rename(FILE, f"{REC}/renamed")
        await fs.drain()
        await fs.unlink(f"{REC}/renamed")
        await fs.drain()
    assert seen == [("ATTRS", False), ("MOVE", True), ("REMOVE", True)]


# --- inotify's limits -----------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_events_that_the_kernel_dropped_are_made_up_for(watched: Watched) -> None:
    """Its queue overflows, really: the reader is held up until there are more events than the kernel keeps."""
    fs, scans, home = watched.fs, watched.watcher.scans, watched.home / REC
    watches = watched.watcher._watches
    assert watches is not None
    go_on, mark = threading.Event(), watches._reader.mark
    held_up: list[bytes] = []

    def hold(events: bytes) -> None:
        held_up.append(events)
        assert go_on.wait(60.0)
        mark(events)

    with mock.patch.object(watches._reader, "mark", hold):
        file, sub = home / "file", home / "sub"
        file.chmod(file.stat().st_mode & 0o7777)
        await watched.seen(lambda: held_up)
        modes = [(each, each.stat().st_mode & 0o7777) for each in (file, sub)]
        for _ in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) // 2 + 1):
            for path, mode in modes:
                os.chmod(path, mode)  # an event that changes nothing, and none like the one before it
        (home / "unseen").write_bytes(b"unseen")
        go_on.set()
        await watched.seen(lambda: watched.watcher.scans > scans)
    await until(lambda: watched.count("adopted"))
    await fs.drain()
    assert await fs.read(f"{REC}/unseen") == b"unseen"
    assert watched.found() == 1


def test_too_much_to_remember_becomes_more_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inotify, "MOST_NAMES", 3)
    monkeypatch.setattr(inotify, "MOST_FOLDERS", 4)
    woken: list[bool] = []
    marks = Marks(lambda: woken.append(True))
    for name in (b"a", b"b", b"b", b"c"):
        marks.entry(1, name)
    assert marks.take() == (False, {1: {b"a", b"b", b"c"}})
    assert woken == [True]
    for number, name in ((1, b"a"), (1, b"b"), (2, b"c"), (2, b"d"), (2, b"e"), (1, b"f")):
        marks.entry(number, name)
    assert marks.take() == (False, {1: {b"a", b"b", b"f"}, 2: None})
    marks.whole(7)
    marks.entry(7, b"name")
    assert marks.take() == (False, {7: None})
    for number in range(5):
        marks.whole(number)
    assert marks.take() == (True, {})
    assert marks.take() == (False, {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "limit"),
    [(errno.ENOSPC, "fs.inotify.max_user_watches"), (errno.EMFILE, "fs.inotify.max_user_instances")],
)
async def test_where_inotify_has_no_room_everything_is_looked_at_again_and_again(
    place: Path, autojump_clock: object, expect_log: ExpectLog, number: int, limit: str
) -> None:
    expect_log(f"not all directories of the home tree can be watched: {limit} is reached; raise it: sysctl {limit}")
    error = OSError(number, os.strerror(number))
    called = "add_callback" if number == errno.ENOSPC else "_create_inotify_fd"
    async with filesystem(place / "root") as fs:
        await fs.write(FILE, b"file")
        await fs.drain()
        with mock.patch.object(InotifyFD, called, side_effect=error):
            async with watching(fs, scan_interval_s=60.0) as watched:
                assert watched.watcher.as_json()["limit"] == limit
                (reason,) = watched.problems().values()
                assert limit in reason
                (watched.home / REC / "new").write_bytes(b"new")
                began_s, scans = trio.current_time(), watched.watcher.scans
                await until(lambda: watched.count("adopted"))
                # By the next scan, and not by the one after it; virtual time also goes on while threads work.
                assert trio.current_time() - began_s > 50.0
                assert watched.watcher.scans == scans + 1
        assert await fs.read(f"{REC}/new") == b"new"


async def test_a_limit_that_was_raised_is_noticed(place: Path, autojump_clock: object, expect_log: ExpectLog) -> None:
    expect_log("can be watched")
    async with filesystem(place / "root") as fs:
        await fs.write(FILE, b"file")
        await fs.drain()
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with mock.patch.object(InotifyFD, "add_callback", side_effect=error) as refuses:
            async with watching(fs) as watched:
                assert refuses.called
                mock.patch.stopall()
                refuses.side_effect = None
                refuses.return_value = 5
                watched.watcher.scan()
                await until(lambda: watched.watcher.as_json()["limit"] is None)
                assert watched.problems() == {}


async def test_a_rename_by_link_and_unlink_is_a_rename(watched: Watched, expect_log: ExpectLog) -> None:
    """Both names are there for so long that the new one is left alone at first."""
    expect_log("left alone")
    fs, home = watched.fs, watched.home / REC
    before = await fs.node(FILE)
    await fs.xattrs.set(before.ino, b"user.k", b"1", OPERATOR)
    await fs.drain()
    os.link(home / "file", home / "file2")
    await watched.seen(lambda: f"{REC}/file2" in watched.problems())
    (home / "file").unlink()
    await watched.seen(lambda: watched.count("moved"))
    assert await fs.names(REC) == ["file2", "sub"]
    after = await fs.node(f"{REC}/file2")
    assert (after.ino, after.sha256) == (before.ino, before.sha256)
    assert await fs.xattrs.get(after.ino, b"user.k") == b"1"
    assert watched.problems() == {}
    assert (watched.count("removed"), watched.count("adopted")) == (0, 0)
    await fs.assert_consistent()


@pytest.mark.parametrize("where", ["beside", "elsewhere", "outside", "replaced"])
async def test_a_file_is_adopted_when_its_other_name_is_gone(
    watched: Watched, where: str, expect_log: ExpectLog
) -> None:
    """As programs publish a file: ln .tmp final; rm .tmp."""
    expect_log("left alone")
    home, scans = watched.home / REC, watched.watcher.scans
    places = {"beside": home, "elsewhere": home / "sub", "outside": watched.home.parent, "replaced": home}
    other = places[where] / "temporary"
    other.write_bytes(b"new")
    os.link(other, home / "final")
    await watched.seen(lambda: f"{REC}/final" in watched.problems())
    if where == "replaced":
        (home / "another").write_bytes(b"another")
        (home / "another").rename(other)
    else:
        other.unlink()
    await watched.seen(lambda: watched.count("adopted") == 1 + (where == "replaced"))
    assert await watched.fs.read(f"{REC}/final") == b"new"
    assert watched.problems() == {}
    assert watched.watcher.scans == scans
    assert watched.waiting == 0
    await watched.fs.assert_consistent()


async def test_files_with_several_names_are_looked_at_without_any_wait(watched: Watched, expect_log: ExpectLog) -> None:
    """Looked at again and again they are no entries that wait; a rename of one is told under its new name."""
    expect_log("left alone")
    home = watched.home / REC
    os.link(home / "file", home / "linked")
    await watched.seen(lambda: f"{REC}/linked" in watched.problems())
    for _ in range(300):
        await trio.sleep(1.0)
        assert watched.waiting == 0
    (home / "linked").rename(home / "other")
    await watched.seen(lambda: list(watched.problems()) == [f"{REC}/other"])
    assert "2 hard links" in watched.problems()[f"{REC}/other"]


async def test_what_is_adopted_is_not_touched(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is hashed and committed, its name is on stable storage before, and nothing is left for the publisher to do."""
    fs, job = watched.fs, watched.home / REC / "job"
    synced: list[bytes] = []
    sync = type(fs.parts.store.beneath).sync

    def noted(self: object, folder: bytes, **how: bool) -> None:
        synced.append(folder)
        sync(self, folder, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(type(fs.parts.store.beneath), "sync", noted)
    job.mkdir()
    await watched.seen(lambda: watched.count("adopted") == 1)
    await fs.drain()
    synced.clear()
    for number in range(3):
        (job / f"new{number}").write_bytes(b"new")
        os.chmod(job / f"new{number}", 0o604)
        os.utime(job / f"new{number}", ns=(5, 1_700_000_000_000_000_007))
    before = {path: path.stat().st_ctime_ns for path in job.iterdir()}
    await watched.seen(lambda: watched.count("adopted") == 4)
    await fs.drain()
    assert {path: path.stat().st_ctime_ns for path in job.iterdir()} == before
    assert os.fsencode(job) in synced
    for number in range(3):
        assert await fs.state(f"{REC}/job/new{number}") == "committed"
        node = await fs.node(f"{REC}/job/new{number}")
        assert (node.pending, node.mode, node.mtime_ns) == (0, 0o604, 1_700_000_000_000_000_007)
    await fs.assert_consistent()
