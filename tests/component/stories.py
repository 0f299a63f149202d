"""Random stories of files that S3 has: names and bytes change while answers of S3 are lost and the daemon dies.

What a story ends with is known: files have bytes that were written to them, nothing is refused for ever, the bucket has
what the rows say and nothing else, and is empty once everything was removed. `Story.acts` tells what happened.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import trio

from recfs.errors import RecfsError
from recfs.fs.attributes import Changes
from recfs.ports.object_errors import ServerFault, Unreachable
from recfs.ports.objects import ObjectInfo
from recfs.state.nodes import FileNode
from recfs.tier.queue.unanswered import KEPT_S

from .build import OPERATOR, REC, Filesystem, pattern
from .far import ask, bucket

MIB = 1 << 20
RETENTION_S = 100 * KEPT_S
NAMES = [f"{REC}/{name}" for name in ("a", "b", "d/a", "d/b")]
BEGUN = b"begun"
"""What is written to the beginning of a file that is opened for writing."""
ROUNDS = 40
"""After so many looks, with all that waits hurried, nothing may be left to do."""
CARRIED_OUT = ("put_file", "finish_multipart", "start_multipart", "copy", "delete")


class Wrong(AssertionError):
    """A story that did not end well."""


class Story:
    """One store, and what happens to it."""

    def __init__(self, fs: Filesystem, seed: int, *, own_etags: bool, twins: bool = False) -> None:
        """*own_etags*: each copy gets another etag than its source, as where it is no MD5. *twins*: files are written
        that have the bytes of others. Before the start.
        """
        self.fs = fs
        self.chance = random.Random(seed)
        self.acts: list[str] = []
        self._written = {b""}
        self._ends: set[bytes] = set()
        """What is left of them when their beginning is written over."""
        self._open: list[int] = []
        self._own_etags, self._twins = own_etags, twins
        self._dies_after: str | None = None
        """Of which kind the request is that S3 carries out before the daemon dies."""
        self._go_on = threading.Event()
        objects = bucket(fs)
        for operation in CARRIED_OUT:
            setattr(objects, operation, self._watched(operation, getattr(objects, operation)))

    def _watched(self, operation: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        objects = bucket(self.fs)

        @functools.wraps(plain)
        def call(*args: Any, **more: Any) -> Any:
            if self.chance.random() < 0.2:
                self._go_on.clear()
                self._go_on.wait(0.03)
            before = dict(objects._objects)
            try:
                answer = plain(*args, **more)
            finally:
                if operation == "copy" and self._own_etags:
                    for key, made in objects._objects.items():
                        if before.get(key) is not made:
                            made.etag = f"{made.modified_ns:032x}"
            if self.chance.random() < 0.4:  # until something else happens
                self._go_on.clear()
                self._go_on.wait(0.03)
            if operation == self._dies_after:
                self._dies_after = None
                self.fs.faults.die()
            if isinstance(answer, ObjectInfo) and (found := objects._objects.get(answer.key)) is not None:
                answer = replace(answer, etag=found.etag)
            return answer

        return call

    # --- what happens ------------------------------------------------------------------------------------------------

    async def tell(self, length: int) -> None:
        """So many things happen, one after the other."""
        acts: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (8, self.write), (4, self.begin), (2, self.end_writing), (8, self.rename), (4, self.exchange),
            (5, self.remove), (4, self.describe), (6, self.evict), (3, self.look), (4, self.restore), (2, self.purge),
            (5, self.die), (8, self.lose_answers), (6, self.heal), (12, self.time_goes_by), (3, self.rename_folder),
        ]  # fmt: skip
        if self._twins:
            acts.append((40, self.write_again))
            await self.write()  # what there is to be copied from
            await self.fs.drain()
        weights, ways = [weight for weight, _ in acts], [way for _, way in acts]
        for _ in range(length):
            way = self.chance.choices(ways, weights)[0]
            self._go_on.set()
            try:
                await way()
            except RecfsError as error:  # no such file, S3 that is away
                self._told(f"  {type(error).__name__}")
            except BaseException:
                if not self.fs.faults.dead:
                    raise
            if self.fs.faults.dead:
                await self._start_again("the death it was to die")

    def _told(self, text: str) -> None:
        self.acts.append(text)

    async def _name(self) -> str:
        """Of a file that is there, mostly."""
        there = [name for name in NAMES if await self.fs.exists(name)]
        return self.chance.choice(there if there and self.chance.random() < 0.8 else NAMES)

    def _bytes(self) -> bytes:
        size = self.chance.choice((1, 100, 5000, MIB + 100))
        made = pattern(size, self.chance.randrange(1000))
        self._written.add(made)
        self._ends.add(made[len(BEGUN) :])
        return made

    async def write(self) -> None:
        name, data = await self._name(), self._bytes()
        self._told(f"write {name} {len(data)}")
        await self.fs.write(name, data)

    async def write_again(self) -> None:
        """What S3 has of another file, if that is known here."""
        nodes = [node for node in self.fs.parts.tree.nodes.values() if isinstance(node, FileNode) and node.object]
        known = {hashlib.sha256(data).digest(): data for data in self._written}
        there = [known[node.object.sha256] for node in nodes if node.object and node.object.sha256 in known]
        if there:
            name, data = await self._name(), self.chance.choice(there)
            self._told(f"write again {name} {len(data)}")
            await self.fs.write(name, data)

    async def begin(self) -> None:
        """Open for writing, and write."""
        name, truncate = await self._name(), self.chance.choice((os.O_TRUNC, 0))
        self._told(f"begin {name} {truncate}")
        await self.fs.mkdirs(name.rpartition("/")[0])
        number = await self.fs.open(name, os.O_WRONLY | os.O_CREAT | truncate)
        self._open.append(number)
        await self.fs.vfs.files.write(number, 0, BEGUN)

    async def end_writing(self) -> None:
        if self._open:
            self._told("end writing")
            number = self._open.pop(self.chance.randrange(len(self._open)))
            await self.fs.close(number)

    async def rename(self) -> None:
        old, new = await self._name(), await self._name()
        self._told(f"rename {old} {new}")
        await self.fs.mkdirs(new.rpartition("/")[0])
        await self.fs.rename(old, new)

    async def exchange(self) -> None:
        old, new = await self._name(), await self._name()
        self._told(f"exchange {old} {new}")
        await self.fs.rename(old, new, exchange=True)

    async def rename_folder(self) -> None:
        self._told("rename d away and back" if self.chance.random() < 0.5 else "rename d to e")
        if await self.fs.exists(f"{REC}/e"):
            await self.fs.rename(f"{REC}/e", f"{REC}/d")
        else:
            await self.fs.rename(f"{REC}/d", f"{REC}/e")

    async def remove(self) -> None:
        name = await self._name()
        self._told(f"remove {name}")
        await self.fs.unlink(name)

    async def describe(self) -> None:
        name, mode = await self._name(), self.chance.choice((0o600, 0o644, 0o640))
        self._told(f"chmod {name} {mode:o}")
        await self.fs.vfs.setattr((await self.fs.node(name)).ino, Changes(mode=mode), OPERATOR)

    async def evict(self) -> None:
        self._told("evict")
        for node in list(self.fs.parts.tree.nodes.values()):
            if isinstance(node, FileNode) and self.fs.tier.evictor.may_evict(node) is None:
                self.fs.tier.evictor.evict(node)

    async def look(self) -> None:
        name = await self._name()
        self._told(f"read {name}")
        with trio.move_on_after(5):
            await self.fs.read(name)

    async def restore(self) -> None:
        numbers = [each["number"] for each in (await ask(self.fs, "trash_list"))["entries"]]
        if numbers:
            number = self.chance.choice(numbers)
            self._told(f"restore {number}")
            await ask(self.fs, "trash_restore", ids=[number], force=self.chance.random() < 0.5)

    async def purge(self) -> None:
        numbers = [each["number"] for each in (await ask(self.fs, "trash_list"))["entries"]]
        if numbers:
            number = self.chance.choice(numbers)
            self._told(f"purge {number}")
            await ask(self.fs, "trash_purge", ids=[number])

    async def lose_answers(self) -> None:
        operation, times = self.chance.choice(CARRIED_OUT), self.chance.choice((1, 2, 1000))
        after, error = self.chance.random() < 0.7, self.chance.choice((Unreachable, ServerFault))
        self._told(f"lose {operation} {times} {'after' if after else 'before'} {error.__name__}")
        bucket(self.fs).fail(operation, error("the answer was lost"), times=times, after=after)

    async def heal(self) -> None:
        self._told("heal")
        bucket(self.fs).heal()

    async def time_goes_by(self) -> None:
        steps, seconds = self.chance.randrange(20), self.chance.choice((0.0, 0.1, 3.0, 20.0))
        self._told(f"time {steps} {seconds}")
        for _ in range(steps):
            self.fs.clock.advance(seconds)
            self.fs.tier.journal.wake.set()
            await trio.sleep(0.01)
            if self.fs.faults.dead:
                return

    async def die(self) -> None:
        """At once, or when S3 has carried the next request of a kind out."""
        if self.chance.random() < 0.5:
            await self.fs.parts.behind.durable()
            await self._start_again("die")
        else:
            self._dies_after = self.chance.choice(CARRIED_OUT)
            self._told(f"is to die after {self._dies_after}")

    async def _start_again(self, why: str) -> None:
        self._told(why)
        self._open.clear()
        self._dies_after = None
        await self.fs.crash()
        await self.fs.reopen()

    # --- how it ends -------------------------------------------------------------------------------------------------

    async def end(self) -> None:
        """Nobody works any more, and S3 answers. Raises Wrong."""
        fs = self.fs
        self._dies_after = None
        for number in self._open:
            await fs.close(number)
        bucket(fs).heal()
        await self._settle()
        await self._rows_and_bucket()
        for name, content in (await self._files()).items():
            if content is None or not self._was_written(content):
                raise Wrong(f"{name}, {await fs.state(name)}: {'not to be read' if content is None else 'other bytes'}")
        self._told("remove all")
        for name in await self._files():
            await fs.unlink(name)
        await ask(fs, "trash_purge", all=True)
        await self._settle()
        if bucket(fs).keys() or bucket(fs).list_multiparts():
            left = [*bucket(fs).keys(), *bucket(fs).list_multiparts()]
            raise Wrong(f"all was removed, and there is {left}: {list(fs.tier.journal.rows.values())}")

    async def _files(self) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        for path in await self._paths(REC):
            try:
                found[path] = await self.fs.read(path)
            except RecfsError as error:
                self._told(f"reading {path}: {error!r}")
                found[path] = None
        return found

    def _was_written(self, content: bytes) -> bool:
        begun = content.startswith(BEGUN)
        return content in self._written or (begun and (content == BEGUN or content[len(BEGUN) :] in self._ends))

    async def _paths(self, folder: str) -> list[str]:
        found = []
        for name in await self.fs.names(folder):
            path = f"{folder}/{name}"
            found += [path] if isinstance(await self.fs.node(path), FileNode) else await self._paths(path)
        return found

    async def _settle(self) -> None:
        fs = self.fs
        for _ in range(ROUNDS):
            for node in list(fs.parts.tree.nodes.values()):
                if isinstance(node, FileNode):
                    fs.parts.committer.hurry(node.ino)
            for row in list(fs.tier.journal.rows.values()):
                if row.kind != "delete":
                    fs.tier.journal.retry(row.id)
            fs.clock.advance(KEPT_S + 1)
            fs.tier.journal.wake.set()
            await fs.parts.behind.flush()
            await trio.sleep(0.2)
            if not self._left() and not fs.parts.committer.depth:
                return
        raise Wrong(f"work is left: {self._left()}")

    def _left(self) -> list[Any]:
        """Work but for deletions that wait for the retention of the trash."""
        journal, soon = self.fs.tier.journal, self.fs.clock.steady_ns() + round(2 * KEPT_S * 10**9)
        rows = [row for row in journal.rows.values() if row.kind != "delete" or row.next_try_ns < soon]
        return rows + list(journal.running)

    async def _rows_and_bucket(self) -> None:
        fs = self.fs
        await fs.parts.behind.flush()
        rows = {key: (etag, sha256) for key, etag, sha256 in fs.rows("select key, etag, sha256 from object")}
        kept = {row.key for row in fs.tier.journal.rows.values() if row.kind == "delete"}
        there = {key: bucket(fs)._objects[key] for key in bucket(fs).keys()}  # noqa: SIM118
        if surplus := there.keys() - rows.keys() - kept:
            raise Wrong(f"objects of nobody: {surplus}")
        if missing := rows.keys() - there.keys():
            raise Wrong(f"objects that are gone: {missing}")
        for gid, key, sha256 in fs.rows("select gid, object_key, sha256 from trash_entry where object_key is not null"):
            if key not in there or hashlib.sha256(there[key].data).digest() != sha256:
                raise Wrong(f"version {gid} in the trash has no object {key}")
        for key, (etag, sha256) in rows.items():
            if hashlib.sha256(there[key].data).digest() != sha256:
                raise Wrong(f"the object {key} is not what its row says")
            if etag != there[key].etag:
                raise Wrong(f"the object {key} has etag {there[key].etag}, and its row says {etag}")
