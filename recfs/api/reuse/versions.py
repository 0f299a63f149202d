"""What the daemon answers of numbered versions: `recfs next-version` and `recfs versions`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.api.asking import asking
from recfs.core.reuse.numbering import series
from recfs.core.upkeep.versions import ANYWHERE, VersionRule
from recfs.errors import InvalidArgument, NotADirectory
from recfs.services.clearing.versions import Below
from recfs.state.nodes import DirNode

if TYPE_CHECKING:
    from recfs.api.control import Handler
    from recfs.api.work import ReuseWork
    from recfs.fs.vfs import Vfs
    from recfs.services.clearing.versions import VersionSweep

MODE = 0o666
"""Permission bits of a new version, as open(2) takes them: the usual umask goes off."""
MOST_KEPT = 1_000_000


class VersionAnswers:
    """next_version, versions_list and versions_prune."""

    def __init__(self, work: ReuseWork, sweep: VersionSweep, vfs: Vfs) -> None:
        self._work = work
        self._sweep = sweep
        self._vfs = vfs

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {"next_version": self.next, "versions_list": self.list, "versions_prune": self.prune}

    async def next(self, params: dict[str, Any]) -> dict[str, Any]:
        """Make the next version of `name` with `extension` in the directory `path`, with the rights of whoever asks."""
        path = str(params.get("path") or "").strip("/")
        try:
            which = series(str(params.get("name") or ""), str(params.get("extension") or ""))
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        session = self._work.sessions.of(asking())
        name, number = await self._work.numbering.next(session, path, which, MODE)
        return {"path": f"{path}/{name}".strip("/"), "name": name, "number": number}

    async def list(self, params: dict[str, Any]) -> dict[str, Any]:
        """Versions in the directory `path`; `recursive`: below it as well; `pattern`: of which names."""
        return await self._sweep.listed(await self._below(params, 1, 0.0))

    async def prune(self, params: dict[str, Any]) -> dict[str, Any]:
        """Remove all but the last `keep` of each series that are older than `min_age_s`."""
        keep = params.get("keep")
        if not isinstance(keep, int) or isinstance(keep, bool) or not 1 <= keep <= MOST_KEPT:
            raise InvalidArgument(f"keep: {keep!r} is not a number from 1 to {MOST_KEPT}")
        below = await self._below(params, keep, float(params.get("min_age_s") or 0.0))
        return await self._sweep.prune(below, dry_run=bool(params.get("dry_run")))

    async def _below(self, params: dict[str, Any], keep: int, min_age_s: float) -> Below:
        try:
            rule = VersionRule(f"**/{params.get('pattern') or ANYWHERE}", keep, min_age_s=min_age_s)
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        path = str(params.get("path") or "")
        folder = await self._vfs.at(path)
        if not isinstance(folder, DirNode):
            raise NotADirectory(f"{path} is not a directory")
        return Below(folder.ino, rule, bool(params.get("recursive")))


__all__ = ["VersionAnswers"]
