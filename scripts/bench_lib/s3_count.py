"""Counts the S3 requests of a mount: a proxy before the server that looks for request lines and changes nothing."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from .target import LeftOut

_LINE_END = b" HTTP/1.1\r\n"
_BLOCK = 256 << 10


class CountingProxy:
    """Context manager: `endpoint` leads to the server behind *endpoint*, `requests` counts what went through.

    Bodies of uploads are searched, too: meant for what is to transfer names, not bytes. Raises LeftOut where there
    is nothing to see (https).
    """

    def __init__(self, endpoint: str) -> None:
        server = urlsplit(endpoint)
        if server.scheme != "http" or server.hostname is None:
            raise LeftOut("requests can be counted over http only")
        self._server = (server.hostname, server.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.requests = 0

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _shut_down(self._listener)
        self._acceptor.join()
        for end in self._ends:
            _shut_down(end)
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # shut down: the end
            while True:
                client, _ = self._listener.accept()
                self._ends.append(client)
                server = socket.create_connection(self._server)
                self._ends.append(server)
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for source, target, counted in ((client, server, True), (server, client, False)):
                    thread = threading.Thread(target=self._pass_on, args=(source, target, counted), daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        tail = b""
        with contextlib.suppress(OSError):  # either side went away
            while block := source.recv(_BLOCK):
                if counted:
                    searched = tail + block
                    tail = searched[1 - len(_LINE_END) :]
                    with self._lock:
                        self.requests += searched.count(_LINE_END)
                target.sendall(block)
        _shut_down(target)


def _shut_down(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
