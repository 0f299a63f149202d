"""What the daemon answers to `recfs status`, `recfs quota …` and the rest: the control protocol's methods.

Reads go to the catalogue in a thread, after a flush, so they see what the mount shows and hold nobody up.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack

from recfs import __version__
from recfs.api import reuse, summaries, upkeep
from recfs.api.deriving import DerivingAnswers
from recfs.api.draining import DrainAnswers
from recfs.api.live import LiveAnswers
from recfs.api.observing import ObservingAnswers
from recfs.api.probing import ProbeAnswers
from recfs.api.s3 import Far, S3Answers
from recfs.api.stats.figures import stats
from recfs.api.stats.trend import trend
from recfs.api.users import UserAnswers
from recfs.config import plain
from recfs.core.layout import is_id
from recfs.core.media import words
from recfs.core.naming import show_name
from recfs.core.retention import Now
from recfs.disk.diskio import few_files, file_limit
from recfs.errors import Busy, InvalidArgument
from recfs.fs.fallback_entries import FallbackEntry
from recfs.fs.xattrs import parse_limit, set_limits
from recfs.services.draining import HASH_PATIENCE_S
from recfs.state.accounts import LIMIT_NAMES
from recfs.state.nodes import FileNode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from recfs.api.control import Handler
    from recfs.api.work import Work
    from recfs.config import Config, Settings
    from recfs.disk.commit.committer import Committer
    from recfs.disk.home.publisher import HomePublisher
    from recfs.fs.recovery import Report
    from recfs.fs.vfs import Vfs
    from recfs.fuse.observers.live import LiveCounts
    from recfs.fuse.passthrough import FuseSession
    from recfs.observing.assembly import Observing
    from recfs.ports.reports import Reports, Snapshot
    from recfs.services.sweeps import Sweeps
    from recfs.services.timekeeper import Timekeeper
    from recfs.stores.local import LocalStore
    from recfs.tier.tier import Tier


Answer = TypeVar("Answer")
Args = TypeVarTuple("Args")


@dataclass(slots=True)
class Answers:
    """The methods, over the parts of a running daemon."""

    config: Config
    store: LocalStore
    vfs: Vfs
    tier: Tier | None
    committer: Committer
    publisher: HomePublisher
    work: Work
    timekeeper: Timekeeper
    reports: Reports
    observing: Observing
    mountpoint: Path | None
    stop: Callable[[], None]
    recovered: Report
    session: FuseSession | None = None
    mounted_on: Callable[[], Path] | None = None
    """Where the mount is now: its directory may have been renamed."""
    is_mounted: Callable[[], bool] | None = None
    """Whether it is there: umount(8) may have taken it away while somebody holds it."""
    sweeps: Sweeps | None = None
    """What is looked at now and then; None where no daemon runs."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where each setting is from, by its dotted key (`config.Settings`)."""
    live: LiveCounts | None = None
    """What the kernel asks for, counted while somebody looks; None where nothing is mounted."""
    started_s: float = field(default_factory=time.monotonic)
    waits_for_uploads: bool = True
    """Whether the stop that was asked for does; what it leaves, the next start goes on with."""
    s3: S3Answers = field(init=False)

    def __post_init__(self) -> None:
        self.s3 = S3Answers(Far(self.config, self.vfs, self.tier, self.reports, self.work.far))

    def reconfigure(self, settings: Settings) -> None:
        """Answer by other settings from here on. Atomic."""
        self.config, self.origins = settings.config, settings.origins
        self.s3.far.config = settings.config

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        drain = DrainAnswers(self.work.draining, self.committer, self.publisher, self.vfs.behind, self.s3)
        return {
            "status": self.status,
            "stats": self.stats,
            "stats_trend": self.stats_trend,
            "settings": self.settings,
            "quota_show": self.quota_show,
            "quota_set": self.quota_set,
            "quota_check": self.quota_check,
            **UserAnswers(self.work.users, self._read).handlers(),
            "info": self.info,
            "ls_files": self.ls_files,
            "drain": drain.drain,
            "stop": self.stop_daemon,
            **reuse.handlers(self.work.reuse, self.work.upkeep.versions, self.vfs, self._read),
            **upkeep.handlers(self.work.upkeep, self.vfs, self.reports, self.sweeps, self._read),
            **DerivingAnswers(self.work.media).handlers(),
            **ProbeAnswers(self.vfs, self.work.probing).handlers(),
            **self.s3.handlers(),
            **self._live(),
            **ObservingAnswers(self.observing, self.vfs.tree.clock).handlers(),
        }

    def _live(self) -> dict[str, Handler]:
        if self.live is None:
            return {}
        return LiveAnswers(self.vfs, self.committer, self.publisher, self.live, self._problems).handlers()

    async def _read(self, question: Callable[[Snapshot, Unpack[Args]], Answer], *args: *Args) -> Answer:
        self.vfs.files.modes.measure()
        await self.work.draining.saved()
        return await self.reports.ask(question, *args)

    # --- status --------------------------------------------------------------------------------------------------

    @property
    def _calendar_ns(self) -> int:
        return self.vfs.tree.clock.calendar_ns()

    async def status(self, params: dict[str, Any]) -> dict[str, Any]:
        """Everything at a glance."""
        known = await self._read(summaries.live, self.config, self._calendar_ns)
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
                "settling": self.publisher.depth,
                "in_use": self.publisher.in_use,
                "hashing_bytes": self.committer.outlook.hashing_bytes,
                "dirty": self.vfs.behind.depth,
                "problem": self.vfs.behind.problem,
                **self.committer.outlook.as_json(),
                "unhashed": self.work.draining.unhashed.as_json(),
            },
            "open_files": self._open_files(),
            "survivors": self.vfs.survivors.paths(),
            "users": known["users"],
            "disk": summaries.disk(self.store.space(), self.config),
            "lost_found": known["lost_found"],
            "backup": known["backup"] | {"in_bucket": self.work.upkeep.backups.sent},
            "clock": str(step) if (step := self.timekeeper.look()) is not None else None,
            "inodes_cached": len(self.vfs.tree.nodes),
            "passthrough": self.session.acceleration.as_dict() if self.session is not None else None,
            "s3": s3,
            "verification": self.work.upkeep.verifications.as_json(),
            "scrub": scrub.as_json() if (scrub := self.work.upkeep.scrub) is not None else None,
            "deriving": self.work.media.asking.as_json(),
            "media": known["media"] | (probing.as_json() if (probing := self.work.probing) is not None else {}),
            **self.observing.as_json(),
            "set_aside": self.vfs.behind.problems.as_json(),
            "problems": self._problems()
            + known["problems"]
            + [s3[each] for each in ("problem", "unread") if s3 is not None and s3[each]],
        }

    async def stats(self, params: dict[str, Any]) -> dict[str, Any]:
        """Figures of the store, a user or a recording."""
        clock = self.vfs.tree.clock
        answer: dict[str, Any] = await self._read(
            stats, self.config, params, Now(clock.steady_ns(), clock.calendar_ns())
        )
        return answer

    async def stats_trend(self, params: dict[str, Any]) -> dict[str, Any]:
        """How it grew."""
        answer: dict[str, Any] = await self._read(trend, params, self.vfs.tree.clock.calendar_ns())
        return answer

    async def settings(self, params: dict[str, Any]) -> dict[str, Any]:
        """The configuration this daemon runs with, and how many descriptors it may have."""
        return {"config": plain(self.config), "origins": dict(self.origins), "max_descriptors": file_limit()}

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
            self.publisher.problem,
            self.committer.problem,
        ]
        told = [problem for problem in parts if problem] + self.vfs.files.shares.problems
        told += [f"lost bytes: {lost}" for lost in self.recovered.lost] + self.recovered.said
        told += self.store.foreign + self.observing.problems
        return told + [
            f"the catalogue did not take a row as it was: {what}" for what in self.vfs.tree.catalogue.refused
        ]

    # --- files ---------------------------------------------------------------------------------------------------

    async def info(self, params: dict[str, Any]) -> dict[str, Any]:
        """Everything known of one path; a shown file is answered as what it shows."""
        path = str(params.get("path", ""))
        seen = await self.vfs.at(path)
        if isinstance(seen, FallbackEntry):
            answer: dict[str, Any] = await self._read(summaries.info, self.config, seen.shared.path, self._calendar_ns)
            return answer | {
                "path": path.strip("/"),
                "shown_from": seen.shared.path,
                "ino": seen.ino,
                "charged_bytes": 0,
            }
        answer = await self._read(summaries.info, self.config, path, self._calendar_ns)
        tier = self.tier
        if tier is not None and answer.get("s3") and isinstance(seen, FileNode):
            answer["s3"]["read_error"] = tier.partials.misses.of(seen.ino)
        if isinstance(seen, FileNode):
            contents = self.vfs.contents
            answer["status"] = words.told(contents.known(seen, await contents.rows.of(seen)))
        if isinstance(seen, FileNode) and seen.body is not None:
            answer |= {"writers": seen.body.writers, "readers": seen.body.handles - seen.body.writers}
        return answer

    async def ls_files(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Entries below a path."""
        answer: list[dict[str, Any]] = await self._read(
            summaries.ls_files,
            str(params.get("path") or ""),
            bool(params.get("recursive")),
            params.get("state"),
            bool(params.get("media")),
        )
        return answer

    # --- quota ---------------------------------------------------------------------------------------------------

    async def quota_show(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Usage and limits."""
        answer: list[dict[str, Any]] = await self._read(
            summaries.quota_show, self.config, params.get("user"), self._calendar_ns
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
        users: list[dict[str, Any]] = await self._read(summaries.quota_show, self.config, user, self._calendar_ns)
        return users[0]

    @staticmethod
    def _limit(name: str, value: object) -> int | None:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise InvalidArgument(f"{name}: {value!r} is neither a number nor `unlimited` nor `default`")
        return parse_limit(name, str(value))

    async def quota_check(self, params: dict[str, Any]) -> dict[str, Any]:
        """Prove the counters; with `repair`, add what each is off by (right even while files change)."""
        found = await self._read(lambda snapshot: snapshot.check())
        repair = bool(params.get("repair"))
        if repair:
            await self.work.recount.repair(found.differences, found.figures)
        return summaries.checked(found, repaired=repair)

    # --- work ----------------------------------------------------------------------------------------------------

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
            "sealing_later": self.committer.outlook.too_long(HASH_PATIENCE_S),
            "sealing_later_paths": self.committer.outlook.later(HASH_PATIENCE_S),
        }
