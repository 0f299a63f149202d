"""Sees that a bucket's prefix is this store's before anything in it is changed.

Otherwise a store that is made anew where the disk of another was to be would overwrite the only copies that the other
has. Asked before every piece of work on S3, it looks into the bucket once at the start and then every ten minutes. S3
need not answer for the store to be mounted, and reading asks nothing: what is read is held to its etag and checksum.
"""

from __future__ import annotations

import logging
import secrets
import socket
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from recfs.core.layout import TOP_DIRS
from recfs.core.ownership import LOST_REMEDY, MARK_KEY, Mark, Verdict, lost_words, read_mark, verdict_on
from recfs.ports.object_errors import PrefixTaken
from recfs.state.problems import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recfs.ports.catalogue import Catalogue
    from recfs.ports.clock import Clock
    from recfs.ports.objects import ObjectStore
    from recfs.state.writebehind import WriteBehind

log = logging.getLogger("recfs.s3")

Result = TypeVar("Result")

LOOK_EVERY_S = 600.0
REFUSED_LOOK_S = 15.0
"""How long a refusal holds before the bucket is looked at again."""
STORE_FACT, TOKENS_FACT = "store_id", "s3_tokens"
DOUBT_FACT = "s3_doubt_ns"
"""When another copy of this store, or another store, was last found to have used the prefix (wall clock): it may hold
objects from before that of which this catalogue knows nothing, and which are files all the same.
"""
_KEPT_TOKENS = 4


