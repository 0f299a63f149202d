"""The control protocol: how a command line asks a running daemon, and here only.

A unix socket (mode 0600, so the daemon's own user and root; `api/gateway.py` has one of reduced rights for others), one
JSON object per line in each direction:

    {"method": "status", "params": {}}  ->  {"ok": true, "result": ...}
                                            {"ok": false, "error": {"kind": "NotFound", "message": "..."}}

`ControlServer` runs on the trio thread of the daemon; `ControlClient` (`client.py`) belongs to the command line.
The protocol knows no method by name: the daemon passes its handlers in. Whatever a client sends or fails to
send costs it its connection at most; nothing it does reaches the daemon's nursery.
"""

import contextlib
import errno
import logging
import os
import socket
import stat
import struct
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import trio

from recfs.api.asking import acts_for, asked_by, groups_of
from recfs.api.client import address_of, dump
from recfs.api.lines import LineReader, LineTooLong, Request, bounds_of, is_large, parsed
from recfs.core.permissions import Identity
from recfs.errors import ControlError, RecfsError, RootBusy

Handler = Callable[[dict[str, Any]], Awaitable[Any]]


class Peer(NamedTuple):
    """Who asks (SO_PEERCRED, unix(7))."""

    pid: int
    uid: int
    gid: int


Observer = Callable[[str, dict[str, Any], Peer, str], None]
"""Told of a method that was carried out, with its parameters, who asked, and the class of its error or ""."""

NOT_OFFERED = "NotPermitted"
"""The class of the error that answers a method which a socket does not offer."""


class Offer(NamedTuple):
    """What a socket of reduced rights is, and what it offers."""

    methods: frozenset[str]
    mode: int
    gid: int = -1
    """Of its group; -1: the daemon's."""
    at_once: int = 2
    """So many requests are carried out at once, those that wait for something to happen apart."""
    answer_s: float = 30.0
    """How long a client may take to read an answer: nobody keeps a large one in memory for longer."""


NAMED_CHARS = 64
"""So much of an unknown method's name is told."""
MAX_CONNECTIONS = 32
ALWAYS = 2
"""So many connections each user has, where others have taken all: one that waits, and one to ask besides."""
IDLE_S = 60.0
"""How long a client may take to complete a request line before it loses its connection."""
ACCEPT_AGAIN_S = 1.0
SEND_S = 10.0
"""How long a client may leave an answer unread before it loses its connection."""

_BACKLOG = 64
_BATCH_ITEMS = 256
_SHORT_BYTES = 4096
"""A line up to that length is parsed where it arrives."""

log = logging.getLogger(__name__)


def _failure(kind: str, message: str) -> dict[str, Any]:
    return {"ok": False, "error": {"kind": kind, "message": message}}


def _shown(method: str) -> str:
    """A method as messages name it, whoever made it up."""
    return ascii(method[:NAMED_CHARS])


def _require_safe(folder: Path) -> None:
    """Raise ControlError where others could put a socket of theirs in the place of one. Raises OSError."""
    info = os.stat(folder)
    if info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX:
        raise ControlError(f"others may write to {folder}: the socket could be another's; chmod go-w {folder}")
    if info.st_uid not in (0, os.geteuid()):
        raise ControlError(f"{folder} is another user's, and so could be the socket; chown {os.geteuid()} {folder}")


