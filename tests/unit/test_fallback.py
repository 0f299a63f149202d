"""core/fallback.py: which shared file a missing name shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.core.fallback import FallbackRule, auto_dirs, check_rules, rule_for_dir

THUMBNAILS = FallbackRule("users/*/thumbnails/*", "shared/thumbnails/*")
POSTER = FallbackRule("users/*/recordings/*/assets/poster.png", "shared/thumbnails/default.png")
PNG = FallbackRule("temp/*/*/logos/*.png", "shared/watermarks/*")
RULES = (THUMBNAILS, POSTER, PNG)

USER_THUMBNAILS = (b"users", b"5", b"thumbnails")
names = st.binary(min_size=1, max_size=30)


def path(text: str) -> tuple[bytes, ...]:
    return tuple(text.encode().split(b"/")) if text else ()


@given(names)
def test_a_star_shows_the_file_of_the_same_name(name: bytes) -> None:
    rule = rule_for_dir(RULES, USER_THUMBNAILS)
    assert rule is not None
    assert rule.target_dir == (b"shared", b"thumbnails")
    assert rule.resolve(name) == name


@given(st.lists(names, unique=True))
def test_what_is_shown_is_what_resolves(targets: list[bytes]) -> None:
    for rule in (fallback.dir_rule for fallback in RULES):
        shown = list(rule.shown(targets))
        assert all(rule.resolve(name) == target and target in targets for name, target in shown)
        assert [target for target in targets if rule.resolve(target) == target] == [
            target for name, target in shown if name == target
        ]


def test_a_fixed_name_shows_one_file_under_one_name() -> None:
    rule = rule_for_dir(RULES, path("users/5/recordings/142/assets"))
    assert rule is not None
    assert rule.resolve(b"poster.png") == b"default.png"
    assert rule.resolve(b"default.png") is None
    assert list(rule.shown([b"a.png", b"default.png"])) == [(b"poster.png", b"default.png")]
    assert list(rule.shown(iter([b"a.png"]))) == []


def test_a_glob_takes_only_matching_names() -> None:
    rule = rule_for_dir(RULES, path("temp/5/77/logos"))
    assert rule is not None
    assert rule.resolve(b"a.png") == b"a.png"
    assert rule.resolve(b".png") == b".png"
    assert rule.resolve(b"a.PNG") is None
    assert rule.resolve(b"a.png\n") is None
    assert rule.resolve(b"\xff\xfe\n.png") == b"\xff\xfe\n.png"
    assert list(rule.shown([b"a.png", b"b.mp4"])) == [(b"a.png", b"a.png")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "users",
        "users/5",
        "users/5/thumbnails/deeper",
        "users/5/recordings",
        "shared/thumbnails",
        "temp/5/thumbnails",
        "users/5/thumbnail",
    ],
)
def test_other_directories_have_no_rule(text: str) -> None:
    assert rule_for_dir(RULES, path(text)) is None


def test_the_first_matching_rule_applies() -> None:
    special = FallbackRule("users/5/thumbnails/*", "shared/special/*")
    rule = rule_for_dir((special, THUMBNAILS), USER_THUMBNAILS)
    assert rule is not None
    assert rule.target_dir == (b"shared", b"special")
    assert rule_for_dir((special, THUMBNAILS), path("users/6/thumbnails")) is THUMBNAILS.dir_rule


@pytest.mark.parametrize(
    ("text", "created"),
    [
        ("", []),
        ("users", []),
        ("users/5", [b"thumbnails", b"recordings"]),
        ("users/5/recordings", []),
        ("users/5/recordings/142", [b"assets"]),
        ("users/5/thumbnails", []),
        ("temp/5", []),
        ("temp/5/77", [b"logos"]),
        ("shared/thumbnails", []),
    ],
)
def test_directories_that_come_along(text: str, created: list[bytes]) -> None:
    assert auto_dirs(RULES, path(text)) == created


def test_a_rule_for_one_user_brings_that_user_into_being_nowhere() -> None:
    rule = FallbackRule("users/5/thumbnails/*", "shared/thumbnails/*")
    assert auto_dirs([rule], (b"users",)) == []
    assert auto_dirs([rule], (b"users", b"5")) == [b"thumbnails"]
    assert auto_dirs([rule], (b"users", b"6")) == []


def test_two_rules_bring_a_directory_once() -> None:
    pair = [THUMBNAILS, FallbackRule("users/*/thumbnails/old/*", "shared/thumbnails/*")]
    assert auto_dirs(pair, (b"users", b"5")) == [b"thumbnails"]
    assert auto_dirs(pair, USER_THUMBNAILS) == [b"old"]


@pytest.mark.parametrize(
    ("pattern", "target", "message"),
    [
        ("thumbnails", "shared/*", "not <directory>/<name>"),
        ("", "shared/*", "not <directory>/<name>"),
        ("/users/*/thumbnails/*", "shared/*", "relative to the mount"),
        ("users/*/thumbnails/", "shared/*", "not <directory>/<name>"),
        ("users/*/thumbnails/../*", "shared/*", "parts"),
        ("users/**/thumbnails/*", "shared/*", r"\*\* is not known"),
        ("users/*/thumbnails/a\0", "shared/*", "NUL"),
        ("users/*/thumbnails/" + "x" * 256, "shared/*", "255"),
        ("users/*/*", "shared/*", "no directory that holds files"),
        ("users/*/*/*", "shared/*", "no directory that holds files"),
        ("users/jane/thumbnails/*", "shared/*", "no directory that holds files"),
        ("users/*/recordings/*", "shared/*", "no directory that holds files"),
        ("users/*/recordings/take1/*", "shared/*", "no directory that holds files"),
        ("temp/*/*", "shared/*", "no directory that holds files"),
        ("shared/thumbnails/*", "shared/*", "no directory that holds files"),
        ("users/*/thumbnails/*", "users/5/*", "not below shared/"),
        ("users/*/thumbnails/*", "shared", "not <directory>/<name>"),
        ("users/*/thumbnails/*", "shared/*/x", "only the last part"),
        ("users/*/thumbnails/*", "shared/*.png", "only a single"),
        ("users/*/thumbnails/*", "shared/default.png", "every name would exist"),
        ("users/*/thumbnails/[ab]", "shared/default.png", "every name would exist"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(pattern: str, target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FallbackRule(pattern, target)


def test_rules_are_equal_by_their_texts() -> None:
    assert FallbackRule("users/*/thumbnails/*", "shared/thumbnails/*") == THUMBNAILS
    assert hash(FallbackRule("users/*/thumbnails/*", "shared/thumbnails/*")) == hash(THUMBNAILS)
    assert repr(THUMBNAILS) == "FallbackRule(pattern='users/*/thumbnails/*', target='shared/thumbnails/*')"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("users/*/thumbnails/*", "users/*/thumbnails/a.png"),
        ("users/*/thumbnails/*", "users/5/thumbnails/*"),
        ("users/1*/thumbnails/*", "users/12/thumbnails/*"),
        ("users/*/thumbnails/*", "users/1*/thumbnails/*"),
    ],
)
def test_a_rule_that_never_applies_is_refused(first: str, second: str) -> None:
    rules = [FallbackRule(first, "shared/*"), FallbackRule(second, "shared/*")]
    with pytest.raises(ValueError, match="never applies"):
        check_rules(rules)
    if first.rpartition("/")[0] != second.rpartition("/")[0]:
        check_rules(rules[::-1])


def test_rules_for_different_directories_live_together() -> None:
    check_rules(RULES)
    check_rules([FallbackRule("users/1*/thumbnails/*", "shared/*"), FallbackRule("users/2/thumbnails/*", "shared/*")])
