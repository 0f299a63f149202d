"""What is made from recordings by rules: once for each input, and over nothing that users made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.config import Config
from recfs.core.media.derived import Product
from recfs.errors import InvalidArgument
from recfs.fs.attributes import Changes
from recfs.services.deriving import waiting as waiting_products

from .build import OPERATOR, pattern, until
from .making import REC, SOURCE, Maker, making

ALL: dict[str, Any] = {"derive": [{"make": each} for each in ("thumbnail", "audio", "waveform", "sprite", "hls")]}
ONE: dict[str, Any] = {"derive": [{"make": "thumbnail"}]}
THUMBNAIL = f"{REC}/assets/thumbnail.png"


@pytest.fixture
async def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Rules; a test's own by `parametrize(..., indirect=True)`."""
    return dict(getattr(request, "param", ONE))


@pytest.fixture
async def made(nursery: trio.Nursery, place: Path, settings: dict[str, Any]) -> AsyncIterator[Maker]:
    """One with a source."""
    async with making(nursery, place, **settings) as maker:
        yield maker


@pytest.mark.parametrize("settings", [ALL], indirect=True)
async def test_all_products_come_to_their_places_and_are_files_like_any(made: Maker) -> None:
    fs = made.fs
    states = await made.derive()
    assert [each["status"] for each in states] == ["completed"] * 5, states
    names = sorted(await fs.names(f"{REC}/assets"))
    assert [name for name in names if not name.startswith(("sprite-", "hls-"))] == [
        "hls.m3u8", "sprite.vtt", "thumbnail.png", "waveform.png",
    ]  # fmt: skip
    (picture,) = [name for name in names if name.startswith("sprite-")]
    (stream,) = [name for name in names if name.startswith("hls-")]
    assert f"{picture}#xywh=0,0,160,90" in (await fs.read(f"{REC}/assets/sprite.vtt")).decode()
    assert stream in (await fs.read(f"{REC}/assets/hls.m3u8")).decode().splitlines()
    assert b"libmp3lame -b:a 64k" in await fs.read(f"{REC}/audio.mp3")
    await fs.drain()
    assert set(fs.rows("select state from node where kind = 'file'")) == {"committed"}
    assert made.rooms() == []
    await fs.assert_consistent()


async def test_what_was_made_of_the_same_bytes_is_not_made_again(made: Maker) -> None:
    fs = made.fs
    assert [each["status"] for each in await made.derive()] == ["completed"]
    first = await fs.node(THUMBNAIL)
    (again,) = await made.ask()
    assert (again["step"], again["reason"]) == ("done", "")
    await made.die()
    (again,) = await made.ask()
    assert again["step"] == "done"
    await fs.rename(SOURCE, f"{REC}/source.mov")  # another name: the same bytes
    assert (await made.ask())[0]["step"] == "done"
    assert len(made.runner.runs) == 1
    assert (await fs.node(THUMBNAIL)).ino == first.ino


async def test_a_changed_source_has_its_product_made_anew_in_one_step(made: Maker) -> None:
    fs = made.fs
    await made.derive()
    before = await fs.read(THUMBNAIL)
    await fs.write(SOURCE, pattern(9000, 1))
    await fs.drain()
    seen: list[bytes] = []

    async def look() -> None:
        seen.append(await fs.read(THUMBNAIL))

    made.runner.meanwhile = look
    assert [each["status"] for each in await made.derive()] == ["completed"]
    assert seen == [before], "the earlier one is there until the new one is"
    assert await fs.read(THUMBNAIL) != before
    await fs.assert_consistent()


@pytest.mark.parametrize("settings", [{"derive": [{"make": "sprite"}, {"make": "hls"}]}], indirect=True)
async def test_a_new_stream_replaces_the_earlier_one_with_all_its_files(made: Maker) -> None:
    fs = made.fs
    await made.derive()
    before = set(await fs.names(f"{REC}/assets"))
    await fs.write(SOURCE, pattern(9000, 1))
    await fs.drain()
    assert [each["status"] for each in await made.derive()] == ["completed"] * 2
    after = set(await fs.names(f"{REC}/assets"))
    assert len(before) == len(after) == 4
    assert before & after == {"hls.m3u8", "sprite.vtt"}
    assert (await fs.read(f"{REC}/assets/hls.m3u8")).decode().splitlines()[4] in after


