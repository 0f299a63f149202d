"""What is done for an identity by path: checked by mode bits, by recfs's rules, and told to the kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from recfs.core.model import Kind, State
from recfs.core.permissions import Identity
from recfs.errors import (
    AccessDenied,
    Exists,
    InvalidPath,
    IsADirectory,
    NameTooLong,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    OtherDevice,
    QuotaExceeded,
    ReadOnlyFile,
    Stale,
    TryAgain,
)
from recfs.fs.attributes import Changes
from recfs.fs.session.session import TRIES

from .build import OPERATOR, REC, Filesystem, filesystem, pattern, until
from .test_tier import evict, stored, tiered

if TYPE_CHECKING:
    from recfs.fs.session import Session

ALICE = Identity(1001, 1001, frozenset({2000}))
BOB = Identity(1002, 1002)
FILE = f"{REC}/file"
MIB = 1 << 20


def by(fs: Filesystem, who: Identity = ALICE) -> Session:
    """What *who* does."""
    return fs.parts.sessions.of(who)


async def given(fs: Filesystem, path: str, who: Identity = ALICE, **more: Any) -> None:
    """Make it somebody's."""
    seen = await fs.node(path)
    await fs.vfs.setattr(seen.ino, Changes(uid=who.uid, gid=who.gid, **more), OPERATOR)


@pytest.fixture
async def hers(fs: Filesystem) -> Filesystem:
    """One with a recording of Alice's."""
    await fs.mkdirs(REC)
    await given(fs, REC)
    fs.kernel.entries.clear()
    fs.kernel.inodes.clear()
    return fs


async def put(session: Session, path: str, data: bytes, **more: Any) -> None:
    """Write a file."""
    async with session.writer(path, **more) as file:
        await file.write(data)


async def got(session: Session, path: str, **more: Any) -> bytes:
    """Read one."""
    async with session.reader(path, **more) as file:
        return await file.read(0, file.size_bytes)


# --- looking -------------------------------------------------------------------------------------------------------


async def test_what_is_written_is_read_listed_and_told(hers: Filesystem) -> None:
    data = pattern(3 * MIB + 17)
    await put(by(hers), FILE, data, mode=0o666)
    assert await got(by(hers), FILE) == data
    await hers.drain()
    stat = await by(hers).stat(FILE)
    assert (stat.kind, stat.mode, stat.uid, stat.gid, stat.size_bytes) == (Kind.FILE, 0o644, 1001, 1001, len(data))
    assert stat.state is State.COMMITTED
    assert stat.sha256 is not None
    folder = await by(hers).stat(REC)
    assert (folder.kind, folder.size_bytes, folder.state) == (Kind.DIR, len(data), None)
    [entry] = await by(hers).list(REC)
    assert entry.name == b"file"
    assert entry.stat == stat


@pytest.mark.parametrize("complete", [True, False], ids=["in memory", "not in memory"])
async def test_a_list_comes_page_by_page(hers: Filesystem, complete: bool) -> None:
    for number in range(25):
        await hers.write(f"{REC}/{number:02}", b"x")
    if not complete:
        await hers.drain()
        await hers.reopen()
    found: list[bytes] = []
    after = 0
    while page := await by(hers).list(REC, after, limit=7):
        assert len(page) <= 7
        found += [entry.name for entry in page]
        after = page[-1].stat.ino
    assert sorted(found) == [b"%02d" % number for number in range(25)]
    assert not hers.vfs.listings.open_dirs


