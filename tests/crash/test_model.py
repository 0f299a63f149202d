"""The tester itself: a broken promise of each kind is reported, and what was never promised is not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash import journal
from tests.crash.journal import Call, Journal
from tests.crash.model import LONG_AGO, Fact, Node, Stamp, Version, World, pattern
from tests.crash.promises import GRACE_NS, Seen, broken_promises
from tests.helpers.syscalls import RENAME_EXCHANGE

DIED_NS = 1_000 * 10**9
EARLY_NS = DIED_NS - 10 * GRACE_NS
LATE_NS = DIED_NS - GRACE_NS // 2
TOP = "users/1/recordings/1"
OLD = b"committed"
WRITE, EMPTY, CREATE = os.O_WRONLY, os.O_TRUNC, os.O_CREAT


def world() -> World:
    """A recording with a committed file `old`, another `other`, and a directory `dir` with a file `in` in it."""

    def file(content: bytes) -> Node:
        return Node("file", LONG_AGO, Fact([(LONG_AGO, 0o644)]), [Version(content, [LONG_AGO], closed=LONG_AGO)])

    made = World()
    inner = Node("dir", LONG_AGO, Fact([(LONG_AGO, None)]), children={"in": file(b"inside")})
    children = {"old": file(OLD), "other": file(b"another"), "dir": inner}
    made.tops[TOP] = Node("dir", LONG_AGO, Fact([(LONG_AGO, None)]), children=children)
    made.tops["users/1/thumbnails"] = Node("dir", LONG_AGO, Fact([(LONG_AGO, None)]), shows={"s": b"shared"})
    return made


def file(content: bytes, state: str = "committed", **more: object) -> Seen:
    return replace(Seen("file", 0o644, content, state), **more)  # type: ignore[arg-type]


def found(*, at: str = TOP, without: str = "", **names: Seen) -> dict[str, Seen]:
    """What a quiet world looks like, but for some names."""
    tops = {TOP: Seen("dir"), "users/1/thumbnails": Seen("dir")}
    tops[TOP].children = {
        "old": file(OLD), "other": file(b"another"), "dir": Seen("dir", children={"in": file(b"inside")})
    }  # fmt: skip
    tops["users/1/thumbnails"].children = {"s": file(b"shared", shown=True)}
    for name in without.split():
        del tops[at].children[name]
    tops[at].children.update(names)
    return tops


class Told:
    """Calls that returned in good time, unless something else is said."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, what: str, at_ns: int | None = EARLY_NS, *, result: object = None, **with_: object) -> Told:
        for name in ("path", "to"):
            if name in with_ and "/" not in str(with_[name]).partition("users")[2][:1]:
                with_[name] = f"{TOP}/{with_[name]}"
        self.calls.append(Call(len(self.calls) + 1, what, with_, at_ns, result))
        return self

    def wrote(self, name: str, seed: int, flags: int, closed_ns: int | None = EARLY_NS, *, fsync: bool = False) -> Told:
        """A file was opened, written to, and closed (0: not closed)."""
        self("open", path=name, h=seed, flags=WRITE | flags, mode=0o644)
        self("write", h=seed, offset=None, seed=seed, size=100, result=100)
        if fsync:
            self("fsync", h=seed)
        return self if closed_ns == 0 else self("close", closed_ns, h=seed)


def refused(told: Told) -> Told:
    """The last call failed."""
    told.calls[-1].error = errno.EIO
    return told


def verdict(told: Told, seen: dict[str, Seen]) -> list[str]:
    return broken_promises(lambda: deepcopy(world()), told.calls, DIED_NS, seen)[0]


def test_a_world_in_which_nothing_happened_is_right() -> None:
    assert verdict(Told(), found()) == []


NEW = pattern(1, 100)
NEWER = pattern(2, 100)