@pytest.mark.parametrize("when", ["before", "while it is made", "over it"])
async def test_no_file_of_a_user_is_replaced(made: Maker, when: str) -> None:
    fs = made.fs

    async def put() -> None:
        await fs.write(THUMBNAIL, b"theirs")

    if when == "before":
        await put()
        (asked,) = await made.ask()
        assert (asked["step"], asked["reason"]) == ("keep", "a file is there that recfs did not make")
    elif when == "while it is made":
        made.runner.meanwhile = put
        (state,) = await made.derive()
        assert state["status"] == "failed"
        assert "exists" in state["reason"]
    else:
        await made.derive()
        await put()
        await fs.write(SOURCE, pattern(9000, 1))
        await fs.drain()
        (asked,) = await made.ask()
        assert asked["step"] == "keep"
        assert "changed since" in asked["reason"]
    await made.idle()
    await fs.drain()
    assert await fs.read(THUMBNAIL) == b"theirs"
    assert made.rooms() == []
    await fs.assert_consistent()


async def test_a_product_that_somebody_removed_comes_back_only_when_it_is_asked_for(made: Maker) -> None:
    fs = made.fs
    await made.derive()
    await fs.unlink(THUMBNAIL)
    made.work.asking.rules = [type(made.work.asking.rules[0])("thumbnail", automatic=True)]
    async with trio.open_nursery() as nursery:
        sweep = made.work.asking.sweep()
        await sweep.act(sweep.decide(await sweep.look()), nursery)
    await made.idle()
    assert not await fs.exists(THUMBNAIL)
    assert [each["status"] for each in await made.derive()] == ["completed"]
    assert await fs.exists(THUMBNAIL)


AUTOMATIC: dict[str, Any] = {"derive": [{"make": "thumbnail", "automatic": True}]}


@pytest.mark.parametrize("settings", [AUTOMATIC], indirect=True)
@pytest.mark.parametrize("how", ["written", "renamed", "swept"])
async def test_an_automatic_rule_needs_nobody_to_ask(made: Maker, how: str) -> None:
    fs = made.fs
    await made.idle()
    other = "users/6/recordings/1"
    if how == "written":
        await fs.write(f"{other}/source.mkv", b"x" * 50)
    elif how == "renamed":
        await fs.write(f"{other}/part", b"x" * 50)
        await fs.drain()
        await fs.rename(f"{other}/part", f"{other}/source.mkv")
    else:
        made.work.asking.rules = []  # they come later
        await fs.write(f"{other}/source.mkv", b"x" * 50)
        await fs.drain()
        made.work.asking.rules = fs.config.derive
        async with trio.open_nursery() as nursery:
            sweep = made.work.asking.sweep()
            told = await sweep.act(sweep.decide(await sweep.look()), nursery)
        assert told == "1 to be made, 0 of what is gone forgotten"
    await fs.drain()
    await made.idle()
    assert await fs.exists(f"{other}/assets/thumbnail.png")
    assert (await made.status())[0] == "completed"


async def test_a_rule_that_is_not_automatic_makes_nothing_by_itself(made: Maker) -> None:
    await made.idle()
    assert made.runner.runs == []
    assert not await made.fs.exists(f"{REC}/assets")


@pytest.mark.parametrize("settings", [{}], indirect=True)
async def test_nothing_is_made_without_a_rule(made: Maker) -> None:
    assert await made.ask() == []
    assert await made.ask("", everything=True) == []


async def test_a_dry_run_says_what_would_be_made_and_makes_nothing(made: Maker) -> None:
    fs = made.fs
    await fs.write("users/6/recordings/1/source.mkv", b"x" * 50)
    await fs.write("users/6/recordings/1/notes.txt", b"x")
    await fs.drain()
    answers = await made.ask("users", everything=True, dry_run=True)
    assert sorted(each["path"] for each in answers) == [
        THUMBNAIL, "users/6/recordings/1/assets/thumbnail.png",
    ]  # fmt: skip
    assert {each["step"] for each in answers} == {"make"}
    await made.idle()
    assert fs.rows("select count(*) from derived") == [0]
    with pytest.raises(InvalidArgument, match="--all takes all below it"):
        await made.ask("users")
    assert await made.ask(SOURCE, dry_run=True, only=["audio"]) == []
    with pytest.raises(InvalidArgument, match="what can be made is"):
        await made.ask(only=["movie"])


