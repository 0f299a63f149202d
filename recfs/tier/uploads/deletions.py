"""Objects that are to go, many in one request, each with an outcome of its own.

What S3 refuses of some keys, the store tells by key. An exception of any other class, which a single key may cause in a
library, would keep all the others of its request: they are asked for apart from it. Called in a worker thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from recfs.ports.object_errors import KeyTooLong, ObjectStoreError, TransferCancelled

if TYPE_CHECKING:
    from recfs.ports.objects import Cancel, ObjectStore


def delete_each(objects: ObjectStore, keys: Sequence[str], cancel: Cancel) -> dict[str, Exception]:
    """Delete the objects; what kept some of them, by key. A key that cannot be named has no object.

    Raises ObjectStoreError where S3 refuses them all, TransferCancelled when *cancel* says so between two requests.
    """
    try:
        failed = objects.delete(keys)
    except ObjectStoreError:
        raise
    except Exception as error:
        if len(keys) == 1:
            return {keys[0]: error}
        if cancel():
            raise TransferCancelled("the daemon stops") from error
        half = len(keys) // 2
        return delete_each(objects, keys[:half], cancel) | delete_each(objects, keys[half:], cancel)
    # Such a row comes from a file that could not be uploaded either.
    return {key: error for key, error in failed if not isinstance(error, KeyTooLong)}


__all__ = ["delete_each"]
