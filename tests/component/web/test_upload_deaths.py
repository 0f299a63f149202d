"""Uploads below the routes: whoever dies, and whatever others do to what is staged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import threading
import traceback
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from recfs.client.errors import InvalidName
from recfs.client.uploads import attribute
from recfs.web.uploads import noted, service, staged
from recfs.web.uploads.body import Body
from recfs.web.uploads.commit import commit
from recfs.web.uploads.errors import (
    CutOff,
    NoUpload,
    UploadError,
    UploadGone,
)
from recfs.web.uploads.plan import UploadId, target_of
from recfs.web.uploads.received import Received
from recfs.web.uploads.service import Uploads
from tests.component.web.staging import DATA, ID, JOB, SHA256, body, files_of, folders_of, plan, run

# -- deaths ---

_STEPS = ("open", "mkdir", "pwritev", "fsync", "setxattr", "rename", "unlink", "rmdir", "ftruncate")
"""What changes something; of open(2), what makes a file."""


def _dying(step: int, work: Callable[[], None]) -> bool:
    """Do some work in a process that dies before so many calls of the system; whether it came to its end."""
    child = os.fork()
    if child == 0:
        left, opened = step, os.open

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def counting(*args: Any, **more: Any) -> Any:
                nonlocal left
                if call is not opened or args[1] & os.O_CREAT:
                    left -= 1
                if left < 0:
                    os._exit(9)
                return call(*args, **more)

            return counting

        for name in _STEPS:
            setattr(os, name, counted(getattr(os, name)))
        for module, name in ((sys.modules[commit.__module__], "rename_new"), (staged, "_reserve")):
            setattr(module, name, counted(getattr(module, name)))
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), "it failed"
    return code == 0


def _client(root: Path) -> None:
    """What a client does that comes back: asks how far it is, goes on there, or begins anew."""

    async def work(uploads: Uploads) -> None:
        try:
            found = await uploads.resume(ID)
        except NoUpload:
            with contextlib.suppress(FileNotFoundError):  # what a death left of its making has another id in life
                staged_folder = root / "temp/5" / JOB
                for each in staged_folder.iterdir():
                    each.unlink()
                staged_folder.rmdir()
            found = await uploads.create(plan(sha256=SHA256))
        for end in (100_000, 200_000, len(DATA)):
            at = found.received.prefix
            if found.committed is None and at < end:
                found = await uploads.append(ID, at, body(DATA[at:end]))
        assert found.committed is not None
        assert found.committed.sha256 == SHA256

    run(root, work)


def test_a_death_before_any_step_leaves_one_file_for_who_comes_back(tree: Path) -> None:
    deaths = 0
    while not _dying(deaths, lambda: _client(tree)):
        left = [name for name in files_of(tree) if name.startswith("users/")]
        assert left in ([], ["users/5/recordings/142/source.mp4"])
        assert _dying(1_000_000, lambda: _client(tree))
        assert files_of(tree) == {"users/5/recordings/142/source.mp4": DATA}, f"after a death before step {deaths}"
        (tree / "users/5/recordings/142/source.mp4").unlink()
        for job in (tree / "temp/5").iterdir():
            job.rmdir()
        deaths += 1
    assert deaths > 18


def test_what_a_death_leaves_of_one_shot_is_cleared_by_the_next_start(tree: Path) -> None:
    def put() -> None:
        async def work(uploads: Uploads) -> None:
            await uploads.put(plan(resumable=False), body(DATA[:100_000], DATA[100_000:]))

        run(tree, work)

    def again() -> None:
        run(tree, lambda uploads: uploads.recover())

    deaths = 0
    while not _dying(deaths, put):
        assert _dying(1_000_000, again)
        left = files_of(tree)
        made = (tree / "temp/5" / JOB / "data").exists()
        if made:  # it has no plan yet: its making was not told to anybody, and temp's age sees to it
            assert attribute(tree / "temp/5" / JOB, staged.PLAN) is None
            (tree / "temp/5" / JOB / "data").unlink()
        else:
            assert left in ({}, {"users/5/recordings/142/source.mp4": DATA})
        for name in files_of(tree):
            (tree / name).unlink()
        with contextlib.suppress(FileNotFoundError):
            (tree / "temp/5" / JOB).rmdir()
        deaths += 1
    assert deaths > 10


def test_what_a_death_leaves_of_one_that_was_being_made_takes_no_room(tree: Path) -> None:
    lengths = set()

    def begin() -> None:
        staged.create(folders_of(tree), plan()).close()

    for step in range(20):
        done = _dying(step, begin)
        lengths |= {len(each) for each in files_of(tree).values()}
        run(tree, lambda uploads: uploads.recover())
        if done:
            break
        if (tree / "temp/5" / JOB).exists() and attribute(tree / "temp/5" / JOB, staged.PLAN) is not None:
            run(tree, lambda uploads: uploads.remove(ID))  # it is listed, and whoever sees it may go on
        assert not any(files_of(tree).values()), step
        for each in tree.glob("temp/5/*/data"):
            each.unlink()
        for each in tree.glob("temp/5/*"):
            each.rmdir()
    assert done
    assert lengths == {0, len(DATA)}
    assert [len(each) for each in files_of(tree).values()] == [len(DATA)], "one that was made stays"


def test_what_comes_in_one_request_is_left_alone_while_others_are_cleared(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, go_on, sends = threading.Event(), threading.Event(), threading.Event()
    create, look = staged.create, staged.look

    def slow_create(*args: Any) -> Any:
        held = create(*args)
        made.set()
        assert go_on.wait(30)
        return held

    def slow_look(*args: Any) -> Any:  # meanwhile it begins to come
        go_on.set()
        assert sends.wait(30)
        return look(*args)

    monkeypatch.setattr(staged, "create", slow_create)
    monkeypatch.setattr(staged, "look", slow_look)

    async def work(uploads: Uploads) -> None:
        cleared = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            sends.set()
            await cleared.wait()
            return {"type": "http.request", "body": DATA, "more_body": False}

        put = asyncio.ensure_future(uploads.put(plan(), Body(receive)))
        await asyncio.to_thread(made.wait, 30)
        await uploads.recover()
        go_on.set()
        cleared.set()
        assert (await put).sha256 == SHA256

    run(tree, work)


def test_what_is_being_made_is_not_cleared(tree: Path) -> None:
    held = staged.create(folders_of(tree), plan())
    os.removexattr(held.folder, staged.PLAN)
    run(tree, lambda uploads: uploads.recover())
    assert len(files_of(tree)) == 1
    held.close()
    run(tree, lambda uploads: uploads.recover())
    assert files_of(tree) == {}


def test_what_ended_long_ago_is_forgotten(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories cost nobody's quota, but they are many after a day of uploads."""
    refused, going, others = UploadId.new("5"), UploadId.new("5"), tree / "temp/5/77"
    others.mkdir(parents=True)

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        await uploads.append(ID, 0, body(DATA))
        await uploads.create(plan(id=refused, recording="2", sha256="0" * 64))
        with pytest.raises(UploadGone):
            await uploads.append(refused, 0, body(DATA))
        await uploads.create(plan(id=going, recording="3"))
        await uploads.recover()
        assert (await uploads.resume(ID)).committed is not None
        monkeypatch.setattr(service, "REMEMBERED_NS", 0)
        await uploads.recover()
        for each in (ID, refused):
            with pytest.raises(NoUpload):
                await uploads.resume(each)
        assert (await uploads.append(going, 0, body(DATA))).committed is not None

    run(tree, work)
    assert sorted(each.name for each in (tree / "temp/5").iterdir()) == sorted(["77", going.job])


