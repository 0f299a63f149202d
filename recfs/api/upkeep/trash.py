"""What the daemon answers of its trash: the control protocol's methods behind `recfs trash`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from recfs.api.paths import parts_of
from recfs.core.layout import is_cut
from recfs.core.model import Kind
from recfs.errors import InvalidArgument, InvalidPath, NotFound, RecfsError
from recfs.state.work.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recfs.api.control import Handler
    from recfs.fs.trash import Trash, Trashed

PURGED_AT_ONCE = 100
"""Entries that are given up before others have their turn."""


class TrashAnswers:
    """trash_list, trash_restore, trash_purge."""

    def __init__(self, trash: Trash) -> None:
        self._trash = trash

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {"trash_list": self.list, "trash_restore": self.restore, "trash_purge": self.purge}

    async def _chosen(self, params: dict[str, Any]) -> Sequence[Trashed]:
        """Those that are meant: of `ids`, or of all, by what `_meant` knows. Raises NotFound."""
        ids, is_meant = params.get("ids"), _meant(params)
        if ids is None:
            return await self._trash.chosen(is_meant)
        found: list[Trashed] = []
        missing: list[int] = []
        for number in dict.fromkeys(ids):
            try:
                found.append(self._trash.known(number))
            except NotFound:
                missing.append(number)
        if missing:
            raise NotFound(f"the trash has no number {', '.join(map(str, missing[:10]))}")
        return [each for each in found if is_meant(each)]

    def _as_json(self, entry: Trashed) -> dict[str, Any]:
        return {
            "number": entry.number,
            "kind": entry.kind.value,
            "path": os.fsdecode(entry.path),
            "size_bytes": entry.size_bytes,
            "sha256": entry.sha256.hex() if entry.sha256 is not None else None,
            "uid": entry.uid,
            "gid": entry.gid,
            "user": entry.user,
            "in": "s3" if entry.is_far else "trash" if entry.size_bytes else None,
            "age_s": entry.age_s,
            "left_s": max(0.0, self._trash.retention_s - entry.age_s),
        }

    async def list(self, params: dict[str, Any]) -> dict[str, Any]:
        """The versions in the trash, in the order in which they were deleted, and for how long it keeps any.

        A page: those after the number `after`. `next`, where there is one, is the `after` of the page that follows.
        """
        is_meant = _meant(params)
        entries, following = self._trash.page(int(params.get("after") or 0))
        told = {
            "retention_s": self._trash.retention_s,
            "entries": [self._as_json(each) for each in entries if is_meant(each)],
        }
        return told if following is None else told | {"next": following}

    async def restore(self, params: dict[str, Any]) -> dict[str, Any]:
        """Bring versions back, each by itself; of each path the one that was deleted last."""
        chosen, to, force = await self._chosen(params), params.get("to"), bool(params.get("force", False))
        if params.get("ids") is None:
            if all(params.get(key) is None for key in ("path", "user", "since_s")):
                raise InvalidArgument("ids, path, user or since_s has to be given")
            chosen = list({(each.path, is_cut(each.path) and each.number): each for each in chosen}.values())
            if not chosen and params.get("path") is not None:
                outcome = Outcome()
                outcome.keep(str(params["path"]), "the trash has nothing of it")
                return outcome.as_json() | {"restored": []}
        if to is None:
            outcome, restored = await self._trash.restore_all(chosen, force=force)
            return outcome.as_json() | {"restored": [{"number": number, "path": path} for number, path in restored]}
        if len(chosen) != 1:
            raise InvalidArgument(f"one version goes to another path at a time, not {len(chosen):,}")
        outcome, ended = Outcome(), []
        try:
            node = await self._trash.restore(chosen[0].number, _names(str(to)), force=force)
        except (RecfsError, OSError) as error:
            outcome.failed(os.fsdecode(chosen[0].path), error)
        else:
            outcome.did(chosen[0].size_bytes)
            ended.append({"number": chosen[0].number, "path": node.path})
        return outcome.as_json() | {"restored": ended}

    async def purge(self, params: dict[str, Any]) -> dict[str, Any]:
        """Remove versions for good: those that `_chosen` knows, or `all`."""
        choices = ("ids", "path", "user", "since_s", "older_s")
        if not params.get("all") and all(params.get(key) is None for key in choices):
            raise InvalidArgument("ids, path, user, since_s, older_s or all has to be given")
        outcome = Outcome()
        for count, each in enumerate(await self._chosen(params)):
            if count % PURGED_AT_ONCE == PURGED_AT_ONCE - 1:
                await self._trash.others_first()
            try:
                await self._trash.give_up(each.number)
            except (RecfsError, OSError) as error:
                outcome.failed(os.fsdecode(each.path), error)
            else:
                if each.kind is not Kind.DIR:
                    outcome.did(each.size_bytes)
        await self._trash.durable()
        return outcome.as_json()


def _meant(params: dict[str, Any]) -> Callable[[Trashed], bool]:
    """Whether an entry is meant: by all of `path` (it and everything below), `user`, `since_s`, `older_s` given."""
    path, older_s = params.get("path"), float(params.get("older_s") or 0.0)
    user, since_s = params.get("user"), params.get("since_s")
    at = b"/".join(_names(str(path))) if path is not None else b""

    def is_meant(each: Trashed) -> bool:
        return (
            (path is None or each.path == at or each.path.startswith(at + b"/"))
            and (user is None or each.user == str(user))
            and (since_s is None or each.age_s <= float(since_s))
            and each.age_s >= older_s
        )

    return is_meant


def _names(path: str) -> list[bytes]:
    """Raises InvalidPath where a path names no entry."""
    names = parts_of(path)
    if not names or b"." in names or b".." in names:
        raise InvalidPath(f"{path!r} is no path inside the mount")
    return names
