"""Answers read from the catalogue file: by the daemon in a thread beside its writer, and by the CLI when no daemon
runs.

Plain functions on a read-only connection. A reader sees the last written batch as a whole, so rows and counters agree.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from recfs.catalogue import check, reports_s3
from recfs.catalogue.reading import ROOT, facts_in, parts_of, reading, text, walk
from recfs.clock import SystemClock, boot_id
from recfs.core.bounds import loaded_time
from recfs.core.layout import owner_of
from recfs.core.model import State
from recfs.core.quota import UNLIMITED, Limits, merge, month_of
from recfs.errors import NotFound

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from recfs.config import Config

LOST_TOLD = 5
"""So many names of lost+found are told."""
_LIMITS = ("max_bytes", "max_files", "max_file_size", "max_monthly_uploads")


# --- users ---------------------------------------------------------------------------------------------------------


def quota_show(
    catalogue: Path, config: Config, user: str | None, calendar_ns: int | None = None
) -> list[dict[str, Any]]:
    """Usage and limits of one user, or of all. Raises NotFound for an unknown one.

    *calendar_ns*: the daemon's `Clock.calendar_ns`; None: what one that started now would have.
    """
    with reading(catalogue) as db:
        return _users(db, config, user, calendar_ns)


def _users(
    db: sqlite3.Connection, config: Config, user: str | None, calendar_ns: int | None = None
) -> list[dict[str, Any]]:
    where, values = ("where user = ?", (user,)) if user is not None else ("", ())
    rows = db.execute(f"select * from account {where} order by length(user), user", values).fetchall()
    if user is not None and not rows:
        raise NotFound(f"user {user}: nothing stored and no own limits")
    if calendar_ns is None:
        calendar_ns = SystemClock(facts_in(db), boot_id()).calendar_ns()
    month = month_of(calendar_ns)
    return [_user(row, config, month) for row in rows]


def _user(row: sqlite3.Row, config: Config, month: str) -> dict[str, Any]:
    own = Limits(*(row[limit] for limit in _LIMITS))
    return {
        "user": row["user"],
        "used_bytes": row["used_bytes"],
        "used_files": row["used_files"],
        "month": month,
        "month_uploads": row["month_uploads"] if row["month"] >= month else 0,
        "limits": asdict(merge(own, config.quota.limits())),
        "own_limits": {limit: "unlimited" if value == UNLIMITED else value for limit, value in asdict(own).items()},
    }


def quota_check(catalogue: Path, config: Config) -> dict[str, Any]:
    """Prove the counters against the rows; repairs nothing."""
    return check.check(catalogue).told(repaired=False)


# --- files ---------------------------------------------------------------------------------------------------------


def info(catalogue: Path, config: Config, path: str, calendar_ns: int | None = None) -> dict[str, Any]:
    """Everything the catalogue knows of a file or directory."""
    with reading(catalogue) as db:
        row = walk(db, path)
        parts = parts_of(path)
        xattrs = db.execute("select name, value from xattr where ino = ?", (row["ino"],)).fetchall()
        owner = owner_of(tuple(parts))
        answer: dict[str, Any] = {
            "path": "/".join(text(part) for part in parts),
            "ino": row["ino"],
            "kind": row["kind"],
            "mode": f"{row['mode']:04o}",
            "uid": row["uid"],
            "gid": row["gid"],
            "atime_ns": loaded_time(row["atime_ns"]),
            "mtime_ns": loaded_time(row["mtime_ns"]),
            "ctime_ns": loaded_time(row["ctime_ns"]),
            "owner": owner,
            "xattrs": {text(name): text(value) for name, value in xattrs},
        }
        if row["kind"] == "file":
            answer |= {
                "state": row["state"],
                "size_bytes": row["size_bytes"],
                "charged_bytes": row["size_bytes"] if owner is not None else 0,
                "sha256": row["sha256"].hex() if row["sha256"] else None,
                "md5": row["md5"].hex() if row["md5"] else None,
                "location": reports_s3.location(row),
                "local_path": None if State(row["state"]).is_remote else _local_path(config, row, parts),
                "settled": not row["pending"] and row["staging"] is None,
                "s3": reports_s3.held(db, row),
            }
        elif row["kind"] == "symlink":
            answer["target"] = text(row["target"])
        else:
            answer |= {"rbytes": row["size_bytes"], "rfiles": row["rfiles"]}
            if owner is not None and len(parts) == 2 and parts[0] == b"users":
                answer["quota"] = next(iter(_users_or_none(db, config, owner, calendar_ns)), None)
        return answer


def _users_or_none(db: sqlite3.Connection, config: Config, user: str, calendar_ns: int | None) -> list[dict[str, Any]]:
    try:
        return _users(db, config, user, calendar_ns)
    except NotFound:
        return []


def _local_path(config: Config, row: sqlite3.Row, parts: Sequence[bytes]) -> str:
    if row["staging"]:
        return str(config.root / ".recfs" / "staging" / row["staging"])
    return str(config.root.joinpath(*(text(part) for part in parts)))


def ls_files(catalogue: Path, config: Config, path: str, recursive: bool, state: str | None) -> list[dict[str, Any]]:
    """Entries of a directory (or the file itself), with what the catalogue says of each, sorted by path."""
    with reading(catalogue) as db:
        top = walk(db, path)
        base = "/".join(text(part) for part in parts_of(path))
        if top["kind"] != "dir":
            return [_listed(top, base)]
        found: list[dict[str, Any]] = []
        pending = [(top["ino"], base)]
        while pending:
            parent, prefix = pending.pop()
            for row in db.execute("select * from node where parent = ? and ino <> 1", (parent,)):
                here = f"{prefix}/{text(row['name'])}" if prefix else text(row["name"])
                if recursive and row["kind"] == "dir":
                    pending.append((row["ino"], here))
                if state is None or row["state"] == state:
                    found.append(_listed(row, here))
        return sorted(found, key=lambda entry: str(entry["path"]))


def _listed(row: sqlite3.Row, path: str) -> dict[str, Any]:
    return {
        "path": path,
        "kind": row["kind"],
        "state": row["state"],
        "size_bytes": row["size_bytes"],
        "sha256": row["sha256"].hex() if row["sha256"] else None,
        "mtime_ns": loaded_time(row["mtime_ns"]),
    }


# --- the store -----------------------------------------------------------------------------------------------------


def states(db: sqlite3.Connection) -> dict[str, int]:
    """How many files are in each state. Only the uncommitted are counted; the root's total tells the rest."""
    counts = {
        row[0]: row[1]
        for row in db.execute(
            "select state, count(*) from node where state is not null and state <> 'committed' group by state"
        )
    }
    links = db.execute("select count(*) from node where kind = 'symlink'").fetchone()[0]
    total = db.execute("select rfiles from node where ino = ?", (ROOT,)).fetchone()
    if total is not None:
        counts["committed"] = total[0] - links - sum(counts.values())
    return counts


