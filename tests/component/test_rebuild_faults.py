"""A rebuild that is cut off, refused, or meets what it cannot read: what is there afterwards, and how it goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from recfs.catalogue import rebuilding
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.core.model import State
from recfs.core.upkeep.rebuilding import Checksums
from recfs.disk.staging import Label
from recfs.errors import CatalogueCorrupt, NotAStore, OutOfSpace, RootBusy, StoreError, StoreFull
from recfs.fs.rebuild.site import Site
from recfs.ports.object_errors import Unreachable
from recfs.stores import many
from recfs.stores.local import LABEL_XATTR, LocalStore

from .build import OPERATOR, REC, Filesystem, until
from .test_rebuild import FILE, OTHER, PRIVATE, TIME_NS, damage, facts, far, fs, lose, populate, put, rebuild
from .test_tier import evict, stored

__all__ = ["far", "fs"]


class Killed(BaseException):
    """The process was killed."""


@contextmanager
def dying(step: int) -> Iterator[list[str]]:
    """The process dies before its *step*-th effect: a batch of rows, a rename, a directory. Gives those that were."""
    seen: list[str] = []

    def counted(owner: Any, name: str) -> Any:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if len(seen) == step:
                raise Killed
            seen.append(name)
            return real(*args, **kwargs)

        return mock.patch.object(owner, name, call)

    with (
        counted(SqliteCatalogue, "apply"), counted(SqliteCatalogue, "recount"), counted(LocalStore, "rename"),
        counted(os, "mkdir"), counted(os, "rename"), counted(os, "link"),
    ):  # fmt: skip
        yield seen


@pytest.mark.slow
async def test_it_goes_on_wherever_it_was_killed(far: Filesystem) -> None:
    """Before each of its effects. Afterwards there is the old state, or a rebuild that goes on; and nothing is lost."""
    await populate(far)
    await evict(far, OTHER)
    before = await facts(far)
    await far.stop()
    damage(far)
    damaged = (far.root / PRIVATE / "catalogue.db").read_bytes()
    step, killed = 0, True
    while killed:
        try:
            with dying(step):
                found = await rebuild(far)
            killed = False
        except Killed:
            kept = [path.read_bytes() for path in (far.root / PRIVATE).glob("catalogue.db*")]
            assert damaged in kept, f"the old catalogue is gone after {step} steps"
        step += 1
    assert step > 8
    assert found.ended_before
    await far.reopen()
    assert await facts(far) == before
    assert await far.read(OTHER) == b"other"
    await far.assert_consistent()
    assert [path.read_bytes() for path in (far.root / PRIVATE).glob("*.before-rebuild-*Z")] == [damaged]


@pytest.mark.table(3)
@pytest.mark.parametrize("step", range(11))
async def test_a_start_ends_what_is_left_when_the_new_one_takes_the_place_of_the_old(fs: Filesystem, step: int) -> None:
    """The process dies before one of the changes of names. Either catalogue is the store's then, and both are there."""
    await populate(fs)
    before = await facts(fs)
    await fs.stop()
    path = fs.root / PRIVATE / "catalogue.db"
    old = path.read_bytes()
    seen = 0

    def counted(real: Any) -> Any:
        def call(*args: Any) -> Any:
            nonlocal seen
            if seen == step:
                raise Killed
            seen += 1
            return real(*args)

        return call

    real = rebuilding.finished

    def finished(path: Path) -> Path:
        for name in ("link", "rename", "unlink"):
            stack.enter_context(mock.patch.object(os, name, counted(getattr(os, name))))
        return real(path)

    with ExitStack() as stack, mock.patch.object(rebuilding, "finished", finished), pytest.raises(Killed):
        await rebuild(fs)
    await fs.reopen()
    assert await facts(fs) == before
    await fs.assert_consistent()
    await fs.stop()
    kept = [each.read_bytes() for each in path.parent.glob("catalogue.db.before-rebuild-*") if each.suffix != ".db-wal"]
    assert old in kept or not kept
    assert (await rebuild(fs)).in_place, "whatever is left of the first, another one does its work"
    await fs.reopen()
    assert await facts(fs) == before
    await fs.assert_consistent()


