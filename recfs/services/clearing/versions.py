"""The sweep "versions": of versions that lie beside each other the last are kept, as [[versions]] rules say.

Decides with `core/upkeep/versions.py`, directory by directory, and anew before each removal. What goes, goes as `rm -r`
would have it: into the trash, where that keeps anything.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from recfs.core.model import Kind
from recfs.core.sweeping import Schedule
from recfs.core.units import format_size
from recfs.core.upkeep.leftovers import Now
from recfs.core.upkeep.versions import Choice, Version, choose
from recfs.errors import FsError, IsADirectory, NotADirectory, Stale
from recfs.fs.caller import Caller
from recfs.ports.rows import ROOT_INO
from recfs.ports.sweep import Progress, Sweep
from recfs.state.nodes import DirNode, FileNode
from recfs.state.walk import Walk
from recfs.state.work.outcome import MOST_NAMED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from recfs.core.upkeep.versions import VersionRule
    from recfs.fs.vfs import Vfs
    from recfs.ports.kernel import KernelCache
    from recfs.ports.rows import NodeRow
    from recfs.state.nodes import Node

log = logging.getLogger("recfs.versions")

PART = "versions"
PATIENCE_S = 3600.0
PAGE = 200


class Below(NamedTuple):
    """Where versions are looked for that no [[versions]] rule need know, and which names they have."""

    top: int
    """Inode number of a directory."""
    rule: VersionRule
    is_deep: bool
    """Whether the directories below it are looked through, too."""


class VersionSweep:
    """Removes superfluous versions."""

    def __init__(
        self, vfs: Vfs, kernel: KernelCache, rules: Sequence[VersionRule],
        held_up: Callable[[], Awaitable[Mapping[int, str]]], *, every_s: float,
    ) -> None:  # fmt: skip
        """*held_up*: finds the directories that hold what is not to go with them, and why."""
        self._vfs = vfs
        self._tree = vfs.tree
        self._kernel = kernel
        self.rules = rules
        self._held_up = held_up
        self.every_s = every_s
        self._progress = Progress()

    def sweep(self) -> Sweep[Any, Any]:
        """For the registry."""
        schedule = Schedule.every(self.every_s, patience_s=PATIENCE_S)
        return Sweep(
            "versions", PART, schedule, self._look, lambda due: due or None, self._act,
            mounted=True, progress=self._progress,
        )  # fmt: skip

    async def preview(self, *, kept: bool = False) -> dict[str, Any]:
        """What a run would remove now, and why, as JSON; *kept*: also what stays of the series that it looks at."""
        told: list[dict[str, Any]] = []
        count = size = 0

        async def tell(folder: DirNode, rule: VersionRule) -> None:
            nonlocal count, size
            for choice in await self._choices(folder, rule):
                count += choice.removes
                size += choice.version.size_bytes if choice.removes else 0
                if (choice.removes or kept) and len(told) < MOST_NAMED:
                    told.append(_as_json(folder, choice))

        await self._folders(Progress(), tell)
        return {
            "versions": told,
            "removed": count,
            "bytes": size,
            "more": count - sum(each["removes"] for each in told),
        }

    async def listed(self, asked: Below) -> dict[str, Any]:
        """All versions below a directory, by series and number, as JSON. Raises FsError."""
        told: list[dict[str, Any]] = []
        count = 0

        async def tell(folder: DirNode, rule: VersionRule) -> None:
            nonlocal count
            found: list[Version] = []
            for entry in await self._entries(folder):
                parts = rule.split(entry.name)
                version = await self._version(entry, *parts) if parts is not None else None
                if version is not None:
                    count += 1
                    found.append(version)
            used = self._in_use()
            for each in sorted(found, key=lambda each: (each.series, each.number, each.name)):
                if len(told) < MOST_NAMED:
                    told.append(_listed(folder, each._replace(open_files=used[each.ino])))

        await self._folders(Progress(), tell, asked)
        return {"versions": told, "more": count - len(told)}

    async def prune(self, asked: Below, *, dry_run: bool) -> dict[str, Any]:
        """Remove what is superfluous below a directory by a rule that somebody asks for, as JSON. Raises FsError.

        What was removed, or with *dry_run* would be, and of the same series what stays, each with its reason.
        """
        told: list[dict[str, Any]] = []
        count = size = 0

        async def removed(folder: DirNode, choice: Choice) -> None:
            nonlocal count, size
            count += 1
            size += choice.version.size_bytes
            if len(told) < MOST_NAMED:
                told.append(_as_json(folder, choice))

        async def tell(folder: DirNode, rule: VersionRule) -> None:
            for choice in await self._choices(folder, rule):
                if choice.removes and dry_run:
                    await removed(folder, choice)
                elif not choice.removes and len(told) < MOST_NAMED:
                    told.append(_as_json(folder, choice))
            if not dry_run:
                await self._clear(folder, rule, Progress(), removed)

        await self._folders(Progress(), tell, asked)
        await self._vfs.behind.durable()
        named = sum(each["removes"] for each in told)
        return {"versions": told, "removed": count, "bytes": size, "more": count - named}

    # --- looking -------------------------------------------------------------------------------------------------

    async def _look(self) -> bool:
        """Whether anything is to be removed: the first of it is enough."""
        looking = Progress()

        async def tell(folder: DirNode, rule: VersionRule) -> None:
            if any(choice.removes for choice in await self._choices(folder, rule)):
                looking.is_stopping = True

        await self._folders(looking, tell)
        return looking.is_stopping

    async def _folders(
        self, progress: Progress, tell: Callable[[DirNode, VersionRule], Awaitable[None]], below: Below | None = None
    ) -> None:
        """Tell of each directory that versions may lie in, once for each rule that takes it."""
        rules = self.rules if below is None else (below.rule,)
        pending = [ROOT_INO if below is None else below.top]
        while pending and not progress.is_stopping:
            try:
                folder = await self._tree.directory(pending.pop())
            except (Stale, NotADirectory):
                continue
            path = tuple(folder.parts())
            for rule in rules:
                if rule.takes_folder(path) and not folder.unlinked:
                    await tell(folder, rule)
            is_deep = below is None or below.is_deep
            if is_deep and any(rule.may_lead_on(path) for rule in rules):
                pending += [entry.ino for entry in await self._entries(folder) if Kind(entry.kind) is Kind.DIR]
            progress.done += 1
            await trio.lowlevel.checkpoint()

    async def _entries(self, folder: DirNode) -> list[Node | NodeRow]:
        found: list[Node | NodeRow] = []
        after = 0
        while page := await self._tree.page(folder, after, PAGE):
            after = page[-1].ino
            found += [entry for entry in page if entry.ino != ROOT_INO]
            await trio.lowlevel.checkpoint()
        return found

    async def _choices(self, folder: DirNode, rule: VersionRule) -> list[Choice]:
        """What becomes of the versions in a directory now."""
        found: list[Version] = []
        counts: Counter[bytes] = Counter()
        named = [
            (entry, parts) for entry in await self._entries(folder) if (parts := rule.split(entry.name)) is not None
        ]
        for _, (series, _) in named:
            counts[series] += 1
        for entry, (series, number) in named:
            if counts[series] > rule.keep:
                version = await self._version(entry, series, number)
                if version is not None:
                    found.append(version)
        has_folders = any(Kind(entry.kind) is Kind.DIR for entry, _ in named)
        held = await self._held_up() if found and has_folders else {}
        used = self._in_use()
        found = [  # as it is at this moment
            each._replace(open_files=used[each.ino], holds=held.get(each.ino, "")) for each in found
        ]
        clock = self._tree.clock
        return choose(rule, found, Now(clock.now_ns(), clock.calendar_ns()))

    async def _version(self, entry: Node | NodeRow, series: bytes, number: int) -> Version | None:
        try:
            node = await self._tree.get(entry.ino)
        except Stale:
            return None
        changed_ns, size, is_whole = max(node.ctime_ns, node.mtime_ns), 0, True
        if isinstance(node, FileNode):
            size, is_whole = node.bytes, node.state.is_whole or node.state.is_remote
        elif isinstance(node, DirNode):
            size = node.rbytes
            async for below in Walk(self._tree, node):
                changed_ns = max(changed_ns, below.ctime_ns, below.mtime_ns)
                is_whole = is_whole and (below.state.is_whole or below.state.is_remote)
        else:
            return None  # a symbolic link is no version: "latest", say
        return Version(node.name, node.ino, series, number, size, changed_ns, 0, is_whole)

    def _in_use(self) -> Counter[int]:
        """How many files are open in each directory, at any depth, and of each file, by inode number. Atomic."""
        used: Counter[int] = Counter()
        for handle in self._vfs.files.handles.values():
            node: Node = handle.node
            while True:
                used[node.ino] += 1
                if node.parent is node:
                    break
                node = node.parent
        return used

    # --- acting --------------------------------------------------------------------------------------------------

    async def _act(self, due: bool, going_on: trio.Nursery) -> str:
        self._progress.done = 0
        removed = size = 0

        async def count(folder: DirNode, choice: Choice) -> None:
            nonlocal removed, size
            removed += 1
            size += choice.version.size_bytes

        async def remove(folder: DirNode, rule: VersionRule) -> None:
            await self._clear(folder, rule, self._progress, count)

        await self._folders(self._progress, remove)
        await self._vfs.behind.durable()
        return f"{removed:,} removed, {format_size(size)}"

    async def _clear(
        self, folder: DirNode, rule: VersionRule, progress: Progress,
        removed: Callable[[DirNode, Choice], Awaitable[None]],
    ) -> None:  # fmt: skip
        """Remove what is superfluous in one directory, and tell of each."""
        tried: set[int] = set()
        while not progress.is_stopping and not folder.unlinked and rule.takes_folder(tuple(folder.parts())):
            # Anew each time: meanwhile one may have been opened, a newer one removed, or the directory moved away.
            choices = await self._choices(folder, rule)
            choice = next((each for each in choices if each.removes and each.version.ino not in tried), None)
            if choice is None:
                return
            tried.add(choice.version.ino)
            path = f"{folder.path}/{os.fsdecode(choice.version.name)}"
            with self._vfs.behind.problems.aside(PART, choice.version.ino, path):
                if await self._remove(folder, choice.version):
                    size = format_size(choice.version.size_bytes)
                    log.info("versions: %s removed (%s), %s", path, choice.reason, size)
                    await removed(folder, choice)

    async def _remove(self, folder: DirNode, version: Version) -> bool:
        """False: it is another by now, or came to be used."""
        node = await self._tree.child(folder, version.name)
        while node is not None and await self._vfs.removal.prepare(node):  # from here on no file is waited for
            node = await self._tree.child(folder, version.name)
        if node is None or node.ino != version.ino or self._in_use()[version.ino]:
            return False
        if isinstance(node, DirNode):
            with contextlib.suppress(FsError):  # somebody has opened a file of it: what is left stays
                await self._vfs.trees.remove(node, keep=lambda top: bool(self._in_use()[top.ino]))
            return node.unlinked
        try:
            gone = await self._vfs.removal.unlink(folder, version.name, Caller(0, 0, operator=True), only=version.ino)
        except (Stale, IsADirectory):
            return False
        if gone is None:
            return False
        self._kernel.forget_entry(folder.ino, version.name, version.ino)
        self._kernel.forget_inode(folder.ino)
        return True


def _as_json(folder: DirNode, choice: Choice) -> dict[str, Any]:
    version = choice.version
    return {
        "path": f"{folder.path}/{os.fsdecode(version.name)}",
        "number": version.number,
        "size_bytes": version.size_bytes,
        "removes": choice.removes,
        "reason": choice.reason,
    }


def _listed(folder: DirNode, version: Version) -> dict[str, Any]:
    return {
        "path": f"{folder.path}/{os.fsdecode(version.name)}",
        "number": version.number,
        "size_bytes": version.size_bytes,
        "changed_ns": version.changed_ns,
        "whole": version.is_whole,
        "open_files": version.open_files,
    }


__all__ = ["Below", "VersionSweep"]
