"""Backups of the catalogue: what is written beside each, when the next one is due, and which of them may go."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from recfs.core.units import format_duration

FORMAT = 1
PLAIN, SEALED, HEADER = ".db", ".db.age", ".json"
"""What the names end in: of a backup as it is, of one that is encrypted, and of what is written beside either."""
_GIVEN = re.compile(r"catalogue-[^-/.]{1,8}-[0-9]{8}T[0-9]{6}Z(-[0-9]+)?\.db(\.age)?")
_MOST = (1 << 63) - 1
FOLDER = "backups"
"""In the store's own directory, where `[backup] directory` names no other."""
BUCKET_FOLDER = ".recfs/backups/"
"""In the bucket, below the store's prefix. No path in a mount begins so."""
LOOK_EVERY_S = 300.0
"""It is looked at least so often whether one is due."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a catalogue holds, by which a backup is compared with what was copied."""

    store: str
    """Of which store (`core/generation.py`): empty in a catalogue that was never in use."""
    generation: int
    """How many batches of rows it had taken."""
    schema: str
    """The newest of its steps (`catalogue/migrations.py`)."""
    rows: Mapping[str, int]
    """How many there are, by table."""


@dataclass(frozen=True, slots=True)
class Header:
    """What lies beside a backup. One without it was not made to its end, and is none."""

    name: str
    """Of the backup's file."""
    made_ns: int
    """Wall clock, for people."""
    steady_ns: int
    """`Clock.steady_ns`, for its age."""
    contents: Contents
    size_bytes: int
    sha256: str
    """Of the file as it lies there."""
    plain_bytes: int
    plain_sha256: str
    """Of the catalogue in it."""
    recipients: tuple[str, ...] = ()
    """Who can decrypt it (public keys); none: it is not encrypted."""
    version: str = ""
    """Of the recfs that made it."""

    @property
    def is_sealed(self) -> bool:
        """Whether it is encrypted."""
        return bool(self.recipients)

    @property
    def order(self) -> tuple[int, int, str]:
        """Newer ones come later, whatever the clock said: the count of batches never goes back in a store's life."""
        return self.contents.generation, self.steady_ns, self.name

    def to_json(self) -> bytes:
        """As it lies there."""
        return json.dumps({"recfs_backup": FORMAT, **asdict(self)}, indent=1).encode("ascii") + b"\n"


def read_header(data: bytes) -> Header | None:
    """The header that was written so; None for what is none."""
    try:
        known = json.loads(data)
        if known.pop("recfs_backup") != FORMAT:
            return None
        held = known.pop("contents")
        contents = Contents(
            str(held["store"]), int(held["generation"]), str(held["schema"]),
            {str(table): int(count) for table, count in held["rows"].items()},
        )  # fmt: skip
        numbers = (known["made_ns"], known["steady_ns"], known["size_bytes"], known["plain_bytes"], contents.generation)
        if any(abs(int(number)) > _MOST for number in numbers):
            return None  # no time that could be shown
        return Header(
            str(known["name"]), int(known["made_ns"]), int(known["steady_ns"]), contents, int(known["size_bytes"]),
            str(known["sha256"]), int(known["plain_bytes"]), str(known["plain_sha256"]),
            tuple(map(str, known["recipients"])), str(known["version"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def stem_of(store: str, made_ns: int, serial: int = 0) -> str:
    """What the names of one backup begin with; *serial*: of several that were made within a second."""
    when = datetime.fromtimestamp(max(made_ns, 0) // 10**9, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"catalogue-{store[:8] or 'new'}-{when}{f'-{serial}' if serial else ''}"


def is_given(name: str) -> bool:
    """Whether a file of bytes has a name as recfs gives it (`stem_of`)."""
    return _GIVEN.fullmatch(name) is not None


def header_of(name: str) -> str:
    """The name of what is written beside the backup *name*."""
    for end in (SEALED, PLAIN):
        if name.endswith(end):
            return name.removesuffix(end) + HEADER
    return name + HEADER


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup that was found."""

    header: Header
    place: str
    """Where, for people."""
    damage: str | None = None
    """What is wrong with it, as far as a look at its size tells."""
    in_bucket: bool = False

    def as_json(self, now_ns: int) -> dict[str, object]:
        """For commands; *now_ns*: wall clock."""
        header = self.header
        return {
            "name": header.name, "place": self.place, "made_ns": header.made_ns,
            "age_s": max(0.0, (now_ns - header.made_ns) / 10**9), "size_bytes": header.size_bytes,
            "encrypted": header.is_sealed, "recipients": list(header.recipients), "sha256": header.sha256,
            "generation": header.contents.generation, "schema": header.contents.schema,
            "rows": dict(header.contents.rows), "store": header.contents.store, "damage": self.damage,
            "in_bucket": self.in_bucket,
        }  # fmt: skip


def newest(kept: Iterable[Kept]) -> Kept | None:
    """The newest that is good, as far as is known."""
    return max((each for each in kept if each.damage is None), key=lambda each: each.header.order, default=None)


def is_due(every_s: float, steady_ns: int, kept: Iterable[Kept]) -> bool:
    """Whether the next one is to be made; *every_s* 0: none ever is.

    One that was made later than now is of a clock that was put back with its catalogue: what it says counts for nothing
    once it is further off than a period.
    """
    last = newest(kept)
    if every_s <= 0:
        return False
    return last is None or abs(steady_ns - last.header.steady_ns) >= every_s * 10**9


def overdue(every_s: float, now_ns: int, last: Kept | None) -> str | None:
    """What there is to say of a newest good backup that is older than two periods; None where all is well.

    *now_ns*: wall clock, as people read it. That there is none yet is no problem of a store's first days; what keeps
    one from being made is told by itself.
    """
    if not every_s or last is None:
        return None
    age_s = (now_ns - last.header.made_ns) / 10**9
    if age_s <= 2 * every_s + LOOK_EVERY_S:
        return None
    return (
        f"the newest good backup of the catalogue is {format_duration(age_s)} old, and one is to be made every"
        f" {format_duration(every_s)}: `recfs backup now` makes one, or says what keeps it from that"
    )


def rotated(kept: Sequence[Kept], keep: int) -> list[Kept]:
    """Which of those at one place may go: the good ones beyond the newest *keep*, and damaged ones older than those.

    The newest good one never goes, and while there are fewer good ones than *keep*, nothing does.
    """
    good = sorted((each for each in kept if each.damage is None), key=lambda each: each.header.order)
    stay = good[-max(keep, 1) :]
    if len(stay) < keep:
        return []
    return [each for each in kept if each.header.order < stay[0].header.order]


__all__ = [
    "BUCKET_FOLDER", "FOLDER", "HEADER", "LOOK_EVERY_S", "PLAIN", "SEALED", "Contents", "Header", "Kept", "header_of",
    "is_due", "newest", "overdue", "read_header", "rotated", "stem_of",
]  # fmt: skip