async def test_the_file_is_its_owners_charged_to_them_and_of_the_sources_mode(made: Maker) -> None:
    fs = made.fs
    folder, source = await fs.node(REC), await fs.node(SOURCE)
    for node, mode in ((folder, 0o700), (source, 0o640)):
        await fs.vfs.setattr(node.ino, Changes(uid=1001, gid=1002, mode=mode), OPERATOR)
    before = fs.account()
    await made.derive()
    thumbnail = await fs.node(THUMBNAIL)
    assert (thumbnail.uid, thumbnail.gid, thumbnail.mode & 0o777) == (1001, 1002, 0o640)
    assert fs.account() == (before[0] + thumbnail.bytes, before[1] + 1)
    job = await fs.node("temp/5")
    assert (job.uid, await fs.names("temp/5")) == (0, []), "no user has that uid"


async def test_the_directory_of_a_users_jobs_stays_theirs(made: Maker) -> None:
    """A recording in it may have come from somebody else, such as an administrator."""
    fs = made.fs
    await fs.answers()["user_add"]({"user": "5", "uid": 1001, "gid": 1001})
    await fs.vfs.setattr((await fs.node(REC)).ino, Changes(uid=0, gid=0), OPERATOR)
    assert [each["status"] for each in await made.derive()] == ["completed"]
    jobs = await fs.node("temp/5")
    assert (jobs.uid, jobs.gid) == (1001, 1001)
    assert await fs.names("temp/5") == []


@pytest.mark.parametrize("is_there", [True, False])
async def test_the_directory_of_jobs_of_a_user_without_a_uid_is_given_to_nobody(made: Maker, is_there: bool) -> None:
    """Who owns one recording of it would rename what root keeps there, or what others do."""
    fs = made.fs
    if is_there:
        await fs.write("temp/5/1/script.sh", b"root's")
    await fs.vfs.setattr((await fs.node(REC)).ino, Changes(uid=1001, gid=1001), OPERATOR)
    await fs.vfs.setattr((await fs.node(SOURCE)).ino, Changes(uid=1001, gid=1001), OPERATOR)
    before = (await fs.node("temp/5")).mode if is_there else 0o1777
    assert [each["status"] for each in await made.derive()] == ["completed"]
    jobs = await fs.node("temp/5")
    assert (jobs.uid, jobs.mode & 0o7777) == (0, before & 0o7777)
    assert await fs.names("temp/5") == (["1"] if is_there else [])
    assert (await fs.node(THUMBNAIL)).uid == 1001
    await fs.assert_consistent()


async def test_a_link_that_leads_elsewhere_is_not_followed(made: Maker) -> None:
    fs = made.fs
    await fs.mkdirs("users/6/recordings/1/elsewhere")
    parent, name = await fs.folder(f"{REC}/assets")
    await fs.vfs.symlink(parent, name, b"../../../6/recordings/1/elsewhere", OPERATOR)
    (state,) = await made.derive()
    assert (state["status"], "no directory" in state["reason"]) == ("failed", True)
    assert await fs.names("users/6/recordings/1/elsewhere") == []


SHOWN: dict[str, Any] = ONE | {
    "fallback": [{"pattern": "users/*/recordings/*/assets/thumbnail.png", "target": "shared/thumbnails/none.png"}]
}


@pytest.mark.parametrize("settings", [SHOWN], indirect=True)
async def test_the_shared_thumbnail_is_shown_until_there_is_one(made: Maker) -> None:
    fs = made.fs
    await fs.write("shared/thumbnails/none.png", b"none yet")
    await fs.mkdirs(f"{REC}/assets")
    await fs.drain()
    made.runner.missing = "ffmpeg is not on the daemon's PATH: install ffmpeg"
    assert [each["status"] for each in await made.derive()] == ["pending"]
    assert await fs.read(THUMBNAIL) == b"none yet"
    made.runner.missing = ""
    assert [each["status"] for each in await made.derive()] == ["completed"]
    assert (await fs.read(THUMBNAIL)).startswith(b"made of ")
    assert (await made.ask())[0]["step"] == "done"
    assert await fs.read("shared/thumbnails/none.png") == b"none yet"


