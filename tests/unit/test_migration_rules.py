"""Rules that map a foreign layout: which file goes where, and what is never guessed."""

from __future__ import annotations

import pytest

from recfs.core.migration.claims import File
from recfs.core.migration.plan import Action, Entry
from recfs.core.migration.siblings.patterns import Pattern, Template
from recfs.core.migration.siblings.rules import Rules, parsed_rules
from recfs.errors import InvalidArgument

UUID = b"0190d7a4-1111-7abc-8def-000000000001"


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("a/b.mp4", b"a/b.mp4", {}),
        ("a/b.mp4", b"a/b.mp4x", None),
        ("{name}.mp4", b"x.y.mp4", {"name": b"x.y"}),
        ("{name}.mp4", b".mp4", None),
        ("{name}.mp4", b"d/x.mp4", None),
        ("{a}-{b}", b"x-y-z", {"a": b"x", "b": b"y-z"}),
        ("{a}-{n:number}.mp3", b"x-y-12.mp3", {"a": b"x-y", "n": b"12"}),
        ("{u:uuid}-{name}", UUID + b"-my-clip.mp4", {"u": UUID, "name": b"my-clip.mp4"}),
        ("{u:uuid}-{name}", b"no-uuid-here", None),
        ("p_{p:id}/*", b"p_7/x", {"p": b"7"}),
        ("p_{p:id}/*", b"p_07/x", None),
        ("{name}.{ext:ext}", b"tar.gz", {"name": b"tar", "ext": b"gz"}),
        ("{name}.{ext:ext}", b"a.tar.gz", {"name": b"a.tar", "ext": b"gz"}),
        ("a/**/{name}", b"a/x", {"name": b"x"}),
        ("a/**/{name}", b"a/b/c/x", {"name": b"x"}),
        ("a/**", b"a/b/c/x", {}),
        ("a/**", b"a", None),
        ("m/{rest:path}.json", b"m/a/b.json", {"rest": b"a/b"}),
        ("m/{rest:path}/x", b"m/x", None),
        ("**/{name}", b"x", {"name": b"x"}),
        ("?{{{name}}}", b"a{b}", {"name": b"b"}),
        ("*.mp4", b".mp4", {}),
        ("Имя_{n}", "Имя_ü".encode(), {"n": "ü".encode()}),
        ("{n}.x", b"\xff\xfe.x", {"n": b"\xff\xfe"}),
        ("{n}.x", b"a\nb.x", {"n": b"a\nb"}),
    ],
)
def test_a_pattern_takes_a_path_apart(pattern: str, path: bytes, found: dict[str, bytes] | None) -> None:
    assert Pattern(pattern).match(path) == found


