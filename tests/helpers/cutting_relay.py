"""A network that breaks, between a client and its server: it resets connections after so many bytes, loses answers."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from types import TracebackType
from typing import Self

_BLOCK = 64 << 10
_RESET = struct.pack("ii", 1, 0)


class CuttingRelay:
    """Listens on a free port of 127.0.0.1, in a `with` block, and passes bytes on.

    *cuts* are counts of bytes from clients to the server, over all connections: at each the connection that brings the
    next one is reset on both sides. At *deaf_from* nothing more comes back on the connection that has brought so many:
    it is reset when the server answers.
    """

    def __init__(self, port: int, *cuts: int, deaf_from: int | None = None) -> None:
        self._server = ("127.0.0.1", port)
        self._cuts = sorted(cuts)
        self._deaf_from = deaf_from
        self.cut = 0
        """How many connections were reset."""
        self._passed = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._wake_read, self._wake_write = socket.socketpair()
        self._threads = [threading.Thread(target=self._listen)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake_write.send(b"x")
        for each in self._threads:
            each.join(30)
            assert not each.is_alive()
        for end in (self._listener, self._wake_read, self._wake_write):
            end.close()

    def _listen(self) -> None:
        while self._wake_read not in select.select([self._listener, self._wake_read], [], [])[0]:
            client, _ = self._listener.accept()
            thread = threading.Thread(target=self._relay, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _relay(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            deaf, open_ends = False, [client, server]
            while open_ends:
                ready = select.select([*open_ends, self._wake_read], [], [])[0]
                if self._wake_read in ready:
                    return
                for end in ready:
                    block = end.recv(_BLOCK)
                    if end is server and deaf and block:
                        return self._reset(client, server)
                    if not block:
                        open_ends.remove(end)
                        (server if end is client else client).shutdown(socket.SHUT_WR)
                    elif end is server:
                        client.sendall(block)
                    else:
                        allowed, breaks, deaf = self._allowed(len(block), deaf)
                        server.sendall(block[:allowed])
                        if breaks:
                            return self._reset(client, server)

    def _allowed(self, count: int, deaf: bool) -> tuple[int, bool, bool]:
        """How much of a block goes on, whether the connection breaks then, and whether its answer is lost."""
        with self._lock:
            breaks = bool(self._cuts) and self._passed + count >= self._cuts[0]
            if breaks:
                count = self._cuts.pop(0) - self._passed
            self._passed += count
            if self._deaf_from is not None and self._passed >= self._deaf_from:
                deaf, self._deaf_from = True, None
            return count, breaks, deaf

    def _reset(self, *ends: socket.socket) -> None:
        with self._lock:
            self.cut += 1
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()


__all__ = ["CuttingRelay"]
