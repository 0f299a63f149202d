"""Questions that operators ask of S3 while it is silent, or away: they end, and say what it said last."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import trio

from recfs.api.s3 import far as asking
from recfs.ports.object_errors import Stalled, Unreachable
from recfs.stores.breaker import CircuitBreaker
from recfs.stores.wrap import RetryingObjectStore, RetryPolicy

from .build import Filesystem
from .far import Hold, ask, bucket, fs, journalled, until
from .test_tier import FILE

__all__ = ["fs"]

QUESTIONS = {
    "bucket_owner": "get_small",
    "bucket_claim": "get_small",
    "lifecycle_show": "get_lifecycle",
    "lifecycle_apply": "get_lifecycle",
    "restore": "head",
}


@pytest.mark.parametrize(("method", "operation"), QUESTIONS.items())
@pytest.mark.table
async def test_a_question_that_s3_does_not_answer_ends(fs: Filesystem, method: str, operation: str) -> None:
    await fs.write(FILE, b"data")
    await fs.drain()
    hold = Hold(fs, operation)
    try:
        with pytest.raises(Stalled, match=re.escape("s3://bucket/ has not answered within 30 s")):
            await ask(fs, method, path=FILE)
    finally:
        hold.let_go()


async def test_it_says_what_s3_said_last_and_so_does_the_queue(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the tries of one call go on, nothing has failed yet."""
    monkeypatch.setattr(asking, "ANSWER_S", 1.0)
    tier = fs.tier
    assert tier is not None
    patient = RetryPolicy(max_attempts=1000, deadline_s=1000.0, first_wait_s=0.01, max_wait_s=0.01)
    retrying = RetryingObjectStore(bucket(fs), patient, CircuitBreaker(threshold=10_000))
    tier.link, tier.ownership._objects = replace(tier.link, objects=retrying), retrying
    bucket(fs).fail("*", Unreachable("no route"), times=100_000)
    try:
        with pytest.raises(Stalled, match="within 1 s: no route; what was asked for"):
            await ask(fs, "bucket_owner")
        await fs.write(FILE, b"data")
        await journalled(fs)
        await until(lambda: tier.journal.running)
        [row] = (await ask(fs, "queue"))["rows"]
        assert (row["state"], row["attempts"], row["why"]) == ("running", 0, "no route")
        assert (await ask(fs, "status"))["s3"]["trouble"] == "no route"
        answer = await ask(fs, "queue_retry", all=True)
        assert (answer["retried"], answer["running"], answer["trouble"]) == ([], 1, "no route")
    finally:
        bucket(fs).heal()
    with trio.fail_after(1000):
        await fs.drain()
    assert (await ask(fs, "status"))["s3"]["trouble"] is None
