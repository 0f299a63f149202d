"""Bytes from a socket into a file without a way through this process: splice(2), by a pipe.

For bodies over plain http only, as TLS has to be decrypted. Saves a copy and the memory for it: a seventh of the
daemon's CPU seconds for a cold read (docs/architecture.md).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import os
import select
import socket
from collections.abc import Iterator
from typing import Any

PIPE_BYTES = 1 << 20


class SocketPipe:
    """The rest of one answer's body, spliced from its socket."""

    def __init__(self, answer: http.client.HTTPResponse, sock: socket.socket, into: int, ends: tuple[int, int]) -> None:
        self._answer, self._socket, self._into = answer, sock, into
        self._out, self._in = ends
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.works = True
        """False once the file system has turned out to take nothing from a pipe."""

    def move(self, most: int, position: int) -> int:
        """Move up to *most* bytes to *position* of the file; 0 at the end of what comes.

        What http.client has buffered has to be read before. Raises TimeoutError and, of either end, OSError; `filename`
        tells those of the file apart.
        """
        taken = self._take(min(most, PIPE_BYTES))
        self._answer.length = (self._answer.length or 0) - taken
        moved = 0
        while moved < taken:
            try:
                moved += self._give(taken - moved, position + moved)
            except OSError as error:
                raise OSError(error.errno, error.strerror, "the local file") from error
        return taken

    def _take(self, most: int) -> int:
        while True:
            try:
                return os.splice(self._socket.fileno(), self._in, most)
            except BlockingIOError:
                timeout_s = self._socket.gettimeout()
                if not self._poll.poll(None if timeout_s is None else timeout_s * 1000):
                    raise TimeoutError("timed out") from None

    def _give(self, count: int, position: int) -> int:
        if self.works:
            try:
                return os.splice(self._out, self._into, count, offset_dst=position)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self.works = False
        return os.pwrite(self._into, os.read(self._out, count), position)


@contextlib.contextmanager
def socket_pipe(raw: object, into: int) -> Iterator[SocketPipe | None]:
    """A way from the connection of urllib3's response *raw* into a file, for the block; None if there is none."""
    answer: Any = getattr(raw, "_fp", None)
    sock: Any = getattr(getattr(raw, "connection", None), "sock", None)
    plain = type(sock) is socket.socket and isinstance(answer, http.client.HTTPResponse)
    if not plain or answer.chunked or answer.length is None:
        yield None
        return
    try:
        ends = os.pipe()
    except OSError:  # no descriptors left
        yield None
        return
    try:
        with contextlib.suppress(OSError):  # the user's share of memory for pipes is used up: a small one will do
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        yield SocketPipe(answer, sock, into, ends)
    finally:
        # Never used again: what an error has left in it is nobody's.
        for end in ends:
            os.close(end)
