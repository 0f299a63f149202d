"""One process of the fuzzer: `clients MOUNT NUMBER SEED BEAT UID free|limited` works on few names until killed.

It prints a line that begins with WRONG, and goes on, when something happens that no local file system would show: an
errno, or bytes that nobody wrote there. In the file BEAT stands what it does and since when.

What the files hold that all write: `contents.py`; those that only one writes: `witnesses.py`. It has the standard
library alone, and is started as a module (`-m`) from the top of the repository.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import struct
import sys
import time
from collections.abc import Callable

from tests.fuzz.contents import SIZE, expected, is_foreign
from tests.fuzz.witnesses import Witnesses
from tests.helpers.syscalls import (
    KEEP_SIZE,
    PUNCH_HOLE,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    ZERO_RANGE,
    fallocate,
    renameat2,
)

BEAT = struct.Struct("=dQ48s")
"""Since when, how many acts before, and what it does."""
USERS, RECORDINGS = ("1", "2", "3"), ("1", "2")
TOPS = ("users", "temp", "shared")
LOCAL = {
    *(errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL, errno.ELOOP),
    *(errno.ENODATA, errno.ENXIO, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV),
}
"""What a local file system answers to who uses names that others use, too. EPERM: link(2), and who is not the owner."""
OTHERS = LOCAL | {errno.EACCES, errno.EROFS}
"""What it answers to users beside that. (What is shared is the operator's.)"""
LIMITED = {errno.EDQUOT, errno.EFBIG}


class Client:
    """One process, its open files, and its dice."""

    def __init__(self, mount: str, number: int, seed: int, beat: str, uid: int, *, limited: bool) -> None:
        self.mount = mount
        self.number = number
        self.dice = random.Random(seed)
        self.limited = limited
        self.allowed = (OTHERS if uid else LOCAL) | (LIMITED if limited else set())
        self.open: list[tuple[int, int, str]] = []
        self.witnesses = Witnesses(self.dice, number, self.folder, self.wrong)
        fd = os.open(beat, os.O_RDWR)
        self.beat = mmap.mmap(fd, BEAT.size)
        os.close(fd)
        self.acts = 0
        self.buffer = mmap.mmap(-1, 1 << 16)

    # --- names ---------------------------------------------------------------------------------------------------

    def folder(self) -> str:
        """A directory: of few."""
        user, dice = self.dice.choice(USERS), self.dice
        top = f"{self.mount}/users/{user}"
        kind = dice.randrange(20)
        if kind < 5:
            return f"{top}/thumbnails" + dice.choice(["", "", "/d"])
        if kind < 14:
            return f"{top}/recordings/{dice.choice(RECORDINGS)}" + dice.choice(["", "", "/d", "/e", "/d/d"])
        if kind < 17:
            return f"{self.mount}/temp/{user}/{dice.choice(RECORDINGS)}" + dice.choice(["", "/d"])
        if kind < 18:
            return f"{self.mount}/shared/thumbnails" + dice.choice(["", "/d"])
        return dice.choice([top, f"{top}/recordings", f"{self.mount}/temp/{user}"])

    def file(self) -> str:
        """A name for a file; of those there already, sometimes."""
        folder = self.folder()
        if self.dice.random() < 0.2:
            names = os.listdir(folder)
            if names:
                return f"{folder}/{self.dice.choice(names)}"
        return f"{folder}/{self.dice.choice(['f', 'g', 't', 'd'])}"

    def ours(self) -> str:
        """A name for a file that anybody may write to."""
        path = self.file()
        return path if not os.path.basename(path).startswith("w") else os.path.dirname(path) + "/f"

    def wrong(self, what: str) -> None:
        """Say it."""
        print(f"WRONG client {self.number}: {what}", flush=True)

    # --- directories ---------------------------------------------------------------------------------------------

    def make(self) -> None:
        """A directory and those above it."""
        os.makedirs(self.folder(), exist_ok=True)

    def rmdir(self) -> None:
        """Remove a directory; a user, now and then."""
        if self.dice.random() < 0.5:
            user = f"{self.mount}/users/{self.dice.choice(USERS)}"
            if self.dice.random() < 0.3:
                for each in ("recordings/1", "recordings/2", "recordings"):
                    try:
                        os.rmdir(f"{user}/{each}")
                    except OSError as error:
                        if error.errno not in self.allowed:
                            raise
            os.rmdir(user)
        else:
            os.rmdir(self.folder())

    def clear(self) -> None:
        """rm -r of a directory, now and then: else it gets too full for anything else to happen."""
        if self.dice.random() < 0.15:
            for folder, names, files in os.walk(self.folder(), topdown=False):
                for name in files:
                    self.tried(os.unlink, f"{folder}/{name}")
                for name in names:
                    self.tried(os.rmdir, f"{folder}/{name}")

    def tried(self, call: Callable[..., object], *args: object) -> None:
        """Call it; what a local file system may answer is no matter."""
        try:
            call(*args)
        except OSError as error:
            if error.errno not in self.allowed:
                raise

    def move(self) -> None:
        """rename(2) of anything to anywhere."""
        pairs = (
            (self.file, self.file),
            (self.folder, self.folder),
            (self.file, self.folder),
            (lambda: f"{self.mount}/users/{self.dice.choice(USERS)}",) * 2,
        )
        old, new = (name() for name in self.dice.choice(pairs))
        flags = self.dice.choice([0, 0, 0, RENAME_EXCHANGE, RENAME_EXCHANGE, RENAME_NOREPLACE])
        witness = [os.path.basename(path).startswith("w") for path in (old, new)]
        if witness[0] and not witness[1]:  # it keeps such a name, or somebody would write to it
            new, flags = os.path.dirname(new) + "/" + os.path.basename(old), flags & ~RENAME_EXCHANGE
        elif witness[1] and not witness[0]:
            new = os.path.dirname(new) + "/f"
        renameat2(old, new, flags)

    def look(self) -> None:
        """List a directory and stat what is in it."""
        folder = self.folder()
        for name in os.listdir(folder):
            self.tried(os.lstat, f"{folder}/{name}")

    # --- files ---------------------------------------------------------------------------------------------------

    def opens(self) -> None:
        """open(2) with any flags; some stay open for later."""
        dice = self.dice
        flags = dice.choice([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR])
        for flag, chance in (
            (os.O_CREAT, 0.6), (os.O_EXCL, 0.1), (os.O_TRUNC, 0.3), (os.O_APPEND, 0.1), (os.O_DIRECT, 0.15),
            (os.O_SYNC, 0.05), (os.O_NOFOLLOW, 0.2),
        ):  # fmt: skip
            if dice.random() < chance:
                flags |= flag
        if not flags & os.O_CREAT:
            flags &= ~os.O_EXCL
        path = self.ours()
        fd = os.open(path, flags, 0o666)
        self.open.append((fd, flags, path))
        for _ in range(dice.randrange(4)):
            self.use(fd, flags)
        if dice.random() < 0.7 or len(self.open) > 6:
            self.close()

    def close(self) -> None:
        """close(2) of one."""
        if self.open:
            os.close(self.open.pop(self.dice.randrange(len(self.open)))[0])

    def goes_on(self) -> None:
        """Use what is open."""
        if self.open:
            fd, flags, _ = self.dice.choice(self.open)
            self.use(fd, flags)

    def use(self, fd: int, flags: int) -> None:
        """Do one thing with an open file."""
        reads, writes = flags & os.O_ACCMODE != os.O_WRONLY, flags & os.O_ACCMODE != os.O_RDONLY
        acts: list[Callable[[int, int], None]] = [self.fstat, self.seek, self.attributes]
        acts += [self.read, self.read] if reads else []
        acts += [self.write, self.write, self.ftruncate, self.allocate, self.copy, self.sync] if writes else []
        acts += [self.fork] if reads and writes else []
        # A mapped page that a limit refuses, as it lies beyond an end that was cut meanwhile, is EIO to whoever writes
        # next: the kernel keeps no other error of it (mapping_set_error, include/linux/pagemap.h).
        acts += [self.map] if reads and writes and not self.limited else []
        act = self.dice.choice(acts)
        try:
            act(fd, flags)
        except OSError as error:
            if error.errno not in self.allowed or error.errno == errno.ENOENT:
                raise OSError(error.errno, f"{act.__name__} with flags {flags:#o}: {error}") from error

    def span(self, flags: int) -> tuple[int, int]:
        """An offset and a size; for O_DIRECT such as disks like."""
        offset, size = self.dice.randrange(SIZE // 2), self.dice.choice([1, 100, 4096, 5000, 30000, 60000])
        if flags & os.O_DIRECT:
            return offset & ~4095, max(size & ~4095, 4096)
        return offset, size

    def read(self, fd: int, flags: int) -> None:
        """Nothing is there that was written elsewhere."""
        offset, size = self.span(flags)
        if flags & os.O_DIRECT:
            got = os.preadv(fd, [memoryview(self.buffer)[:size]], offset)
            data = self.buffer[:got]
        else:
            data = os.pread(fd, size, offset)
        if is_foreign(data, offset):
            self.wrong(f"read at {offset} of {len(data)} bytes: others than were written there")

    def write(self, fd: int, flags: int) -> None:
        """pwrite(2). Who appends does not know where, so writes zeros."""
        offset, size = self.span(flags)
        data = bytes(size) if flags & os.O_APPEND else expected(offset, size)
        if flags & os.O_DIRECT:
            self.buffer[:size] = data
            os.pwritev(fd, [memoryview(self.buffer)[:size]], offset)
        else:
            os.pwrite(fd, data, offset)

    def ftruncate(self, fd: int, flags: int) -> None:
        """Cut, or make longer."""
        os.ftruncate(fd, self.dice.choice([0, 0, 1, 4096, self.dice.randrange(SIZE)]))

    def allocate(self, fd: int, flags: int) -> None:
        """fallocate(2)."""
        mode = self.dice.choice([0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE])
        fallocate(fd, mode, *self.span(flags))

    def copy(self, fd: int, flags: int) -> None:
        """copy_file_range(2) to the same place of another."""
        if self.open and not flags & os.O_APPEND:
            source, how, _ = self.dice.choice(self.open)
            offset, size = self.span(flags)
            if how & os.O_ACCMODE != os.O_WRONLY and source != fd:
                os.copy_file_range(source, fd, size, offset, offset)

    def sync(self, fd: int, flags: int) -> None:
        """fsync(2)."""
        os.fsync(fd)

    def fstat(self, fd: int, flags: int) -> None:
        """fstat(2) is right even for a removed file."""
        os.fstat(fd)

    def seek(self, fd: int, flags: int) -> None:
        """SEEK_DATA, SEEK_HOLE."""
        os.lseek(fd, self.dice.randrange(SIZE), self.dice.choice([os.SEEK_DATA, os.SEEK_HOLE]))

    def attributes(self, fd: int, flags: int) -> None:
        """fchmod, futimens, and extended attributes by descriptor."""
        dice = self.dice
        call = dice.choice([
            lambda: os.fchmod(fd, dice.choice([0o666, 0o777])),
            lambda: os.utime(fd, (dice.randrange(1 << 31),) * 2),
            lambda: os.setxattr(fd, "user.a", bytes(dice.randrange(200))),
            lambda: os.getxattr(fd, "user.a"),
            lambda: os.removexattr(fd, "user.a"),
            lambda: os.listxattr(fd),
        ])  # fmt: skip
        call()

    def map(self, fd: int, flags: int) -> None:
        """mmap(2), shared; a page that another cuts off meanwhile would be SIGBUS, so a child does it."""
        size = os.fstat(fd).st_size & ~4095
        if not size:
            return
        offset = self.dice.randrange(size) & ~4095
        # Who has opened a shown file by what stood for it cannot map it (10.3).
        was_shown = any(each == fd and "/thumbnails/" in path for each, _, path in self.open)

        def work() -> None:
            try:
                view = mmap.mmap(fd, 4096, offset=offset)
            except OSError as error:
                if error.errno == errno.ENODEV and was_shown:
                    return
                raise
            except ValueError:  # mmap(2) is not asked: the file is shorter by now
                return
            if not flags & os.O_APPEND:
                view[:] = expected(offset, 4096)
            if self.dice.random() < 0.5:
                view.flush()
            if self.dice.random() < 0.3:
                time.sleep(0.2 * self.dice.random())

        self.child(work)

    def fork(self, fd: int, flags: int) -> None:
        """A child writes to it and ends, or is killed."""

        def work() -> None:
            self.write(fd, flags)
            if self.dice.random() < 0.3:
                time.sleep(0.1)

        self.child(work)

    def child(self, work: Callable[[], None]) -> None:
        """Do it in a child, which may be killed meanwhile."""
        delay = self.dice.choice([None, None, 0.0, 0.003])
        self.dice.random()
        pid = os.fork()
        if not pid:
            code = 0
            try:
                work()
            except OSError as error:
                code = error.errno or 255
            except BaseException:
                code = 255
            os._exit(code)
        if delay is not None:
            time.sleep(delay)
            os.kill(pid, 9)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code > 0 and code not in self.allowed:
            raise OSError(code, f"in a child: {os.strerror(code)}")

    # --- by name -------------------------------------------------------------------------------------------------

    def by_name(self) -> None:
        """All that takes a path."""
        dice, path = self.dice, self.file()
        ours = self.ours()
        call = dice.choice([
            lambda: os.lstat(path),
            lambda: os.unlink(path),
            lambda: os.unlink(path),
            lambda: os.chmod(path, dice.choice([0o666, 0o777])),
            lambda: os.utime(path, (dice.randrange(1 << 31),) * 2),
            lambda: os.truncate(ours, dice.choice([0, 0, 5000, SIZE // 2])),
            lambda: os.setxattr(path, "user.a", bytes(dice.randrange(200))),
            lambda: os.setxattr(path, "user.b", b"b"),
            lambda: os.getxattr(path, "user.a"),
            lambda: os.getxattr(path, "user.recfs.state"),
            lambda: os.removexattr(path, "user.b"),
            lambda: os.listxattr(path),
            lambda: os.symlink(dice.choice(["f", "../g", "nowhere"]), path),
            lambda: os.readlink(path),
            lambda: os.access(path, os.R_OK),
            lambda: os.statvfs(os.path.dirname(path)),
            lambda: os.link(path, path + "2"),
            lambda: os.mkfifo(path) if dice.random() < 0.1 else None,
        ])  # fmt: skip
        call()

    # --- all of it -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """For ever."""
        weights = {
            self.opens: 12, self.goes_on: 8, self.by_name: 12, self.move: 6, self.make: 5, self.rmdir: 3,
            self.look: 2, self.clear: 2, self.witnesses.witness: 3, self.witnesses.testify: 6, self.close: 3,
        }  # fmt: skip
        acts, chances = list(weights), list(weights.values())
        os.umask(0)
        while os.getppid() != 1:
            act = self.dice.choices(acts, chances)[0]
            self.acts += 1
            self.beat[:] = BEAT.pack(time.time(), self.acts, act.__name__.encode())
            try:
                act()
            except OSError as error:
                if error.errno not in self.allowed:
                    name = errno.errorcode.get(error.errno or 0, "?")
                    self.wrong(f"{act.__name__}: {name}: {error}")


def main() -> None:
    """Work until killed."""
    mount, number, seed, beat, uid, limited = sys.argv[1:]
    if int(uid):
        os.setgid(int(uid))
        os.setuid(int(uid))
    client = Client(mount, int(number), int(seed), beat, int(uid), limited=limited == "limited")
    client.run()


if __name__ == "__main__":
    main()
