"""The answer to `recfs stats`: the daemon's, and the CLI's when none runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recfs.api import summaries
from recfs.api.paths import text
from recfs.api.stats.sums import Sums
from recfs.clock import SystemClock, boot_id
from recfs.core.figures.categories import Category
from recfs.core.figures.places import Place, place_of, places
from recfs.core.layout import is_id
from recfs.core.life import recordings_since, unrecorded
from recfs.core.quota import month_of, month_start_ns
from recfs.core.retention import Now, archive_of
from recfs.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recfs.config import Config
    from recfs.core.figures.counters import FigureKey
    from recfs.ports.figures import Counted, Tally, Twins
    from recfs.ports.reports import Entry, Snapshot

FEW_FILES = 20_000
"""So many files are counted when they are asked for: 0.15 s."""
SURVEY = "stats"
"""Name of what `survey` found, in the catalogue."""
_SURVEYED = ("recordings", "ages", "unread", "archive", "duplicates")
"""What no counter tells, by its name in the answer."""
WORST, NAMED = 20, 5
"""So many sets of duplicates are told, with so many of the files of each."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What figures are wanted of. Raises InvalidArgument for what no figures can be of."""

    user: str | None = None
    recording: str | None = None
    category: Category | None = None
    store: str | None = None
    """"local": files with bytes on the disk; "s3": those with an object."""
    duplicates: bool = False
    exact: bool = False
    """Whether the rows are to be counted, whatever counters say."""

    @classmethod
    def of(cls, params: dict[str, Any]) -> Asked:
        """Give the parameters of the method `stats`."""
        user, recording, category = (params.get(each) for each in ("user", "recording", "category"))
        for what, value in (("user", user), ("recording", recording)):
            if value is not None and not is_id(os.fsencode(str(value))):
                raise InvalidArgument(f"{what} {value!r}: an id is an integer or a UUID")
        if recording is not None and user is None:
            raise InvalidArgument("a recording is one of a user: say whose")
        try:
            only = None if category is None else Category(category)
        except ValueError:
            raise InvalidArgument(f"category {category!r}: there are {', '.join(Category)}") from None
        store = params.get("store")
        if store not in (None, "local", "s3"):
            raise InvalidArgument(f"store {store!r}: there are local and s3")
        asked = cls(user, recording, only, store, bool(params.get("duplicates")), bool(params.get("exact")))
        if asked.duplicates and not asked.is_of_all:
            raise InvalidArgument("duplicates are looked for in the whole store")
        return asked

    @property
    def is_of_all(self) -> bool:
        """Whether no file is left out."""
        return self.user is None and not self.leaves_files_out

    @property
    def leaves_files_out(self) -> bool:
        """Whether some of a directory's files are."""
        return self.category is not None or self.store is not None

    def takes_counter(self, key: FigureKey) -> bool:
        """Whether these are in the store, and of the category, that are meant."""
        if self.category is not None and key.category is not self.category:
            return False
        return self.store is None or (key.here if self.store == "local" else bool(key.storage_class))

    def takes(self, tally: Tally) -> bool:
        """Whether these are in the store that is meant."""
        if self.store is None:
            return True
        return tally.here if self.store == "local" else tally.storage_class is not None

    def tops(self, snapshot: Snapshot) -> Iterator[tuple[int, Place] | None]:
        """The directories that are meant, with what each is; None: the root. Raises NotFound where there is none."""
        if self.user is None:
            yield None
            return
        user = os.fsencode(self.user)
        wanted: list[tuple[bytes, ...]] = [(b"users", user), (b"temp", user)]
        if self.recording is not None:
            wanted = [(b"users", user, b"recordings", os.fsencode(self.recording))]
        found = [top for path in wanted if (top := _top(snapshot, path)) is not None]
        if not found and self.recording is not None:
            raise NotFound(f"users/{self.user}/recordings/{self.recording}: there is no such recording")
        yield from found


def _top(snapshot: Snapshot, path: tuple[bytes, ...]) -> tuple[int, Place] | None:
    levels: list[tuple[int, bytes]] = []
    for depth in range(1, len(path) + 1):
        entry: Entry | None = snapshot.entry(path[:depth])
        if entry is None:
            return None
        levels.append((entry.row.ino, path[depth - 1]))
    return levels[-1][0], place_of(levels)


def stats(snapshot: Snapshot, config: Config, params: dict[str, Any], now: Now | None = None) -> dict[str, Any]:
    """Figures of the store, a user or a recording. Raises InvalidArgument, NotFound.

    Of more than FEW_FILES they are what the counters say, and what the last survey found; of fewer, and where that is
    asked for, all rows are counted. *now*: the daemon's; None: what one that started now would have.
    """
    asked = Asked.of(params)
    if now is None:
        clock = SystemClock(snapshot.meta(), boot_id())
        now = Now(clock.steady_ns(), clock.calendar_ns())
    users = summaries.quota_show(snapshot, config, asked.user, now.calendar_ns) if asked.recording is None else []
    month = month_of(now.calendar_ns)
    kept = _kept(snapshot, asked, users)
    if kept is not None:
        found = _by_counters(snapshot, config, asked, kept, month)
    else:
        found = _by_rows(snapshot, config, asked, now, month)
    sums, rest = found
    return {
        "user": asked.user,
        "recording": asked.recording,
        "category": asked.category,
        "store": asked.store,
        "at_ns": now.calendar_ns,
        "month": month,
        "counted": "rows" if kept is None else "counters",
        **sums.total.as_json(),
        "categories": {each.value: sums.categories[each].as_json() for each in Category},
        "stores": {name: sums.stores[name].as_json() for name in ("local", "local_and_s3", "s3")},
        "classes": {name: sums.classes[name].as_json() for name in sorted(sums.classes)},
        "costs": sums.costs(config.prices.table()),
        "users": [_user(each, sums) for each in users],
        **rest,
    }


