"""What loses its name while the publisher moves it: a death finds it, whether it was moved any more or not."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.stores.steps import Outcome, Step

from .build import OPERATOR, REC, Filesystem, filesystem, pattern, until

OTHER = "users/5/recordings/143"
OLD, NEW = f"{REC}/old", f"{OTHER}/new"
UNWATCHED: dict[str, Any] = {"watch": {"enabled": False}}
Act = Callable[[Filesystem], Awaitable[None]]


@pytest.fixture(params=[0.0, 3600.0], ids=["no-trash", "trash"])
async def fs(place: Path, request: pytest.FixtureRequest) -> AsyncIterator[Filesystem]:
    async with filesystem(place / "root", trash={"retention": request.param}, **UNWATCHED) as made:
        await made.mkdirs(REC)
        await made.mkdirs(OTHER)
        yield made


async def a_file(fs: Filesystem) -> None:
    await fs.write(OLD, pattern(3000, seed=1))


async def a_directory(fs: Filesystem) -> None:
    await fs.mkdirs(OLD)


async def a_link(fs: Filesystem) -> None:
    folder, name = OLD.rsplit("/", 1)
    await fs.vfs.symlink((await fs.node(folder)).ino, name.encode(), b"target", OPERATOR)


async def unlink(fs: Filesystem) -> None:
    await fs.unlink(NEW)


async def rmdir(fs: Filesystem) -> None:
    folder, name = NEW.rsplit("/", 1)
    await fs.vfs.rmdir((await fs.node(folder)).ino, name.encode(), OPERATOR)


async def replace(fs: Filesystem) -> None:
    await fs.write(f"{OTHER}/another", b"another")
    await fs.rename(f"{OTHER}/another", NEW)


CASES = [(a_file, unlink), (a_file, replace), (a_directory, rmdir), (a_link, unlink)]


class Held:
    """The publisher's thread, before its next steps."""

    def __init__(self, fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self._go_on, self._is_dead = threading.Event(), threading.Event(), False
        store = fs.parts.store
        self._apply = store.apply
        monkeypatch.setattr(store, "apply", self._slow)

    def _slow(self, steps: Sequence[Step], *, durable: bool = True) -> list[Outcome]:
        self.begun.set()
        assert self._go_on.wait(60)
        return [Outcome(error=errno.EIO)] * len(steps) if self._is_dead else self._apply(steps, durable=durable)

    def die(self) -> None:
        self._is_dead = True
        self._go_on.set()

    def go_on(self) -> None:
        self._go_on.set()


def lying_about(fs: Filesystem) -> list[str]:
    """What of it is left in the home tree."""
    found = [fs.root / OLD, fs.root / NEW]
    return [str(path.relative_to(fs.root)) for path in found if os.path.lexists(path)]


@pytest.mark.parametrize(("made", "removed"), CASES, ids=[f"{a.__name__}-{b.__name__}" for a, b in CASES])
@pytest.mark.may_log("Input/output error")  # nobody hears of it: it is dead
@pytest.mark.parametrize("moved", [False, True], ids=["not-moved", "moved"])
async def test_after_a_death_nothing_of_it_is_left(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, made: Act, removed: Act, moved: bool
) -> None:
    await made(fs)
    await fs.drain()
    held = Held(fs, monkeypatch)
    await fs.rename(OLD, NEW)
    await until(held.begun.is_set)
    await removed(fs)
    await fs.parts.behind.flush()
    if moved:
        (fs.root / OLD).rename(fs.root / NEW)
    with trio.CancelScope(shield=True):
        crash = fs.crash()
        held.die()
        await crash
    monkeypatch.undo()
    await fs.reopen()
    await fs.drain()
    assert lying_about(fs) == ([NEW] if removed is replace else [])
    if removed is replace:
        assert await fs.read(NEW) == b"another"
    if fs.config.trash.retention and made is a_file:
        (entry,) = [each for each in (await fs.answers()["trash_list"]({}))["entries"] if each["size_bytes"] == 3000]
        assert (fs.root / f".recfs/trash/{entry['number']}").read_bytes() == pattern(3000, seed=1)
    await fs.assert_consistent(trash=int(bool(fs.config.trash.retention) and made is a_file))


@pytest.mark.parametrize(("made", "removed"), CASES, ids=[f"{a.__name__}-{b.__name__}" for a, b in CASES])
async def test_without_a_death_no_row_of_it_is_left(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, made: Act, removed: Act
) -> None:
    await made(fs)
    await fs.drain()
    held = Held(fs, monkeypatch)
    await fs.rename(OLD, NEW)
    await until(held.begun.is_set)
    await removed(fs)
    await fs.parts.behind.flush()
    held.go_on()
    await fs.drain()
    assert fs.rows("select gid from garbage where promised & 64") == []
    assert lying_about(fs) == ([NEW] if removed is replace else [])
    await fs.assert_consistent(trash=int(bool(fs.config.trash.retention) and made is a_file))