def test_a_hostile_name_takes_a_bounded_number_of_steps() -> None:
    """By backtracking it would be more than 10^20 of them."""
    tried = 0

    def takes(value: bytes) -> bool:
        nonlocal tried
        tried += 1
        return True

    pattern = Pattern("/".join("**" if at % 2 else f"{{x{at}}}a{{y{at}}}a{{z{at}}}a*b" for at in range(7)))
    pattern._tokens = tuple(
        token if isinstance(token, bytes) or token.crosses else type(token)(token.name, takes, token.least, token.most)
        for token in pattern._tokens
    )
    path = b"/".join([b"a" * 60] * 20)
    assert pattern.match(path) is None
    assert 0 < tried <= len(pattern._tokens) * len(path) * 60


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "below the source"),
        ("/a", "below the source"),
        ("a//b", "below the source"),
        ("a/", "below the source"),
        ("{a}{b}", "touch"),
        ("{a}*", "touch"),
        ("{a}/{a}", "twice"),
        ("{a", "a { alone"),
        ("a}", "a } alone"),
        ("{A}", "no field"),
        ("{a:regex}", "a kind is one of"),
        ("{path}/x", "whole path"),
        ("a**/b", "alone between slashes"),
        ("a/**b", "alone between slashes"),
        ("**/**/a", "any number"),
        ("/".join(f"{{f{at}}}" for at in range(40)), "more than 64"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused_in_words(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        Pattern(text)


def test_a_template_is_filled() -> None:
    template = Template("users/{u}/{{x}}.{ext|lower}")
    assert template.fields == {"u", "ext"}
    assert template.filled({"u": b"4", "ext": b"MP4"}) == b"users/4/{x}.mp4"


@pytest.mark.parametrize("text", ["{u", "u}", "{u|upper}", "{U}", "{}"])
def test_a_template_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="target"):
        Template(text)


BASIC = """
[tables.projects]
file = "projects.csv"
key = { project = "id" }
fields = { user = "owner" }
[[rule]]
from = "tmp/**"
skip = "temporary"
[[rule]]
from = "uploads/project_{project:id}/{name}.{ext:ext}"
tables = ["projects"]
to = "users/{user}/recordings/{project}/{name}.{ext|lower}"
[[rule]]
from = "music/{name}"
to = "users/9/recordings/1/{name}"
same_target = "aside"
[[rule]]
from = "{any:path}"
to = "shared/{any}"
"""


def basic(csv: bytes = b"id,owner\n7,4\n8,\n9,5\n9,6\n10,5\n10,5\n11,x\n12,a/b\n") -> Rules:
    rules = parsed_rules(BASIC)
    rules.rows["projects"] = rules.tables["projects"].read(csv)
    return rules


@pytest.mark.parametrize(
    ("path", "action", "target", "why"),
    [
        (b"tmp/a/b", Action.SKIP, b"", "temporary"),
        (b"uploads/project_7/A.MP4", Action.COPY, b"users/4/recordings/7/A.mp4", "rule 2"),
        (b"uploads/project_1/a.mp4", Action.UNMATCHED, b"", "projects with id = 1 has no row"),
        (b"uploads/project_8/a.mp4", Action.UNMATCHED, b"", "{user}"),
        (b"uploads/project_9/a.mp4", Action.AMBIGUOUS, b"", "several rows"),
        (b"uploads/project_10/a.mp4", Action.COPY, b"users/5/recordings/10/a.mp4", "rule 2"),
        (b"uploads/project_11/a.mp4", Action.UNMATCHED, b"", "users/x/recordings/11/a.mp4 cannot be"),
        (b"uploads/project_12/a.mp4", Action.UNMATCHED, b"", "user is no name"),
        (b"other/x", Action.COPY, b"shared/other/x", "rule 4"),
        (b"n" * 256, Action.UNMATCHED, b"", "256 bytes"),
    ],
)
def test_the_first_rule_decides_and_nothing_is_guessed(path: bytes, action: Action, target: bytes, why: str) -> None:
    placed = basic().place(path)
    assert (placed.action, placed.target) == (action, target)
    assert why in placed.reason


def test_what_no_rule_takes_is_unmatched() -> None:
    rules = parsed_rules('[[rule]]\nfrom = "a"\nto = "shared/a"')
    assert rules.place(b"b")[:3] == (Action.UNMATCHED, b"", "no rule takes it")


def test_a_default_stands_in_for_a_missing_row() -> None:
    rules = parsed_rules(BASIC.replace('tables = ["projects"]', 'tables = ["projects"]\ndefaults = { user = 3 }'))
    rules.rows["projects"] = rules.tables["projects"].read(b"id,owner\n7,4\n")
    assert rules.place(b"uploads/project_7/a.x").target == b"users/4/recordings/7/a.x"
    assert rules.place(b"uploads/project_1/a.x").target == b"users/3/recordings/1/a.x"


def planned(*files: tuple[bytes, int]) -> list[Entry]:
    return basic().entries(File(path, 10, mtime) for path, mtime in files)


def test_two_files_of_one_target_are_ambiguous_both() -> None:
    first, second, other = planned(
        (b"uploads/project_7/a.MP4", 1), (b"uploads/project_7/a.mp4", 2), (b"uploads/project_7/b.mp4", 3)
    )
    assert (first.action, second.action, other.action) == (Action.AMBIGUOUS, Action.AMBIGUOUS, Action.COPY)
    assert "uploads/project_7/a.mp4 would have the same target" in first.reason
    assert not first.target


def test_a_file_where_a_directory_is_to_be_is_ambiguous() -> None:
    file, inside = planned((b"d", 1), (b"d/e", 1))
    assert (file.action, inside.action) == (Action.AMBIGUOUS, Action.COPY)


def test_a_rule_can_keep_the_others_aside_the_newest_first() -> None:
    rules = parsed_rules('[[rule]]\nfrom = "{a}/{n}.mp3"\nto = "users/1/recordings/1/{n}.mp3"\nsame_target = "aside"\n')
    entries = rules.entries(
        [File(b"old/a.mp3", 1, 5), File(b"new/a.mp3", 2, 9), File(b"x/a.2.mp3", 3, 1), File(b"y/a.mp3", 4, 7)]
    )
    assert [(each.action, each.target.rpartition(b"/")[2]) for each in entries] == [
        (Action.ASIDE, b"a.4.mp3"),
        (Action.COPY, b"a.mp3"),
        (Action.COPY, b"a.2.mp3"),
        (Action.ASIDE, b"a.3.mp3"),
    ]
    assert len({each.target for each in entries}) == 4


JSON = """
[tables.assets]
tree_file = "metadata/video_assets.json"
rows = "data.assets"
key = { path = "file" }
[[rule]]
from = "uploads/{name}"
tables = ["assets"]
to = "users/{user}/recordings/{recording}/{name}"
"""


@pytest.mark.parametrize(
    "content",
    [
        b'{"data": {"assets": [{"file": "uploads/x", "user": 4, "recording": 7, "old": true, "tags": []}]}}',
        b'\xef\xbb\xbf{"data": {"assets": {"7": {"file": "uploads/x", "user": "4", "recording": "7"}}}}',
    ],
)
def test_rows_come_from_json_too(content: bytes) -> None:
    rules = parsed_rules(JSON)
    table = rules.tables["assets"]
    assert (table.file, table.in_tree) == ("metadata/video_assets.json", True)
    rules.rows["assets"] = table.read(content)
    assert rules.place(b"uploads/x").target == b"users/4/recordings/7/x"
    assert "assets with file = uploads/y has no row" in rules.place(b"uploads/y").reason


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[", "assets cannot be read"),
        (b'{"data": []}', "no data.assets"),
        (b'{"data": {"assets": 1}}', "a list of objects"),
        (b'{"data": {"assets": [1]}}', "a row is to be an object"),
        (b"\xff", "cannot be read"),
    ],
)
def test_a_table_that_is_none_says_why(content: bytes, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        parsed_rules(JSON).tables["assets"].read(content)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no column 'id'; there are none"),
        (b"id,name\n", "no column 'owner'; there are id, name"),
        (b"id,owner\n1\n", "line 2 has not as many"),
        (b"id,owner\n1,2,3\n", "line 2 has not as many"),
        (b'id,owner\n"1,2\n', "unexpected end of data"),
    ],
)
def test_a_csv_that_is_broken_names_the_line(content: bytes, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        basic(content)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x =", "no TOML"),
        ("", "no \\[\\[rule\\]\\]"),
        ('rules = 1\n[[rule]]\nfrom="a"\nto="b"', "'rules' is not known"),
        ('[[rule]]\nfrom="a"', "rule 1 needs"),
        ('[[rule]]\nfrom="a"\nto="b"\nskip="c"', "rule 1 needs"),
        ('[[rule]]\nfrom="a"\nto="b"\ntable="c"', "'table' is not known"),
        ('[[rule]]\nfrom="a"\nto="b"\ntables=["c"]', "a list of names"),
        ('[[rule]]\nfrom="{a}"\nto="shared/{b}"', "nothing tells {b}"),
        ('[[rule]]\nfrom="{a"\nto="b"', "rule 1: pattern"),
        ('[[rule]]\nfrom="a"\nto="b"\nsame_target="newest"', "same_target is one of"),
        ('[[rule]]\nfrom=1\nto="b"', "from is to be a string"),
        ('rule = "a"', "no \\[\\[rule\\]\\]"),
        ('[defaults]\na=1.5\n[[rule]]\nfrom="a"\nto="b"', "a is to be a string or a number"),
        ('[tables.t]\nkey="a"\n[[rule]]\nfrom="a"\nto="b"', "needs either `file`"),
        ('[tables.t]\nfile="f"\n[[rule]]\nfrom="a"\nto="b"', "`key` is a field"),
        ('[tables.t]\nfile="f"\nkey="a"\nfields=3\n[[rule]]\nfrom="a"\nto="b"', "`key` is a field"),
        ('[tables.t]\nfile="f"\nkey="x"\n[[rule]]\nfrom="{a}"\nto="b"\ntables=["t"]', "asked by {x}"),
        ('[tables.t]\nfile="f"\nkey="a"\ncolumns=[]\n[[rule]]\nfrom="a"\nto="b"', "'columns' is not known"),
    ],
)
def test_a_file_of_rules_that_cannot_be_says_where(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        parsed_rules(text)
