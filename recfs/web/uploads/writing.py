"""A body on its way to the disk: while one batch is written, the next one comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from recfs.web.uploads.body import Body
from recfs.web.uploads.errors import CutOff, TooMuch

Write = Callable[[list[bytes], int], Awaitable[int]]
"""Writes blocks at an offset, and gives how many bytes they have."""


async def written(body: Body, at: int, end: int | None, write: Write) -> AsyncGenerator[int, None]:
    """Write a body from an offset on, and give the bytes of each batch when it is written, also of one that is cut off.

    Nothing is being written any more when this has ended, however it does: close it (`contextlib.aclosing`). Raises
    TooMuch for what goes beyond *end*, CutOff, and what *write* does.
    """
    writing: asyncio.Future[int] | None = None
    try:
        async for blocks in body.batches():
            if writing is not None:
                running, writing = writing, None
                yield await running
            size = sum(map(len, blocks))
            if end is not None and at + size > end:
                raise TooMuch("this chunk is longer than those of its upload")
            writing = asyncio.ensure_future(write(blocks, at))
            at += size
    except CutOff as error:
        if writing is not None:
            running, writing = writing, None
            yield await running
        raise error
    finally:
        if writing is not None and not writing.done():
            await asyncio.wait([writing])  # it has the descriptor
            if not writing.cancelled():
                writing.exception()
    if writing is not None:
        yield await writing


__all__ = ["Write", "written"]
