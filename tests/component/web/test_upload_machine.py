"""Uploads below the routes: staged in temp/, committed exactly once; on a plain directory.

Whatever a plain directory does not have (limits, states) is tried on a mount: tests/fuse/test_web_uploads.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from recfs.client.errors import UploadRefused
from recfs.client.uploads import attribute
from recfs.web.replacing import alone
from recfs.web.uploads import staged
from recfs.web.uploads.admission import check_name
from recfs.web.uploads.body import Body
from recfs.web.uploads.commit import commit
from recfs.web.uploads.errors import (
    Changed,
    CutOff,
    Incomplete,
    NoUpload,
    TooMuch,
    UploadBusy,
    UploadGone,
    WrongOffset,
)
from recfs.web.uploads.plan import Plan, UploadId
from recfs.web.uploads.service import Uploads
from recfs.web.uploads.staged import Committed
from tests.component.web.staging import DATA, ID, JOB, SHA256, Sent, body, files_of, folders_of, plan, run

# -- what becomes of it ---


def test_an_upload_in_pieces_becomes_a_file_with_what_is_known_of_it(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        found = await uploads.create(plan(sha256=SHA256, mime_type="video/mp4"))
        assert (found.received.prefix, found.committed) == (0, None)
        assert (tree / "temp/5" / JOB / "data").stat().st_size == len(DATA), "room is kept for all of it"
        found = await uploads.append(ID, 0, body(DATA[:100_000]))
        assert found.received.prefix == 100_000
        assert not (tree / "users/5/recordings/142").exists()
        found = await uploads.append(ID, 100_000, body(DATA[100_000:200_000], DATA[200_000:]))
        assert found.committed is not None
        assert (found.committed.sha256, found.committed.size_bytes) == (SHA256, len(DATA))

    run(tree, work)
    target = tree / "users/5/recordings/142/source.mp4"
    assert files_of(tree) == {str(target.relative_to(tree)): DATA}
    assert os.getxattr(target, "user.original_name") == b"T.mp4"
    assert os.getxattr(target, "user.mime_type") == b"video/mp4"
    assert os.getxattr(target, staged.MARK) == str(ID).encode()


def test_what_came_before_a_connection_was_lost_counts(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        with pytest.raises(CutOff):
            await uploads.append(ID, 0, body(DATA[:70_000], cut=True))
        assert (await uploads.resume(ID)).received.prefix == 70_000
        with pytest.raises(WrongOffset) as refused:
            await uploads.append(ID, 60_000, body(DATA[60_000:]))
        assert refused.value.offset == 70_000
        assert (await uploads.append(ID, 70_000, body(DATA[70_000:]))).committed is not None

    run(tree, work)
    assert files_of(tree) == {"users/5/recordings/142/source.mp4": DATA}


def test_another_process_goes_on_where_this_one_was(tree: Path) -> None:
    async def begin(uploads: Uploads) -> None:
        await uploads.create(plan())
        await uploads.append(ID, 0, body(DATA[:70_000]))

    async def end(uploads: Uploads) -> None:
        assert (await uploads.resume(ID)).received.prefix == 70_000
        await uploads.append(ID, 70_000, body(DATA[70_000:]))

    run(tree, begin)
    run(tree, end)
    assert files_of(tree) == {"users/5/recordings/142/source.mp4": DATA}


def test_a_finish_that_is_asked_for_again_has_the_same_answer(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        first = await uploads.append(ID, 0, body(DATA))
        again = await uploads.append(ID, len(DATA), body())
        asked = await uploads.resume(ID)
        assert first.committed == again.committed == asked.committed == await uploads.complete(ID)
        with pytest.raises(WrongOffset):
            await uploads.append(ID, 0, body(DATA))
        (tree / "users/5/recordings/142/source.mp4").write_bytes(b"somebody writes something else")
        assert (await uploads.resume(ID)).committed == first.committed

    run(tree, work)
    assert len(files_of(tree)) == 1


def test_bytes_of_another_digest_go_and_never_have_a_name(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        await uploads.create(plan(sha256="0" * 64))
        with pytest.raises(UploadGone, match="digest"):
            await uploads.append(ID, 0, body(DATA))
        with pytest.raises(UploadGone, match="digest"):
            await uploads.resume(ID)
        with pytest.raises(UploadGone, match="digest"):
            await uploads.append(ID, 0, body(DATA))
        await uploads.remove(ID)
        with pytest.raises(NoUpload):
            await uploads.resume(ID)

    run(tree, work)
    assert files_of(tree) == {}
    assert not (tree / "users/5/recordings/142").exists()


def test_nothing_is_replaced_that_was_not_meant(tree: Path) -> None:
    target = tree / "users/5/recordings/142/source.mp4"

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        target.parent.mkdir()
        target.write_bytes(b"came first")
        with pytest.raises(FileExistsError):
            await uploads.append(ID, 0, body(DATA))
        with pytest.raises(FileExistsError):
            await uploads.resume(ID)  # it is tried again, for the file may be gone
        other = UploadId.new("5")
        with pytest.raises(FileExistsError):
            await uploads.create(plan(id=other))
        assert target.read_bytes() == b"came first"
        target.unlink()
        assert (await uploads.resume(ID)).committed is not None
        with pytest.raises(Changed):
            await uploads.create(plan(id=other, replaces="0" * 64))
        with pytest.raises(Changed):
            await uploads.create(plan(id=other, recording="143", replaces="*"))
        assert (await uploads.put(plan(id=other, replaces="*", length=3), body(b"new"))).size_bytes == 3

    run(tree, work)
    assert files_of(tree) == {"users/5/recordings/142/source.mp4": b"new"}


def test_what_was_refused_is_made_when_it_is_asked_for_and_not_by_itself(tree: Path) -> None:
    target = tree / "users/5/recordings/142/source.mp4"

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        target.parent.mkdir()
        target.write_bytes(b"came first")
        with pytest.raises(FileExistsError):
            await uploads.append(ID, 0, body(DATA))
        target.unlink()
        await uploads.recover()
        assert not target.exists()
        assert not (await uploads.look(ID)).wanted
        target.write_bytes(b"came first")
        with pytest.raises(FileExistsError):
            await uploads.complete(ID)
        target.unlink()
        assert (await uploads.complete(ID)).sha256 == SHA256

    run(tree, work)


def test_what_was_never_given_its_name_is_told_as_gone_when_its_bytes_are(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree / "temp/5" / JOB

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        target = tree / "users/5/recordings/142/source.mp4"
        target.parent.mkdir()
        target.write_bytes(b"came first")
        with pytest.raises(FileExistsError):
            await uploads.append(ID, 0, body(DATA))
        os.setxattr(folder, staged.SEALED, b'{"sha256":"%s","size":300000}' % SHA256.encode())  # a death, and then
        monkeypatch.setattr(staged, "forget", lambda *_: None)  # another one within the removal
        await uploads.remove(ID)
        for ask in (uploads.resume(ID), uploads.complete(ID)):
            with pytest.raises(UploadGone):
                await ask

    run(tree, work)

    async def refused(uploads: Uploads) -> None:
        other = UploadId.new("5")
        await uploads.create(plan(id=other, recording="143"))
        target = tree / "users/5/recordings/143/source.mp4"
        target.parent.mkdir()
        target.write_bytes(b"came first")
        with pytest.raises(FileExistsError):
            await uploads.append(other, 0, body(DATA))
        (tree / "temp/5" / other.job / "data").unlink()
        with pytest.raises(UploadGone):
            await uploads.complete(other)

    run(tree, refused)


def test_of_two_who_replace_the_same_bytes_one_does(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tree / "users/5/recordings/142/source.mp4"
    target.parent.mkdir()
    target.write_bytes(b"before")
    before = hashlib.sha256(b"before").hexdigest()
    os.setxattr(target, "user.recfs.sha256", before.encode())
    both, left = threading.Barrier(2), [1, 2]

    def looked(folder: int, plan: Plan) -> None:
        check_name(folder, plan)
        if left:
            left.pop()
            both.wait(30)  # both have seen what they replace

    monkeypatch.setattr("recfs.web.uploads.commit.check_name", looked)

    async def work(uploads: Uploads) -> list[Any]:
        plans = [plan(id=UploadId.new("5"), replaces=before, length=3) for _ in range(2)]
        return await asyncio.gather(
            *(uploads.put(each, body(data)) for each, data in zip(plans, (b"one", b"two"), strict=True)),
            return_exceptions=True,
        )

    told = run(tree, work)
    assert sorted(type(each).__name__ for each in told) == ["Changed", "Committed"]
    done = next(each for each in told if isinstance(each, Committed))
    assert hashlib.sha256(target.read_bytes()).hexdigest() == done.sha256
    assert len(files_of(tree)) == 1


def test_one_at_a_time_changes_what_a_name_stands_for(tree: Path) -> None:
    folder = os.open(tree, os.O_RDONLY)
    inside: list[str] = []

    def work(name: str) -> None:
        with alone(folder, name):
            inside.append(name)

    try:
        with alone(folder, "a"):
            same, other = (threading.Thread(target=work, args=(name,)) for name in "ab")
            same.start()
            other.start()
            other.join(30)
            assert inside == ["b"]
        same.join(30)
        assert inside == ["b", "a"]
    finally:
        os.close(folder)


def test_of_two_at_once_one_has_the_name(tree: Path) -> None:
    async def work(uploads: Uploads) -> list[Any]:
        ids = [UploadId.new("5") for _ in range(6)]
        for each in ids:
            await uploads.create(plan(id=each))
        return await asyncio.gather(*(uploads.append(each, 0, body(DATA)) for each in ids), return_exceptions=True)

    told = run(tree, work)
    assert sorted(type(each).__name__ for each in told) == ["FileExistsError"] * 5 + ["Found"]
    named = [name for name in files_of(tree) if name.startswith("users/")]
    assert named == ["users/5/recordings/142/source.mp4"]


def test_an_empty_file_is_one_unless_it_is_a_source(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        with pytest.raises(UploadRefused, match="empty"):
            await uploads.create(plan(length=0))
        await uploads.create(plan(length=0, path=("assets", "notes.txt")))
        assert (await uploads.complete(ID)).size_bytes == 0

    run(tree, work)
    assert files_of(tree) == {"users/5/recordings/142/assets/notes.txt": b""}


# -- in one go ---


def test_one_shot_leaves_nothing_where_it_fails(tree: Path) -> None:
    async def work(uploads: Uploads) -> None:
        for bad, error in (
            (body(DATA[:100], cut=True), CutOff),
            (body(DATA[:100]), Incomplete),
            (body(DATA, b"x"), TooMuch),
        ):
            with pytest.raises(error):
                await uploads.put(plan(resumable=False), bad)
        with pytest.raises(UploadGone):
            await uploads.put(plan(resumable=False, sha256="0" * 64), body(DATA))
        assert list((tree / "temp/5").iterdir()) == []
        assert files_of(tree) == {}
        assert (await uploads.put(plan(resumable=False, length=None), body(DATA))).sha256 == SHA256

    run(tree, work)
    assert files_of(tree) == {"users/5/recordings/142/source.mp4": DATA}


def test_nobody_goes_on_with_what_comes_in_one_request(tree: Path) -> None:
    """Its id is in temp/ for its user to see: half a file must not be committed by it."""

    async def nobody(uploads: Uploads) -> None:
        append, chunk = uploads.append(ID, 0, body(b"x")), uploads.chunk(ID, 0, body(b"x"))
        for ask in (uploads.resume(ID), append, chunk, uploads.complete(ID)):
            with pytest.raises(NoUpload):
                await ask

    async def work(uploads: Uploads) -> None:
        go_on = asyncio.Event()
        sent = Sent(DATA[:100_000], wait=go_on)
        put = asyncio.ensure_future(uploads.put(plan(length=None), Body(sent)))
        await sent.began.wait()
        await nobody(uploads)
        go_on.set()
        assert (await put).size_bytes == 100_000

    async def left(uploads: Uploads) -> None:
        held = staged.create(folders_of(tree), plan(resumable=False, recording="143"))
        held.close()
        await nobody(uploads)

    run(tree, work)
    (tree / "temp/5" / JOB).rmdir()
    run(tree, left)
    assert files_of(tree)["users/5/recordings/142/source.mp4"] == DATA[:100_000]
    assert not (tree / "users/5/recordings/143").exists()


def test_an_end_of_the_gateway_waits_for_nothing_that_is_sealed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = attribute

    def sealing(path: Any, name: str) -> bytes | None:
        if name == "user.recfs.state":
            return b"sealing"
        if name == "user.recfs.sha256":
            raise BlockingIOError
        return real(path, name)

    monkeypatch.setattr(sys.modules[commit.__module__], "attribute", sealing)

    async def work(uploads: Uploads) -> None:
        await uploads.create(plan())
        last = asyncio.ensure_future(uploads.append(ID, 0, body(DATA)))
        while uploads.busy(ID) != "committing":  # noqa: ASYNC110 (its thread waits for the checksum)
            await asyncio.sleep(0)
        uploads.end()
        with pytest.raises(UploadBusy, match="ends"):
            await last

    async def chunks(uploads: Uploads) -> None:
        await uploads.create(plan(id=other, recording="2", chunk_bytes=len(DATA)))
        await uploads.chunk(other, 0, body(DATA))

    other = UploadId.new("5")
    run(tree, work)
    monkeypatch.undo()
    run(tree, chunks)
    run(tree, lambda uploads: uploads.recover())
    assert (tree / "temp/5" / other.job / "data").exists(), "nobody asked for it to be committed"
    (tree / "temp/5" / other.job / "data").unlink()
    assert files_of(tree) == {"users/5/recordings/142/source.mp4": DATA}
