"""A catalogue that is lost, made anew of the home tree and the bucket."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.model import State
from recfs.core.upkeep.rebuilding import Checksums
from recfs.fs.attributes import Changes
from recfs.fs.fallback_entries import FallbackEntry
from recfs.fs.rebuild import Findings, Options
from recfs.rescue.rebuild import rebuilt
from recfs.state.nodes import DirNode, FileNode

from .build import OPERATOR, REC, Filesystem, filesystem, pattern, until
from .test_tier import evict, stored, tiered

PRIVATE = ".recfs"
FILE, OTHER = f"{REC}/file", f"{REC}/sub/other"
TIME_NS = 1_700_000_000_123_456_789


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """A store without S3."""
    async with filesystem(place / "root") as made:
        yield made


@pytest.fixture
async def far(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """One with S3."""
    made = tiered(nursery, place / "root")
    await made.start()
    await made.mkdirs(REC)
    yield made
    await made.stop()


async def rebuild(fs: Filesystem, **options: Any) -> Findings:
    """Make the catalogue of a stopped store anew."""
    return await rebuilt(fs.config, Options(**options), objects=fs.objects)


def lose(fs: Filesystem) -> None:
    """The catalogue is gone."""
    for suffix in ("", "-wal", "-shm"):
        (fs.root / PRIVATE / f"catalogue.db{suffix}").unlink(missing_ok=True)


def damage(fs: Filesystem) -> None:
    """Nothing of it can be read."""
    (fs.root / PRIVATE / "catalogue.db").write_bytes(b"damaged" * 1000)


async def md5_of(fs: Filesystem, node: FileNode) -> bytes | None:
    """As the mount tells it; of a file that has a checksum."""
    return await fs.xattrs.get(node.ino, b"user.recfs.md5") if node.sha256 is not None else None


async def facts(fs: Filesystem) -> dict[str, tuple[object, ...]]:
    """What everything in the mount is, but for inode numbers."""
    found: dict[str, tuple[object, ...]] = {}
    pending = [""]
    while pending:
        path = pending.pop()
        for name in await fs.names(path):
            below = f"{path}/{name}".lstrip("/")
            node = await fs.node(below)
            if isinstance(node, FallbackEntry):
                found[below] = (node.shared.path,)
                continue
            found[below] = (type(node), node.mode, node.uid, node.gid)
            if isinstance(node, DirNode):
                pending.append(below)
                found[below] += (node.rbytes, node.rfiles)
            elif isinstance(node, FileNode):
                found[below] += (node.bytes, node.mtime_ns, node.state, node.sha256, await md5_of(fs, node))
                far = node.object
                known = (far.key, far.etag, far.sha256, far.mtime_ns, far.uploaded_ns, far.copy.local) if far else None
                found[below] += (known,)
            else:
                found[below] += (node.target,)
    return found


async def populate(fs: Filesystem) -> None:
    """Files of all areas, with odd names and attributes."""
    await fs.write(FILE, pattern(70_000))
    await fs.write(OTHER, b"other")
    await fs.write("users/7/thumbnails/empty", b"")
    await fs.write("temp/5/77/part", b"part")
    await fs.write("shared/thumbnails/one.png", b"png")
    await fs.write(os.fsdecode(os.fsencode(REC) + b"/latin-1 \xfc\n\x01"), b"odd")
    await fs.mkdirs("users/8/recordings/1/empty")
    await fs.vfs.symlink((await fs.node(REC)).ino, b"link", b"../away \xff", OPERATOR)
    await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(mode=0o640, uid=1005, gid=1006, mtime_ns=TIME_NS), OPERATOR)
    await fs.vfs.setattr((await fs.node(f"{REC}/sub")).ino, Changes(mode=0o2750, uid=1005, gid=1006), OPERATOR)
    await fs.drain()


@pytest.mark.parametrize("loss", [lose, damage])
async def test_a_local_store_comes_back(fs: Filesystem, loss: Any) -> None:
    await populate(fs)
    before, tree, account = await facts(fs), await fs.tree(), fs.account()
    highest = max(fs.rows("select ino from node"))
    await fs.stop()
    loss(fs)
    found = await rebuild(fs)
    assert (found.in_place, found.has_problems) == (True, False)
    assert (found.files, found.links, found.hashed_bytes) == (6, 1, 70_000 + 5 + 4 + 3 + 3)
    await fs.reopen()
    assert await facts(fs) == before
    assert await fs.tree() == tree
    await fs.node(FILE)
    assert fs.account() == account
    assert min(ino for ino in fs.rows("select ino from node") if ino != 1) > highest, "a number is given out twice"
    await fs.assert_consistent()


async def test_what_s3_has_comes_back(far: Filesystem) -> None:
    await populate(far)
    await evict(far, OTHER)
    before, objects = await facts(far), stored(far)
    await far.stop()
    lose(far)
    found = await rebuild(far)
    assert (found.stored, found.evicted, found.queued, found.has_problems) == (3, 1, 0, False)
    await far.reopen()
    assert await facts(far) == before
    assert await far.read(OTHER) == b"other"
    await far.drain()
    assert stored(far) == objects
    assert await far.state(FILE) == State.STORED
    await far.assert_consistent()


# --- local bytes and objects that differ ---------------------------------------------------------------------------


def put(fs: Filesystem, path: str, data: bytes, mtime_ns: int | None = None) -> None:
    """Write to the home tree past the mount."""
    local = fs.root / path
    before = local.stat().st_mtime_ns
    local.write_bytes(data)
    os.utime(local, ns=(mtime_ns or before + 10**9, mtime_ns or before + 10**9))


async def test_a_newer_local_file_counts_and_its_object_is_replaced(far: Filesystem) -> None:
    await far.write(FILE, b"old")
    await far.drain()
    await far.stop()
    lose(far)
    put(far, FILE, b"newer")
    found = await rebuild(far)
    assert ([path for path, _ in found.newer.some], found.queued, found.has_problems) == ([FILE], 1, False)
    await far.reopen()
    assert await far.read(FILE) == b"newer"
    await far.drain()
    assert stored(far) == {FILE: b"newer"}
    assert await far.state(FILE) == State.STORED
    await far.assert_consistent()


async def test_a_local_copy_that_went_bad_gives_way_to_its_object(far: Filesystem) -> None:
    """Size and mtime are those that were uploaded, the bytes are not: nobody wrote them. They are kept all the same."""
    await far.write(FILE, b"good")
    await far.drain()
    await far.stop()
    lose(far)
    put(far, FILE, b"bad!", (far.root / FILE).stat().st_mtime_ns)
    found = await rebuild(far)
    assert ([path for path, _ in found.damaged.some], found.has_problems) == ([FILE], True)
    await far.reopen()
    assert await far.read(FILE) == b"good"
    (kept,) = (far.root / PRIVATE / "lost+found").iterdir()
    assert kept.read_bytes() == b"bad!"
    await far.assert_consistent(lost=1)


async def test_a_file_that_was_not_uploaded_yet_is_queued(far: Filesystem) -> None:
    await far.write(FILE, b"data")
    await far.write("temp/5/77/part", b"part")
    await far.drain()
    await far.stop()
    lose(far)
    assert far.objects is not None
    far.objects.vanish(FILE)
    assert (await rebuild(far)).queued == 1
    await far.reopen()
    await far.drain()
    assert stored(far) == {FILE: b"data"}
    await far.assert_consistent()


async def test_trusted_files_are_not_read(far: Filesystem) -> None:
    """S3's metadata is believed where size and mtime agree; what has changed since is read."""
    await far.write(FILE, b"data")
    await far.write(OTHER, b"other")
    await far.drain()
    await far.stop()
    lose(far)
    put(far, OTHER, b"OTHER")
    found = await rebuild(far, checksums=Checksums.TRUST)
    assert (found.trusted, found.hashed_files, found.newer.count) == (1, 1, 1)
    await far.reopen()
    assert await far.read(FILE) == b"data"
    assert await far.read(OTHER) == b"OTHER"
    await far.assert_consistent()


