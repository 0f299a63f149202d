"""Files that are left alone because they have several names (hard links), until they have one.

The kernel reports no change of a file's link count to whoever watches the directory of another of its names
(fsnotify_link_count() in include/linux/fsnotify.h tells the inode's own watches alone). So the other names are looked
at again when one in the home tree is seen to go, and all of them by the clock: a name may have gone elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from recfs.core.candidates import Key
    from recfs.disk.watching.inotify import Marks

AGAIN_S = 60.0
"""How often all of them are looked at again."""
MOST = 10_000
"""So many are remembered; the others are found by the next look at everything."""


class Links:
    """All of them. Atomic."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._files: dict[Key, int] = {}
        self._names: dict[int, set[Key]] = {}
        self.next_s = float("inf")
        """When they are looked at again (`trio.current_time`); infinite while there are none."""

    def left_alone(self, key: Key, st_ino: int) -> None:
        """The entry at *key*, of that inode number on the disk, has other names, too."""
        if self._files.get(key) == st_ino:
            return
        self.drop(key)
        if len(self._files) >= MOST:
            return
        if not self._files:
            self.next_s = trio.current_time() + AGAIN_S
        self._files[key] = st_ino
        self._names.setdefault(st_ino, set()).add(key)

    def knows(self, key: Key, st_ino: int) -> bool:
        """Whether that file was left alone there."""
        return self._files.get(key) == st_ino

    def drop(self, key: Key) -> None:
        """The entry is gone, another, or was taken over: the file's other names are looked at."""
        st_ino = self._files.pop(key, None)
        if st_ino is None:
            return
        names = self._names[st_ino]
        names.discard(key)
        if not names:
            del self._names[st_ino]
        if not self._files:
            self.next_s = float("inf")
        self.gone(st_ino)

    def gone(self, st_ino: int) -> None:
        """A name of the file with that inode number on the disk has gone."""
        for folder, name in self._names.get(st_ino, ()):
            self._marks.entry(folder, name)

    def take_due(self) -> dict[int, set[bytes]]:
        """Names by directory that are to be looked at now."""
        now_s = trio.current_time()
        if now_s < self.next_s:
            return {}
        self.next_s = now_s + AGAIN_S
        found: dict[int, set[bytes]] = {}
        for folder, name in self._files:
            found.setdefault(folder, set()).add(name)
        return found

    def forget(self, folder: int) -> None:
        """A directory is gone, by its inode number in the mount."""
        for key in [key for key in self._files if key[0] == folder]:
            self.drop(key)


__all__ = ["AGAIN_S", "Links"]
