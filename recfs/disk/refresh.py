"""What the kernel did to a file by itself, taken over into the metadata.

While a file is open for writing by passthrough the daemon sees no WRITE. Its size and times are those of the file
below. Whoever is about to use `node.bytes`, or to answer with it, asks here first; the meter does so all the time.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from recfs.core.bounds import time_ns

if TYPE_CHECKING:
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree


def refresh(tree: Tree, node: FileNode) -> bool:
    """Bring size, times, charges and job activity of *node* up to date; tells whether anything had changed. Atomic."""
    body = node.body
    if body is None or not body.unchecked_writers:
        return False
    info = os.fstat(body.fd)
    seen = (info.st_size, info.st_mtime_ns)
    if seen == body.seen:
        return False
    # The kernel drops what it remembers of a file when it writes to it, but not when a mapping of it is written to.
    # Nor does it when the writer is one of an earlier mount.
    body.invalidation_pending = body.invalidation_pending or seen[0] == body.seen[0] or body.foreign
    body.seen = seen
    tree.resize(node, max(info.st_size, body.charged_size))
    node.mtime_ns = node.ctime_ns = time_ns(info.st_mtime_ns)
    if drop_privileges(node):
        body.invalidation_pending = True
    tree.behind.node(node)
    if not node.unlinked:
        tree.activity(node.parent)
    return True


def remember_below(node: FileNode) -> None:
    """Remember the file below as it is now: what changed it was the daemon itself. Atomic."""
    body = node.body
    if body is not None and body.unchecked_writers:
        info = os.fstat(body.fd)
        body.seen = (info.st_size, info.st_mtime_ns)
        body.checked_bytes = min(body.checked_bytes, node.bytes)


def drop_privileges(node: FileNode) -> bool:
    """Clear set-user-ID, and set-group-ID of what the group may execute: the bytes or the owner are others now.

    The kernel leaves that to the file system (FUSE_HANDLE_KILLPRIV_V2). It would spare a privileged caller's bits, but
    does not say who calls. Tells whether there was something to clear. Atomic.
    """
    if not node.mode & (stat.S_ISUID | stat.S_ISGID):
        return False
    kept = node.mode & ~stat.S_ISUID
    if kept & stat.S_IXGRP:
        kept &= ~stat.S_ISGID
    changed = kept != node.mode
    node.mode = kept
    return changed
