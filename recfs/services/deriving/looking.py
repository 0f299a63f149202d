"""What is in a source: as the catalogue has it where the file was looked into, else by a look like that one.

What is broken is no source: it is refused before ffmpeg reads it, and before anything is fetched for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.core.media.facts import unpacked
from recfs.core.media.kinds import Kind
from recfs.core.media.verdicts import Verdict
from recfs.services.deriving.reasons import Unmade

if TYPE_CHECKING:
    from recfs.core.media.facts import Facts
    from recfs.media.checks import Checks
    from recfs.services.deriving.sources import Source
    from recfs.state.media import MediaRows
    from recfs.state.nodes import FileNode


class Looking:
    """Tells it."""

    def __init__(self, rows: MediaRows, checks: Checks) -> None:
        self._rows = rows
        self.checks = checks

    async def known(self, node: FileNode, sha256: bytes) -> Facts | None:
        """What is known of these bytes, with their duration; None: not enough. Raises Unmade: they are broken."""
        row = await self._rows.of(node)
        if row is None or row.sha256 != sha256:
            return None
        if row.verdict == Verdict.BROKEN:
            raise _broken(row.reason)
        facts = unpacked(row.facts) if row.verdict == Verdict.WHOLE else None
        return facts if facts is not None and facts.duration_s is not None else None

    async def look(self, source: Source) -> Facts:
        """What is in an open source. Raises Unmade, MediaUnavailable, OSError."""
        finding = await self.checks.look(Kind.EITHER, source.fd, source.size_bytes)
        if not finding.is_sure:
            raise Unmade(f"the source cannot be looked into: {finding.reason}", again=not finding.is_final)
        if finding.reason is not None or finding.facts is None:
            raise _broken(finding.reason or "")
        return finding.facts


def _broken(reason: str) -> Unmade:
    return Unmade(f"the source is broken: {reason}")


__all__ = ["Looking"]