async def test_links_are_followed_inside_the_mount_alone(hers: Filesystem) -> None:
    await put(by(hers), FILE, b"data")
    await by(hers).mkdir(f"{REC}/sub")
    await by(hers).symlink(b"../file", f"{REC}/sub/link")
    await by(hers).symlink(b"sub", f"{REC}/way")
    await by(hers).symlink(b"/etc/passwd", f"{REC}/out")
    await by(hers).symlink(b"round", f"{REC}/round")
    assert await got(by(hers), f"{REC}/way/link") == b"data"
    assert await got(by(hers), f"/{REC}//way/.././sub/link") == b"data"
    assert await by(hers).readlink(f"{REC}/sub/link") == b"../file"
    assert (await by(hers).stat(f"{REC}/sub/link", follow_link=False)).kind == Kind.SYMLINK
    assert (await by(hers).stat(f"{REC}/way/", follow_link=False)).kind == Kind.DIR
    assert (await by(hers).stat("/")).ino == 1
    assert (await by(hers).stat("../..")).ino == 1, "nothing is above the root"
    with pytest.raises(OtherDevice, match="leads out of the mount, to /etc/passwd"):
        await got(by(hers), f"{REC}/out")
    with pytest.raises(InvalidPath, match="too many levels"):
        await got(by(hers), f"{REC}/round")
    await put(by(hers), f"{REC}/sub/link", b"through the link")
    assert await hers.read(FILE) == b"through the link"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (f"{REC}/none", NotFound),
        (f"{REC}/none/below", NotFound),
        (f"{FILE}/below", NotADirectory),
        (f"{FILE}/", NotADirectory),
        (f"{FILE}/..", NotADirectory),
        (f"{REC}/{'x' * 256}", NameTooLong),
        (f"{REC}/nul\0", InvalidPath),
        (REC, IsADirectory),
    ],
)
async def test_a_path_that_is_wrong_is_told_as_what_it_is(hers: Filesystem, path: str, error: type[Exception]) -> None:
    await put(by(hers), FILE, b"data")
    with pytest.raises(error):
        await got(by(hers), path)


# --- who may -------------------------------------------------------------------------------------------------------


async def test_what_is_not_his_is_refused(hers: Filesystem) -> None:
    bob = by(hers, BOB)
    await put(by(hers), FILE, b"hers", mode=0o600)
    await by(hers).mkdir(f"{REC}/private", 0o700)
    await put(by(hers), f"{REC}/private/file", b"hers")
    for act in (
        lambda: got(bob, FILE),
        lambda: got(bob, f"{REC}/private/file"),
        lambda: bob.stat(f"{REC}/private/file"),
        lambda: bob.list(f"{REC}/private"),
        lambda: put(bob, FILE, b"his"),
        lambda: put(bob, f"{REC}/new", b"his"),
        lambda: bob.mkdir(f"{REC}/new"),
        lambda: bob.symlink(b"x", f"{REC}/new"),
        lambda: bob.remove(FILE),
        lambda: bob.rename(FILE, f"{REC}/other"),
        lambda: bob.change(FILE, Changes(size=0)),
    ):
        with pytest.raises(AccessDenied):
            await act()
    for changes in (Changes(mode=0o777), Changes(mtime_ns=1), Changes(uid=1002), Changes(gid=1002)):
        with pytest.raises(NotPermitted):
            await bob.change(FILE, changes)
    assert (await bob.stat(FILE)).size_bytes == 4, "looking takes no more than the way to it"
    assert await hers.names(REC) == ["file", "private"]


async def test_a_group_and_everybody_may_what_their_bits_say(hers: Filesystem) -> None:
    await given(hers, REC, mode=0o2775)
    await hers.vfs.setattr((await hers.node(REC)).ino, Changes(gid=2000), OPERATOR)
    friend = by(hers, Identity(1003, 1003, frozenset({2000}), umask=0o002))
    await put(friend, FILE, b"the group's", mode=0o666)
    stat = await by(hers).stat(FILE)
    assert (stat.uid, stat.gid, stat.mode) == (1003, 2000, 0o664)
    await put(by(hers), FILE, b"replaced")
    assert await got(by(hers, BOB), FILE) == b"replaced"


