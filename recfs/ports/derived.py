"""What is kept of what is derived from recordings, and of how their audio is cut.

Apart from the rows of files: whoever writes here waits for it. What is kept of a file that is gone is dropped by
`forget_gone`; no inode number is given twice, so until then nobody meets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from recfs.core.media.chunks import Chunk, ChunkPlan
from recfs.core.media.derived import Derived


class DerivedBooks(Protocol):
    """Products, and plans of chunks. Raises IoFailure or OutOfSpace.

    Each call is one transaction, but for those of whole plans: these are read and written in pages.
    """

    async def derived(self, folder: int) -> Sequence[Derived]:
        """What is kept of the products of the recording whose directory is *folder*."""

    async def derived_open(self) -> Sequence[Derived]:
        """Of all products that are pending, or being made."""

    async def keep_derived(self, record: Derived) -> None:
        """Keep this of a product, in place of what was kept."""

    async def drop_derived(self, folder: int, product: str) -> None:
        """Keep nothing more of a product."""

    async def chunk_plan(self, source: int) -> ChunkPlan | None:
        """How a file is cut; None: nobody has planned that."""

    async def chunk_head(self, source: int) -> ChunkPlan | None:
        """The same without its chunks."""

    async def keep_plan(self, plan: ChunkPlan) -> None:
        """Keep a plan and its chunks, in place of what was kept of this file: until all of it is, there is none.

        No two at the same time for one file.
        """

    async def keep_job(self, source: int, job: str) -> None:
        """Keep to which temp job the chunks of a plan are written."""

    async def keep_chunk(self, source: int, chunk: Chunk) -> None:
        """Keep this of one chunk of a plan that is kept."""

    async def fail_chunks(self, source: int, reason: str, *, done: bool) -> None:
        """Have the chunks of a plan have failed that are not completed; *done*: those that are, too."""

    async def begin_chunks_again(self) -> None:
        """Have chunks that were being written when a daemon died be pending."""

    async def forget_gone(self) -> int:
        """Drop what is kept of recordings and files that are gone, and have chunks whose file is gone be pending.

        Returns how many products and plans were dropped.
        """


__all__ = ["DerivedBooks"]
