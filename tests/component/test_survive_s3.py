"""Whatever one call of the object store raises, of whatever class: S3's services go on, and nothing is lost.

As test_survive, with a bucket: each method of the port is struck while the file system starts, works and stops, and so
are those of the disk and the catalogue while it works.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from recfs import ending
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.core.routing import RouteRule
from recfs.fs.attributes import Changes
from recfs.fuse.mounting import Detached
from recfs.ports.object_errors import Unreachable, UploadInvalid
from recfs.ports.objects import ObjectStore
from recfs.stores.breaker import CircuitBreaker
from recfs.stores.local import LocalStore
from recfs.stores.wrap import RetryingObjectStore, RetryPolicy
from tests.fake_object_store import FakeObjectStore

from .build import OPERATOR, Filesystem, pattern
from .curses import ERRORS, MARK, Call, Cases, Curse, ids, methods, refused
from .ending import ending_of

BAD = f"users/5/recordings/{MARK}"
FAIR = "users/6/recordings/1"
PART_BYTES = 4096
NAMING = [
    "abort_multipart", "copy", "delete", "finish_multipart", "get_range", "head", "list_multiparts", "list_parts",
    "presign", "put_file", "restore", "start_multipart", "upload_part",
]  # fmt: skip
"""Methods that are told which object it is …"""
OF_THE_BUCKET = ["check", "get_lifecycle", "get_small", "part_size", "put_lifecycle", "put_small"]
"""… those that are not …"""
RARE = {"list": "asked of a new bucket", "close": "at the end", "get_tags": "by nobody", "set_tags": "by nobody"}
"""… and those that are not called while a file system works."""
OTHERS = [(owner, name) for owner in (LocalStore, SqliteCatalogue) for name in methods(owner)]
BEFORE = {
    "moved": pattern(1000), "kept": pattern(1001), "gone": pattern(1002), "replaced": pattern(1003),
    "cold": pattern(1004), "old": pattern(1005),
}  # fmt: skip
WRITTEN = {
    "replaced": pattern(3000), "whole": pattern(10_000), "torn": pattern(10_001), "unfit": pattern(10_002),
}  # fmt: skip
"""All but the first in three parts."""
AFTER = {name: data for name, data in BEFORE.items() if name not in ("moved", "gone")} | WRITTEN
AFTER["renamed"] = BEFORE["moved"]


class Bucket(FakeObjectStore):
    """One in which small files have parts, too, and some uploads end half-way.

    What they began has to be listed, gone on with, or aborted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hold_parts_to_minimum = False
        self._asked: Counter[tuple[str, str | None]] = Counter()
        self.before = self._breaks_off

    def part_size(self, size_bytes: int) -> int:
        """A page."""
        return PART_BYTES

    def _breaks_off(self, operation: str, key: str | None) -> None:
        asked = self._asked[operation, key] = self._asked[operation, key] + 1
        name = (key or "").rpartition("/")[2]
        if (operation, name, asked) == ("finish_multipart", "unfit", 1):
            raise UploadInvalid("a part is missing")
        if (operation, name, asked) == ("upload_part", "torn", 2):
            raise Unreachable("no route")


