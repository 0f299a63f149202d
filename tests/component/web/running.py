"""A gateway that listens: a real server in a thread, on a directory."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recfs.web.serving import Serving
from tests.component.web.site import API, Site

SOURCE = f"{API}/users/5/recordings/142/source.mp4"
SIZE = 32 << 20
LONG_S = 30.0


class Running:
    """A gateway that listens, in a thread."""

    def __init__(self, place: Path, **settings: Any) -> None:
        made: dict[str, Any] = {
            "port": 0,
            "header_timeout_s": LONG_S,
            "body_timeout_s": LONG_S,
            "send_timeout_s": LONG_S,
        }
        self.site = Site(place, **{**made, **settings})
        self.site.file("users/5/recordings/142/source.mp4", os.urandom(1 << 20) * (SIZE >> 20))
        self.address = ("127.0.0.1", 0)
        self._begun = threading.Event()
        self._serving = Serving(self.site.served, self.site.settings, self._ready)
        self._thread = threading.Thread(target=self._serving.run)

    def _ready(self, address: tuple[str, int]) -> None:
        self.address = address
        self._begun.set()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Running]:
        self._thread.start()
        try:
            assert self._begun.wait(LONG_S)
            yield self
        finally:
            self._serving.stop()
            self._thread.join(LONG_S)
            assert not self._thread.is_alive()
            self.site.context.trail.close()

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        """Connect; with a small window where *receive_bytes* says so."""
        made = socket.socket()
        if receive_bytes is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        made.settimeout(LONG_S)
        made.connect(self.address)
        return made

    def head(self, method: str = "GET", path: str = SOURCE, *more: str) -> bytes:
        """A request's header."""
        lines = [f"{method} {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {self.site.token}", *more]
        return "\r\n".join([*lines, "", ""]).encode()

    def get(self, path: str = SOURCE) -> tuple[int, int]:
        """Get something by a connection of its own: status, and how many bytes came."""
        connection = http.client.HTTPConnection(*self.address, timeout=LONG_S)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.site.token}"})
            response = connection.getresponse()
            return response.status, len(response.read())
        finally:
            connection.close()
