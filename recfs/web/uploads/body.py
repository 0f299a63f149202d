"""The body of a request as it comes: in pieces large enough to be worth a thread each."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Final

from recfs.web.uploads.errors import CutOff, Superseded

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
"""ASGI's."""
BATCH_BYTES: Final = 1 << 20


class Body:
    """A body that is read once. `stop` ends its reader from outside, in the middle."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._stopped = False
        self._waiting: asyncio.Timeout | None = None

    def stop(self) -> None:
        """Have whoever reads get Superseded instead of more."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def _message(self) -> MutableMapping[str, Any]:
        if not self._stopped:
            try:
                async with asyncio.timeout(None) as self._waiting:
                    return await self._receive()
            except TimeoutError:
                pass  # by `stop`, for there is no other time
            finally:
                self._waiting = None
        raise Superseded("another request goes on with this upload")

    async def blocks(self) -> AsyncIterator[bytes]:
        """Give the bytes as they come. Raises CutOff, Superseded."""
        more = True
        while more:
            message = await self._message()
            if message["type"] == "http.disconnect":
                raise CutOff("the connection ended before the body did")
            if block := message.get("body", b""):
                yield block
            more = message.get("more_body", False)

    async def batches(self) -> AsyncIterator[list[bytes]]:
        """Give the bytes in batches of about BATCH_BYTES. What came before an error is given before it is raised."""
        held: list[bytes] = []
        size = 0
        try:
            async for block in self.blocks():
                held.append(block)
                size += len(block)
                if size >= BATCH_BYTES:
                    yield held
                    held, size = [], 0
        except CutOff as error:
            if held:
                yield held
            raise error
        if held:
            yield held


class Checksum:
    """The digest that a request announces for its own bytes."""

    ALGORITHMS: Final = ("sha256", "sha1", "md5")

    def __init__(self, algorithm: str, digest: bytes) -> None:
        """Raises ValueError for an algorithm that is not offered, or a digest of another length."""
        if algorithm not in self.ALGORITHMS:
            raise ValueError(f"{algorithm[:20]!a} is not offered, but {', '.join(self.ALGORITHMS)}")
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        if len(digest) != self._hash.digest_size:
            raise ValueError(f"a {algorithm} has {self._hash.digest_size} bytes")
        self._digest = digest

    def update(self, blocks: list[bytes]) -> None:
        """Take bytes; to be called in a thread."""
        for block in blocks:
            self._hash.update(block)

    def right(self) -> bool:
        """Whether the bytes are those that were announced."""
        return self._hash.digest() == self._digest


__all__ = ["BATCH_BYTES", "Body", "Checksum", "Receive"]
