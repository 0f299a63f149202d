"""The processing cache: what was made of a file once, a transcript say, is not made of the same bytes again.

Results are kept by the sha256 of the file, the kind of result and its options, whoever the file belongs to. What a
trusted writer puts here is given to everybody who may read such a file; what anybody else does, to that user alone,
for nobody could tell whether it is what it says. Whoever is about to make a result may claim it, so that others wait.

Results are compressed and checked on the way; one that is not what it was is given up and told. How often they are used
is kept in memory and written now and then.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeVar

import trio

from recfs.core.json_bounds import MAX_LEVELS, has_more_values, is_deeper
from recfs.core.reuse.processing import EVERYBODY, USERS_PART, Lifetimes
from recfs.core.sweeping import Schedule
from recfs.core.units import format_size
from recfs.errors import InvalidArgument, NotSupported, RecfsError, TooBig
from recfs.ports.processing import Kept
from recfs.ports.sweep import Sweep, always

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.core.reuse.processing import Key
    from recfs.ports.clock import Clock
    from recfs.ports.processing import Gone, ProcessingBooks

log = logging.getLogger("recfs.processing")

PART: Final = "processing cache"
TELL_EVERY_S: Final = 10.0
"""How long uses are kept in memory, …"""
TELL_MANY: Final = 512
"""… of so many results at most."""
CLAIM_MAX_S: Final = 24 * 3600.0
USERS_CLAIM_MAX_S: Final = 3600.0
CLAIMS_MAX: Final = 10_000
"""Of all users together, and apart from that of those who make results for everybody."""
CLAIMS_OF_USER_MAX: Final = 100
PATIENCE_S: Final = 600.0
OFF: Final = "nothing is kept: [processing_cache] enabled is false in the configuration of the daemon"
Result = TypeVar("Result")


class Settings(NamedTuple):
    """What it goes by."""

    enabled: bool
    max_bytes: int
    max_entry_bytes: int
    """Of one result, as JSON."""
    lifetimes: Lifetimes
    every_s: float
    """How often what is over is given up."""


class Hit(NamedTuple):
    """A result that was there."""

    text: bytes
    """JSON."""
    age_s: float
    uses: int
    """How often it was given out before."""


@dataclass(slots=True)
class _Claim:
    holder: int
    """A number that only whoever has it is told."""
    uid: int
    until_ns: int
    ended: trio.Event


Place = tuple["Key", int]
"""A key, and to whom its results are given."""


class ProcessingCache:
    """Keeps results."""

    def __init__(self, books: ProcessingBooks, clock: Clock, settings: Settings, admit: Callable[[int], None]) -> None:
        """*admit*: raises OutOfSpace where so many bytes more would leave others too little."""
        self._books = books
        self._clock = clock
        self.settings = settings
        self._admit = admit
        self._limiter, self._parsing = trio.CapacityLimiter(1), trio.CapacityLimiter(1)
        self._uses: dict[int, tuple[int, int]] = {}
        self._counts: Counter[str] = Counter()
        self._claims: dict[Place, _Claim] = {}
        self._claimed: Counter[int] = Counter()
        """How many by `_who_claims`."""
        self._number = 0
        self._used, self._many = trio.Event(), trio.Event()

    async def _ask(self, question: Callable[[], Result]) -> Result:
        if not self.settings.enabled:
            raise NotSupported(OFF)
        return await trio.to_thread.run_sync(question, limiter=self._limiter)

    # --- results -------------------------------------------------------------------------------------------------

    async def get(self, key: Key, reader: int) -> Hit | None:
        """What is kept under a key for *reader* (a uid, or EVERYBODY). Raises IoFailure."""
        now = self._clock.steady_ns()
        writers = [EVERYBODY] if reader == EVERYBODY else [EVERYBODY, reader]
        found = await self._ask(partial(self._find, key, writers, now))
        self._used.set()
        if found is None:
            self._counts["misses"] += 1
            return None
        kept, text = found
        times, used_ns = self._uses.get(kept.number, (0, 0))
        self._uses[kept.number] = (times + 1, max(used_ns, now))
        self._counts["hits"] += 1
        if len(self._uses) >= TELL_MANY:
            self._many.set()
        return Hit(text, max(0.0, (now - kept.made_ns) / 1e9), kept.uses + times)

    def _find(self, key: Key, writers: list[int], now_ns: int) -> tuple[Kept, bytes] | None:
        while (kept := self._books.find(key, writers, self.settings.lifetimes, now_ns)) is not None:
            text = _checked(kept)
            if text is not None:
                return kept, text
            log.warning("a %s of %s was damaged in the processing cache, and is given up", key.kind, key.sha256.hex())
            self._books.drop(kept.number)
            self._books.tell({}, {"corrupt": 1})
        return None

    async def taken_apart(self, make: Callable[[], bytes]) -> bytes:
        """What *make* makes of what somebody sent, one at a time: it takes as much memory as that has values."""
        return await trio.to_thread.run_sync(make, limiter=self._parsing)

    async def put(self, key: Key, writer: int, text: bytes) -> Gone:
        """Keep JSON under a key for all to whom *writer*'s results are given; what had to go for it.

        Raises TooBig, OutOfSpace or IoFailure.
        """
        most = self.settings.max_entry_bytes
        if len(text) > most:
            raise TooBig(f"a result of {len(text)} bytes; at most {most} are kept ([processing_cache] max_entry)")
        self._admit(len(text))
        await self._tell()  # what is used is not what goes
        gone = await self._ask(partial(self._put, key, writer, text, self._clock.steady_ns()))
        self._end_claim((key, writer))
        return gone

    def _put(self, key: Key, writer: int, text: bytes, now_ns: int) -> Gone:
        packed = zlib.compress(text, 6)
        if writer != EVERYBODY and len(packed) > self.settings.max_bytes // USERS_PART:
            most = self.settings.max_bytes // USERS_PART
            raise TooBig(f"a result of {len(packed)} bytes, compressed; a user has {most}, a tenth of max_size")
        kept = Kept(0, packed, hashlib.sha256(packed).digest(), len(text), now_ns, 0)
        return self._books.put(key, writer, kept, self.settings.max_bytes)

    async def purge(self, kind: str | None, sha256: bytes | None, age_s: float | None) -> Gone:
        """Give up what is of that kind, of that file, and older than that. Raises IoFailure."""
        before_ns = None if age_s is None else self._clock.steady_ns() - round(age_s * 1e9)
        return await self._ask(partial(self._books.purge, kind, sha256, before_ns))

    # --- claims --------------------------------------------------------------------------------------------------

    def claim(self, key: Key, writer: int, seconds: float, uid: int) -> int | None:
        """Have others wait for a result that whoever asks, *uid*, is about to make: the claim's number.

        None where somebody else has claimed it. A claim ends with the result, when it is given up, or after *seconds*.
        It does not outlive the daemon. Atomic. Raises InvalidArgument.
        """
        if not self.settings.enabled:
            raise NotSupported(OFF)
        most_s = CLAIM_MAX_S if writer == EVERYBODY else USERS_CLAIM_MAX_S
        if not 0 < seconds <= most_s:
            raise InvalidArgument(f"a claim lasts for more than 0 and at most {most_s:g} seconds")
        place, now = (key, writer), self._clock.steady_ns()
        if self._claim_of(place) is not None:
            return None
        self._require_room(writer, uid)
        self._number += 1
        self._claims[place] = _Claim(self._number, uid, now + round(seconds * 1e9), trio.Event())
        self._claimed[_who_claims(writer, uid)] += 1
        return self._number

    def _require_room(self, writer: int, uid: int) -> None:
        """Raise InvalidArgument where there are too many claims, those whose time is over left out."""
        refusal = self._too_many(writer, uid)
        if refusal:
            for each in list(self._claims):
                self._claim_of(each)
            refusal = self._too_many(writer, uid)
        if refusal:
            raise InvalidArgument(refusal)

    def _too_many(self, writer: int, uid: int) -> str:
        of_everybody = self._claimed[EVERYBODY]
        if writer != EVERYBODY and self._claimed[uid] >= CLAIMS_OF_USER_MAX:
            return f"user {uid} has claimed {CLAIMS_OF_USER_MAX} results already"
        of_all = of_everybody if writer == EVERYBODY else len(self._claims) - of_everybody
        return f"{CLAIMS_MAX} results are claimed already" if of_all >= CLAIMS_MAX else ""

    def give_up_claims(self, kind: str | None, sha256: bytes | None) -> int:
        """End claims, whoever made them, of a kind and of a file: how many. Whoever waits for them goes on. Atomic."""
        ended = [
            (key, writer) for key, writer in self._claims if kind in (None, key.kind) and sha256 in (None, key.sha256)
        ]
        for place in ended:
            self._end_claim(place)
        return len(ended)

    def release(self, key: Key, writer: int, number: int) -> bool:
        """Give a claim up: its holder will not make the result after all. Atomic."""
        claim = self._claim_of((key, writer))
        if claim is None or claim.holder != number:
            return False
        self._end_claim((key, writer))
        return True

    async def unclaimed(self, key: Key, writer: int, patience_s: float) -> bool:
        """Wait until nobody has claimed a result; False where somebody still has after *patience_s*."""
        until_ns = self._clock.steady_ns() + round(patience_s * 1e9)
        while (claim := self._claim_of((key, writer))) is not None:
            wait_s = (min(until_ns, claim.until_ns) - self._clock.steady_ns()) / 1e9
            if wait_s <= 0:
                return False
            with trio.move_on_after(wait_s):
                await claim.ended.wait()
        return True

    def _claim_of(self, place: Place) -> _Claim | None:
        claim = self._claims.get(place)
        if claim is not None and claim.until_ns <= self._clock.steady_ns():
            self._end_claim(place)
            return None
        return claim

    def _end_claim(self, place: Place) -> None:
        claim = self._claims.pop(place, None)
        if claim is not None:
            who = _who_claims(place[1], claim.uid)
            self._claimed[who] -= 1
            if not self._claimed[who]:
                del self._claimed[who]
            claim.ended.set()

    # --- looking after it ----------------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """Write down now and then what was used."""
        while True:
            await self._used.wait()
            with trio.move_on_after(TELL_EVERY_S):
                await self._many.wait()
            self._used, self._many = trio.Event(), trio.Event()
            await self._tell()

    async def _tell(self) -> None:
        uses, self._uses = self._uses, {}
        counts, self._counts = self._counts, Counter()
        if not uses and not counts:
            return
        try:
            await self._ask(partial(self._books.tell, uses, counts))
        except RecfsError:  # the next time, with what came meanwhile
            for number, (times, used_ns) in uses.items():
                before = self._uses.get(number, (0, 0))
                self._uses[number] = (times + before[0], max(used_ns, before[1]))
            self._counts += counts
            raise

    def sweep(self) -> Sweep[Any, Any]:
        """For the registry."""
        schedule = Schedule.every(self.settings.every_s if self.settings.enabled else 0.0, patience_s=PATIENCE_S)
        return Sweep("processing", PART, schedule, self._look, always, self._act, mounted=True)

    async def _look(self) -> bool:
        return self.settings.enabled

    async def _act(self, seen: bool, going_on: trio.Nursery) -> str:
        if not seen:
            return "nothing is kept"
        gone = await self._ask(partial(self._books.expire, self.settings.lifetimes, self._clock.steady_ns()))
        return f"{gone.entries:,} given up, {format_size(gone.packed_bytes)}"

    async def stats(self) -> dict[str, Any]:
        """What is kept, what it takes, and what it was good for. Raises IoFailure."""
        await self._tell()
        kinds, counted = await self._ask(self._books.totals)
        told: list[dict[str, Any]] = [
            {
                "kind": each.kind,
                "entries": each.entries,
                "json_bytes": each.text_bytes,
                "stored_bytes": each.packed_bytes,
                "ratio": _ratio(each.text_bytes, each.packed_bytes),
                "uses": each.uses,
                "expires_s": self.settings.lifetimes.of(each.kind) or None,
            }
            for each in kinds
        ]
        whole, stored = (sum(each[what] for each in told) for what in ("json_bytes", "stored_bytes"))
        return {
            "entries": sum(each["entries"] for each in told),
            "json_bytes": whole,
            "stored_bytes": stored,
            "ratio": _ratio(whole, stored),
            "max_bytes": self.settings.max_bytes,
            "claims": len(self._claims),
            "kinds": told,
            **{
                name: counted.get(name, 0)
                for name in ("hits", "misses", "stored", "evicted", "expired", "corrupt", "begun_anew")
            },
        }

    def close(self) -> None:
        """Write down what was used, and let go of the file. The daemon is at its end. Raises IoFailure."""
        try:
            if self._uses or self._counts:
                self._books.tell(self._uses, self._counts)
        finally:
            self._books.close()


def _who_claims(writer: int, uid: int) -> int:
    """Among whose claims one counts: a user's own, or those for everybody's results."""
    return EVERYBODY if writer == EVERYBODY else uid


def _checked(kept: Kept) -> bytes | None:
    """The JSON of a result; None if it is not what was put there."""
    if hashlib.sha256(kept.packed).digest() != kept.digest:
        return None
    try:
        return unpacked(kept.packed, kept.text_bytes)
    except ValueError:
        return None


def unpacked(packed: bytes, most: int) -> bytes:
    """What was compressed by zlib, of up to *most* bytes. Raises ValueError, without making more than that."""
    machine = zlib.decompressobj()
    try:
        text = machine.decompress(packed, most + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(text) > most or not machine.eof or machine.unused_data:
        raise ValueError(f"it is not whole, or has more than {most} bytes")
    return text


def as_json(text: bytes, most_values: int | None = None) -> Any:
    """Parse JSON in UTF-8. Raises ValueError for anything else, and for more than can be given again."""
    if most_values is not None and has_more_values(text, most_values):
        raise ValueError(f"it has more than {most_values} values")
    value: Any = None
    try:
        value = json.loads(text.decode(), parse_constant=_refuse, parse_float=_finite, object_hook=_as_it_is)
        is_too_deep = is_deeper(value, text)
    except RecursionError:
        is_too_deep = True
    if is_too_deep:
        raise ValueError(f"it has more than {MAX_LEVELS} lists and tables inside each other")
    return value


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(f"{digits[:40]} is too large a number")
    return number


def _as_it_is(table: dict[str, Any]) -> dict[str, Any]:
    """For the parser, in C, which lets other threads go on only where it calls something."""
    return table


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _ratio(whole: int, stored: int) -> float | None:
    return round(whole / stored, 2) if stored else None


__all__ = ["PART", "Hit", "ProcessingCache", "Settings", "as_json", "unpacked"]
