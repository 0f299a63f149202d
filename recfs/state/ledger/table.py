"""What the next daemon has to know of this one's open files and requests, should this one die at any moment.

A table in a memfd, which whoever keeps the kernel's descriptor keeps as well (systemd's file descriptor store): memory
that outlives the process, and not the boot. It is written before an answer leaves, with stores of aligned words only,
the one that makes a record valid last: the process may be killed between any two of them.

    words 0 … 7     form, next handle, place in the ring, length of the session, number of slots, highest backing id
    words 8 … 511   backing ids that the kernel was given, and that no slot has yet
    bytes 4096 …    the session (JSON), written once
    bytes 65536 …   the ring: request, inode number it has made, moved or removed
    then            slots: handle (0: free), inode, as asked for, user, backing id, flags, request
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from recfs.state.waits import ticket

if TYPE_CHECKING:
    from collections.abc import Callable

FORM: Final = 1
RESENT: Final = 1 << 63
"""Mark on the number of a request that the kernel sends again (FUSE_UNIQUE_RESEND)."""
WRITES, DIRECT, COUNTED, LEFT = 1, 2, 4, 8
MODES: Final = ("", "pass", "direct", "cached")
"""By the number in the flags, from bit 4 on."""
_MODE_SHIFT: Final = 4

_FORM, _NEXT, _PLACE, _SESSION, _SLOTS, _HIGHEST = range(6)
_FIRST_BACKING, _LAST_BACKING = 8, 511
_UNTOLD: Final = 4
"""So many ids after the highest are tried: the daemon may have died before it could write one down."""
_SESSION_AT: Final = 4096
_RING_AT: Final = 65536
_RING: Final = 1 << 14
"""Records. More requests than the loop has tasks (fuse/loop.py) are never under way."""
_SLOTS_AT: Final = _RING_AT + _RING * 16
_WORDS: Final = 8
"""Of a slot; the last is spare."""
_FIRST_SLOTS: Final = 1024


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file, as the ledger knows it."""

    number: int
    ino: int
    asked: int
    """The inode number that the kernel knows it by: its own, or that of a view."""
    uid: int
    backing: int
    flags: int
    request: int

    @property
    def mode(self) -> str | None:
        """How the kernel does its reads and writes (`Mode`), if that was chosen."""
        return MODES[self.flags >> _MODE_SHIFT & 3] or None


def flags_of(*, writes: bool, direct: bool, counted: bool, mode: str | None) -> int:
    """The flags of a slot."""
    return writes * WRITES | direct * DIRECT | counted * COUNTED | MODES.index(mode or "") << _MODE_SHIFT


