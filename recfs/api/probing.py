"""What the daemon answers of looks into files: the control protocol's method behind `recfs probe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.core.media.kinds import kind_of
from recfs.errors import NotADirectory, NotSupported
from recfs.fs.fallback_entries import FallbackEntry
from recfs.state.nodes import DirNode, FileNode
from recfs.state.walk import Walk

if TYPE_CHECKING:
    from recfs.api.control import Handler
    from recfs.fs.vfs import Vfs
    from recfs.services.probing import Probing

_FLUSH_EVERY = 500
"""After so many files what is queued is written, so that memory does not grow with their number."""


class ProbeAnswers:
    """probe."""

    def __init__(self, vfs: Vfs, probing: Probing | None) -> None:
        self._vfs = vfs
        self._probing = probing

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {"probe": self.probe}

    async def probe(self, params: dict[str, Any]) -> dict[str, Any]:
        """Have what is at `path`, and all files below it, looked into once more; how many of them say what they are."""
        if self._probing is None:
            raise NotSupported("nothing is looked into: [media] enabled = false")
        seen = await self._vfs.at(str(params.get("path") or ""))
        top = seen.shared if isinstance(seen, FallbackEntry) else seen
        if not isinstance(top, (DirNode, FileNode)):
            raise NotADirectory(f"{top.path} is neither a file nor a directory")
        queued = skipped = 0
        async for found in Walk(self._vfs.tree, top):
            node = await found.node() if kind_of(found.parts[-1]) is not None else None
            if node is not None and node.state.is_whole and self._probing.again(node):
                queued += 1
                if queued % _FLUSH_EVERY == 0:
                    await self._vfs.behind.flush()
            else:
                skipped += 1
        await self._vfs.behind.flush()
        return {"queued": queued, "skipped": skipped, "missing": self._probing.missing}


__all__ = ["ProbeAnswers"]
