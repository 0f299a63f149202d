"""`recfs top` in the daemon: requests are counted while somebody looks, and at no other time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pyfuse3
import pytest

from recfs.api.live import LiveAnswers
from recfs.errors import NotFound
from recfs.fs.handles import Mode
from recfs.fuse.guard import guarded
from recfs.fuse.observers import live
from recfs.fuse.observers.live import LiveCounts
from recfs.fuse.observers.watched import Watched

from .build import Filesystem

if TYPE_CHECKING:
    import trio

FILE = "users/5/recordings/1/a.mp4"


class Handlers(Watched):
    """Some of the kernel's requests."""

    @guarded
    async def read(self, fh: int, off: int, size: int) -> None:
        """Nothing."""

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> None:
        """Nothing."""

    @guarded
    async def getattr(self, ino: int, ctx: object) -> None:
        """No such file."""
        raise NotFound("gone")


class Looked:
    """A store somebody looks at."""

    def __init__(self, fs: Filesystem, handlers: Handlers) -> None:
        self.fs, self.handlers = fs, handlers
        self.counts = LiveCounts(fs.vfs)
        self.counts.serve(handlers)
        parts = fs.parts
        self.answers = LiveAnswers(fs.vfs, parts.committer, parts.publisher, self.counts, lambda: ["trouble"])

    async def look(self) -> dict[str, Any]:
        return await self.answers.top({})


@pytest.fixture
async def looked(nursery: trio.Nursery, tmp_path: Path) -> Looked:
    fs = Filesystem(nursery, tmp_path / "root")
    await fs.start()
    await fs.write(FILE, b"x")
    await fs.drain()
    return Looked(fs, Handlers())


def opened(looked: Looked, node: Any, *, mode: Mode | None = None) -> int:
    """A handle of a file that is open for writing."""
    looked.fs.vfs.files.handles[77] = SimpleNamespace(node=node, writes=True, mode=mode)
    return 77


async def test_requests_are_counted_by_kind_user_and_file(looked: Looked) -> None:
    node = await looked.fs.node(FILE)
    first = await looked.look()
    assert (first["requests"], first["users"], first["files"]) == ({}, [], [])
    number = opened(looked, node)
    await looked.handlers.read(number, 0, 4096)
    await looked.handlers.write(number, 0, b"12345")
    await looked.handlers.write(number, 5, b"678")
    with pytest.raises(pyfuse3.FUSEError):
        await looked.handlers.getattr(node.ino, None)
    del looked.fs.vfs.files.handles[number]
    found = await looked.look()
    counted = {op: (each["count"], each["failed"]) for op, each in found["requests"].items()}
    assert counted == {"read": (1, 0), "write": (2, 0), "getattr": (1, 1)}
    doing = {"requests": 4, "read_bytes": 4096, "written_bytes": 8, "kernel_bytes": 0}
    assert found["users"] == [{"user": "5"} | doing]
    assert found["files"] == [{"ino": node.ino, "path": FILE} | doing]
    assert found["problems"] == ["trouble"]
    await looked.fs.stop()


async def test_what_the_kernel_writes_is_what_files_grow_by(looked: Looked) -> None:
    node = await looked.fs.node(FILE)
    opened(looked, node, mode=Mode.PASS)
    looked.counts.look()
    node.bytes += 5000
    looked.counts.look()
    node.bytes += 30
    looked.counts.look()
    node.bytes -= 5030
    del looked.fs.vfs.files.handles[77]
    assert looked.counts.users["5"].kernel_bytes == 5030
    await looked.fs.stop()


async def test_nothing_is_observed_before_a_look_nor_some_time_after_the_last(
    looked: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert looked.handlers.watching == {}
    await looked.look()
    assert set(looked.handlers.watching) == {"read", "write", "getattr"}
    now_s = live.time.monotonic()
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now_s + live.LOOKED_S + 1))
    await looked.handlers.read(1, 0, 4096)
    assert looked.handlers.watching == {}
    assert looked.counts.requests == {}
    await looked.look()
    await looked.handlers.read(1, 0, 4096)
    assert (await looked.look())["requests"]["read"]["count"] == 1
    await looked.fs.stop()


async def test_another_observer_stays(looked: Looked) -> None:
    told: list[str] = []
    looked.handlers.watch("read", lambda op, args, error, seconds: told.append(op))
    await looked.look()
    looked.handlers.unwatch(looked.counts._done)
    await looked.handlers.read(1, 0, 4096)
    assert told == ["read"]
    assert list(looked.handlers.watching) == ["read"]
    await looked.fs.stop()


async def test_the_least_busy_are_forgotten_beyond_a_bound(looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST", 4)
    await looked.look()
    nodes = []
    for number in range(6):
        await looked.fs.write(f"shared/{number}", b"x")
        nodes.append(await looked.fs.node(f"shared/{number}"))
    for number, node in enumerate(nodes):
        for _ in range(6 - number):
            with pytest.raises(pyfuse3.FUSEError):
                await looked.handlers.getattr(node.ino, None)
    assert len(looked.counts.files) <= 4
    assert nodes[0].ino in looked.counts.files
    await looked.fs.stop()


async def test_a_store_without_a_mount_has_no_such_answer(looked: Looked) -> None:
    assert "top" not in looked.fs.answers()
    await looked.fs.stop()
