"""A store that is moved to another disk by a copy of its root: everything is there, whatever numbers its files have."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recfs.core.model import State
from recfs.fs.attributes import Changes

from .build import OPERATOR, REC, Filesystem, pattern
from .far import ask
from .test_tier import evict, tiered

if TYPE_CHECKING:
    import trio

KEPT: dict[str, Any] = {"trash": {"retention": 3600.0}}
HERE, FAR, GONE, EMPTIED = f"{REC}/here", f"{REC}/sub/far", f"{REC}/gone", f"{REC}/emptied"
TEMP = "temp/5/77/part"


async def facts(fs: Filesystem) -> dict[str, tuple[object, ...]]:
    """All that a move keeps, the inode numbers in the mount among it."""
    found = {}
    for path in (REC, HERE, f"{REC}/sub", FAR, TEMP, "shared/one", f"{REC}/link"):
        node = await fs.node(path)
        found[path] = (
            node.ino, node.mode, node.uid, node.gid, node.mtime_ns, node.size, getattr(node, "sha256", None),
            getattr(node, "state", None), dict(await fs.parts.tree.xattrs(node)), getattr(node, "life", None),
        )  # fmt: skip
    return found


async def filled(fs: Filesystem) -> None:
    """Something of every kind."""
    await fs.start()
    await fs.write(HERE, pattern(70_000))
    await fs.write(FAR, pattern(50_000, 1))
    await fs.write(TEMP, b"half a cut")
    await fs.write("shared/one", b"shared")
    await fs.vfs.symlink((await fs.node(REC)).ino, b"link", b"here", OPERATOR)
    await fs.vfs.setattr((await fs.node(HERE)).ino, Changes(mode=0o640, uid=1005, mtime_ns=10**18), OPERATOR)
    for path in (HERE, REC):
        await fs.xattrs.set((await fs.node(path)).ino, b"user.note", path.encode(), OPERATOR)
    folder = await fs.node(REC)
    folder.life = folder.life._replace(keep=1, note="board meeting")
    fs.parts.behind.recording(folder)
    for path in (GONE, EMPTIED):
        await fs.write(path, pattern(9000, 2))
    await fs.drain()
    await fs.unlink(GONE)
    await fs.write(EMPTIED, b"")
    await ask(fs, "quota_set", user="5", max_bytes=10 << 20)
    await fs.drain()
    await evict(fs, FAR)
    fs.clock.advance(120)


@pytest.mark.needs("rsync")
@pytest.mark.expect_log("copied or restored")
@pytest.mark.parametrize("how", ["rsync", "cp"])
async def test_everything_is_there(nursery: trio.Nursery, place: Path, how: str) -> None:
    fs = tiered(nursery, place / "old", **KEPT)
    await filled(fs)
    before, trash = await facts(fs), (await ask(fs, "trash_list"))["entries"]
    await fs.stop()
    command = (
        ["rsync", "-aHAX", f"{fs.root}/", f"{place}/new/"] if how == "rsync" else ["cp", "-a", fs.root, place / "new"]
    )
    subprocess.run(command, check=True, timeout=60)
    moved = tiered(nursery, place / "new", **KEPT)
    moved.objects, moved.clock = fs.objects, fs.clock
    await moved.start()
    await moved.drain()
    assert await facts(moved) == before
    assert before[FAR][7] is State.EVICTED
    assert [each["number"] for each in (await ask(moved, "trash_list"))["entries"]] == [
        each["number"] for each in trash
    ]
    assert await moved.read(HERE) == pattern(70_000)
    assert await moved.read(FAR) == pattern(50_000, 1)
    assert (await ask(moved, "trash_restore", path=GONE))["kept"] == []
    assert await moved.read(GONE) == pattern(9000, 2)
    (user,) = await ask(moved, "quota_show", user="5")
    assert user["own_limits"]["max_bytes"] == 10 << 20
    assert (await ask(moved, "quota_check", repair=False))["differences"] == []
    await moved.drain()
    await moved.assert_consistent(trash=1)
    await moved.stop()
