"""What a command without a daemon, and without the store's configuration, leaves of the trash: all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.config import config_for_root
from recfs.offline import Offline

from .build import REC, filesystem, pattern

KEPT, SMALL = f"{REC}/kept", f"{REC}/small"


async def alone(root: Path, method: str, **params: Any) -> Any:
    """Ask what `recfs … --root ROOT` asks without a daemon."""
    writer = Offline(config_for_root(root))
    return await trio.to_thread.run_sync(lambda: writer.call(method, **params))


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("trash_list", {}),
        ("verify", {}),
        ("sweep_temp", {"dry_run": False}),
        ("sweep_expired", {"dry_run": False}),
        ("quota_set", {"user": "5", "max_files": 7}),
        ("trash_restore", {"path": SMALL}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("max_metadata", [1 << 20, 1 << 32])
async def test_defaults_give_nothing_up(place: Path, method: str, params: dict[str, Any], max_metadata: int) -> None:
    settings: dict[str, Any] = {"trash": {"retention": 7 * 86_400.0, "max_metadata": max_metadata}}
    async with filesystem(place / "root", **settings) as fs:
        await fs.write(KEPT, pattern(5_000))
        await fs.write(SMALL, b"small")
        await fs.drain()
        await fs.unlink(KEPT)
        await fs.unlink(SMALL)
        await fs.drain()
        before = await fs.answers()["trash_list"]({})
        await fs.stop()
        await alone(fs.root, method, **params)
        await fs.reopen()
        after = await fs.answers()["trash_list"]({})
        expected = [each["path"] for each in before["entries"] if (method, each["path"]) != ("trash_restore", SMALL)]
        assert [each["path"] for each in after["entries"]] == expected
        assert (await fs.answers()["trash_restore"]({"path": KEPT}))["files"] == 1
        assert await fs.read(KEPT) == pattern(5_000)


async def test_what_such_a_command_removes_is_kept_until_the_store_says(place: Path) -> None:
    async with filesystem(place / "root", trash={"retention": 7 * 86_400.0}) as fs:
        for number in (1, 2):
            await fs.write(f"{REC}/topics_v{number}.json", pattern(5_000))
        await fs.drain()
        await fs.stop()
        await alone(fs.root, "versions_prune", path=REC, keep=1, dry_run=False)
        await fs.reopen()
        assert not await fs.exists(f"{REC}/topics_v1.json")
        listed = [each["path"] for each in (await fs.answers()["trash_list"]({}))["entries"]]
        assert listed == [f"{REC}/topics_v1.json"]


async def test_of_numbers_only_those_are_meant_that_the_rest_means_too(place: Path) -> None:
    """Nothing goes for its number that is younger, or another user's, than was said."""
    async with filesystem(place / "root", trash={"retention": 7 * 86_400.0}) as fs:
        await fs.write(KEPT, pattern(5_000))
        await fs.unlink(KEPT)
        await fs.drain()
        answers = fs.answers()
        (entry,) = (await answers["trash_list"]({}))["entries"]
        ids = [entry["number"]]
        others: list[dict[str, Any]] = [{"older_s": 3600.0}, {"user": "6"}, {"path": SMALL}]
        for other in others:
            assert (await answers["trash_purge"]({"ids": ids, **other}))["files"] == 0
        for other in others[1:]:
            assert (await answers["trash_restore"]({"ids": ids, **other}))["files"] == 0
        assert not await fs.exists(KEPT)
        assert (await answers["trash_purge"]({"ids": ids, "user": "5"}))["files"] == 1
