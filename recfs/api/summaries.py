"""Answers about files, users and the store that come from the catalogue: the daemon's, and the CLI's when none runs.

Plain functions of a snapshot, for the thread in which that is read (`ports/reports.py`).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from recfs.api import summaries_s3
from recfs.api.paths import found_at, parts_of, text
from recfs.clock import SystemClock, boot_id
from recfs.core.access.owners import mistaken_operator
from recfs.core.generation import ID
from recfs.core.layout import owner_of
from recfs.core.media.facts import unpacked
from recfs.core.model import Kind
from recfs.core.quota import UNLIMITED, Limits, merge, month_of
from recfs.core.upkeep.backups import newest, overdue
from recfs.errors import NotFound
from recfs.stores.backups import BackupFolder, backup_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recfs.config import Config
    from recfs.ports.reports import Checked, Snapshot
    from recfs.ports.rows import AccountRow, MediaRow, NodeRow

LOST_NAMED = 5
"""So many names of lost+found are shown."""


# --- users ---------------------------------------------------------------------------------------------------------


def quota_show(
    snapshot: Snapshot, config: Config, user: str | None, calendar_ns: int | None = None
) -> list[dict[str, Any]]:
    """Usage and limits of one user, or of all. Raises NotFound for an unknown one.

    *calendar_ns*: the daemon's `Clock.calendar_ns`; None: what one that started now would have.
    """
    found = _users(snapshot, config, user, calendar_ns)
    if user is None:
        found = [each for each in found if _is_told(each)]
    elif not found:
        raise NotFound(f"user {user}: nothing stored and no own limits")
    return found


def _is_told(user: dict[str, Any]) -> bool:
    """Whether there is anything to say of a user among all."""
    counted = ("used_bytes", "used_files", "trashed_bytes", "month_uploads")
    return any(user[name] for name in counted) or any(limit is not None for limit in user["own_limits"].values())


def _users(
    snapshot: Snapshot, config: Config, user: str | None = None, calendar_ns: int | None = None
) -> list[dict[str, Any]]:
    rows = snapshot.accounts(user)
    if calendar_ns is None:
        calendar_ns = SystemClock(snapshot.meta(), boot_id()).calendar_ns()
    month = month_of(calendar_ns)
    trashed = snapshot.trashed() if config.trash.charged and config.trash.retention else {}
    defaults = config.quota.limits()
    return [_user(row, defaults, month, trashed.get(row.user, 0)) for row in rows]


def _user(row: AccountRow, defaults: Limits, month: str, trashed_bytes: int) -> dict[str, Any]:
    own = Limits(row.max_bytes, row.max_files, row.max_file_size, row.max_monthly_uploads)
    return {
        "user": row.user,
        "used_bytes": row.used_bytes,
        "used_files": row.used_files,
        "trashed_bytes": trashed_bytes,
        "month": month,
        "month_uploads": row.month_uploads if row.month >= month else 0,
        "limits": merge(own, defaults).as_dict(),
        "own_limits": {limit: "unlimited" if value == UNLIMITED else value for limit, value in own.as_dict().items()},
    }


def quota_check(snapshot: Snapshot) -> dict[str, Any]:
    """Prove the counters against the rows; repairs nothing."""
    return checked(snapshot.check(), repaired=False)


def checked(found: Checked, *, repaired: bool) -> dict[str, Any]:
    """The outcome of a check."""
    return {
        "checked_users": found.users,
        "checked_files": found.files,
        "differences": [
            {
                "what": off.what,
                "recorded": {"bytes": off.recorded_bytes, "files": off.recorded_files},
                "actual": {"bytes": off.actual_bytes, "files": off.actual_files},
            }
            for off in found.differences
        ]
        + [
            {
                "what": f"counter of {off.key}",
                "recorded": {"bytes": off.recorded_bytes, "files": off.recorded_files},
                "actual": {"bytes": off.actual_bytes, "files": off.actual_files},
            }
            for off in found.figures.off
            if not found.figures.is_due  # else they are going to be counted anew, and nobody believes them
        ],
        "repaired": repaired,
    }


# --- files ---------------------------------------------------------------------------------------------------------


def info(snapshot: Snapshot, config: Config, path: str, calendar_ns: int | None = None) -> dict[str, Any]:
    """Everything the catalogue knows of a file or directory. Raises NotFound."""
    entry = found_at(snapshot, path)
    row, parts = entry.row, parts_of(path)
    owner = owner_of(tuple(parts))
    answer: dict[str, Any] = {
        "path": "/".join(text(part) for part in parts),
        "ino": row.ino,
        "kind": row.kind.value,
        "mode": f"{row.mode:04o}",
        "uid": row.uid,
        "gid": row.gid,
        "atime_ns": row.atime_ns,
        "mtime_ns": row.mtime_ns,
        "ctime_ns": row.ctime_ns,
        "owner": owner,
        "xattrs": {text(name): text(value) for name, value in entry.xattrs.items() if name.startswith(b"user.")},
    }
    if row.state is not None:
        answer |= {
            "state": row.state.value,
            "size_bytes": row.size_bytes,
            "charged_bytes": row.size_bytes if owner is not None else 0,
            "sha256": row.sha256.hex() if row.sha256 else None,
            "md5": row.md5.hex() if row.md5 else None,
            "location": summaries_s3.location(row),
            "local_path": None if row.state.is_remote else _local_path(config, row, parts),
            "settled": not row.placement.pending and row.placement.staging is None,
            "s3": summaries_s3.held(entry),
            "media": _media(snapshot.media([row.ino]).get(row.ino), row),
        }
    elif row.kind is Kind.SYMLINK:
        answer["target"] = text(row.target or b"")
    else:
        answer |= {"rbytes": row.size_bytes, "rfiles": row.rfiles}
        if owner is not None and len(parts) == 2 and parts[0] == b"users":
            answer["quota"] = next(iter(_users(snapshot, config, owner, calendar_ns)), None)
    return answer


def _local_path(config: Config, row: NodeRow, parts: Sequence[bytes]) -> str:
    if row.placement.staging:
        return str(config.root / ".recfs" / "staging" / row.placement.staging)
    return str(config.root.joinpath(*(text(part) for part in parts)))


def ls_files(
    snapshot: Snapshot, path: str, recursive: bool, state: str | None, media: bool = False
) -> list[dict[str, Any]]:
    """Entries of a directory (or the file itself), with what the catalogue says of each, sorted by path.

    *media*: those alone whose names say what they are, with what is known of their contents.
    """
    top = found_at(snapshot, path).row
    base = "/".join(text(part) for part in parts_of(path))
    if top.kind is not Kind.DIR:
        found = [(base, top)]
    else:
        prefix = f"{base}/" if base else ""
        below = snapshot.below(top.ino, recursive=recursive, state=state)
        found = [(prefix + text(name), row) for name, row in below]
    listed = [(_listed(row, name), row) for name, row in found]
    if media:
        known = snapshot.media(row.ino for _, row in listed)
        told = ((entry, _media(known.get(row.ino), row)) for entry, row in listed)
        return sorted(
            ({**entry, "media": content} for entry, content in told if content is not None),
            key=lambda entry: str(entry["path"]),
        )
    return sorted((entry for entry, _ in listed), key=lambda entry: str(entry["path"]))


def _media(row: MediaRow | None, node: NodeRow) -> dict[str, Any] | None:
    """What is known of a file's content; None: nothing, or it is about bytes that the file has no more."""
    if row is None or row.sha256 != node.sha256:
        return None
    facts = unpacked(row.facts)
    return {
        "verdict": row.verdict,
        "checker": row.checker,
        "reason": row.reason or None,
        "facts": facts.as_json() if facts is not None else None,
        "attempts": row.attempts,
        "queued_ns": row.queued_ns,
        "began_ns": row.began_ns or None,
        "ended_ns": row.ended_ns or None,
    }


