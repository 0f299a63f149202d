"""What may be found after a death, given what was told before it (docs/semantics.md, section 7), and what may not.

A death here is the daemon's: the page cache outlives it. Names, modes, times and attributes may be those of a moment
ago; bytes, closed versions, renames and removals may not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.crash.journal import Call
from tests.crash.model import Fact, Node, Stamp, T, Version, World

GRACE_NS = 1_000_000_000
"""How long recfs may take to hear of a close, and to write rows. It promises 0.1 s, on a machine that is not busy."""
BARRIERS = {"rename", "fsync", "fsyncdir"}
"""Calls that write down everything that was said before."""
WHOLE = {"committed", "uploading", "stored", "evicted", "fetching", "archived"}
ANY = WHOLE | {"incomplete"}


@dataclass
class Seen:
    """What is found under a name."""

    kind: str
    mode: int = 0
    content: bytes = b""
    state: str = ""
    target: str = ""
    mtime_ns: int = 0
    xattrs: dict[str, str] = field(default_factory=dict)
    shown: bool = False
    trouble: str = ""
    """What reading it failed with."""
    children: dict[str, Seen] = field(default_factory=dict)


@dataclass
class Horizon:
    """What had been durable, or known, when the daemon died."""

    died_ns: int
    last_barrier: int = 0
    """Number of the last call that wrote down all before it."""
    grace_ns: int = GRACE_NS

    @classmethod
    def of(cls, calls: Iterable[Call], died_ns: int) -> Horizon:
        """Of one worker's calls."""
        reached = [call.number for call in calls if call.what in BARRIERS and not call.error and _before(call, died_ns)]
        return cls(died_ns, max(reached, default=0))

    def wrote(self, stamp: Stamp) -> bool:
        """Whether the catalogue had heard of it."""
        return stamp.number <= self.last_barrier or self._is_old(stamp)

    def heard(self, close: Stamp) -> bool:
        """Whether the daemon had heard of a close, which the kernel tells it after close(2) has returned."""
        return close.seen or self._is_old(close)

    def _is_old(self, stamp: Stamp) -> bool:
        return stamp.returned_ns is not None and stamp.returned_ns < self.died_ns - self.grace_ns

    def values(self, fact: Fact[T]) -> list[T]:
        """What something may be: the last value that was written down, or one that was told since."""
        found = []
        for stamp, value in reversed(fact.told):
            found.append(value)
            if self.wrote(stamp):
                break
        return found


def _before(call: Call, died_ns: int) -> bool:
    return call.returned_ns is not None and call.returned_ns < died_ns


def worlds(begin: Callable[[], World], calls: list[Call], died_ns: int) -> list[World]:
    """What the file system may have been told: of the calls whose return nobody saw the first few happened, or none.

    What a worker held open over the death it has closed by now, whatever became of its last call.
    """
    open_calls = [call for call in calls if not _before(call, died_ns) and call.what != "exit"]
    found = []
    for happened in range(len(open_calls) + 1):
        done = {call.number for call in open_calls[:happened]}
        world = begin()
        for call in calls:
            if _before(call, died_ns):
                world.follow(call)
            elif call.number in done or call.what == "exit":
                world.follow(call, certain=False)
        found.append(world)
    return found


# --- one file --------------------------------------------------------------------------------------------------------


@dataclass
class Allowed:
    """One version that may be found, and in which states."""

    version: Version
    states: set[str]
    back: bool = False
    """It is an earlier one, that came back."""


def allowed(node: Node, horizon: Horizon) -> list[Allowed]:
    """Which versions of a file may be found: the present one, or the last that was promised before it."""
    present = node.current
    closed = present.closed is not None and not node.writers and horizon.heard(present.closed)
    found = [Allowed(present, WHOLE if closed else ANY)]
    if not present.over and (present.synced or any(horizon.heard(close) for close in present.closes)):
        return found
    earlier, certain = [], False
    for version in reversed(node.versions[:-1]):
        was_closed = version.closed is not None and horizon.heard(version.closed)
        earlier.append(Allowed(version, WHOLE if was_closed else ANY, back=True))
        if version.synced or any(horizon.heard(close) for close in version.closes):
            certain = not version.changed  # else there is no copy of what was promised
            break
    if certain and not present.closes and not present.synced:  # what was fsynced stays, whatever it was renamed over
        return earlier
    return found + earlier


# --- everything ------------------------------------------------------------------------------------------------------


