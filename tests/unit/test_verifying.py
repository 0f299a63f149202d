"""What follows from what a verification finds."""

from __future__ import annotations

import itertools

import pytest

from recfs.core.model import TRANSITIONS, State
from recfs.core.verification.verdicts import VERIFIED, Copy, Level, ObjectFacts, Remedy, judge_object, remedy

SHA, MD5 = b"s" * 32, b"m" * 16
KNOWN = ObjectFacts(7, "etag-2", SHA, MD5)


def test_levels_that_read() -> None:
    assert [level for level in Level if level.reads] == [Level.HASH, Level.REMOTE]


@pytest.mark.parametrize(
    ("state", "local", "far", "wanted"),
    [
        (State.COMMITTED, Copy.RIGHT, Copy.NONE, Remedy.NONE),
        (State.COMMITTED, Copy.WRONG, Copy.NONE, Remedy.CONDEMN),
        (State.COMMITTED, Copy.GONE, Copy.NONE, Remedy.CONDEMN),
        (State.COMMITTED, Copy.UNREADABLE, Copy.NONE, Remedy.NONE),
        (State.COMMITTED, Copy.UNSETTLED, Copy.NONE, Remedy.NONE),
        (State.STORED, Copy.RIGHT, Copy.RIGHT, Remedy.NONE),
        (State.STORED, Copy.RIGHT, Copy.WRONG, Remedy.SEND_AGAIN),
        (State.STORED, Copy.RIGHT, Copy.GONE, Remedy.SEND_AGAIN),
        (State.STORED, Copy.RIGHT, Copy.UNREADABLE, Remedy.NONE),
        (State.STORED, Copy.WRONG, Copy.RIGHT, Remedy.FROM_OBJECT),
        (State.STORED, Copy.WRONG, Copy.WRONG, Remedy.CONDEMN),
        (State.STORED, Copy.WRONG, Copy.UNREADABLE, Remedy.CONDEMN),
        (State.STORED, Copy.WRONG, Copy.UNSETTLED, Remedy.NONE),
        (State.STORED, Copy.GONE, Copy.RIGHT, Remedy.COME_BACK),
        (State.STORED, Copy.GONE, Copy.UNREADABLE, Remedy.NONE),
        (State.STORED, Copy.GONE, Copy.GONE, Remedy.CONDEMN),
        (State.EVICTED, Copy.NONE, Copy.NONE, Remedy.NONE),
        (State.EVICTED, Copy.NONE, Copy.RIGHT, Remedy.NONE),
        (State.EVICTED, Copy.NONE, Copy.GONE, Remedy.CONDEMN),
        (State.EVICTED, Copy.NONE, Copy.UNREADABLE, Remedy.NONE),
        (State.CORRUPT, Copy.RIGHT, Copy.WRONG, Remedy.HEAL),
        (State.CORRUPT, Copy.WRONG, Copy.RIGHT, Remedy.FROM_OBJECT),
        (State.CORRUPT, Copy.GONE, Copy.RIGHT, Remedy.COME_BACK),
        (State.CORRUPT, Copy.GONE, Copy.NONE, Remedy.CONDEMN),
    ],
)
def test_remedies(state: State, local: Copy, far: Copy, wanted: Remedy) -> None:
    assert remedy(state, local, far) is wanted


def test_nothing_is_done_on_suspicion_and_every_step_is_legal() -> None:
    steps = {
        Remedy.CONDEMN: State.CORRUPT, Remedy.HEAL: State.COMMITTED, Remedy.COME_BACK: State.EVICTED,
        Remedy.SEND_AGAIN: State.COMMITTED, Remedy.FROM_OBJECT: State.CORRUPT,
    }  # fmt: skip
    for state, local, far in itertools.product(VERIFIED, Copy, Copy):
        found = remedy(state, local, far)
        if local in (Copy.UNSETTLED, Copy.UNREADABLE) or far is Copy.UNSETTLED:
            assert found is Remedy.NONE
        if found in (Remedy.CONDEMN, Remedy.FROM_OBJECT, Remedy.SEND_AGAIN):
            assert local.is_bad or far.is_bad
        if found is Remedy.COME_BACK and state is State.EVICTED:
            pytest.fail("it is there already")
        if found in steps and steps[found] is not state:
            assert (state, steps[found]) in TRANSITIONS


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (None, Copy.GONE),
        (KNOWN, Copy.RIGHT),
        (KNOWN._replace(size_bytes=8), Copy.WRONG),
        (KNOWN._replace(etag=MD5.hex(), sha256=None), Copy.RIGHT),
        (KNOWN._replace(sha256=None), Copy.RIGHT),
        (KNOWN._replace(sha256=b"x" * 32), Copy.UNSETTLED),
        (KNOWN._replace(etag="other"), Copy.UNSETTLED),
        (KNOWN._replace(etag="other", sha256=None, stored_sha256=SHA), Copy.RIGHT),
        (KNOWN._replace(stored_sha256=b"x" * 32), Copy.WRONG),
        (KNOWN._replace(size_bytes=8, stored_sha256=SHA), Copy.WRONG),
    ],
)
def test_what_a_server_says_of_an_object(told: ObjectFacts | None, wanted: Copy) -> None:
    assert judge_object(told, KNOWN) is wanted


def test_an_etag_that_is_not_known_proves_nothing() -> None:
    assert judge_object(KNOWN._replace(etag=""), KNOWN._replace(etag="")) is Copy.UNSETTLED
