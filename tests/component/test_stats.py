"""`recfs stats`: of a running store, and of one that nobody serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from recfs.api.stats import figures
from recfs.api.stats.figures import stats
from recfs.core.figures.costs import GIB
from recfs.core.retention import Now
from recfs.errors import InvalidArgument, NotFound
from recfs.fs.attributes import Changes
from recfs.services.figures.surveys import Surveys
from tests.helpers.reports import answer_of

from .build import OPERATOR, REC, Filesystem
from .test_tier import evict, tiered

if TYPE_CHECKING:
    from pathlib import Path

    import trio

    from recfs.ports.reports import Snapshot

FILES = {
    "users/5/recordings/142/source.mp4": 1000,
    "users/5/recordings/142/audio.mp3": 200,
    "users/5/recordings/142/transcription/words.json": 30,
    "users/5/recordings/7/cut.mp4": 5000,
    "users/5/thumbnails/a.png": 4,
    "users/6/recordings/1/notes": 6,
    "temp/6/1/work.mp4": 70,
    "shared/intro.mp4": 800,
}


@pytest.fixture
async def fs(nursery: trio.Nursery, tmp_path: Path) -> Filesystem:
    prices = {"currency": "USD", "per_gib_month": {"local": float(GIB)}}
    made = Filesystem(nursery, tmp_path / "root", prices=prices, quota={"max_bytes": 10_000, "max_monthly_uploads": 3})
    await made.start()
    for path, size in FILES.items():
        await made.write(path, b"x" * size)
    await made.drain()
    await made.parts.behind.durable()
    return made


def asked(fs: Filesystem, **params: Any) -> dict[str, Any]:
    clock = fs.vfs.tree.clock
    now = Now(clock.steady_ns(), clock.calendar_ns())
    return answer_of(fs.root / ".recfs" / "catalogue.db", stats, fs.config, params, now)


def bytes_of(sums: dict[str, Any]) -> dict[str, int]:
    return {name: each["bytes"] for name, each in sums.items() if each["files"]}


async def test_the_whole_store_by_category_store_and_class(fs: Filesystem) -> None:
    found = asked(fs)
    assert (found["files"], found["bytes"]) == (len(FILES), sum(FILES.values()))
    assert found["average_bytes"] == sum(FILES.values()) // len(FILES)
    assert bytes_of(found["categories"]) == {
        "source": 1000, "audio": 200, "transcription": 30, "video": 5000, "thumbnails": 4, "other": 6, "temp": 70,
        "shared": 800,
    }  # fmt: skip
    assert bytes_of(found["stores"]) == {"local": 7110}
    assert bytes_of(found["classes"]) == {"local": 7110}
    assert found["costs"]["by_class"] == {"local": pytest.approx(7110.0)}
    assert (found["recordings"], found["archive"], found["duplicates"]) == (3, None, None)
    assert sum(each["recordings"] for each in found["ages"]) == 3
    assert sum(each["recordings"] for each in found["ages"] if each["processed"] != "never") == 1


async def test_users_have_what_counts_what_is_left_and_what_they_uploaded_this_month(fs: Filesystem) -> None:
    users = {each["user"]: each for each in asked(fs)["users"]}
    five, six = users["5"], users["6"]
    assert (five["used_bytes"], five["bytes"], five["left_bytes"]) == (6234, 6234, 3766)
    assert (five["month_uploads"], five["left_uploads"], five["month_upload_bytes"]) == (1, 2, 1000)
    assert (six["used_bytes"], six["files"], six["left_files"], six["month_upload_bytes"]) == (76, 2, None, 0)


async def test_uploads_of_an_earlier_month_do_not_count_as_this_months(fs: Filesystem) -> None:
    node = await fs.node("users/5/recordings/142/source.mp4")
    assert asked(fs, user="5")["users"][0]["month_upload_bytes"] == 1000
    await fs.vfs.setattr(node.ino, Changes(mtime_ns=10**18), OPERATOR)  # 2001
    await fs.parts.behind.durable()
    assert asked(fs, user="5")["users"][0]["month_upload_bytes"] == 0


async def test_of_one_user_of_one_recording_of_one_category_of_one_store(fs: Filesystem) -> None:
    assert asked(fs, user="6")["bytes"] == 76
    assert [each["user"] for each in asked(fs, user="6")["users"]] == ["6"]
    one = asked(fs, user="5", recording="142")
    assert (one["bytes"], one["recordings"], one["users"]) == (1230, 1, [])
    assert bytes_of(one["categories"]) == {"source": 1000, "audio": 200, "transcription": 30}
    assert bytes_of(asked(fs, category="video")["categories"]) == {"video": 5000}
    assert asked(fs, user="5", category="video")["users"][0]["bytes"] == 5000
    assert asked(fs, store="local")["bytes"] == 7110
    assert asked(fs, store="s3")["files"] == 0


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"user": "../5"}, InvalidArgument),
        ({"recording": "142"}, InvalidArgument),
        ({"category": "films"}, InvalidArgument),
        ({"store": "tape"}, InvalidArgument),
        ({"user": "5", "duplicates": True}, InvalidArgument),
        ({"user": "5", "recording": "8"}, NotFound),
        ({"user": "77"}, NotFound),
    ],
)
async def test_what_no_figures_can_be_of_is_refused(fs: Filesystem, params: dict[str, Any], error: type) -> None:
    with pytest.raises(error):
        asked(fs, **params)


async def test_the_same_bytes_are_found_wherever_they_lie(fs: Filesystem) -> None:
    await fs.write("users/6/recordings/1/copy.mp4", b"x" * 5000)
    await fs.drain()
    await fs.parts.behind.durable()
    found = asked(fs, duplicates=True)["duplicates"]
    assert (found["sets"], found["files"], found["wasted_bytes"]) == (1, 2, 5000)
    assert found["worst"][0]["paths"] == ["users/5/recordings/7/cut.mp4", "users/6/recordings/1/copy.mp4"]


async def test_recordings_of_an_age_for_the_archive_are_counted_and_what_is_in_s3(
    nursery: trio.Nursery, place: Path
) -> None:
    rule = {"pattern": "users/5/**", "archive_threshold": "1d", "archive_storage_class": "GLACIER"}
    fs = tiered(nursery, place, retention=[rule])
    await fs.start()
    await fs.write(f"{REC}/source.mp4", b"x" * 1000)
    await fs.write(f"{REC}/audio.mp3", b"x" * 200)
    await fs.drain()
    young = await fs.answers()["stats"]({})
    assert young["archive"] == {"recordings": 0, "files": 0, "bytes": 0, "unread": []}
    assert bytes_of(young["stores"]) == {"local_and_s3": 1200}
    assert bytes_of(young["classes"]) == {"local": 1200, "STANDARD": 1200}
    assert young["costs"]["unpriced"] == ["STANDARD", "local"]
    await evict(fs, f"{REC}/audio.mp3")
    fs.clock.advance(2 * 86_400)
    old = await fs.answers()["stats"]({"user": "5"})
    assert without(old["archive"], {"unread"}) == {"recordings": 1, "files": 2, "bytes": 1200}
    assert bytes_of(old["stores"]) == {"local_and_s3": 1000, "s3": 200}
    assert (await fs.answers()["stats"]({"store": "local"}))["bytes"] == 1000
    assert (await fs.answers()["stats"]({"store": "s3"}))["bytes"] == 1200
    await fs.stop()


async def test_recordings_are_told_by_when_they_were_last_used_and_processed(
    nursery: trio.Nursery, place: Path
) -> None:
    rule = {"pattern": "users/5/**", "archive_threshold": "100d", "archive_storage_class": "GLACIER"}
    fs = tiered(nursery, place, retention=[rule])
    await fs.start()
    await fs.write(f"{REC}/source.mp4", b"x" * 1000)
    await fs.write(f"{REC}/transcription/words.json", b"x" * 30)
    await fs.write("users/5/recordings/9/source.mp4", b"x" * 200)
    await fs.write("users/6/recordings/1/source.mp4", b"x" * 7)
    await fs.drain()
    fs.clock.advance(120 * 86_400)
    await fs.read(f"{REC}/source.mp4")
    await fs.drain()

    def bands(found: list[dict[str, Any]]) -> set[tuple[int | None, str, int, int]]:
        return {(each["unread_d"], each["processed"], each["recordings"], each["bytes"]) for each in found}

    told = await fs.answers()["stats"]({})
    assert bands(told["unread"]) == {(0, "long_ago", 1, 1030), (90, "never", 2, 207)}
    assert bands(told["archive"]["unread"]) == {(0, "long_ago", 1, 1030), (90, "never", 1, 200)}
    fs.clock.advance(400 * 86_400)
    told = await fs.answers()["stats"]({"user": "6"})
    assert bands(told["unread"]) == {(365, "never", 1, 7)}
    await fs.stop()


async def test_without_s3_nothing_is_known_of_the_last_use(fs: Filesystem) -> None:
    assert {each["unread_d"] for each in asked(fs)["unread"]} == {None}
    assert sum(each["recordings"] for each in asked(fs)["unread"]) == 3


@pytest.mark.parametrize("params", [{}, {"user": "5"}, {"category": "source"}, {"store": "s3"}, {"store": "local"}])
async def test_of_many_files_the_counters_tell_the_same(
    nursery: trio.Nursery, place: Path, monkeypatch: pytest.MonkeyPatch, params: dict[str, Any]
) -> None:
    rule = {"pattern": "users/5/**", "archive_threshold": "1d", "archive_storage_class": "GLACIER"}
    fs = tiered(nursery, place, retention=[rule])
    await fs.start()
    for path, size in FILES.items():
        await fs.write(path, b"x" * size)
    await fs.drain()
    await evict(fs, f"{REC}/audio.mp3")
    await fs.parts.behind.durable()
    by_rows = await fs.answers()["stats"](params)
    monkeypatch.setattr(figures, "FEW_FILES", 0)
    told = await fs.answers()["stats"](params)
    assert (by_rows["counted"], told["counted"]) == ("rows", "counters")
    unknown = {"recordings", "ages", "unread", "archive", "surveyed_ns"}
    times = {"oldest_ns", "newest_ns", "at_ns", "counted", "surveyed_ns"}
    assert {name: value for name, value in told.items() if name in unknown} == dict.fromkeys(unknown)
    assert told["oldest_ns"] is None
    assert without(told, times | unknown) == without(by_rows, times | unknown)
    exact = await fs.answers()["stats"](params | {"exact": True})
    assert without(exact, {"at_ns"}) == without(by_rows, {"at_ns"})
    await fs.stop()


def without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: without(each, names) for name, each in value.items() if name not in names}
    return [without(each, names) for each in value] if isinstance(value, list) else value


async def test_what_no_counter_tells_is_as_of_the_last_survey(
    fs: Filesystem, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_rows = asked(fs, duplicates=True)
    monkeypatch.setattr(figures, "FEW_FILES", 0)
    tree, books, reports = fs.vfs.tree, fs.parts.catalogue, fs.parts.reports

    def survey(snapshot: Snapshot, now: Now) -> dict[str, Any]:
        return figures.survey(snapshot, fs.config, now)

    sweep = Surveys(tree, books, reports, survey, name=figures.SURVEY, every_s=86_400, few=0).sweep()
    surveyed_ns = fs.clock.now_ns()
    due = await sweep.look()
    assert due
    await sweep.act(due, nursery)
    assert not await sweep.look()
    told = asked(fs)
    assert told["surveyed_ns"] == surveyed_ns
    assert without(told, {"counted", "surveyed_ns", "at_ns"}) == without(by_rows, {"counted", "surveyed_ns", "at_ns"})
    fs.clock.advance(86_401)
    assert await sweep.look()


async def test_a_store_without_a_daemon_answers_as_well(fs: Filesystem) -> None:
    books = fs.root / ".recfs" / "catalogue.db"
    running = answer_of(books, stats, fs.config, {}, None)  # by the machine's own calendar, both times
    await fs.stop()
    stopped = answer_of(books, stats, fs.config, {}, None)
    for each in ("files", "bytes", "categories", "stores", "users"):
        assert stopped[each] == running[each]
