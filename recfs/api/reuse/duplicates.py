"""What the daemon answers of files that there are several times: `recfs duplicates`."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from recfs.api.paths import text
from recfs.core.layout import is_id
from recfs.errors import InvalidArgument, NotFound
from recfs.ports.duplicates import Which

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from recfs.api.control import Handler
    from recfs.api.work import ReuseWork
    from recfs.ports.duplicates import Twin
    from recfs.ports.reports import Snapshot

SETS, SETS_MAX = 20, 1000
NAMED, NAMED_MAX = 5, 100
FILES_MAX: Final = 1000
"""How many files of one set an answer names."""
SECONDS_MAX: Final = 60.0
DIGITS: Final = 64
LEAST_DIGITS: Final = 4
"""Of a checksum that is named by its beginning."""
_PREFIX: Final = re.compile(f"[0-9a-f]{{{LEAST_DIGITS},{DIGITS}}}")


class DuplicateAnswers:
    """duplicates and dedupe."""

    def __init__(self, work: ReuseWork, read: Callable[..., Awaitable[Any]]) -> None:
        """*read*: has a question answered from what is written of the store."""
        self._work = work
        self._read = read

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {"duplicates": self.duplicates, "dedupe": self.dedupe}

    async def duplicates(self, params: dict[str, Any]) -> dict[str, Any]:
        """Sets of files with the same bytes, or with `sha256` the files of one of them."""
        answer: dict[str, Any] = await self._read(duplicates, params)
        return answer

    async def dedupe(self, params: dict[str, Any]) -> dict[str, Any]:
        """Have files with the same bytes share their blocks, for `seconds` from `after` on."""
        which = await self._read(_which, params)
        seconds = min(max(float(params.get("seconds") or 10.0), 0.0), SECONDS_MAX)
        after = params.get("after")
        return await self._work.dedupe.run(which, str(after) if after is not None else None, seconds)


def duplicates(snapshot: Snapshot, params: dict[str, Any]) -> dict[str, Any]:
    """Sets of files with the same bytes, the worst first, or the files of one set. Raises InvalidArgument, NotFound."""
    which = _which(snapshot, params)
    after = params.get("after")
    if params.get("sha256") is not None:
        return _one(snapshot, which, str(params["sha256"]), after)
    limit, named = _number(params, "limit", SETS, SETS_MAX), _number(params, "named", NAMED, NAMED_MAX)
    found = snapshot.twin_sets(which, _cursor(after), limit, named)
    paths = snapshot.paths(twin.ino for each in found.worst for twin in each.some)
    last = found.worst[-1] if len(found.worst) == limit else None
    return {
        "sets": found.sets,
        "files": found.files,
        "wasted_bytes": found.wasted_bytes,
        "worst": [
            {
                "sha256": each.sha256.hex(),
                "files": each.files,
                "size_bytes": each.size_bytes,
                "wasted_bytes": (each.files - 1) * each.size_bytes,
                "where": _named(each.some, paths),
            }
            for each in found.worst
        ],
        "next": f"{last.waste!r}:{last.sha256.hex()}" if last is not None else None,
    }


def _one(snapshot: Snapshot, which: Which, digest: str, after: object) -> dict[str, Any]:
    try:
        beyond = int(str(after)) if after is not None else 0
    except ValueError:
        raise InvalidArgument(f"{str(after)[:80]!r} is not where a page ended") from None
    sha256 = _digest(snapshot, which, digest.lower())
    found = snapshot.twins(which, sha256, beyond, FILES_MAX)
    last = found[-1].ino if len(found) == FILES_MAX else None
    where = _named(found, snapshot.paths(each.ino for each in found))
    return {"sha256": sha256.hex(), "where": where, "next": str(last) if last is not None else None}


def _digest(snapshot: Snapshot, which: Which, begin: str) -> bytes:
    """The checksum that begins like that. Raises InvalidArgument, also for several; NotFound where there is none."""
    if not _PREFIX.fullmatch(begin):
        raise InvalidArgument(f"{begin[:80]!r} is no sha256, nor the beginning of one: {LEAST_DIGITS} to 64 hex digits")
    if len(begin) == DIGITS:
        return bytes.fromhex(begin)
    found = snapshot.digests(which, bytes.fromhex(begin.ljust(DIGITS, "0")), bytes.fromhex(begin.ljust(DIGITS, "f")))
    if not found:
        raise NotFound(f"sha256 {begin}: no committed file that is meant has a checksum that begins so")
    if len(found) > 1:
        told = " and ".join(each.hex() for each in found)
        raise InvalidArgument(f"sha256 {begin}: several checksums begin so, such as {told}")
    return found[0]


def _named(twins: Sequence[Twin], paths: dict[int, Sequence[bytes]]) -> list[dict[str, Any]]:
    return [{"path": "/".join(map(text, paths[each.ino])), "state": each.state} for each in twins if each.ino in paths]


def _which(snapshot: Snapshot, params: dict[str, Any]) -> Which:
    least = _number(params, "min_bytes", 1, 1 << 62)
    user = params.get("user")
    if user is None:
        return Which(None, least)
    if not is_id(os.fsencode(str(user))):
        raise InvalidArgument(f"user {user!r}: an id is an integer or a UUID")
    paths = [(top, os.fsencode(str(user))) for top in (b"users", b"temp")]
    tops = [found.row.ino for path in paths if (found := snapshot.entry(path)) is not None]
    if not tops:
        raise NotFound(f"user {user}: there are no files of such a user")
    return Which(tops, least)


def _number(params: dict[str, Any], name: str, usual: int, most: int) -> int:
    value = params.get(name)
    if value is None:
        return usual
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise InvalidArgument(f"{name}: {value!r} is not a number from 0 to {most}")
    return max(value, 1) if name != "named" else value


def _cursor(after: object) -> tuple[int | float, bytes] | None:
    if after is None:
        return None
    waste, _, digest = str(after).partition(":")
    try:
        number = float(waste) if set(waste) - set("0123456789") else int(waste)
        cursor = number, bytes.fromhex(digest)
    except ValueError:
        raise InvalidArgument(f"{str(after)[:80]!r} is not where a page ended") from None
    if number > (1 << 63) - 1 and isinstance(number, int):
        raise InvalidArgument(f"{str(after)[:80]!r} is not where a page ended")
    return cursor


__all__ = ["DuplicateAnswers", "duplicates"]
