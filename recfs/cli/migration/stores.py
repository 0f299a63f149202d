"""Which mount a transfer goes through, and how its daemon is asked."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recfs.cli.common.where import mount_on, root_behind
from recfs.errors import DaemonNotRunning, MountError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recfs.cli.common.store import Store
    from recfs.migration.transfer.items import Ask, Source


@dataclass(frozen=True, slots=True)
class Side:
    """A store that something is read from, or put into."""

    store: Store
    mount: Path | None
    """Where it is mounted; None: no daemon runs."""

    @property
    def ask(self) -> Ask:
        """Ask its daemon, or its catalogue where none runs."""
        return self.store.call

    def need_mount(self) -> Path:
        """Its mount. Raises DaemonNotRunning."""
        if self.mount is None:
            raise DaemonNotRunning(f"no daemon runs on {self.store.root}; this takes one; `recfs mount` starts it")
        return self.mount


def side_of(store: Store) -> Side:
    """Look whether a store is mounted. Raises RecfsError: MountError where its mount is not to be seen from here."""
    try:
        where = store.client().call("status")["mountpoint"]
    except DaemonNotRunning:
        store.call("quota_show", user=None)  # NotAStore, where there is none
        return Side(store, None)
    found = mount_on(Path(where)) if where is not None else None
    root = root_behind(found) if found is not None else None
    if root is None or os.path.realpath(root) != os.path.realpath(store.root):
        raise MountError(f"{where}, where the daemon of {store.root} is mounted, is not to be seen from here")
    return Side(store, Path(where))


@contextmanager
def opened_mount(mount: Path) -> Iterator[int]:
    """A descriptor of a mount's top. Raises MountError."""
    try:
        top = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise MountError(f"{mount} cannot be opened: {error.strerror}") from error
    try:
        yield top
    finally:
        os.close(top)


def source_of(side: Side, top: int, parts: tuple[bytes, ...], version: str, now_ns: int) -> Source:
    """A user or recording as it is read. *top*: a descriptor of the mount, or of the root where no daemon runs."""
    from recfs.migration.transfer.store import HomeSource, MountSource, described

    manifest = described(side.ask, parts, version, now_ns)
    return HomeSource(top, parts, manifest, side.ask) if side.mount is None else MountSource(top, parts, manifest)


__all__ = ["Side", "opened_mount", "side_of", "source_of"]
