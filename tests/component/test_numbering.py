"""The next numbered version: of several who ask at once, and whatever is removed, no two get one number."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.api.asking import asked_by
from recfs.api.client import ControlClient
from recfs.api.control import ControlServer, Offer
from recfs.core.access.methods import GATEWAY_METHODS
from recfs.core.permissions import Identity
from recfs.core.reuse import numbering
from recfs.core.reuse.numbering import Series, forgotten, series
from recfs.errors import AccessDenied, InvalidArgument, NotADirectory, NotFound, QuotaExceeded
from recfs.fs.attributes import Changes
from recfs.fs.session import Session

from .build import OPERATOR, REC, Filesystem, filesystem

USER = Identity(4711, 4711)


async def ask(fs: Filesystem, path: str = REC, name: str = "topics", extension: str = "json") -> str:
    made = await fs.answers()["next_version"]({"path": path, "name": name, "extension": extension})
    assert made["path"] == f"{path}/{made['name']}"
    return str(made["name"])


async def test_numbers_follow_the_highest_there_is(fs: Filesystem) -> None:
    await fs.mkdirs(REC)
    assert [await ask(fs) for _ in range(3)] == ["topics_v1.json", "topics_v2.json", "topics_v3.json"]
    assert await fs.read(f"{REC}/topics_v3.json") == b""
    await fs.write(f"{REC}/topics_v012.json", b"by hand")
    await fs.write(f"{REC}/topics_v40.json.part", b"another series")
    await fs.write(f"{REC}/my_topics_v50.json", b"another series")
    await fs.write(f"{REC}/topics_v-3.json", b"no number")
    await fs.write(f"{REC}/topics_v{'9' * 19}.json", b"a hash, perhaps")
    assert await ask(fs) == "topics_v13.json"
    assert await ask(fs, extension="") == "topics_v1"
    assert await ask(fs, extension=".json") == "topics_v14.json"
    await fs.drain()
    assert await fs.state(f"{REC}/topics_v14.json") == "committed"


async def test_a_number_is_not_given_out_again_when_its_file_is_removed(place: Path) -> None:
    async with filesystem(place / "root") as fs:
        await fs.mkdirs(REC)
        for _ in range(2):
            await ask(fs)
        await fs.unlink(f"{REC}/topics_v2.json")
        assert await ask(fs) == "topics_v3.json"
        for number in (1, 3):
            await fs.unlink(f"{REC}/topics_v{number}.json")
        await fs.rename(REC, f"{REC}7")
        await fs.crash()  # what was answered was durable
        await fs.reopen()
        assert await ask(fs, f"{REC}7") == "topics_v4.json"
        await fs.assert_consistent()


async def test_what_is_kept_of_numbers_is_nobodys_to_see_or_set(fs: Filesystem) -> None:
    folder = await fs.mkdirs(REC)
    await ask(fs)
    assert await fs.xattrs.list(folder.ino) == []
    assert (await fs.answers()["info"]({"path": REC}))["xattrs"] == {}
    await fs.xattrs.set(folder.ino, b"user.own", b"x" * 4000, OPERATOR)  # nor does it take of the room for theirs
    await ask(fs, name="x" * 200)
    await fs.xattrs.set(folder.ino, b"user.own", b"x" * 4088, OPERATOR)
    assert await fs.xattrs.list(folder.ino) == [b"user.own"]


async def test_many_at_once_get_a_number_each(fs: Filesystem) -> None:
    await fs.mkdirs(REC)
    got: list[str] = []

    async def several() -> None:
        for _ in range(5):
            name = await ask(fs)
            got.append(name)

    async def by_the_mount() -> None:
        """As a program does that counts by itself."""
        for number in range(1, 61, 4):
            parent, name = await fs.folder(f"{REC}/topics_v{number}.json")
            if await fs.vfs.lookup(parent, name) is None:
                handle, _ = await fs.vfs.create(parent, name, 0o644, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OPERATOR)
                await fs.close(handle)
                got.append(os.fsdecode(name))

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(several)
        nursery.start_soon(by_the_mount)
    assert len(got) == len(set(got)) > 30
    assert await fs.names(REC) == sorted(got)


async def test_it_is_made_with_the_rights_of_whoever_asks(fs: Filesystem) -> None:
    folder = await fs.mkdirs(REC)
    with asked_by(USER), pytest.raises(AccessDenied):
        await ask(fs)
    await fs.vfs.setattr(folder.ino, Changes(uid=USER.uid, gid=USER.gid), OPERATOR)
    with asked_by(USER):
        assert await ask(fs) == "topics_v1.json"
    node = await fs.node(f"{REC}/topics_v1.json")
    assert (node.uid, node.gid, node.mode) == (USER.uid, USER.gid, 0o644)
    with asked_by(Identity(4712, 4712)), pytest.raises(AccessDenied):
        await ask(fs)
    await fs.vfs.setattr(folder.ino, Changes(mode=0o2775), OPERATOR)
    with asked_by(Identity(4712, 4712, frozenset({USER.gid}))):
        assert await ask(fs) == "topics_v2.json"


async def test_who_asks_is_what_the_kernel_says_of_the_socket(fs: Filesystem) -> None:
    """In a process of its own, with other groups: nothing that it sends says who it is."""
    folder = await fs.mkdirs(REC)
    await fs.vfs.setattr(folder.ino, Changes(mode=0o2770, uid=USER.uid, gid=4713), OPERATOR)
    folder_of_socket = Path(tempfile.mkdtemp())  # pytest's own are not for other users
    folder_of_socket.chmod(0o755)
    socket_path = folder_of_socket / "gateway.sock"
    server = ControlServer(socket_path, fs.answers(), offer=Offer(frozenset(GATEWAY_METHODS), 0o666))

    def child(uid: int, groups: list[int]) -> int:
        pid = os.fork()
        if not pid:  # no return from here
            code = 1
            try:
                os.setgroups(groups)
                os.setgid(uid)
                os.setuid(uid)
                ControlClient(socket_path, 10).call("next_version", path=REC, name="topics", extension="json", uid=0)
                code = 0
            except AccessDenied:
                code = 13
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    async def asked(uid: int, groups: list[int]) -> int:
        return await trio.to_thread.run_sync(partial(child, uid, groups))

    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        assert await asked(USER.uid, []) == 0
        assert await asked(4712, [4713]) == 0
        assert await asked(4712, [*range(5000, 5400), 4713]) == 0  # more than there is room for at first
        assert await asked(4712, [*range(5000, 5400)]) == 13
        nursery.cancel_scope.cancel()
    folder_of_socket.rmdir()
    assert await fs.names(REC) == [f"topics_v{number}.json" for number in (1, 2, 3)]
    assert (await fs.node(f"{REC}/topics_v2.json")).uid == 4712


async def test_a_quota_that_is_full_takes_no_number(place: Path) -> None:
    async with filesystem(place / "root", quota={"max_files": 1}) as fs:
        await fs.mkdirs(REC)
        await ask(fs)
        with pytest.raises(QuotaExceeded):
            await ask(fs)
        await fs.unlink(f"{REC}/topics_v1.json")
        assert await ask(fs) == "topics_v2.json"


@pytest.mark.parametrize(
    ("name", "extension"),
    [("", "json"), ("a/b", "json"), ("a", "x/../../y"), ("a\0", ""), ("x" * 240, "json"), ("\ud800", "")],
)
async def test_what_makes_no_name_is_refused(fs: Filesystem, name: str, extension: str) -> None:
    await fs.mkdirs(REC)
    with pytest.raises(InvalidArgument):
        await ask(fs, name=name, extension=extension)


async def test_a_directory_is_wanted(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", b"x")
    with pytest.raises(NotADirectory):
        await ask(fs, f"{REC}/file")
    with pytest.raises(NotFound):
        await ask(fs, f"{REC}/none")


async def test_of_many_series_the_numbers_of_the_longest_are_kept(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbering, "MAX_MARKS", 3)
    await fs.mkdirs(REC)
    for name in ("a", "a", "b", "b", "b", "c", "d", "d"):
        await ask(fs, name=name)
    folder = await fs.node(REC)
    for name in await fs.names(REC):
        await fs.unlink(f"{REC}/{name}")
    assert len(folder.xattrs) == 3
    assert [await ask(fs, name=name) for name in "bad"] == ["b_v4.json", "a_v3.json", "d_v3.json"]
    assert await ask(fs, name="c") == "c_v1.json"


def test_names_and_numbers_agree() -> None:
    for which in (series("topics", "json"), series("topics", ""), series("a.b_v1", "tar.gz")):
        for number in (1, 9, 10, 10**18 - 1):
            assert which.number(which.name(number)) == number
    assert [Series(b"v", b"v").number(name) for name in (b"v_v.v", b"v_v", b"v_v1", b"v_v1.v", b"v_v1v")] == [
        None, None, None, 1, None,
    ]  # fmt: skip
    assert Series(b"a", b"b").number("a_v²".encode() + b".b") is None


def test_room_for_one_more_mark_is_made_when_it_is_needed() -> None:
    marks = {Series(b"%d" % number, b"").mark: b"%d" % number for number in range(1, numbering.MAX_MARKS + 1)}
    assert forgotten(marks, Series(b"7", b"")) == []
    assert forgotten(marks | {b"user.x": b"y"}, Series(b"new", b"")) == [Series(b"1", b"").mark]
    assert forgotten({}, Series(b"new", b"")) == []


async def versions(fs: Filesystem, **params: Any) -> list[str]:
    found = await fs.answers()["versions_list"]({"path": REC} | params)
    return [each["path"].removeprefix(f"{REC}/") for each in found["versions"]]


async def test_versions_are_listed_with_or_without_a_rule(fs: Filesystem) -> None:
    for name in ("b_v2.json", "b_v10.json", "b_v1.json", "a_v07", "plain.txt", "deep/c_v1.txt"):
        await fs.write(f"{REC}/{name}", b"data")
    handle = await fs.open(f"{REC}/b_v3.json", os.O_WRONLY | os.O_CREAT)
    assert await versions(fs) == ["a_v07", "b_v1.json", "b_v2.json", "b_v3.json", "b_v10.json"]
    assert await versions(fs, pattern="b_v{N}.json") == ["b_v1.json", "b_v2.json", "b_v3.json", "b_v10.json"]
    assert (await versions(fs, recursive=True))[-1] == "deep/c_v1.txt"
    found = (await fs.answers()["versions_list"]({"path": REC, "pattern": "b_v{N}*"}))["versions"][2]
    assert (found["whole"], found["open_files"], found["number"]) == (False, 1, 3)
    await fs.close(handle)
    with pytest.raises(InvalidArgument, match=r"\{N\} once"):
        await versions(fs, pattern="b_v*")
    with pytest.raises(NotADirectory):
        await versions(fs, path=f"{REC}/plain.txt")


async def test_superfluous_versions_go_when_somebody_asks_for_it(fs: Filesystem) -> None:
    for name in ("b_v2.json", "b_v10.json", "b_v1.json", "a_v1", "a_v2", "deep/b_v1.json", "deep/b_v2.json"):
        await fs.write(f"{REC}/{name}", b"data")
    await fs.drain()
    fs.clock.advance(100)
    await fs.write(f"{REC}/deep/b_v1.json", b"again")
    await fs.drain()
    prune = fs.answers()["versions_prune"]
    wanted = await prune({"path": REC, "keep": 1, "dry_run": True})
    assert [each["path"].rpartition("/")[2] for each in wanted["versions"] if each["removes"]] == [
        "a_v1", "b_v2.json", "b_v1.json",
    ]  # fmt: skip
    assert len(await fs.names(REC)) == 6
    done = await prune({"path": REC, "keep": 1})
    assert (done["removed"], done["bytes"]) == (3, 12)
    assert {each["reason"] for each in done["versions"] if not each["removes"]} == {"number 1 of the newest 1"}
    assert await fs.names(REC) == ["a_v2", "b_v10.json", "deep"]
    done = await prune({"path": REC, "keep": 1, "recursive": True, "min_age_s": 60.0, "pattern": "b_v{N}.json"})
    assert (done["removed"], await fs.names(f"{REC}/deep")) == (0, ["b_v1.json", "b_v2.json"])
    assert (await prune({"path": REC, "keep": 1, "recursive": True}))["removed"] == 1
    for keep in (0, None, True, "2"):
        with pytest.raises(InvalidArgument, match="keep"):
            await prune({"path": REC, "keep": keep})
    await fs.assert_consistent()


async def test_a_link_that_is_exchanged_between_leads_to_one_directory_or_the_other(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name, the number and what is remembered of it are those of the directory that the path led to at first."""
    own, other = f"{REC}/own", f"{REC}/other"
    await fs.mkdirs(own)
    await fs.write(f"{other}/topics_v500.json", b"")
    await fs.vfs.symlink(*await fs.folder(f"{REC}/link"), b"own", OPERATOR)
    listed = Session.list

    async def exchanging(session: Session, *args: Any, **more: Any) -> Any:
        monkeypatch.setattr(Session, "list", listed)
        await fs.unlink(f"{REC}/link")
        await fs.vfs.symlink(*await fs.folder(f"{REC}/link"), b"other", OPERATOR)
        return await session.list(*args, **more)

    monkeypatch.setattr(Session, "list", exchanging)
    assert await ask(fs, f"{REC}/link") == "topics_v1.json"
    assert (await fs.names(own), await fs.names(other)) == (["topics_v1.json"], ["topics_v500.json"])
    await fs.unlink(f"{own}/topics_v1.json")
    await fs.unlink(f"{other}/topics_v500.json")
    assert await ask(fs, own) == "topics_v2.json"
    assert await ask(fs, other) == "topics_v1.json", "no number was given out there"