async def test_what_is_read_later_is_sealed_by_the_next_daemon(far: Filesystem) -> None:
    await populate(far)
    await evict(far, OTHER)
    before = await facts(far)
    await far.stop()
    lose(far)
    put(far, FILE, b"changed", TIME_NS + 1)
    found = await rebuild(far, checksums=Checksums.LATER)
    assert (found.hashed_files, found.trusted, found.unsealed) == (0, 2, 3)
    await far.reopen()
    await far.drain()
    assert await far.state(FILE) == State.STORED
    assert await far.read(FILE) == b"changed"
    assert await far.read(OTHER) == b"other"
    after = await facts(far)
    for path in ("temp/5/77/part", "shared/thumbnails/one.png", "users/7/thumbnails/empty"):
        assert after[path] == before[path]
    await far.assert_consistent()


# --- objects -------------------------------------------------------------------------------------------------------


async def test_objects_of_others_are_left_alone(far: Filesystem) -> None:
    await far.write(FILE, b"data")
    await far.drain()
    assert far.objects is not None
    for key in ("elsewhere/file", "users/nobody", f"{REC}/foreign", ".recfs/moving/77"):
        far.objects.tamper(key, b"foreign")
    await far.stop()
    lose(far)
    found = await rebuild(far)
    assert sorted(key for key, _ in found.foreign.some) == ["elsewhere/file", f"{REC}/foreign", "users/nobody"]
    assert [key for key, _ in found.unplaced.some] == [".recfs/moving/77"]
    await far.reopen()
    assert await far.names(REC) == ["file"]
    assert far.objects.data(f"{REC}/foreign") == b"foreign"


