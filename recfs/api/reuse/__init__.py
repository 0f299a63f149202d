"""What the daemon answers of work that need not be done twice: the control protocol's methods behind `recfs cache` etc.

cache       results of processing
duplicates  files with the same bytes
versions    numbered versions of files: the next one, all there are, and those that may go
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.api.reuse.cache import CacheAnswers
from recfs.api.reuse.duplicates import DuplicateAnswers
from recfs.api.reuse.versions import VersionAnswers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from recfs.api.control import Handler
    from recfs.api.work import ReuseWork
    from recfs.fs.vfs import Vfs
    from recfs.services.clearing.versions import VersionSweep


def handlers(work: ReuseWork, sweep: VersionSweep, vfs: Vfs, read: Callable[..., Awaitable[Any]]) -> dict[str, Handler]:
    """Methods by name; *read*: asks what is written of the store."""
    return {
        **VersionAnswers(work, sweep, vfs).handlers(),
        **CacheAnswers(work).handlers(),
        **DuplicateAnswers(work, read).handlers(),
    }


__all__ = ["handlers"]