async def test_how_far_a_program_is_can_be_asked_while_it_runs(made: Maker) -> None:
    shares: list[float | None] = []
    key = ((await made.fs.node(REC)).ino, Product.THUMBNAIL)

    async def look() -> None:
        (room,) = made.rooms()
        for text in (None, "out_time_us=N/A\n", "out_time_us=1000000\nprogress=continue\nout_time_us=25000000\n"):
            if text is not None:
                (room / "progress").write_text(text)
            told = await made.work.asking.state_of(*key)
            assert told["status"] == "processing"
            shares.append(told["share"])

    made.runner.meanwhile = look
    await made.derive()
    assert shares == [0.0, 0.0, 0.25]
    assert (await made.work.asking.state_of(*key))["share"] is None


async def test_another_configuration_holds_from_the_next_product_on(made: Maker) -> None:
    settings = {"root": made.fs.root, "derive": [{"make": "audio"}], "deriving": {"timeout": 5, "max_output": "2 MiB"}}
    made.fs.parts.derivation.reconfigure(Config.model_validate(settings))
    assert [each["path"] for each in await made.ask(dry_run=True)] == [f"{REC}/audio.mp3"]
    await made.derive()
    assert (made.runner.limits.timeout_s, made.runner.limits.file_bytes) == (5.0, 2 << 20)


async def test_no_product_lands_where_the_folder_of_products_was_renamed_to_meanwhile(made: Maker) -> None:
    """Nor behind a link that has its place since: which directory it is is looked at when the product is renamed."""
    fs = made.fs
    await fs.write("users/6/recordings/1/thumbnail.png", b"somebody else's")
    rename = fs.vfs.rename

    async def late(old: int, old_name: bytes, new: int, new_name: bytes, *rest: Any, **more: Any) -> Any:
        if old_name == new_name == b"thumbnail.png":
            fs.vfs.rename = rename
            await fs.rename(f"{REC}/assets", f"{REC}/other")
            await fs.vfs.symlink(*await fs.folder(f"{REC}/assets"), b"../../../6/recordings/1", OPERATOR)
        return await rename(old, old_name, new, new_name, *rest, **more)

    fs.vfs.rename = late
    (state,) = await made.derive()
    assert (state["status"], await fs.names(f"{REC}/other")) == ("pending", [])
    assert await fs.read("users/6/recordings/1/thumbnail.png") == b"somebody else's"
    assert await fs.names("temp/5") == []
    await fs.assert_consistent()


async def test_what_lies_behind_a_link_is_no_product(made: Maker) -> None:
    """The folder of products is another one's: what is there is neither recfs's, nor removed as an earlier product."""
    fs = made.fs
    await made.derive()
    await fs.mkdirs("users/5/recordings/9")
    await fs.rename(f"{REC}/assets", "users/5/recordings/9/assets")
    await fs.vfs.symlink(*await fs.folder(f"{REC}/assets"), b"../9/assets", OPERATOR)
    assert [each["step"] for each in await made.ask(dry_run=True)] == ["make"]
    (state,) = await made.derive()
    assert (state["status"], "no directory" in state["reason"]) == ("failed", True)
    assert await fs.names("users/5/recordings/9/assets") == ["thumbnail.png"]


async def test_only_the_file_that_was_made_is_moved_from_its_job(made: Maker) -> None:
    """The user may rename what lies in the job, and put another file there."""
    fs = made.fs
    rename = fs.vfs.rename

    async def late(old: int, old_name: bytes, new: int, new_name: bytes, *rest: Any, **more: Any) -> Any:
        if old_name == new_name == b"thumbnail.png":
            fs.vfs.rename = rename
            job = (await fs.vfs.node(old)).path
            await fs.rename(f"{job}/thumbnail.png", f"{job}/x")
            await fs.write(f"{job}/thumbnail.png", b"mine")
        return await rename(old, old_name, new, new_name, *rest, **more)

    fs.vfs.rename = late
    (state,) = await made.derive()
    assert (state["status"], await fs.names(f"{REC}/assets")) == ("pending", [])


def recordings(user: int, count: int) -> list[str]:
    """Of a user."""
    return [f"users/{user}/recordings/{number}" for number in range(count)]