async def test_what_was_hashed_is_not_hashed_again(fs: Filesystem) -> None:
    await populate(fs)
    before = await facts(fs)
    await fs.stop()
    lose(fs)
    with mock.patch.object(SqliteCatalogue, "recount", side_effect=Killed), pytest.raises(Killed):
        await rebuild(fs)
    put(fs, OTHER, b"another")
    (fs.root / "temp/5/77/part").unlink()
    found = await rebuild(fs)
    assert (found.kept, found.hashed_files, found.hashed_bytes) == (4, 1, 7)
    await fs.reopen()
    assert await fs.read(OTHER) == b"another"
    after = await facts(fs)
    assert after[FILE] == before[FILE]
    assert "temp/5/77/part" not in after
    await fs.assert_consistent()


async def test_what_another_kind_of_rebuild_did_does_not_count(fs: Filesystem) -> None:
    await populate(fs)
    await fs.stop()
    lose(fs)
    with mock.patch.object(SqliteCatalogue, "recount", side_effect=Killed), pytest.raises(Killed):
        await rebuild(fs)
    assert (await rebuild(fs, verify_remote=True)).kept == 0


async def test_what_was_begun_and_is_damaged_does_not_count(fs: Filesystem) -> None:
    await populate(fs)
    await fs.stop()
    lose(fs)
    (fs.root / PRIVATE / "catalogue.db.rebuild").write_bytes(b"damaged" * 1000)
    assert (await rebuild(fs)).in_place
    await fs.reopen()
    await fs.assert_consistent()


async def test_s3_goes_away_in_the_middle(far: Filesystem) -> None:
    """What was taken in of the bucket is not asked for again."""
    for n in range(5):
        await far.write(f"{REC}/{n}", b"data")
        await far.drain()
        await evict(far, f"{REC}/{n}")
    before = await facts(far)
    await far.stop()
    lose(far)
    assert far.objects is not None
    with mock.patch("recfs.fs.rebuild.bucket.PAGE", 2):
        far.objects.fail("head", Unreachable("no route"), skip=3)
        with pytest.raises(Unreachable):
            await rebuild(far)
        far.objects.calls.clear()
        await rebuild(far)
    assert len([1 for operation, _ in far.objects.calls if operation == "head"]) == 3
    await far.reopen()
    assert await facts(far) == before
    await far.assert_consistent()


