"""What a run does next with a file, and what the end of an rsync means."""

from __future__ import annotations

import pytest

from recfs.core.migration.rsync_ends import Reach, said_of, verdict
from recfs.core.migration.steps import Brought, Proof, Row, Seen, Step, Way, way_after, way_to

SEEN = Seen(10, 1_000, 1, 2)
NEWER = Seen(10, 2_000, 1, 2)
THERE = (10, 1_000)


def row(step: Step, seen: Seen | None = SEEN, left: tuple[int, int] | None = THERE) -> Row:
    return Row(b"a", b"b", step, Brought.NEW, seen, None, left)


@pytest.mark.parametrize(
    ("known", "source", "target", "way"),
    [
        (row(Step.PENDING, None, None), SEEN, None, Way.NEW),
        (row(Step.COPIED), SEEN, None, Way.NEW),
        (row(Step.COPIED), SEEN, THERE, Way.DONE),
        (row(Step.VERIFIED), SEEN, THERE, Way.DONE),
        (row(Step.COPIED), NEWER, THERE, Way.ANEW),
        (row(Step.COPIED), SEEN, (10, 5), Way.PROVE),
        (row(Step.COPIED), NEWER, (11, 5), Way.PROVE),
        (row(Step.COPIED, left=None), SEEN, THERE, Way.PROVE),
        (row(Step.BEGUN, left=None), SEEN, THERE, Way.LAST),
        (row(Step.BEGUN, left=None), SEEN, (4, 9), Way.PROVE),
        (row(Step.BEGUN, left=None), NEWER, THERE, Way.PROVE),
        (row(Step.BEGUN, left=(4, 9)), NEWER, (4, 9), Way.ANEW),
        (row(Step.PENDING, None, None), SEEN, THERE, Way.PROVE),
        (row(Step.ROLLED_BACK, left=None), SEEN, None, Way.NEW),
    ],
)
def test_how_a_file_is_brought(known: Row, source: Seen, target: tuple[int, int] | None, way: Way) -> None:
    assert way_to(known, source, target, replace=False) is way


def test_replace_lets_strangers_give_way_and_never_what_the_run_itself_knows() -> None:
    assert way_to(row(Step.PENDING, None, None), SEEN, THERE, replace=True) is Way.ANEW
    assert way_to(row(Step.COPIED), SEEN, (10, 5), replace=True) is Way.PROVE
    assert way_to(row(Step.BEGUN, left=None), SEEN, (4, 9), replace=True) is Way.PROVE
    assert way_to(row(Step.PENDING, None, None), SEEN, THERE, replace=False, shown=True) is Way.ANEW


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize("proof", Proof)
def test_what_becomes_of_a_file_that_was_compared(step: Step, proof: Proof) -> None:
    changed = (THERE[0], THERE[1] + 1)
    found = way_after(row(step), proof, changed, replace=False)
    if proof is Proof.EQUAL:
        assert found is (Way.LAST if step is Step.BEGUN else Way.DONE)
    elif step is Step.BEGUN and proof in (Proof.BEGINNING, Proof.CUT_OFF):
        assert found is (Way.ON if proof is Proof.BEGINNING else Way.ANEW)
    else:
        assert found is Way.REFUSED
        assert way_after(row(step), proof, changed, replace=True) is Way.ANEW


def test_a_change_that_only_the_ctime_tells_is_looked_for_in_the_bytes() -> None:
    known, now = row(Step.VERIFIED, SEEN._replace(ctime_ns=5)), SEEN._replace(ctime_ns=6)
    assert way_to(known, now, THERE, replace=False) is Way.PROVE
    assert way_after(known, Proof.OTHER, THERE, replace=False) is Way.ANEW
    assert way_after(known, Proof.UNKNOWN, THERE, replace=False) is Way.REFUSED
    assert way_to(row(Step.COPIED), now, THERE, replace=False) is Way.PROVE  # of a state that had none
    assert way_to(row(Step.VERIFIED, now), now, THERE, replace=False) is Way.DONE