async def test_a_sticky_directory_keeps_each_ones_own(hers: Filesystem) -> None:
    await given(hers, REC, mode=0o1777)
    await put(by(hers), FILE, b"hers")
    await put(by(hers, BOB), f"{REC}/his", b"his")
    for act in (
        lambda: by(hers, BOB).remove(FILE),
        lambda: by(hers, BOB).rename(f"{REC}/his", FILE),
        lambda: by(hers, BOB).rename(FILE, f"{REC}/his"),
        lambda: by(hers, BOB).rename(f"{REC}/his", FILE, exchange=True),
        lambda: put(by(hers, BOB), FILE, b"his"),
    ):
        with pytest.raises(NotPermitted):
            await act()
    assert await hers.names(REC) == ["file", "his"]


async def test_a_directory_of_another_is_not_moved_elsewhere(hers: Filesystem) -> None:
    """Its `..` would change, which takes leave to write into it."""
    await given(hers, REC, mode=0o777)
    await by(hers).mkdir(f"{REC}/from", 0o777)
    await by(hers).change(f"{REC}/from", Changes(mode=0o777))
    await by(hers).mkdir(f"{REC}/from/folder", 0o755)
    await by(hers, BOB).mkdir(f"{REC}/to")
    await by(hers, BOB).rename(f"{REC}/from/folder", f"{REC}/from/renamed")
    with pytest.raises(AccessDenied):
        await by(hers, BOB).rename(f"{REC}/from/renamed", f"{REC}/to/folder")
    with pytest.raises(AccessDenied, match=f"{REC}/from/renamed: not for user"):  # which of the two it is
        await by(hers, BOB).rename(f"{REC}/to", f"{REC}/from/renamed", exchange=True)


async def test_the_rules_of_recfs_hold_as_well(hers: Filesystem) -> None:
    await hers.mkdirs("shared/thumbnails")
    await given(hers, "shared/thumbnails", BOB, mode=0o777)
    with pytest.raises(ReadOnlyFile):
        await put(by(hers, BOB), "shared/thumbnails/x", b"x")
    with pytest.raises(InvalidPath):
        await put(by(hers, Identity(0, 0)), "elsewhere", b"x")
    await put(by(hers, Identity(0, 0)), "shared/thumbnails/x", b"x")


async def test_a_new_mode_loses_what_is_not_the_callers_to_give(hers: Filesystem) -> None:
    await put(by(hers), FILE, b"x")
    await hers.vfs.setattr((await hers.node(FILE)).ino, Changes(gid=7), OPERATOR)
    assert (await by(hers).change(FILE, Changes(mode=0o2755))).mode == 0o755
    changed = await by(hers).change(FILE, Changes(gid=2000, mode=0o2755, mtime_ns=5, atime_ns=6))
    assert (changed.gid, changed.mode, changed.mtime_ns, changed.atime_ns) == (2000, 0o2755, 5, 6)


# --- writing -------------------------------------------------------------------------------------------------------


async def test_a_file_comes_to_its_name_when_it_is_whole(hers: Filesystem) -> None:
    await put(by(hers), FILE, b"before")
    async with by(hers).writer(FILE) as file:
        await file.write(b"half")
        await file.sync()
        assert await got(by(hers), FILE) == b"before"
        [aside] = [name for name in await hers.names(REC) if name != "file"]
        assert aside.startswith(".file.")
        assert aside.endswith(".part")
        await file.write(b" and half")
    assert await got(by(hers), FILE) == b"half and half"
    assert await hers.names(REC) == ["file"]


async def test_what_is_not_written_to_its_end_leaves_nothing(hers: Filesystem) -> None:
    await put(by(hers), FILE, b"before")

    async def fail() -> None:
        async with by(hers).writer(FILE) as file:
            await file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    with trio.CancelScope() as scope:
        async with by(hers).writer(f"{REC}/new") as file:
            await file.write(b"half")
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert await hers.names(REC) == ["file"]
    assert await got(by(hers), FILE) == b"before"


async def test_only_new_replaces_nothing(hers: Filesystem) -> None:
    await put(by(hers), FILE, b"first", exclusive=True)
    with pytest.raises(Exists):
        await put(by(hers), FILE, b"second", exclusive=True)

    async def slow() -> None:
        async with by(hers).writer(f"{REC}/late", exclusive=True) as file:
            await file.write(b"x")
            await hers.write(f"{REC}/late", b"somebody was faster")

    with pytest.raises(Exists):
        await slow()
    assert await hers.read(FILE) == b"first"
    assert await hers.names(REC) == ["file", "late"]


