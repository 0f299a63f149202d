"""Directories that change places with each other, with those above them and with those below, many in one batch: the
home tree follows in an order in which each finds its place free, and the next start of a daemon that died in between
finds all of them.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from recfs.disk.home import homeplan, publisher
from recfs.stores.steps import Outcome, Step

from .build import OPERATOR, REC, Filesystem, filesystem

Model = dict[str, bytes | None]


class Story:
    """Random changes of a tree of few names, and what it should be; paths begin with a slash."""

    def __init__(self, fs: Filesystem, seed: int) -> None:
        self.fs, self.chance = fs, random.Random(seed)
        self.tree: Model = {}
        self.told: list[str] = []

    async def change(self, count: int) -> None:
        for _ in range(count):
            await self.step()

    async def step(self) -> None:
        """One change, or none, where what was chosen cannot be done."""
        fs, tree, chance = self.fs, self.tree, self.chance
        folders = ["", *(path for path, content in tree.items() if content is None)]
        new = f"{chance.choice(folders)}/{chance.choice('abcdefgh')}"
        what = chance.choices(("mkdir", "link", "write", "remove", "rename", "swap"), (3, 1, 1, 1, 2, 2))[0]
        if what in ("mkdir", "link", "write"):
            if new not in tree:
                await {"mkdir": self.mkdir, "link": self.link, "write": self.write}[what](new)
        elif tree and what == "remove":
            await self.remove(chance.choice(list(tree)))
        elif tree and what == "rename":
            await self.rename(chance.choice(list(tree)), new)
        elif len(tree) > 1:
            one, two = chance.sample(list(tree), 2)
            if not is_below(one, two) and not is_below(two, one):
                await fs.rename(REC + one, REC + two, exchange=True)
                self.tree = {moved(moved(path, one, "\0"), two, one): content for path, content in tree.items()}
                self.tree = {moved(path, "\0", two): content for path, content in self.tree.items()}
                self.told.append(f"swap {one} {two}")

    async def mkdir(self, path: str) -> None:
        parent, name = await self.fs.folder(REC + path)
        await self.fs.vfs.mkdir(parent, name, 0o755, OPERATOR)
        self.tree[path] = None
        self.told.append(f"mkdir {path}")

    async def link(self, path: str) -> None:
        parent, name = await self.fs.folder(REC + path)
        target = b"%d" % self.chance.randrange(1 << 40)
        await self.fs.vfs.symlink(parent, name, target, OPERATOR)
        self.tree[path] = b"-> " + target
        self.told.append(f"link {path}")

    async def write(self, path: str) -> None:
        self.tree[path] = b"%d" % self.chance.randrange(1 << 40)
        await self.fs.write(REC + path, self.tree[path] or b"")
        self.told.append(f"write {path}")

    async def remove(self, path: str) -> None:
        if any(is_below(other, path) for other in self.tree):
            return
        await (self.fs.rmdir if self.tree[path] is None else self.fs.unlink)(REC + path)
        del self.tree[path]
        self.told.append(f"remove {path}")

    async def rename(self, old: str, new: str) -> None:
        is_replacing = new in self.tree
        if new == old or is_below(new, old) or is_below(old, new):
            return
        if is_replacing and None in (self.tree[new], self.tree[old]):
            return
        await self.fs.rename(REC + old, REC + new)
        self.tree.pop(new, None)
        self.tree = {moved(path, old, new): content for path, content in self.tree.items()}
        self.told.append(f"rename {old} {new}")

    async def look(self) -> None:
        """Everything is there, with its bytes; nothing is set aside."""
        found = {path.removeprefix(REC): content for path, content in (await self.fs.tree(REC)).items()}
        assert found == self.tree
        assert self.fs.parts.behind.problems.as_json() == []


def is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


def moved(path: str, old: str, new: str) -> str:
    """Where *path* is once *old* is called *new*."""
    return new + path.removeprefix(old) if path == old or is_below(path, old) else path


@pytest.fixture(autouse=True)
def large_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The home tree follows when it is told to."""
    monkeypatch.setattr(publisher, "GATHER_S", 1e6)
    monkeypatch.setattr(homeplan, "PLAN_S", 1e6)


