"""A file system in memory, to test and measure the request loop with nothing else in the way.

    python tests/helpers/loop_fs.py MOUNTPOINT {fast|greedy|idle|plain|foreign}

fast: `recfs.fuse.loop.serve`; greedy: the same, never going to epoll while requests come; idle: the same without
the timer; plain: `pyfuse3.main`; foreign: `serve` with a `pyfuse3.trio` that is not trio. It says "ready" when
mounted, and at the end prints one JSON object: the loop's counters and whether pyfuse3 was left as found.
Extended attributes of any file are its levers; see `Levers`.
"""

import errno
import json
import logging
import os
import signal
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pyfuse3
import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from recfs.fuse import loop

TICK_S = 0.002


class Levers:
    """What reading `user.<name>` does: each method answers one attribute."""

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.suspended = 0
        self.ticks = 0
        self.scope = trio.CancelScope()

    async def wait(self) -> int:
        """Suspend until `open`."""
        self.suspended += 1
        await self.gate.wait()
        self.suspended -= 1
        return 0

    async def open(self) -> int:
        self.gate.set()
        return 0

    async def waiting(self) -> int:
        """How many handlers are suspended."""
        return self.suspended

    async def timer(self) -> int:
        """How often a task that sleeps `TICK_S` at a time has woken up."""
        return self.ticks

    async def thread(self) -> int:
        """Work in a thread."""
        return await trio.to_thread.run_sync(lambda: len(str(time.time_ns())))

    async def terminate(self) -> int:
        pyfuse3.terminate()
        return 0

    async def cancel(self) -> int:
        self.scope.cancel()
        return 0


class MemoryFs(pyfuse3.Operations):
    """One flat directory; attributes are never cached, so each stat is a request."""

    def __init__(self) -> None:
        super().__init__()
        self.modes = {pyfuse3.ROOT_INODE: stat.S_IFDIR | 0o755}
        self.data: dict[int, bytearray] = {pyfuse3.ROOT_INODE: bytearray()}
        self.names: dict[bytes, int] = {}
        self.levers = Levers()

    def _entry(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = self.modes[inode]
        entry.st_size = len(self.data[inode])
        entry.attr_timeout = 0
        entry.entry_timeout = 300
        return entry

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._entry(inode)

    async def setattr(self, inode, attr, fields, fh, ctx):  # type: ignore[no-untyped-def]
        return self._entry(inode)

    async def lookup(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        inode = self.names.get(name)
        if inode is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._entry(inode)

    async def create(self, parent, name, mode, flags, ctx):  # type: ignore[no-untyped-def]
        inode = self.names[name] = len(self.modes) + 1
        self.modes[inode] = mode
        self.data[inode] = bytearray()
        return pyfuse3.FileInfo(fh=inode), self._entry(inode)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=inode)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return bytes(self.data[fh][off : off + size])

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        self.data[fh][off : off + len(buf)] = buf
        return len(buf)

    async def flush(self, fh: int) -> None: ...

    async def release(self, fh: int) -> None: ...

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None: ...

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        lever = getattr(self.levers, name.decode().removeprefix("user."), None)
        if lever is None:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        return str(await lever()).encode()


async def run(fs: MemoryFs, mode: str) -> None:
    async def tick() -> None:
        while True:
            await trio.sleep(TICK_S)
            fs.levers.ticks += 1

    async def end_on_signal() -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                pyfuse3.terminate()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_on_signal)
        if mode != "idle":
            nursery.start_soon(tick)
        with fs.levers.scope:
            await (pyfuse3.main() if mode == "plain" else loop.serve())
        nursery.cancel_scope.cancel()


def main() -> None:
    mountpoint, mode = sys.argv[1:]
    logging.basicConfig(level=logging.INFO)
    fs = MemoryFs()
    pyfuse3.init(fs, mountpoint, {*pyfuse3.default_options, "fsname=recfs-loop"})
    if mode == "foreign":
        vars(pyfuse3)["trio"] = SimpleNamespace(**{name: getattr(trio, name) for name in dir(trio)})
    if mode == "greedy":
        loop.SPIN_S = 3600.0  # type: ignore[misc]
        os.sched_getaffinity = lambda _pid: {0, 1}  # or a machine with one CPU would not spin at all
    found = vars(pyfuse3)["trio"]
    print("ready", flush=True)
    try:
        trio.run(run, fs, mode)
    finally:
        pyfuse3.close()
    restored = vars(pyfuse3)["trio"] is found
    print(json.dumps({"stats": asdict(loop.STATS), "restored": restored, "pid": os.getpid()}), flush=True)


if __name__ == "__main__":
    main()
