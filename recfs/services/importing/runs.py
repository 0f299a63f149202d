"""Objects of the bucket become files without being downloaded: `recfs import s3://…`.

The bucket is listed in pages beside the rows of the catalogue, so that what is known costs no request. Of the others
each is asked for its metadata, many at once, and becomes a file by what that says. Nothing is kept of a run: one that
was ended, by whatever, begins anew and finds what it made.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from recfs.core.migration.adopting import Digests
from recfs.core.migration.places import place_of_url
from recfs.core.upkeep.rebuilding import place_of
from recfs.errors import InvalidArgument
from recfs.fs.leftovers.imports import KNOWN, Wanted
from recfs.services.importing.looking import Looked, hashed, look
from recfs.state.problems import reason_of
from recfs.state.work.outcome import Outcome, side_by_side
from recfs.state.work.runs import Runs
from recfs.tier.leftovers import OWN, RowsByKey, next_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.fs.leftovers.imports import Imports
    from recfs.ports.objects import ObjectInfo
    from recfs.services.importing.copying import Copying
    from recfs.state.tree import Tree
    from recfs.tier.tier import Tier

PART = "imports"
AT_ONCE = 50
"""So many keys are looked for between two requests of others."""
ASKED = 8
"""For so many a thread of the pool is given its turn once."""
CHUNK = 100
"""So many become files in one stretch, between two requests of others."""


class Options(NamedTuple):
    """What is wanted."""

    url: str = ""
    """Where: `s3://BUCKET/PREFIX`, the store's own prefix or below it; "" for all of that."""
    download: bool = False
    """Read what has no checksum."""
    dry_run: bool = False
    """Only look."""


