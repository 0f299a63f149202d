"""`recfs duplicates --dedupe`: files with the same bytes share their blocks on the disk.

Some seconds at a time, from where the last request ended: whoever asks may stop at any time, and nothing is left to be
cleared away. Which files have the same bytes is asked of the catalogue; that they have, the kernel finds out by itself
(`disk/sharing.py`). What is open for writing or not committed is passed over, and so is what shares its blocks already.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio

from recfs.disk import sharing
from recfs.errors import FsError, InvalidArgument, NotSupported, Stale
from recfs.state.nodes import FileNode
from recfs.state.work.outcome import MOST_NAMED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.disk.committed import CommittedBytes, CommittedFiles
    from recfs.ports.duplicates import Identical, Which
    from recfs.ports.reports import Reports, Snapshot
    from recfs.state.tree import Tree

log = logging.getLogger("recfs.dedupe")

AT_ONCE: Final = 10_000
"""So many files are asked for at once: two at least."""


@dataclass(slots=True)
class Done:
    """What one request did."""

    files: int = 0
    """That share their blocks with another since, …"""
    bytes: int = 0
    """That these gave up: holes are none. Where the file system does not tell its blocks, their size."""
    already: int = 0
    """… that did so before …"""
    passed_over: int = 0
    """… and that were changed meanwhile, or are open for writing."""
    refused: list[tuple[str, str]] = field(default_factory=list)
    """(path, why) of what the file system refused."""
    refused_files: int = 0


class Dedupe:
    """Has files share their blocks."""

    def __init__(self, tree: Tree, reports: Reports, committed: CommittedFiles) -> None:
        self._tree = tree
        self._reports = reports
        self._committed = committed
        self._limiter = trio.CapacityLimiter(1)
        self._turn = trio.Lock()

    async def run(self, which: Which, after: str | None, seconds: float) -> dict[str, Any]:
        """Go on after a place, for so long or until all is done, as JSON; `next`: where to go on, None: nowhere.

        Raises NotSupported where the file system of the store cannot, InvalidArgument, IoFailure.
        """
        place, done = _place(after), Done()
        async with self._turn:
            await self._tree.behind.flush()
            until = trio.current_time() + seconds
            while True:
                found = await self._reports.ask(_identical, which, place)
                place, is_over = await self._some(found, until, done)
                if is_over or trio.current_time() >= until:
                    break
        return {
            "files": done.files,
            "bytes": done.bytes,
            "already": done.already,
            "passed_over": done.passed_over,
            "kept": [{"path": path, "reason": why} for path, why in done.refused],
            "kept_files": done.refused_files,
            "next": None if is_over or place is None else f"{place[0].hex()}:{place[1]}",
        }

    async def _some(
        self, found: Sequence[Identical], until: float, done: Done
    ) -> tuple[tuple[bytes, int] | None, bool]:  # fmt: skip
        """Go through some files; where to go on, and whether nothing is left.

        The file to go on with is the last that was gone through: the next one may be of its set.
        """
        source: CommittedBytes | None = None
        last: tuple[bytes, int] | None = None
        async with contextlib.AsyncExitStack() as opened:
            for number, each in enumerate(found):
                if source is not None and source.sha256 != each.sha256:
                    await opened.aclose()
                    source = None
                if number >= 2 and trio.current_time() >= until:  # the first is where the last request ended
                    return last, False
                last = (each.sha256, each.ino)
                node = await self._file(each)
                if node is None:
                    continue
                try:
                    if source is None:
                        source = await opened.enter_async_context(self._committed.open(node))
                        if source.sha256 != each.sha256:
                            await opened.aclose()
                            source = None
                    else:
                        await self._share(source, node, done)
                except NotSupported:
                    raise
                except Stale:
                    done.passed_over += 1
                except (FsError, OSError) as error:
                    self._refused(node, error, done)
        return last, len(found) < AT_ONCE

    async def _file(self, which: Identical) -> FileNode | None:
        """The file, if it is what the catalogue said, and nobody writes to it."""
        try:
            node = await self._tree.get(which.ino)
        except Stale:
            return None
        return node if isinstance(node, FileNode) and _is_still(node, which.sha256) else None

    async def _share(self, source: CommittedBytes, node: FileNode, done: Done) -> None:
        assert source.sha256 is not None
        async with self._committed.open(node) as target:
            if not _is_still(node, source.sha256) or target.size_bytes != source.size_bytes:
                raise Stale(node.path)
            own = await self._call(sharing.own_bytes, source.fd, target.fd)
            if own == 0:
                done.already += 1
                return
            shared = offset = 0
            while offset < source.size_bytes:
                if not source.is_current or not _is_still(node, source.sha256):
                    raise Stale(node.path)
                length = min(sharing.SLICE_BYTES, source.size_bytes - offset)
                now = await self._call(sharing.share, source.fd, target.fd, offset, length)
                if not now:
                    raise OSError(f"{node.path}: the kernel found other bytes there than the checksum says")
                shared, offset = shared + now, offset + now
            left = await self._call(sharing.own_bytes, source.fd, target.fd) if own is not None else None
            done.files += 1
            done.bytes += shared if own is None or left is None else max(0, own - left)

    async def _call(self, function: Any, *args: Any) -> Any:
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)

    def _refused(self, node: FileNode, error: Exception, done: Done) -> None:
        done.refused_files += 1
        if len(done.refused) < MOST_NAMED:
            done.refused.append((node.path, str(error)))
        log.warning("%s does not share its blocks: %s", node.path, error)


def _is_still(node: FileNode, sha256: bytes) -> bool:
    if node.unlinked or not node.state.is_whole or node.sha256 != sha256:
        return False
    return node.body is None or not node.body.writers


def _identical(snapshot: Snapshot, which: Which, after: tuple[bytes, int] | None) -> Sequence[Identical]:
    return snapshot.identical(which, after, AT_ONCE)


def _place(after: str | None) -> tuple[bytes, int] | None:
    if after is None:
        return None
    digest, _, ino = after.partition(":")
    try:
        place = bytes.fromhex(digest), int(ino)
    except ValueError:
        raise InvalidArgument(f"{after[:80]!r} is not where an earlier run ended") from None
    return place


__all__ = ["Dedupe"]
