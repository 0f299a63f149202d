"""What all methods of the S3 tier need: the parts of the daemon, and how the catalogue is read beside it."""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack

import trio

from recfs.errors import NO_S3, InvalidArgument, IsADirectory, NotSupported, OutOfSpace
from recfs.fs.fallback_entries import FallbackEntry
from recfs.ports.object_errors import Stalled
from recfs.state.nodes import DirNode, FileNode, LinkNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from recfs.api.work import FarWork
    from recfs.config import Config
    from recfs.fs.vfs import Vfs
    from recfs.ports.reports import Reports, Snapshot
    from recfs.tier.tier import Tier

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

ASKING_THREADS = 4
ANSWER_S = 30.0
"""So long somebody waits for S3's answer to a question; its calls by themselves may take minutes ([s3] deadline)."""


@dataclass(slots=True)
class Far:
    """The parts behind the methods."""

    config: Config
    vfs: Vfs
    found: Tier | None
    """The tier; None without [s3]."""
    reports: Reports
    work: FarWork | None
    """Who works with it; None without [s3]."""
    asking: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(ASKING_THREADS))
    """For what operators ask of S3: they do not queue behind uploads."""

    @property
    def tier(self) -> Tier:
        """The tier. Raises NotSupported without [s3]."""
        if self.found is None:
            raise NotSupported(NO_S3)
        return self.found

    @property
    def services(self) -> FarWork:
        """Who works with S3. Raises NotSupported without [s3]."""
        if self.work is None:
            raise NotSupported(NO_S3)
        return self.work

    async def read(self, question: Callable[[Snapshot, Unpack[Args]], Result], *args: *Args) -> Result:
        """Ask the catalogue, of what memory has now."""
        with contextlib.suppress(OutOfSpace):  # a full disk: `problems` of `status` tells
            await self.vfs.behind.flush()
        return await self.reports.ask(question, *args)

    async def ask(self, function: Callable[[], Result]) -> Result:
        """Make one call of the object store, as `answered` does."""
        async with self.answered():
            return await trio.to_thread.run_sync(function, limiter=self.asking, abandon_on_cancel=True)
        raise AssertionError  # `answered` has raised

    @asynccontextmanager
    async def answered(self) -> AsyncIterator[None]:
        """For the questions of somebody who waits: while S3 is down, look first whether it is back; and not for long.

        Raises StoreOutage with what S3 said last. A change that was sent by then may yet be made.
        """
        link = self.tier.link
        with trio.move_on_after(ANSWER_S):
            if link.is_down:
                await trio.to_thread.run_sync(link.objects.check, limiter=self.asking, abandon_on_cancel=True)
            yield
            return
        url = self.config.s3.url if self.config.s3 is not None else "S3"
        said = f": {self.trouble}" if self.trouble is not None else ""
        raise Stalled(
            f"{url} has not answered within {ANSWER_S:g} s{said}; what was asked for"
            f" may yet be done; look at the endpoint and the network, and ask again"
        )

    @property
    def trouble(self) -> str | None:
        """What S3 said last, if it is in trouble."""
        said = self.tier.link.trouble
        return str(said) if said is not None else None

    async def at(self, params: dict[str, Any]) -> DirNode | FileNode:
        """The file or directory that `path` means; of a directory, only with `recursive`. A shown file is the shared.

        Raises NotFound, IsADirectory, InvalidArgument.
        """
        path = str(params.get("path") or "")
        seen = await self.vfs.at(path)
        if isinstance(seen, FallbackEntry):
            return seen.shared
        if isinstance(seen, LinkNode):
            raise InvalidArgument(f"{path} is a symbolic link; give the file it leads to")
        if isinstance(seen, DirNode) and not params.get("recursive"):
            raise IsADirectory(f"{path or 'the top'} is a directory; --recursive takes everything below it")
        assert isinstance(seen, (DirNode, FileNode))
        return seen

    async def file(self, params: dict[str, Any]) -> FileNode:
        """The file that `path` means. Raises NotFound, IsADirectory, InvalidArgument."""
        node = await self.at(params | {"recursive": False})
        assert isinstance(node, FileNode)
        return node
