"""What users do: each act is a few calls that belong together, on names that a user has, chosen by chance."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tests.crash.model import Node, World
from tests.helpers.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE

WRITE, APPEND, CREATE = os.O_WRONLY, os.O_APPEND, os.O_CREAT
EMPTY, NEW = os.O_TRUNC, os.O_EXCL
HELD = 3
"""How many files a user keeps open meanwhile."""
FEW = 25
"""From so many files and directories on more are removed than made."""
TIMES_NS = (1_600_000_000 * 10**9, 86_400 * 10**9 + 7, 4_102_444_800 * 10**9)


class Hand(Protocol):
    """Makes calls and notes them. Raises Refused when one is refused for a reason that a user has to expect."""

    world: World

    def call(self, what: str, **with_: Any) -> Any: ...

    def wrong(self, text: str) -> None: ...


class Refused(Exception):
    """No room, no quota: the act ends here."""


class Acts:
    """One user's acts."""

    def __init__(self, hand: Hand, chance: random.Random, tops: list[str], *, big: int = 0) -> None:
        self.hand, self.chance, self.tops, self.big = hand, chance, tops, big
        self._handle = 0
        self._held: list[int] = []
        self._levels = [top for top in tops if top.endswith("/recordings")]
        """Directories in which only directories are, each named by a number: they are moved by an act of their own."""
        self._trees = [top for top in tops if top not in self._levels and not top.endswith("/thumbnails")]
        self._kinds: list[tuple[int, Callable[[], None]]] = [
            (10, self.create), (8, self.overwrite), (6, self.replace), (4, self.append), (4, self.rewrite),
            (3, self.truncate), (8, self.remove), (5, self.remove_and_create), (5, self.move), (4, self.move_over),
            (4, self.exchange), (4, self.make_directory), (3, self.move_directory), (2, self.exchange_directories),
            (2, self.remove_tree), (4, self.attribute), (3, self.times), (3, self.mode), (2, self.link),
            (3, self.sync), (5, self.hold), (8, self.write_held), (4, self.let_go), (5, self.look), (3, self.list),
            (5, self.shown), (2, self.twice), (3, self.ask_state), (2, self.map), (3, self.copy), (2, self.allocate),
            (2, self.move_recording),
        ]  # fmt: skip

    def one(self) -> None:
        """Do something."""
        weights = [weight for weight, _ in self._kinds]
        self.chance.choices([act for _, act in self._kinds], weights)[0]()

    # --- choosing ----------------------------------------------------------------------------------------------------

    def _file(self) -> str:
        """An existing file."""
        files = self.hand.world.all("file")
        if not files:
            raise Refused
        return self.chance.choice(files)

    def _directory(self, *, inner: bool = False) -> str:
        """An existing one in which anything may be; *inner*: one that may be moved and removed, too."""
        found = []
        for path in self.hand.world.all("dir"):
            is_top = path in self.tops
            is_recording = path.rpartition("/")[0] in self._levels
            if path in self._trees or is_recording or not is_top:
                found += [] if inner and (is_top or is_recording) else [path]
        if not found:
            raise Refused
        return self.chance.choice(found)

    def _new(self, folder: str | None = None) -> str:
        """A name that is not taken."""
        folder = folder or self._directory()
        taken = self.hand.world.node(folder).children
        free = [name for name in (f"n{number}" for number in range(60)) if name not in taken]
        return f"{folder}/{self.chance.choice(free)}"

    def _size(self) -> int:
        if self.big and self.chance.random() < 0.05:
            return self.chance.randrange(self.big)
        return self.chance.choice((0, 1, 100, 4096, 10_000, 50_000, 150_000))

    @contextmanager
    def opened(self, path: str, flags: int, mode: int = 0o644) -> Iterator[int]:
        """A file that is open for as long."""
        self._handle += 1
        h = self._handle
        self.hand.call("open", path=path, h=h, flags=flags, mode=mode)
        try:
            yield h
        except Refused:
            self.hand.call("close", h=h)
            raise
        self.hand.call("close", h=h)

    def _write(self, h: int, *, offset: int | None = None, size: int | None = None) -> None:
        size = self._size() if size is None else size
        if size:
            self.hand.call("write", h=h, offset=offset, seed=self.chance.getrandbits(48), size=size)

    # --- files -------------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """A new file, written in a few pieces."""
        if len(self.hand.world.all("file")) > FEW:
            return self.remove()
        with self.opened(self._new(), WRITE | CREATE | NEW, self.chance.choice((0o644, 0o600, 0o640))) as h:
            for _ in range(self.chance.randrange(4)):
                self._write(h)
        return None

    def overwrite(self) -> None:
        """O_TRUNC, as a shell does."""
        with self.opened(self._file(), WRITE | CREATE | EMPTY) as h:
            for _ in range(self.chance.randrange(4)):
                self._write(h)
            if self.chance.random() < 0.2:
                self.hand.call("fsync", h=h)

    def twice(self) -> None:
        """One overwrite right after another."""
        path = self._file()
        for _ in range(2):
            with self.opened(path, WRITE | EMPTY) as h:
                self._write(h)

    def replace(self) -> None:
        """Written aside and renamed, with fsync or without."""
        path = self._file()
        new = self._new(path.rpartition("/")[0])
        with self.opened(new, WRITE | CREATE | NEW) as h:
            self._write(h)
            if self.chance.random() < 0.5:
                self.hand.call("fsync", h=h)
            early = self.chance.random() < 0.15
            if early:
                self.hand.call("rename", path=new, to=path)
        if not early:
            self.hand.call("rename", path=new, to=path)

    def append(self) -> None:
        """As a log is written."""
        with self.opened(self._file(), WRITE | APPEND) as h:
            self._write(h)

    def rewrite(self) -> None:
        """Bytes somewhere in the middle."""
        path = self._file()
        with self.opened(path, os.O_RDWR) as h:
            size = len(self.hand.world.node(path).current.content)
            self._write(h, offset=self.chance.randrange(size + 1))
            if self.chance.random() < 0.3:
                self.hand.call("ftruncate", h=h, size=self.chance.randrange(size + 10))

    def map(self) -> None:
        """Bytes of one page, through a mapping."""
        path = self._file()
        with self.opened(path, os.O_RDWR) as h:
            size = len(self.hand.world.node(path).current.content)
            if size:
                offset = self.chance.randrange(size)
                length = min(size - offset, 4096 - offset % 4096, 500)
                self.hand.call("mapped", h=h, offset=offset, seed=self.chance.getrandbits(48), size=length)

    def copy(self) -> None:
        """cp, which leaves the bytes to the kernel."""
        path, new = self._file(), self._new()
        size = len(self.hand.world.node(path).current.content)
        with self.opened(new, WRITE | CREATE | NEW) as h:
            if size:
                self.hand.call("copy", path=path, h=h, size=size)

    def allocate(self) -> None:
        """Room beyond the end, as recorders take it."""
        with self.opened(self._file(), WRITE) as h:
            self.hand.call("allocate", h=h, offset=self.chance.randrange(10_000), size=self.chance.randrange(1, 60_000))

    def truncate(self) -> None:
        """By name."""
        path = self._file()
        size = len(self.hand.world.node(path).current.content)
        self.hand.call("truncate", path=path, size=self.chance.choice((0, 0, size // 2, size + 1000)))

    def remove(self) -> None:
        """rm."""
        self.hand.call("unlink", path=self._file())

    def remove_and_create(self) -> None:
        """rm, and the same name again."""
        path = self._file()
        self.hand.call("unlink", path=path)
        if self.chance.random() < 0.8:
            with self.opened(path, WRITE | CREATE) as h:
                self._write(h)

    def hold(self) -> None:
        """Open a file for long."""
        if len(self._held) >= HELD:
            return self.let_go()
        self._handle += 1
        flags = self.chance.choice((WRITE | CREATE | NEW, WRITE | EMPTY, WRITE, os.O_RDWR, WRITE | APPEND))
        path = self._new() if flags & NEW else self._file()
        self.hand.call("open", path=path, h=self._handle, flags=flags, mode=0o644)
        self._held.append(self._handle)
        return None

    def write_held(self) -> None:
        """Go on writing to one."""
        if not self._held:
            return self.hold()
        h = self.chance.choice(self._held)
        if self.chance.random() < 0.1:
            self.hand.call("ftruncate", h=h, size=self.chance.choice((0, 100, 20_000)))
        self._write(h)
        if self.chance.random() < 0.15:
            self.hand.call("fsync", h=h)
        return None

    def let_go(self) -> None:
        """Close one."""
        if self._held:
            self.hand.call("close", h=self._held.pop(self.chance.randrange(len(self._held))))

    # --- names -------------------------------------------------------------------------------------------------------

    def move(self) -> None:
        """mv to a name that is free."""
        self.hand.call("rename", path=self._file(), to=self._new(), flags=self.chance.choice((0, RENAME_NOREPLACE)))

    def move_over(self) -> None:
        """mv over another file."""
        path, to = self._file(), self._file()
        if path != to:
            self.hand.call("rename", path=path, to=to)

    def exchange(self) -> None:
        """Two files change places."""
        path, to = self._file(), self._file()
        if path != to:
            self.hand.call("rename", path=path, to=to, flags=RENAME_EXCHANGE)

    def make_directory(self) -> None:
        """With a file in it, mostly."""
        if len(self.hand.world.all("dir")) > FEW // 2:
            return self.remove_tree()
        path = self._new()
        self.hand.call("mkdir", path=path)
        if self.chance.random() < 0.7:
            with self.opened(f"{path}/n0", WRITE | CREATE) as h:
                self._write(h)
        return None

    def move_directory(self) -> None:
        """mv of a directory, and of something out of it right after."""
        path = self._directory(inner=True)
        to = self._new()
        if to.startswith(f"{path}/"):
            return
        self.hand.call("rename", path=path, to=to)
        inside = [name for name, node in self.hand.world.node(to).children.items() if node.kind == "file"]
        if inside and self.chance.random() < 0.5:
            name = self.chance.choice(inside)
            out = self._new()
            if not out.startswith(f"{to}/"):
                self.hand.call("rename", path=f"{to}/{name}", to=out)

    def exchange_directories(self) -> None:
        """Two directories change places."""
        path, to = self._directory(inner=True), self._directory(inner=True)
        if path != to and not path.startswith(f"{to}/") and not to.startswith(f"{path}/"):
            self.hand.call("rename", path=path, to=to, flags=RENAME_EXCHANGE)

    def remove_tree(self) -> None:
        """rm -r."""
        top = self._directory(inner=True)
        self._remove_below(top, self.hand.world.node(top))
        self.hand.call("rmdir", path=top)

    def _remove_below(self, path: str, node: Node) -> None:
        for name, child in list(node.children.items()):
            if child.kind == "dir":
                self._remove_below(f"{path}/{name}", child)
                self.hand.call("rmdir", path=f"{path}/{name}")
            else:
                self.hand.call("unlink", path=f"{path}/{name}")

    def link(self) -> None:
        """A symbolic link comes, or one goes."""
        links = self.hand.world.all("link")
        if links and self.chance.random() < 0.6:
            self.hand.call("unlink", path=self.chance.choice(links))
        else:
            self.hand.call("symlink", path=self._new(), target=f"to{self.chance.randrange(1000)}")

    def move_recording(self) -> None:
        """A whole recording goes to another number, or another user, or changes places with one."""
        found = [f"{top}/{name}" for top in self._levels for name in self.hand.world.node(top).children]
        if not found:
            raise Refused
        path = self.chance.choice(sorted(found))
        to = f"{self.chance.choice(self._levels)}/{self.chance.randrange(1, 9)}"
        if self.hand.world.find(to) is None:
            self.hand.call("rename", path=path, to=to)
        elif path != to:
            self.hand.call("rename", path=path, to=to, flags=RENAME_EXCHANGE)

    # --- attributes --------------------------------------------------------------------------------------------------

    def attribute(self) -> None:
        """setfattr, or its removal."""
        path = self._file() if self.chance.random() < 0.8 else self._directory(inner=True)
        name = f"user.a{self.chance.randrange(3)}"
        told = self.hand.world.node(path).xattrs.get(name)
        if told is not None and told.value is not None and self.chance.random() < 0.4:
            self.hand.call("removexattr", path=path, name=name)
        else:
            self.hand.call("setxattr", path=path, name=name, value=f"v{self.chance.getrandbits(40)}")

    def times(self) -> None:
        """touch -d."""
        self.hand.call("utime", path=self._file(), ns=self.chance.choice(TIMES_NS) + self.chance.randrange(10**9))

    def mode(self) -> None:
        """chmod."""
        self.hand.call("chmod", path=self._file(), mode=self.chance.choice((0o600, 0o640, 0o644, 0o755, 0o660)))

    def sync(self) -> None:
        """fsync of a file or of a directory."""
        if self.chance.random() < 0.5:
            self.hand.call("fsyncdir", path=self._directory())
        else:
            with self.opened(self._file(), os.O_RDONLY) as h:
                self.hand.call("fsync", h=h)

    # --- shown files -------------------------------------------------------------------------------------------------

    def shown(self) -> None:
        """Something with a shared file that is shown: it becomes an own one, or is hidden."""
        found = [
            f"{top}/{name}" for top in self.tops for name in sorted(self.hand.world.node(top).shown())
        ]  # fmt: skip
        if not found:
            raise Refused
        path = self.chance.choice(found)
        kind = self.chance.randrange(8)
        if kind < 3:
            with self.opened(path, (WRITE | APPEND, WRITE | EMPTY, os.O_RDWR)[kind]) as h:
                self._write(h)
        elif kind == 3:
            self.hand.call("unlink", path=path)
        elif kind == 4:
            self.hand.call("rename", path=path, to=self._new())
        elif kind == 5:
            self.hand.call("chmod", path=path, mode=0o640)
        elif kind == 6:
            self.hand.call("setxattr", path=path, name="user.a0", value="shown")
        else:
            self.hand.call("truncate", path=path, size=self.chance.choice((0, 10)))

    # --- looking -----------------------------------------------------------------------------------------------------

    def ask_state(self) -> None:
        """recfs says how far it is with a file."""
        self.hand.call("state", path=self._file())

    def look(self) -> None:
        """What was written is read."""
        path = self._file()
        content = self.hand.call("read", path=path)
        told = self.hand.world.node(path).current
        if not told.is_like(content):
            self.hand.wrong(f"{path}: {len(told.content)} bytes were written, and {len(content)} others are read")

    def list(self) -> None:
        """And what was made is listed."""
        path = self.chance.choice(self.hand.world.all("dir"))
        node = self.hand.world.node(path)
        names, told = self.hand.call("list", path=path), sorted(node.children.keys() | node.shown().keys())
        if names != told:
            self.hand.wrong(f"{path}: {told} were made, and {names} are listed")