def test_after_a_power_cut_only_what_was_synced_for_sure_is_believed(tree: Path) -> None:
    async def begin(uploads: Uploads) -> None:
        await uploads.create(plan())
        await uploads.append(ID, 0, body(DATA[:1000]))
        await uploads.append(ID, 1000, body(DATA[1000:3000]))

    async def later(uploads: Uploads) -> None:
        assert (await uploads.resume(ID)).received.prefix == 1000

    run(tree, begin)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(noted, "boot", lambda: "another boot")
        run(tree, later)


# -- what others do ---


def test_a_plan_that_somebody_else_wrote_leads_nowhere_else(tree: Path) -> None:
    """Who has the mount may set attributes in temp/: these are believed of their own tree alone."""

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        await uploads.close()
        folder = tree / "temp/5" / JOB
        own = os.getxattr(folder, staged.PLAN).decode()
        for forged in (
            own.replace('"142"', '"../../7/recordings/1"'),
            own.replace('"142"', '"142/../../../7/recordings/1"'),
            own.replace('"source.mp4"', '".."'),
            own.replace('"source.mp4"', '"a","..","..","1","x.mp4"'),
            own.replace(str(ID), f"7.{JOB}"),
            own.replace(str(len(DATA)), "-1"),
            own.replace(str(len(DATA)), '"1"'),
            own.replace("source.mp4", "a\\u0000.mp4"),
            own.replace('"created_ns":0', f'"created_ns":{10**40}'),
            own.replace('"created_ns":0', '"created_ns":-1'),
            own.replace('"metadata":""', '"metadata":"\\u0416"'),
            own.replace('"metadata":""', '"metadata":"a\\r\\nX: b"'),
            own.replace('"mime_type":""', '"mime_type":"\\u0416"'),
            "[]", "", "{}", "nonsense", "\x00",
        ):  # fmt: skip
            assert forged != own
            os.setxattr(folder, staged.PLAN, forged.encode())
            with pytest.raises(NoUpload):
                await uploads.append(ID, 0, body(DATA))

    run(tree, work)


