"""What may become of orphans: pure decisions."""

import pytest

from recfs.core.upkeep.leftovers import (
    FEW_MISSING,
    QUIET_S,
    Deed,
    Missing,
    Mode,
    Now,
    Stray,
    Where,
    judge,
    judge_missing,
    too_many_missing,
)

NS = 10**9
NOW_NS = 1_790_000_000 * NS
NOW = Now(NOW_NS, NOW_NS)
GRACE_S = 86_400.0


def stray(age_s: float, removal: Deed = Deed.DELETE, *, adopts: bool = True) -> Stray:
    return Stray(Where.HOME, "name", 5, NOW_NS - round(age_s * NS), "why", adopts, removal)


@pytest.mark.parametrize(
    ("age_s", "doubt_ago_s", "expected"),
    [
        (QUIET_S - 1, None, None),
        (-100.0, None, None),
        (QUIET_S, None, (Deed.ADOPT, Deed.NONE)),
        (GRACE_S - 1, None, (Deed.ADOPT, Deed.NONE)),
        (GRACE_S, None, (Deed.ADOPT, Deed.DELETE)),
        (GRACE_S, GRACE_S - 1, (Deed.ADOPT, Deed.NONE)),  # from before the restore
        (GRACE_S, GRACE_S, (Deed.ADOPT, Deed.NONE)),
        (GRACE_S, GRACE_S + 1, (Deed.ADOPT, Deed.DELETE)),  # from after it
    ],
)
def test_what_may_become_of_bytes(
    age_s: float, doubt_ago_s: float | None, expected: tuple[Deed, Deed] | None
) -> None:  # fmt: skip
    doubt_ns = 0 if doubt_ago_s is None else NOW_NS - round(doubt_ago_s * NS)
    found = judge(stray(age_s), NOW, GRACE_S, doubt_ns)
    assert (found and (found.adopt, found.delete)) == expected
    if found is not None:
        deeds = [found.deed(mode) for mode in (Mode.REPORT, Mode.ADOPT, Mode.DELETE)]
        assert deeds == [Deed.NONE, found.adopt, found.delete]


def test_what_cannot_be_a_file_and_may_not_go_is_told_alone() -> None:
    found = judge(stray(1e9, Deed.NONE, adopts=False), NOW, GRACE_S, NOW_NS)
    assert found is not None
    assert (found.adopt, found.delete, found.why) == (Deed.NONE, Deed.NONE, "why")


def test_ages_are_by_the_clock_that_is_behind() -> None:
    day = 86_400 * NS
    for now in (Now(NOW_NS + 9 * day, NOW_NS), Now(NOW_NS, NOW_NS + 9 * day)):
        assert now.age_s(NOW_NS - day) == 86_400.0
    assert judge(stray(60.0), Now(NOW_NS - day, NOW_NS), GRACE_S, 0) is None


@pytest.mark.parametrize(
    ("in_s3", "is_here", "adopt"),
    [(True, False, Deed.FORGET), (False, True, Deed.UPLOAD), (False, False, Deed.NONE)],
)
def test_a_row_is_never_removed(in_s3: bool, is_here: bool, adopt: Deed) -> None:
    found = judge_missing(Missing(Where.HOME, "name", 5, "why", in_s3=in_s3, is_here=is_here))
    assert (found.adopt, found.delete) == (adopt, Deed.NONE)


@pytest.mark.parametrize(
    ("missing", "looked_at", "expected"),
    [
        (0, 0, False),
        (FEW_MISSING, FEW_MISSING, False),
        (21, 21, True),
        (21, 209, True),
        (21, 210, False),
        (10**5, 10**6, False),
    ],
)
def test_when_it_is_rather_the_disk_that_is_missing(missing: int, looked_at: int, expected: bool) -> None:
    assert too_many_missing(missing, looked_at) is expected