class Tiered(Filesystem):
    """A file system with a bucket in memory, behind the retries that the daemon has."""

    def __init__(self, nursery: trio.Nursery, root: Path) -> None:
        more: dict[str, Any] = {
            "s3": {"bucket": "bucket"},
            "upload": {"settle": 0.0},
            "cache": {"fetch_whole_below": 1},
        }
        super().__init__(nursery, root, **more)
        self.bucket = Bucket()
        self.breaker = CircuitBreaker(threshold=1, first_pause_s=0.0, max_pause_s=0.0)
        self.objects = RetryingObjectStore(self.bucket, RetryPolicy(max_attempts=1), self.breaker)  # type: ignore[assignment]

    async def ask(self, method: str, **params: Any) -> Any:
        """Call a control method."""
        return await self.answers()[method](params)

    async def passes(self, condition: Callable[[], object]) -> None:
        """Until *condition* holds; for the file system's clock, too, time goes by."""
        with trio.fail_after(7200):
            while not condition():  # any condition, of parts that announce nothing
                await trio.sleep(0.1)
                self.clock.advance(10)

    async def passes_s(self, seconds: float) -> None:
        """So much time."""
        self.clock.advance(seconds)
        await trio.sleep(seconds)

    async def prepare(self) -> None:
        """Files of two users that S3 has, one of each nobody else, and one in an archive."""
        for folder in (BAD, FAIR):
            for name, data in BEFORE.items():
                await self.write(f"{folder}/{name}", data)
        await self.drain()
        for folder in (BAD, FAIR):
            for name in ("cold", "old"):
                await self.ask("evict", path=f"{folder}/{name}")
            self.bucket.archive(f"{folder}/old")
            with refused():
                await self.read(f"{folder}/old")
        await self.drain()

    @property
    def rows(self) -> list[Any]:  # type: ignore[override]
        """What is to be done on S3."""
        return list(self.tier.journal.rows.values())

    def failing(self) -> dict[int, int]:
        """Rows that have failed and wait for their next try, and how often they have."""
        running = self.tier.journal.running
        return {row.id: row.attempts for row in self.rows if row.attempts and row.id not in running}

    def concerns(self, row: Any, folder: str) -> bool:
        """Whether a row of the journal is about something in *folder*."""
        node = self.parts.tree.nodes.get(row.ino)
        if row.key or node is None:  # a deletion speaks of who had the key; nobody knows whose a row without both is
            return not row.key or row.key.startswith(folder)
        return node.path.startswith(folder)

    def is_done(self) -> bool:
        """Whether nothing is to be done any more, or set aside."""
        parts = self.parts
        return not (self.rows or parts.behind.problems.as_json() or parts.committer.depth or parts.publisher.depth)


@asynccontextmanager
async def tiered(root: Path) -> AsyncIterator[Tiered]:
    async with trio.open_nursery() as nursery:
        fs = Tiered(nursery, root)
        await fs.start()
        await fs.prepare()
        yield fs
        await fs.stop()
        nursery.cancel_scope.cancel()


# --- what is done ----------------------------------------------------------------------------------------------------


async def use(fs: Tiered, folder: str) -> None:
    """One user's ordinary acts; each may fail."""
    await each_of(
        *(lambda name=name, data=data: fs.write(f"{folder}/{name}", data) for name, data in WRITTEN.items()),
        lambda: fs.rename(f"{folder}/moved", f"{folder}/renamed"),
        lambda: fs.unlink(f"{folder}/gone"),
        lambda: change_mode(fs, f"{folder}/kept"),
        lambda: fs.read(f"{folder}/cold"),
        lambda: fs.read(f"{folder}/old"),
        lambda: state_of_restore(fs, f"{folder}/old"),
    )


async def operate(fs: Tiered, folder: str) -> None:
    """An operator's ordinary acts; each may fail."""
    await each_of(
        lambda: fs.ask("restore", path=f"{folder}/old"),
        lambda: fs.ask("fetch", path=f"{folder}/old"),
        lambda: fs.ask("fetch", path=f"{folder}/cold"),
        lambda: fs.ask("presign", path=f"{folder}/kept"),
        lambda: fs.ask("presign", path=f"{folder}/nothing", put=True),
        lambda: fs.ask("bucket_owner"),
        lambda: fs.ask("bucket_claim"),
        lambda: fs.ask("lifecycle_show"),
        lambda: fs.ask("lifecycle_apply"),
        lambda: fs.ask("tier_run"),
        lambda: fs.ask("status"),
    )


async def work(fs: Tiered, folder: str) -> None:
    """All of it."""
    await use(fs, folder)
    await operate(fs, folder)


async def each_of(*acts: Callable[[], Awaitable[object]]) -> None:
    for act in acts:
        with refused():
            await act()


async def change_mode(fs: Tiered, path: str) -> None:
    await fs.vfs.setattr((await fs.node(path)).ino, Changes(mode=0o600), OPERATOR)


async def state_of_restore(fs: Tiered, path: str) -> None:
    await fs.xattrs.get((await fs.node(path)).ino, b"user.recfs.restore", OPERATOR)


async def others_go_on(fs: Tiered) -> None:
    """Another user's files are all that S3 should have, while the fault is there."""
    await work(fs, FAIR)
    nodes = [await fs.node(f"{FAIR}/{name}") for name in WRITTEN]
    await fs.passes(lambda: all(node.state.is_whole for node in nodes))  # before that nothing is to be uploaded
    await fs.passes(lambda: not [row for row in fs.rows if fs.concerns(row, FAIR)])
    await all_there(fs, FAIR)


