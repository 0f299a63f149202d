"""Random changes, each told to the intent log, and a death at any moment: all that was answered is there."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from recfs.catalogue.intents import log as intent_log
from recfs.errors import RecfsError
from recfs.fs.attributes import Changes

from .build import OPERATOR, Filesystem, filesystem
from .powercut import Disk, Kept

TOP = "users/5/recordings"
FOLDERS = [f"{TOP}/{n}{below}" for n in (1, 2) for below in ("", "/a", "/a/b", "/c")]
NAMES = ("f", "g", "h", "a", "b", "c")

ACTS = ("write", "write", "mkdir", "unlink", "rmdir", "rename", "rename", "swap", "chmod", "note")
OF_FOLDERS = ("mkdir", "mkdir", "mkdir", "rmdir", "rename", "rename", "swap", "chmod")
Model = dict[str, bytes | None]


class Story:
    """A tree, and what it should be."""

    def __init__(self, fs: Filesystem, seed: int, acts: tuple[str, ...] = ACTS) -> None:
        self.fs, self.chance, self.acts = fs, random.Random(seed), acts
        self.tree: Model = {}
        self.notes: dict[str, bytes] = {}
        self.told: list[str] = []

    def moved(self, old: str, new: str) -> None:
        for kept in (self.tree, self.notes):
            for path in [path for path in kept if path == new or path.startswith(f"{new}/")]:
                del kept[path]
            for path in [path for path in kept if path == old or path.startswith(f"{old}/")]:
                kept[new + path.removeprefix(old)] = kept.pop(path)  # type: ignore[assignment]

    def swapped(self, one: str, two: str) -> None:
        self.moved(one, "\0")
        self.moved(two, one)
        self.moved("\0", two)

    async def step(self) -> None:
        fs, chance = self.fs, self.chance
        path = f"{chance.choice(FOLDERS)}/{chance.choice(NAMES)}"
        other = f"{chance.choice(FOLDERS)}/{chance.choice(NAMES)}"
        what = chance.choice(self.acts)
        try:
            if what == "write":
                content = b"%d" % chance.randrange(1 << 40)
                number = await fs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                await fs.vfs.files.write(number, 0, content)
                await fs.close(number)
                self.tree[path] = content
            elif what == "mkdir":
                parent, name = await fs.folder(path)
                await fs.vfs.mkdir(parent, name, 0o755, OPERATOR)
                self.tree[path] = None
            elif what == "unlink":
                await fs.unlink(path)
                del self.tree[path]
                self.notes.pop(path, None)
            elif what == "rmdir":
                await fs.rmdir(path)
                del self.tree[path]
                self.notes.pop(path, None)
            elif what == "rename":
                await fs.rename(path, other)
                if path != other:
                    self.moved(path, other)
            elif what == "swap":
                await fs.rename(path, other, exchange=True)
                if path != other:
                    self.swapped(path, other)
            elif what == "chmod":
                node = await fs.node(path)
                await fs.vfs.setattr(node.ino, Changes(mode=0o700), OPERATOR)
            else:
                node = await fs.node(path)
                value = b"%d" % chance.randrange(1 << 40)
                await fs.xattrs.set(node.ino, b"user.note", value, OPERATOR)
                self.notes[path] = value
        except RecfsError as error:
            self.told.append(f"{what} {path} {other}: {type(error).__name__}")
            return
        fs.answered()
        self.told.append(f"{what} {path} {other}")

    async def look(self) -> None:
        found = {path: content for path, content in (await self.fs.tree(TOP)).items() if path.count("/") > 3}
        assert found == {path: content for path, content in self.tree.items() if path.count("/") > 3}
        for path, value in self.notes.items():
            node = await self.fs.node(path)
            assert await self.fs.xattrs.get(node.ino, b"user.note") == value, path


async def live(place: Path, seed: int, lives: int, steps: int) -> None:
    async with filesystem(place / "store", start=False, trash={"retention": "1h" if seed % 2 else 0}) as fs:
        fs.records = True
        fs.checked_at_end = False
        await fs.start()
        story = Story(fs, seed)
        for path in FOLDERS:
            await fs.mkdirs(path)
            story.tree[path] = None
        await fs.drain()
        try:
            for _ in range(lives):
                chance = story.chance
                blocked = chance.randrange(steps)
                for count in range(chance.randrange(1, steps)):
                    if count == blocked:
                        fs.faults.fail("apply", OSError(5, "not yet"), times=100_000)
                    elif chance.random() < 0.1 and count < blocked:
                        await (fs.drain() if chance.random() < 0.5 else fs.parts.behind.flush())
                    await story.step()
                await fs.crash()
                fs.faults.heal()
                story.told.append("died")
                await fs.reopen()
                await story.look()
                if chance.random() < 0.5:
                    await fs.drain()
                    await story.look()
            await fs.drain()
            await story.look()
            trash = fs.rows("select count(*) from garbage")[0]
            await fs.assert_consistent(trash=trash, lost=len(fs.leftovers("lost+found")))
            assert fs.leftovers("lost+found") == []
        except BaseException as error:
            error.add_note(f"seed {seed}: " + "; ".join(story.told[-40:]))
            raise


@pytest.mark.may_log("not yet|intent log")
@pytest.mark.parametrize("seed", range(int(os.environ.get("SEEDS", "6"))))
async def test_what_was_answered_is_there_after_any_death(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed % 3 == 2:  # files take turns all the time
        monkeypatch.setattr(intent_log, "ROOM_BYTES", 16384)
        monkeypatch.setattr(intent_log, "SMALL_ROOM_BYTES", 16384)
    await live(tmp_path, seed + int(os.environ.get("FIRST", "0")), lives=4, steps=25)


async def cut(place: Path, seed: int, steps: int) -> None:
    async with filesystem(place / "store", start=False) as fs:
        fs.records = fs.faults.books_watched = True
        fs.checked_at_end = False
        await fs.start()
        story = Story(fs, seed, OF_FOLDERS)
        for path in FOLDERS:
            await fs.mkdirs(path)
            story.tree[path] = None
        await fs.drain()
        await fs.vfs.behind.persist()
        disk = Disk(fs.root, place / "disk")
        disk.attach(fs.faults)
        chance = story.chance
        may_be = [set(story.tree)]
        for _ in range(chance.randrange(5, steps)):
            await story.step()
            may_be.append(set(story.tree))
            if chance.random() < 0.1:
                await chance.choice((fs.parts.behind.flush, fs.drain))()
            if chance.random() < 0.15:
                await fs.vfs.behind.persist()
                del may_be[:-1]
                story.told.append("synced")
        disk.detach(fs.faults)
        await fs.crash()
        kept: Kept = chance.choice(("none", "some", "all"))
        disk.cut(torn=chance.random() < 0.5, kept=kept, seed=seed)
        fs.boot = "after the power cut"
        try:
            await fs.reopen()
            for _ in range(2):
                found = {path for path in await fs.tree(TOP) if path.count("/") > 2}
                assert any(found == {path for path in each if path.count("/") > 2} for each in may_be), (
                    sorted(found ^ may_be[0]), sorted(found ^ may_be[-1]),
                )  # fmt: skip
                await fs.drain()
            await fs.assert_consistent()
        except BaseException as error:
            error.add_note(f"seed {seed}, kept {kept}: " + "; ".join(story.told[-40:]))
            raise


@pytest.mark.may_log("closed database|disk I/O error|Bad file descriptor")
@pytest.mark.parametrize("seed", range(int(os.environ.get("SEEDS", "6"))))
async def test_a_power_cut_leaves_a_moment_after_the_last_fsync(place: Path, seed: int) -> None:
    await cut(place, seed + int(os.environ.get("FIRST", "0")), steps=30)