class Ownership:
    """The mark in the bucket."""

    def __init__(
        self, objects: ObjectStore, catalogue: Catalogue, behind: WriteBehind, clock: Clock, root: str, url: str
    ) -> None:
        self._objects = objects
        self._catalogue = catalogue
        self._behind = behind
        self._clock = clock
        self._root, self._url = root, url
        self._limiter = trio.CapacityLimiter(1)
        self._lock = trio.Lock()
        self._token: str | None = None
        """This daemon's, once it lies in the bucket."""
        self._mine: set[str] = set()
        """All that this daemon has tried to put there."""
        self._good_until = float("-inf")
        self._refused_until = float("-inf")
        self.refusal: str | None = None
        """Why nothing in the bucket may be changed; None as far as is known."""
        self.lost: str | None = None
        """That objects of this store are gone from there, with the mark, if they are: no local copy may leave."""
        self._doubted_until = float("-inf")

    async def ensure(self) -> None:
        """Return when the prefix is this store's. Raises PrefixTaken, or what keeps from finding out."""
        if trio.current_time() < self._good_until:
            return
        async with self._lock:
            if trio.current_time() < self._good_until:
                return
            if self.refusal is not None and trio.current_time() < self._refused_until:
                raise PrefixTaken(self.refusal)
            mark = await self.mark()
            verdict = await self._verdict_on(mark)
            if verdict is Verdict.FREE and not await self._put(only_new=True):
                mark = await self.mark()  # another was faster
                verdict = await self._verdict_on(mark)
                if verdict is Verdict.FREE:
                    verdict = Verdict.UNKNOWN  # what came up is gone again: look later
            if verdict is Verdict.RETURNED:
                log.warning(
                    "%s was last used by a copy of this store: %s; if a daemon still runs there, stop it",
                    self._url,
                    mark,
                )
            if verdict is Verdict.LOST:
                raise PrefixTaken(await self._tell_lost())
            if verdict in (Verdict.FOREIGN, Verdict.UNKNOWN, Verdict.FOLLOWED):
                self._refuse(verdict, mark)
            if verdict is Verdict.RETURNED:
                self._behind.meta(DOUBT_FACT, str(self._clock.now_ns()))
            if verdict is Verdict.RETURNED or (verdict is Verdict.OURS and self._token is None):
                await self._put(only_new=False)
            self._note_ours()

    def forget(self) -> None:
        """What was seen of the mark counts no more: before the next change it is looked at again. Atomic."""
        self._good_until = float("-inf")

    async def doubt(self) -> None:
        """An object, or the bucket, was not there: look at the mark now, and before the next change. Raises nothing."""
        if trio.current_time() < self._doubted_until:
            return
        self._doubted_until = trio.current_time() + REFUSED_LOOK_S
        self._good_until = float("-inf")
        try:
            async with self._lock:
                if await self._verdict_on(await self.mark()) is Verdict.LOST:
                    await self._tell_lost()
        except Exception as error:  # the next change looks again
            log.debug("looking at the mark in %s: %s", self._url, reason_of(error))

    async def claim(self) -> None:
        """Take the prefix, whosever it is."""
        async with self._lock:
            self._behind.meta(DOUBT_FACT, str(self._clock.now_ns()))
            await self._put(only_new=False)
            self._note_ours()

    async def mark(self) -> Mark | None:
        """The mark in the bucket; None if there is none."""
        found = await self._look(partial(self._objects.get_small, MARK_KEY))
        return None if found is None else read_mark(found)

    async def verdict(self) -> tuple[Verdict, Mark | None]:
        """Whose the prefix is, and the mark in it. Changes nothing."""
        mark = await self.mark()
        return await self._verdict_on(mark), mark

    async def _verdict_on(self, mark: Mark | None) -> Verdict:
        store, tokens = await self._own()
        knows = await self._catalogue.any_object()
        empty = mark is not None or knows or await self._look(self._is_empty)
        gone = mark is None and knows and await self._look(partial(self._any_gone, (await self._known())[0]))
        return verdict_on(mark, store, tokens, running=self._token is not None, knows=knows, empty=empty, gone=gone)

    async def _known(self) -> tuple[Sequence[str], int]:
        return await self._catalogue.some_objects()

    def _any_gone(self, keys: Sequence[str]) -> bool:
        return any(self._objects.head(key) is None for key in keys)

    def _is_empty(self) -> bool:
        return all(next(iter(self._objects.list(top)), None) is None for top in _tops())

    async def _own(self) -> tuple[str, frozenset[str]]:
        await self._behind.flush()
        facts = await self._catalogue.meta()
        known = frozenset(facts.get(TOKENS_FACT, "").split()) if self._token is None else frozenset(self._mine)
        return facts[STORE_FACT], known

    async def _put(self, *, only_new: bool) -> bool:
        """Put this daemon's mark there; False if there is one, and *only_new* was said."""
        await self._behind.flush()
        facts = await self._catalogue.meta()
        token = secrets.token_hex(8)
        self._mine.add(token)  # a request without an answer may be carried out after the next one
        kept = [token, *facts.get(TOKENS_FACT, "").split()][:_KEPT_TOKENS]
        self._behind.meta(TOKENS_FACT, " ".join(kept))
        await self._behind.durable()  # or the next daemon would not know the mark for its own
        since = datetime.fromtimestamp(self._clock.now_ns() // 10**9, UTC).isoformat()
        mark = Mark(facts[STORE_FACT], token, socket.gethostname(), self._root, since)
        put = partial(self._objects.put_small, MARK_KEY, mark.to_json(), only_new=only_new)
        if not await self._ask(put):
            return False
        # A server that does not know the condition has written all the same: who wrote last has it.
        if only_new and await self.mark() != mark:
            return False
        self._token = token
        return True

    def _note_ours(self) -> None:
        if self.refusal is not None:
            log.info("%s is this store's", self._url)
        self.refusal = self.lost = None
        self._good_until = trio.current_time() + LOOK_EVERY_S

    async def _tell_lost(self) -> str:
        """Say loudly what is gone. Not a refusal of S3's: what is uploaded would hide it, and use up the way back."""
        lost = f"{lost_words(self._url, (await self._known())[1])}; nothing there is changed"
        refusal = f"{lost}. {_sentence(LOST_REMEDY)}"
        if self.lost is None:
            log.error("%s", refusal)
        self.refusal, self.lost = refusal, lost
        self._refused_until = trio.current_time() + REFUSED_LOOK_S
        return refusal

    def _refuse(self, verdict: Verdict, mark: Mark | None) -> None:
        if verdict is Verdict.UNKNOWN:
            what = f"{self._url} holds objects that this store knows nothing of"
        elif verdict is Verdict.FOLLOWED:
            what = f"{self._url} is used by a copy of this store: {mark}"
        else:
            what = f"{self._url} belongs to {mark}"
        refusal = (
            f"{what}; nothing there is changed. Mount the store it belongs to, or set another [s3] prefix, or take it"
            f" over with `recfs bucket claim --force`"
        )
        if refusal != self.refusal:
            log.error("%s", refusal)
        self.refusal, self.lost = refusal, None
        self._refused_until = trio.current_time() + REFUSED_LOOK_S
        raise PrefixTaken(refusal)

    async def _look(self, function: Callable[[], Result]) -> Result:
        """Ask S3 for what changes nothing: nobody has to wait for the answer to the end."""
        return await trio.to_thread.run_sync(function, limiter=self._limiter, abandon_on_cancel=True)

    async def _ask(self, function: Callable[[], Result]) -> Result:
        return await trio.to_thread.run_sync(function, limiter=self._limiter)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _tops() -> list[str]:
    return [f"{name.decode('ascii')}/" for name in TOP_DIRS]