async def the_disk_goes_on(fs: Tiered) -> None:
    """What S3 does is nothing that who writes and reads here has to know."""
    path = f"{FAIR}/here"
    await fs.write(path, b"here")
    node = await fs.node(path)
    await fs.passes(lambda: node.state.is_whole and not node.pending)
    assert await fs.read(path) == b"here"
    assert (fs.root / path).read_bytes() == b"here"


async def assert_reasons_are_told(fs: Tiered) -> None:
    """Of all that is set aside now."""
    before = fs.failing()
    status = await fs.ask("status")
    for item in fs.parts.behind.problems.as_json():
        assert item["reason"], item
    assert all(row.error for row in fs.rows if row.attempts)
    lasting = before.items() & fs.failing().items()  # none of these was just being tried again
    assert not lasting or status["s3"]["problem"], "recfs status tells nothing"


async def all_there(fs: Tiered, folder: str) -> None:
    """Files and objects are what they should be, byte by byte."""
    assert [name for name in await fs.names(folder) if name != "here"] == sorted(AFTER)
    for name, data in AFTER.items():
        path = f"{folder}/{name}"
        assert fs.bucket.data(path) == data, f"the object of {path}"
        if name != "old":
            assert await fs.read(path) == data, path
    stored = [key.rpartition("/")[2] for key in fs.bucket.keys() if key.startswith(folder)]  # noqa: SIM118 (no mapping)
    assert [name for name in stored if name != "here"] == sorted(AFTER)


async def healed(fs: Tiered) -> None:
    """The fault is gone: everything gets done, and no byte is lost."""
    fs.bucket.heal()
    await work(fs, BAD)
    await work(fs, FAIR)
    await fs.passes(fs.is_done)
    await fs.drain()
    for folder in (BAD, FAIR):
        await all_there(fs, folder)
        fs.bucket.finish_restore(f"{folder}/old")
        assert await fs.read(f"{folder}/old") == AFTER["old"]
    await fs.passes(fs.is_done)
    assert all(info.key.startswith((BAD, FAIR)) for info in fs.bucket.list()), "objects that belong to nobody"
    assert fs.bucket.list_multiparts() == [], "uploads that nobody goes on with"
    fs.parts.tree.check_invariants()
    assert (await fs.ask("quota_check"))["differences"] == []


# --- when it strikes -------------------------------------------------------------------------------------------------


async def struck(fs: Tiered, curse: Curse) -> None:
    """Whoever shall meet the fault meets it."""
    curse.armed = True
    await work(fs, BAD)
    if curse.once:
        await fs.passes(lambda: curse.hits or fs.is_done())
    elif curse.mark:
        await others_go_on(fs)
    else:
        await the_disk_goes_on(fs)
        hits = None
        for _ in range(2 * len(ERRORS)):
            if curse.hits < len(ERRORS):
                for _ in range(60):
                    if hits is None or curse.hits == hits:  # at first, and while nobody has met the next error
                        await fs.passes_s(10)
                hits = curse.hits
                fs.breaker.failed(Unreachable("no route"), probe=False)
                await operate(fs, BAD)
    curse.armed = False
    await assert_reasons_are_told(fs)


async def at_work(place: Path, calls: Collection[Call], curse: Curse) -> None:
    """Strike a running file system."""
    with curse.on(calls):
        async with tiered(place) as fs:
            await struck(fs, curse)
            await healed(fs)


async def at_start(place: Path, name: str, curse: Curse) -> None:
    """Strike a start that has everything to do: it comes up, whatever S3 does."""
    async with tiered(place) as fs:
        for operation in ("put_file", "copy", "delete", "finish_multipart"):
            fs.bucket.fail(operation, Unreachable("no route"), times=1000)
        for folder in (BAD, FAIR):
            await use(fs, folder)
        await fs.crash()
        fs.bucket.heal()
        with curse.laid_on(Bucket, name):
            curse.armed = True
            await fs.reopen()
            await struck(fs, curse)
        await healed(fs)


async def at_stop(place: Path, name: str, curse: Curse) -> None:
    """Strike a stop that has everything to do: it ends, and the next start goes on."""
    async with tiered(place) as fs:
        with curse.laid_on(Bucket, name):
            curse.armed = True
            for folder in (BAD, FAIR):
                await work(fs, folder)
            await stop_as_the_daemon_does(fs)
        await fs.reopen()
        await healed(fs)


