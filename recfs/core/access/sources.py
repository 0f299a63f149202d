"""Which kinds of files a recording's source may be, where the operator limits that."""

import os
import re
from collections.abc import Iterable

from recfs.core.layout import Role
from recfs.core.naming import is_temporary_name
from recfs.errors import InvalidPath

SOURCE = b"source."
"""With this the name of a source begins."""
_match_extension = re.compile(r"\.[A-Za-z0-9]{1,16}").fullmatch
MOST = 200
"""So many extensions can be allowed."""


def extensions(told: Iterable[str]) -> tuple[str, ...]:
    """Give extensions as they are compared: in small letters, each once. Raises ValueError that says what to write."""
    found: dict[str, None] = {}
    for each in told:
        if not _match_extension(each):
            raise ValueError(f'{each[:40]!a}: an extension is a dot and letters or digits, such as ".mp4"')
        found[each.lower()] = None
    if len(found) > MOST:
        raise ValueError(f"{len(found)} extensions; at most {MOST} are taken")
    return tuple(found)


def check_source(parent: Role, name: bytes, allowed: tuple[str, ...]) -> None:
    """Raise InvalidPath for a file `source.*` directly in a recording whose extension is not *allowed*; () allows all.

    The last extension counts, in any case: what it was before is nobody's concern. A temporary name (`source.mp4.part`)
    passes, for the name that it is renamed to is looked at then.
    """
    if not allowed or parent is not Role.RECORDING or not name.startswith(SOURCE) or is_temporary_name(name):
        return
    extension = name[name.rindex(b".") :].lower()
    if os.fsdecode(extension) not in allowed:
        raise InvalidPath(
            f"{os.fsdecode(name)!r}: sources of this kind are refused; [recordings] allowed_extensions has"
            f" {', '.join(allowed)}"
        )


__all__ = ["MOST", "SOURCE", "check_source", "extensions"]
