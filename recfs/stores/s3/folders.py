"""Directories that a server keeps of keys whose objects are gone, and that stand in the way of an object of their name.

S3 has none. SeaweedFS 4 leaves them behind, lists them as common prefixes with nothing below, removes one by a DELETE
of its name with a slash, and completes no multipart upload in the place of one, for ever (InternalError).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LIMIT = 1000
"""How many are looked at: what holds more is left to whoever waits for it."""


def remove_empty(ask: Callable[..., dict[str, Any]], name: str) -> bool:
    """Remove the directory *name* (a key without the slash) with all below it; whether there was one.

    Only if there is nothing but directories: one object keeps everything. *ask* takes an operation and its parameters.
    """
    if f"{name}/" not in _listed(ask, name)[1]:
        return False
    found = [f"{name}/"]
    for folder in found:  # it grows
        objects, folders = _listed(ask, folder)
        found += folders
        if objects or len(found) > LIMIT:
            return False
    for folder in reversed(found):
        ask("delete_object", Key=folder)
    return True


def _listed(ask: Callable[..., dict[str, Any]], prefix: str) -> tuple[list[str], list[str]]:
    """(keys, directories) directly below *prefix*, as far as one answer tells."""
    page = ask("list_objects_v2", Prefix=prefix, Delimiter="/")
    return [each["Key"] for each in page.get("Contents", ())], [
        each["Prefix"] for each in page.get("CommonPrefixes", ())
    ]
