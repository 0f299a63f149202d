"""Which numbered versions go: pure decisions."""

import pytest

from recfs.core.upkeep.leftovers import Now
from recfs.core.upkeep.versions import Version, VersionRule, check_versions, choose

NS = 10**9
NOW_NS = 1_790_000_000 * NS
NOW = Now(NOW_NS, NOW_NS)
PATTERN = "users/*/recordings/*/topics_v{N}"


def version(
    name: str, rule: VersionRule, *, age_s: float = 1e6, opened: int = 0, whole: bool = True, size: int = 5
) -> Version:
    series, number = rule.split(name.encode()) or (b"", -1)
    return Version(name.encode(), 7, series, number, size, NOW_NS - round(age_s * NS), opened, whole)


def removed(rule: VersionRule, *versions: Version) -> list[str]:
    return [choice.version.name.decode() for choice in choose(rule, versions, NOW) if choice.removes]


def of(rule: VersionRule, *names: str) -> list[str]:
    return removed(rule, *(version(name, rule) for name in names))


def test_numbers_count_as_numbers_and_may_have_gaps() -> None:
    rule = VersionRule(PATTERN, 2)
    assert of(rule, "topics_v9", "topics_v10", "topics_v1", "topics_v200") == ["topics_v9", "topics_v1"]
    assert of(rule, "topics_v1", "topics_v2") == []
    assert of(rule, "topics_v007", "topics_v7", "topics_v8", "topics_v6") == ["topics_v6"]


def test_each_series_is_counted_by_itself() -> None:
    rule = VersionRule("users/*/recordings/*/*_v{N}.*", 1)
    assert of(rule, "a_v1.json", "a_v2.json", "b_v1.json", "a_v1.txt", "b_v3.json") == ["a_v1.json", "b_v1.json"]


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        (PATTERN, "topics_v12", 12),
        (PATTERN, "topics_v", None),
        (PATTERN, "topics_v1x", None),
        (PATTERN, "topics_v-1", None),
        (PATTERN, "xtopics_v1", None),
        (PATTERN, "topics_v" + "9" * 19, None),  # a name, and no number
        ("a/*{N}.mp4", "take12.mp4", 12),
        ("a/*{N}*", "take12", 12),
        ("a/[ab]_{N}", "b_3", 3),
        ("a/{N}", "3", 3),
    ],
)
def test_what_a_name_says(pattern: str, name: str, expected: int | None) -> None:
    found = VersionRule(pattern, 1).split(name.encode())
    assert (found and found[1]) == expected


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((5, 5, 0, 0), []),  # jobs that died after mkdir cost nothing that is whole
        ((0, 5, 0, 5), ["t_v1"]),
        ((5, 5, 0, 5), ["t_v1"]),
        ((0, 0, 0, 0), []),
        ((5, 0, 5, 5), ["t_v2", "t_v1"]),
    ],
)
def test_what_is_empty_takes_no_place_of_what_is_not(sizes: tuple[int, ...], expected: list[str]) -> None:
    rule = VersionRule("users/*/t_v{N}", 2)
    versions = [version(f"t_v{number}", rule, size=size) for number, size in enumerate(sizes, 1)]
    assert removed(rule, *versions) == expected


def test_what_is_open_young_or_unfinished_stays_and_the_unfinished_is_not_counted() -> None:
    rule = VersionRule(PATTERN, 1, min_age_s=3600.0)
    versions = [version(f"topics_v{number}", rule) for number in range(1, 6)]
    assert removed(rule, *versions) == ["topics_v4", "topics_v3", "topics_v2", "topics_v1"]
    versions[4] = version("topics_v5", rule, whole=False)
    assert removed(rule, *versions) == ["topics_v3", "topics_v2", "topics_v1"]
    versions[2] = version("topics_v3", rule, opened=1)
    versions[1] = version("topics_v2", rule, age_s=3599.0)
    versions[0] = version("topics_v1", rule, age_s=-5.0)  # its clock was ahead
    assert removed(rule, *versions) == []
    reasons = {choice.version.number: choice.reason for choice in choose(rule, versions, NOW)}
    assert reasons[5] == "it is not committed"
    assert reasons[4] == "number 1 of the newest 1"
    assert reasons[3] == "1 newer, 1 are kept; a file of it is open"
    assert "min_age 1h" in reasons[2]


def test_where_versions_may_lie() -> None:
    rule = VersionRule(PATTERN, 1)
    recording = (b"users", b"5", b"recordings", b"142")
    assert rule.takes_folder(recording)
    assert not rule.takes_folder(recording[:3])
    assert [rule.may_lead_on(recording[:depth]) for depth in range(5)] == [True, True, True, True, False]
    assert not rule.may_lead_on((b"temp",))
    deep = VersionRule("users/**/x_{N}", 1)
    assert deep.takes_folder((b"users", b"5", b"any"))
    assert deep.may_lead_on(recording)


@pytest.mark.parametrize("pattern", ["topics_v{N}", "a/b", "a/{N}/b", "a/{N}_{N}", "/a/{N}", "a//{N}", "a/[{N}"])
def test_patterns_that_mean_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        VersionRule(pattern, 1)


def test_two_rules_of_one_pattern_are_refused() -> None:
    with pytest.raises(ValueError, match="two"):
        check_versions([VersionRule(PATTERN, 1), VersionRule(PATTERN, 2)])
    assert len({VersionRule(PATTERN, 1), VersionRule(PATTERN, 1), VersionRule(PATTERN, 2)}) == 2
