"""A mirror of a directory on a `FuseSession`, to test recfs.fuse.passthrough: `session_fs.py SOURCE MOUNT JSON`.

JSON: `wanted`; `options` (mount options, a list); `probe` (the directory for its file); `hog` (true: another thread
keeps the GIL busy, so time passes between finding a request and reading it); `ranges` (true: it answers FALLOCATE,
LSEEK and COPY_FILE_RANGE). Prints one line of JSON when it answers, the acceleration, and one at the end, its
descriptors that should be gone. SIGTERM ends it without unmounting. Reading the extended attribute `user.requests` of
the top directory returns how many requests of each kind came, `vanished` and were `answered` by the extension.
"""

import collections
import errno
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from recfs.errors import MountError
from recfs.fuse import acceleration, interpose, passthrough

# isort: split
# After recfs.fs, which loads the extension that pyfuse3 is to find.
import pyfuse3
import trio

ATTRIBUTES = ["mode", "nlink", "uid", "gid", "size", "rdev", "blocks", "atime_ns", "mtime_ns", "ctime_ns"]


class Mirror(pyfuse3.Operations):
    """Files are opened for real; where the kernel can have them, it gets them."""

    def __init__(self, source: Path, session: passthrough.FuseSession) -> None:
        super().__init__()
        self.session = session
        self.paths: dict[int, bytes] = {pyfuse3.ROOT_INODE: os.fsencode(source)}
        self.inodes: dict[bytes, int] = {os.fsencode(source): pyfuse3.ROOT_INODE}
        self.requests: collections.Counter[str] = collections.Counter()
        self.backing: dict[int, list[int]] = {}  # inode -> [backing id, files open]
        self.inode_of: dict[int, int] = {}

    def _inode(self, path: bytes) -> int:
        inode = self.inodes.setdefault(path, len(self.paths) + 1)
        self.paths[inode] = path
        return inode

    def _entry(self, path: bytes) -> pyfuse3.EntryAttributes:
        try:
            status = os.lstat(path)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from error
        entry = pyfuse3.EntryAttributes()
        for name in ATTRIBUTES:
            setattr(entry, f"st_{name}", getattr(status, f"st_{name}"))
        entry.st_ino = self._inode(path)
        entry.entry_timeout = entry.attr_timeout = 60
        return entry

    def _stage(self, inode: int, fd: int, flags: int) -> None:
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        open_flags = 0 if writing else acceleration.FOPEN_NOFLUSH
        told = self.session.acceleration
        self.inode_of[fd] = inode
        if not (told.reads and told.writes):
            if told.wanted != "off":  # else pyfuse3's own flags count
                self.session.stage(fd, open_flags | acceleration.FOPEN_KEEP_CACHE)
            return
        held = self.backing.setdefault(inode, [0, 0])
        held[0] = held[0] or self.session.backing_open(fd)
        held[1] += 1
        self.session.stage(fd, open_flags, held[0])

    async def lookup(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        self.requests["lookup"] += 1
        return self._entry(os.path.join(self.paths[parent], name))

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        self.requests["getattr" if inode != pyfuse3.ROOT_INODE else "getattr of the top"] += 1
        return self._entry(self.paths[inode])

    async def setattr(self, inode, attr, fields, fh, ctx):  # type: ignore[no-untyped-def]
        self.requests["setattr"] += 1
        if fields.update_size:
            os.truncate(self.paths[inode], attr.st_size)
        if fields.update_mode:
            os.chmod(self.paths[inode], attr.st_mode & 0o7777)
        return self._entry(self.paths[inode])

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        self.requests["open"] += 1
        fd = os.open(self.paths[inode], flags & ~os.O_NOFOLLOW)
        self._stage(inode, fd, flags)
        return pyfuse3.FileInfo(fh=fd, keep_cache=True)

    async def create(self, parent, name, mode, flags, ctx):  # type: ignore[no-untyped-def]
        self.requests["create"] += 1
        path = os.path.join(self.paths[parent], name)
        fd = os.open(path, os.O_CREAT | os.O_RDWR, mode)
        entry = self._entry(path)
        self._stage(entry.st_ino, fd, os.O_RDWR)
        return pyfuse3.FileInfo(fh=fd), entry

    async def read(self, fh: int, off: int, size: int) -> bytes:
        self.requests["read"] += 1
        return os.pread(fh, size, off)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        self.requests["write"] += 1
        return os.pwrite(fh, buf, off)

    async def flush(self, fh: int) -> None:
        self.requests["flush"] += 1

    async def release(self, fh: int) -> None:
        self.requests["release"] += 1
        inode = self.inode_of.pop(fh)
        if inode in self.backing:
            self.backing[inode][1] -= 1
            if not self.backing[inode][1]:
                self.session.backing_close(self.backing.pop(inode)[0])
        os.close(fh)

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        self.requests["opendir"] += 1
        self.session.stage(inode, acceleration.FOPEN_CACHE_DIR | acceleration.FOPEN_KEEP_CACHE)
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        self.requests["readdir"] += 1
        path = self.paths[fh]
        names = sorted(os.listdir(path))
        for index in range(start_id, len(names)):
            entry = self._entry(os.path.join(path, names[index]))
            if not pyfuse3.readdir_reply(token, names[index], entry, index + 1):
                break

    async def releasedir(self, fh: int) -> None:
        self.requests["releasedir"] += 1

    async def unlink(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self.requests["unlink"] += 1
        path = os.path.join(self.paths[parent], name)
        os.unlink(path)
        self.inodes.pop(path, None)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self.requests["forget"] += len(inode_list)

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if name == b"user.requests":
            reply = interpose.reply
            counted = {"vanished": reply.vanished(), "answered": reply.answered()} if reply else {"vanished": 0}
            return json.dumps(self.requests | counted).encode()
        self.requests["getxattr"] += 1
        if name == b"user.slow":  # answered later, so that its caller can be killed meanwhile
            await trio.sleep(0.01)
        raise pyfuse3.FUSEError(pyfuse3.ENOATTR)


FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2


class RangeMirror(Mirror):
    """It has what pyfuse3 has no requests for. Punching a hole is a bug, and keeping the size takes for ever."""

    async def fallocate(self, fh: int, mode: int, offset: int, length: int) -> None:
        self.requests["fallocate"] += 1
        if mode & FALLOC_FL_PUNCH_HOLE:
            raise ValueError("a bug")
        if mode & FALLOC_FL_KEEP_SIZE:
            await trio.sleep_forever()
        try:
            os.posix_fallocate(fh, offset, length)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from error

    async def lseek(self, fh: int, offset: int, whence: int) -> int:
        self.requests["lseek"] += 1
        try:
            return os.lseek(fh, offset, whence)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from error

    async def copy_file_range(
        self, source_fh: int, source_offset: int, fh: int, offset: int, length: int, flags: int
    ) -> int:
        self.requests["copy_file_range"] += 1
        return os.copy_file_range(source_fh, fh, min(length, 100_000), source_offset, offset)


def hog() -> None:
    """Give the GIL away only when asked for, and late."""

    def spin() -> None:
        while True:
            pass

    sys.setswitchinterval(0.02)
    threading.Thread(target=spin, daemon=True).start()


def descriptors() -> set[str]:
    """Devices and sockets that are open."""
    links = {os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    return {link for link in links if link == "/dev/fuse" or link.startswith("socket:")}


async def main(source: Path, mountpoint: Path, settings: dict[str, Any]) -> None:
    session = passthrough.FuseSession(
        mountpoint, set(settings.get("options", ["default_permissions"])), wanted=settings.get("wanted", "auto")
    )

    async def end_on_signal(scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                scope.cancel()

    before = descriptors()
    try:
        session.open((RangeMirror if settings.get("ranges") else Mirror)(source, session))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_on_signal, nursery.cancel_scope)
            async with trio.open_nursery() as requests:
                await requests.start(session.serve)
                with tempfile.TemporaryFile(dir=settings.get("probe", source)) as probe:
                    told = await session.probe(probe.fileno())
                if settings.get("hog"):
                    hog()
                print(json.dumps(told.as_dict() | {"summary": told.summary()}), flush=True)
            nursery.cancel_scope.cancel()
    finally:
        session.close()
        session.close()
    print(json.dumps(sorted(descriptors() - before)), flush=True)


if __name__ == "__main__":
    try:
        trio.run(main, Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
    except* MountError as refused:
        print(json.dumps({"refused": [str(error) for error in refused.exceptions]}), flush=True)
