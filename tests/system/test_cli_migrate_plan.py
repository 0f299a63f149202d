"""`recfs migrate plan`, from a tree and a database on the disk to the file that people read."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import stat
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from recfs.core.migration.claims import File
from recfs.core.migration.plan import Action, Plan
from recfs.core.migration.rows import COLUMNS
from recfs.migration.planning import Digests
from recfs.migration.plans import load, state_of
from recfs.migration.run import recordings
from tests.system.fake_daemon import run


@dataclass
class Old:
    """An old tree with a database, and where its plan goes."""

    top: Path
    plan: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.top / "data.db"

    @property
    def dump(self) -> Path:
        return self.plan.with_name("dump.csv")

    def put(self, path: str, data: str = "") -> str:
        (self.top / path).parent.mkdir(parents=True, exist_ok=True)
        (self.top / path).write_text(data or path)
        return path

    def row(self, number: object, user: object = 4, **told: object) -> None:
        self.rows.append({**dict.fromkeys(COLUMNS), "id": number, "user_id": user, "status": "READY", **told})

    def written(self) -> Old:
        self.database.unlink(missing_ok=True)
        with closing(sqlite3.connect(self.database)) as db, db:
            db.execute(f"create table recordings ({', '.join(COLUMNS)})")
            db.executemany(f"insert into recordings values ({', '.join('?' * len(COLUMNS))})", map(_values, self.rows))
        with self.dump.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        return self

    def planned(self, *options: object, code: int = 0) -> Plan:
        result = run("migrate", "plan", self.top, "-o", self.plan, *options)
        assert result.exit_code == code, result.output
        return load(self.plan)


def _values(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.values())


@pytest.fixture
def old(tmp_path: Path) -> Old:
    (tmp_path / "media").mkdir()
    return Old(tmp_path / "media", tmp_path / "media.plan")


def lines(plan: Plan) -> dict[str, str]:
    return {
        each.source.decode(): f"{each.action} {each.target.decode()}".strip()
        for each in plan.entries
        if not each.source.startswith(b"data.db")
    }


def told(plan: Plan) -> dict[str, Any]:
    return {key[len("recording ") :]: json.loads(value) for key, value in plan.made_of.items() if key.startswith("rec")}


def a_recording(old: Old, number: int = 7, **told: object) -> dict[str, str]:
    source = old.put(f"user_4/video/unprocessed/Перевод_{number}x.mp4")
    folder = f"user_4/transcriptions/{number}"
    master = old.put(f"{folder}/master.json")
    old.row(number, display_name="Перевод", local_video_path=source, transcription_dir=f"{old.top}/{folder}", **told)
    target = f"users/4/recordings/{number}"
    return {source: f"copy {target}/source.mp4", master: f"copy {target}/transcription/master.json"}


def test_a_clean_tree_has_a_plan_that_needs_nobody(old: Old) -> None:
    wanted = a_recording(old, expire_at="2031-05-09 11:30:00+03:00")
    old.written()
    before = {path: path.stat().st_mtime_ns for path in old.top.rglob("*")}
    plan = old.planned("--db", old.database)
    assert lines(plan) == wanted
    assert {path: path.stat().st_mtime_ns for path in old.top.rglob("*")} == before
    assert [each.action for each in plan.entries if each.source == b"data.db"] == [Action.SKIP]
    assert plan.entries == sorted(plan.entries, key=lambda each: each.source)
    assert told(plan) == {
        "users/4/recordings/7": {
            "row": "7",
            "expires": "2031-05-09T08:30:00Z",
            "status": "READY",
            "name": "Перевод",
            "columns": {
                "local_video_path": "users/4/recordings/7/source.mp4",
                "transcription_dir": "users/4/recordings/7/transcription",
            },
            "was": {
                "local_video_path": "user_4/video/unprocessed/Перевод_7x.mp4",
                "transcription_dir": f"{old.top}/user_4/transcriptions/7",
            },
        }
    }
    assert plan.made_of["old"] == str(old.top)
    assert plan.made_of["db"] == str(old.database)
    mapping = json.loads(plan.made_of["mapping"])
    assert mapping == {"table": "recordings", "columns": {column: column for column in COLUMNS}}
    assert stat.S_IMODE(old.plan.stat().st_mode) == 0o600
    assert "Перевод_7x.mp4" in old.plan.read_text()


def test_a_dump_says_what_the_database_says(old: Old) -> None:
    a_recording(old)
    a_recording(old, 8, status="EXPIRED")
    old.written()
    by_database = old.planned("--db", old.database)
    by_dump = old.planned("--map", old.dump)
    assert lines(by_dump) == lines(by_database)
    assert told(by_dump) == told(by_database)
    assert "db" not in by_dump.made_of
    assert by_dump.made_of["map"] == str(old.dump)


def test_expired_recordings_are_skipped_or_taken_with_their_date(old: Old) -> None:
    by_status = a_recording(old, 7, status="EXPIRED")
    by_date = a_recording(old, 8, expire_at="1969-01-01")
    old.written()
    plan = old.planned("--db", old.database)
    assert set(lines(plan).values()) == {"skip"}
    assert told(plan) == {}
    plan = old.planned("--db", old.database, "--expired", "migrate")
    assert lines(plan) == by_status | by_date
    assert told(plan)["users/4/recordings/8"]["expires"] == "1970-01-01T00:00:00Z"  # the first that a store keeps
    assert told(plan)["users/4/recordings/7"]["expires"] == "now"


def test_what_needs_a_person_is_told_and_the_plan_is_written(old: Old) -> None:
    a_recording(old)
    stray = old.put("user_4/video/processed/test_processed.mp4")
    old.row(8, processed_video_path="user_4/video/processed/\u202egone.mp4")
    old.row("x", None)
    old.row(9, expire_at="soon")
    old.written()
    result = run("migrate", "plan", old.top, "--db", old.database, "-o", old.plan)
    assert result.exit_code == 1
    assert f"unmatched: {stray}: no row names it" in result.stdout
    assert "need a person: 1 file, 1 missing path, 2 bad rows" in result.stdout
    plan = load(old.plan)
    missing = {key: value for key, value in plan.made_of.items() if key.startswith("missing")}
    gone = "user_4/video/processed/\\xe2\\x80\\xaegone.mp4: no such file"
    assert missing == {"missing users/4/recordings/8 processed_video_path": gone}
    assert plan.made_of["row 1"].startswith("x: id is 'x' (text), and no integer or UUID")
    assert plan.made_of["row 2"].startswith("9: expire_at: 'soon' is no date")
    result = run("--json", "migrate", "plan", old.top, "--db", old.database, "-o", old.plan)
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["actions"]["unmatched"] == {"files": 1, "bytes": len(stray)}
    assert (document["clean"], document["missing"], document["bad_rows"], document["recordings"]) == (False, 1, 2, 2)


def test_a_table_without_one_recording_is_refused(old: Old) -> None:
    old.row("x")
    old.row("y")
    old.written()
    result = run("migrate", "plan", old.top, "--db", old.database, "-o", old.plan)
    assert result.exit_code == 7
    assert "no row is a recording's; row x: id is 'x' (text)" in result.stderr
    assert not old.plan.exists()


def test_an_id_that_is_there_twice_is_refused(old: Old) -> None:
    old.row(7)
    old.row(7)
    old.written()
    result = run("migrate", "plan", old.top, "--map", old.dump, "-o", old.plan)
    assert (result.exit_code, "recording 7 of user 4 is there twice" in result.stderr) == (7, True)


def test_columns_may_be_called_otherwise(old: Old, tmp_path: Path) -> None:
    wanted = a_recording(old, 7, status="gone")
    wanted |= a_recording(old, 8)
    old.written()
    with closing(sqlite3.connect(old.database)) as db, db:
        db.execute("alter table recordings rename to items")
        db.execute("alter table items rename column id to item")
        db.execute("alter table items drop column display_name")
    names = tmp_path / "columns.toml"
    names.write_text('table = "items"\nexpired = ["GONE"]\n[columns]\nid = "item"\ndisplay_name = ""\n')
    result = run("migrate", "plan", old.top, "--db", old.database, "-o", old.plan)
    assert (result.exit_code, "there are: items" in result.stderr) == (7, True)
    plan = old.planned("--db", old.database, "--columns", names)
    assert [path for path, line in lines(plan).items() if line == "skip"] == [
        path for path in lines(plan) if "7" in path
    ]
    names.write_text("[columns]\nident = 'x'\n")
    result = run("migrate", "plan", old.top, "--db", old.database, "--columns", names, "-o", old.plan)
    assert (result.exit_code, "columns.ident: there is no such key" in result.stderr) == (3, True)


@pytest.mark.parametrize(("status", "expires"), [("gone", "now"), ("EXPIRED", "")])
def test_a_recording_expires_in_the_store_by_what_means_so_on_the_platform(old: Old, status: str, expires: str) -> None:
    a_recording(old, 7, status=status)
    old.written()
    names = old.plan.with_name("columns.toml")
    names.write_text('expired = ["GONE"]\n')
    plan = old.planned("--db", old.database, "--columns", names, "--expired", "migrate")
    assert [each.expires for each in recordings.told(plan)] == [expires]


def test_paths_that_an_update_has_set_and_its_copy_of_the_database_need_nobody(old: Old) -> None:
    wanted = a_recording(old, 7)
    old.row(8, local_video_path="users/4/recordings/8/source.mp4", transcription_dir="users/4/recordings/8/texts")
    old.row(9, local_video_path="users/4/recordings/8/source.mp4")
    old.written()
    copy = old.database.with_name("data.db.before-migration-20261130T000000Z")
    copy.write_bytes(old.database.read_bytes())
    plan = old.planned("--db", old.database, code=1)
    assert lines(plan) == wanted
    assert [key for key in plan.made_of if key.startswith("missing")] == [
        "missing users/4/recordings/9 local_video_path"
    ]
    assert [each.action for each in plan.entries if each.source == copy.name.encode()] == [Action.SKIP]


def test_long_texts_in_a_database_leave_a_plan_that_can_be_read(old: Old) -> None:
    source = old.put("user_4/video/unprocessed/a.mp4")
    old.row(7, status="ready" * 1_000_000, display_name="Ж" * 5_000_000, local_video_path=source)
    old.row(8, local_video_path="a/" * 5_000_000)
    old.row("x" * 5_000_000, local_video_path="b.mp4")
    old.written()
    plan = old.planned("--db", old.database, code=1)
    assert lines(plan) == {source: "copy users/4/recordings/7/source.mp4"}
    assert [key for key in plan.made_of if key.startswith("row ")] == ["row 1", "row 2"]
    assert old.plan.stat().st_size < 1 << 16


def test_files_elsewhere_are_taken_only_where_that_is_said(old: Old, tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    (away / "a.mp4").write_text("a")
    (tmp_path / "secret").write_text("root's")
    os.symlink(tmp_path / "secret", away / "link.mp4")
    for number, path in enumerate((away / "a.mp4", away / "../secret", away / "link.mp4"), 7):
        old.row(number, local_video_path=str(path))
    old.written()
    plan = old.planned("--db", old.database, code=1)
    assert lines(plan) == {}
    plan = old.planned("--db", old.database, "--elsewhere", away, code=1)
    assert lines(plan) == {str(away / "a.mp4"): "copy users/4/recordings/7/source.mp4"}
    assert sum(key.startswith("missing") for key in plan.made_of) == 2


def test_without_a_database_ids_in_names_are_all_there_is(old: Old) -> None:
    wanted = {old.put("user_4/transcriptions/7/master.json"): "copy users/4/recordings/7/transcription/master.json"}
    plan = old.planned()
    assert lines(plan) == wanted
    assert not {"db", "map", "mapping"} & set(plan.made_of)


def test_a_plan_is_not_written_into_the_old_tree(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(old.top)
    result = run("migrate", "plan", ".")
    assert (result.exit_code, "lies in the old tree" in result.stderr) == (2, True)
    assert os.listdir(old.top) == []


def test_a_plan_that_was_edited_or_is_being_run_stays(old: Old) -> None:
    a_recording(old)
    old.written()
    old.planned("--db", old.database)
    old.planned("--db", old.database)  # nobody touched it
    state_of(old.plan).touch()
    result = run("migrate", "plan", old.top, "--db", old.database, "-o", old.plan)
    assert (result.exit_code, "has begun" in result.stderr) == (7, True)
    old.planned("--db", old.database, "--force")
    state_of(old.plan).unlink()
    old.plan.write_text(old.plan.read_text().replace("copy\t", "skip\t"))
    result = run("migrate", "plan", old.top, "--db", old.database, "-o", old.plan)
    assert (result.exit_code, "was edited" in result.stderr) == (7, True)
    assert set(lines(load(old.plan)).values()) == {"skip " + line.split()[1] for line in a_recording(old).values()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--db", "a", "--map", "b"], "--db or --map"),
        (["--encoding", "cp1251"], "--encoding is that of the CSV"),
        (["--map", "b", "--encoding", "cp99"], "'cp99' is no encoding"),
        (["--map", "b", "--encoding", "hex"], "'hex' is no encoding"),
    ],
)
def test_options_that_mean_nothing_are_refused(old: Old, options: list[str], message: str) -> None:
    result = run("migrate", "plan", old.top, "-o", old.plan, *options)
    assert (result.exit_code, message in result.stderr) == (2, True)


def test_bytes_are_read_once_and_what_changes_meanwhile_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    os.link(tmp_path / "a", tmp_path / "b")
    os.symlink("a", tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    heard: list[int] = []
    digests = Digests(os.fsencode(tmp_path), lambda _what, done: heard.append(done))
    about = (tmp_path / "a").stat()
    inode = (about.st_dev, about.st_ino)
    first = digests.of(File(b"a", 3, inode=inode))
    assert isinstance(first, bytes)
    assert digests.of(File(b"b", 3, inode=inode)) == first
    assert heard == [3]
    assert digests.of(File(b"a", 4)) == "it changed meanwhile"
    assert digests.of(File(b"gone", 3)) == "No such file or directory"
    assert digests.of(File(b"link", 3)) == "Too many levels of symbolic links"
    assert digests.of(File(b"pipe", 3)) == "it changed meanwhile"


def test_what_grows_while_it_is_read_is_read_no_further_than_it_was(tmp_path: Path) -> None:
    (tmp_path / "long").touch()
    os.truncate(tmp_path / "long", 8 << 40)
    heard: list[int] = []
    digests = Digests(os.fsencode(tmp_path), lambda _what, done: heard.append(done))
    assert digests.of(File(b"long", 5)) == "it changed meanwhile"
    assert heard == [6]


def test_bytes_are_not_read_through_a_directory_that_became_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"123")
    (tmp_path / "old").mkdir()
    (tmp_path / "old/folder").symlink_to(tmp_path / "outside")
    digests = Digests(os.fsencode(tmp_path / "old"), lambda _what, _done: None)
    for path in (b"folder/secret", os.fsencode(tmp_path / "old/folder/secret")):
        assert digests.of(File(path, 3)) == "Not a directory"


def test_the_plan_of_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store/.recfs").mkdir(parents=True)
    result = run("migrate", "plan", tmp_path / "store", "-o", tmp_path / "media.plan")
    assert (result.exit_code, "is no old tree" in result.stderr) == (7, True), result.output
    assert not (tmp_path / "media.plan").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_users_uid_is_ambiguous(old: Old) -> None:
    wanted = a_recording(old)
    theirs = old.put("user_4/transcriptions/7/private.json")
    robots = old.put("user_4/transcriptions/7/robot.json")
    old.put("user_5/transcriptions/8/master.json")
    old.row(8, 5)
    for path in old.top.rglob("*"):
        os.chown(path, 20005 if "user_5" in str(path) else 20004, 20000)
    os.chown(old.top / theirs, 20005, 20005)
    os.chown(old.top / robots, 20009, 20009)  # nobody's: some worker's
    old.written()
    plan = old.planned("--db", old.database, code=1)
    found = lines(plan)
    assert found[theirs] == "ambiguous"
    assert found[robots] == "copy users/4/recordings/7/transcription/robot.json"
    assert {source: found[source] for source in wanted} == wanted
    (entry,) = [each for each in plan.entries if each.source == theirs.encode()]
    assert entry.reason == "its owner (uid 20005) is that of user_5, and it lies in user_4"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_hard_link_to_what_its_user_may_not_read_is_ambiguous(old: Old) -> None:
    a_recording(old)
    mine = old.put("user_4/transcriptions/7/mine.json")
    for path in old.top.rglob("*"):
        os.chown(path, 20004, 20004)
    secret = old.top.parent / "shadow"
    secret.write_text("root's alone")
    secret.chmod(0o640)
    theirs = "user_4/transcriptions/7/shadow.json"
    os.link(secret, old.top / theirs)
    os.link(old.top / mine, old.top / "user_4/transcriptions/7/mine_too.json")
    old.written()
    plan = old.planned("--db", old.database, code=1)
    assert {source for source, line in lines(plan).items() if line.startswith("ambiguous")} == {theirs}
    (entry,) = [each for each in plan.entries if each.source == theirs.encode()]
    assert "hard links" in entry.reason
    assert "may not read it" in entry.reason
