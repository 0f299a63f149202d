"""`Uploads`: what requests do with uploads. Who may is decided before; here it is only done, each thing once."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, TypeVar

from anyio import CapacityLimiter

from recfs.client.uploads import check_upload
from recfs.web.limiters import Turns
from recfs.web.uploads import admission, leavings, staged
from recfs.web.uploads.body import Body, Checksum
from recfs.web.uploads.commit import commit
from recfs.web.uploads.errors import CutOff, Incomplete, NoUpload, TooMuch, UploadGone, WrongChecksum, WrongOffset
from recfs.web.uploads.hands import Hands
from recfs.web.uploads.live import TAIL, Live
from recfs.web.uploads.plan import ANYTHING, NOTHING, Plan, UploadId
from recfs.web.uploads.staged import Committed, Folders, Found, Held
from recfs.web.uploads.writing import written

logger = logging.getLogger(__name__)
T = TypeVar("T")
IDLE_S: Final = 60.0
"""So long bytes stay open that nobody asks for: temp's age counts from the close."""
NOTE_BYTES: Final = 64 << 20
"""So much of one request may have to be sent again after the death of the gateway."""
SOON_S: Final = 0.5
"""So long is waited for a commit before somebody who only asks is told that it goes on."""
TIDY_S: Final = 600.0
"""So often what was left is looked for."""
AGAIN_S: Final = 5.0
"""… and so long after a look that failed: the daemon may have begun later than the gateway."""
REMEMBERED_NS: Final = 3600 * 10**9
"""So long whoever asks once more for the end of an upload is answered the same. Its directory is kept for that."""
COMMITS: Final = 64
"""So many are waited for at once until they are sealed: a thread each, which does nothing …"""
COMMITS_OF_USER: Final = 8
"""… and so many of one user, so that nobody's small file waits for all the large ones of somebody else."""


