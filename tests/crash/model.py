"""What a file system has been told to be: names, versions of files, attributes, each with when it was said.

It follows the calls of one worker, on names that nobody else changes. It knows nothing of deaths: `promises` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import shake_128
from typing import Any, Generic, TypeVar

from tests.crash.journal import Call
from tests.helpers.syscalls import RENAME_EXCHANGE

T = TypeVar("T")


def pattern(seed: int, size: int) -> bytes:
    """Bytes that stand nowhere else."""
    return shake_128(b"%d" % seed).digest(size)


@dataclass(slots=True)
class Stamp:
    """When something was said: the number of the call, and when it returned (None: nobody was told that it did)."""

    number: int
    returned_ns: int | None
    seen: bool = False
    """Whether recfs was asked later, and knew of it."""


LONG_AGO = Stamp(0, 0, seen=True)


@dataclass
class Fact(Generic[T]):
    """Something with one value at a time: what it was told to be, oldest first."""

    told: list[tuple[Stamp, T]]

    @property
    def value(self) -> T:
        """The present one."""
        return self.told[-1][1]

    def tell(self, stamp: Stamp, value: T) -> None:
        """It is to be that from now on."""
        self.told.append((stamp, value))


@dataclass
class Version:
    """Bytes between two truncations to nothing."""

    content: bytes = b""
    closes: list[Stamp] = field(default_factory=list)
    """Every time the last writer closed it: from then on it is promised, also if it is written to again."""
    synced: bool = False
    """fsync returned for some of it."""
    closed: Stamp | None = None
    """When it was closed as it is now; None while somebody writes, or if nobody ever closed it."""
    changed: bool = False
    """It was written to since something was promised of it."""
    over: bool = False
    """It was open for writing when its file was renamed over another, and nothing was promised of it since."""
    idle: bool = False
    """It was incomplete when it was opened for writing, and was not written to since: it may stay so."""
    unknown: bool = False
    """A mapping was written to, and its pages were refused (EIO of msync): some of them may be there all the same."""
    torn: tuple[bytes, int, bytes] | None = None
    """What was there before a write of which nobody knows whether it happened, its offset and its bytes."""

    def is_like(self, seen: bytes) -> bool:
        """Whether these bytes may be it: all of it, but for the end of a write that was cut off."""
        if seen == self.content or self.unknown:
            return True
        if self.torn is None:
            return False
        before, offset, written = self.torn
        there = seen[offset : offset + len(written)]
        landed = next((n for n, pair in enumerate(zip(there, written, strict=False)) if pair[0] != pair[1]), len(there))
        # What the write would have left unchanged counts as well.
        return any(seen == patched(before, offset, written[:n]) for n in {0, landed} | _pages(offset, landed))


def _pages(offset: int, landed: int) -> set[int]:
    """Lengths at which a write that goes by pages may have ended."""
    return {n for n in range(landed) if (offset + n) % 4096 == 0}


def patched(content: bytes, offset: int, written: bytes) -> bytes:
    """*content* with bytes written to it, as pwrite(2) does."""
    if not written:
        return content
    if offset > len(content):
        content += bytes(offset - len(content))
    return content[:offset] + written + content[offset + len(written) :]


@dataclass
class Node:
    """A file, directory or symbolic link."""

    kind: str
    made: Stamp
    mode: Fact[int | None]
    versions: list[Version] = field(default_factory=list)
    writers: int = 0
    target: str = ""
    children: dict[str, Node] = field(default_factory=dict)
    xattrs: dict[str, Fact[str | None]] = field(default_factory=dict)
    mtime_ns: Fact[int | None] = field(default_factory=lambda: Fact([(LONG_AGO, None)]))
    shows: dict[str, bytes] = field(default_factory=dict)
    """Of a directory: shared files that are shown in it."""
    hidden: dict[str, Fact[bool]] = field(default_factory=dict)
    """Which of these were removed."""
    copied: bool = False
    """A copy of a shown file, made for a change of its attributes: until that is durable, it may be shown as before."""

    @property
    def current(self) -> Version:
        """A file's present bytes."""
        return self.versions[-1]

    def shown(self) -> dict[str, bytes]:
        """Which shared files a listing has."""
        return {
            name: content
            for name, content in self.shows.items()
            if name not in self.children and not (name in self.hidden and self.hidden[name].value)
        }

    def walk(self, path: str) -> Iterator[tuple[str, Node]]:
        """It and everything below, with paths."""
        yield path, self
        for name, child in self.children.items():
            yield from child.walk(f"{path}/{name}")


