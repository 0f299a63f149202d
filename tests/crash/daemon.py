"""`python -m tests.crash.daemon ... recfs mount ...`: a daemon on a disk that fails now and then, slow at its awaits.

The environment says how: that of `tests.fuzz.daemon`, and RECFS_CRASH_FAULTS, a file. While it is there, one in so many
steps in the home tree, passes over bytes and syncs of the catalogue's log ends with EIO.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ONE_IN = 40


class BadDisk:
    """Says which call fails."""

    def __init__(self, seed: int, while_there: Path) -> None:
        self._random = random.Random(seed)
        self._while_there = while_there

    def check(self, error: Callable[[], Exception] = lambda: OSError(errno.EIO, os.strerror(errno.EIO))) -> None:
        """Raise *error*, now and then."""
        if not self._random.randrange(ONE_IN) and self._while_there.exists():
            raise error()

    def before(self, owner: Any, name: str) -> None:
        """Have a function of a module or class fail before it does anything."""
        function = getattr(owner, name)

        def failing(*args: Any, **kwargs: Any) -> Any:
            self.check()
            return function(*args, **kwargs)

        setattr(owner, name, failing)


def install() -> None:
    """Change the modules before those that use them are imported."""
    from recfs.catalogue.sqlite import SqliteCatalogue
    from recfs.disk.commit import digests
    from recfs.errors import IoFailure
    from recfs.stores.steps import Steps

    disk = BadDisk(int(os.environ["RECFS_FUZZ_SEED"]), Path(os.environ["RECFS_CRASH_FAULTS"]))
    disk.before(Steps, "_one")
    disk.before(digests, "_open")
    sync = SqliteCatalogue.sync

    async def failing_sync(self: SqliteCatalogue) -> None:
        disk.check(lambda: IoFailure("the log of the catalogue cannot be synced: the tester's doing"))
        await sync(self)

    SqliteCatalogue.sync = failing_sync  # type: ignore[method-assign]


if __name__ == "__main__":
    from tests.fuzz import daemon

    install()
    daemon.install()
    sys.argv = ["recfs", *sys.argv[sys.argv.index("recfs") + 1 :]]
    from recfs.cli.main import main

    main()