class Import:
    """One run."""

    def __init__(
        self, tier: Tier, tree: Tree, imports: Imports, prefix: str, options: Options, *, threads: int
    ) -> None:
        """*prefix*: only keys that begin so; relative to the store's."""
        self._prefix = prefix
        self._tier = tier
        self._tree = tree
        self._imports = imports
        self._options = options
        self._threads = threads
        self._limiter = trio.CapacityLimiter(2)
        """One lists, one asks."""
        self._outcome = Outcome()
        self._listed = 0
        self._reading = threading.Lock()
        """Many threads read, and count."""
        self._read_bytes = 0
        self._began_s = trio.current_time()
        self._at = ""
        self._is_over = False
        """Threads are to end."""
        self.failed: str | None = None
        self.scope = trio.CancelScope()
        self.asked_s = trio.current_time()
        self.ended = trio.Event()

    def as_json(self) -> dict[str, Any]:
        """How far it is: `objects` were listed, `files` made, `already` were files; `kept` were left, with reasons."""
        return self._outcome.as_json() | {
            "objects": self._listed,
            "read_bytes": self._read_bytes,
            "dry_run": self._options.dry_run,
            "at": self._at,
            "took_s": trio.current_time() - self._began_s,
            "ended": self.ended.is_set(),
            "interrupted": self.scope.cancel_called,
            "failed": self.failed,
        }

    async def all(self) -> None:
        """Take in all of it. What an object meets is told as its own; what the bucket does ends the run."""
        try:
            try:
                with self.scope:
                    await self._tier.ownership.ensure()
                    await self._run()
            finally:
                await self._tree.behind.durable()  # what was counted is there after a power cut
        except Exception as error:
            self.failed = reason_of(error)
        finally:
            self._is_over = True
            self.ended.set()

    async def _run(self) -> None:
        """Ask for the next page while that before becomes files."""
        send, receive = trio.open_memory_channel[list[Looked]](1)
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="recfs-import")
        try:
            async with side_by_side() as nursery, receive:
                nursery.start_soon(self._ask, pool, send)
                async for page in receive:
                    await self._take(page)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # what is being asked is nobody's concern any more

    async def _ask(self, pool: ThreadPoolExecutor, send: trio.MemorySendChannel[list[Looked]]) -> None:
        listing, rows = iter(self._tier.objects.list(self._prefix)), RowsByKey(self._tree, self._prefix)
        async with send:
            while page := await self._in_thread(partial(next_page, listing)):
                unknown: list[ObjectInfo] = []
                for count, info in enumerate(page, 1):
                    if count % AT_ONCE == 0:
                        await trio.lowlevel.checkpoint()  # requests come first
                    if not await self._is_known(rows, info.key):
                        unknown.append(info)
                await send.send(await self._in_thread(partial(self._look_at_all, pool, unknown)))

    async def _in_thread(self, call: partial[Any]) -> Any:
        return await trio.to_thread.run_sync(call, limiter=self._limiter, abandon_on_cancel=True)

    async def _is_known(self, rows: RowsByKey, key: str) -> bool:
        """Whether there is nothing to be done about an object: it is a file's, recfs's own, or no file can have it."""
        self._listed += 1
        while await rows.before(key) is not None:
            pass
        if await rows.takes(key):
            self._outcome.already += 1
            return True
        if key.startswith(OWN):
            return True
        if place_of(key) is None:
            self._outcome.keep(key, "no file can have this key: the layout refuses it")
            return True
        return False

    def _look_at_all(self, pool: ThreadPoolExecutor, infos: Sequence[ObjectInfo]) -> list[Looked]:
        """In a thread."""
        pieces = [infos[start : start + ASKED] for start in range(0, len(infos), ASKED)]
        return [looked for piece in pool.map(self._look_at_some, pieces) for looked in piece]

    def _look_at_some(self, infos: Sequence[ObjectInfo]) -> list[Looked]:
        """In a thread of the pool."""
        return [self._look(info) for info in infos if not self._is_over]

    def _look(self, listed: ObjectInfo) -> Looked:
        """In a thread of the pool."""
        looked = look(self._tier.objects, listed)
        if isinstance(looked.found, str) and self._options.download and not self._options.dry_run:
            return hashed(self._tier.objects, looked.info, self._read, lambda: self._is_over)
        return looked

    def _read(self, size_bytes: int) -> None:
        with self._reading:
            self._read_bytes += size_bytes

    # --- taking --------------------------------------------------------------------------------------------------

    async def _take(self, page: Sequence[Looked]) -> None:
        for start in range(0, len(page), CHUNK):
            wanted = [each for looked in page[start : start + CHUNK] if (each := self._wanted(looked)) is not None]
            if self._options.dry_run:
                for each in wanted:
                    self._outcome.did(each.info.size_bytes)
                continue
            for each, fate in zip(wanted, await self._imports.take(wanted), strict=True):
                if fate is None:
                    self._outcome.did(each.info.size_bytes)
                elif fate == KNOWN:
                    self._outcome.already += 1
                else:
                    self._outcome.keep(each.info.key, fate)
            await trio.lowlevel.checkpoint()

    def _wanted(self, looked: Looked) -> Wanted | None:
        """What is to be a file, with its checksums; None, and told, for what is not."""
        self._at = looked.info.key
        if isinstance(looked.found, str):
            self._outcome.keep(looked.info.key, looked.found)
        return Wanted(looked.info, looked.found) if isinstance(looked.found, Digests) else None


class Importing(Runs[Import]):
    """Those that commands ask for."""

    def __init__(self, tier: Tier, tree: Tree, imports: Imports, copying: Copying, url: str, *, threads: int) -> None:
        """*url* of the store's own place; *threads*: so many objects are asked for their metadata at once."""
        super().__init__("import", 1)
        self._tier = tier
        self._tree = tree
        self._imports = imports
        self.copying = copying
        self._url = url
        self._threads = threads

    def new(self, options: Options) -> Import:
        """A run that nobody has begun. Raises InvalidArgument for a place where no file of the store has its object."""
        prefix = place_of_url(options.url or self._url).below(place_of_url(self._url))
        if prefix is None:
            raise InvalidArgument(
                f"{options.url} is not below {self._url}, where the store has its objects; what lies elsewhere is"
                " copied by rules (--rules)"
            )
        if prefix.startswith(OWN):
            raise InvalidArgument(f"{options.url} is recfs's own; no file's object lies there")
        return Import(self._tier, self._tree, self._imports, prefix, options, threads=self._threads)


__all__ = ["PART", "Import", "Importing", "Options"]
