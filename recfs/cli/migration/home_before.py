"""What an earlier run has put into the home tree (--home) is in the mount only when the daemon has taken it over.

Until then it looks as if it were gone: whoever verified or took back would judge by that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from recfs.core.migration.steps import Brought
from recfs.errors import FsError, InvalidArgument, TryAgain

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.cli.common.store import Store
    from recfs.migration.run.destination import Destination
    from recfs.migration.run.state import State

_HOME: Final = "home"
_POLL_S: Final = 0.2
_PATIENCE_S: Final = 600.0


def note(state: State) -> None:
    """Keep that something may come into the home tree from now on."""
    if not state.fact(_HOME):
        state.put_fact(_HOME, "1")


def wait_until_taken_over(state: State, store: Store, mount: Destination, tell: Callable[[str], None]) -> None:
    """Wait until the daemon has looked at all that runs with --home have brought, and has taken it over.

    What is not there after two looks at everything, between which nothing was taken over, is gone. Raises
    InvalidArgument where the daemon does not watch the home tree, TryAgain after ten minutes without progress,
    MountError, ControlError.
    """
    if not state.fact(_HOME):
        return
    before: tuple[int, int | None] = (-1, None)
    since = time.monotonic()
    while missing := _missing(state, mount):
        # Directories are taken over level by level, and between two levels nothing waits: they are progress, too.
        found = store.call("watch_scan")
        known = (missing, found.get("adopted"))
        if known != before:
            since = time.monotonic()
        if not found["enabled"]:
            raise InvalidArgument(
                f"{missing:,} files that were put into the home tree (--home) are not in the store yet, and its daemon"
                " does not watch it ([watch] enabled): `recfs sweep orphans --adopt` takes them over"
            )
        adopted = _wait_for_scan(
            store, lambda: tell(f"waiting until the store has taken over {missing:,} files"), since
        )
        if known == before == (_missing(state, mount), adopted):
            break
        before = known
    state.put_fact(_HOME, "")


def _wait_for_scan(store: Store, tell: Callable[[], None], since: float) -> int:
    """A look at everything that begins now has ended, and nothing of it waits; gives how much is taken over so far."""
    found = store.call("watch_status")
    wanted = found["scans"] + 1 + bool(found["scanning"])
    while found["scans"] < wanted or found["waiting"]:
        if time.monotonic() - since > _PATIENCE_S:
            raise TryAgain(
                "the daemon is still taking over what lies in the home tree: `recfs watch status` tells how far"
            )
        tell()
        time.sleep(_POLL_S)
        if found["scans"] < wanted and not found["scanning"]:
            store.call("watch_scan")  # the one that was asked for may have been the one under way
        found = store.call("watch_status")
    adopted: int = found["adopted"]
    return adopted


def _missing(state: State, mount: Destination) -> int:
    """How many files that runs have brought the mount does not show."""
    count = 0
    with mount.open() as tree:
        for row in state.rows():
            if row.is_done and row.brought in (Brought.NEW, Brought.MOVED):
                try:
                    count += tree.look(row.target) is None
                except (OSError, FsError):
                    count += 1
    return count


__all__ = ["note", "wait_until_taken_over"]
