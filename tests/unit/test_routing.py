"""core/routing.py: which files go to S3, and who says so."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.core.globs import PathGlob
from recfs.core.routing import DEFAULT_ROUTES, RouteRule, check_routes, check_storage_class, explain, route

MIB = 1 << 20
DAY = 86_400.0
Path = tuple[bytes, ...]

ARCHIVE = RouteRule("users/*/recordings/**", "s3", min_size=8 * MIB, min_age_s=30 * DAY, storage_class="GLACIER_IR")
HERE = RouteRule("users/*/thumbnails/**", "local")
REST = RouteRule("users/**", "s3", keep_local_s=7 * DAY)
RULES = (ARCHIVE, HERE, REST)

ids = st.sampled_from([b"5", b"142", b"0c0ffee0-0000-4000-8000-000000000000"])
names = st.sampled_from([b"source.mp4", b"a", b"b.png", b".x", b"recordings", b"\xff\n"])
below = st.lists(names, min_size=1, max_size=3).map(tuple)
files = st.one_of(
    st.builds(lambda rest: (b"shared", *rest), below),
    st.builds(lambda user, rest: (b"users", user, b"thumbnails", *rest), ids, below),
    st.builds(lambda user, rec, rest: (b"users", user, b"recordings", rec, *rest), ids, ids, below),
    st.builds(lambda user, job, rest: (b"temp", user, job, *rest), ids, ids, below),
)
# Few values, so that bounds are met exactly.
sizes = st.integers(0, 6)
ages = st.integers(-2, 6).map(float)
bounds = st.sampled_from([(None, None), (None, 3), (0, None), (2, 4), (3, None), (3, 3), (5, 6)])
patterns = st.sampled_from(
    [
        *("**", "users/**", "temp/**", "shared/*", "**/source.mp4", "users/*/recordings/**", "users/5/**"),
        *("users/*/thumbnails/?", "*/*/**", "temp/*/*/a"),
    ]
)


rules = st.builds(
    lambda pattern, to, size, age: RouteRule(pattern, to, *size, *age),
    patterns,
    st.sampled_from(["s3", "local"]),
    bounds,
    bounds,
)


def path(text: str) -> Path:
    return tuple(text.encode().split(b"/"))


# --- deciding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size", "age", "index", "store"),
    [
        ("users/5/recordings/142/source.mp4", 8 * MIB, 30 * DAY, 0, "s3"),
        ("users/5/recordings/142/source.mp4", 8 * MIB - 1, 30 * DAY, 2, "s3"),
        ("users/5/recordings/142/source.mp4", 8 * MIB, 30 * DAY - 1, 2, "s3"),
        ("users/5/recordings/142/assets/deep/x", 9 * MIB, 31 * DAY, 0, "s3"),
        ("users/5/thumbnails/a.png", 9 * MIB, 31 * DAY, 1, "local"),
        ("shared/intros/a.mp4", 9 * MIB, 31 * DAY, None, "local"),
        ("temp/5/77/x", 9 * MIB, 31 * DAY, None, "local"),
    ],
)
def test_the_first_rule_that_matches_decides(text: str, size: int, age: float, index: int | None, store: str) -> None:
    decision = route(RULES, path(text), size, age)
    assert (decision.rule_index, decision.store) == (index, store)
    rule = RULES[index] if index is not None else None
    assert decision.storage_class == (rule.storage_class if rule else None)
    assert decision.keep_local_s == (rule.keep_local_s if rule else 0.0)


def test_bounds_include_themselves() -> None:
    rule = RouteRule("users/**", "s3", min_size=5, max_size=7, min_age_s=10.0, max_age_s=20.0)
    there = path("users/5/thumbnails/x")
    assert [size for size in range(10) if rule.matches(there, size, 15.0)] == [5, 6, 7]
    assert [age for age in range(30) if rule.matches(there, 6, age)] == list(range(10, 21))


def test_an_empty_file_and_one_from_the_future_are_small_and_new() -> None:
    there = path("users/5/thumbnails/x")
    assert RouteRule("users/**", "s3", min_size=0, min_age_s=0.0, max_age_s=0.0).matches(there, 0, -5.0)
    assert not RouteRule("users/**", "s3", min_age_s=1.0).matches(there, 0, -5.0)


def test_by_default_only_users_go_to_s3() -> None:
    assert route(DEFAULT_ROUTES, path("users/5/recordings/1/source.mp4"), 1, 0.0).store == "s3"
    assert route(DEFAULT_ROUTES, path("users/5/thumbnails/a.png"), 0, 0.0).store == "s3"
    assert route(DEFAULT_ROUTES, path("shared/intros/a.mp4"), 1, 0.0).store == "local"
    assert route(DEFAULT_ROUTES, path("temp/5/77/x"), 1, 0.0).store == "local"


def test_shared_and_temp_go_where_a_rule_says() -> None:
    both = (RouteRule("shared/**", "s3"), RouteRule("temp/**", "s3"))
    assert route(both, path("shared/intros/a.mp4"), 1, 0.0).store == "s3"
    assert route(both, path("temp/5/77/x"), 1, 0.0).store == "s3"


def test_reasons_name_the_rule_as_people_count_and_what_comes_of_it() -> None:
    old = route(RULES, path("users/5/recordings/142/source.mp4"), 9 * MIB, 31 * DAY)
    assert old.reason == (
        "rule 1 (users/*/recordings/**, min_size 8 MiB, min_age 30d): goes to S3, storage class GLACIER_IR"
    )
    assert route(RULES, path("users/5/recordings/1/x"), 1, 0.0).reason == (
        "rule 3 (users/**): goes to S3, local copy kept for 7d"
    )
    assert route(RULES, path("users/5/thumbnails/x"), 1, 0.0).reason == "rule 2 (users/*/thumbnails/**): stays local"
    assert route(RULES, path("temp/5/1/x"), 1, 0.0).reason == "no rule matches: stays local"
    assert route((), path("temp/5/1/x"), 1, 0.0).reason == "no rule is set: stays local"


@given(st.lists(rules, max_size=4), files, sizes, ages)
def test_the_decision_is_that_of_the_first_match_and_so_is_the_explanation(
    listed: list[RouteRule], file: Path, size: int, age: float
) -> None:
    decision = route(listed, file, size, age)
    matching = [index for index, rule in enumerate(listed) if rule.matches(file, size, age)]
    assert decision.rule_index == (matching[0] if matching else None)
    assert decision.store == (listed[matching[0]].to if matching else "local")

    told = explain(listed, file, size, age)
    assert [verdict.rule for verdict in told] == listed
    assert [index for index, verdict in enumerate(told) if verdict.matched] == matching
    assert [index for index, verdict in enumerate(told) if verdict.why.startswith("decides: ")] == matching[:1]
    assert all(verdict.why for verdict in told)


@given(rules, files, sizes, ages)
def test_a_rule_matches_if_pattern_and_all_bounds_do(rule: RouteRule, file: Path, size: int, age: float) -> None:
    told = explain([rule], file, size, age)[0].why
    inside = {
        "its path": PathGlob(rule.pattern).matches(file),
        "min_size": rule.min_size is None or rule.min_size <= size,
        "max_size": rule.max_size is None or size <= rule.max_size,
        "min_age": rule.min_age_s is None or rule.min_age_s <= max(age, 0.0),
        "max_age": rule.max_age_s is None or max(age, 0.0) <= rule.max_age_s,
    }
    assert rule.matches(file, size, age) is all(inside.values())
    if inside["its path"]:
        assert [word for word, fits in inside.items() if not fits] == [word for word in inside if word in told]
    else:
        assert told.startswith("its path is not one of")


# --- explaining ------------------------------------------------------------------------------------------------------


def test_every_rule_is_explained() -> None:
    told = explain(RULES, path("users/5/recordings/142/source.mp4"), 8 * MIB - 1, 3600.0)
    assert [(verdict.matched, verdict.why) for verdict in told] == [
        (
            False,
            "its size 8 MiB (8388607 bytes) is below min_size 8 MiB; "
            "its last change, 1h ago, is more recent than min_age 30d",
        ),
        (False, "its path is not one of users/*/thumbnails/**: 'recordings' is not 'thumbnails'"),
        (True, "decides: goes to S3, local copy kept for 7d"),
    ]
    told = explain(RULES, path("users/5/recordings/142/source.mp4"), 8 * MIB, 31 * DAY)
    assert told[0].why == "decides: goes to S3, storage class GLACIER_IR"
    assert told[2].why == "matches too, but rule 1 comes first"


def test_upper_bounds_and_the_future_are_explained() -> None:
    rule = RouteRule("**", "s3", max_size=10, max_age_s=60.0)
    (told,) = explain([rule], path("shared/x"), 11, 61.0)
    assert told.why == "its size 11 B is above max_size 10 B; its last change, 1m 1s ago, is longer ago than max_age 1m"
    (told,) = explain([RouteRule("**", "s3", min_age_s=60.0)], path("shared/x"), 11, -5.0)
    assert told.why == "its last change, 5s in the future, is more recent than min_age 1m"


# --- rules that make no sense ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": ""}, "an empty pattern"),
        ({"pattern": "/users/**"}, "absolute path"),
        ({"pattern": "videos/**"}, "unknown top level 'videos'; the mount has shared, users and temp"),
        ({"pattern": "Users/**"}, "unknown top level 'Users'"),
        ({"pattern": "v*/**"}, r"unknown top level 'v\*'"),
        ({"pattern": "users"}, r"takes no file: .*; did you mean 'users/\*\*'\?"),
        ({"pattern": "*"}, r"takes no file: .*; did you mean '\*/\*\*'\?"),
        ({"pattern": "users/*/recordings/*"}, r"did you mean 'users/\*/recordings/\*/\*\*'\?"),
        ({"pattern": "temp/*/*"}, r"did you mean 'temp/\*/\*/\*\*'\?"),
        ({"pattern": "users/jane/**"}, "takes no file: files lie below shared/, users/<id>/thumbnails/"),
        ({"pattern": "users/5/videos/**"}, "takes no file"),
        ({"pattern": "users/**/x/../y"}, "parts"),
        ({"to": "glacier"}, 'files go to "s3" or "local"'),
        ({"min_size": -1}, "not negative"),
        ({"max_age_s": math.nan}, "finite number"),
        ({"keep_local_s": math.inf}, "finite number"),
        ({"min_size": 2, "max_size": 1}, "min_size is larger than max_size"),
        ({"min_age_s": 2.0, "max_age_s": 1.0}, "min_age is larger than max_age"),
        ({"storage_class": "glacier"}, "did you mean GLACIER"),
        ({"to": "local", "storage_class": "GLACIER"}, "are for files in S3; leave them out"),
        ({"to": "local", "keep_local_s": 1.0}, "are for files in S3; leave them out"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RouteRule(**{"pattern": "users/**", "to": "s3", **settings})


@given(files, st.data())
def test_a_pattern_that_takes_a_file_is_never_refused(file: Path, data: st.DataObject) -> None:
    parts = [data.draw(st.sampled_from([part.decode("latin-1"), "*", "**"])) for part in file]
    parts = [part.encode("latin-1").decode("utf-8", "surrogateescape") for part in parts]
    pattern = "/".join(parts)
    if PathGlob(pattern).matches(file):
        assert RouteRule(pattern, "s3").matches(file, 0, 0.0)


@pytest.mark.parametrize("name", ["STANDARD", "DEEP_ARCHIVE", "COLD", "my-class.2", "cold"])
def test_storage_classes(name: str) -> None:
    assert check_storage_class(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("standard_ia", "did you mean STANDARD_IA"),
        ("GLACIER-IR", "did you mean GLACIER_IR"),
        (" GLACIER", "did you mean GLACIER"),
        ("", "not a storage class; write one of STANDARD, "),
        ("a b", "not a storage class"),
        ("x" * 65, "not a storage class"),
        ("GLACIER\nX", "not a storage class"),
    ],
)
def test_what_is_no_storage_class(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_storage_class(name)


def test_rules_are_equal_by_their_settings() -> None:
    assert RouteRule("users/**", "s3", min_size=1) == RouteRule("users/**", "s3", min_size=1)
    assert hash(RouteRule("users/**", "s3", min_size=1)) == hash(RouteRule("users/**", "s3", min_size=1))
    assert RouteRule("users/**", "s3", min_size=1) != RouteRule("users/**", "s3", min_size=2)


# --- lists of rules --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        ({"pattern": "**"}, {}),
        ({}, {"pattern": "users/*/recordings/**"}),
        ({}, {"min_size": 5, "max_age_s": 7.0, "to": "local"}),
        ({"min_size": 5}, {"min_size": 5, "max_size": 9}),
        ({"min_age_s": 5.0}, {"min_age_s": 6.0}),
        ({"max_size": 5}, {"max_size": 5}),
        ({"min_size": 0, "min_age_s": 0.0}, {}),
    ],
)
def test_a_rule_that_never_decides_is_refused(first: dict[str, Any], second: dict[str, Any]) -> None:
    listed = [RouteRule(**{"pattern": "users/**", "to": "s3", **each}) for each in (first, second)]
    with pytest.raises(ValueError, match=r"rule 2 \(.*\) never applies: rule 1 \(.*put the narrower first"):
        check_routes(listed)
    if first.get("pattern") or second.get("pattern"):
        check_routes(listed[::-1])


def test_rules_that_leave_one_another_something_live_together() -> None:
    check_routes(RULES)
    check_routes([RouteRule("users/**", "local", max_size=9), RouteRule("users/**", "s3", max_size=10)])
    check_routes([RouteRule("users/**", "local", min_age_s=9.0), RouteRule("users/**", "s3")])
    check_routes([RouteRule("users/**", "local", min_size=9, max_size=10), RouteRule("users/**", "s3", max_size=10)])
    check_routes([])


@given(rules, rules, files, sizes, ages)
def test_a_refused_rule_could_decide_nothing(
    first: RouteRule, second: RouteRule, file: Path, size: int, age: float
) -> None:
    if first.covers(second):
        assert route([first, second], file, size, age).rule_index != 1
