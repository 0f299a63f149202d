"""A reload whose configuration cannot be read holds up nothing else (what it changes: tests/fuse/test_reload.py)."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from recfs import reloading
from recfs.config import Settings, from_plain, plain
from recfs.config.changes import Plan
from recfs.core.upkeep.leftovers import Mode
from recfs.errors import ConfigError, QuotaExceeded
from recfs.reloading import Current, Reloading
from recfs.services.figures.surveys import SURVEY_LOOK_S
from recfs.services.orphans import name_of

from .build import REC, Filesystem, filesystem
from .test_tier import tiered
from .test_trash import ask


async def reloaded(fs: Filesystem, **sections: dict[str, Any]) -> Plan:
    """Another configuration is read: the sections that are given have other keys."""
    text = plain(fs.parts.in_effect.config)
    for section, keys in sections.items():
        text[section] = (text[section] or {}) | keys
    wanted = Settings(from_plain(text, "the test"), {})
    current = Current(Settings(fs.parts.in_effect.config, {}, lambda: wanted))
    return await Reloading(fs.parts, current, fs._answers(), lambda state: None).reload()


async def test_the_trash_keeps_for_as_long_as_a_reload_says(place: Path) -> None:
    """Also what is in it: longer, shorter, not at all, and again."""
    async with filesystem(place / "root", trash={"retention": "1h", "charged": True}) as fs:
        trash = fs.parts.work.upkeep.trash

        async def left() -> list[bytes]:
            fs.parts.work.upkeep.sweeper.sweep_trash()
            await fs.drain()
            return [each.path.rpartition(b"/")[2] for each in await trash.chosen(lambda each: True)]

        async def removed(name: str) -> None:
            await fs.write(f"{REC}/{name}", b"data")
            await fs.drain()
            await fs.unlink(f"{REC}/{name}")
            await fs.drain()

        await removed("a")
        assert (await reloaded(fs, trash={"retention": "3h"})).changed == {"trash.retention": (3600.0, 10_800.0)}
        fs.clock.advance(7200)
        await removed("b")
        assert await left() == [b"a", b"b"]
        assert fs.parts.tree.accounts.in_trash.bytes_of["5"] == 8
        await reloaded(fs, trash={"retention": "1h"})
        assert await left() == [b"b"]
        await reloaded(fs, trash={"retention": 0.0})
        assert await left() == []
        await removed("c")
        assert await left() == []
        assert fs.parts.tree.accounts.in_trash.bytes_of["5"] == 0
        await reloaded(fs, trash={"retention": "1h"})
        await removed("d")
        assert await left() == [b"d"]
        assert fs.parts.tree.accounts.in_trash.bytes_of["5"] == 4
        assert (await fs.answers()["trash_list"]({}))["retention_s"] == 3600


async def test_what_is_in_the_trash_counts_from_a_reload_on_and_until_one(place: Path) -> None:
    async with filesystem(place / "root", trash={"retention": "1h"}, quota={"max_bytes": 1000}) as fs:
        await fs.write(f"{REC}/a", bytes(400))
        await fs.drain()
        await fs.unlink(f"{REC}/a")
        await fs.drain()
        account = fs.parts.tree.accounts._known["5"]
        assert account.trashed_bytes == 0
        assert (await reloaded(fs, trash={"charged": True})).left == {}
        assert account.trashed_bytes == 400
        with pytest.raises(QuotaExceeded):
            await fs.write(f"{REC}/b", bytes(601))
        await fs.drain()
        await fs.unlink(f"{REC}/b")
        await fs.drain()
        assert account.trashed_bytes == 1000
        await reloaded(fs, trash={"charged": False})
        assert account.trashed_bytes == 0
        await fs.write(f"{REC}/c", bytes(1000))
        await reloaded(fs, trash={"charged": True})
        assert account.trashed_bytes == 1000, "beyond the limit: the bytes are there"
        await ask(fs, "trash_purge", all=True)
        await fs.drain()
        assert account.trashed_bytes == 0


async def test_a_smaller_share_of_the_trash_holds_at_once(place: Path) -> None:
    async with filesystem(place / "root", trash={"retention": "1h", "max_metadata": 4 << 20}) as fs:
        for number in range(1200):
            await fs.write(f"{REC}/{number}", b"")
            await fs.unlink(f"{REC}/{number}")
        await fs.drain()
        assert len(await fs.parts.work.upkeep.trash.chosen(lambda each: True)) == 1200
        assert (await reloaded(fs, trash={"max_metadata": 1 << 20})).left == {}
        await fs.drain()
        left = [
            int(each.path.rpartition(b"/")[2]) for each in await fs.parts.work.upkeep.trash.chosen(lambda each: True)
        ]
        assert 900 < len(left) < 1024
        assert left == list(range(1200 - len(left), 1200)), "what was deleted first went"


async def test_figures_are_kept_as_a_reload_says(place: Path) -> None:
    async with filesystem(place / "root") as fs:
        assert (await reloaded(fs, stats={"survey_every": 0.0, "keep": "3d"})).left == {}
        every = {each["name"]: each["every_s"] for each in fs.parts.sweeps.as_json()}
        assert every["survey"] is None
        assert fs.parts.figures.days.keep_s == 3 * 86_400
        await reloaded(fs, stats={"survey_every": "7h"})
        every = {each["name"]: each["every_s"] for each in fs.parts.sweeps.as_json()}
        assert (every["survey"], fs.parts.figures.surveys.every_s) == (SURVEY_LOOK_S, 7 * 3600)


async def test_sweeps_are_due_as_a_reload_says(nursery: Any, place: Path) -> None:
    fs = tiered(nursery, place, watch={"enabled": True})
    await fs.start()
    done = await reloaded(
        fs, temp={"sweep_interval": 7.0}, recordings={"sweep_interval": 11.0}, backup={"every": "2h"},
        sweep={"orphans_every": "2h", "orphans_mode": "adopt", "multiparts_every": "3h", "versions_every": 0.0,
               "catalogue_every": "4h", "tier_every": "5h"},
        watch={"quiet": 9.0, "scan_interval": 77.0},
    )  # fmt: skip
    assert done.left == {}
    every = {each["name"]: each["every_s"] for each in fs.parts.sweeps.as_json()}
    assert every | {
        "temp": 7.0, "trash": 7.0, "expired": 11.0, "multiparts": 10_800.0, "versions": None, "catalogue": 14_400.0,
        "tier": 18_000.0, name_of(Mode.REPORT): None, name_of(Mode.ADOPT): 7200.0,
    } == every  # fmt: skip
    watcher = fs.parts.work.upkeep.watcher
    assert watcher is not None
    assert (watcher.scan_interval_s, watcher._judging.quiet_s) == (77.0, 9.0)
    await fs.stop()


async def test_a_configuration_on_a_disk_that_hangs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reads it is left behind, and the next reload reads it anew."""
    monkeypatch.setattr(reloading, "READ_S", 0.01)
    answers: Any = None
    told: list[str] = []
    go_on = threading.Event()
    async with filesystem(place / "root") as fs:

        def again() -> Settings:
            if not go_on.wait(60):
                raise ConfigError("nobody let it go on")
            return Settings(fs.config, {}, again)

        reloads = Reloading(fs.parts, Current(Settings(fs.config, {}, again)), answers, told.append)
        for _ in range(2):
            with pytest.raises(ConfigError, match="could not be read in"):
                await reloads.reload()
        go_on.set()
        monkeypatch.setattr(reloading, "READ_S", 60.0)
        assert await reloads._read(again) == Settings(fs.config, {}, again)
    assert told == ["RELOADING", "READY"] * 2