class Ledger:
    """One mount's. Everything is atomic."""

    def __init__(self, fd: int) -> None:
        """*fd*: a memfd, empty or of an earlier daemon; it is taken over. Raises ValueError for another form."""
        self.fd = fd
        if os.fstat(fd).st_size == 0:
            os.ftruncate(fd, _SLOTS_AT + _FIRST_SLOTS * _WORDS * 8)
            self._map()
            self._words[_SLOTS], self._words[_NEXT] = _FIRST_SLOTS, 1
            self._words[_FORM] = FORM
        else:
            self._map()
        if self._words[_FORM] != FORM:
            raise ValueError(f"a ledger of form {self._words[_FORM]} is not understood, only {FORM}")
        self._taken: dict[int, int] = {}
        self._free: list[int] = []
        self._leaving: dict[int, int] = {}
        for slot in reversed(range(self._words[_SLOTS])):
            number = self._words[self._at(slot)]
            if number:
                self._taken[number] = slot
            else:
                self._free.append(slot)
        self._backings = {
            self._words[place]: place for place in range(_FIRST_BACKING, _LAST_BACKING + 1) if self._words[place]
        }
        self._changed: dict[int, set[int]] = {}
        for place in range(_RING):
            request, ino = self._words[_RING_AT // 8 + 2 * place], self._words[_RING_AT // 8 + 2 * place + 1]
            if request:
                self._changed.setdefault(request, set()).add(ino)

    @classmethod
    def fresh(cls) -> Ledger:
        """An empty one. Raises OSError."""
        return cls(os.memfd_create("recfs-ledger", os.MFD_CLOEXEC))

    def _map(self) -> None:
        self._memory = mmap.mmap(self.fd, 0)
        self._words = memoryview(self._memory).cast("Q")

    @staticmethod
    def _at(slot: int) -> int:
        return _SLOTS_AT // 8 + slot * _WORDS

    # --- the session ---------------------------------------------------------------------------------------------

    def set_session(self, told: bytes) -> None:
        """Write down what the mount is, once. Raises ValueError when it is too long."""
        if len(told) > _RING_AT - _SESSION_AT:
            raise ValueError("the session does not fit into the ledger")
        self._memory[_SESSION_AT : _SESSION_AT + len(told)] = told
        self._words[_SESSION] = len(told)

    def session(self) -> bytes:
        """What the mount is; empty if the daemon died before it was known."""
        return self._memory[_SESSION_AT : _SESSION_AT + self._words[_SESSION]]

    # --- open files ----------------------------------------------------------------------------------------------

    @property
    def next_number(self) -> int:
        """Handles below were given out."""
        return self._words[_NEXT]

    def opened(self, record: Opened) -> None:
        """A handle is about to be answered."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        at, words = self._at(slot), self._words
        words[_NEXT] = max(words[_NEXT], record.number + 1)
        words[at + 1], words[at + 2], words[at + 3] = record.ino, record.asked, record.uid
        words[at + 4], words[at + 5], words[at + 6] = record.backing, record.flags, record.request & ~RESENT
        words[at] = record.number
        self._taken[record.number] = slot
        self.given_back(record.backing)

    def released(self, number: int) -> None:
        """A handle is gone."""
        slot = self._taken.pop(number, None)
        if slot is not None:
            self._words[self._at(slot)] = 0
            self._free.append(slot)

    def left(self, number: int) -> None:
        """The kernel has let go of a handle; it is `released` when the row says what became of its file."""
        slot = self._taken.get(number)
        if slot is not None:
            self._words[self._at(slot) + 5] |= LEFT
            self._leaving[number] = self._words[self._at(slot) + 1]

    def release_settled(self, is_dirty: Callable[[int], bool]) -> None:
        """Forget handles that were `left`, the oldest first, as far as the rows of their files are written."""
        while self._leaving:
            number, ino = next(iter(self._leaving.items()))
            if is_dirty(ino):
                return
            del self._leaving[number]
            self.released(number)

    def open_files(self) -> list[Opened]:
        """All handles, in the order they were given out."""
        found = []
        for number, slot in sorted(self._taken.items()):
            at = self._at(slot)
            found.append(Opened(number, *self._words[at + 1 : at + 7]))
        return found

    def answered_with(self, request: int) -> int | None:
        """The handle that was made for a request, if the daemon died before it was answered."""
        wanted = request & ~RESENT
        return next((each.number for each in self.open_files() if each.request == wanted), None)

    # --- backing ids ---------------------------------------------------------------------------------------------

    def backed(self, backing: int) -> None:
        """The kernel was given a file to read and write by itself, for a handle that is not entered yet."""
        self._words[_HIGHEST] = max(self._words[_HIGHEST], backing)
        place = next((place for place in range(_FIRST_BACKING, _LAST_BACKING + 1) if not self._words[place]), None)
        if place is not None:  # more are never on their way at once
            self._words[place] = backing
            self._backings[backing] = place

    def given_back(self, backing: int) -> None:
        """A slot has it from now on, or the kernel no more."""
        place = self._backings.pop(backing, None)
        if place is not None:
            self._words[place] = 0

    def leaked(self) -> set[int]:
        """Backing ids that the kernel may hold for an earlier daemon and that no open file has.

        As long as it does, their files look as if somebody wrote to them.
        """
        slots = self.open_files()
        used = {each.backing for each in slots if not each.flags & LEFT}
        highest = self._words[_HIGHEST]
        untold = range(highest + 1, highest + 1 + _UNTOLD) if highest else ()
        let_go = {each.backing for each in slots if each.flags & LEFT and each.backing}
        return {*self._backings, *untold, *let_go} - used

    def _grow(self) -> None:
        slots = self._words[_SLOTS]
        os.ftruncate(self.fd, _SLOTS_AT + 2 * slots * _WORDS * 8)
        self._words.release()
        self._map()
        self._words[_SLOTS] = 2 * slots
        self._free.extend(reversed(range(slots, 2 * slots)))

    # --- what requests did ---------------------------------------------------------------------------------------

    def changed(self, ino: int) -> None:
        """The request that is being served has made, moved or removed this inode."""
        request = ticket.get() & ~RESENT
        if not request:
            return
        words = self._words
        place = words[_PLACE] % _RING
        at = _RING_AT // 8 + 2 * place
        words[at] = 0
        words[at + 1] = ino
        words[at] = request
        words[_PLACE] = place + 1

    def changed_by(self, request: int) -> set[int]:
        """What an earlier daemon did for a request that the kernel sends again; nothing for any other."""
        return self._changed.get(request & ~RESENT, set()) if request & RESENT else set()


__all__ = ["COUNTED", "DIRECT", "LEFT", "RESENT", "WRITES", "Ledger", "Opened", "flags_of"]
