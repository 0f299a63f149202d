"""Adding up files: totals by category, store and class, and how old what of a recording is."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recfs.core.figures.categories import SOURCE, Category, category_of
from recfs.core.figures.costs import LOCAL
from recfs.core.layout import Role

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from recfs.core.figures.costs import Prices
    from recfs.core.figures.counters import FigureKey
    from recfs.core.figures.places import Place
    from recfs.core.retention import Now
    from recfs.ports.figures import Tally

DAY_NS = 86_400 * 10**9
AGES_D = (30, 90, 365)
"""Where bands of age begin, in days."""
RECENT_D = 90
"""What was processed within so many days was processed recently."""
LOCAL_ONLY, BOTH, REMOTE_ONLY = "local", "local_and_s3", "s3"
_PROCESSED = ("never", "long_ago", "recently")


@dataclass(slots=True)
class Sum:
    """Files, their bytes, and when the first and the last of them was written (mtime)."""

    files: int = 0
    size_bytes: int = 0
    oldest_ns: int | None = None
    newest_ns: int | None = None

    def add(self, tally: Tally) -> None:
        """Count these, too."""
        self.files += tally.files
        self.size_bytes += tally.size_bytes
        if self.oldest_ns is None or tally.oldest_ns < self.oldest_ns:
            self.oldest_ns = tally.oldest_ns
        if self.newest_ns is None or tally.newest_ns > self.newest_ns:
            self.newest_ns = tally.newest_ns

    def as_json(self) -> dict[str, Any]:
        """For an answer; the average is rounded down."""
        return {
            "files": self.files,
            "bytes": self.size_bytes,
            "average_bytes": self.size_bytes // self.files if self.files else None,
            "oldest_ns": self.oldest_ns,
            "newest_ns": self.newest_ns,
        }


@dataclass(slots=True)
class OfRecording:
    """What is asked of one recording."""

    files: int = 0
    size_bytes: int = 0
    newest_ns: int = 0
    """The greatest mtime of its files."""
    processed_ns: int | None = None
    """The greatest mtime of its transcriptions; None: it has none."""
    used_ns: int | None = None
    """When any of its files was last used (`Clock.steady_ns`); None: not known."""


@dataclass(slots=True)
class Sums:
    """All of it."""

    total: Sum = field(default_factory=Sum)
    categories: dict[Category, Sum] = field(default_factory=lambda: defaultdict(Sum))
    stores: dict[str, Sum] = field(default_factory=lambda: defaultdict(Sum))
    classes: dict[str, Sum] = field(default_factory=lambda: defaultdict(Sum))
    """By the storage class of objects, and LOCAL: what lies in both counts in both."""
    users: dict[str, Sum] = field(default_factory=lambda: defaultdict(Sum))
    month_bytes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Bytes of uploads that were last written this month, by user."""
    recordings: dict[int, OfRecording] = field(default_factory=lambda: defaultdict(OfRecording))

    def add(self, tallies: Iterable[Tally], places: Mapping[int, Place], only: Category | None) -> None:
        """Count all files in these places, or those of one category."""
        for tally in tallies:
            place = places.get(tally.parent)
            if place is None:
                continue  # its directory is of no place: a row that somebody made by hand
            category = category_of(place.category, place.role, tally.marks)
            if only is None or category is only:
                self._add(tally, place, category)

    def _add(self, tally: Tally, place: Place, category: Category) -> None:
        self.total.add(tally)
        self.categories[category].add(tally)
        self.stores[store_of(tally.here, tally.storage_class)].add(tally)
        for name in classes_of(tally.here, tally.storage_class):
            self.classes[name].add(tally)
        if place.user is not None:
            self.users[place.user].add(tally)
            if tally.recent and tally.marks.head == SOURCE and place.role is Role.RECORDING:
                self.month_bytes[place.user] += tally.size_bytes
        if place.recording is not None:
            known = self.recordings[place.recording]
            known.files += tally.files
            known.size_bytes += tally.size_bytes
            known.newest_ns = max(known.newest_ns, tally.newest_ns)
            if tally.used_ns is not None:
                known.used_ns = max(known.used_ns or 0, tally.used_ns)
            if category is Category.TRANSCRIPTION:
                known.processed_ns = max(known.processed_ns or 0, tally.newest_ns)

    def add_counter(self, key: FigureKey, files: int, size_bytes: int) -> None:
        """Count what a counter says. When they were written it does not tell."""
        where = [self.total, self.categories[key.category], self.stores[store_of(key.here, key.storage_class or None)]]
        where += [self.classes[name] for name in classes_of(key.here, key.storage_class or None)]
        if key.user:
            where.append(self.users[key.user])
        for each in where:
            each.files += files
            each.size_bytes += size_bytes

    def surveyed(self, found: Mapping[str, Any]) -> None:
        """Take the times of the first and the last file from an earlier answer."""
        named: list[tuple[Sum, Mapping[str, Any]]] = [(self.total, found)]
        named += [(each, found["categories"][name.value]) for name, each in self.categories.items()]
        named += [(each, found["stores"][name]) for name, each in self.stores.items()]
        named += [(each, found["classes"][name]) for name, each in self.classes.items() if name in found["classes"]]
        for each, earlier in named:
            each.oldest_ns, each.newest_ns = earlier["oldest_ns"], earlier["newest_ns"]

    def costs(self, prices: Prices) -> dict[str, Any]:
        """What it costs a month, by class; `total` leaves out what has no price."""
        by_class = {name: prices.monthly(name, found.size_bytes) for name, found in sorted(self.classes.items())}
        return {
            "currency": prices.currency,
            "by_class": by_class,
            "total": sum(cost for cost in by_class.values() if cost is not None),
            "unpriced": [name for name, cost in by_class.items() if cost is None],
        }

    def ages(self, now_ns: int) -> list[dict[str, Any]]:
        """Recordings by the time since any file of them was written, and since they were processed."""
        bands = {(least, processed): [0, 0, 0] for least in (0, *AGES_D) for processed in _PROCESSED}
        for each in self.recordings.values():
            band = bands[_band(now_ns - each.newest_ns), _processed(each, now_ns)]
            band[0] += 1
            band[1] += each.files
            band[2] += each.size_bytes
        return [
            {"unchanged_d": least, "processed": processed, "recordings": count, "files": files, "bytes": size}
            for (least, processed), (count, files, size) in bands.items()
        ]

    def unread(self, now: Now, only: Collection[int] | None = None) -> list[dict[str, Any]]:
        """Recordings by the time since any file of them was last used, and since they were processed; bands of none
        are left out. *only*: those with these inode numbers.
        """
        bands: dict[tuple[int | None, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for ino in self.recordings if only is None else self.recordings.keys() & set(only):
            each = self.recordings[ino]
            least = None if each.used_ns is None else _band(now.steady_ns - each.used_ns)
            band = bands[least, _processed(each, now.calendar_ns)]
            band[0] += 1
            band[1] += each.files
            band[2] += each.size_bytes
        order = [(least, processed) for least in (0, *AGES_D, None) for processed in _PROCESSED]
        return [
            {
                "unread_d": key[0],
                "processed": key[1],
                "recordings": bands[key][0],
                "files": bands[key][1],
                "bytes": bands[key][2],
            }
            for key in order
            if key in bands
        ]


def _band(age_ns: int) -> int:
    return max(least for least in (0, *AGES_D) if least <= max(0, age_ns) // DAY_NS)


def store_of(here: bool, storage_class: str | None) -> str:
    """Where the bytes are, by name."""
    if storage_class is None:
        return LOCAL_ONLY
    return BOTH if here else REMOTE_ONLY


def classes_of(here: bool, storage_class: str | None) -> list[str]:
    """The classes that are paid for: LOCAL for bytes on the disk, and that of the object."""
    return [*([LOCAL] if here else []), *([storage_class] if storage_class is not None else [])]


def _processed(recording: OfRecording, now_ns: int) -> str:
    if recording.processed_ns is None:
        return "never"
    return "recently" if now_ns - recording.processed_ns < RECENT_D * DAY_NS else "long_ago"


__all__ = ["AGES_D", "BOTH", "LOCAL_ONLY", "RECENT_D", "REMOTE_ONLY", "Sum", "Sums", "classes_of", "store_of"]
