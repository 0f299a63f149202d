"""Bytes that are in S3, as the file system asks for them. `recfs.tier` has them; without [s3] nobody does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

from recfs.errors import IoFailure
from recfs.state.events import Subscriber

if TYPE_CHECKING:
    from recfs.ports.objects import RestoreState
    from recfs.state.backing_file import Fetch
    from recfs.state.nodes import DirNode, FileNode
    from recfs.state.writebehind import WriteBehind


class Upload(NamedTuple):
    """An upload that is still to be done."""

    attempts: int
    """How often it failed."""
    error: str
    """What the last attempt met, or what it waits for; empty: neither."""


class Budget(Protocol):
    """What may wait for its upload at a time. All but `progress` is atomic."""

    @property
    def is_full(self) -> bool:
        """Whether anybody is held back."""

    def holds_back(self, node: FileNode) -> bool:
        """Whether the next write to *node* is to wait for uploads."""

    def refuse(self, folder: DirNode, name: bytes) -> None:
        """Raise OutOfSpace for a new file of this name if it goes to S3 and uploads get nowhere."""

    def refuse_if_stuck(self) -> None:
        """Raise OutOfSpace if uploads get nowhere."""

    async def progress(self) -> None:
        """Return when some work on S3 has ended."""


class RemoteBytes(Protocol):
    """Brings bytes from S3."""

    @property
    def budget(self) -> Budget:
        """What may wait for its upload."""

    @property
    def fetch_whole_below(self) -> int:
        """Size up to which a file is fetched whole when it is opened."""

    async def bring(self, node: FileNode) -> None:
        """Have the whole file here, verified. Raises an FsError or ObjectStoreError."""

    async def begin(self, node: FileNode) -> tuple[int, Fetch] | None:
        """A descriptor to be taken over, and what brings the bytes behind it; None if they are all here by now.

        Raises an FsError or ObjectStoreError.
        """

    def begin_again(self, node: FileNode) -> tuple[int, Fetch]:
        """The same for a file that an earlier daemon had open, before anything is served: bytes come from then on.

        Atomic. Raises IoFailure or OSError.
        """

    def lost(self, node: FileNode) -> bool:
        """The local copy was removed out of band: tells whether the bytes can be had again, and sees to it. Atomic."""

    async def restore_state(self, node: FileNode) -> RestoreState | None:
        """How its object stands, where that can be in an archive class. Raises ObjectStoreError."""

    def upload_of(self, node: FileNode) -> Upload | None:
        """Its upload, if it is in the queue. Atomic."""


class NoBudget:
    """Nothing is ever uploaded."""

    is_full = False

    def holds_back(self, node: FileNode) -> bool:
        """Never."""
        return False

    def refuse(self, folder: DirNode, name: bytes) -> None:
        """Never."""

    def refuse_if_stuck(self) -> None:
        """Never."""

    async def progress(self) -> None:
        """There is nothing to wait for."""


class LocalOnly(Subscriber):
    """A store without [s3]. It may have had one, and have files whose bytes are there."""

    fetch_whole_below = 0

    def __init__(self, behind: WriteBehind) -> None:
        self._behind = behind
        self.budget = NoBudget()

    async def bring(self, node: FileNode) -> None:
        """Refuse it: raises IoFailure."""
        self._refuse(node)

    async def begin(self, node: FileNode) -> tuple[int, Fetch] | None:
        """Refuse it: raises IoFailure."""
        self._refuse(node)

    def begin_again(self, node: FileNode) -> tuple[int, Fetch]:
        """Refuse it: raises IoFailure."""
        self._refuse(node)

    def lost(self, node: FileNode) -> bool:
        """It is lost."""
        return False

    async def restore_state(self, node: FileNode) -> RestoreState | None:
        """Nobody knows."""
        return None

    def upload_of(self, node: FileNode) -> Upload | None:
        """There is no queue."""
        return None

    def _refuse(self, node: FileNode) -> NoReturn:
        raise IoFailure(f"{node.path}: its bytes are in S3, and the configuration has no [s3]")

    def modified(self, node: FileNode) -> None:
        """S3 has another version of it than is here; that is known when there is [s3] again."""
        if node.object is not None and node.object.copy.local:
            node.object = node.object.here(local=0)
            self._behind.object(node.object)


__all__ = ["Budget", "LocalOnly", "RemoteBytes", "Upload"]
