"""core/globs.py: globs on paths, against a slow matcher that is plainly right."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.core.globs import PathGlob, compiled, is_glob

Path = tuple[bytes, ...]

names = st.sampled_from([b"users", b"a", b"b", b"ab", b".a", b"A"])
parts = st.sampled_from(["**", "*", "?", "a", "b", "a*", "[ab]", "[!a]", "users"])
patterns = st.lists(parts, min_size=1, max_size=6).map("/".join)
paths = st.lists(names, min_size=1, max_size=6).map(tuple)
bytes_paths = st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=6).map(tuple)


def taken(pattern: list[str], path: Path) -> bool:
    """The definition, tried out in full."""
    if not pattern:
        return not path
    if pattern == ["**"]:
        return len(path) > 0
    if pattern[0] == "**":
        return any(taken(pattern[1:], path[skipped:]) for skipped in range(len(path) + 1))
    return len(path) > 0 and fnmatch.fnmatchcase(path[0].decode("latin-1"), pattern[0]) and taken(pattern[1:], path[1:])


def path(text: str) -> Path:
    return tuple(text.encode().split(b"/"))


@given(patterns, paths)
def test_it_takes_what_the_definition_says(pattern: str, path: Path) -> None:
    assert PathGlob(pattern).matches(path) is taken(pattern.split("/"), path)


@given(patterns, bytes_paths)
def test_names_may_be_any_bytes(pattern: str, path: Path) -> None:
    assert PathGlob(pattern).matches(path) is taken(pattern.split("/"), path)


@pytest.mark.parametrize(
    ("pattern", "text", "takes"),
    [
        ("users/**", "users/5", True),
        ("users/**", "users/5/recordings/142/source.mp4", True),
        ("users/**", "users", False),
        ("users/**", "temp/5/1/x", False),
        ("**", "shared/x", True),
        ("**/*.mp4", "users/5/recordings/142/a.mp4", True),
        ("**/*.mp4", "a.mp4", True),
        ("**/*.mp4", "a.mp4/b", False),
        ("users/**/source.*", "users/source.mp4", True),
        ("users/**/source.*", "users/5/recordings/1/a/b/source.mov", True),
        ("users/**/source.*", "users/5/recordings/1/source.mov/x", False),
        ("users/*/x", "users/x", False),
        ("users/*/x", "users/a/b/x", False),
        ("a/**/b/**/c", "a/b/b/c/b/c", True),
        ("a/**/b/**/c", "a/c/b", False),
        ("shared/*", "shared/.hidden", True),
        ("shared/*.PNG", "shared/a.png", False),
        ("shared/[[]x]", "shared/[x]", True),
        ("shared/[!]]", "shared/]", False),
    ],
)
def test_examples(pattern: str, text: str, takes: bool) -> None:
    assert PathGlob(pattern).matches(path(text)) is takes


def test_a_question_mark_is_one_byte_and_a_newline_a_byte_like_any() -> None:
    assert PathGlob("shared/?").matches((b"shared", b"\n"))
    assert not PathGlob("shared/?").matches((b"shared", "é".encode()))
    assert PathGlob("shared/??").matches((b"shared", "é".encode()))
    assert not PathGlob("shared/a").matches((b"shared", b"a\n"))


def test_many_deep_parts_take_no_longer() -> None:
    pattern = PathGlob("/".join(["**", "a"] * 60))
    deep = (b"a",) * 400
    assert pattern.matches(deep)
    assert not pattern.matches((*deep, b"b"))
    assert pattern.covers(PathGlob("/".join("a" * 400)))
    assert PathGlob("shared/" + "*a" * 60).matches((b"shared", b"a" * 200))
    assert not PathGlob("shared/" + "*a" * 60).matches((b"shared", b"a" * 200 + b"b"))


@given(patterns, patterns, paths)
def test_what_is_covered_is_taken(wide: str, narrow: str, path: Path) -> None:
    one, other = PathGlob(wide), PathGlob(narrow)
    if one.covers(other) and other.matches(path):
        assert one.matches(path)


@given(patterns)
def test_everything_covers_all_and_each_itself(pattern: str) -> None:
    assert PathGlob("**").covers(PathGlob(pattern))
    assert PathGlob(pattern).covers(PathGlob(pattern))


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("users/**", "users/*/recordings/**", True),
        ("users/*/recordings/**", "users/**", False),
        ("**/*.mp4", "users/**/source.mp4", True),
        ("**/*.mp4", "users/**", False),
        ("users/*/x", "users/5/x", True),
        ("users/5/x", "users/*/x", False),
        ("users/[0-9]/x", "users/5/x", True),
        ("users/*/x", "users/**/x", False),
        ("users/**/x", "users/x", True),
        ("users/**", "users/**/x", True),
    ],
)
def test_covering(wide: str, narrow: str, covers: bool) -> None:
    assert PathGlob(wide).covers(PathGlob(narrow)) is covers


@pytest.mark.parametrize(
    ("pattern", "text", "why"),
    [
        ("users/*/x", "temp/5/x", "its path is not one of users/*/x: 'temp' is not 'users'"),
        ("users/*/x/**", "users/5/y", "its path is not one of users/*/x/**: 'y' is not 'x'"),
        ("users/*", "users/5/x", "its path is not one of users/*: it has 3 levels, not 2; ** stands for any number"),
        ("users/*/*", "users/5", "its path is not one of users/*/*: it has 2 levels, not 3"),
        ("users/**/x", "users/5/y", "its path is not one of users/**/x"),
        ("users/**", "users", "its path is not one of users/**"),
    ],
)
def test_a_miss_is_told_where_it_can_be(pattern: str, text: str, why: str) -> None:
    glob = PathGlob(pattern)
    assert not glob.matches(path(text))
    assert glob.miss(path(text)).startswith(why)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", r"empty pattern; write \*\* for every file"),
        ("/users/**", r"absolute path; write it relative to the mount: 'users/\*\*'"),
        ("/", r"relative to the mount: '\*\*'"),
        ("users/", r"ends in /; for everything below, write 'users/\*\*'"),
        ("users//x", "without empty, . or .. parts"),
        ("./users", "without empty, . or .. parts"),
        ("users/../temp", "without empty, . or .. parts"),
        ("users/a\0", "NUL"),
        ("users/" + "x" * 256, "255"),
        ("users/a**", r"\*\* stands alone between slashes"),
        ("users/***", r"\*\* stands alone between slashes"),
        ("users/[a-z", r"a \[ without its \]"),
        ("users/[a/b]", r"a \[ without its \]"),
        ("users/[]", r"a \[ without its \]"),
        ("users/[!]", r"a \[ without its \]"),
        ("users/[a]b[", r"a \[ without its \]"),
    ],
)
def test_a_pattern_that_makes_no_sense_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PathGlob(pattern)


@given(st.text(max_size=20))
def test_any_text_is_a_glob_or_refused_with_a_message(text: str) -> None:
    message = "a message of some length"
    try:
        PathGlob(text).matches((b"users", b"5"))
    except ValueError as error:
        message = str(error)
    assert len(message) > 20


def test_a_name_without_wildcards_is_itself() -> None:
    assert not is_glob(b"a.b]c")
    assert compiled(b"a.b")(b"a.b") is True
    assert compiled(b"a.b")(b"axb") is False