@pytest.mark.parametrize("times", [1, 3])
async def test_the_disk_is_full(fs: Filesystem, times: int) -> None:
    await populate(fs)
    before = await facts(fs)
    await fs.stop()
    damage(fs)
    real, calls = SqliteCatalogue.apply, 0

    async def apply(self: SqliteCatalogue, batch: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > times:
            raise OutOfSpace("catalogue: the disk is full")
        await real(self, batch)

    with mock.patch.object(SqliteCatalogue, "apply", apply), pytest.raises(StoreFull, match="goes on where it was"):
        await rebuild(fs)
    with pytest.raises(CatalogueCorrupt):
        await fs.reopen()
    await rebuild(fs)
    await fs.reopen()
    assert await facts(fs) == before
    await fs.assert_consistent()


# --- what cannot be read -------------------------------------------------------------------------------------------


@contextmanager
def refused(path: str, number: int) -> Iterator[None]:
    """Opening a path of the home tree fails."""
    real = LocalStore.open_file

    def open_file(self: LocalStore, local: bytes, flags: int) -> int:
        if local == self.home([os.fsencode(path)]):
            raise OSError(number, os.strerror(number), path)
        return real(self, local, flags)

    with mock.patch.object(LocalStore, "open_file", open_file), mock.patch.object(many, "extension", None):
        yield


async def test_a_file_that_cannot_be_read_is_named_and_the_rest_goes_on(fs: Filesystem) -> None:
    await populate(fs)
    await fs.stop()
    lose(fs)
    with refused(FILE, errno.EIO):
        found = await rebuild(fs)
    assert (found.unreadable.some, found.has_problems, found.in_place) == ([(FILE, "Input/output error")], True, True)
    await fs.reopen()
    assert await fs.state(FILE) == State.CORRUPT
    assert await fs.read(OTHER) == b"other"
    assert (fs.root / FILE).stat().st_size == 70_000


async def test_the_object_counts_in_the_place_of_a_file_that_cannot_be_read(far: Filesystem) -> None:
    await far.write(FILE, b"data")
    await far.drain()
    await far.stop()
    lose(far)
    with refused(FILE, errno.EIO):
        assert (await rebuild(far)).unreadable.count == 1
    await far.reopen()
    assert await far.read(FILE) == b"data"
    await far.assert_consistent(lost=1)


async def test_nothing_is_put_in_place_without_what_is_in_a_directory(fs: Filesystem) -> None:
    await populate(fs)
    await fs.stop()
    damage(fs)
    with refused(f"{REC}/sub", errno.EACCES):
        found = await rebuild(fs)
        assert (found.in_place, found.has_problems) == (False, True)
        assert found.unseen.some == [(f"{REC}/sub", "Permission denied")]
        with pytest.raises(CatalogueCorrupt):
            await fs.reopen()
        assert (await rebuild(fs, leave_out=True)).in_place
    await fs.reopen()
    assert not await fs.exists(OTHER)
    assert (fs.root / OTHER).read_bytes() == b"other"


async def test_what_the_layout_does_not_allow_goes_to_lost_and_found(fs: Filesystem) -> None:
    await populate(fs)
    before = await facts(fs)
    await fs.stop()
    lose(fs)
    (fs.root / "users/5/notes").write_bytes(b"notes")
    (fs.root / "users/nobody/recordings/1").mkdir(parents=True)
    (fs.root / "users/nobody/recordings/1/file").write_bytes(b"of nobody")
    os.mkfifo(fs.root / REC / "fifo")
    os.link(fs.root / FILE, fs.root / f"{REC}/linked")
    found = await rebuild(fs)
    assert sorted(path for path, _ in found.linked.some) == [FILE, f"{REC}/linked"]
    assert sorted(path for path, _ in found.aside.some) == ["users/5/notes", f"{REC}/fifo", "users/nobody"]
    (fs.root / f"{REC}/linked").unlink()
    lose(fs)
    assert not (await rebuild(fs)).has_problems
    await fs.reopen()
    assert await facts(fs) == before
    assert {path.name.split("-", 2)[2] for path in (fs.root / PRIVATE / "lost+found").iterdir()} == {
        "users-5-notes", "users-nobody", f"{REC.replace('/', '-')}-fifo",
    }  # fmt: skip
    await fs.assert_consistent(lost=3)


async def test_a_file_that_somebody_writes_to_is_named(fs: Filesystem) -> None:
    """It is read again once. What is there of it has a row, and is not taken for whole."""
    await populate(fs)
    await fs.stop()
    lose(fs)
    real = LocalStore.stat
    sizes = iter(range(1, 100))

    def stat(self: LocalStore, local: bytes) -> os.stat_result | None:
        if local == self.home([FILE.encode()]):
            with open(local, "ab") as file:
                file.write(b"x" * next(sizes))
        return real(self, local)

    with mock.patch.object(LocalStore, "stat", stat):
        found = await rebuild(fs)
    assert [path for path, _ in found.unreadable.some] == [FILE]
    await fs.reopen()
    assert await fs.state(FILE) == State.CORRUPT
    assert await fs.read(OTHER) == b"other"


async def test_bytes_that_went_bad_are_found_by_the_old_catalogue(fs: Filesystem) -> None:
    await populate(fs)
    await fs.stop()
    put(fs, FILE, b"x" * 70_000, TIME_NS)
    found = await rebuild(fs, salvage=True)
    assert ([path for path, _ in found.damaged.some], found.has_problems) == ([FILE], True)
    await fs.reopen()
    assert await fs.state(FILE) == State.CORRUPT
    assert (fs.root / FILE).read_bytes() == b"x" * 70_000


async def test_what_an_object_says_of_its_file_is_written_anew(far: Filesystem) -> None:
    """Mode, owner and time were changed, and that had not come to its metadata."""
    await far.write(FILE, b"data")
    await far.drain()
    await far.stop()
    lose(far)
    os.chmod(far.root / FILE, 0o600)
    os.utime(far.root / FILE, ns=(TIME_NS, TIME_NS))
    assert not (await rebuild(far)).has_problems
    await far.reopen()
    await until(lambda: not far.tier.journal.rows)
    assert far.objects is not None
    info = far.objects.head(FILE)
    assert info is not None
    assert (info.metadata["mode"], info.metadata["mtime"]) == ("0600", "1700000000.123456789")
    assert await far.state(FILE) == State.STORED
    await far.assert_consistent()


async def test_a_daemon_that_is_not_root_gets_owners_from_the_metadata(far: Filesystem) -> None:
    await populate(far)
    await far.stop()
    lose(far)
    for path in (FILE, OTHER):
        os.chown(far.root / path, 0, 0)
        os.chmod(far.root / path, 0o700)
    with mock.patch("recfs.stores.local.can_chown", return_value=False):
        await rebuild(far)
    rows = far.rows("select mode, uid, gid from node where name = ?", b"file")
    assert rows == [(0o640, 1005, 1006)]


# --- recfs's own areas ---------------------------------------------------------------------------------------------


def stage(fs: Filesystem, name: str, data: bytes, label: Label) -> None:
    """Leave a staging file behind."""
    path = fs.root / PRIVATE / "staging" / name
    path.write_bytes(data)
    os.setxattr(path, LABEL_XATTR, label.encode())


async def test_what_lies_in_staging(fs: Filesystem) -> None:
    """What was closed last counts; the version at home, and what was closed before or not at all, is kept."""
    await fs.write(FILE, b"committed")
    await fs.write(OTHER, b"other")
    await fs.drain()
    await fs.stop()
    lose(fs)
    label = Label(900, 800, 0o640, 1005, 1006, 8, FILE.encode(), 2)
    stage(fs, "a-1", b"closed 2", label)
    stage(fs, "a-2", b"closed 1", label._replace(written_ns=1))
    stage(fs, "a-3", b"cut off", Label(901, 800, 0o640, 0, 0, None, OTHER.encode(), 3))
    stage(fs, "a-4", b"new", Label(902, 801, 0o640, 0, 0, 3, f"{REC}/new/file".encode(), 4))
    found = await rebuild(fs)
    assert found.aside.count == 2
    await fs.reopen()
    await fs.drain()
    assert await fs.read(FILE) == b"closed 2"
    assert await fs.read(OTHER) == b"other"
    assert await fs.read(f"{REC}/new/file") == b"new"
    kept = {path.read_bytes() for path in (fs.root / PRIVATE / "lost+found").iterdir()}
    assert kept == {b"committed", b"closed 1", b"cut off"}
    await fs.assert_consistent(lost=3)


async def test_the_trash_is_where_people_find_it(fs: Filesystem) -> None:
    await fs.write(FILE, b"data")
    await fs.drain()
    await fs.stop()
    lose(fs)
    (fs.root / PRIVATE / "trash/17").write_bytes(b"deleted")
    (fs.root / PRIVATE / "limbo/44").write_bytes(b"under way")
    assert (await rebuild(fs)).aside.count == 2
    await fs.reopen()
    kept = {path.read_bytes() for path in (fs.root / PRIVATE / "lost+found").iterdir()}
    assert kept == {b"deleted", b"under way"}
    await fs.assert_consistent(lost=2)


# --- who may ------------------------------------------------------------------------------------------------------


async def test_not_beside_a_daemon_or_another_rebuild(fs: Filesystem) -> None:
    await populate(fs)
    with pytest.raises(RootBusy):
        await rebuild(fs)
    await fs.stop()
    lose(fs)
    real = Site.write
    seen: list[type[Exception]] = []

    async def write(self: Site) -> None:
        try:
            await rebuild(fs)
        except RootBusy as error:
            seen.append(type(error))
        await real(self)

    with mock.patch.object(Site, "write", write), mock.patch("recfs.stores.lock.DYING_S", 0.0):
        await rebuild(fs)
    assert RootBusy in seen
    await fs.reopen()
    await fs.assert_consistent()


async def test_not_where_nothing_of_a_store_is(fs: Filesystem, tmp_path: Path) -> None:
    await fs.stop()
    fs.config = fs.config.model_copy(update={"root": tmp_path / "missing"})
    with pytest.raises(NotAStore, match="is its disk mounted"):
        await rebuild(fs)
    assert not (tmp_path / "missing").exists()


async def test_not_without_the_bucket_of_the_store(far: Filesystem) -> None:
    await far.write(FILE, b"data")
    await far.drain()
    await far.stop()
    far.config = far.config.model_copy(update={"s3": None, "route": ()})
    objects, far.objects = far.objects, None
    with pytest.raises(StoreError, match="without-s3"):
        await rebuild(far)
    assert (await rebuild(far, without_s3=True)).stored == 0
    far.objects = objects


# --- what the old catalogue still tells ----------------------------------------------------------------------------


@pytest.mark.parametrize("salvage", [True, False])
async def test_what_only_the_catalogue_knew(far: Filesystem, salvage: bool) -> None:
    await populate(far)
    await evict(far, OTHER)
    for path in (FILE, OTHER, REC):
        await far.xattrs.set((await far.node(path)).ino, b"user.title", path.encode(), OPERATOR)
    await far.answers()["quota_set"]({"user": "5", "max_bytes": 10**9})
    await far.answers()["quota_set"]({"user": "99", "max_files": 7})
    (await far.node(REC)).life = (await far.node(REC)).life._replace(keep=1, note="court order")
    far.parts.behind.recording(await far.node(REC))
    await far.drain()
    numbers = {path: (await far.node(path)).ino for path in await facts(far) if "thumbnails/one.png" not in path}
    before, tokens = await facts(far), far.rows("select value from meta where key = 's3_tokens'")
    await far.stop()
    found = await rebuild(far, salvage=salvage, checksums=Checksums.TRUST)
    assert (found.salvaged > 0) is salvage
    assert (found.hashed_files == 0) is salvage
    await far.reopen()
    assert await facts(far) == before
    assert ({path: (await far.node(path)).ino for path in numbers} == numbers) is salvage
    for path in (FILE, OTHER, REC):
        assert (await far.parts.catalogue.xattrs((await far.node(path)).ino) != {}) is salvage
    assert (far.rows("select note from recording where keep = 1") == ["court order"]) is salvage
    limits = dict(far.rows("select user, coalesce(max_bytes, 0) + coalesce(max_files, 0) from account"))
    assert (limits.get("5"), limits.get("99")) == ((10**9, 7) if salvage else (0, None))
    assert far.rows("select value from meta where key = 's3_tokens'")[0].endswith(tokens[0])
    await far.drain()
    assert not far.tier.ownership.refusal
    await far.assert_consistent()


async def test_a_damaged_page_costs_what_is_on_it_alone(fs: Filesystem) -> None:
    await fs.mkdirs(REC)
    for n in range(300):
        await fs.write(f"{REC}/file-{n:03d}", b"data")
    await fs.drain()
    await fs.stop()
    path = fs.root / PRIVATE / "catalogue.db"
    data = bytearray(path.read_bytes())
    for page in range(20, len(data) // 4096, 3):
        data[page * 4096 : page * 4096 + 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    found = await rebuild(fs, salvage=True)
    assert found.in_place
    await fs.reopen()
    assert len(await fs.names(REC)) == 300
    await fs.assert_consistent()


# --- whose the bucket is -------------------------------------------------------------------------------------------


async def test_the_store_keeps_its_bucket(far: Filesystem) -> None:
    """Without anything of the old catalogue, by the mark in the bucket, which names this machine and this root."""
    await far.write(FILE, b"data")
    await far.drain()
    (store,) = far.rows("select value from meta where key = 'store_id'")
    await far.stop()
    lose(far)
    found = await rebuild(far)
    assert (found.store_id, found.claim_needed) == (store, False)
    await far.reopen()
    await far.write(OTHER, b"more")
    await far.drain()
    assert stored(far) == {FILE: b"data", OTHER: b"more"}


@pytest.mark.expect_log("belongs to")
async def test_the_bucket_of_another_store_is_not_taken_over(far: Filesystem) -> None:
    await far.write(FILE, b"data")
    await far.drain()
    await far.stop()
    lose(far)
    with mock.patch("socket.gethostname", return_value="another"):
        found = await rebuild(far)
    assert (found.claim_needed, found.has_problems, found.in_place) == (True, True, True)
    await far.reopen()
    assert await far.read(FILE) == b"data"
    await far.write(OTHER, b"more")
    await until(lambda: far.tier.ownership.refusal)
    await far.unlink(FILE)
    assert stored(far) == {FILE: b"data"}