async def test_one_owner_has_all_programs_while_nobody_else_waits_and_then_the_other_has_the_next(made: Maker) -> None:
    """Five long sources of one user, and two programs."""
    fs, ends = made.fs, [trio.Event() for _ in range(6)]

    async def run_long() -> None:
        await ends[len(made.runner.runs) - 1].wait()

    made.runner.meanwhile = run_long
    for path in (*recordings(7, 5), *recordings(8, 1)):
        await fs.write(f"{path}/source.mp4", path.encode()[6:] + b"     ")
    await fs.drain()
    for path in recordings(7, 5):
        await made.ask(path)
    await until(lambda: made.runner.most == 2)
    await made.ask("users/8/recordings/0")
    ends[1].set()  # one of them ends, whichever
    await until(lambda: len(made.runner.sources) == 3)
    assert [each[:1] for each in made.runner.sources] == [b"7", b"7", b"8"]
    for end in ends:
        end.set()
    await made.idle()
    assert [each[:1] for each in made.runner.sources[3:]] == [b"7"] * 3


async def test_what_fails_at_once_leaves_turns_to_others(made: Maker) -> None:
    """As when the rules are taken out of the configuration while much waits."""
    fs, turns = made.fs, 0
    made.runner.missing = "there is no ffmpeg"
    for path in recordings(7, 60):
        await fs.write(f"{path}/source.mp4", path.encode())
    await fs.drain()
    for path in recordings(7, 60):
        await made.ask(path)
    await made.idle()
    waiting = made.work.deriving._waiting
    assert len(waiting.open) == 60
    made.work.asking.rules = []
    for key, record in list(waiting.open.items()):
        waiting.put(record._replace(next_ns=0))
        assert key in waiting.open
    while waiting.open:
        turns += 1
        await trio.lowlevel.checkpoint()
    assert turns >= 30, "two programs, of which each passes its turn on"
    assert fs.rows("select distinct status || ': ' || reason from derived") == [
        "failed: no [[derive]] rule makes it any more"
    ]


async def test_so_much_of_one_owner_waits_and_no_more(made: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = made.fs
    monkeypatch.setattr(waiting_products, "MOST_WAITING", 3)
    made.runner.missing = "there is no ffmpeg"
    paths = [*recordings(7, 5), *recordings(8, 1)]
    for path in paths:
        await fs.write(f"{path}/source.mp4", path.encode())
    await fs.drain()
    steps = [(await made.ask(path))[0]["step"] for path in paths]
    assert steps == ["make"] * 3 + ["wait"] * 2 + ["make"]
    assert [(await made.ask(path))[0]["step"] for path in paths[:1]] == ["under way"]
    made.runner.missing = ""
    await made.ask(paths[0])
    await later_in(made, 120)
    assert [each["status"] for path in paths for each in await made.derive(path)] == ["completed"] * 6


async def later_in(made: Maker, seconds: float) -> None:
    """Time passes, and what is due then is made."""
    made.fs.clock.advance(seconds)
    made.work.deriving._waiting.wake()
    await made.idle()


@pytest.mark.parametrize("settings", [ONE | {"deriving": {"jobs": 1}}, ONE], ids=["one job", "two jobs"], indirect=True)
async def test_owners_take_turns(made: Maker) -> None:
    """One of them has asked for six things, before the other asked for two."""
    fs = made.fs

    async def take_long() -> None:
        await trio.sleep(1)

    made.runner.meanwhile = take_long
    paths = [*recordings(7, 6), *recordings(8, 2)]
    for path in paths:
        await fs.write(f"{path}/source.mp4", path.encode()[6:] + b"     ")
    await fs.drain()
    for path in paths:
        await made.ask(path)
    await made.idle()
    order = [each[:1] for each in made.runner.sources]
    assert [at for at, owner in enumerate(order) if owner == b"8"][-1] <= 3 + fs.config.deriving.jobs, order
    assert len(order) == 8


@pytest.mark.parametrize("what", ["goes", "changes", "leaves its recording"])
async def test_a_program_ends_when_its_source_is_another(made: Maker, what: str) -> None:
    ended: list[float] = []
    fs = made.fs

    async def run_for_ever() -> None:
        if not ended:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(trio.current_time())

    made.runner.meanwhile = run_for_ever
    await made.ask()
    await until(lambda: made.runner.most == 1)
    began = trio.current_time()
    if what == "goes":
        await fs.unlink(SOURCE)
    elif what == "changes":
        await fs.write(SOURCE, pattern(9000, 1))
    else:
        await fs.write("users/5/recordings/143/notes.txt", b"")
        await fs.rename(SOURCE, "users/5/recordings/143/source.mp4")
    await until(lambda: ended)
    assert ended[0] - began <= 1.0
    await fs.drain()
    await made.idle()
    assert made.rooms() == []
    assert fs.rows("select status from derived") == (["completed"] if what == "changes" else [])