def test_a_whole_copy_of_an_earlier_source_gives_way_and_nothing_that_only_looks_like_one() -> None:
    begun = row(Step.BEGUN, left=None)
    assert way_after(begun, Proof.OTHER, THERE, replace=False) is Way.ANEW
    assert way_after(begun, Proof.UNKNOWN, THERE, replace=False) is Way.REFUSED
    assert way_after(begun, Proof.OTHER, (THERE[0] - 1, THERE[1]), replace=False) is Way.REFUSED
    assert way_after(row(Step.BEGUN, None, None), Proof.OTHER, THERE, replace=False) is Way.REFUSED
    assert way_after(row(Step.PENDING, left=None), Proof.OTHER, THERE, replace=False) is Way.REFUSED


def test_a_checksum_of_other_bytes_is_forgotten() -> None:
    known = row(Step.COPIED)
    known.sha256 = "x"
    known.look_again(SEEN)
    before = known.sha256
    known.look_again(NEWER)
    assert before == "x"
    assert (known.sha256 or "", known.seen) == ("", NEWER)


_FULL = 'rsync: [receiver] write failed on "x": No space left on device (28)\n'
_QUOTA = 'rsync: [receiver] mkstemp "x" failed: Disk quota exceeded (122)\n'
_GONE = 'rsync: [receiver] mkstemp "x" failed: Transport endpoint is not connected (107)\n'


@pytest.mark.parametrize(
    ("code", "said", "reach"),
    [
        (0, _FULL, Reach.NOTHING),
        (11, _FULL, Reach.ALL),
        (23, _FULL, Reach.ALL),
        (11, _QUOTA, Reach.USER),
        (23, _QUOTA + _FULL, Reach.ALL),
        (23, _QUOTA + _GONE, Reach.ALL),
        (12, _GONE, Reach.ALL),
        (11, 'rsync: [receiver] write failed on "x": Input/output error (5)\n', Reach.ALL),
        (23, 'rsync: [sender] read errors mapping "x": Input/output error (5)\n', Reach.FILES),
        (11, 'rsync: [receiver] write failed on "x": File too large (27)\n', Reach.FILES),
        (1, "", Reach.ALL),
        (12, "", Reach.USER),
        (20, "", Reach.ALL),
        (23, "", Reach.FILES),
        (24, "", Reach.FILES),
        (30, "", Reach.USER),
        (35, "", Reach.USER),
        (-9, "", Reach.USER),
        (137, "", Reach.USER),
        (77, "", Reach.ALL),
    ],
)
def test_each_end_of_rsync_is_decided(code: int, said: str, reach: Reach) -> None:
    found = verdict(code, said)
    assert found.reach is reach
    assert (found.reason == "") is (found.remedy == "") is (code == 0)


def test_every_code_that_rsync_has_is_known() -> None:
    codes = [*range(1, 7), *range(10, 17), *range(19, 26), 30, 35, 124, 125, 126, 127]
    assert not [code for code in codes if "does not explain" in verdict(code, "").reason]


def test_what_rsync_says_of_a_file_is_found() -> None:
    said = (
        'rsync: [receiver] open "/proc/7/fd/9/users/4/recordings/7/a\\#012\\#134#012П" failed: File too large (27)\n'
        'rsync: [receiver] mkstemp "/proc/7/fd/9/users/4/recordings/8/.source.mp4.aBcDeF" failed: Invalid (22)\n'
        "rsync error: some files/attrs were not transferred (code 23)\n"
    )
    assert said_of("users/4/recordings/7/a\n\\#012П".encode(), said) == "File too large (27)"
    assert said_of(b"users/4/recordings/8/source.mp4", said) == "Invalid (22)"
    assert said_of(b"users/4/recordings/8/source", said) == ""
    assert said_of(b"users/4/recordings/80/source.mp4", said) == ""
