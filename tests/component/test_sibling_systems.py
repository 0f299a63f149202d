"""The rules for sibling systems that docs/migration.md shows do what it says they do."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recfs.core.migration.plan import Action, Entry, parsed
from recfs.errors import InvalidArgument, IoFailure, NotFound
from recfs.migration import plans
from recfs.migration.ruled import make_by_rules, read_rules
from tests.helpers.migrations import Migration

DOCUMENT = (Path(__file__).parents[2] / "docs/migration.md").read_text("utf-8")
SECTION = re.split(r"^## ", DOCUMENT, flags=re.MULTILINE)
EXAMPLES = dict(
    part.split("\n", 1)
    for section in SECTION
    if section.startswith("Sibling systems\n")
    for part in section.split("\n### ")[1:]
)
_BLOCK = re.compile(r"(?:^`([\w./]+)`(, in the tree)?:\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOW = datetime(2026, 11, 30, tzinfo=UTC)


def test_the_document_has_the_three_of_them() -> None:
    assert list(EXAMPLES) == ["Projects", "Uploads by day", "Meetings"]


@pytest.mark.parametrize("name", ["Projects", "Uploads by day", "Meetings"])
def test_the_rules_do_what_the_document_says(name: str, tmp_path: Path) -> None:
    tree, beside = tmp_path / "tree", tmp_path / "rules"
    beside.mkdir()
    expected: dict[bytes, tuple[str, str]] = {}
    for file, in_tree, language, text in _BLOCK.findall(EXAMPLES[name]):
        if language == "toml":
            (beside / "rules.toml").write_text(text, "utf-8")
        elif language:
            path = (tree if in_tree else beside) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        else:
            for line in text.splitlines():
                action, source, *rest = re.split(r"\s{2,}", line)
                expected[source.encode()] = action, (rest or [""])[0]
    for number, source in enumerate(expected):
        path = tree / os.fsdecode(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(source)
        os.utime(path, (number, number))
    made = make_by_rules(tree, beside / "rules.toml", NOW)
    assert {each.source for each in made.plan.entries} == expected.keys()
    for each in made.plan.entries:
        action, says = expected[each.source]
        assert each.action == action, each
        if each.target:
            assert each.target.decode() == says
        else:
            assert says in each.reason
    plans.save(made.plan, tmp_path / "plan")
    assert plans.load(tmp_path / "plan").entries == made.plan.entries, "it is a plan like any other"
    assert parsed(made.plan.lines()).made_of["old"] == str(tree)


RULES = '[[rule]]\nfrom = "{name}"\nto = "users/1/recordings/1/{name}"\n'


def made(tmp_path: Path, rules: str = RULES) -> list[Entry]:
    (tmp_path / "rules.toml").write_text(rules, "utf-8")
    (tmp_path / "tree").mkdir(exist_ok=True)
    return make_by_rules(tmp_path / "tree", tmp_path / "rules.toml", NOW).plan.entries


def test_what_is_no_file_is_unreadable_whatever_the_rules_say(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x")
    (tree / "link").symlink_to("file")
    os.mkfifo(tree / "pipe")
    (tree / os.fsdecode(b"\xff\nname")).write_bytes(b"xy")
    found = {each.source: (each.action, each.target) for each in made(tmp_path)}
    assert found == {
        b"file": (Action.COPY, b"users/1/recordings/1/file"),
        b"link": (Action.UNREADABLE, b""),
        b"pipe": (Action.UNREADABLE, b""),
        b"\xff\nname": (Action.COPY, b"users/1/recordings/1/\xff\nname"),
    }


def test_tables_are_looked_for_where_they_are_said_to_be(tmp_path: Path) -> None:
    rules = '\nkey = "name"\n' + RULES.replace("to =", 'tables = ["t"]\nto =')
    with pytest.raises(NotFound, match=r"t\.csv"):
        made(tmp_path, f'[tables.t]\nfile = "t.csv"{rules}')
    (tmp_path / "t.csv").write_text("name,other\n", "utf-8")
    assert made(tmp_path, f'[tables.t]\nfile = "t.csv"{rules}') == []
    with pytest.raises(NotFound, match="no such file"):
        made(tmp_path, f'[tables.t]\ntree_file = "t.csv"{rules}')
    with pytest.raises(InvalidArgument, match="no path below"):
        made(tmp_path, f'[tables.t]\ntree_file = "../t.csv"{rules}')
    (tmp_path / "tree/t.csv").symlink_to("../t.csv")
    with pytest.raises(InvalidArgument, match="symbolic link"):
        made(tmp_path, f'[tables.t]\ntree_file = "t.csv"{rules}')
    with pytest.raises(IoFailure, match="Is a directory"):
        made(tmp_path, f'[tables.t]\nfile = "tree"{rules}')


def test_a_table_in_the_tree_is_a_file_of_it_or_refused(tmp_path: Path) -> None:
    rules = '\nkey = "name"\n' + RULES.replace("to =", 'tables = ["t"]\nto =')
    (tmp_path / "tree").mkdir()
    os.mkfifo(tmp_path / "tree/pipe.csv")
    with pytest.raises(InvalidArgument, match=r"pipe\.csv is no regular file"):
        made(tmp_path, f'[tables.t]\ntree_file = "pipe.csv"{rules}')
    os.mkfifo(tmp_path / "beside.csv")
    with pytest.raises(InvalidArgument, match=r"beside\.csv is no regular file"):
        made(tmp_path, f'[tables.t]\nfile = "beside.csv"{rules}')
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/t.csv").write_text("name\n", "utf-8")
    (tmp_path / "tree/folder").symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidArgument, match="symbolic link"):
        made(tmp_path, f'[tables.t]\ntree_file = "folder/t.csv"{rules}')
    (tmp_path / "tree/long.csv").touch()
    os.truncate(tmp_path / "tree/long.csv", 8 << 40)
    with pytest.raises(InvalidArgument, match=r"long\.csv has more than"):
        made(tmp_path, f'[tables.t]\ntree_file = "long.csv"{rules}')


def test_what_spreadsheets_and_editors_of_windows_write_is_read(tmp_path: Path) -> None:
    rules = '\nkey = "name"\nfields = "owner"\n' + RULES
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfname;owner\r\n7;4\r\n")
    (tmp_path / "rules.toml").write_text(f'\ufeff[tables.t]\nfile = "t.csv"{rules}', "utf-8")
    table = read_rules(tmp_path / "rules.toml", lambda _name: b"").rows["t"]
    assert table.look_up({"name": b"7"}) == {"owner": b"4"}


def test_a_file_of_rules_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"rules\.toml: there is no"):
        made(tmp_path, "")
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    with pytest.raises(InvalidArgument, match="no UTF-8"):
        read_rules(tmp_path / "latin.toml", lambda _: b"")


@pytest.mark.needs("rsync")
def test_a_plan_by_rules_is_run_like_any_other(tmp_path: Path) -> None:
    migration = Migration(tmp_path)
    for name in ("в.mp4", "a b.mp4"):
        (migration.old / name).write_bytes(name.encode())
    (migration.old / "link").symlink_to("a b.mp4")
    (tmp_path / "rules.toml").write_text(RULES, "utf-8")
    plans.save(make_by_rules(migration.old, tmp_path / "rules.toml", NOW).plan, tmp_path / "by-rules.plan")
    migration.plan = plans.load(tmp_path / "by-rules.plan")
    migration.run()
    report = migration.verify()
    assert {each.name: each.read_bytes() for each in migration.at("users/1/recordings/1").iterdir()} == {
        name: name.encode() for name in ("в.mp4", "a b.mp4")
    }
    assert not report.is_clean, "the link needs a person"