class Uploads(Hands):
    """The uploads of one mount; to be made in the event loop."""

    def __init__(
        self, folders: Folders, *, calls: CapacityLimiter, writes: CapacityLimiter, idle_s: float = IDLE_S
    ) -> None:
        super().__init__(folders, calls, writes, idle_s)
        self._commits = CapacityLimiter(COMMITS)
        self._turns = Turns(COMMITS_OF_USER)
        self._begun = False
        self._closed: list[str] = []
        """Where nothing can be staged, as was told last."""
        self._ending = threading.Event()

    def end(self) -> None:
        """Have what may take long wait no longer: the gateway is about to end. Whoever comes back goes on."""
        self._ending.set()

    def begin(self) -> None:
        """Have ended what an earlier process left, once; returns at once."""
        if not self._begun:
            self._begun = True
            self._spawn(self._tidy())

    # -- making, asking, removing ---

    async def create(self, plan: Plan) -> Found:
        """Stage an upload, with room for its bytes. Raises what `admit` and `staged.create` do."""
        await self.admit(plan)
        async with self._using(plan.id) as live:  # from the beginning, so that `recover` leaves it alone
            live.held = held = await self._in_thread(self._writes, lambda: staged.create(self._folders, plan))
        return _found(held)

    async def begin_with(
        self, plan: Plan, body: Body | None, checksum: Checksum | None = None, size: int | None = None
    ) -> Found:
        """`create`, and `append` its first bytes, or `complete` an empty one. Where these are refused nothing is left.

        A body that is cut off is no refusal: the upload is there, with what came.
        """
        if size is not None and plan.length is not None and size > plan.length:
            raise TooMuch(f"this upload has {plan.length} bytes")
        found = await self.create(plan)
        try:
            if body is None:
                return replace(found, committed=await self.complete(plan.id))
            return await self.append(plan.id, 0, body, checksum)
        except CutOff:
            return await self.look(plan.id)
        except Exception:  # nobody was told its id
            async with self._using(plan.id) as live:
                await self._undo(live)
            raise

    async def admit(self, plan: Plan) -> None:
        """Raise what an upload would be refused for before any of its bytes comes."""
        # The checksum of what is to be replaced may have to be waited for.
        limiter = self._calls if plan.replaces in (NOTHING, ANYTHING) else self._commits
        await self._in_thread(limiter, lambda: admission.admit(self._folders, plan.check()))

    async def look(self, id: UploadId) -> Found:
        """Tell how far an upload is; nobody is stopped. Raises NoUpload, UploadGone, OSError."""
        return await self._in_thread(self._calls, lambda: staged.look(self._folders, id))

    def busy(self, id: UploadId) -> str:
        """Tell what goes on with an upload here: "committing", "receiving", or ""."""
        live = self._live.get(id)
        if live is None:
            return ""
        return "committing" if live.committing else "receiving" if live.sending else ""

    async def resume(self, id: UploadId) -> Found:
        """Tell where an upload goes on, to who is about to. Who was sending is stopped, and what came of it counts.

        One that is whole is never told of before it is committed: UploadBusy meanwhile. Raises also what `commit` does.
        """
        async with self._many(id) as live:
            live.check()
            await live.stop(TAIL)
            found = await self.look(id)
            _check_resumable(found.plan)
            length = found.plan.length
            if found.committed is None and length is not None and found.received.whole(length):
                task = self._begin_commit(live)
                await asyncio.wait([task], timeout=SOON_S)
                live.check()
                return Found(found.plan, found.received, await task, found.changed_ns)
            return found

    async def remove(self, id: UploadId) -> None:
        """Remove an upload and its bytes; of one that is committed, what is remembered of it. Raises as `look`."""
        async with self._using(id) as live:
            live.check()
            async with live.ending:
                await live.stop()
                try:
                    async with self._opened(live) as held:
                        if held is not None:
                            await self._in_thread(self._calls, lambda: staged.remove(self._folders, held))
                            return
                except UploadGone:
                    pass
                finally:
                    await self._drop(live)
                await self._in_thread(self._calls, lambda: staged.forget(self._folders, id))

    # -- bytes ---

    async def append(
        self, id: UploadId, offset: int, body: Body, checksum: Checksum | None = None, size: int | None = None
    ) -> Found:
        """Take bytes at the end of what is there; the last one has it committed, and this returns when it is.

        *size* is how many they are said to be: too many are refused before they come.
        What came of a body that is cut off counts, unless it has a checksum. Raises WrongOffset, WrongChecksum,
        TooMuch, UploadBusy, CutOff, OSError, and what `commit` does.
        """
        async with self._many(id) as live:
            async with live.sender(TAIL, body), self._opened(live) as held:
                if held is None:
                    return await self._retried(id, offset)
                _check_resumable(held.plan)
                at = held.received.prefix
                if offset != at:
                    raise WrongOffset(at)
                if size is not None and held.plan.length is not None and at + size > held.plan.length:
                    raise TooMuch(f"this upload has {held.plan.length} bytes")
                await self._take(live, held, body, at, checksum)
                found = _found(held)
            if found.plan.length is not None and found.received.whole(found.plan.length):
                return replace(found, committed=await self._committed(live))
            return found

    async def _retried(self, id: UploadId, offset: int) -> Found:
        """The answer to a last request that is made again, its answer having been lost."""
        found = await self.look(id)
        if found.committed is None or offset != found.committed.size_bytes:
            raise WrongOffset(0 if found.committed is None else found.committed.size_bytes)
        return found

    async def chunk(self, id: UploadId, index: int, body: Body, checksum: Checksum | None = None) -> Found:
        """Take a whole chunk, in any order; one that has come already is not read again.

        Raises ValueError for an index there is not, Incomplete and TooMuch for another length, Scattered, and as
        `append` does.
        """
        async with self._many(id) as live, live.sender(index, body), self._opened(live) as held:
            if held is None:
                return await self.look(id)
            _check_resumable(held.plan)
            first, end = held.plan.chunk(index)
            if not held.received.covers(first, end):
                await self._take(live, held, body, first, checksum, end=end)
            return _found(held)

    async def complete(self, id: UploadId) -> Committed:
        """Commit an upload all of whose bytes have come. Raises Incomplete, and what `commit` does."""
        async with self._many(id) as live:
            found = await self.look(id)
            if found.committed is not None:
                return found.committed
            _check_resumable(found.plan)
            return await self._committed(live)

    async def put(self, plan: Plan, body: Body, keep: Callable[[int], None] | None = None) -> Committed:
        """Take a file in one go; nothing is left where that fails. Raises as `create` and `append`.

        *keep* is called with its descriptor, in a thread, when all bytes have come: it may set attributes, or refuse.
        """
        plan = replace(plan, resumable=False)
        await self.create(plan)
        async with self._using(plan.id) as live:
            live.one_shot = True
            try:
                async with live.sender(TAIL, body), self._opened(live) as held:
                    assert held is not None  # nobody else knows of it
                    size = 0
                    async with aclosing(self._written(held, body, 0, None, None)) as written:
                        async for count in written:
                            size += count
                    if plan.length is not None and size != plan.length:
                        raise Incomplete(((size, plan.length),))
                    if plan.is_source:
                        check_upload(plan.path[0], size)
                    if keep is not None:
                        await self._in_thread(self._calls, lambda: keep(held.data))
                return await self._committed(live)
            except Exception:
                await self._undo(live)
                raise

    async def _undo(self, live: Live) -> None:
        """Take away an upload that nobody will go on with."""
        try:
            await self.remove(live.id)
        except Exception as error:  # temp's age sees to it
            logger.info("upload %s was not removed: %s", live.id, error)

    async def _take(
        self, live: Live, held: Held, body: Body, at: int, checksum: Checksum | None, *, end: int | None = None
    ) -> None:
        """Write what comes, and note it: of a whole chunk, up to *end*, and of what has a checksum, all or nothing."""
        noted = first = at
        whole_only = end is not None or checksum is not None
        try:
            async with aclosing(self._written(held, body, at, checksum, end)) as written:
                async for count in written:
                    at += count
                    if not whole_only and at - noted >= NOTE_BYTES:
                        await self._note(live, held, noted, at)
                        noted = at
        except CutOff:
            if not whole_only and at > noted:
                await self._note(live, held, noted, at)
            raise
        if end is not None and at != end:
            raise Incomplete(((at, end),))
        if checksum is not None and not checksum.right():
            raise WrongChecksum("these bytes are not those of their checksum")
        if at > noted:
            await self._note(live, held, first if whole_only else noted, at)

    async def _note(self, live: Live, held: Held, first: int, end: int) -> None:
        async with live.noting:
            await self._in_thread(self._writes, lambda: held.note(first, end))

    def _written(
        self, held: Held, body: Body, at: int, checksum: Checksum | None, end: int | None
    ) -> AsyncGenerator[int, None]:
        def write(blocks: list[bytes], to: int) -> int:
            size = held.write(blocks, to)
            if checksum is not None:
                checksum.update(blocks)
            return size

        return written(body, at, end, lambda blocks, to: self._in_thread(self._writes, lambda: write(blocks, to)))

    # -- the end ---

    def _begin_commit(self, live: Live) -> asyncio.Task[Committed]:
        if live.commit is None or live.commit.done():
            live.commit = asyncio.ensure_future(self._commit(live))
            # Whoever waited may be gone: what is to be told is found on the mount by the next who asks.
            live.commit.add_done_callback(lambda task: task.cancelled() or task.exception())
        return live.commit

    async def _committed(self, live: Live) -> Committed:
        """Commit, and go on with it although whoever waits is cancelled."""
        return await asyncio.shield(self._begin_commit(live))

    async def _commit(self, live: Live) -> Committed:
        async with self._using(live.id), live.ending:
            await live.stop()
            try:
                async with self._opened(live) as held:
                    if held is not None:
                        async with self._turns.turn(live.id.user):
                            return await self._in_thread(
                                self._commits, lambda: commit(self._folders, held, self._ending)
                            )
            finally:
                await self._drop(live)
            found = await self.look(live.id)
            if found.committed is None:
                raise UploadGone("its bytes are gone")
            return found.committed

    async def _tidy(self) -> None:
        """See to what is left, now and again, as long as the gateway runs."""
        while True:
            is_done = await self.recover()
            await asyncio.sleep(TIDY_S if is_done else AGAIN_S)

    async def recover(self) -> bool:
        """End what an earlier process left: what was to be committed is, and what nobody can go on with is removed.

        What ended long ago is forgotten: whoever asks for it once more is told that there is no such upload. Tells
        whether all could be looked at.
        """
        try:
            users = await self._in_thread(self._calls, lambda: admission.users(self._folders))
        except Exception as error:
            logger.warning("temp/ could not be looked through for uploads that were left: %s", error)
            return False
        await self._tell_what_is_closed(users)
        is_done = True
        for user in users:
            try:
                await self._recover(user)
            except PermissionError as error:  # it will not be another time either, and was told
                logger.info("temp/%s could not be looked through: %s", user, error)
            except Exception as error:
                logger.info("temp/%s could not be looked through: %s", user, error)
                is_done = False
        return is_done

    async def _tell_what_is_closed(self, users: Sequence[str]) -> None:
        """Warn of directories in which no upload can be staged; once, until others are."""
        closed = await self._in_thread(self._calls, lambda: admission.closed_to_us(self._folders, users))
        if closed and closed != self._closed:
            first, more = closed[0], len(closed) - 1
            logger.warning(
                "nothing can be uploaded by way of %s%s: the gateway runs as uid %d, which may make nothing there; the"
                " operator's guide has what its group needs (docs/runbook.md, Serve by HTTP)",
                first, f" and {more} more" if more else "", os.geteuid(),
            )  # fmt: skip
        self._closed = closed

    async def _recover(self, user: str) -> None:
        before_ns = time.time_ns() - REMEMBERED_NS
        for id in await self._in_thread(self._calls, lambda: admission.ended(self._folders, user, before_ns)):
            if id not in self._live:
                await self._in_thread(self._calls, lambda id=id: staged.forget(self._folders, id))  # type: ignore[misc]
        for id in await self._in_thread(self._calls, lambda: admission.unfinished(self._folders, user)):
            if id in self._live:
                continue
            try:
                if await self._in_thread(self._calls, lambda id=id: leavings.clear(self._folders, id)):  # type: ignore[misc]
                    continue
                found = await self.look(id)
                if id in self._live:  # somebody has come meanwhile
                    continue
                if found.committed is None and not found.plan.resumable:
                    await self.remove(id)
                elif found.committed is None and found.wanted:
                    await self.complete(id)
            except Exception as error:  # whoever it belongs to is told when they ask
                logger.info("upload %s was left: %s", id, error)


def _check_resumable(plan: Plan) -> None:
    """Raise NoUpload for one that came in one request: what is left of it is no upload to go on with."""
    if not plan.resumable:
        raise NoUpload("there is no such upload")


def _found(held: Held) -> Found:
    """How far an upload is that was changed just now."""
    return Found(held.plan, held.received, None, time.time_ns())


__all__ = ["COMMITS", "IDLE_S", "NOTE_BYTES", "REMEMBERED_NS", "SOON_S", "TIDY_S", "Uploads"]
