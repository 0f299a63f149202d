"""A reload whose configuration cannot be read holds up nothing else (what it changes: tests/fuse/test_reload.py)."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from recfs import reloading
from recfs.config import Settings
from recfs.errors import ConfigError
from recfs.reloading import Current, Reloading

from .build import filesystem


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