def _set_mode(path: Path, mode: int) -> None:
    """Set the mode of a socket just made, and of nothing that was put in its place. Raises OSError, ControlError."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if not stat.S_ISSOCK(info.st_mode) or info.st_uid != os.geteuid():
            raise ControlError(f"{path} is not the socket that was made there")
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


async def _encode(answer: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """Give the pieces of an answer: encoding a list of a million files in one go would stop the event loop.

    An iterator as result is drained piece by piece and reads as a list on the other side. So is a list in a result.
    """
    result = answer.get("result")
    if _is_long(result):
        yield b'{"ok":true,"result":'
        for piece in _listed(result):
            yield piece
        yield b"}\n"
    elif isinstance(result, dict) and any(map(_is_long, result.values())):
        before = b'{"ok":true,"result":{'
        for key, value in result.items():
            yield before + dump(str(key)) + b":"
            before = b","
            for piece in _listed(value) if _is_long(value) else (dump(value),):
                yield piece
        yield b"}}\n"
    else:
        yield dump(answer) + b"\n"


def _is_long(value: object) -> TypeGuard[Iterable[Any]]:
    return isinstance(value, Iterator) or (isinstance(value, list) and len(value) > _BATCH_ITEMS)


def _listed(items: Iterable[Any]) -> Iterator[bytes]:
    batch: list[bytes] = []
    begin = b"["
    for item in items:
        batch.append(dump(item))
        if len(batch) == _BATCH_ITEMS:
            yield begin + b",".join(batch)
            begin = b","
            batch.clear()
    yield (begin if batch or begin == b"[" else b"") + b",".join(batch) + b"]"


def _peer_of(stream: trio.SocketStream) -> Peer:
    """Who is on the other side, as the kernel says (unix(7))."""
    return Peer(*struct.unpack("3i", stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))


class ControlServer:
    """Answers requests on a unix socket, one after another per connection, connections side by side.

    A request runs to its end although its client hangs up: handlers change durable state, and half-closed
    clients still want their answer. Handlers with an open end take a timeout in their parameters. *waiting*: methods
    that change nothing and may wait; these end when their client hangs up. *observer* is told of each
    method that was carried out. *offer*: only that is answered, to whom it lets in; what else is asked for is refused,
    and the observer is told of it.
    """

    def __init__(
        self,
        socket_path: Path,
        handlers: Mapping[str, Handler],
        *,
        waiting: Collection[str] = (),
        observer: Observer | None = None,
        offer: Offer | None = None,
        max_connections: int = MAX_CONNECTIONS,
        idle_s: float = IDLE_S,
        send_s: float = SEND_S,
    ) -> None:
        self._socket_path = socket_path
        self._handlers = handlers
        self._waiting = waiting
        self._observer = observer
        self._max_connections = max_connections
        self._idle_s = idle_s
        self._send_s = send_s
        self._served: Counter[int] = Counter()
        """Connections, by uid."""
        self._offer = offer
        self._turns = trio.Semaphore(offer.at_once) if offer is not None else None
        self._parsing = trio.CapacityLimiter(1)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started once clients can connect. The socket file goes when this ends.

        Raises RootBusy when another process answers on the socket, OSError when it cannot be made.
        """
        sock = self._bind()
        inode = os.lstat(self._socket_path).st_ino
        try:
            task_status.started()
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
            while True:
                try:
                    await trio.serve_listeners(self._connection, [listener])
                except* Exception as group:  # accept(2) failed in some way trio does not expect
                    log.error("control socket: %s", group.exceptions[0])
                await trio.sleep(ACCEPT_AGAIN_S)
        finally:
            with contextlib.suppress(OSError):
                if os.lstat(self._socket_path).st_ino == inode:
                    os.unlink(self._socket_path)

    def _bind(self) -> socket.socket:
        self._refuse_second_server()
        if self._offer is not None:
            _require_safe(self._socket_path.parent)
        fresh = self._socket_path.with_name(f"{self._socket_path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            # Made under another name and renamed: at no moment is there a socket others may connect to, and a
            # stale file of a killed daemon is replaced in one step.
            with address_of(fresh) as address:
                sock.bind(address)
            if self._offer is not None:
                os.chown(fresh, -1, self._offer.gid, follow_symlinks=False)
            _set_mode(fresh, self._offer.mode if self._offer is not None else 0o600)
            sock.listen(_BACKLOG)
            os.replace(fresh, self._socket_path)
        except BaseException:
            sock.close()
            fresh.unlink(missing_ok=True)
            raise
        return sock

    def _refuse_second_server(self) -> None:
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            with probe, address_of(self._socket_path) as address:
                probe.connect(address)
        except BlockingIOError:
            pass  # a full backlog: somebody lives there, only busy
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTSOCK):
                return
            raise
        if self._offer is not None:
            raise RootBusy(f"another daemon already answers on {self._socket_path}: each store needs a path of its own")
        raise RootBusy(
            f"another daemon already answers on {self._socket_path}; "
            f"stop it with `recfs umount --root {self._socket_path.parents[1]}` before starting a second one"
        )

    async def _connection(self, stream: trio.SocketStream) -> None:
        uid = None
        try:
            uid = self._let_in(_peer_of(stream).uid)
            if uid is None:
                await self._send(stream, _failure("ControlError", "too many connections; try again later"))
            else:
                await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("control client hung up")
        except Exception:
            log.exception("control connection failed")
        finally:
            if uid is not None:
                self._served[uid] -= 1
                if not self._served[uid]:
                    del self._served[uid]

    def _let_in(self, uid: int) -> int | None:
        """Count one more connection of that user; None: it is one too many.

        Where all are taken, whoever has hardly any is let in all the same, so that one user keeps out no other.
        """
        most = self._max_connections
        if self._served.total() >= most and (self._served[uid] >= ALWAYS or self._served.total() >= 2 * most):
            return None
        self._served[uid] += 1
        return uid

    async def _converse(self, stream: trio.SocketStream) -> None:
        lines = LineReader(stream, has_bounds=self._offer is not None)
        while True:
            line = None
            try:
                with trio.move_on_after(self._idle_s):
                    line = await lines.next_line()
            except LineTooLong as exc:
                await self._send(stream, _failure("ControlError", str(exc)))
                return
            if line is None:
                return
            if not await self._serve(stream, line):
                return

    async def _serve(self, stream: trio.SocketStream, line: bytes) -> bool:
        """Answer a request; False when the connection is of no more use. Raises what the stream raises."""
        offer, turns = self._offer, self._turns
        if offer is None or turns is None:
            answer = await self._answer_to(stream, parsed(line))
            return answer is not None and await self._send(stream, answer)
        request = None if is_large(line) else await self._parsed(line)
        if isinstance(request, tuple) and request[0] in self._waiting:
            answer = await self._answer_to(stream, request)
            return answer is not None and await self._send(stream, answer)
        async with turns:  # until it is sent: so many large requests and answers are in memory
            answer = await self._answer_to(stream, request or await self._parsed(line))
            with trio.move_on_after(offer.answer_s):
                return answer is not None and await self._send(stream, answer)
        log.warning("a client of %s does not read its answer: connection closed", self._socket_path)
        return False

    async def _parsed(self, line: bytes) -> Request | str:
        """What somebody's line asks for. One line at a time: parsing keeps the interpreter from everything else."""
        bounds = bounds_of(line, has_bounds=True)
        if len(line) <= _SHORT_BYTES:
            return parsed(line, bounds)
        return await trio.to_thread.run_sync(parsed, line, bounds, limiter=self._parsing)

    async def _answer_to(self, stream: trio.SocketStream, request: Request | str) -> dict[str, Any] | None:
        """Answer a request; None where nobody wants the answer any more."""
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                peer = _peer_of(stream)
                with asked_by(Identity(peer.uid, peer.gid, groups_of(stream.socket))):
                    answer = await self._answer(request, peer, lambda: nursery.start_soon(_end_with, stream, scope))
                nursery.cancel_scope.cancel()
            return answer
        return None

    async def _answer(self, request: Request | str, peer: Peer, watch: Callable[[], object]) -> dict[str, Any]:
        """Answer a request; *watch* is called first where it is to end with its client."""
        if isinstance(request, str):
            return _failure("ControlError", request)
        method, params = request
        if self._offer is not None and method not in self._offer.methods:
            log.info("%s: uid %d (process %d) is refused %s", self._socket_path, peer.uid, peer.pid, _shown(method))
            if self._observer is not None:
                self._observer(method, params, peer, NOT_OFFERED)
            offered = ", ".join(sorted(self._offer.methods))
            return _failure(NOT_OFFERED, f"{_shown(method)} is not offered on this socket; it answers {offered}")
        handler = self._handlers.get(method)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            return _failure("ControlError", f"unknown method {_shown(method)}; this daemon knows {known}")
        log.debug("control request %s", method)
        if method in self._waiting:
            watch()
        failed = ""
        try:
            with acts_for(method, peer.uid, peer.gid, peer.pid, "control" if self._offer is None else "gateway"):
                return {"ok": True, "result": await handler(params)}
        except RecfsError as exc:
            failed = type(exc).__name__
            return _failure(failed, str(exc))
        except Exception as exc:
            log.exception("control method %s failed", method)
            failed = "InternalError"
            return _failure(failed, f"{type(exc).__name__} in {method}: {exc}; the daemon's log has more")
        finally:
            if self._observer is not None:
                self._observer(method, params, peer, failed)

    async def _send(self, stream: trio.SocketStream, answer: dict[str, Any]) -> bool:
        """Send one answer; False when the connection is of no more use. Raises what the stream raises."""
        first = True
        try:
            async with contextlib.aclosing(_encode(answer)) as pieces:
                async for piece in pieces:
                    # The answer to `stop` races the shutdown it asked for, so a short answer is shielded.
                    with trio.move_on_after(self._send_s, shield=first and piece.endswith(b"\n")) as scope:
                        await stream.send_all(piece)
                    if scope.cancelled_caught:
                        log.warning("a control client does not read its answer: connection closed")
                        return False
                    first = False
        except (TypeError, ValueError) as exc:
            log.exception("a control answer is not JSON")
            if not first:
                return False
            return await self._send(stream, _failure("InternalError", f"answer is not JSON: {exc}"))
        return True


async def _end_with(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Cancel when the client hangs up. What it sends meanwhile is left for later."""
    try:
        gone = not await stream.socket.recv(1, socket.MSG_PEEK)
    except OSError:
        gone = True
    if gone:
        scope.cancel()