async def test_a_directory_is_not_replaced_by_a_file(hers: Filesystem) -> None:
    await by(hers).mkdir(f"{REC}/folder")
    with pytest.raises(IsADirectory):
        await put(by(hers), f"{REC}/folder", b"x")
    with pytest.raises(Exists):
        await put(by(hers), "/", b"x")


async def test_a_quota_ends_a_write_and_nothing_stays(nursery: trio.Nursery, place: Path) -> None:
    async with filesystem(place, quota={"max_bytes": 100_000}) as fs:
        await fs.mkdirs(REC)
        await given(fs, REC)
        with pytest.raises(QuotaExceeded):
            await put(by(fs), FILE, bytes(200_000))
        assert await fs.names(REC) == []
        assert fs.account()[0] == 0


async def test_a_name_of_the_greatest_length_can_be_written(hers: Filesystem) -> None:
    await put(by(hers), f"{REC}/{'é' * 127}x", b"x")
    assert await hers.names(REC) == ["é" * 127 + "x"]


# --- removing, renaming --------------------------------------------------------------------------------------------


async def test_names_go_and_change(hers: Filesystem) -> None:
    session = by(hers)
    await put(session, FILE, b"a")
    await put(session, f"{REC}/other", b"b")
    await session.rename(FILE, f"{REC}/other", exchange=True)
    assert await got(session, FILE) == b"b"
    with pytest.raises(Exists):
        await session.rename(FILE, f"{REC}/other", noreplace=True)
    await session.rename(FILE, f"{REC}/other")
    assert await hers.names(REC) == ["other"]
    await session.mkdir(f"{REC}/sub")
    await session.rename(f"{REC}/other", f"{REC}/sub/file")
    with pytest.raises(NotEmpty):
        await session.remove(f"{REC}/sub")
    await session.remove(f"{REC}/sub/file")
    await session.remove(f"{REC}/sub")
    with pytest.raises(NotFound):
        await session.remove(f"{REC}/sub")
    for path in ("/", f"{REC}/.", f"{REC}/.."):
        with pytest.raises(InvalidPath):
            await session.remove(path)


async def test_a_link_is_removed_and_renamed_itself(hers: Filesystem) -> None:
    await put(by(hers), FILE, b"data")
    await by(hers).symlink(b"file", f"{REC}/link")
    await by(hers).rename(f"{REC}/link", f"{REC}/moved")
    await by(hers).remove(f"{REC}/moved")
    assert await hers.names(REC) == ["file"]


# --- the kernel ----------------------------------------------------------------------------------------------------


async def test_the_kernel_hears_of_every_change(hers: Filesystem) -> None:
    session, kernel = by(hers), hers.kernel
    folder = (await hers.node(REC)).ino
    aside = ""
    async with session.writer(FILE) as file:
        [aside] = await hers.names(REC)
        await file.write(b"x")
    assert kernel.entries == [(folder, os.fsencode(aside), 0), (folder, b"file", 0)]
    assert set(kernel.inodes) == {folder}
    kernel.entries.clear()
    ino = (await hers.node(FILE)).ino
    await session.change(FILE, Changes(mode=0o600))
    assert ino in kernel.inodes
    kernel.entries.clear()
    await session.rename(FILE, f"{REC}/other")
    assert kernel.entries == [(folder, b"file", 0), (folder, b"other", 0)], "it is not gone"
    kernel.entries.clear()
    await session.remove(f"{REC}/other")
    assert kernel.entries == [(folder, b"other", ino)]


# --- shared files --------------------------------------------------------------------------------------------------


