"""The plan of a migration as text: it is read as it was written, whatever bytes names have, and slips are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.core.migration.escapes import escaped, unescaped
from recfs.core.migration.plan import FIRST_LINE, MOVED, Action, Entry, Plan, parsed
from recfs.errors import InvalidArgument

_PARTS = st.lists(
    st.binary(min_size=1, max_size=40).filter(lambda part: part not in (b".", b"..") and not set(part) & {0, 0x2F}),
    min_size=1,
    max_size=4,
).map(b"/".join)


@given(st.binary())
def test_what_is_escaped_is_one_field_of_one_line_and_comes_back(name: bytes) -> None:
    text = escaped(name)
    assert unescaped(text) == name
    assert text == text.strip()
    assert "\t" not in text
    assert len(f"x{text}x".splitlines()) == 1
    text.encode("utf-8")


def test_a_name_of_letters_stays_as_it_is() -> None:
    assert escaped("Перевод на ИИ #1 🎬.mp4".encode()) == "Перевод на ИИ #1 🎬.mp4"
    assert escaped(b"a\\b\xff\x7f\n \t") == "a\\\\b\\xff\\x7f\\n \\t"
    assert escaped(b" a ") == "\\x20a\\x20"
    assert escaped("\u202egpj.exe".encode()) == "\\xe2\\x80\\xaegpj.exe"


@pytest.mark.parametrize("text", ["a\\", "\\q", "\\x1", "\\xzz"])
def test_an_escape_that_nobody_wrote_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no escape"):
        unescaped(text)


@given(
    st.dictionaries(_PARTS, st.tuples(st.sampled_from(Action), st.integers(0, 2**63), _PARTS, st.text()), max_size=8)
)
def test_a_plan_is_read_as_it_was_written(entries: dict[bytes, tuple[Action, int, bytes, str]]) -> None:
    plan = Plan({"old": "/srv/media", "made": "2026-11-30"})
    for target, (action, size, source, reason) in entries.items():
        try:
            reason.encode("utf-8")
        except UnicodeEncodeError:
            continue
        if any(target.startswith(each + b"/") for each in entries):
            continue  # a target below another one is refused
        plan.entries.append(Entry(action, size, target, source, reason))
    again = parsed(line + "\n" for line in plan.lines())
    assert again == plan


def test_a_target_that_is_a_dash_is_none() -> None:
    plan = Plan(entries=[Entry(Action.COPY, 1, b"-", b"a", ""), Entry(Action.SKIP, 1, b"", b"b", "")])
    assert [each.target for each in parsed(plan.lines()).entries] == [b"-", b""]


def test_comments_blank_lines_and_spaces_around_fields_are_nothing() -> None:
    text = f"{FIRST_LINE}\r\n#: old = /a b\r\n\r\n# a remark\r\ncopy \t 12\t x/y \t z\t why \r\n"
    plan = parsed(text.splitlines(keepends=True))
    assert plan == Plan({"old": "/a b"}, [Entry(Action.COPY, 12, b"x/y", b"z", "why")])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("copy\t1\ta\tb", "line 2: there are 4 fields, not 5"),
        ("copy\t1\ta\tb\tc\td", "line 2: there are 6 fields"),
        ("move\t1\ta\tb\tc", "line 2: 'move' is no action; there are copy"),
        ("copy\t-1\ta\tb\tc", "line 2: '-1' is no size"),
        ("copy\t٣\ta\tb\tc", "is no size"),
        ("copy\t1\t-\tb\tc", "line 2: copy needs a target"),
        ("duplicate\t1\t-\tb\tc", "line 2: duplicate needs a target"),
        ("copy\t1\t/a\tb\tc", "no path below the mount"),
        ("copy\t1\ta/../../b\tb\tc", "no path below the mount"),
        ("copy\t1\ta//b\tb\tc", "no path below the mount"),
        ("copy\t1\ta\\x00\tb\tc", "no path below the mount"),
        ("copy\t1\ta\t../b\tc", "no path below the old tree"),
        ("copy\t1\ta\t\tc", "the source is missing"),
        ("copy\t1\ta\tb\\\tc", "is no escape"),
        ("#: old", "is not of the form"),
        ("copy\t1\ta\tb\tc\naside\t1\ta\tc\td", "line 3: a is the target of line 2 already"),
    ],
)
def test_a_slip_is_told_with_its_line(line: str, why: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        parsed([FIRST_LINE, *line.split("\n")])
    assert why in str(raised.value)


@pytest.mark.parametrize("lines", [[], ["copy\t1\ta\tb\tc"], ["# recfs migration plan 2"], [""]])
def test_what_is_no_plan_is_told(lines: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="line 1: "):
        parsed(lines)


def test_counts_are_of_files_and_bytes() -> None:
    plan = Plan(entries=[Entry(Action.COPY, 3, b"a", b"a", ""), Entry(Action.COPY, 4, b"b", b"b", "")])
    assert plan.counts() == {Action.COPY: (2, 7)}
    assert Action.COPY in MOVED


@pytest.mark.parametrize("below", ["x", "x/y"])
def test_a_target_below_another_one_is_refused_with_its_line(below: str) -> None:
    first = "copy\t1\tusers/1/recordings/1/source.mp4\ta\tr"
    second = f"aside\t1\tusers/1/recordings/1/source.mp4/{below}\tb\tr"
    told = "lies below users/1/recordings/1/source.mp4, the target of line"
    with pytest.raises(InvalidArgument, match=f"line 3: .*{told} 2"):
        parsed([FIRST_LINE, first, second])
    with pytest.raises(InvalidArgument, match=f"line 2: .*{told} 3"):
        parsed([FIRST_LINE, second, first])
    beside = first.replace("source.mp4", "source.mp4.x").replace("\ta\t", "\tc\t")
    assert len(parsed([FIRST_LINE, first, beside]).entries) == 2
