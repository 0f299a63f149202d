"""core/ownership.py: whose a prefix is."""

import pytest

from recfs.core.keys import key_for
from recfs.core.ownership import MARK_KEY, Mark, Verdict, read_mark, verdict_on

MINE = Mark("mine", "token", "host", "/srv/recfs", "2026-11-28T11:00:00+00:00")
OTHER = Mark("other", "token", "host", "/srv/recfs", "2026-11-28T11:00:00+00:00")
KNOWN, NONE = frozenset({"token"}), frozenset[str]()


@pytest.mark.parametrize(
    ("mark", "tokens", "running", "knows", "empty", "verdict"),
    [
        (None, NONE, False, False, True, Verdict.FREE),
        (None, NONE, False, True, True, Verdict.FREE),
        (None, NONE, False, False, False, Verdict.UNKNOWN),
        (None, KNOWN, True, False, False, Verdict.FREE),
        (MINE, KNOWN, False, True, True, Verdict.OURS),
        (MINE, NONE, False, True, True, Verdict.RETURNED),
        (MINE, NONE, True, True, True, Verdict.FOLLOWED),
        (OTHER, KNOWN, False, True, True, Verdict.FOREIGN),
        (OTHER, KNOWN, True, True, True, Verdict.FOREIGN),
    ],
)
def test_whose_a_prefix_is(
    mark: Mark | None, tokens: frozenset[str], running: bool, knows: bool, empty: bool, verdict: Verdict
) -> None:
    assert verdict_on(mark, "mine", tokens, running=running, knows=knows, empty=empty) is verdict


@pytest.mark.parametrize("running", [True, False])
def test_a_prefix_whose_mark_and_objects_are_gone_is_not_free(running: bool) -> None:
    def judged(mark: Mark | None, *, gone: bool) -> Verdict:
        return verdict_on(mark, "mine", KNOWN, running=running, knows=True, empty=True, gone=gone)

    assert (judged(None, gone=True), judged(None, gone=False)) == (Verdict.LOST, Verdict.FREE)
    assert judged(MINE, gone=True) is Verdict.OURS


def test_a_mark_is_read_back() -> None:
    odd = Mark("mine", "token", "host", "/srv/\udcff/é", "now")
    assert read_mark(MINE.to_json()) == MINE
    assert read_mark(odd.to_json()).store == "mine"


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{}", b'{"store": "mine"}', b"\xff\xfe", b"<html>", b"[" * 100_000]
)
def test_a_mark_that_cannot_be_understood_is_somebody_elses(data: bytes) -> None:
    assert verdict_on(read_mark(data), "mine", KNOWN, running=False, knows=True, empty=True) is Verdict.FOREIGN


def test_no_path_in_a_mount_has_the_key_of_the_mark() -> None:
    assert not MARK_KEY.startswith(tuple(key_for(top) for top in (b"users/", b"shared/", b"temp/")))