def _kept(snapshot: Snapshot, asked: Asked, users: list[dict[str, Any]]) -> Counted | None:
    """What the counters say, if they are what is to be told."""
    if asked.exact or asked.recording is not None:
        return None
    if asked.user is not None:
        files = sum(each["used_files"] for each in users)
    else:
        top = snapshot.entry(())
        files = top.row.rfiles if top is not None else 0
    return snapshot.counted(asked.user) if files > FEW_FILES else None


def _by_rows(snapshot: Snapshot, config: Config, asked: Asked, now: Now, month: str) -> tuple[Sums, dict[str, Any]]:
    sums = Sums()
    for top in asked.tops(snapshot):
        ino = None if top is None else top[0]
        known = places(snapshot.folders(ino)) if top is None else places(snapshot.folders(ino), top)
        sums.add(filter(asked.takes, snapshot.tallies(ino, month_start_ns(month))), known, asked.category)
    return sums, {
        "recordings": len(sums.recordings),
        "ages": sums.ages(now.calendar_ns),
        "unread": sums.unread(now),
        "archive": _archive(snapshot, config, asked, now, sums),
        "duplicates": _duplicates(snapshot) if asked.duplicates else None,
        "surveyed_ns": now.calendar_ns,
    }


def _by_counters(
    snapshot: Snapshot, config: Config, asked: Asked, kept: Counted, month: str
) -> tuple[Sums, dict[str, Any]]:
    sums = Sums()
    for key, files, size in kept.figures:
        if asked.takes_counter(key):
            sums.add_counter(key, files, size)
    if asked.category in (None, Category.SOURCE):
        for upload, _, size in kept.months:
            if upload.month == month:
                sums.month_bytes[upload.user] += size
    rest: dict[str, Any] = dict.fromkeys((*_SURVEYED, "surveyed_ns"))
    surveyed = snapshot.survey(SURVEY) if asked.is_of_all else None
    if surveyed is not None:
        found = surveyed.found
        rest = {name: found.get(name) for name in _SURVEYED}  # an earlier version's survey has less
        rest["surveyed_ns"] = surveyed.at_ns
        sums.surveyed(found)
    if asked.duplicates:
        rest["duplicates"] = _duplicates(snapshot)
    return sums, rest


def survey(snapshot: Snapshot, config: Config, now: Now) -> dict[str, Any]:
    """What takes too long to be found out each time: to be kept as SURVEY. Without what the counters say."""
    found = stats(snapshot, config, {"exact": True, "duplicates": True}, now)
    return {name: value for name, value in found.items() if name not in ("users", "costs")}


def _user(known: dict[str, Any], sums: Sums) -> dict[str, Any]:
    """One user: what is counted against limits, what is left of them, and what was found."""
    limits, used = known["limits"], known["used_bytes"] + known["trashed_bytes"]
    counted = sums.users.get(known["user"])
    return {
        "user": known["user"],
        "used_bytes": known["used_bytes"],
        "used_files": known["used_files"],
        "trashed_bytes": known["trashed_bytes"],
        "files": counted.files if counted is not None else 0,
        "bytes": counted.size_bytes if counted is not None else 0,
        "left_bytes": _left(limits["max_bytes"], used),
        "left_files": _left(limits["max_files"], known["used_files"]),
        "month_uploads": known["month_uploads"],
        "month_upload_bytes": sums.month_bytes.get(known["user"], 0),
        "left_uploads": _left(limits["max_monthly_uploads"], known["month_uploads"]),
        "limits": limits,
    }


def _left(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(0, limit - used)


def _archive(snapshot: Snapshot, config: Config, asked: Asked, now: Now, sums: Sums) -> dict[str, Any] | None:
    """Recordings that `[[retention]]` has come of age for the archive, and how long nobody has read them; None: no
    rule says when.
    """
    policy = config.policy()
    if asked.leaves_files_out or not any(rule.archive_storage_class for rule in policy.rules):
        return None
    since_ns = recordings_since(snapshot.meta())
    unknown = unrecorded(min(since_ns if since_ns is not None else now.steady_ns, now.steady_ns))
    count = files = size = 0
    of_age = []
    for each in snapshot.recordings(asked.user):
        if asked.recording is not None and text(each.row.name) != asked.recording:
            continue
        if archive_of(policy, each.path, each.life or unknown, now.steady_ns) is not None:
            count, files, size = count + 1, files + each.row.rfiles, size + each.row.size_bytes
            of_age.append(each.row.ino)
    return {"recordings": count, "files": files, "bytes": size, "unread": sums.unread(now, of_age)}


def _duplicates(snapshot: Snapshot) -> dict[str, Any]:
    found = snapshot.duplicates(WORST, NAMED)
    paths = snapshot.paths(ino for twins in found.worst for ino in twins.inos)
    return {
        "sets": found.sets,
        "files": found.files,
        "wasted_bytes": found.wasted_bytes,
        "worst": [_twins(each, {ino: paths[ino] for ino in each.inos if ino in paths}) for each in found.worst],
    }


def _twins(twins: Twins, paths: dict[int, Any]) -> dict[str, Any]:
    return {
        "sha256": twins.sha256.hex(),
        "files": twins.files,
        "size_bytes": twins.size_bytes,
        "wasted_bytes": (twins.files - 1) * twins.size_bytes,
        "paths": sorted("/".join(map(text, path)) for path in paths.values()),
    }


__all__ = ["FEW_FILES", "SURVEY", "Asked", "stats", "survey"]
