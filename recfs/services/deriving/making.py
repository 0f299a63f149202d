"""One product, from its source to its place. Whoever dies in between goes on at the next start:

1. the row says `processing`, and in which temp job;
2. the program writes into a directory of its own; a new start empties that;
3. what it made is copied into the temp job and committed, charged to the recording's owner;
4. the row names the files that are about to be moved: they are known as recfs's own wherever a death leaves them;
5. they are renamed to their places, the one that names the others last: from there on there is a whole product;
6. the row says `completed`; what an earlier one has left goes, and so does the job.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import trio

from recfs.core.media.derived import Product, Status, companion, principal
from recfs.core.media.recipes import MEDIA, PRINCIPAL, grid, lacks, last_frame, playlist, recipe, scrubbing
from recfs.errors import AccessDenied
from recfs.fs.caller import may_grow
from recfs.services.deriving.programs import done_ms
from recfs.services.deriving.reasons import Gone, Refused, Unmade
from recfs.services.deriving.sources import while_wanted
from recfs.state.nodes import DirNode
from recfs.state.walk import file_at

if TYPE_CHECKING:
    from pathlib import Path

    from recfs.core.media.derived import Derived, DeriveRule, Made
    from recfs.core.media.facts import Facts
    from recfs.fs.session import Session
    from recfs.ports.derived import DerivedBooks
    from recfs.services.deriving.looking import Looking
    from recfs.services.deriving.placing import Job, Placing
    from recfs.services.deriving.programs import Programs
    from recfs.services.deriving.sources import Source, Sources
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree
    from recfs.stores.rooms import Rooms

TEXT_BYTES = 8 << 20
"""Of a playlist, at most: some 100,000 segments."""


class Making:
    """Makes products."""

    def __init__(
        self,
        tree: Tree,
        books: DerivedBooks,
        sources: Sources,
        looking: Looking,
        programs: Programs,
        rooms: Rooms,
        placing: Placing,
        threads: trio.CapacityLimiter,
    ) -> None:
        self._tree = tree
        self._books = books
        self._sources = sources
        self._looking = looking
        self._programs = programs
        self._rooms = rooms
        self._placing = placing
        self._threads = threads
        self._rooms_of: dict[tuple[int, Product], tuple[Path, int]] = {}
        """Where the program for a product writes, and how long the source is (ms)."""

    async def share(self, folder: int, product: Product) -> float | None:
        """How much of a product its program has done, from 0 to 1; None: none runs, or nobody knows."""
        room, duration_ms = self._rooms_of.get((folder, product), (None, 0))
        if room is None or duration_ms <= 0:
            return None
        return min(1.0, await trio.to_thread.run_sync(done_ms, room, limiter=self._threads) / duration_ms)

    async def place_of(self, record: Derived) -> tuple[DirNode, FileNode]:
        """The recording and the source. Raises Gone where the one is not in the other any more."""
        node = await file_at(self._tree, record.source)
        if node is None or node.unlinked or node.parent.ino != record.folder:
            raise Gone("the source is not in its recording any more")
        return node.parent, node

    async def require(self, folder: DirNode, node: FileNode, sha256: bytes, product: Product) -> Facts | None:
        """Raise what it is known by that a product cannot be made, before anything is run: Unmade, FsError.

        What is in the source is returned as far as that is known.
        """
        may_grow(folder)
        if not self._placing.may_read(node, folder):
            raise AccessDenied(f"the source is uid {node.uid}'s, and the recording's owner may not read it")
        facts = await self._looking.known(node, sha256)
        if facts is not None and (missing := lacks(product, facts)):
            raise Unmade(missing)
        return facts

    async def make(self, record: Derived, rule: DeriveRule) -> Derived:
        """Make it, and return what is to be kept of that. Raises Gone, Changed, Waits, Unmade and anything else."""
        folder, node = await self.place_of(record)
        if record.job:
            await self._placing.drop_job(record.job)
        await self.require(folder, node, record.sha256, rule.product)
        record = record._replace(
            status=Status.PROCESSING, job=self._placing.new_job(folder), at_ns=self._tree.clock.now_ns(),
            files=(*record.files, *(each for each in record.staged if each not in record.files)), staged=(),
        )  # fmt: skip
        await self._books.keep_derived(record)
        try:
            record, job = await self._staged(record, rule, folder, node)
            await self._books.keep_derived(record)
            return await self._placed(record, job)
        finally:
            await self._placing.drop_job(record.job)  # where the daemon stops, the next start does it

    async def _staged(
        self, record: Derived, rule: DeriveRule, folder: DirNode, node: FileNode
    ) -> tuple[Derived, Job]:  # fmt: skip
        async with self._sources.open(node, record.sha256) as source:
            facts = await self.require(folder, node, record.sha256, rule.product)  # mode bits, now that it is open
            if facts is None:
                facts = await self._looking.look(source)
                if missing := lacks(rule.product, facts):
                    raise Unmade(missing)
            with self._rooms.room(self._programs.identity) as room:
                key = (record.folder, record.product)
                self._rooms_of[key] = room, facts.duration_ms
                try:
                    work = partial(self._written, source, rule, facts, room)
                    await while_wanted(partial(self._still, record, source), work)
                finally:
                    del self._rooms_of[key]
                source.check()
                job, files = await self._copied(record, rule, node, facts, room)
            source.check()
        return record._replace(staged=files), job

    async def _written(self, source: Source, rule: DeriveRule, facts: Facts, room: Path) -> None:
        """Have the program make it; where it has made nothing, in the other way that there may be."""
        other = last_frame(rule, facts)
        try:
            await self._programs.write(source.fd, recipe(rule, facts), room)
            if other is None or _is_there(room / PRINCIPAL):
                return
        except Refused:
            if other is None:
                raise
        await self._programs.write(source.fd, other, room)

    async def _still(self, record: Derived, source: Source) -> None:
        """Raise Gone or Changed where nobody wants what is being made."""
        source.check()
        await self.place_of(record)

    async def _copied(
        self, record: Derived, rule: DeriveRule, node: FileNode, facts: Facts, room: Path
    ) -> tuple[Job, tuple[Made, ...]]:
        session, mode = self._placing.session(node.parent), node.mode & 0o666
        job = await self._placing.open_job(record.job, session)
        product, name = rule.product, principal(rule.product)
        first = os.path.basename(name)
        if product not in (Product.SPRITE, Product.HLS):
            made = await self._placing.put(session, job, first, _required(room / PRINCIPAL), mode)
            return job, (made._replace(name=name),)
        media = await self._placing.put(session, job, "media", _required(room / MEDIA), mode)
        called = companion(product, media.sha256)
        assert called is not None
        beside = os.path.basename(called)
        if product is Product.SPRITE:
            text = scrubbing(grid(facts, rule.wide), facts.duration_ms, beside).encode("utf-8")
        else:
            read = partial(_playlist, _required(room / PRINCIPAL), beside)
            text = await trio.to_thread.run_sync(read, limiter=self._threads)
        made = await self._placing.put(session, job, first, text, mode)
        return job, (media._replace(name=called), made._replace(name=name))

    async def _placed(self, record: Derived, job: Job) -> Derived:
        folder, _ = await self.place_of(record)
        session = self._placing.session(folder)
        ours = (*record.files, *record.staged)
        for made in record.staged:
            lies = "media" if made is not record.staged[-1] else os.path.basename(made.name)
            await self._placing.move(session, job, made._replace(name=lies), folder, made.name, ours)
        return await self.finished(record, folder, session)

    async def finished(self, record: Derived, folder: DirNode, session: Session) -> Derived:
        """Everything lies in its place: keep that, and remove what an earlier product has left."""
        done = record._replace(
            status=Status.COMPLETED, reason="", tries=0, next_ns=0, files=record.staged, staged=(),
            at_ns=self._tree.clock.now_ns(),
        )  # fmt: skip
        await self._books.keep_derived(done._replace(files=(*record.files, *record.staged)))
        names = {each.name for each in record.staged}
        for earlier in record.files:
            if earlier.name not in names:
                await self._placing.remove(session, folder, earlier)
        done = done._replace(job="")
        await self._books.keep_derived(done)
        return done

    async def recovered(self, record: Derived) -> Derived:
        """What a daemon that died has left of a product: finished, if all of it came to its place, else to be made.

        Raises Gone.
        """
        folder, _ = await self.place_of(record)
        if record.staged:
            there = [await self._placing.there(folder, each.name) for each in record.staged]
            if there == list(record.staged):
                done = await self.finished(record, folder, self._placing.session(folder))
                await self._placing.drop_job(record.job)
                return done
        return record._replace(status=Status.PENDING)


def _required(path: Path) -> Path:
    if not _is_there(path):
        raise Unmade("ffmpeg made nothing of it")
    return path


def _is_there(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size > 0


def _playlist(path: Path, media: str) -> bytes:
    """What ffmpeg wrote, with the name that its media file gets. Line by line, so that others run meanwhile. Blocks."""
    # What a confined program left there: no link of its making is followed.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, encoding="utf-8") as file:
        lines = []
        room = TEXT_BYTES
        for line in file:
            room -= len(line) + len(media) * (line.strip() == MEDIA)
            if room < 0:
                raise Unmade("the playlist would be too long")
            lines.append(line)
    try:
        return playlist(lines, media).encode("utf-8")
    except ValueError as error:
        raise Unmade(str(error)) from error


__all__ = ["Making"]
