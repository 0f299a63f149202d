"""What keeps nobody who drains waiting: work that is refused for ever ends the wait, with its name and a remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import trio

from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.ports.object_errors import AccessRefused, PrefixTaken, Unreachable, WrongCredentials

from .build import REC, Filesystem, filesystem
from .far import ask, bucket, failing, fs
from .test_tier import FILE, stored
from .test_writebehind import Refusing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["fs"]


async def drained(fs: Filesystem) -> dict[str, Any]:
    """The answer of a drain that may take an hour, and does not."""
    with trio.fail_after(60):
        answer: dict[str, Any] = await ask(fs, "drain", timeout_s=3600)
    return answer


@pytest.mark.parametrize("error", [AccessRefused("not yours"), PrefixTaken("another's")], ids=["access", "prefix"])
async def test_when_s3_refuses_everything_drain_ends_with_the_names_and_what_to_do(
    fs: Filesystem, error: Exception, expect_log: Callable[[str], None]
) -> None:
    if isinstance(error, AccessRefused):
        expect_log("not yours")
    bucket(fs).fail("put_file", error, times=1000)
    await fs.write(FILE, b"data")
    answer = await drained(fs)
    assert answer["pending"] == 1
    [item] = answer["stuck"]["first"]
    assert (item["part"], item["path"], str(error) in item["reason"]) == ("upload", FILE, True)
    assert "recfs queue retry" in item["remedy"]
    bucket(fs).heal()
    await ask(fs, "queue_retry", all=True)
    assert (await drained(fs))["pending"] == 0
    assert stored(fs) == {FILE: b"data"}


@pytest.mark.expect_log("not yours")
async def test_only_the_first_piece_of_a_drain_tries_again_what_s3_refused(fs: Filesystem) -> None:
    bucket(fs).fail("put_file", AccessRefused("not yours"), times=1000)
    await fs.write(FILE, b"data")
    since_s = (await ask(fs, "drain", timeout_s=0))["since_s"]
    await drained(fs)
    tries = _tries(fs)
    await drained(fs)
    assert _tries(fs) == tries + 1
    with trio.fail_after(60):
        answer = await ask(fs, "drain", timeout_s=3600, since_s=since_s)
    assert (answer["stuck"]["items"], _tries(fs)) == (1, tries + 1)
    bucket(fs).heal()


@pytest.mark.expect_log("nobody listens")
async def test_a_drain_tries_at_once_what_failed_while_s3_was_away(fs: Filesystem) -> None:
    """A file that failed often waits for minutes: who drains does not wait for that."""
    bucket(fs).fail("put_file", Unreachable("nobody listens"), times=1000)
    await fs.write(FILE, b"data")
    await failing(fs)
    bucket(fs).heal()
    assert fs.tier is not None
    journal = fs.tier.journal
    (row,) = journal.rows.values()
    journal.update(row._replace(attempts=9, next_try_ns=fs.clock.steady_ns() + 300 * 10**9))
    assert (await ask(fs, "drain", timeout_s=20))["pending"] == 0
    assert await fs.state(FILE) == "stored"


def _tries(fs: Filesystem) -> int:
    return sum(operation == "put_file" for operation, _key in bucket(fs).calls)


@pytest.mark.expect_log("old key")
@pytest.mark.slow
async def test_credentials_that_may_be_replaced_are_waited_for(fs: Filesystem) -> None:
    """They are read again by themselves."""
    bucket(fs).fail("put_file", WrongCredentials("old key"), times=1000)
    await fs.write(FILE, b"data")
    await failing(fs)
    left = (await ask(fs, "drain", timeout_s=0.2))["left"]
    assert [row["path"] for row in left["s3"]["rows"]] == [FILE]
    bucket(fs).heal()


@pytest.mark.slow
@pytest.mark.expect_log("not this one|does not take its row")
async def test_a_row_that_the_catalogue_refuses_ends_the_drain_once_all_else_is_done(place: Path) -> None:
    refusing = Refusing(b"refused")
    async with filesystem(place) as fs:
        with mock.patch.object(SqliteCatalogue, "apply", lambda *args, **more: refusing.apply(*args, **more)):
            await fs.write(f"{REC}/refused", b"333")
            await fs.write(f"{REC}/fine", b"1")
            answer = await drained(fs)
            assert await fs.state(f"{REC}/fine") == "committed"
            assert answer["pending"] == answer["stuck"]["items"] > 0
            named = [item for item in answer["stuck"]["first"] if item["path"].endswith("refused")]
            assert named
            assert all(item["tries"] >= 3 and item["remedy"] for item in named)
        assert (await drained(fs))["pending"] == 0, "it is tried again"