async def test_a_shared_file_is_seen_hidden_and_covered(hers: Filesystem) -> None:
    await hers.write("shared/thumbnails/a.png", b"shared")
    thumbnails = "users/5/thumbnails"
    await given(hers, thumbnails)
    session = by(hers)
    stat = await session.stat(f"{thumbnails}/a.png")
    assert stat.is_shared
    assert stat.uid == ALICE.uid
    assert await got(session, f"{thumbnails}/a.png") == b"shared"
    assert [entry.stat.is_shared for entry in await session.list(thumbnails)] == [True]
    await put(session, f"{thumbnails}/a.png", b"own")
    assert not (await session.stat(f"{thumbnails}/a.png")).is_shared
    await session.remove(f"{thumbnails}/a.png")
    assert await got(session, f"{thumbnails}/a.png") == b"shared"
    await session.remove(f"{thumbnails}/a.png")
    assert await session.list(thumbnails) == []
    assert await hers.read("shared/thumbnails/a.png") == b"shared"


# --- committed bytes -----------------------------------------------------------------------------------------------


async def test_committed_bytes_are_not_those_of_a_file_that_is_being_written(hers: Filesystem) -> None:
    number = await hers.open(FILE, os.O_WRONLY | os.O_CREAT)
    await hers.vfs.files.write(number, 0, b"half")
    with pytest.raises(TryAgain, match="writing"):
        await got(by(hers, Identity(0, 0)), FILE, committed=True)
    assert await got(by(hers, Identity(0, 0)), FILE) == b"half"
    await hers.close(number)
    await hers.drain()
    assert await got(by(hers, Identity(0, 0)), FILE, committed=True) == b"half"


@pytest.mark.parametrize("how", ["written", "replaced"])
async def test_committed_bytes_are_of_one_version(hers: Filesystem, how: str) -> None:
    await hers.write(FILE, b"one version")
    await hers.drain()
    root = by(hers, Identity(0, 0))
    async with root.reader(FILE, committed=True) as file:
        assert await file.read(0, 3) == b"one"
        if how == "replaced":
            await put(root, FILE, b"another one")
            assert await file.read(0, 100) == b"one version", "it is the file that was opened"
            return
        number = await hers.open(FILE, os.O_WRONLY)
        await hers.vfs.files.write(number, 0, b"X")
        with pytest.raises(Stale, match="was changed while it was read"):
            await file.read(0, 100)
        await hers.close(number)
        await hers.drain()
        with pytest.raises(Stale):
            file.check()


async def test_what_is_being_read_stays_wherever_it_moves(nursery: trio.Nursery, place: Path) -> None:
    """To another name, to S3 alone, and away."""
    fs = tiered(nursery, place)
    await fs.start()
    data = pattern(2 * MIB)
    await fs.write(FILE, data)
    await fs.drain()
    await evict(fs)
    root = by(fs, Identity(0, 0))
    async with root.reader(FILE, committed=True) as file:
        assert await file.read(MIB, 100) == data[MIB : MIB + 100]
        await root.rename(FILE, f"{REC}/other")
        await fs.drain()
        assert fs.tier.evictor.may_evict(await fs.node(f"{REC}/other")) is not None
        assert await file.read(0, 2 * MIB) == data
        await root.remove(f"{REC}/other")
        assert await file.read(5, 100) == data[5:105]
    await fs.drain()
    await until(lambda: stored(fs) == {})
    await fs.stop()


async def test_a_path_that_always_changes_is_given_up(hers: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(by(hers), FILE, b"x")
    asked = []

    async def stale(*args: Any) -> int:
        asked.append(args)
        raise Stale("it is another one by now")

    monkeypatch.setattr(hers.vfs, "open", stale)
    with pytest.raises(Stale):
        await got(by(hers), FILE)
    assert len(asked) == TRIES


async def test_a_kernel_that_does_not_listen_holds_nobody_up(hers: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hers.kernel, "flush", trio.sleep_forever)
    monkeypatch.setattr("recfs.fs.session.session.KERNEL_FLUSH_S", 0.01)
    await put(by(hers), FILE, b"x")
    assert await got(by(hers), FILE) == b"x"
