"""What is derived from a recording: rules, what each product is called, and whether it is to be made now.

A [[derive]] table of recfs.conf is a rule: it names one product and the files it is made from. Without one nothing is
derived. What was made from the bytes of one checksum, with the same options, is never made again; and no file is
replaced that recfs did not make itself, as its inode number and checksum tell. `services/deriving/` carries it out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from recfs.core.globs import DEEP, Path, PathGlob
from recfs.core.places import ANY, ID, meets

_PLACE = (b"users", ID, b"recordings", ID, ANY)
_LEVELS = 5
"""Of the path of a file directly in a recording."""
SOURCES: Final = "users/*/recordings/*/source.*"
MAX_AT_S: Final = 86_400.0
MAX_WIDTH: Final = 7680
VERSION: Final = 1
"""Of how products are made: another one has all be made anew when they are asked for."""


def glob_of_sources(pattern: str) -> PathGlob:
    """Read the pattern of files directly in recordings. Raises ValueError that says what to write."""
    glob = PathGlob(pattern)
    if DEEP in glob.parts or len(glob.parts) != _LEVELS or not meets(glob.parts, _PLACE):
        raise ValueError(
            f"pattern {pattern!r}: sources lie directly in a recording: users/*/recordings/*/NAME, such as {SOURCES!r}"
        )
    return glob


class Product(StrEnum):
    """What can be made from a source."""

    THUMBNAIL = "thumbnail"
    """A frame (PNG)."""
    AUDIO = "audio"
    """The sound, 64 kbit/s mono 16 kHz (MP3)."""
    WAVEFORM = "waveform"
    """The sound as a picture (PNG)."""
    SPRITE = "sprite"
    """Small frames in one picture (JPEG), and where each is in it (WebVTT): for scrubbing."""
    HLS = "hls"
    """A playlist (RFC 8216) and one file with all segments."""


_PRINCIPAL: Final = {
    Product.THUMBNAIL: "assets/thumbnail.png",
    Product.AUDIO: "audio.mp3",
    Product.WAVEFORM: "assets/waveform.png",
    Product.SPRITE: "assets/sprite.vtt",
    Product.HLS: "assets/hls.m3u8",
}
_COMPANION: Final = {Product.SPRITE: "assets/sprite-{}.jpg", Product.HLS: "assets/hls-{}.ts"}
_WIDTH: Final = {Product.THUMBNAIL: 640, Product.WAVEFORM: 1800, Product.SPRITE: 160, Product.HLS: 1280}
_COMPANION_DIGITS = 12


def principal(product: Product) -> str:
    """Where a product lies, below its recording: the one file that says that it is there."""
    return _PRINCIPAL[product]


def companion(product: Product, sha256: bytes) -> str | None:
    """Where the second file of a product lies, which the first one names: called by its bytes, so that a new one comes
    beside the old one. None: there is none.
    """
    name = _COMPANION.get(product)
    return None if name is None else name.format(sha256.hex()[:_COMPANION_DIGITS])


class Status(StrEnum):
    """Where a piece of work is."""

    PENDING = "pending"
    """To be done; the reason says what it waits for."""
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    """It is not tried again by itself."""


@dataclass(frozen=True, slots=True)
class DeriveRule:
    """One product and its sources; equal if all it was made from is. Raises ValueError that says what to write."""

    make: str
    pattern: str = SOURCES
    automatic: bool = False
    """Whether it is made as soon as a source is committed, and not only when it is asked for."""
    at_s: float = 1.0
    """thumbnail: of which moment; of something shorter, its middle."""
    width: int | None = None
    """In pixels: of the picture, of sprite's frames, of the stream at most; None: that of the product."""
    product: Product = field(init=False, repr=False, compare=False)
    _glob: PathGlob = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.make not in list(Product):
            raise ValueError(f"make = {self.make!r}: what can be made is {', '.join(Product)}")
        glob = glob_of_sources(self.pattern)
        if not 0 <= self.at_s <= MAX_AT_S:
            raise ValueError(f"at = {self.at_s:g} s: a moment lies between 0 and 1 d")
        if self.width is not None and not 16 <= self.width <= MAX_WIDTH:
            raise ValueError(f"width = {self.width}: pixels, from 16 to {MAX_WIDTH}")
        object.__setattr__(self, "product", Product(self.make))
        object.__setattr__(self, "_glob", glob)

    def takes(self, path: Path) -> bool:
        """Tell whether the file at this path in the mount is one of its sources; no product is one of itself."""
        return self._glob.matches(path) and path[_LEVELS - 1] != principal(self.product).encode()

    @property
    def wide(self) -> int:
        """The width that counts, in pixels; 0 where the product has none."""
        return self.width or _WIDTH.get(self.product, 0)

    @property
    def options(self) -> str:
        """All that decides what comes out, but for the source: equal if that is."""
        told: dict[str, object] = {"v": VERSION}
        if self.product is Product.THUMBNAIL:
            told["at"] = self.at_s
        if self.wide:
            told["width"] = self.wide
        return json.dumps(told, sort_keys=True)


