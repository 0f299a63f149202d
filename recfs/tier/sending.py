"""Which files are journalled for upload: at their commit, and when they come to where the rules want them in S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.core.model import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.core.routing import Decision
    from recfs.state.nodes import FileNode
    from recfs.tier.copies import Copies


def send(copies: Copies, node: FileNode) -> None:
    """Journal the upload of a committed file. Atomic."""
    journal, settings = copies.journal, copies.settings
    unsent, budget = journal.unsent, settings.max_bytes
    was_full = unsent.total_bytes > budget
    journal.upload(node, 0.0 if was_full else settings.settle_s)
    if unsent.total_bytes > budget and not was_full:
        journal.is_short = True  # what is settling has to make room
    copies.request_eviction()  # copies of other files have to make room


def arrived(copies: Copies, decide: Callable[[FileNode], Decision], node: FileNode) -> None:
    """The file has another name: where the rules want it in S3 now, and nothing of it is there, it is sent. Atomic.

    So it is with what was committed in `temp/`, and then moved to its recording.
    """
    is_here = node.state is State.COMMITTED and node.object is None and not node.unlinked
    if is_here and copies.journal.upload_of(node.ino) is None and decide(node).store == "s3":
        send(copies, node)


__all__ = ["arrived", "send"]
