"""Which directories of the home tree were changed: inotify(7), read by watchdog's thread.

One watch a directory, under the directory's inode number in recfs: so renames, recfs's own or others', need nothing
done, as a watch stays with the directory below. Nothing of an event is believed but that something is to be looked at
again. What is to be looked at is bounded: too many names become a whole directory, too many directories everything.

Of watchdog the reader of the inotify descriptor is used (`InotifyFD`), and not its recursive observer, which knows
directories by path and goes through all of them when one is renamed (docs/benchmarks.md).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask, WatchDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("recfs.watch")

MOST_NAMES = 100_000
"""So many names are waited for one by one; of a directory that has more, all are looked at."""
MOST_FOLDERS = 100_000
"""So many directories; when there are more, everything is looked at."""
GATHER_S = 0.1
"""How long events gather between two reads."""
RETRY_S = 5.0
"""How long nothing is read after that failed."""
BUFFER_BYTES = 1 << 20
"""How much is read at once."""
_EVENT = struct.Struct("iIII")
"""struct inotify_event (inotify(7)) but for its name: watch, mask, cookie, and how many bytes the name takes."""
_LASTING = InotifyConstants.IN_IGNORED | InotifyConstants.IN_Q_OVERFLOW
"""What has to be told by itself; of the rest only which entry it is about counts."""
_MASK = Mask(
    InotifyConstants.IN_CREATE
    | InotifyConstants.IN_DELETE
    | InotifyConstants.IN_MOVED_FROM
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_ONLYDIR
)
_LIMITS = {errno.ENOSPC: "fs.inotify.max_user_watches", errno.EMFILE: "fs.inotify.max_user_instances"}

# Whoever watches here writes messages of its own.
logging.getLogger("watchdog").setLevel(logging.ERROR)


class Changed(NamedTuple):
    """What is to be looked at again."""

    everything: bool
    folders: dict[int, set[bytes] | None]
    """Names by directory; None: all of that directory."""


class Marks:
    """Collects it, from any thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """*wake* is called when something comes after nothing was there, in the thread that it comes in."""
        self._wake = wake
        self._lock = threading.Lock()
        self._everything = False
        self._folders: dict[int, set[bytes] | None] = {}
        self._names = 0

    def entry(self, ino: int, name: bytes) -> None:
        """The entry *name* of the directory *ino*."""
        self.entries(ino, {name})

    def entries(self, ino: int, names: set[bytes]) -> None:
        """Some entries of the directory *ino*."""
        with self._lock:
            first = not self._folders and not self._everything
            if ino not in self._folders and len(self._folders) >= MOST_FOLDERS:
                self._all()
            elif (known := self._folders.setdefault(ino, set())) is not None:
                before = len(known)
                known.update(names)
                self._names += len(known) - before
                if self._names > MOST_NAMES:
                    self._names -= len(known)
                    self._whole(ino)
        if first:
            self._wake()

    def whole(self, ino: int) -> None:
        """All of a directory."""
        with self._lock:
            first = not self._folders and not self._everything
            self._names -= len(self._folders.get(ino) or ())
            self._whole(ino)
        if first:
            self._wake()

    def everything(self) -> None:
        """Events were lost: nobody knows what of."""
        with self._lock:
            self._all()
        self._wake()

    def _whole(self, ino: int) -> None:
        if len(self._folders) >= MOST_FOLDERS and ino not in self._folders:
            self._all()
        else:
            self._folders[ino] = None

    def _all(self) -> None:
        self._everything, self._folders, self._names = True, {}, 0

    def take(self) -> Changed:
        """All of it, which is not there any more."""
        with self._lock:
            taken = Changed(self._everything, self._folders)
            self._everything, self._folders, self._names = False, {}, 0
        return taken


