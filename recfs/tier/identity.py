"""Whether what S3 holds under a key is a file's object still, whatever etag it has by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from recfs.state.nodes import FileNode
    from recfs.tier.copies import Copies
    from recfs.tier.link import Link


async def has_object(link: Link, copies: Copies, node: FileNode) -> bool | None:
    """Ask S3 whether it has the object that a file's row tells of; None: there is no row, or another one meanwhile.

    Where the object has another etag, which recfs gave it by a request whose answer was lost, that is taken down: the
    checksum that recfs put there tells. Raises ObjectStoreError.
    """
    in_s3 = node.object
    if in_s3 is None:
        return None
    info = await trio.to_thread.run_sync(link.objects.head, in_s3.key, limiter=link.limiter, abandon_on_cancel=True)
    if node.object is not in_s3:
        return None
    if info is None:
        return False
    is_same = (info.sha256, info.size_bytes) == (in_s3.sha256, in_s3.size_bytes)
    if is_same and info.etag != in_s3.etag:
        copies.remember(node, in_s3._replace(etag=info.etag))
    return is_same or info.etag == in_s3.etag


__all__ = ["has_object"]
