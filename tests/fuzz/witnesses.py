"""Files that only their maker writes, whatever the others do with their names: it knows what is in them."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable

from tests.fuzz.contents import SIZE


class Witness:
    """A file of our own, open, and what is in it."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self.bytes = bytearray()


class Witnesses:
    """Those of one client."""

    def __init__(
        self, dice: random.Random, number: int, folder: Callable[[], str], wrong: Callable[[str], None]
    ) -> None:
        self._dice = dice
        self._number = number
        self._folder = folder
        self._wrong = wrong
        self.all: list[Witness] = []
        self.made = 0

    def witness(self) -> None:
        """Make one."""
        if len(self.all) > 4:
            gone = self.all.pop(self._dice.randrange(5))
            self.check(gone)
            os.close(gone.fd)
        self.made += 1
        path = f"{self._folder()}/w{self._number}-{self.made % 40}-{os.getpid()}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self.all.append(Witness(fd, path))

    def testify(self) -> None:
        """Write to one, or look whether it is what it was."""
        if not self.all:
            return
        witness, dice = self._dice.choice(self.all), self._dice
        size = len(witness.bytes)
        kind = dice.randrange(6)
        if kind == 0:
            data, offset = dice.randbytes(dice.choice([1, 4096, 20000])), dice.randrange(size + 1)
            self.record(witness, os.pwrite(witness.fd, data, offset), offset, data)
        elif kind == 1:
            wanted = dice.choice([0, size // 2, min(size + 100, SIZE)])
            os.ftruncate(witness.fd, wanted)
            witness.bytes[wanted:] = bytes(max(0, wanted - size))
        elif kind == 2 and size >= 4096:
            with mmap.mmap(witness.fd, 4096) as view:
                view[100:200] = witness.bytes[100:200] = dice.randbytes(100)
        elif kind == 3:
            fd = os.open(f"/proc/self/fd/{witness.fd}", os.O_RDWR)
            os.close(witness.fd)
            witness.fd = fd
        elif kind == 4:
            self.anew(witness)
        self.check(witness)

    def anew(self, witness: Witness) -> None:
        """Close it and open it by its name, if it still has that."""
        before = os.fstat(witness.fd)
        fd = os.open(witness.path, os.O_RDWR | os.O_NOFOLLOW)
        there = os.fstat(fd)
        if there.st_ino != before.st_ino:
            os.close(fd)
            return
        os.close(witness.fd)
        witness.fd = fd

    @staticmethod
    def record(witness: Witness, written: int, offset: int, data: bytes) -> None:
        """What was written is there now."""
        witness.bytes[offset : offset + written] = data[:written]

    def check(self, witness: Witness) -> None:
        """It holds what its maker wrote, and its size is that."""
        data, size = os.pread(witness.fd, 2 * SIZE, 0), os.fstat(witness.fd).st_size
        if data != witness.bytes or size != len(data):
            place = next((i for i, (a, b) in enumerate(zip(data, witness.bytes, strict=False)) if a != b), None)
            self._wrong(
                f"witness {witness.path}: {len(witness.bytes)} bytes were written, {len(data)} are read, st_size is"
                f" {size}, the first other byte at {place}"
            )
            witness.bytes[:] = data