async def stop_as_the_daemon_does(fs: Tiered) -> None:
    stopping = ending_of(fs, fs.root)
    with (
        mock.patch.object(ending.OwnMount, "detach", return_value=Detached.IDLE),
        mock.patch.object(stopping, "_last_releases", mock.AsyncMock()),
        trio.fail_after(600),
    ):
        await stopping.end()
        assert fs.parts.s3_services is not None
        fs.parts.s3_services.close()
        await stopping.finish()
        await fs.stop()


pytestmark = pytest.mark.usefixtures("any_log")


def test_every_method_is_struck() -> None:
    assert sorted([*NAMING, *OF_THE_BUCKET, *RARE]) == methods(ObjectStore)


@pytest.mark.parametrize("once", [True, False], ids=["once", "one user's"])
@pytest.mark.parametrize("name", NAMING)
@pytest.mark.table
async def test_one_object_at_work(place: Path, name: str, once: bool) -> None:
    curse = Curse(ERRORS[(NAMING.index(name) + once) % len(ERRORS)], once=once)
    await at_work(place, [(Bucket, name)], curse)
    assert curse.hits


@pytest.mark.parametrize("name", [*NAMING, *OF_THE_BUCKET])
@pytest.mark.table
async def test_all_objects_at_work(place: Path, name: str) -> None:
    curse = Curse(*ERRORS, mark="")
    await at_work(place, [(Bucket, name)], curse)
    assert curse.hits >= len(ERRORS), "each of them"


@pytest.mark.parametrize("name", [*NAMING, *OF_THE_BUCKET])
@pytest.mark.table
async def test_at_start(place: Path, name: str) -> None:
    curse = Curse(*ERRORS, mark=MARK if name in NAMING else "")
    await at_start(place, name, curse)
    assert curse.hits


@pytest.mark.parametrize("name", ["list", "get_small", "put_small"])
async def test_at_the_first_start(place: Path, name: str) -> None:
    """The bucket is new, and nobody can find out whether it is; files are written all the same."""
    curse = Curse(*ERRORS, mark="")
    curse.armed = True
    with curse.laid_on(Bucket, name):
        async with trio.open_nursery() as nursery:
            fs = Tiered(nursery, place)
            await fs.start()
            await the_disk_goes_on(fs)
            await fs.passes(lambda: curse.hits)
            curse.armed = False
            await fs.passes(fs.is_done)
            assert fs.bucket.data(f"{FAIR}/here") == b"here"
            await fs.stop()


STOPPING = [
    "close",
    "get_small",
    "part_size",
    *(name for name in NAMING if name not in ("list_parts", "list_multiparts")),
]


@pytest.mark.parametrize("name", STOPPING)
@pytest.mark.table
async def test_at_stop(place: Path, name: str) -> None:
    curse = Curse(*ERRORS, mark="")
    await at_stop(place, name, curse)
    assert curse.hits


@pytest.mark.parametrize("method", ["fetch", "tier_run"])
async def test_one_file_ends_no_operators_command(place: Path, method: str) -> None:
    curse = Curse(*ERRORS, once=True)
    names = ("cold", "kept", "replaced")
    with curse.laid_on(LocalStore, "label"):
        async with tiered(place) as fs:
            for folder in (BAD, FAIR):
                for name in names:
                    await fs.ask("evict", path=f"{folder}/{name}")
            await fs.drain()
            tier = fs.tier
            assert tier is not None
            tier.copies.settings = replace(tier.settings, rules=(RouteRule("**", "local"),))
            curse.armed = True
            told = await fs.ask(method, path="users", recursive=True)
            await fs.drain()
            assert curse.hits
            assert len([each for each in told["kept"] if ERRORS[0].args[1] in each["reason"]]) == 1, told
            here = [(fs.root / folder / name).exists() for folder in (BAD, FAIR) for name in names]
            assert here.count(False) == 1


CASES = Cases(at_work, OTHERS)


@pytest.mark.parametrize("call", OTHERS, ids=ids)
@pytest.mark.table(2)
async def test_the_disk_and_the_catalogue(place: Path, call: Call) -> None:
    await CASES.run(place, call, Curse(*ERRORS))
