"""FALLOCATE, LSEEK and COPY_FILE_RANGE, which pyfuse3 does not know: the C extension hands them over (_fuse_extra.c).

Each gets a task of its own. Behind each waits a thread of a client, so there are no more of them than of those; what
they do at once is bounded where it is done (`ranges`). While a request is worked on, the kernel keeps its file locked
against other writers, truncation and removal, and does not give up waiting: an answer must not take long.

ENOSYS is never answered. The kernel would not ask again, for any file.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pyfuse3

from recfs.fuse.standstill.gate import GATE
from recfs.state import waits

if TYPE_CHECKING:
    import trio

log = logging.getLogger("recfs.fuse")


@runtime_checkable
class Handlers(Protocol):
    """Who answers. Only pyfuse3.FUSEError should leave these; anything else is logged and answered with EIO."""

    async def fallocate(self, fh: int, mode: int, offset: int, length: int) -> None:
        """FALLOCATE: fallocate(2)."""

    async def lseek(self, fh: int, offset: int, whence: int) -> int:
        """LSEEK: lseek(2) with SEEK_DATA or SEEK_HOLE."""

    async def copy_file_range(
        self, source_fh: int, source_offset: int, fh: int, offset: int, length: int, flags: int
    ) -> int:
        """COPY_FILE_RANGE: copy_file_range(2)."""


class ExtraRequests:
    """Starts a task for each request, and sees that it is answered exactly once, whatever becomes of the task."""

    def __init__(self, reply: ModuleType, handlers: Handlers) -> None:
        self.nursery: trio.Nursery | None = None
        """Where the tasks run; without one, requests are refused."""
        self._unique: Callable[[], int] = reply.unique
        self._refuse: Callable[[int, int], None] = reply.reply_err
        self._ways: dict[str, tuple[Callable[..., Awaitable[Any]], Callable[[int, Any], None]]] = {
            "fallocate": (handlers.fallocate, lambda request, _: reply.reply_err(request, 0)),
            "lseek": (handlers.lseek, reply.reply_lseek),
            "copy_file_range": (handlers.copy_file_range, reply.reply_write),
        }

    def __call__(self, request: int, asked: tuple[Any, ...]) -> None:
        """Take over a request: its number, and its name and arguments. Called while a pyfuse3 worker reads it."""
        if self.nursery is None:
            self._refuse(request, errno.ENOTCONN)
        else:
            GATE.in_hand += 1
            self.nursery.start_soon(self._answer, self._unique(), request, *asked)

    async def _answer(self, number: int, request: int, name: str, *arguments: int) -> None:
        handler, send = self._ways[name]
        waits.ticket.set(number)
        try:
            value = await handler(*arguments)
        except pyfuse3.FUSEError as error:
            self._refuse(request, error.errno)
        except Exception:
            log.exception("%s: unexpected error, answered with EIO", name)
            self._refuse(request, errno.EIO)
        except BaseException:  # cancelled: the session ends
            self._refuse(request, errno.ENOTCONN)
            raise
        else:
            send(request, value)
        finally:
            GATE.in_hand -= 1


__all__ = ["ExtraRequests", "Handlers"]
