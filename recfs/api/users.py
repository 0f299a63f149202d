"""What is answered of users who are told apart by uid: `recfs user`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from recfs.core.access.owners import Owner
from recfs.core.model import Kind
from recfs.errors import InvalidArgument
from recfs.services.access.users import TOPS, Fate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from recfs.api.control import Handler
    from recfs.ports.reports import Snapshot
    from recfs.ports.rows import NodeRow
    from recfs.services.access.users import Users


class UserAnswers:
    """user_list, user_add, user_remove."""

    def __init__(self, users: Users, read: Callable[..., Awaitable[Any]]) -> None:
        """*read*: asks what is written of the store."""
        self._users = users
        self._read = read

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {"user_list": self.list, "user_add": self.add, "user_remove": self.remove}

    async def list(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Users and their uids; `everyone`: also those who have none."""
        found: list[dict[str, Any]] = await self._read(user_list, bool(params.get("everyone")))
        return found

    async def add(self, params: dict[str, Any]) -> dict[str, Any]:
        """Give a `user` a `uid`, `gid` and `mode`, and directories."""
        uid, gid, mode = (_number(params, name) for name in ("uid", "gid", "mode"))
        user = str(params.get("user", ""))
        added = await self._users.add(user, uid, gid, mode)
        told: dict[str, Any]
        (told,) = [each for each in await self._read(user_list, False) if each["user"] == user]
        return told | {"notes": added.notes}

    async def remove(self, params: dict[str, Any]) -> dict[str, Any]:
        """Take a `user`'s uid away; `files`: what becomes of theirs."""
        word = str(params.get("files") or Fate.REFUSE.value)
        try:
            fate = Fate(word)
        except ValueError:
            raise InvalidArgument(f"files {word[:40]!r}: one of {', '.join(each.value for each in Fate)}") from None
        removed: dict[str, Any] = await self._users.remove(str(params.get("user", "")), fate)
        return removed


def _number(params: dict[str, Any], name: str) -> int | None:
    value = params.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise InvalidArgument(f"{name}: {str(value)[:40]!r} is no whole number")
    return value


def user_list(snapshot: Snapshot, everyone: bool) -> list[dict[str, Any]]:
    """Users with a uid, and how their directories are; *everyone*: also those who have a directory and no uid."""
    tops = {top: _directories(snapshot, top) for top in TOPS}
    told, rows = [], {row.user: row for row in snapshot.accounts()}
    ids = set(rows) | {os.fsdecode(name) for top in TOPS for name in tops[top]} if everyone else rows
    for user in sorted(ids, key=lambda each: (len(each), each)):
        row = rows.get(user)
        owner = row.owner if row is not None else None
        if owner is None and not (everyone and any(os.fsencode(user) in tops[top] for top in TOPS)):
            continue
        places = {os.fsdecode(top): _place(tops[top].get(os.fsencode(user)), owner) for top in TOPS}
        told.append(
            {
                "user": user,
                "uid": owner.uid if owner is not None else None,
                "gid": owner.gid if owner is not None else None,
                "mode": f"{owner.mode:04o}" if owner is not None else None,
                "used_bytes": row.used_bytes if row is not None else 0,
                "used_files": row.used_files if row is not None else 0,
                "directories": places,
            }
        )
    return told


def _directories(snapshot: Snapshot, top: bytes) -> dict[bytes, NodeRow]:
    found = snapshot.entry([top])
    if found is None:
        return {}
    rows = (listed.row for listed in snapshot.below(found.row.ino, recursive=False, state=None))
    return {row.name: row for row in rows if row.kind is Kind.DIR}


def _place(row: NodeRow | None, owner: Owner | None) -> dict[str, Any]:
    """How a directory is: `ok`, `missing`, `differs` from what the user was given; where none was, `closed` to all but
    its owner, or `shared`.
    """
    if row is None:
        return {"state": "missing", "uid": None, "gid": None, "mode": None}
    here = Owner(row.uid, row.gid, row.mode)
    if owner is None:
        state = "shared" if here.mode & 0o077 else "closed"
    else:
        state = "ok" if here == owner else "differs"
    return {"state": state, "uid": here.uid, "gid": here.gid, "mode": f"{here.mode:04o}"}


__all__ = ["UserAnswers", "user_list"]
