"""What sweeps would clear away: the control protocol's methods behind `recfs sweep multiparts --dry-run` and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.core.upkeep.leftovers import Mode
from recfs.errors import InvalidArgument, NotFound
from recfs.services.orphans import name_of

if TYPE_CHECKING:
    from recfs.api.control import Handler
    from recfs.api.work import UpkeepWork


class LeftoverAnswers:
    """sweep_multiparts, sweep_archive, sweep_orphans, sweep_versions."""

    def __init__(self, work: UpkeepWork) -> None:
        self._work = work

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {
            "sweep_multiparts": self.multiparts,
            "sweep_archive": self.archive,
            "sweep_orphans": self.orphans,
            "sweep_versions": self.versions,
        }

    async def versions(self, params: dict[str, Any]) -> dict[str, Any]:
        """What a run would remove now, and what stays beside it. Changes nothing."""
        return await self._work.versions.preview(kept=True)

    async def archive(self, params: dict[str, Any]) -> dict[str, Any]:
        """What a run would store anew now. Changes nothing."""
        if self._work.archiving is None:
            raise InvalidArgument("no [[retention]] rule of this store has an archive_storage_class")
        return await self._work.archiving.preview()

    async def orphans(self, params: dict[str, Any]) -> dict[str, Any]:
        """What this daemon's last run in `mode` has found and done; raises NotFound if there was none."""
        try:
            mode = Mode(params.get("mode") or Mode.REPORT)
        except ValueError as error:
            raise InvalidArgument(f"{params['mode']!r} is none of {', '.join(Mode)}") from error
        found = self._work.orphans.last(mode)
        if found is None:
            raise NotFound(
                f"no run of {name_of(mode)} since the daemon began; `recfs sweep run {name_of(mode)}` has one"
            )
        return found

    async def multiparts(self, params: dict[str, Any]) -> dict[str, Any]:
        """What a run would abort now. Changes nothing."""
        if self._work.multiparts is None:
            raise InvalidArgument("this store has no [s3]: there are no uploads")
        return {"uploads": await self._work.multiparts.preview()}
