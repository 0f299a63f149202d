"""`recfs stats --trend`: what is remembered of each day, and how a store grew by that."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from recfs import upkeep
from recfs.core.figures.counters import NOT_KNOWN, RECOUNT_DUE
from recfs.errors import Busy, InvalidArgument
from recfs.services.figures.days import Days

from .build import Filesystem

if TYPE_CHECKING:
    from pathlib import Path

    import trio

DAY_S = 86_400
MIB = 1 << 20
SOURCE = "users/5/recordings/1/source.mp4"


class Store:
    """A file system whose days are remembered when a test says so."""

    def __init__(self, fs: Filesystem, nursery: trio.Nursery, keep_d: int = 400) -> None:
        self.fs, self._nursery = fs, nursery
        self._keep_s = keep_d * DAY_S
        self.days = self._days()

    def _days(self) -> Any:
        return Days(self.fs.vfs.tree, self.fs.parts.catalogue, self.fs.parts.reports, keep_s=self._keep_s).sweep()

    async def remember(self) -> bool:
        await self.fs.drain()
        await self.fs.parts.behind.durable()
        day = await self.days.look()
        if self.days.decide(day) is None:
            return False
        return await self.days.act(day, self._nursery) is not None

    async def trend(self, days: int = 30, **params: Any) -> dict[str, Any]:
        await self.fs.drain()
        await self.fs.parts.behind.durable()
        answer: dict[str, Any] = await self.fs.answers()["stats_trend"]({"days": days} | params)
        return answer

    def rows(self) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.fs.parts.store.catalogue_path)) as db:
            return db.execute("select user, category, day, files, bytes from figure_of_day order by 1, 2, 3").fetchall()

    async def counters_say(self, **by_class: tuple[int, int]) -> None:
        """Have files of user 5 be in S3: *archive* not on the disk, *both* on it, too."""
        await self.fs.drain()
        await self.fs.parts.behind.durable()
        keys = {"archive": (0, "DEEP_ARCHIVE"), "both": (1, "STANDARD")}
        with closing(sqlite3.connect(self.fs.parts.store.catalogue_path)) as db:
            for name, (files, size) in by_class.items():
                db.execute(
                    "replace into figure values ('5', 'video', ?, ?, ?, 0, ?)", (*keys[name], files, size)
                )  # fmt: skip
            db.commit()

    def forget_places(self) -> None:
        """Make of what is remembered what an earlier version has left."""
        with closing(sqlite3.connect(self.fs.parts.store.catalogue_path)) as db:
            db.execute("update figure_of_day set here = 1, storage_class = ?", (NOT_KNOWN,))
            db.commit()


@pytest.fixture
async def store(nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(upkeep.Figures, "sweeps", lambda self: [])
    fs = Filesystem(nursery, tmp_path / "root")
    await fs.start()
    # noon of some day: hours do not matter
    fs.clock.advance(-(fs.clock.calendar_ns() // 10**9 % DAY_S) + DAY_S // 2)
    return Store(fs, nursery)


def grown(found: dict[str, Any]) -> list[tuple[int, int, int, int]]:
    return [(each["days"], each["files"], each["grown_files"], each["grown_bytes"]) for each in found["days"]]


async def test_growth_by_day_by_user_and_by_category(store: Store) -> None:
    await store.fs.write(SOURCE, b"x" * 1000)
    assert await store.remember()
    assert not await store.remember(), "a day is remembered once"
    await store.fs.write("users/6/recordings/1/audio.mp3", b"x" * 200)
    store.fs.clock.advance(DAY_S)
    assert await store.remember()
    await store.fs.write("shared/a", b"x" * 30)
    found = await store.trend()
    assert grown(found) == [(1, 1, 1, 200), (1, 2, 1, 30)]
    assert found["gaps"] == []
    assert {name: each["grown_bytes"] for name, each in found["users"].items()} == {"6": 200, "": 30, "5": 0}
    assert {name: each["bytes"] for name, each in found["categories"].items()} == {
        "audio": 200, "shared": 30, "source": 1000,
    }  # fmt: skip
    assert [(each["files"], each["bytes"]) for each in found["uploads"].values()] == [(1, 1000)]
    assert grown(await store.trend(user="6")) == [(1, 0, 1, 200), (1, 1, 0, 0)]
    assert grown(await store.trend(category="shared")) == [(1, 0, 0, 0), (1, 0, 1, 30)]
    assert list((await store.trend(user="6"))["users"]) == ["6"]
    await store.fs.stop()


async def test_of_a_store_of_which_nothing_is_remembered_yet_only_what_there_is_is_told(store: Store) -> None:
    await store.fs.write("shared/a", b"x" * 30)
    found = await store.trend()
    assert (found["since"], found["days"], found["gaps"]) == (None, [], [])
    assert found["categories"]["shared"] == {"files": 1, "bytes": 30, "grown_files": 0, "grown_bytes": 0}
    await store.fs.stop()


async def test_what_goes_is_growth_too_and_only_changes_take_room(store: Store) -> None:
    await store.fs.write("shared/a", b"x" * 30)
    for _ in range(3):
        assert await store.remember()
        store.fs.clock.advance(DAY_S)
    assert len(store.rows()) == 1
    await store.fs.unlink("shared/a")
    assert await store.remember()
    assert [row[3:] for row in store.rows()] == [(1, 30), (0, 0)]
    assert grown(await store.trend()) == [(1, 1, 0, 0), (1, 1, 0, 0), (1, 1, -1, -30), (1, 0, 0, 0)]
    await store.fs.stop()


async def test_days_on_which_nobody_looked_are_told(store: Store) -> None:
    assert await store.remember()
    first = (await store.trend())["since"]
    store.fs.clock.advance(3 * DAY_S)
    await store.fs.write("shared/a", b"x" * 30)
    assert await store.remember()
    found = await store.trend()
    assert grown(found) == [(3, 0, 1, 30), (1, 1, 0, 0)]
    ((begin, end),) = found["gaps"]
    assert first < begin < end < found["days"][1]["day"]
    store.fs.clock.advance(2 * DAY_S)
    assert len((await store.trend())["gaps"]) == 2, "up to now"
    await store.fs.stop()


async def test_a_window_begins_with_what_was_before_it(store: Store) -> None:
    await store.fs.write("shared/a", b"x" * 30)
    for _ in range(5):
        assert await store.remember()
        store.fs.clock.advance(DAY_S)
    found = await store.trend(days=2)
    assert grown(found) == [(1, 1, 0, 0), (2, 1, 0, 0)], "of today nothing is remembered yet"
    assert found["categories"]["shared"]["grown_files"] == 0
    await store.fs.stop()


async def test_old_days_go_and_the_first_that_is_kept_stays_right(nursery: trio.Nursery, store: Store) -> None:
    store = Store(store.fs, nursery, keep_d=2)
    for number in range(6):
        await store.fs.write(f"shared/{number}", b"x" * 10)
        assert await store.remember()
        store.fs.clock.advance(DAY_S)
    await store.fs.write("users/5/recordings/1/audio.mp3", b"x")
    assert await store.remember()
    assert [row[3] for row in store.rows() if row[1] == "shared"] == [5, 6]
    found = await store.trend()
    assert [each["files"] for each in found["days"]] == [5, 6, 7]
    await store.fs.stop()


async def test_a_day_that_was_begun_by_a_daemon_that_died_is_done_again(store: Store) -> None:
    await store.fs.write("shared/a", b"x" * 30)
    assert await store.remember()
    store.fs.clock.advance(DAY_S)
    day = await store.days.look()
    await store.fs.parts.catalogue.keep_day([(await store.fs.parts.reports.ask(_row, day))], day, None)
    assert await store.remember()
    assert grown(await store.trend()) == [(1, 1, 0, 0), (1, 1, 0, 0)]
    await store.fs.stop()


def _row(snapshot: Any, day: str) -> Any:
    return snapshot.remembered("2000-01-01").rows[0]._replace(day=day, files=99)


def classes(found: dict[str, Any]) -> list[dict[str, int] | None]:
    return [
        each["classes"] and {name: of["grown_bytes"] for name, of in each["classes"].items()} for each in found["days"]
    ]


async def test_growth_by_store_and_by_storage_class(store: Store) -> None:
    await store.fs.write("shared/a", b"x" * 30)
    assert await store.remember()
    store.fs.clock.advance(DAY_S)
    await store.counters_say(both=(1, 500))
    assert await store.remember()
    store.fs.clock.advance(DAY_S)
    await store.counters_say(both=(3, 700), archive=(1, 9000))
    found = await store.trend()
    assert classes(found) == [
        {"STANDARD": 500, "local": 500}, {"DEEP_ARCHIVE": 9000, "STANDARD": 200, "local": 200},
    ]  # fmt: skip
    assert found["days"][1]["classes"]["STANDARD"]["bytes"] == 500
    assert found["placed_since"] == found["since"]
    assert {name: (each["bytes"], each["grown_bytes"]) for name, each in found["classes"].items()} == {
        "DEEP_ARCHIVE": (9000, 9000), "STANDARD": (700, 700), "local": (730, 700),
    }  # fmt: skip
    assert list(found["classes"]) == ["DEEP_ARCHIVE", "STANDARD", "local"], "what grew most comes first"
    assert {name: (each["files"], each["grown_files"]) for name, each in found["stores"].items()} == {
        "s3": (1, 1), "local_and_s3": (3, 3), "local": (1, 0),
    }  # fmt: skip
    assert [sum(each["grown_bytes"] for each in found["days"])] == [9700]
    only = await store.trend(store="s3")
    assert (only["store"], grown(only)) == ("s3", [(1, 0, 1, 500), (2, 1, 3, 9200)])
    assert list(only["categories"]) == ["video"]
    assert grown(await store.trend(store="local")) == [(1, 1, 1, 500), (2, 2, 2, 200)]
    assert await store.remember()
    store.fs.clock.advance(DAY_S)
    await store.counters_say(archive=(0, 0))
    assert classes(await store.trend())[2:] == [{"DEEP_ARCHIVE": -9000, "STANDARD": 0, "local": 0}]
    await store.fs.stop()


async def test_of_days_of_an_earlier_version_it_is_said_that_no_place_is_known(store: Store) -> None:
    await store.fs.write("shared/a", b"x" * 30)
    assert await store.remember()
    store.forget_places()
    store.fs.clock.advance(DAY_S)
    found = await store.trend()
    assert (found["placed_since"], classes(found)) == (None, [None])
    assert found["classes"]["local"]["grown_bytes"] == 0
    assert (await store.trend(store="local"))["days"] == []
    await store.fs.write("shared/b", b"x" * 5)
    assert await store.remember()
    await store.fs.write("shared/c", b"x" * 7)
    found = await store.trend()
    assert grown(found) == [(1, 1, 1, 5), (1, 2, 1, 7)]
    assert classes(found) == [None, {"local": 7}]
    assert found["placed_since"] == found["days"][1]["day"]
    assert found["classes"]["local"]["grown_bytes"] == 7
    assert found["categories"]["shared"]["grown_bytes"] == 12
    assert grown(await store.trend(store="local")) == [(1, 2, 1, 7)]
    await store.fs.stop()


async def test_while_files_are_counted_anew_nothing_is_told_nor_remembered(store: Store) -> None:
    assert await store.remember()
    store.fs.clock.advance(DAY_S)
    store.fs.parts.behind.meta(RECOUNT_DUE, "7")
    with pytest.raises(Busy, match="counted anew"):
        await store.trend()
    assert not await store.remember()
    store.fs.parts.behind.meta(RECOUNT_DUE, "0")
    assert await store.remember()
    await store.fs.stop()


@pytest.mark.parametrize(
    "params", [{"days": 0}, {"days": "x"}, {"days": 99_999}, {"category": "films"}, {"store": "tape"}]
)
async def test_what_no_trend_can_be_of_is_refused(store: Store, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        await store.trend(**params)
    await store.fs.stop()