def check_derive(rules: Sequence[DeriveRule]) -> None:
    """Raise ValueError where two rules make one product from the same files: the first would take all of the second."""
    for index, later in enumerate(rules):
        for number, earlier in enumerate(rules[:index], start=1):
            if earlier.product is later.product and earlier._glob.covers(later._glob):
                raise ValueError(
                    f"rule {index + 1} ({later.make} of {later.pattern}) never applies: rule {number} comes first and"
                    f" takes the same files; put the narrower first or drop one"
                )


def wanted(rules: Sequence[DeriveRule], path: Path, *, automatic: bool = False) -> Iterator[DeriveRule]:
    """Give what is to be made from the file at this path: the first rule for each product. *automatic*: by itself."""
    seen: set[Product] = set()
    for rule in rules:
        if rule.product not in seen and rule.takes(path):
            seen.add(rule.product)
            if rule.automatic or not automatic:
                yield rule


class Made(NamedTuple):
    """A file that recfs made."""

    name: str
    """Below the recording."""
    ino: int
    sha256: bytes


class Derived(NamedTuple):
    """What is kept of one product of one recording."""

    folder: int
    """Inode number of the recording's directory."""
    product: Product
    source: int
    """Inode number of the file it is made from."""
    sha256: bytes
    """Of the bytes it is, or is to be, made from."""
    options: str
    status: Status
    reason: str = ""
    """Why it failed, or what it waits for."""
    tries: int = 0
    """How often it was tried in vain, of this input."""
    next_ns: int = 0
    """When it is tried again (`Clock.steady_ns`)."""
    at_ns: int = 0
    """When this was said (`Clock.now_ns`)."""
    job: str = ""
    """The temp job in which it is being made, as a path in the mount; empty: none."""
    files: tuple[Made, ...] = ()
    """What recfs made and may replace, of this input or an earlier one. The principal file comes last."""
    staged: tuple[Made, ...] = ()
    """What is made and about to be moved to its place."""

    def is_ours(self, seen: Made | None) -> bool:
        """Whether a file is one that recfs made, and as it made it."""
        return seen is not None and any(seen[1:] == each[1:] for each in (*self.files, *self.staged))


class Step(StrEnum):
    """What is to be done about a product."""

    MAKE = "make"
    DONE = "done"
    """It is there, made from these bytes."""
    UNDER_WAY = "under way"
    KEEP = "keep"
    """Something is there that recfs did not make of this source: it stays as it is."""
    LEAVE = "leave"
    """It failed, and would again."""


class Verdict(NamedTuple):
    """What is to be done, and why."""

    step: Step
    reason: str = ""


def judge(
    record: Derived | None, source: int, sha256: bytes, options: str, there: Made | None, *,
    asked: bool, other_source: bool = False,
) -> Verdict:  # fmt: skip
    """Decide about a product. *there*: the file that lies in its place; *asked*: by somebody, and not by a rule alone.

    *other_source*: what it was made from last is another file, which is still in the recording.
    """
    if record is None:
        if there is not None:
            return Verdict(Step.KEEP, "a file is there that recfs did not make")
        return Verdict(Step.MAKE)
    if there is not None and not record.is_ours(there):
        return Verdict(Step.KEEP, "the file that is there was not made by recfs, or was changed since")
    if record.source != source and other_source and (there is not None or record.status is not Status.COMPLETED):
        return Verdict(Step.KEEP, "it is made from another source of this recording")
    same = (record.source, record.sha256, record.options) == (source, sha256, options)
    if not same:
        return Verdict(Step.MAKE, "the source or the options have changed")
    match record.status:
        case Status.PENDING | Status.PROCESSING:
            return Verdict(Step.UNDER_WAY, record.reason)
        case Status.COMPLETED if there is not None:
            return Verdict(Step.DONE)
        case Status.COMPLETED if not asked:
            return Verdict(Step.LEAVE, "it was made, and removed by somebody")
        case Status.FAILED if not asked:
            return Verdict(Step.LEAVE, record.reason)
    return Verdict(Step.MAKE)


MAX_TRIES: Final = 6
FIRST_RETRY_S: Final = 60.0
_NS = 10**9


def after_failure(record: Derived, reason: str, *, again: bool, now_ns: int, steady_ns: int) -> Derived:
    """What is kept of a product whose making failed. *again*: it may go better later: it is tried `MAX_TRIES` times.

    The pauses begin with a minute, and double.
    """
    tries = record.tries + 1
    pause_ns = round(FIRST_RETRY_S * 2 ** (tries - 1) * _NS)
    is_over = not again or tries >= MAX_TRIES
    return record._replace(
        status=Status.FAILED if is_over else Status.PENDING, reason=reason, tries=tries, at_ns=now_ns, job="",
        next_ns=0 if is_over else steady_ns + pause_ns,
    )  # fmt: skip


__all__ = [
    "FIRST_RETRY_S",
    "MAX_TRIES",
    "SOURCES",
    "DeriveRule",
    "Derived",
    "Made",
    "Product",
    "Status",
    "Step",
    "Verdict",
    "after_failure",
    "check_derive",
    "companion",
    "glob_of_sources",
    "judge",
    "principal",
    "wanted",
]
