"""Waiting for what the publisher does in the home tree just now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.state.waits import bounded

if TYPE_CHECKING:
    from recfs.disk.home.path_resolver import PathResolver
    from recfs.ports.work import Publisher
    from recfs.state.nodes import FileNode, Node


class PublisherWaits:
    """The batch that is under way."""

    def __init__(self, places: PathResolver, publisher: Publisher) -> None:
        self._places = places
        self._publisher = publisher

    @property
    def any(self) -> bool:
        """Whether there is one that moves anything."""
        return self._publisher.is_moving

    async def ended(self, node: Node) -> None:
        """Wait while the publisher moves the node or a directory that it lies in; its path then holds until the next
        await.
        """
        while self._publisher.touches(self._places.way(node)):
            await self._publisher.batch_done()

    async def ended_soon(self, node: Node) -> None:
        """`ended`, for a request: raises Interrupted or TryAgain."""
        if not self._publisher.is_moving or not self._publisher.touches(self._places.way(node)):
            return
        with bounded(f"the move of {node.path} or a directory above it"):
            await self.ended(node)

    def work_on(self, node: FileNode) -> bool:
        """Whether the publisher does anything with the file just now. Atomic."""
        return node.ino in self._publisher.worked_on

    async def left_alone(self, node: FileNode) -> None:
        """Wait for what the publisher does with the file just now, if anything. Raises Interrupted or TryAgain."""
        if node.ino in self._publisher.worked_on:
            with bounded(f"the home tree, where {node.path} is changed"):
                await self._publisher.batch_done()


__all__ = ["PublisherWaits"]
