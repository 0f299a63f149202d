"""What the daemon answers to `recfs status`, `recfs quota …` and the rest: the control protocol's methods.

Reads go to the catalogue file in a thread, after a flush, so they see what the mount shows and hold nobody up.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from recfs import __version__
from recfs.api.s3 import Far, S3Answers
from recfs.catalogue import check, reports
from recfs.config import plain
from recfs.core.layout import is_id
from recfs.core.naming import show_name
from recfs.core.ownership import LOST_REMEDY
from recfs.disk.diskio import few_files, file_limit
from recfs.errors import Busy, InvalidArgument, OutOfSpace
from recfs.fs.xattrs import parse_limit, set_limits
from recfs.state.accounts import LIMIT_NAMES
from recfs.state.fallback_entries import FallbackEntry
from recfs.state.nodes import DirNode, FileNode
from recfs.state.problems import STUCK_TRIES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from recfs.api.control import Handler
    from recfs.config import Config
    from recfs.disk.commit.committer import Committer
    from recfs.disk.home.settler import HomeSettler
    from recfs.fs.recovery import Report
    from recfs.fs.vfs import Vfs
    from recfs.fuse.passthrough import FuseSession
    from recfs.services.sweeper import Sweeper
    from recfs.services.timekeeper import Timekeeper
    from recfs.stores.local import LocalStore
    from recfs.tier.tier import Tier

DRAIN_POLL_S = 0.02
HASH_PATIENCE_S = 30.0
"""Hashing that takes longer is not waited for by a stop: the next start does it."""
RELEASES_S = 0.25
"""What is in use is waited for so long: the kernel tells of a close (RELEASE) a moment after it."""
FULL_POLL_S = 0.2
"""Between two tries to write what a full disk has no room for."""
STUCK_TOLD = 10
"""So many that will not get done by waiting are told one by one."""
_REMEDIES = {
    "catalogue": "unmount and mount again: the start takes it up from what is on the disk",
    "commit": "put that right on the disk of the store: it is tried again every minute at least",
    "home tree": "put that right on the disk of the store: it is tried again every minute at least",
}
DRAIN_LOOK_SHARE = 0.1
"""At most this part of the time goes into looking: with many thousand files a look takes long."""


@dataclass(slots=True)
class Answers:
    """The methods, over the parts of a running daemon."""

    config: Config
    store: LocalStore
    vfs: Vfs
    tier: Tier | None
    committer: Committer
    settler: HomeSettler
    sweeper: Sweeper
    timekeeper: Timekeeper
    limiter: trio.CapacityLimiter
    mountpoint: Path | None
    stop: Callable[[], None]
    recovered: Report
    session: FuseSession | None = None
    mounted_on: Callable[[], Path] | None = None
    """Where the mount is now: its directory may have been renamed."""
    is_mounted: Callable[[], bool] | None = None
    """Whether it is there: umount(8) may have taken it away while somebody holds it."""
    started_s: float = field(default_factory=time.monotonic)
    waits_for_uploads: bool = True
    """Whether the stop that was asked for does; what it leaves, the next start goes on with."""
    s3: S3Answers = field(init=False)

    def __post_init__(self) -> None:
        self.s3 = S3Answers(Far(self.config, self.vfs, self.tier, self.store.catalogue_path, self.limiter))

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {
            "status": self.status,
            "settings": self.settings,
            "quota_show": self.quota_show,
            "quota_set": self.quota_set,
            "quota_check": self.quota_check,
            "sweep_temp": self.sweep_temp,
            "info": self.info,
            "ls_files": self.ls_files,
            "drain": self.drain,
            "stop": self.stop_daemon,
            **self.s3.handlers(),
        }

    async def _read(self, function: Callable[..., Any], *args: Any) -> Any:
        self.vfs.files.modes.measure()
        await self._saved()
        return await trio.to_thread.run_sync(function, self.store.catalogue_path, *args, limiter=self.limiter)

    # --- status --------------------------------------------------------------------------------------------------

    @property
    def _calendar_ns(self) -> int:
        return self.vfs.tree.clock.calendar_ns()

    async def status(self, params: dict[str, Any]) -> dict[str, Any]:
        """Everything at a glance."""
        known = await self._read(reports.live, self.config, self._calendar_ns)
        s3 = await self.s3.status()
        return {
            "version": __version__,
            "root": str(self.store.root),
            "mountpoint": str(self.mounted_on() if self.mounted_on else self.mountpoint) if self.mountpoint else None,
            "mounted": self.is_mounted() if self.is_mounted else False,
            "mode": "daemon" if self.mountpoint else "offline",
            "pid": os.getpid(),
            "uptime_s": time.monotonic() - self.started_s,
            "states": known["states"],
            "pipeline": {
                "sealing": self.committer.depth,
                "settling": self.settler.depth,
                "in_use": self.settler.in_use,
                "hashing_bytes": self.committer.hashing_bytes,
                "dirty": self.vfs.behind.depth,
                "problem": self.vfs.behind.problem,
                **self.committer.told(),
            },
            "open_files": self._open_files(),
            "survivors": self.vfs.survivors.paths(),
            "users": known["users"],
            "disk": reports.disk(self.store.space(), self.config),
            "lost_found": known["lost_found"],
            "clock": str(step) if (step := self.timekeeper.look()) is not None else None,
            "inodes_cached": len(self.vfs.tree.nodes),
            "passthrough": self.session.acceleration.as_dict() if self.session is not None else None,
            "s3": s3,
            "set_aside": self.vfs.behind.problems.told(),
            "problems": self._problems()
            + known["problems"]
            + [s3[each] for each in ("problem", "unread") if s3 is not None and s3[each]],
        }

    async def settings(self, params: dict[str, Any]) -> dict[str, Any]:
        """The configuration this daemon runs with, and how many descriptors it may have."""
        return {"config": plain(self.config), "max_descriptors": file_limit()}

    def _open_files(self) -> list[dict[str, Any]]:
        opened: dict[int, FileNode] = {handle.node.ino: handle.node for handle in self.vfs.files.handles.values()}
        told = []
        for node in opened.values():
            body = node.body
            if body is not None:
                told.append(
                    {
                        "path": node.path + (" (deleted)" if node.unlinked else ""),
                        "state": node.state.value,
                        "writers": body.writers,
                        "readers": body.handles - body.writers,
                        "passthrough": body.passing,
                    }
                )
        return sorted(told, key=lambda entry: str(entry["path"]))

    def _problems(self) -> list[str]:
        parts = [
            few_files(),
            self.vfs.files.space.problem,
            self.vfs.behind.problem,
            self.settler.problem,
            self.committer.problem,
        ]
        told = [problem for problem in parts if problem] + self.vfs.files.shares.problems
        told += [f"lost bytes: {lost}" for lost in self.recovered.lost] + self.recovered.said
        told += self.store.foreign
        return told + [
            f"the catalogue did not take a row as it was: {what}" for what in self.vfs.tree.catalogue.refused
        ]

    # --- files ---------------------------------------------------------------------------------------------------

    async def info(self, params: dict[str, Any]) -> dict[str, Any]:
        """Everything known of one path; a shown file is answered as what it shows."""
        path = str(params.get("path", ""))
        seen = await self.vfs.at(path)
        if isinstance(seen, FallbackEntry):
            answer: dict[str, Any] = await self._read(reports.info, self.config, seen.shared.path, self._calendar_ns)
            return answer | {
                "path": path.strip("/"),
                "shown_from": seen.shared.path,
                "ino": seen.ino,
                "charged_bytes": 0,
            }
        answer = await self._read(reports.info, self.config, path, self._calendar_ns)
        tier = self.tier
        if tier is not None and answer.get("s3") and isinstance(seen, FileNode):
            answer["s3"]["read_error"] = tier.partials.misses.of(seen.ino)
        if isinstance(seen, FileNode) and seen.body is not None:
            answer |= {"writers": seen.body.writers, "readers": seen.body.handles - seen.body.writers}
        return answer

    async def ls_files(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Entries below a path."""
        answer: list[dict[str, Any]] = await self._read(
            reports.ls_files,
            self.config,
            str(params.get("path") or ""),
            bool(params.get("recursive")),
            params.get("state"),
        )
        return answer

    # --- quota ---------------------------------------------------------------------------------------------------

    async def quota_show(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Usage and limits."""
        answer: list[dict[str, Any]] = await self._read(
            reports.quota_show, self.config, params.get("user"), self._calendar_ns
        )
        return answer

    async def quota_set(self, params: dict[str, Any]) -> dict[str, Any]:
        """Set some of a user's limits; they hold for the next byte, and are durable when this returns."""
        user = str(params.get("user", ""))
        if not is_id(os.fsencode(user)):
            raise InvalidArgument(f"user {user!r}: an id is an integer or a UUID")
        wanted = {name: self._limit(name, params[name]) for name in LIMIT_NAMES if params.get(name) is not None}
        if not wanted:
            raise InvalidArgument(f"nothing to set: give one of {', '.join(LIMIT_NAMES)}")
        set_limits(self.vfs, await self.vfs.tree.accounts.load(user), wanted)
        await self.vfs.behind.durable()
        users: list[dict[str, Any]] = await self._read(reports.quota_show, self.config, user, self._calendar_ns)
        return users[0]

    @staticmethod
    def _limit(name: str, value: object) -> int | None:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise InvalidArgument(f"{name}: {value!r} is neither a number nor `unlimited` nor `default`")
        return parse_limit(name, str(value))

    async def quota_check(self, params: dict[str, Any]) -> dict[str, Any]:
        """Prove the counters; with `repair`, add what each is off by (right even while files change)."""
        tree, behind = self.vfs.tree, self.vfs.behind
        found: check.Checked = await self._read(check.check)
        repair = bool(params.get("repair"))
        if repair:
            if behind.aside:
                raise Busy(
                    f"the catalogue does not take {behind.aside} rows (`recfs status` tells which): they are counted, "
                    f"and would be taken for differences. Stop and mount again: a start adds everything up anew"
                )
            for off in found.differences:
                added = (off.actual_bytes - off.recorded_bytes, off.actual_files - off.recorded_files)
                if off.user is not None:
                    account = await tree.accounts.load(off.user)
                    account.used_bytes += added[0]
                    account.used_files += added[1]
                    behind.account(account)
                elif off.ino is not None:
                    node = await tree.get(off.ino)
                    if isinstance(node, DirNode):
                        node.rbytes += added[0]
                        node.rfiles += added[1]
                        behind.node(node)
            await behind.durable()
        return found.told(repaired=repair)

    # --- work ----------------------------------------------------------------------------------------------------

    async def sweep_temp(self, params: dict[str, Any]) -> dict[str, Any]:
        """Sweep now."""
        return {"jobs": await self.sweeper.sweep_temp(dry_run=bool(params.get("dry_run")), kept=True)}

    def _pending(self) -> int:
        return self.committer.depth + self.settler.depth + self.vfs.behind.depth

    def _hopeless(self) -> int:
        """What the next start, or nobody, will get done: no stop waits for it."""
        return self.committer.mapped + self.committer.aside + self.settler.aside + self.vfs.behind.aside

    def _given_up(self, since_s: float) -> int:
        """What has failed too often to wait for it, and once more since then (monotonic); 0 until all has. Atomic."""
        problems = self.vfs.behind.problems.waited_for()
        if any(problem.tries < STUCK_TRIES or problem.failed_s < since_s for problem in problems):
            return 0
        return self.committer.aside + self.settler.aside + self.vfs.behind.aside

    async def _stuck(self) -> dict[str, Any]:
        """What somebody has to do something about: how much, and the first few, each with its remedy."""
        told = [
            problem.told() | {"remedy": _REMEDIES[problem.part]} for problem in self.vfs.behind.problems.waited_for()
        ]
        if (lost := self.s3.lost) is not None:
            told.append(
                {"part": "s3", "path": "", "reason": lost, "tries": 0, "next_try_s": None, "remedy": LOST_REMEDY}
            )
        for row in await self.s3.stuck():
            drop = "" if row["kind"] == "move" else f", or `recfs queue drop {row['id']}`"
            told.append(
                {
                    "part": row["kind"], "path": row["path"] or row["key"], "reason": row["error"],
                    "tries": row["attempts"], "next_try_s": row["next_try_s"],
                    "remedy": f"put that right, then `recfs queue retry {row['id']}`{drop}",
                }
            )  # fmt: skip
        return {"items": len(told), "first": told[:STUCK_TOLD]}

    async def drain(self, params: dict[str, Any]) -> dict[str, Any]:
        """Wait until everything closed is committed, at home and in S3, or the time is up: tells what is left.

        It ends, too, when nothing moves any more and what is left will not get done by waiting: `stuck` names that.

        `retries` False: what S3 refused, and anything while it is down, is not waited for, nor is hashing that a stop
        would not wait for. `s3`: whether there is one; `stays` and `refused`: what it does not get, whoever waits.

        What was refused is tried once more at the beginning, for it may have been put right. Who drains piece by piece
        gives `since_s`, of the answer to the first call, with the next ones: these only wait.
        """
        timeout_s, retries = float(params.get("timeout_s", 60.0)), bool(params.get("retries", True))
        since_s = float(params["since_s"]) if params.get("since_s") is not None else None
        began_s = time.monotonic() if since_s is None else since_s
        with trio.move_on_after(timeout_s):
            await self.settle(retries=retries, long=retries, mapped=retries, stuck=False, since_s=since_s)
            stuck = await self._stuck() if retries else {"items": 0, "first": []}
            far: dict[str, Any] = {"stays": await self.s3.stays(), "refused": await self.s3.refused(), "stuck": stuck}
            far |= {"watched": self.s3.watched(), "lost": self.s3.lost}
            return {"pending": stuck["items"], "s3": self.tier is not None} | far
        return {
            "pending": self._pending() + self.s3.pending(retries=retries),
            "since_s": began_s,
            "left": {
                "sealing": self.committer.depth,
                "settling": self.settler.depth,
                "dirty": self.vfs.behind.depth,
                "hashing": self.committer.told()["files"],
                "s3": await self.s3.left(),
                "problem": self.vfs.behind.problem,
                "set_aside": [each.told() for each in self.vfs.behind.problems.waited_for()[:STUCK_TOLD]],
            },
        }

    async def settle(
        self, *, uploads: bool = True, retries: bool = True, mapped: bool = True, long: bool = True, stuck: bool = True,
        since_s: float | None = None,
    ) -> None:  # fmt: skip
        """Hurry everything, until nothing is sealing, pending, dirty, or on its way to S3.

        *uploads* False: S3 is left for later; *retries* False: what it refused is, and all of it while it is down.
        *mapped* False: so are files that are still mapped, and whatever failed and is left alone. *long* False: so are
        those that take long to be hashed. *stuck* False: so is what will not get done by waiting, once nothing else is
        left; it is tried once more before, unless that was done at *since_s* (monotonic).
        """
        tier = self.tier
        hurried: set[int] = set()
        is_first = since_s is None
        since_s = time.monotonic() if since_s is None else since_s
        until = trio.current_time() + RELEASES_S
        if not stuck and is_first:
            self.vfs.behind.try_refused(all_of_them=True)
            if tier is not None and uploads and retries:
                # What was refused may have been put right, and S3 be there again.
                for row_id in tier.journal.stuck() | tier.journal.failed():
                    tier.journal.retry(row_id)
        while True:
            began = trio.current_time()
            if tier is not None and uploads:
                tier.journal.hurry(hurried)
            for node in [node for node in self.vfs.tree.nodes.values() if isinstance(node, FileNode)]:
                self.committer.hurry(node.ino)
            saved = await self._saved()
            self.settler.hurry()
            left = self.s3.pending(retries=retries) if uploads else 0
            spared = self.committer.set_aside + (0 if mapped else self._hopeless())
            if not stuck and retries:
                left -= self.s3.stuck_count() if uploads else 0
                spared += self._given_up(since_s)
            if not long:
                spared = max(spared, self.committer.too_long(HASH_PATIENCE_S))
            settled = not self.settler.in_use or trio.current_time() > until
            if saved and not left and settled and self._pending() <= spared:
                await self.vfs.behind.durable()
                return
            if not saved:
                await trio.sleep(FULL_POLL_S)
            await trio.sleep(max(DRAIN_POLL_S, (trio.current_time() - began) / DRAIN_LOOK_SHARE))

    async def _saved(self) -> bool:
        """Write what is dirty; False while the disk has no room for it (it stays dirty, and `problems` tells)."""
        try:
            await self.vfs.behind.flush()
        except OutOfSpace:
            return False
        return True

    async def stop_daemon(self, params: dict[str, Any]) -> dict[str, Any]:
        """Stop, unless files are open and nobody forces it. `uploads` False: without waiting for S3."""
        opened = self._open_files()
        if opened and not params.get("force"):
            names = ", ".join(show_name(str(entry["path"])) for entry in opened[:5])
            more = f" and {len(opened) - 5} more" if len(opened) > 5 else ""
            what = "1 file is" if len(opened) == 1 else f"{len(opened)} files are"
            raise Busy(f"{what} open: {names}{more}")
        self.waits_for_uploads = bool(params.get("uploads", True))
        self.stop()
        return {
            "stopping": True,
            "sealing_later": self.committer.too_long(HASH_PATIENCE_S),
            "sealing_later_paths": self.committer.later(HASH_PATIENCE_S),
        }
