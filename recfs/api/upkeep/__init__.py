"""What the daemon answers of the upkeep of files: the control protocol's methods behind `recfs sweep` and so on.

backups     copies of the catalogue
importing   objects of the bucket that become files
leftovers   what sweeps would clear away
recordings  how long they live, and those that have expired
sweeps      what is looked at now and then, and temp jobs that have expired
trash       what was deleted or overwritten
verify      whether bytes are what they were when they were committed
watch       what is done to the home tree past recfs
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.api.upkeep.backups import BackupAnswers
from recfs.api.upkeep.importing import ImportAnswers
from recfs.api.upkeep.leftovers import LeftoverAnswers
from recfs.api.upkeep.recordings import RecordingAnswers
from recfs.api.upkeep.sweeps import SweepAnswers
from recfs.api.upkeep.trash import TrashAnswers
from recfs.api.upkeep.verify import VerifyAnswers
from recfs.api.upkeep.watch import WatchAnswers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from recfs.api.control import Handler
    from recfs.api.work import UpkeepWork
    from recfs.fs.vfs import Vfs
    from recfs.ports.reports import Reports
    from recfs.services.sweeps import Sweeps


def handlers(
    work: UpkeepWork, vfs: Vfs, reports: Reports, sweeps: Sweeps | None, read: Callable[..., Awaitable[dict[str, Any]]]
) -> dict[str, Handler]:
    """Methods by name; *sweeps* None: no daemon runs; *read*: asks what is written of the store."""
    return {
        **RecordingAnswers(vfs, reports, work.expiry).handlers(),
        **SweepAnswers(work.sweeper, sweeps, read).handlers(),
        **LeftoverAnswers(work).handlers(),
        **TrashAnswers(work.trash).handlers(),
        **BackupAnswers(work.backups, work.backups.clock).handlers(),
        **VerifyAnswers(vfs, work.verifications, work.scrub).handlers(),
        **ImportAnswers(work.importing).handlers(),
        **WatchAnswers(work.watcher).handlers(),
    }


__all__ = ["handlers"]
