"""The command line, and a daemon for it to talk to: a real control socket, canned answers, no mount."""

import inspect
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio
from click.testing import CliRunner, Result

from recfs.api.control import ControlServer
from recfs.api.parameters import given
from recfs.cli.main import cli
from recfs.errors import RecfsError
from tests.system import s3_samples

LIMITS = {"max_bytes": 10 * 1024**3, "max_files": None, "max_file_size": None, "max_monthly_uploads": 31}
OWN_LIMITS = {
    "max_bytes": 10 * 1024**3,
    "max_files": None,
    "max_file_size": None,
    "max_monthly_uploads": None,
}
USER = {
    "user": "5",
    "used_bytes": 1_610_612_736,
    "used_files": 1234,
    "month": "2026-11",
    "month_uploads": 3,
    "limits": LIMITS,
    "own_limits": OWN_LIMITS,
}
MAPPED = {
    "user": "5",
    "uid": 10005,
    "gid": 100,
    "mode": "2770",
    "used_bytes": 1_610_612_736,
    "used_files": 12,
    "directories": {
        "users": {"state": "ok", "uid": 10005, "gid": 100, "mode": "2770"},
        "temp": {"state": "differs", "uid": 0, "gid": 0, "mode": "0755"},
    },
}
FILE = {
    "path": "users/5/recordings/142/source.mp4",
    "kind": "file",
    "state": "committed",
    "size_bytes": 5_242_880,
    "sha256": "ab" * 32,
    "mtime_ns": 1_790_000_000_000_000_000,
}
INFO = FILE | {
    "ino": 17,
    "mode": 0o100644,
    "uid": 1000,
    "gid": 1000,
    "owner": "5",
    "md5": "cd" * 16,
    "location": "home",
    "xattrs": {"user.note": "hello\nworld"},
}
STATUS = {
    "version": "1.0.0",
    "root": "/srv/recfs",
    "mountpoint": "/mnt/recordings",
    "mode": "daemon",
    "pid": 4711,
    "uptime_s": 93784.5,
    "states": {"committed": 12345, "writing": 1, "incomplete": 0},
    "pipeline": {
        "sealing": 2,
        "settling": 1,
        "hashing_bytes": 4096,
        "dirty": 7,
        "lanes": {
            "small": {"running": 0, "waiting": 0},
            "medium": {"running": 0, "waiting": 0},
            "large": {"running": 1, "waiting": 3},
        },
        "files": [
            {
                "path": "users/7/recordings/1/disk.img",
                "done_bytes": 12 << 30,
                "total_bytes": 300 << 30,
                "bytes_per_s": 512 << 20,
                "eta_s": 576.0,
            }
        ],
        "set_aside": 1,
    },
    "open_files": [
        {"path": "users/5/recordings/143/source.mp4", "state": "writing", "writers": 1, "readers": 0, "passthrough": 1}
    ],
    "users": [USER],
    "disk": {"total_bytes": 1 << 40, "free_bytes": 1 << 39, "min_free_bytes": 1 << 30},
    "inodes_cached": 4321,
    "s3": s3_samples.FAR,
    "problems": ["2 files are corrupt"],
}
DIFFERENCE = {"what": "user 5 used_bytes", "recorded": 100, "actual": 90}
JOBS = [
    {
        "path": "temp/5/9",
        "age_s": 90000.0,
        "rbytes": 2048,
        "rfiles": 2,
        "action": "expired",
        "reason": "25h old",
    },
    {
        "path": "temp/5/10",
        "age_s": 60.0,
        "rbytes": 10,
        "rfiles": 1,
        "action": "kept",
        "reason": "1 open file",
    },
]
RECORDING = {
    "path": "users/5/recordings/142",
    "user": "5",
    "ino": 12,
    "status": "expired",
    "created_ns": 1795251662 * 10**9,
    "age_s": 100_000.0,
    "unchanged_s": 50_000.0,
    "rbytes": 5 << 20,
    "rfiles": 1,
    "expires_at_ns": None,
    "keep": False,
    "note": "a\nnote",
    "set_by": "uid 0 by setfattr",
    "rule": 2,
    "action": "none",
    "reason": "last change 91d ago; grace 7d: removed in 2d",
    "due_s": 172_800.0,
    "due_ns": 1795424462 * 10**9,
    "storage_class": None,
    "open_files": 3,
}
EXPIRED = [
    {"path": "users/5/recordings/142", "status": "active", "action": "expire", "reason": "due", "rule": 1},
    {"path": "users/5/recordings/143", "status": "expired", "action": "none", "reason": "1 file is open", "rule": 1},
]
_SWEEP = {"every_s": 300.0, "last_ns": 1795251662 * 10**9, "took_s": 0.012, "running_s": None, "next_s": 167.0} | {
    "outcome": "done",
    "done": None,
    "total": None,
    "stopping": False,
    "late": False,
}
SWEEPS = [
    _SWEEP | {"name": "temp", "result": "3 removed"},
    _SWEEP
    | {"name": "trash", "result": "failed: no disk", "running_s": 720.0, "next_s": None, "done": 3, "total": 9}
    | {"outcome": "failed"},
    _SWEEP | {"name": "usage", "result": None, "last_ns": None, "took_s": None, "next_s": None},
]
RUNS = [
    {"name": "temp", "began_ns": 1_790_000_000 * 10**9, "took_s": 2.1, "outcome": "done", "result": "3 removed"}
    | {"asked": True, "times": 1},
    {"name": "trash", "began_ns": 1_790_000_000 * 10**9, "took_s": 0.001, "outcome": "nothing"}
    | {"result": "nothing to do", "asked": False, "times": 1234},
]
WATCH = {
    "enabled": True,
    "watched": 1204,
    "limit": "fs.inotify.max_user_watches",
    "scanning": True,
    "scans": 3,
    "waiting": 7,
    "missing_files": 59,
    "held": "59 of 60 files are gone",
    "adopted": 12,
    "changed": 3,
    "described": 2,
    "moved": 1,
    "removed": 4,
    "evicted": 5,
}
ORPHANS: dict[str, Any] = {
    "mode": "report", "files": 1204, "objects": 0, "bytes": 4_300_000, "missing": 0, "more": 2, "done": {},
    "counts": [{"where": "home", "what": "bytes", "count": 3}], "bucket_unseen": None, "unread": [],
    "found": [
        {
            "where": "home", "what": "bytes", "name": "users/5/cut.mp4", "size_bytes": 4_300_000, "age_s": 266_400.0,
            "why": "no row has this name", "adopt": "adopt", "delete": "lost+found",
        }
    ],
}  # fmt: skip