async def test_objects_of_others_are_adopted_if_that_is_asked_for(far: Filesystem) -> None:
    await far.drain()
    await far.stop()
    lose(far)
    assert far.objects is not None
    far.objects.tamper(f"{REC}/new/foreign", pattern(100_000))
    os.chown(far.root / REC, 1005, 1006)
    found = await rebuild(far, adopt_foreign=True)
    assert (found.evicted, found.foreign.count, found.has_problems) == (1, 0, False)
    await far.reopen()
    node = await far.node(f"{REC}/new/foreign")
    assert (node.state, node.uid, node.gid) == (State.EVICTED, 1005, 1006)
    assert await far.read(f"{REC}/new/foreign") == pattern(100_000)
    await far.assert_consistent()


async def test_objects_are_read_and_compared_if_that_is_asked_for(far: Filesystem) -> None:
    for path in (FILE, OTHER):
        await far.write(path, b"data")
        await far.drain()
        await evict(far, path)
    await far.stop()
    lose(far)
    assert far.objects is not None
    far.objects._objects[FILE].data = b"DATA"
    found = await rebuild(far, verify_remote=True)
    assert [key for key, _ in found.unplaced.some] == [FILE]
    await far.reopen()
    assert await far.names(REC) == ["sub"]
    assert await far.read(OTHER) == b"data"


async def test_everything_comes_from_the_bucket_to_a_new_disk(far: Filesystem) -> None:
    await populate(far)
    before = {path: each for path, each in (await facts(far)).items() if each[0] is FileNode and "users/" in path}
    await far.stop()
    threads = trio.to_thread.current_default_thread_limiter()
    await until(lambda: not threads.borrowed_tokens)  # one may be about to mark the home tree
    shutil.rmtree(far.root)
    (far.root / "users").mkdir(parents=True)
    found = await rebuild(far)
    assert (found.evicted, found.has_problems) == (4, False)
    await far.reopen()
    after = await facts(far)
    for path, was in before.items():
        assert after[path][:5] == was[:5]
        assert after[path][7:9] == was[7:9]
    assert await far.read(FILE) == pattern(70_000)
    assert (await far.node(f"{REC}/sub")).uid in (0, 1005)
    await far.assert_consistent()


async def test_archived_files_stay_archived(far: Filesystem) -> None:
    await far.write(FILE, b"data")
    await far.drain()
    await evict(far)
    assert far.objects is not None
    far.objects.archive(FILE)
    await far.stop()
    lose(far)
    assert (await rebuild(far)).archived == 1
    await far.reopen()
    assert await far.state(FILE) == State.ARCHIVED


# --- users who are told apart by uid ---------------------------------------------------------------------------------


async def answer(fs: Filesystem, method: str, **params: Any) -> Any:
    """Ask for a control method."""
    return await fs.answers()[method](params)


async def test_users_have_their_uids_again_by_the_owners_of_their_directories(fs: Filesystem) -> None:
    await answer(fs, "user_add", user="5", uid=10005, gid=77, mode=0o2770)
    await answer(fs, "user_add", user="6", uid=10006)
    await fs.write("users/5/recordings/1/a", b"data")
    await fs.rmdir("users/6/recordings")
    await fs.rmdir("users/6")  # what temp/6 says is enough
    await fs.mkdirs("users/7")  # root's
    await fs.mkdirs("users/8")
    await fs.vfs.setattr((await fs.node("users/8")).ino, Changes(mode=0o755, uid=10008), OPERATOR)  # lets others in
    for user in ("9", "10"):  # one uid for two: by hand
        await fs.mkdirs(f"users/{user}")
        await fs.vfs.setattr((await fs.node(f"users/{user}")).ino, Changes(mode=0o700, uid=10009), OPERATOR)
    before = await answer(fs, "user_list")
    await fs.drain()
    await fs.stop()
    lose(fs)
    found = await rebuild(fs)
    assert (found.owners, found.has_problems) == (2, False)
    await fs.reopen()
    assert await answer(fs, "user_list") == before
    await fs.assert_consistent()


async def test_what_the_old_catalogue_says_of_users_counts_where_it_is_salvaged(fs: Filesystem) -> None:
    """Also that a user has no uid: what a directory looks like is no reason to give it one."""
    await answer(fs, "user_add", user="5", uid=10005)
    await answer(fs, "quota_set", user="5", max_files="7")
    await answer(fs, "quota_set", user="6", max_files="7")
    for user, uid in (("5", 10006), ("6", 10007)):
        node = await fs.mkdirs(f"users/{user}")
        await fs.vfs.setattr(node.ino, Changes(mode=0o700, uid=uid), OPERATOR)
    await fs.drain()
    await fs.stop()
    assert (await rebuild(fs, salvage=True)).owners == 0
    await fs.reopen()
    (told,) = await answer(fs, "user_list")
    assert (told["user"], told["uid"], told["directories"]["users"]["state"]) == ("5", 10005, "differs")
    (quota,) = await answer(fs, "quota_show", user="6")
    assert quota["own_limits"]["max_files"] == 7