class Comparison:
    """Looks for promises that do not hold."""

    def __init__(self, world: World, horizon: Horizon) -> None:
        self.world = world
        self.horizon = horizon
        self.broken: list[str] = []
        self.lost: list[Version] = []
        """Versions that lost+found may have."""

    def look(self, found: dict[str, Seen], limits: dict[str, str] | None = None) -> list[str]:
        """What is wrong with what is *found* at the tops of this world, and with quota *limits*."""
        for top, node in self.world.tops.items():
            seen = found.get(top)
            if seen is None:
                self.broken.append(f"{top}: gone")
            else:
                self._directory(top, node, seen)
        for what, fact in self.world.limits.items():
            may_be = self.horizon.values(fact)
            if limits is not None and limits.get(what) not in may_be:
                self.broken.append(f"limit {what} is {limits.get(what)}, told {may_be}")
        return self.broken

    def _directory(self, path: str, node: Node, seen: Seen) -> None:
        for name, child in node.children.items():
            self._child(f"{path}/{name}", child, seen.children.get(name), shown=name in node.shows)
        for name, other in seen.children.items():
            if name not in node.children:
                self._surplus(f"{path}/{name}", node, name, other)

    def _surplus(self, path: str, folder: Node, name: str, seen: Seen) -> None:
        if seen.shown and name in folder.shows:
            hidden = folder.hidden.get(name)
            if hidden is None or False in self.horizon.values(hidden):
                if seen.content != folder.shows[name]:
                    self.broken.append(f"{path}: it is shown, with other bytes than the shared file has")
                return
        word = "it was removed, and is back" if path in self.world.gone else "nobody made it"
        self.broken.append(f"{path}: {word}: {_described(seen)}")

    def _child(self, path: str, node: Node, seen: Seen | None, *, shown: bool) -> None:
        if node.kind == "file":
            self._note_lost(node)
        if seen is not None and seen.shown:
            seen = None if shown else seen
        if seen is None:
            if self._has_to_be(node):
                self.broken.append(f"{path}: it is gone: {_told(node)}")
            for name, child in node.children.items():
                self._child(f"{path}/{name}", child, None, shown=False)
            return
        if seen.kind != node.kind:
            self.broken.append(f"{path}: a {node.kind} was made, and it is a {seen.kind}")
            return
        {"file": self._file, "dir": self._directory, "link": self._link}[node.kind](path, node, seen)

    def _has_to_be(self, node: Node) -> bool:
        if node.kind == "file" and not node.copied:
            return True  # its label tells of it
        return self.horizon.wrote(node.made)

    def _note_lost(self, node: Node) -> None:
        if any(each.back for each in allowed(node, self.horizon)):
            self.lost.append(node.current)

    def _link(self, path: str, node: Node, seen: Seen) -> None:
        if seen.target != node.target:
            self.broken.append(f"{path}: it leads to {seen.target!r}, not to {node.target!r}")

    def _file(self, path: str, node: Node, seen: Seen) -> None:
        if seen.trouble:
            self.broken.append(f"{path}: it cannot be read: {seen.trouble}: {_told(node)}")
            return
        may_be = allowed(node, self.horizon)
        alike = [each for each in may_be if each.version.is_like(seen.content)]
        if not alike:
            where = [n for n, each in enumerate(node.versions) if each.is_like(seen.content)]
            which = f"those of version {where[0]}" if where else "of no version"
            self.broken.append(f"{path}: its bytes are {which} ({_described(seen)}): {_told(node)}")
        elif not any(seen.state in each.states for each in alike):
            self.broken.append(f"{path}: it was closed, and is {seen.state}: {_told(node)}")
        elif not any(each.back for each in alike):
            self._attributes(path, node, seen)
        self._xattrs(path, node, seen)

    def _attributes(self, path: str, node: Node, seen: Seen) -> None:
        modes = self.horizon.values(node.mode)
        if None not in modes and seen.mode not in modes and not any(each.back for each in allowed(node, self.horizon)):
            self.broken.append(f"{path}: its mode is {seen.mode:o}, told {[f'{mode:o}' for mode in modes if mode]}")
        times = self.horizon.values(node.mtime_ns)
        if None not in times and seen.mtime_ns not in times:
            self.broken.append(f"{path}: its mtime is {seen.mtime_ns}, told {times}")

    def _xattrs(self, path: str, node: Node, seen: Seen) -> None:
        for name in node.xattrs.keys() | seen.xattrs.keys():
            may_be = self.horizon.values(node.xattrs[name]) if name in node.xattrs else [None]
            if seen.xattrs.get(name) not in may_be and (self.horizon.wrote(node.made) or name in seen.xattrs):
                self.broken.append(f"{path}: attribute {name} is {seen.xattrs.get(name)}, told {may_be}")


def _described(seen: Seen) -> str:
    if seen.kind != "file":
        return f"{seen.kind} {seen.target or sorted(seen.children)}"
    return f"{len(seen.content)} bytes, {seen.content[:6].hex()}, {seen.state}"


def _told(node: Node) -> str:
    versions = [
        f"{len(each.content)} bytes {each.content[:6].hex()}"
        f"{' synced' if each.synced else ''}{' closed by calls ' if each.closes else ''}"
        f"{[close.number for close in each.closes] or ''}"
        for each in node.versions
    ]
    return f"made by call {node.made.number}, {node.writers} writers, versions {versions}"


def broken_promises(
    begin: Callable[[], World],
    calls: list[Call],
    died_ns: int,
    found: dict[str, Seen],
    limits: dict[str, str] | None = None,
    grace_ns: int = GRACE_NS,
) -> tuple[list[str], list[Version]]:
    """What does not hold of what one worker was promised, in its likeliest world; and what lost+found may have."""
    horizon = Horizon.of(calls, died_ns)
    horizon.grace_ns = grace_ns
    best: list[str] | None = None
    lost: list[Version] = []
    for world in worlds(begin, calls, died_ns):
        comparison = Comparison(world, horizon)
        broken = comparison.look(found, limits)
        lost += comparison.lost
        if best is None or len(broken) < len(best):
            best = broken
    return best or [], lost
