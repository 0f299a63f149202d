"""Requests pyfuse3 does not know: each is answered exactly once, whatever becomes of its handler."""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio
import trio.testing

from recfs.fuse import interpose
from recfs.fuse.extra_requests import ExtraRequests, Handlers
from recfs.fuse.operations import Operations

ExpectLog = Callable[[str], None]


class Answers:
    """The extension's reply functions, recorded: request -> (kind, value)."""

    @staticmethod
    def unique() -> int:
        """The kernel's number of the request received last."""
        return 4711

    def __init__(self) -> None:
        self.given: dict[int, tuple[str, int]] = {}

    def _give(self, kind: str, request: int, value: int) -> None:
        assert request not in self.given, "answered twice"
        self.given[request] = (kind, value)

    def reply_err(self, request: int, number: int) -> None:
        self._give("err", request, number)

    def reply_lseek(self, request: int, offset: int) -> None:
        self._give("lseek", request, offset)

    def reply_write(self, request: int, length: int) -> None:
        self._give("write", request, length)


class Scripted:
    """Handlers that do what the mode, the whence or the flags say."""

    async def fallocate(self, fh: int, mode: int, offset: int, length: int) -> None:
        await self._do(mode)

    async def lseek(self, fh: int, offset: int, whence: int) -> int:
        await self._do(whence)
        return fh + offset

    async def copy_file_range(self, source_fh: int, source_offset: int, fh: int, at: int, n: int, flags: int) -> int:
        await self._do(flags)
        return n

    async def _do(self, what: int) -> None:
        if what == 1:
            raise pyfuse3.FUSEError(errno.EDQUOT)
        if what == 2:
            raise ValueError("a bug")
        if what == 3:
            await trio.sleep_forever()


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def extra(answers: Answers) -> ExtraRequests:
    return ExtraRequests(answers, Scripted())  # type: ignore[arg-type]  # a module, elsewhere


def asked(what: int) -> list[tuple[Any, ...]]:
    """One request of each kind."""
    return [("fallocate", 7, what, 0, 10), ("lseek", 7, 100, what), ("copy_file_range", 7, 0, 8, 0, 10, what)]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (0, [("err", 0), ("lseek", 107), ("write", 10)]),
        (1, [("err", errno.EDQUOT)] * 3),
        (2, [("err", errno.EIO)] * 3),
    ],
)
async def test_each_has_its_answer(
    extra: ExtraRequests, answers: Answers, expect_log: ExpectLog, what: int, expected: list[tuple[str, int]]
) -> None:
    if what == 2:
        expect_log("unexpected error")
    async with trio.open_nursery() as extra.nursery:
        for request, one in enumerate(asked(what)):
            extra(request, one)
    assert list(dict(sorted(answers.given.items())).values()) == expected


async def test_whoever_still_waits_at_the_end_is_told(extra: ExtraRequests, answers: Answers) -> None:
    async with trio.open_nursery() as extra.nursery:
        for request, one in enumerate(asked(3)):
            extra(request, one)
        await trio.testing.wait_all_tasks_blocked()
        assert not answers.given
        extra.nursery.cancel_scope.cancel()
    assert answers.given == dict.fromkeys(range(3), ("err", errno.ENOTCONN))


def test_before_the_session_serves_they_are_refused(extra: ExtraRequests, answers: Answers) -> None:
    extra(1, asked(0)[0])
    assert answers.given == {1: ("err", errno.ENOTCONN)}


def test_who_answers_them() -> None:
    assert issubclass(Operations, Handlers)
    assert not issubclass(pyfuse3.Operations, Handlers)


# --- the extension ---------------------------------------------------------------------------------------------------


@pytest.fixture
def reply() -> Any:
    assert interpose.reply is not None
    return interpose.reply


@pytest.mark.parametrize("name", ["reply_err", "reply_lseek", "reply_write"])
def test_what_nobody_asked_is_not_answered(reply: Any, name: str) -> None:
    send = getattr(reply, name)
    with pytest.raises(LookupError, match="no request 12345"):
        send(12345, 0)
    for arguments, error in (
        ((1,), TypeError),
        (("1", 0), TypeError),
        ((-1, 0), OverflowError),
        ((1, -1), OverflowError),
    ):
        with pytest.raises(error):
            send(*arguments)


def test_only_what_can_be_called_is_registered(reply: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        reply.extend(SimpleNamespace())
    reply.extend(None)
    assert reply.extensions() == 0