_FILES = {"files": 3, "bytes": 4 << 30, "average_bytes": (4 << 30) // 3, "oldest_ns": 0, "newest_ns": 10**18}
_NO_FILES = {"files": 0, "bytes": 0, "average_bytes": None, "oldest_ns": None, "newest_ns": None}
STATS: dict[str, Any] = {
    "user": None,
    "recording": None,
    "category": None,
    "store": None,
    "at_ns": 10**18,
    "month": "2026-11",
    "counted": "counters",
    "surveyed_ns": 10**18,
    **_FILES,
    "categories": {"source": _FILES, "video": _NO_FILES},
    "stores": {"local_and_s3": _FILES},
    "classes": {"local": _FILES, "GLACIER": _FILES},
    "costs": {
        "currency": "USD",
        "by_class": {"local": 1.25, "GLACIER": None},
        "total": 1.25,
        "unpriced": ["GLACIER"],
    },
    "users": [
        {
            "user": "5",
            "used_bytes": 1_610_612_736,
            "used_files": 1234,
            "trashed_bytes": 0,
            "files": 3,
            "bytes": 4 << 30,
            "left_bytes": None,
            "left_files": 8,
            "month_uploads": 31,
            "left_uploads": 9,
            "month_upload_bytes": 7 << 20,
            "limits": {},
        }
    ],
    "recordings": 2,
    "ages": [{"unchanged_d": 90, "processed": "long_ago", "recordings": 2, "files": 3, "bytes": 4 << 30}],
    "unread": [{"unread_d": 365, "processed": "long_ago", "recordings": 2, "files": 3, "bytes": 4 << 30}],
    "archive": {
        "recordings": 1,
        "files": 2,
        "bytes": 1 << 20,
        "unread": [{"unread_d": 30, "processed": "never", "recordings": 1, "files": 2, "bytes": 1 << 20}],
    },
    "duplicates": {
        "sets": 1,
        "files": 6,
        "wasted_bytes": 5 << 20,
        "worst": [
            {"sha256": "00" * 32, "files": 6, "size_bytes": 1 << 20, "wasted_bytes": 5 << 20, "paths": ["shared/a\x1b"]}
        ],
    },
}

_GROWN = {"files": 8, "bytes": 3 << 20, "grown_files": -2, "grown_bytes": -(1 << 20)}
TREND: dict[str, Any] = {
    "since": "2026-11-27",
    "placed_since": "2026-11-29",
    "asked_since": "2026-10-30",
    "at_ns": 10**18,
    "user": None,
    "category": None,
    "store": None,
    "days": [
        {"day": "2026-11-27", "days": 2, "files": 10, "bytes": 4 << 20, "grown_files": 5, "grown_bytes": 7 << 20}
        | {"classes": None},
        {"day": "2026-11-29", "days": 1, "files": 15, "bytes": 11 << 20, "grown_files": -7, "grown_bytes": -(8 << 20)}
        | {"classes": {"local": _GROWN}},
    ],
    "gaps": [["2026-11-28", "2026-11-28"]],
    "categories": {"video": _GROWN},
    "users": {"5": _GROWN, "": _GROWN},
    "stores": {"local_and_s3": _GROWN},
    "classes": {"local": _GROWN, "GLACIER_IR": _GROWN},
    "uploads": {"2026-11": {"files": 3, "bytes": 2 << 20}},
}

ANSWERS: dict[str, Any] = {
    "status": STATUS,
    "stats_trend": TREND,
    "stats": STATS,
    "quota_show": [USER],
    "quota_set": USER,
    "user_list": [MAPPED],
    "user_add": MAPPED | {"notes": ["group 100 is also that of user 6"]},
    "user_remove": {
        "user": "5",
        "uid": 10005,
        "removed_files": 12,
        "removed_bytes": 1_610_612_736,
        "kept_files": 0,
        "left": [],
    },
    "quota_check": {"checked_users": 1, "checked_files": 1234, "differences": [], "repaired": False},
    "sweep_temp": {"jobs": JOBS},
    "sweep_list": {"sweeps": SWEEPS},
    "sweep_run": {"run": 4},
    "sweep_wait": SWEEPS[0] | {"ended": True},
    "sweep_stop": {"running": True},
    "sweep_archive": {
        "moved": [
            {"path": "users/5/recordings/142/a\nb", "size_bytes": 5 << 20, "step": "store anew", "reason": "old"}
        ],
        "more": 7,
        "steps": {"store anew": {"files": 8, "bytes": 40 << 20}},
        "kept": [{"path": "users/5/x", "reason": "it is archived"}],
        "kept_files": 1,
    },
    "sweep_multiparts": {"uploads": [{"key": "users/5/source.mp4", "upload_id": "2~Yk", "age_s": 800000.0}]},
    "sweep_orphans": ORPHANS,
    "sweep_versions": {
        "versions": [
            {
                "path": "users/5/recordings/142/topics_v2",
                "number": 2,
                "size_bytes": 2048,
                "removes": True,
                "reason": "2 newer, 2 are kept",
            }
        ],
        "removed": 9,
        "bytes": 4096,
        "more": 8,
    },
    "sweep_history": {"runs": RUNS},
    "watch_status": WATCH,
    "watch_scan": WATCH,
    "watch_accept": {"enabled": True, "files": 1204},
    "sweep_expired": {"recordings": EXPIRED},
    "recording_list": [RECORDING],
    "recording_show": RECORDING,
    "recording_expire": RECORDING,
    "recording_keep": RECORDING,
    "recording_set_expiry": RECORDING,
    "info": INFO,
    "ls_files": [FILE],
    "drain": {"pending": 0},
    **s3_samples.ANSWERS,
}


def run(*args: object, env: dict[str, str] | None = None) -> Result:
    """Run one command line."""
    return CliRunner().invoke(cli, [str(arg) for arg in args], env=env)


class FakeDaemon:
    """Serves `answers` for one root: a value, a function of the params (async or not), or a RecfsError to raise.

    `asked` is what was asked so far.
    """

    def __init__(self, root: Path, answers: Mapping[str, Any] = ANSWERS) -> None:
        self.root = root
        self.answers = dict(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._started = threading.Event()
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=trio.run, args=(self._run,))

    def __enter__(self) -> "FakeDaemon":
        (self.root / ".recfs").mkdir(parents=True, exist_ok=True)
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(10)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        server = ControlServer(
            self.root / ".recfs" / "control.sock", {name: self._handler(name) for name in self.answers}
        )
        with self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(server.run)
                self._started.set()

    def _handler(self, name: str) -> Any:
        async def handle(params: dict[str, Any]) -> Any:
            given(name, params)  # as a daemon does, which would refuse it
            self.asked.append((name, params))
            answer = self.answers[name]
            if isinstance(answer, RecfsError):
                raise answer
            found = answer(params) if callable(answer) else answer
            return await found if inspect.isawaitable(found) else found

        return handle