def test_links_in_the_way_are_not_followed(tree: Path) -> None:
    secret = tree / "users/7/recordings/1"
    secret.mkdir()
    (secret / "source.mp4").write_bytes(b"secret")

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        await uploads.close()
        data = tree / "temp/5" / JOB / "data"
        data.unlink()
        data.symlink_to(secret / "source.mp4")
        with pytest.raises(UploadGone):
            await uploads.append(ID, 0, body(DATA))
        data.unlink()
        data.write_bytes(bytes(len(DATA)))  # another file than that which was staged
        with pytest.raises(UploadGone):
            await uploads.append(ID, 0, body(DATA))
        other = UploadId.new("5")
        await uploads.create(plan(id=other))
        (tree / "users/5/recordings/142").symlink_to(secret)
        with pytest.raises((FileExistsError, NotADirectoryError)):
            await uploads.append(other, 0, body(DATA))
        with pytest.raises((FileExistsError, NotADirectoryError)):
            await uploads.create(plan(id=UploadId.new("5")))

    run(tree, work)
    assert (secret / "source.mp4").read_bytes() == b"secret"
    assert os.listdir(secret) == ["source.mp4"]


def test_an_upload_whose_bytes_somebody_removed_is_gone_and_no_success(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        await uploads.append(ID, 0, body(DATA[:1000]))
        await uploads.close()
        (tree / "temp/5" / JOB / "data").unlink()
        with pytest.raises(UploadGone):
            await uploads.resume(ID)

    run(tree, work)


def test_who_has_no_tree_uploads_nothing(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        with pytest.raises(FileNotFoundError):
            await uploads.create(plan(id=UploadId("9", JOB)))

    run(tree, work)
    assert not (tree / "temp/9").exists()


@pytest.mark.parametrize(
    ("user", "recording", "path"),
    [
        ("5", "142", ("..", "x")), ("5", "142", ("a/b",)), ("5", "142", ("",)), ("5", "142", ()),
        ("5", "x", ("a.mp4",)),
        ("5", "1/2", ("a.mp4",)), ("../5", "1", ("a.mp4",)), ("5", "1", ("a\n.mp4",)), ("5", "1", (".hidden",)),
        ("5", "1", ("a.mp4.part",)), ("5", "1", ("x" * 256,)), ("5", "1", ("a\udcff.mp4",)),
    ],
)  # fmt: skip
def test_paths_that_are_none(user: str, recording: str, path: tuple[str, ...]) -> None:
    with pytest.raises(InvalidName):
        target_of(user, recording, path)


@pytest.mark.parametrize("text", ["5", f"5.{JOB.upper()}", f"../5.{JOB}", f"5.{JOB}/x", f"05.{JOB}", f"5.{JOB}\n", ""])
def test_ids_that_are_none(text: str) -> None:
    with pytest.raises(InvalidName):
        UploadId.parse(text)


def test_received_ranges_are_what_a_set_of_bytes_says() -> None:
    draw = random.Random(3)
    for _ in range(300):
        ranges, bytes_there = Received(), set[int]()
        for _ in range(draw.randrange(12)):
            first = draw.randrange(40)
            end = first + draw.randrange(8)
            ranges, bytes_there = ranges.plus(first, end), bytes_there | set(range(first, end))
        assert ranges.count == len(bytes_there)
        assert ranges.prefix == next(at for at in range(60) if at not in bytes_there)
        assert Received.parse(ranges.text()) == ranges
        assert {at for a, b in ranges.missing(50) for at in range(a, b)} == set(range(50)) - bytes_there
        first, end = sorted((draw.randrange(50), draw.randrange(50)))
        gaps = ranges.missing(end, first)
        assert {at for a, b in gaps for at in range(a, b)} == set(range(first, end)) - bytes_there
        assert gaps == tuple(sorted(gaps))
        assert all(a < b for a, b in gaps)
        assert ranges.covers(first, end) == (set(range(first, end)) <= bytes_there)
    for wrong in ("1", "3-1", "0-5,5-6", "0-5,3-9", "0-5,", "a-b", "-1-5", "0-5 "):
        with pytest.raises(ValueError, match="ranges"):
            Received.parse(wrong)


def test_errors_say_what_they_are() -> None:
    assert issubclass(CutOff, UploadError)
