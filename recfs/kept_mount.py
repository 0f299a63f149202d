"""A mount that outlives its daemon: what the service manager keeps of it, and what the next daemon finds there.

Kept are the kernel's descriptor, the ledger of open files (a memfd), and files that have lost their name.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recfs import keeping, notifying
from recfs.errors import RecfsError, StoreError
from recfs.fs.handover.inheritance import Inheritance
from recfs.fs.handover.kept_files import KeptNameless, nameless_by_ino
from recfs.fuse.kept.backings import close_backings
from recfs.fuse.mounting import OwnMount, abort, end_stuck
from recfs.state.ledger import Ledger
from recfs.succession import Legacy

if TYPE_CHECKING:
    from recfs.fuse.passthrough import FuseSession
    from recfs.parts import Parts

log = logging.getLogger("recfs.daemon")


class KeptMount:
    """Has the mount of this process kept, where the service manager offers that."""

    def __init__(self, parts: Parts, session: FuseSession, mount: OwnMount, legacy: Legacy | None) -> None:
        """*legacy*: what an earlier daemon left; its mount is kept if it was."""
        self._parts = parts
        self._session = session
        self._mount = mount
        self.is_kept = legacy.ledger is not None if legacy is not None else keeping.is_offered()
        """Whether the service manager has the mount, or is about to."""
        if self.is_kept:
            parts.tree.ledger = legacy.ledger if legacy is not None else Ledger.fresh()
        self.nameless = KeptNameless(keeping.store, keeping.remove)

    def keep(self) -> None:
        """Have the service manager keep the mount, should this process die."""
        ledger, obstacle = self._parts.tree.ledger, self._session.why_not_left()
        if ledger is None:
            return
        if obstacle is not None:
            log.warning("the mount will not outlive this process: %s", obstacle)
            self.is_kept = False
            return
        self.is_kept = False
        with self._parts.problems.aside("keeping", None):
            told = Legacy(self._session.told(), Inheritance(), dict(self._mount.told())).session_as_json()
            ledger.set_session(json.dumps(told).encode("ascii"))
            keeping.store(ledger.fd, keeping.LEDGER)
            keeping.store(self._session.told().device, keeping.DEVICE)
            self.is_kept = True

    def leave(self, unsent: list[Any]) -> None:
        """This daemon ends in order, and the next one has the mount. *unsent*: what the kernel is to be told then."""
        note = os.memfd_create("recfs-left", os.MFD_CLOEXEC)
        with open(note, "wb", buffering=0) as file:
            file.write(json.dumps({"unsent": unsent}).encode("ascii"))
            with self._parts.problems.aside("keeping", None):  # else it is taken for one that died
                keeping.store(note, keeping.LEFT)
                if not notifying.has_heard():
                    log.warning("the service manager has not said that it has the note of what was left to be told")

    def taken_over(self) -> None:
        """The mount is this daemon's: should it die, nobody takes it for one that had left."""
        keeping.remove(keeping.LEFT)

    def let_go(self) -> None:
        """The mount ends with this process."""
        if self._parts.tree.ledger is not None:
            self.nameless.forget_all()
            _remove()


def left_by_the_dead(root: Path, mountpoint: Path) -> Legacy | None:
    """The mount of a daemon that died, if the service manager has kept it for this one."""
    kept = keeping.received()
    device, ledger_fd = kept.get(keeping.DEVICE, -1), kept.get(keeping.LEDGER, -1)
    if device < 0 or ledger_fd < 0:
        return None
    end_stuck(Path(os.path.realpath(root)))
    try:
        if not keeping.is_connected(device):
            raise StoreError("its mount is gone")
        legacy = Legacy.of_the_dead(device, ledger_fd)
        legacy.nameless = nameless_by_ino(kept)
        if not legacy.mount or not OwnMount.identified(legacy.mount).is_there():
            raise StoreError("its mount is not to be seen from here")
        assert legacy.ledger is not None
        close_backings(device, legacy.ledger.leaked())
    except RecfsError as error:
        log.error("the daemon before this one is gone, and its mount cannot go on: %s", error)
        give_up(mountpoint)
        for name, fd in kept.items():
            keeping.remove(name)
            os.close(fd)
        return None
    _read_note(legacy, kept.get(keeping.LEFT, -1))
    if legacy.left_in_order:
        log.info("the mount of the daemon before this one goes on")
    else:
        log.warning("the daemon before this one died; its mount goes on")
    return legacy


def _read_note(legacy: Legacy, note: int) -> None:
    """Whether the daemon ended in order, and what it had still to tell the kernel. Raises nothing."""
    if note < 0:
        return
    with open(note, "rb") as file:
        file.seek(0)
        try:
            legacy.files.unsent = list(json.load(file)["unsent"])
            legacy.left_in_order = True
        except (OSError, KeyError, TypeError, ValueError) as error:
            log.debug("what the daemon before this one left is not understood: %s", error)


def give_up(mountpoint: Path) -> None:
    """Nobody goes on with the mount that was kept: what waits for an answer fails."""
    _remove()
    abort(mountpoint)


def _remove() -> None:
    for name in (keeping.DEVICE, keeping.LEDGER, keeping.LEFT):
        keeping.remove(name)


__all__ = ["KeptMount", "give_up", "left_by_the_dead"]