class _Reader(InotifyFD):
    """Reads many events at a time, and makes little of each: the thread takes the interpreter from everybody else."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self._marks = marks

    def run(self) -> None:
        """Read, mark, and let more come, until it is stopped. What fails may have lost events."""
        while self.should_keep_running():
            try:
                self.mark(self._read_event_buffer(BUFFER_BYTES))
            except Exception:
                log.exception("events of the home tree cannot be read; everything is looked at instead")
                self._marks.everything()
                self.stopped_event.wait(RETRY_S)
            self.stopped_event.wait(GATHER_S)

    def mark(self, events: bytes) -> None:
        """Mark what became of entries, by what one read gave: of one entry several events, as a rule."""
        by_watch: dict[int, set[bytes]] = {}
        lasting: list[InotifyEvent] = []
        at = 0
        while at < len(events):
            wd, mask, cookie, length = _EVENT.unpack_from(events, at)
            at += _EVENT.size
            if mask & _LASTING:
                lasting.append(InotifyEvent(wd, mask, cookie, b""))
            elif length:  # else it is the directory itself, which is an entry of another
                name = events[at : at + length]  # still with the NULs after it, of which a name has always as many
                if wd in by_watch:
                    by_watch[wd].add(name)
                else:
                    by_watch[wd] = {name}
            at += length
        with self._lock:  # while a watch is added, its events may already be there
            watches = [(self._watch_for_wd.get(WatchDescriptor(wd)), names) for wd, names in by_watch.items()]
            found = [(ino, names) for watch, names in watches if watch is not None for ino in watch.callbacks]
        for ino, names in found:
            self._marks.entries(ino, {name.rstrip(b"\0") for name in names})
        for event in lasting:
            self.handle_event(event)


class _Watch:
    """One directory's watch, as watchdog's thread calls it."""

    __slots__ = ("_ino", "_watches")

    def __init__(self, ino: int, watches: Watches) -> None:
        self._ino = ino
        self._watches = watches

    def on_event(self, event: InotifyEvent) -> None:
        """Nothing: what becomes of entries is marked by the reader, for many at a time."""

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """The directory is gone."""
        self._watches.ended(self._ino, wd)

    def on_queue_overflow(self) -> None:
        """The kernel has dropped events."""
        self._watches.marks.everything()


class Watches:
    """The watches on the directories of one store. All but `ended` belongs to whoever looks at directories."""

    def __init__(self, marks: Marks) -> None:
        """Raises OSError where there is no inotify, or too many use it."""
        self.marks = marks
        self.limit: str | None = None
        """The sysctl that keeps more directories from being watched; None: none does."""
        self._by_ino: dict[int, tuple[WatchDescriptor, int]] = {}
        """The watch of each, and the inode number on the disk of what it is on: it may have another by now."""
        self._adding = threading.Lock()
        self._reader = _Reader(marks)
        self._reader.start()

    def __len__(self) -> int:
        return len(self._by_ino)

    def wants(self, ino: int, st_ino: int | None) -> bool:
        """Whether a directory is to be watched that is not yet, where it has the inode number *st_ino* on the disk
        (None: nobody knows).
        """
        known = self._by_ino.get(ino)
        return self.limit is None and (known is None or st_ino not in (None, known[1]))

    def add(self, ino: int, fd: int) -> None:
        """Watch the directory that *fd* has open; what comes from now on is marked. Raises nothing for limits."""
        with self._adding:
            st_ino = os.fstat(fd).st_ino
            if not self.wants(ino, st_ino):
                return
            self.forget(ino)  # of the one that it was before, which may be anywhere
            try:
                # By descriptor: neither links on the way nor the length of the path matter (proc(5)).
                wd = self._reader.add_callback(b"/proc/self/fd/%d" % fd, _MASK, _Watch(ino, self), CallbackId(ino))
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                    raise
                self.limit = limit_of(error)
            else:
                self._by_ino[ino] = (wd, st_ino)

    def ended(self, ino: int, wd: WatchDescriptor) -> None:
        """The kernel has ended a watch: its directory was removed past recfs. From watchdog's thread.

        Another one may have its place already, and its inode number: so it is looked at, and watched if it is there.
        """
        known = self._by_ino.get(ino)
        if known is not None and known[0] == wd:
            with contextlib.suppress(KeyError):
                del self._by_ino[ino]
            self.marks.whole(ino)

    def forget(self, ino: int) -> None:
        """Watch a directory no more."""
        known = self._by_ino.pop(ino, None)
        if known is not None:
            self._reader.remove_callbacks([(known[0], CallbackId(ino))])

    def close(self) -> None:
        """End all of them. Blocking, for a moment."""
        self._by_ino.clear()
        self._reader.stop()
        self._reader.join()


def limit_of(error: OSError) -> str:
    """The sysctl that an error of inotify(7) comes from, or what else it is."""
    return _LIMITS.get(error.errno or 0) or os.strerror(error.errno or errno.EIO)


__all__ = ["Changed", "Marks", "Watches", "limit_of"]