class World:
    """Some directories of a mount. What is in them is this worker's alone; they themselves stay."""

    def __init__(self) -> None:
        self.tops: dict[str, Node] = {}
        self.handles: dict[int, tuple[Node, bool, int]] = {}
        """Open files: (file, whether for writing, position)."""
        self.limits: dict[str, Fact[str]] = {}
        """Quota limits, by `user` and name."""
        self.gone: set[str] = set()
        """Paths that were removed or renamed away."""

    # --- looking -----------------------------------------------------------------------------------------------------

    def find(self, path: str) -> Node | None:
        """What has a path."""
        for top, node in self.tops.items():
            if path == top:
                return node
            if path.startswith(f"{top}/"):
                found: Node | None = node
                for name in path[len(top) + 1 :].split("/"):
                    found = found.children.get(name) if found is not None else None
                return found
        return None

    def node(self, path: str) -> Node:
        """What has a path; it is there."""
        found = self.find(path)
        assert found is not None, path
        return found

    def folder(self, path: str) -> tuple[Node, str]:
        """The directory of a path, and the name in it."""
        parent, _, name = path.rpartition("/")
        return self.node(parent), name

    def all(self, kind: str) -> list[str]:
        """Paths of everything of a kind."""
        return sorted(path for top, node in self.tops.items() for path, each in node.walk(top) if each.kind == kind)

    # --- following calls ---------------------------------------------------------------------------------------------

    def follow(self, call: Call, *, certain: bool = True) -> None:
        """Do what a call did. Not *certain*: nobody was told that it did, and of a write a part may have happened."""
        stamp = Stamp(call.number, call.returned_ns if certain else None)
        if call.error is None:
            getattr(self, f"_{call.what}")(stamp, certain, call.result, **call.with_)
        elif call.what == "mapped":
            self._mapped(stamp, certain, None, **call.with_)
            self.handles[call.with_["h"]][0].current.unknown = True

    def _own(self, path: str, stamp: Stamp, *, empty: bool = False) -> Node:
        """The file of a path; of a shown one a copy is made."""
        folder, name = self.folder(path)
        if name not in folder.children:
            content = b"" if empty else folder.shown()[name]
            stamp = replace(stamp, seen=True)  # recfs closes it by itself
            version = Version(content, closes=[stamp], closed=stamp)
            copy = Node("file", stamp, Fact([(stamp, None)]), [version], copied=True)
            self._place(folder, name, copy, stamp)
        return folder.children[name]

    @staticmethod
    def _place(folder: Node, name: str, node: Node, stamp: Stamp) -> None:
        folder.children[name] = node
        if name in folder.hidden:
            folder.hidden[name].tell(stamp, False)

    def _open(self, stamp: Stamp, certain: bool, result: Any, *, path: str, h: int, flags: int, mode: int = 0) -> None:
        folder, name = self.folder(path)
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if name not in folder.children and name not in folder.shown():
            new = Node("file", stamp, Fact([(stamp, mode)]), [Version()])
            self._place(folder, name, new, stamp)
        elif not writes:
            if name in folder.children:
                self.handles[h] = (folder.children[name], False, 0)
            return
        node = self._own(path, stamp, empty=bool(flags & os.O_TRUNC))
        if flags & os.O_TRUNC:
            self._begin_anew(node)
        if node.current.closed is None and not node.writers and not flags & os.O_TRUNC and node.made is not stamp:
            node.current.idle = True
        node.writers += 1
        node.current.closed = None
        self.handles[h] = (node, True, -1 if flags & os.O_APPEND else 0)

    @staticmethod
    def _begin_anew(node: Node) -> None:
        node.mtime_ns.tell(LONG_AGO, None)
        node.versions = [*(each for each in node.versions if each.closes or each.synced), Version()]

    def _write(
        self, stamp: Stamp, certain: bool, result: Any, *, h: int, offset: int | None, seed: int, size: int
    ) -> None:
        node, writes, position = self.handles[h]
        at = len(node.current.content) if position == -1 else (position if offset is None else offset)
        written = pattern(seed, size)[: result if certain else size]
        self._put(node, stamp, at, written, certain=certain)
        if position != -1 and offset is None:
            self.handles[h] = (node, writes, at + len(written))

    @staticmethod
    def _put(node: Node, stamp: Stamp, at: int, written: bytes, *, certain: bool) -> None:
        version = node.current
        before = version.content
        version.content = patched(before, at, written)
        version.torn = None if certain else (before, at, written)
        version.closed, version.changed, version.idle = None, True, False
        node.mtime_ns.tell(stamp, None)

    def _mapped(self, stamp: Stamp, certain: bool, result: Any, *, h: int, offset: int, seed: int, size: int) -> None:
        self._put(self.handles[h][0], stamp, offset, pattern(seed, size), certain=certain)
        # msync(2) is an fsync, of which recfs hears only where the kernel does not serve the mapping by itself.
        self.handles[h][0].current.closes.append(Stamp(stamp.number, None))

    def _copy(self, stamp: Stamp, certain: bool, result: Any, *, path: str, h: int, size: int) -> None:
        source, node = self.node(path).current, self.handles[h][0]
        self._put(node, stamp, 0, source.content[: result if certain else size], certain=certain)
        node.current.unknown |= source.unknown

    def _allocate(self, stamp: Stamp, certain: bool, result: Any, *, h: int, offset: int, size: int) -> None:
        node = self.handles[h][0]
        node.mtime_ns.tell(stamp, None)
        if offset + size > len(node.current.content):
            self._cut(node, stamp, offset + size)

    def _ftruncate(self, stamp: Stamp, certain: bool, result: Any, *, h: int, size: int) -> None:
        self._cut(self.handles[h][0], stamp, size)

    def _truncate(self, stamp: Stamp, certain: bool, result: Any, *, path: str, size: int) -> None:
        node = self._own(path, stamp, empty=not size)
        before = node.current.content
        self._cut(node, stamp, size)
        if not certain:
            node.current.torn = (before, 0, b"")  # a shown file may have been copied, and not cut yet
        if not node.writers:
            self._closed(node, stamp)

    def _cut(self, node: Node, stamp: Stamp, size: int) -> None:
        if not size:
            self._begin_anew(node)
        version = node.current
        version.content = version.content[:size] + bytes(max(0, size - len(version.content)))
        version.closed, version.changed, version.idle = None, True, False
        node.mtime_ns.tell(stamp, None)

    @staticmethod
    def _closed(node: Node, stamp: Stamp) -> None:
        if node.current.idle:
            stamp = replace(stamp, returned_ns=None)
        node.current.closed, node.current.changed, node.current.over = stamp, False, False
        node.current.closes.append(stamp)

    def _fsync(self, stamp: Stamp, certain: bool, result: Any, *, h: int) -> None:
        node = self.handles[h][0]
        if certain:
            node.current.synced, node.current.changed, node.copied = True, False, False
            node.current.over = False
        else:
            node.current.closes.append(stamp)  # as much may have been promised

    def _fsyncdir(self, stamp: Stamp, certain: bool, result: Any, *, path: str) -> None:
        pass  # `promises` knows what it means

    def _close(self, stamp: Stamp, certain: bool, result: Any, *, h: int) -> None:
        node, writes, _ = self.handles.pop(h, (None, False, 0))
        if node is not None and writes:
            node.writers -= 1
            if not node.writers:
                self._closed(node, stamp)

    def _exit(self, stamp: Stamp, certain: bool, result: Any) -> None:
        for h in list(self.handles):
            self._close(stamp, certain, None, h=h)

    def _state(self, stamp: Stamp, certain: bool, result: Any, *, path: str) -> None:
        node = self.find(path)
        if certain and node is not None and result not in ("writing", "incomplete") and node.current.closed is not None:
            node.current.closed.seen = True

    def _mkdir(self, stamp: Stamp, certain: bool, result: Any, *, path: str) -> None:
        folder, name = self.folder(path)
        folder.children[name] = Node("dir", stamp, Fact([(stamp, None)]))

    def _symlink(self, stamp: Stamp, certain: bool, result: Any, *, path: str, target: str) -> None:
        folder, name = self.folder(path)
        folder.children[name] = Node("link", stamp, Fact([(stamp, None)]), target=target)

    def _unlink(self, stamp: Stamp, certain: bool, result: Any, *, path: str) -> None:
        folder, name = self.folder(path)
        if folder.children.pop(name, None) is None:
            folder.hidden.setdefault(name, Fact([(LONG_AGO, False)])).tell(stamp, True)
        self.gone.add(path)

    def _rmdir(self, stamp: Stamp, certain: bool, result: Any, *, path: str) -> None:
        folder, name = self.folder(path)
        del folder.children[name]
        self.gone.add(path)

    def _rename(self, stamp: Stamp, certain: bool, result: Any, *, path: str, to: str, flags: int = 0) -> None:
        folder, name = self.folder(path)
        target, new = self.folder(to)
        was_shown = name not in folder.children
        if was_shown:
            self._own(path, stamp)
        moved = folder.children[name]
        if flags & RENAME_EXCHANGE:
            folder.children[name], target.children[new] = target.children[new], moved
            return
        del folder.children[name]
        replaced = target.children.get(new)
        unfinished = moved.kind == "file" and moved.current.closed is None and not moved.writers
        # One that is incomplete stays so, and takes the name at once: nothing of what had it before is kept (7.14).
        if moved.kind == "file" and replaced is not None and replaced is not moved and not unfinished:
            earlier = [each for each in replaced.versions if each.closes or each.synced]
            if not any(each.closes or each.synced for each in moved.versions[:-1]):
                moved.versions = [*earlier, moved.current]
                moved.current.over = bool(moved.writers and earlier)
        if was_shown:
            folder.hidden.setdefault(name, Fact([(LONG_AGO, False)])).tell(stamp, True)
        self._place(target, new, moved, stamp)
        moved.copied = False
        self.gone |= {path}

    def _chmod(self, stamp: Stamp, certain: bool, result: Any, *, path: str, mode: int) -> None:
        node = self.node(path) if self.find(path) else self._own(path, stamp)
        node.mode.tell(stamp, mode)

    def _utime(self, stamp: Stamp, certain: bool, result: Any, *, path: str, ns: int) -> None:
        node = self.node(path) if self.find(path) else self._own(path, stamp)
        node.mtime_ns.tell(stamp, ns)

    def _setxattr(self, stamp: Stamp, certain: bool, result: Any, *, path: str, name: str, value: str) -> None:
        node = self.node(path) if self.find(path) else self._own(path, stamp)
        node.xattrs.setdefault(name, Fact([(LONG_AGO, None)])).tell(stamp, value)

    def _removexattr(self, stamp: Stamp, certain: bool, result: Any, *, path: str, name: str) -> None:
        self.node(path).xattrs[name].tell(stamp, None)

    def _limit(self, stamp: Stamp, certain: bool, result: Any, *, user: str, name: str, value: str) -> None:
        self.limits.setdefault(f"{user} {name}", Fact([(LONG_AGO, "unlimited")])).tell(stamp, value)

    def _read(self, stamp: Stamp, certain: bool, result: Any, *, path: str) -> None:
        pass  # the worker compares

    def _list(self, stamp: Stamp, certain: bool, result: Any, *, path: str) -> None:
        pass
