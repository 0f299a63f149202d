"""uvicorn as the gateway has it: one process, HTTP/1.1, own deadlines, an orderly end."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from recfs.web.deadlines import with_deadlines
from recfs.web.settings import Settings

_BACKLOG = 512
_IDLE_S = 15
"""So long a connection may wait for its next request."""
_END_S = 30
"""So long an end waits for answers that are under way."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 16 << 20
"""So much free memory stays with the process. Blocks of bodies come and go; as glibc has it each would be given back to
the kernel and fetched anew, a fault for each of its pages: a twelfth of the CPU time of an upload."""
_OWN_BYTES = 4 << 20
"""What is larger has pages of its own, which go back at once."""


class _Server(uvicorn.Server):
    """Tells when it listens, and when it is about to end."""

    ready: Callable[[tuple[str, int]], None] | None = None
    ending: Callable[[], None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End by SIGTERM in order, and not die of it once more afterwards, as uvicorn would."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.ready is not None and self.started and self.servers:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self.ready((host, port))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what would go on for ever, such as streams of events, then wait for the rest."""
        if self.ending is not None:
            self.ending()
        await super().shutdown(sockets)


class Serving:
    """A gateway that is going to serve, or does."""

    def __init__(
        self, app: ASGIApp, settings: Settings, ready: Callable[[tuple[str, int]], None],
        ending: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """*ready* is told the address and port that it listens at; *ending* is called when it is about to end."""
        self._settings = settings
        self._server = _Server(
            uvicorn.Config(
                app, loop="asyncio", http=with_deadlines(settings), ws="none", lifespan="off", interface="asgi3",
                log_config=None, access_log=False, server_header=False,
                timeout_graceful_shutdown=_END_S, timeout_keep_alive=_IDLE_S,
                proxy_headers=False,  # the connection's own address decides what is believed: `who.proxy` looks itself
            )
        )  # fmt: skip
        self._server.ready, self._server.ending = ready, ending

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT, or `stop`. Raises OSError for an address that cannot be listened at."""
        _keep_memory()
        host, port = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Said to be TCP's, or asyncio would not set TCP_NODELAY: what follows a header would wait for its ACK, 40 ms.
        with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(_BACKLOG)
            self._server.run([listener])

    def stop(self) -> None:
        """Have it end, from any thread: what is under way comes to its end first, as far as there is time."""
        self._server.should_exit = True


def _keep_memory() -> None:
    """Have the C library keep some memory, where it can be told so: mallopt(3) of glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _OWN_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


__all__ = ["Serving"]