def _listed(row: NodeRow, path: str) -> dict[str, Any]:
    return {
        "path": path,
        "kind": row.kind.value,
        "state": row.state.value if row.state is not None else None,
        "size_bytes": row.size_bytes,
        "sha256": row.sha256.hex() if row.sha256 else None,
        "mtime_ns": row.mtime_ns,
    }


# --- the store -----------------------------------------------------------------------------------------------------


def status(snapshot: Snapshot, config: Config) -> dict[str, Any]:
    """What can be said of a store nobody has mounted."""
    from recfs import __version__

    far = summaries_s3.status(snapshot, config)
    states, waiting = snapshot.states(), snapshot.waiting()
    return {
        "version": __version__,
        "root": str(config.root),
        "mountpoint": None,
        "mounted": False,
        "mode": "offline",
        "pid": None,
        "uptime_s": None,
        "states": states,
        "pipeline": {
            "sealing": waiting.sealing,
            "settling": waiting.unpublished,
            "hashing_bytes": waiting.hashing_bytes,
            "dirty": 0,
        },
        "open_files": [],
        "users": _users(snapshot, config),
        "disk": disk(os.statvfs(config.root), config),
        "lost_found": lost_found(config.root),
        "backup": backup(snapshot, config),
        "inodes_cached": 0,
        "s3": far,
        "set_aside": [],
        "problems": ([far["problem"]] if far is not None and far["problem"] else [])
        + _problems(snapshot, config, states),
    }


