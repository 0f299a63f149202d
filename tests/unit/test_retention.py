"""How long recordings live: the policy as a pure function of rules, what is kept, and the time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.core.dates import date_text, parse_date
from recfs.core.life import Cause, Life, Status, packed_life, restored_life
from recfs.core.retention import (
    CHANGED_EVERY_NS,
    UNUSED,
    Action,
    Candidate,
    Now,
    Policy,
    RetentionRule,
    Seen,
    Use,
    archive_of,
    check_retention,
    horizon,
    is_of_interest,
    judge,
    plan,
    plan_archive,
)

DAY = 86_400 * 10**9
NOW = 20_000 * DAY
DAY_S = 86_400.0
PATH = (b"users", b"5", b"recordings", b"142")


def by_age(**settings: object) -> Policy:
    """One rule: 30 days."""
    return Policy((RetentionRule(retention_s=30 * DAY_S, **settings),), grace_s=7 * DAY_S)  # type: ignore[arg-type]


def at(life: Life, now_ns: int = NOW, *, policy: Policy | None = None, use: Use = UNUSED, ahead_ns: int = 0) -> Action:
    """What is to be done, with a calendar that is ahead of the time that passed."""
    return judge(policy or by_age(), PATH, life, Now(now_ns, now_ns + ahead_ns), use).action


ages = st.integers(0, 100 * DAY)
lives = st.builds(
    Life,
    status=st.sampled_from(Status),
    born_ns=st.integers(0, 2 * NOW),
    changed_ns=st.integers(0, 2 * NOW),
    expires_ns=st.none() | st.integers(0, 2 * NOW),
    dated_ns=st.integers(0, 2 * NOW),
    ahead_ns=st.integers(0, 2 * NOW),
    expired_ns=st.integers(0, 2 * NOW),
    expired_by=st.sampled_from(Cause),
    keep=st.sampled_from([0, 1]),
)
uses = st.builds(lambda files, writers: Use(files, min(files, writers)), st.integers(0, 3), st.integers(0, 3))
policies = st.sampled_from(
    [Policy(), by_age(), by_age(since="creation"), by_age(auto_cleanup=False), Policy((RetentionRule(),))]
)


@given(policies, lives, uses, st.integers(0, 2 * NOW), st.integers(-NOW, NOW))
def test_what_holds_of_every_verdict(policy: Policy, life: Life, use: Use, steady_ns: int, ahead_ns: int) -> None:
    now = Now(steady_ns, steady_ns + ahead_ns)
    verdict = judge(policy, PATH, life, now, use)
    assert verdict.reason
    assert verdict == judge(policy, PATH, life, now, use), "the same answer for the same sight"
    if verdict.action is Action.REMOVE:
        assert use.files == 0
        assert life.status is not Status.ACTIVE, "it has been expired before"
    if verdict.action is Action.EXPIRE:
        assert (life.status, life.keep, use.writers) == (Status.ACTIVE, 0, 0)
    if life.keep and life.status is not Status.REMOVING:
        assert verdict.action is (Action.REVIVE if life.status is Status.EXPIRED else Action.NONE)
    if verdict.action in (Action.EXPIRE, Action.REMOVE):
        assert verdict.due_ns is not None
        assert verdict.due_ns <= steady_ns


@given(lives.map(lambda life: life._replace(status=Status.ACTIVE)), st.integers(0, 2 * NOW), st.integers(-NOW, NOW))
def test_without_a_rule_and_a_date_nothing_expires(life: Life, steady_ns: int, ahead_ns: int) -> None:
    life = life._replace(expires_ns=None)
    for policy in (Policy(), Policy((RetentionRule(),))):
        assert judge(policy, PATH, life, Now(steady_ns, steady_ns + ahead_ns)).action is Action.NONE


@given(ages, st.integers(-1000 * DAY, 1000 * DAY), st.sampled_from(["change", "creation"]))
def test_an_age_goes_by_the_time_that_passed_alone(age_ns: int, ahead_ns: int, since: str) -> None:
    life = Life(born_ns=NOW - age_ns, changed_ns=NOW - age_ns)
    wanted = Action.EXPIRE if age_ns >= 30 * DAY else Action.NONE
    assert at(life, policy=by_age(since=since), ahead_ns=ahead_ns) is wanted


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(0, 100_000))
def test_a_clock_that_is_put_ahead_brings_no_date_nearer(days: int, passed: int, ahead: int) -> None:
    life = Life(expires_ns=NOW + days * DAY, dated_ns=NOW, ahead_ns=days * DAY)
    wanted = Action.EXPIRE if passed >= days else Action.NONE
    assert at(life, NOW + passed * DAY, ahead_ns=ahead * DAY) is wanted


@given(st.integers(1, 1000), st.integers(0, 2000), st.integers(1, 1000))
def test_a_clock_that_is_put_back_keeps_until_the_date_has_come(days: int, passed: int, back: int) -> None:
    life = Life(expires_ns=NOW + days * DAY, dated_ns=NOW, ahead_ns=days * DAY)
    wanted = Action.EXPIRE if passed - back >= days else Action.NONE
    assert at(life, NOW + passed * DAY, ahead_ns=-back * DAY) is wanted


def test_a_date_that_waits_for_the_time_to_pass_says_so() -> None:
    life = Life(expires_ns=NOW + 10 * DAY, dated_ns=NOW, ahead_ns=10 * DAY)
    verdict = judge(Policy(), PATH, life, Now(NOW + 4 * DAY, NOW + 20 * DAY))
    assert "has come by the calendar, but the time until then has not passed: due in 6d" in verdict.reason


def test_a_date_goes_before_the_rule_both_ways() -> None:
    old = Life(born_ns=0, changed_ns=0)
    assert at(old) is Action.EXPIRE
    assert at(old._replace(expires_ns=NOW + DAY, dated_ns=NOW, ahead_ns=DAY)) is Action.NONE
    fresh = Life(born_ns=NOW, changed_ns=NOW, expires_ns=NOW - DAY, dated_ns=NOW)
    assert at(fresh) is Action.EXPIRE


def test_the_first_rule_that_takes_it_decides() -> None:
    policy = Policy(
        (
            RetentionRule("users/5/recordings/1*"),
            RetentionRule(user="[67]", retention_s=DAY_S, grace_s=0.0),
            RetentionRule(retention_s=30 * DAY_S),
        )
    )
    life = Life(born_ns=NOW - 2 * DAY, changed_ns=NOW - 2 * DAY)
    found = {
        path: (verdict.rule, verdict.action)
        for path in ("5/142", "6/142", "8/142", "5/9")
        for user, name in [path.encode().split(b"/")]
        for verdict in [judge(policy, (b"users", user, b"recordings", name), life, Now(NOW, NOW))]
    }
    assert found == {
        "5/142": (1, Action.NONE), "6/142": (2, Action.EXPIRE), "8/142": (3, Action.NONE), "5/9": (3, Action.NONE),
    }  # fmt: skip


def test_a_last_change_of_this_minute_counts_from_its_end() -> None:
    life = Life(changed_ns=NOW + CHANGED_EVERY_NS)
    assert judge(by_age(), PATH, life, Now(NOW, NOW)).reason.startswith("last change just now")
    assert at(life, NOW + 30 * DAY) is Action.NONE
    assert at(life, NOW + 30 * DAY + CHANGED_EVERY_NS) is Action.EXPIRE


def test_grace() -> None:
    life = Life(status=Status.EXPIRED, expired_ns=NOW, expired_by=Cause.RULE)
    assert at(life, NOW + 7 * DAY - 1) is Action.NONE
    assert at(life, NOW + 7 * DAY) is Action.REMOVE
    assert at(life, NOW + 7 * DAY, use=Use(1)) is Action.NONE
    assert at(life, NOW, policy=by_age(grace_s=0.0)) is Action.REMOVE


@pytest.mark.parametrize(
    ("change", "policy"),
    [
        ({"changed_ns": NOW}, by_age()),
        ({"expires_ns": NOW + DAY, "dated_ns": NOW, "ahead_ns": DAY}, by_age()),
        ({"keep": 1}, by_age()),
        ({}, Policy()),
        ({}, by_age(auto_cleanup=False)),
    ],
)
def test_what_made_it_expire_holds_no_more(change: dict[str, int], policy: Policy) -> None:
    expired = Life(status=Status.EXPIRED, expired_ns=NOW, expired_by=Cause.RULE)
    assert at(expired) is Action.NONE
    assert at(expired._replace(**change), policy=policy) is Action.REVIVE  # type: ignore[arg-type]


def test_what_the_operator_had_expire_stays_so() -> None:
    life = Life(Status.EXPIRED, changed_ns=NOW, expired_ns=NOW, expired_by=Cause.OPERATOR, set_by="uid 0")
    for policy in (Policy(), by_age(), by_age(auto_cleanup=False)):
        verdict = judge(policy, PATH, life, Now(NOW, NOW))
        assert (verdict.action, verdict.reason[:16]) == (Action.NONE, "expired by uid 0")
        assert at(life, NOW + 7 * DAY, policy=policy) is Action.REMOVE


def test_a_removal_that_has_begun_goes_on_whatever_is_said_since() -> None:
    life = Life(Status.REMOVING, keep=1, changed_ns=NOW)
    assert at(life, policy=Policy()) is Action.REMOVE
    assert at(life, use=Use(2, 1)) is Action.NONE


def test_auto_cleanup_off_tells_and_does_nothing() -> None:
    verdict = judge(by_age(auto_cleanup=False), PATH, Life(), Now(NOW, NOW))
    assert verdict.action is Action.NONE
    assert verdict.due_ns is not None
    assert verdict.due_ns <= NOW
    assert verdict.reason.endswith("auto_cleanup is off")


@given(st.sampled_from(["change", "creation"]), ages, st.sampled_from([None, "GLACIER", "STANDARD"]))
def test_objects_of_old_recordings_get_the_class_of_the_archive(since: str, age_ns: int, current: str | None) -> None:
    rule = RetentionRule(since=since, archive_threshold_s=30 * DAY_S, archive_storage_class="GLACIER")  # type: ignore[arg-type]
    policy, life = Policy((rule,)), Life(born_ns=NOW - age_ns, changed_ns=NOW - age_ns)
    found = archive_of(policy, PATH, life, NOW, current)
    is_old = age_ns >= 30 * DAY
    assert (found is not None) == (is_old or current == "GLACIER")
    assert (judge(policy, PATH, life, Now(NOW, NOW)).storage_class == "GLACIER") == is_old
    seen = Seen(Now(NOW, NOW), [Candidate(1, PATH, life, UNUSED)])
    assert (plan_archive(policy, seen) is not None) == is_old
    for changes in ({"keep": 1}, {"status": Status.EXPIRED, "expired_by": Cause.OPERATOR, "expired_ns": NOW}):
        other = life._replace(**changes)  # type: ignore[arg-type]
        assert (archive_of(policy, PATH, other, NOW, current) is not None) == (current == "GLACIER")
        assert judge(policy, PATH, other, Now(NOW, NOW)).storage_class is None
    assert archive_of(by_age(), PATH, Life(), NOW, current) is None


@given(policies, lives, uses, st.integers(0, 2 * NOW), st.integers(-NOW, NOW))
def test_nothing_is_to_be_said_of_what_lies_before_the_horizon(
    policy: Policy, life: Life, use: Use, steady_ns: int, ahead_ns: int
) -> None:
    life, now = life._replace(status=Status.ACTIVE, expires_ns=None), Now(steady_ns, steady_ns + ahead_ns)
    beyond = horizon(policy, steady_ns)
    if life.changed_ns > beyond.changed_ns and life.born_ns > beyond.born_ns:
        assert not is_of_interest(judge(policy, PATH, life, now, use), now)


def test_a_plan_has_those_of_which_something_becomes() -> None:
    old, young = Life(), Life(born_ns=NOW, changed_ns=NOW)
    candidates = [
        Candidate(1, PATH, old, UNUSED),
        Candidate(2, PATH, young, UNUSED),
        Candidate(3, PATH, old, Use(1, 1)),
    ]
    found = plan(by_age(), Seen(Now(NOW, NOW), candidates))
    assert found is not None
    assert [each.ino for each, _ in found] == [1]
    assert plan(by_age(), Seen(Now(NOW, NOW), candidates[1:])) is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"pattern": "users/*/recordings"}, "takes no recording"),
        ({"pattern": "users/*/recordings/*/source.*"}, "takes no recording"),
        ({"pattern": "temp/*/*"}, "takes no recording"),
        ({"pattern": "users/me/recordings/*"}, "takes no recording"),
        ({"pattern": ""}, "empty pattern"),
        ({"user": "me"}, "a user is an id"),
        ({"user": "*/5"}, "a user is an id"),
        ({"retention_s": 0.0}, "more than 0s"),
        ({"archive_threshold_s": 0.0, "archive_storage_class": "X"}, "more than 0s"),
        ({"archive_threshold_s": 1.0}, "need each other"),
        ({"archive_storage_class": "GLACIER"}, "need each other"),
    ],
)
def test_rules_that_are_none(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        RetentionRule(**settings)  # type: ignore[arg-type]


def test_a_rule_that_never_decides_is_refused() -> None:
    check_retention([RetentionRule("users/5/recordings/*"), RetentionRule(user="6"), RetentionRule()])
    with pytest.raises(ValueError, match=r"rule 2 .* never applies: rule 1"):
        check_retention([RetentionRule(), RetentionRule("users/5/recordings/1*", user="5")])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2027-01-31", "2027-01-31T00:00:00Z"),
        ("2027-01-31T18:00", "2027-01-31T18:00:00Z"),
        (" 2027-01-31t18:00:05z\0", "2027-01-31T18:00:05Z"),
        ("2027-01-31T18:00:00+01:30", "2027-01-31T16:30:00Z"),
        ("1801396800000000000", "2027-01-31T12:00:00Z"),
        ("1970-01-01", "1970-01-01T00:00:00Z"),
        ("20270131", "2027-01-31T00:00:00Z"),
        ("20270131T180005Z", "2027-01-31T18:00:05Z"),
    ],
)
def test_dates(text: str, shown: str) -> None:
    found = parse_date(text)
    assert found is not None
    assert date_text(found) == shown


@pytest.mark.parametrize("text", ["", "never", " None "])
def test_no_date(text: str) -> None:
    assert parse_date(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "soon",
        "2027",
        "2027-13-01",
        "1801396800",
        "-5",
        "9" * 30,
        "20271301",
        "00000000",
        "2027013",
        "1969-12-31",
        "2300-01-01",
        "٢٠٢٧-01-31",
        "1e18",
    ],
)
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(ValueError, match="date"):
        parse_date(text)


@given(st.text(max_size=30))
def test_any_text_is_a_date_or_is_refused(text: str) -> None:
    try:
        found = parse_date(text)
    except ValueError:
        return
    assert found is None or 0 <= found < 1 << 63


@pytest.mark.parametrize("text", ["", "[]", "[1]", '["nothing such"]', '{"status": 1}', "[" + '"active",' * 40 + "1]"])
def test_what_the_trash_cannot_tell_of_a_recording_is_nothing(text: str) -> None:
    assert restored_life(text, 7) is None


def test_a_recording_that_comes_back_from_the_trash_has_its_time_again() -> None:
    life = Life(Status.REMOVING, 1, 2, 3, 4, 5, 6, 7, Cause.RULE, 1, "note", "who")
    back = restored_life(packed_life(life), 99)
    assert back == Life(Status.ACTIVE, 1, 99, 99, None, 0, 0, 0, Cause.NOBODY, 1, "note", "who")
    active = life._replace(status=Status.ACTIVE)
    assert restored_life(packed_life(active), 99) == Life(
        Status.ACTIVE, 1, 99, 99, 4, 5, 6, 0, Cause.NOBODY, 1, "note", "who"
    )