BROKEN: dict[str, tuple[Callable[[], Told], dict[str, Seen], str]] = {
    "a committed file is gone": (Told, found(without="old"), "old: it is gone"),
    "a committed file has other bytes": (Told, found(old=file(b"rubbish!!")), "bytes are of no version"),
    "a committed file cannot be read": (Told, found(old=file(b"", trouble="EIO")), "cannot be read: EIO"),
    "a committed file is incomplete": (Told, found(old=file(OLD, "incomplete")), "it was closed, and is incomplete"),
    "a committed file became a directory": (Told, found(old=Seen("dir")), "a file was made, and it is a dir"),
    "a directory is gone": (Told, found(without="dir"), "dir: it is gone"),
    "a file that nobody made": (Told, found(what=file(b"x")), "what: nobody made it"),
    "a closed file is gone": (lambda: Told().wrote("n", 1, CREATE), found(), "n: it is gone"),
    "a closed file is gone, although its row was lost": (
        lambda: Told().wrote("n", 1, CREATE, LATE_NS), found(), "n: it is gone"
    ),
    "a file being written is gone": (lambda: Told().wrote("n", 1, CREATE, 0), found(), "n: it is gone"),
    "bytes that write returned for are gone": (
        lambda: Told().wrote("n", 1, CREATE, 0), found(n=file(NEW[:50], "incomplete")), "bytes are of no version"
    ),
    "a closed file is incomplete": (
        lambda: Told().wrote("n", 1, CREATE), found(n=file(NEW, "incomplete")), "it was closed, and is incomplete"
    ),
    "a closed overwrite is undone": (
        lambda: Told().wrote("old", 1, EMPTY), found(old=file(OLD)), "bytes are those of version 0"
    ),
    "a synced overwrite is undone": (
        lambda: Told().wrote("old", 1, EMPTY, 0, fsync=True), found(old=file(OLD)), "bytes are those of version 0"
    ),
    "an unfinished overwrite is kept": (
        lambda: Told().wrote("old", 1, EMPTY, 0), found(old=file(NEW, "incomplete")), "bytes are those of version 1"
    ),
    "an unfinished overwrite takes a closed version with it": (
        lambda: Told().wrote("old", 1, EMPTY).wrote("old", 2, EMPTY, 0),
        found(old=file(OLD)), "bytes are those of version 0",
    ),
    "a version whose close recfs had seen is gone": (
        lambda: Told().wrote("old", 1, EMPTY, LATE_NS)("state", LATE_NS, path="old", result="sealing"),
        found(old=file(OLD)), "bytes are those of version 0",
    ),
    "a removed file is back": (lambda: Told()("unlink", LATE_NS, path="old"), found(), "it was removed, and is back"),
    "a removed directory is back": (
        lambda: Told()("unlink", path="dir/in")("rmdir", LATE_NS, path="dir"),
        found(dir=Seen("dir")), "it was removed, and is back",
    ),
    "the file made in a removed one's place is the removed one": (
        lambda: Told()("unlink", path="old").wrote("old", 1, CREATE), found(), "bytes are of no version"
    ),
    "a rename is undone": (
        lambda: Told()("rename", LATE_NS, path="old", to="new"), found(), "it was removed, and is back"
    ),
    "a renamed file is gone": (
        lambda: Told()("rename", LATE_NS, path="old", to="new"), found(without="old"), "new: it is gone"
    ),
    "an exchange is undone": (
        lambda: Told()("rename", LATE_NS, path="old", to="other", flags=RENAME_EXCHANGE),
        found(), "bytes are of no version",
    ),
    "a replaced file is back": (
        lambda: Told()("rename", LATE_NS, path="other", to="old"),
        found(without="other"), "bytes are those of version 0",
    ),
    "a renamed directory has lost what is in it": (
        lambda: Told()("rename", LATE_NS, path="dir", to="dir2"),
        found(without="dir", dir2=Seen("dir")), "dir2/in: it is gone",
    ),
    "an attribute is lost": (
        lambda: Told()("setxattr", path="old", name="user.a", value="1"), found(), "attribute user.a is None"
    ),
    "an attribute before a rename is lost": (
        lambda: Told()("setxattr", LATE_NS, path="old", name="user.a", value="1")(
            "rename", LATE_NS, path="other", to="o2"
        ),
        found(without="other", o2=file(b"another")), "attribute user.a is None",
    ),
    "a removed attribute is back": (
        lambda: Told()("setxattr", path="old", name="user.a", value="1")("removexattr", path="old", name="user.a"),
        found(old=file(OLD, xattrs={"user.a": "1"})), "attribute user.a is 1",
    ),
    "a mode is lost": (lambda: Told()("chmod", path="old", mode=0o600), found(), "its mode is 644"),
    "a time is lost": (lambda: Told()("utime", path="old", ns=77), found(), "its mtime is 0"),
    "a link leads elsewhere": (
        lambda: Told()("symlink", path="l", target="here"),
        found(l=Seen("link", target="there")), "leads to 'there'",
    ),
    "a link is gone": (lambda: Told()("symlink", path="l", target="here"), found(), "l: it is gone"),
    "a hidden file is shown": (
        lambda: Told()("unlink", path="users/1/thumbnails/s"), found(), "it was removed, and is back"
    ),
    "an own copy of a shown file is gone": (
        lambda: Told().wrote("users/1/thumbnails/s", 1, EMPTY), found(), "thumbnails/s: it is gone"
    ),
    "a shown file has other bytes": (
        Told, found(at="users/1/thumbnails", s=file(b"else", shown=True)), "other bytes than the shared file"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_promise_is_reported(what: str) -> None:
    told, seen, word = BROKEN[what]
    said = verdict(told(), seen)
    assert any(word in each for each in said), said


def test_a_lost_limit_is_reported() -> None:
    told = Told()
    told.calls.append(Call(1, "limit", {"user": "1", "name": "max_bytes", "value": "5"}, EARLY_NS))
    for limit, wrong in (("5", 0), ("7", 1)):
        assert len(broken_promises(world, told.calls, DIED_NS, found(), {"1 max_bytes": limit})[0]) == wrong


KEPT: dict[str, tuple[Callable[[], Told], list[dict[str, Seen]]]] = {
    "a close that nobody may have heard of": (
        lambda: Told().wrote("old", 1, EMPTY, LATE_NS),
        [found(), found(old=file(NEW)), found(old=file(NEW, "incomplete"))],
    ),
    "an overwrite that nobody closed": (lambda: Told().wrote("old", 1, EMPTY, 0), [found()]),
    "a call that did not return": (
        lambda: Told()("unlink", None, path="old"), [found(), found(without="old")]
    ),
    "a rename that did not return": (
        lambda: Told()("rename", None, path="other", to="old"),
        [found(), found(without="other", old=file(b"another"))],
    ),
    "a write of which a part may have happened": (
        lambda: Told()("open", path="n", h=1, flags=WRITE | CREATE, mode=0o644)(
            "write", None, h=1, offset=None, seed=1, size=100
        ),
        [found(n=file(NEW[:n], "incomplete")) for n in (0, 33, 100)],
    ),
    "names of the last moment": (
        lambda: Told()("mkdir", LATE_NS, path="d")("symlink", LATE_NS, path="l", target="t"),
        [found(), found(d=Seen("dir")), found(d=Seen("dir"), l=Seen("link", target="t"))],
    ),
    "an attribute of the last moment": (
        lambda: Told()("setxattr", LATE_NS, path="old", name="user.a", value="1"),
        [found(), found(old=file(OLD, xattrs={"user.a": "1"}))],
    ),
    "a file that is open, renamed over another": (
        lambda: Told()("open", path="other", h=1, flags=WRITE)("write", h=1, offset=0, seed=1, size=100, result=100)(
            "rename", path="other", to="old"
        ),
        [found(without="other"), found(without="other", old=file(NEW, "incomplete"))],
    ),
    "a page of a mapping that was refused": (
        lambda: refused(Told()("open", path="old", h=1, flags=os.O_RDWR)("mapped", h=1, offset=0, seed=1, size=3)),
        [found(old=file(OLD, "incomplete")), found(old=file(NEW[:3] + OLD[3:], "incomplete"))],
    ),
    "a file that a worker held open over the death": (
        lambda: Told()("open", path="old", h=1, flags=WRITE | EMPTY)("unlink", None, path="other")("exit", DIED_NS + 1),
        [found(), found(old=file(b"")), found(old=file(b""), without="other")],
    ),
    "bytes changed where they lie, and then cut": (
        lambda: Told().wrote("old", 1, os.O_APPEND, 0)("ftruncate", h=1, size=0), [found(old=file(b"", "incomplete"))]
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", KEPT)
def test_what_was_not_promised_is_not_asked_for(what: str) -> None:
    told, ways = KEPT[what]
    for seen in ways:
        assert verdict(told(), seen) == []


def test_an_incomplete_file_renamed_over_another_keeps_nothing_of_it() -> None:
    begin = world()
    begin.tops[TOP].children["other"].versions = [Version(b"cut off", [Stamp(0, None)])]
    told = Told()("rename", path="other", to="old").wrote("old", 1, EMPTY, 0)
    for content in (NEW, b"cut off"):
        seen = found(without="other", old=file(content, "incomplete"))
        assert broken_promises(lambda: deepcopy(begin), told.calls, DIED_NS, seen)[0] == []


def test_an_incomplete_file_that_is_only_opened_may_stay_so() -> None:
    begin = world()
    begin.tops[TOP].children["other"].versions = [Version(b"cut off", [Stamp(0, None)])]
    told = Told()("open", path="other", h=1, flags=WRITE)("close", h=1)
    for state in ("incomplete", "committed"):
        seen = found(other=file(b"cut off", state))
        assert broken_promises(lambda: deepcopy(begin), told.calls, DIED_NS, seen)[0] == []
    told("open", path="other", h=2, flags=os.O_RDWR)("write", h=2, offset=0, seed=1, size=7, result=7)("close", h=2)
    seen = found(other=file(NEW[:7], "incomplete"))
    assert len(broken_promises(lambda: deepcopy(begin), told.calls, DIED_NS, seen)[0]) == 1


def test_a_write_that_landed_elsewhere_is_no_part_of_it() -> None:
    told = Told()("open", path="n", h=1, flags=WRITE | CREATE, mode=0o644)
    told("write", None, h=1, offset=None, seed=1, size=100)
    assert verdict(told, found(n=file(NEW[50:], "incomplete"))) != []


def test_what_gave_way_may_lie_in_lost_and_found() -> None:
    told = Told().wrote("old", 1, EMPTY, 0)
    lost = broken_promises(world, told.calls, DIED_NS, found())[1]
    assert [each.content for each in lost] == [NEW]
    assert broken_promises(world, Told().wrote("old", 1, EMPTY).calls, DIED_NS, found(old=file(NEW)))[1] == []


def test_a_journal_says_what_was_noted(tmp_path: Path) -> None:
    noted = Journal(tmp_path / "journal")
    noted.returned(noted.intent("open", {"path": "a", "h": 1}), result=3)
    noted.returned(noted.intent("unlink", {"path": "b"}), error=2)
    noted.intent("mkdir", {"path": "c"})
    noted.wrong("no")
    noted.close()
    with (tmp_path / "journal").open("ab") as stream:
        stream.write(b'{"n": 4, "wh')  # its writer was killed
    journal.ended(tmp_path / "journal")
    told = journal.read(tmp_path / "journal")
    assert [(call.what, call.result, call.error) for call in told.calls] == [
        ("open", 3, None), ("unlink", None, 2), ("mkdir", None, None), ("exit", None, None)
    ]  # fmt: skip
    assert [call.returned_ns is None for call in told.calls] == [False, False, True, False]
    assert told.wrong == ["no"]