def disk(info: os.statvfs_result, config: Config) -> dict[str, int]:
    """The disk's figures as `status` gives them."""
    return {
        "total_bytes": info.f_blocks * info.f_frsize,
        "free_bytes": info.f_bavail * info.f_frsize,
        "min_free_bytes": config.min_free,
    }


def lost_found(root: Path) -> dict[str, Any] | None:
    """How much lies in lost+found, where only people remove anything, and the first few names; None for nothing."""
    try:
        names = sorted(os.listdir(root / ".recfs" / "lost+found"))
    except OSError:
        return None
    return {"entries": len(names), "names": names[:LOST_NAMED]} if names else None


def backup(snapshot: Snapshot, config: Config) -> dict[str, Any]:
    """The newest good backup of the catalogue, if there is any, how many there are, and how often one is made."""
    folder = backup_folder(config.root, config.backup.directory)
    try:
        kept = folder.kept(snapshot.meta().get(ID))
    except OSError:
        kept = []
    last = newest(kept)
    return {
        "every_s": config.backup.every,
        "count": len(kept),
        "newest": last.as_json(time.time_ns()) if last is not None else None,
        "problem": _no_backup(config, folder) or overdue(config.backup.every, time.time_ns(), last),
    }


def _no_backup(config: Config, folder: BackupFolder) -> str | None:
    """What would keep the next one from being made: told before one is due, and where all are made by hand."""
    sizes = [config.root / ".recfs" / f"catalogue.db{end}" for end in ("", "-wal")]
    needed = sum(path.stat().st_size for path in sizes if path.exists())
    return folder.trouble(needed, config.min_free)


def live(snapshot: Snapshot, config: Config, calendar_ns: int) -> dict[str, Any]:
    """The part of a running daemon's status that comes from the catalogue."""
    states = snapshot.states()
    return {
        "states": states,
        "media": snapshot.media_open(),
        "users": _users(snapshot, config, calendar_ns=calendar_ns),
        "lost_found": lost_found(config.root),
        "backup": backup(snapshot, config),
        "problems": _problems(snapshot, config, states),
    }


def _problems(snapshot: Snapshot, config: Config, states: dict[str, int]) -> list[str]:
    """What the catalogue knows that somebody has to do something about."""
    corrupt = states.get("corrupt", 0)
    mistaken = mistaken_operator(config.operator, ((each.user, each.owner) for each in snapshot.accounts()))
    told = [summaries_s3.without_tier(snapshot, config), backup(snapshot, config)["problem"]]
    told += [str(mistaken)] if mistaken is not None else []
    if corrupt:
        what = "1 file is" if corrupt == 1 else f"{corrupt:,} files are"
        told.append(f"{what} corrupt, and cannot be read: `recfs ls-files -r --state corrupt` names what to bring back")
    if broken := snapshot.media_open().get("broken", 0):
        what = "1 file is broken" if broken == 1 else f"{broken:,} files are broken"
        told.append(f"{what}: cut off, or not what the name says: `recfs ls-files -r --media` tells which, and why")
    return [problem for problem in told if problem]