def status(catalogue: Path, config: Config) -> dict[str, Any]:
    """What can be said of a store nobody has mounted."""
    from recfs import __version__

    info = os.statvfs(config.root)
    far = reports_s3.status(catalogue, config)
    with reading(catalogue) as db:
        return {
            "version": __version__,
            "root": str(config.root),
            "mountpoint": None,
            "mounted": False,
            "mode": "offline",
            "pid": None,
            "uptime_s": None,
            "states": states(db),
            "pipeline": _waiting(db),
            "open_files": [],
            "users": _users(db, config, None),
            "disk": disk(info, config),
            "lost_found": lost_found(config.root),
            "inodes_cached": 0,
            "s3": far,
            "set_aside": [],
            "problems": ([far["problem"]] if far is not None and far["problem"] else []) + _problems(db, config),
        }


def _waiting(db: sqlite3.Connection) -> dict[str, int]:
    """What of the pipeline waits for the next daemon. Entries kept in the trash are where they belong."""
    sealing = db.execute("select size_bytes from node where state = 'sealing'").fetchall()
    moves = db.execute("select count(*) from node where pending & 7").fetchone()[0]
    places = "staging is not null or home_name is not null"
    removals = db.execute(f"select count(*) from garbage where held_by is null and ({places})").fetchone()[0]
    return {
        "sealing": len(sealing),
        "settling": moves + removals,
        "hashing_bytes": sum(row["size_bytes"] for row in sealing),
        "dirty": 0,
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
    return {"entries": len(names), "names": names[:LOST_TOLD]} if names else None


def live(catalogue: Path, config: Config, calendar_ns: int) -> dict[str, Any]:
    """The part of a running daemon's status that comes from the catalogue."""
    with reading(catalogue) as db:
        users = _users(db, config, None, calendar_ns)
        return {
            "states": states(db),
            "users": users,
            "lost_found": lost_found(config.root),
            "problems": _problems(db, config),
        }


def _problems(db: sqlite3.Connection, config: Config) -> list[str]:
    """What the catalogue knows that somebody has to do something about."""
    corrupt = db.execute("select count(*) from node where state = 'corrupt'").fetchone()[0]
    told = [reports_s3.without_tier(db, config)]
    if corrupt:
        what = "1 file is" if corrupt == 1 else f"{corrupt:,} files are"
        told.append(f"{what} corrupt, and cannot be read: `recfs ls-files -r --state corrupt` names what to bring back")
    return [problem for problem in told if problem]