@pytest.mark.parametrize("seed", range(30))
async def test_the_home_tree_follows_whatever_changed_places(place: Path, seed: int) -> None:
    async with filesystem(place / "store", trash={"retention": "1h" if seed % 2 else 0}) as fs:
        await fs.mkdirs(REC)
        await fs.drain()
        story = Story(fs, seed)
        try:
            for _ in range(4):
                await story.change(story.chance.randrange(10, 60))
                await fs.drain()
                await story.look()
            trash = fs.rows("select count(*) from garbage")[0]
            await fs.assert_consistent(trash=trash)
        except BaseException as error:
            error.add_note("; ".join(story.told))
            raise


@pytest.mark.parametrize("seed", range(30))
async def test_it_follows_after_a_death_as_well(place: Path, seed: int) -> None:
    """Before any of its steps, or before the first: what was told by then is known, and all else goes on."""
    async with filesystem(place / "store") as fs:
        fs.checked_at_end = False
        await fs.mkdirs(REC)
        await fs.drain()
        story = Story(fs, seed)
        try:
            for _ in range(4):
                await story.change(story.chance.randrange(10, 60))
                await fs.parts.behind.flush()
                await fs.until_stopped(Filesystem.drain, story.chance.randrange(1, 100))
                await fs.crash()
                await fs.reopen()
                await story.look()
            await fs.drain()
            await story.look()
            await fs.assert_consistent()
            assert os.listdir(fs.root / ".recfs/lost+found") == []
        except BaseException as error:
            error.add_note("; ".join(story.told))
            raise


async def test_directories_that_have_changed_places_with_those_above(place: Path) -> None:
    """By their names the one is in the other, and on the disk it is the other way round. Neither is within itself."""
    async with filesystem(place / "store") as fs:
        await fs.mkdirs(f"{REC}/one")  # it comes first among the rows
        await fs.mkdirs(f"{REC}/two")
        await fs.write(f"{REC}/one/file", b"1")
        await fs.write(f"{REC}/two/file", b"2")
        await fs.rename(f"{REC}/one", f"{REC}/two/one")
        await fs.drain()
        await fs.rename(f"{REC}/two/one", f"{REC}/one")
        await fs.rename(f"{REC}/two", f"{REC}/one/two")
        await fs.parts.behind.flush()
        await fs.crash()
        await fs.reopen()
        assert fs.parts.behind.problems.as_json() == []
        assert await fs.read(f"{REC}/one/file") == b"1"
        assert await fs.read(f"{REC}/one/two/file") == b"2"
        await fs.drain()
        await fs.assert_consistent()


@pytest.mark.parametrize("seed", range(20))
async def test_it_follows_while_names_change(place: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch after batch, each slow: what is under way is renamed and removed, and the daemon dies at any moment."""
    chance = random.Random(-seed)
    apply = publisher.HomePublisher._apply

    def slow(self: publisher.HomePublisher, steps: Sequence[Step]) -> list[Outcome]:
        time.sleep(chance.uniform(0, 0.02))  # others have their turns
        outcomes = apply(self, steps)
        time.sleep(chance.uniform(0, 0.02))
        return outcomes

    monkeypatch.setattr(publisher.HomePublisher, "_apply", slow)
    monkeypatch.setattr(publisher, "GATHER_S", 0)
    async with filesystem(place / "store") as fs:
        fs.checked_at_end = False
        await fs.mkdirs(REC)
        await fs.drain()
        story = Story(fs, seed)
        try:
            for _ in range(4):
                for _ in range(story.chance.randrange(1, 8)):
                    await story.change(story.chance.randrange(1, 12))
                    await fs.parts.behind.flush()
                if story.chance.random() < 0.5:
                    await fs.until_stopped(Filesystem.drain, story.chance.randrange(1, 60))
                await fs.crash()
                await fs.reopen()
                await story.look()
            await fs.drain()
            await story.look()
            await fs.assert_consistent()
            assert os.listdir(fs.root / ".recfs/lost+found") == []
        except BaseException as error:
            error.add_note("; ".join(story.told))
            raise
