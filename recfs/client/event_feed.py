"""What becomes of files, as it happens: the daemon's events by its socket, with a cursor to go on from.

The protocol is one line of JSON for each question and each answer, one connection each (docs/architecture.md).
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from recfs.client.errors import CursorLost, DaemonRefused, DaemonUnreachable, NotAMount
from recfs.client.places import default_root, store_root
from recfs.client.waiting import abandoned, sleep

OLDEST: Final = "oldest"
NOW: Final = "now"
_WAIT_S = 20.0
"""How long one question waits for an event."""
_SILENCE_S = 30.0
_AGAIN_S = 1.0
"""How long a daemon that does not answer is left alone."""
_SUN_PATH_BYTES = 107
_ANSWER_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Event:
    """What became of a file (docs/commands.md, `recfs events`, has the kinds)."""

    cursor: str
    time_ns: int
    kind: str
    path: str
    """In the tree; bytes that are not UTF-8 as `os.fsdecode` has them."""
    was: str | None
    """Its path before, of one that was renamed."""
    user: str | None
    size_bytes: int | None
    sha256: str | None
    told: Mapping[str, Any]
    """All that was told, as `recfs --json events` has it."""


def _event(told: dict[str, Any]) -> Event:
    return Event(
        told["cursor"], told["time_ns"], told["event"], told["path"], told.get("was"), told.get("user"),
        told.get("size_bytes"), told.get("sha256"), MappingProxyType(told),
    )  # fmt: skip


class events:
    """Go through what becomes of files: `for event in events("/mnt/recfs")`, or `async for`.

    *where* is a path of the mount (then the store's own socket is asked, which is its owner's and root's), or a socket:
    that of `[gateway]`, for others. None: the mount that there is. It goes on for ever, over restarts of the daemon,
    unless *follow* is False: then it ends with the last event there is. *since* is a cursor, a date, how long ago
    ("2h"), "oldest" or "now". Only events of some *kinds*, or of one user's files, can be asked for.

    `cursor` is that of the last event that was given: who keeps it with what it has done goes on there with `since`,
    and misses none. Raises CursorLost where that is not possible any more, DaemonRefused, NotAMount for a plain
    directory, DaemonUnreachable when nobody answers at first (later it is waited for, if *follow*).
    """

    def __init__(
        self, where: str | os.PathLike[str] | None = None, *, since: str = OLDEST, kinds: Iterable[str] = (),
        user: str | int | None = None, follow: bool = True,
    ) -> None:  # fmt: skip
        self.cursor = since
        self._where = where
        self._follow = follow
        self._asked = {"kinds": sorted(kinds) or None, "user": None if user is None else str(user)}
        self._answered = False

    def __iter__(self) -> Iterator[Event]:
        question = _Question(self._socket())
        while True:
            page = self._page(question)
            if page is None:
                time.sleep(_AGAIN_S)
                continue
            yield from self._told(page)
            if self._ends(page):
                return

    async def __aiter__(self) -> AsyncIterator[Event]:
        path = await abandoned(self._socket, lambda: None)
        while True:
            question = _Question(path)
            page = await abandoned(lambda: self._page(question), question.stop)  # noqa: B023 - it has ended by then
            if page is None:
                await sleep(_AGAIN_S)
                continue
            for event in self._told(page):
                yield event
            if self._ends(page):
                return

    def _socket(self) -> Path:
        where = Path(default_root() if self._where is None else self._where)
        if stat.S_ISSOCK(where.stat().st_mode):
            return where
        root = store_root(where)
        if root is None:
            raise NotAMount(f"{where} is no recfs mount and no socket: there is no daemon that would tell of it")
        return root / ".recfs" / "control.sock"

    def _page(self, question: _Question) -> dict[str, Any] | None:
        """Some events, and where to go on; None while the daemon that has answered before is away."""
        wait = {"wait_s": _WAIT_S} if self._follow and self._answered else {}
        try:
            page = question.ask("events", {**self._asked, "since": self.cursor, **wait})
        except DaemonUnreachable:
            if self._follow and self._answered:
                return None
            raise
        self._answered = True
        return page

    def _told(self, page: dict[str, Any]) -> Iterator[Event]:
        for told in page["events"]:
            event = _event(told)
            self.cursor = event.cursor
            yield event
        self.cursor = page["cursor"]  # what was looked at and not wanted is behind, too

    def _ends(self, page: dict[str, Any]) -> bool:
        return not self._follow and not page["more"]


class _Question:
    """One question to a daemon at a time, and a way to give it up from another thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: socket.socket | None = None
        self._stopped = False

    def stop(self) -> None:
        """Give it up: `ask` ends with DaemonUnreachable."""
        self._stopped = True
        sock = self._open
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Give the answer. Raises DaemonUnreachable, DaemonRefused."""
        line = json.dumps({"method": method, "params": params}, separators=(",", ":")).encode("ascii") + b"\n"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            self._open = sock
            sock.settimeout(float(params.get("wait_s", 0.0)) + _SILENCE_S)
            try:
                _at_address(self._path, sock.connect)
                if self._stopped:
                    raise DaemonUnreachable("given up")
                with suppress(BrokenPipeError, ConnectionResetError):  # a refusal may come before all was sent
                    sock.sendall(line)
                answer = _line(sock)
            except OSError as error:
                if isinstance(error, DaemonUnreachable):
                    raise
                raise DaemonUnreachable(
                    f"the daemon on {self._path} does not answer: {error.strerror or error}"
                ) from error
            finally:
                self._open = None
        return self._result(answer)

    def _result(self, line: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(line)
            if answer["ok"]:
                result: dict[str, Any] = answer["result"]
                return result
            kind, message = str(answer["error"]["kind"]), str(answer["error"]["message"])
        except (ValueError, KeyError, TypeError) as error:
            raise DaemonUnreachable(f"what answers on {self._path} is no recfs daemon") from error
        raise (CursorLost if kind == "CursorLost" else DaemonRefused)(kind, message)


def _at_address(path: Path, connect: Callable[[str], None]) -> None:
    """Connect to a socket whose path may be longer than sockaddr_un has room for (unix(7))."""
    if len(os.fsencode(path)) <= _SUN_PATH_BYTES:
        connect(str(path))
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _line(sock: socket.socket) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while not chunks or not chunks[-1].endswith(b"\n"):
        chunk = sock.recv(1 << 20)
        size += len(chunk)
        if not chunk or size > _ANSWER_BYTES:
            raise ConnectionResetError(errno.ECONNRESET, "it broke off")
        chunks.append(chunk)
    return b"".join(chunks)


__all__ = ["NOW", "OLDEST", "Event", "events"]
