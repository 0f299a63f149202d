"""`recfs backup` and `recfs restore-catalogue` on a store that nobody has mounted."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pyrage
import pytest
import trio

from recfs.config import config_for_root
from recfs.parts import NoKernelCache, opened
from tests.system.fake_daemon import run

REC = "users/5/recordings/142"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The configuration of a store with a file, its backups encrypted and elsewhere, and its key beside it."""
    root, key = tmp_path / "store", pyrage.x25519.Identity.generate()

    async def make() -> None:
        async with opened(config_for_root(root), NoKernelCache()):
            pass

    trio.run(make)
    (tmp_path / "backups").mkdir()
    (tmp_path / "key.txt").write_text(f"{key}\n")
    config = tmp_path / "recfs.conf"
    config.write_text(
        f'root = "{root}"\nmin_free = 0\n[backup]\ndirectory = "{tmp_path}/backups"\n'
        f'recipients = ["{key.to_public()}"]\n'
    )
    return config


def put(config: Path, name: str, content: bytes) -> None:
    """A file in the home tree, past recfs."""
    path = config.parent / "store" / REC / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.may_log("")
def test_who_finds_no_backup_is_told_where_it_was_looked_for_and_that_others_are_named_by_the_configuration(
    store: Path,
) -> None:
    """With --root alone nobody knows of [backup] directory, and the backups that are there are not found."""
    root, backups = store.parent / "store", store.parent / "backups"
    hint = f"{root}/.recfs/backups; where a recfs.conf names another [backup] directory, give it with --config"
    for command in (("backup", "list"), ("backup", "verify")):
        assert run(*command, "--root", root).stdout == f"there is none in {hint}\n"
        assert run(*command, "--config", store).stdout == f"there is none in {backups}\n"
    for command in (("backup", "drill"), ("restore-catalogue", "--dry-run")):
        assert f"there is no backup of the catalogue in {hint}" in run(*command, "--root", root).stderr
        assert run(*command, "--config", store).stderr.endswith(f"no backup of the catalogue in {backups}\n")


@pytest.mark.may_log("")
def test_a_file_that_is_no_backup_is_named_as_it_was_given(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that lies here, without a path, is told to be named by one."""
    (store.parent / "notes.txt").write_text("no database\n" * 1000)
    refused = run("restore-catalogue", "--config", store, "--dry-run", store.parent / "notes.txt")
    assert (refused.exit_code, refused.stderr) == (4, "recfs: notes.txt: file is not a database\n")
    monkeypatch.chdir(store.parent)
    unknown = run("restore-catalogue", "--config", store, "--dry-run", "notes.txt").stderr
    assert "there is no backup called notes.txt" in unknown
    assert "a file is named by its path: ./notes.txt" in unknown
    assert "by its path" not in run("restore-catalogue", "--config", store, "--dry-run", "nowhere.txt").stderr


@pytest.mark.slow
@pytest.mark.may_log("")
def test_backups_are_made_listed_verified_and_drilled(store: Path) -> None:
    key = store.parent / "key.txt"
    assert "there is none" in run("backup", "list", "--config", store).stdout
    assert "there is none" in run("backup", "verify", "--config", store).stdout
    assert run("backup", "drill", "--config", store).exit_code == 7
    made = json.loads(run("backup", "now", "--config", store, "--json").stdout)
    assert made["encrypted"]
    (listed,) = json.loads(run("backup", "list", "--config", store, "--json").stdout)
    assert listed["name"] == made["name"]
    shown = run("backup", "list", "--config", store)
    assert made["name"] in shown.stdout
    assert "yes" in shown.stdout
    assert "its file is what was written" in run("backup", "verify", "--config", store).stdout
    assert ": good" in run("backup", "verify", "--config", store, "--identity", key).stdout
    drill = run("backup", "drill", "--config", store, "--identity", key)
    assert drill.exit_code == 0, drill.output
    assert "add up" in drill.stdout
    missing = run("backup", "drill", "--config", store)
    assert (missing.exit_code, "give --identity" in missing.stderr) == (7, True)
    status = json.loads(run("status", "--config", store, "--json").stdout)
    assert status["backup"]["newest"]["name"] == made["name"]
    assert "of the catalogue" in run("status", "--config", store).stdout
    file = store.parent / "backups" / made["name"]
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    damaged = run("backup", "verify", "--config", store)
    assert (damaged.exit_code, "its checksum is another" in damaged.stdout) == (1, True)
    assert run("backup", "drill", made["name"], "--config", store, "--identity", key).exit_code == 4
    os.truncate(file, 9)
    assert "it has 9 bytes" in run("backup", "list", "--config", store).stdout


@pytest.mark.slow
@pytest.mark.may_log("")
def test_a_catalogue_is_restored_and_told_what_came_since(store: Path) -> None:
    key = store.parent / "key.txt"
    assert run("restore-catalogue", "--config", store).exit_code == 7
    assert run("backup", "now", "--config", store).exit_code == 0
    put(store, "video", b"bytes")
    dry = run("restore-catalogue", "--config", store, "--identity", key, "--dry-run")
    assert (dry.exit_code, f"{REC}/video" in dry.stdout) == (0, True), dry.output
    assert json.loads(run("ls-files", "-r", "--config", store, "--json").stdout) != []
    assert "video" not in run("ls-files", "-r", "--config", store).stdout
    done = run("restore-catalogue", "--config", store, "--identity", key)
    assert done.exit_code == 0, done.output
    assert "came since; it is in the catalogue now" in done.stdout
    assert "is the catalogue now" in done.stderr
    listed = json.loads(run("ls-files", "-r", "--config", store, "--json").stdout)
    assert [each["state"] for each in listed if each["path"] == f"{REC}/video"] == ["committed"]
    assert "all counters are right" in run("quota", "check", "--config", store).stdout
    assert run("backup", "now", "--config", store).exit_code == 0
    (store.parent / "store" / REC / "video").unlink()
    gone = run("restore-catalogue", "--config", store, "--identity", key, "--json")
    assert (gone.exit_code, json.loads(gone.stdout)["gone"]) == (1, [f"{REC}/video"])
    gone = run("restore-catalogue", "--config", store, "--identity", key, "--forget-missing")
    assert (gone.exit_code, "its row is removed" in gone.stdout) == (0, True), gone.output
    quiet = run("restore-catalogue", "--config", store, "--identity", store.parent / "nowhere")
    assert (quiet.exit_code, "No such file" in quiet.stderr) == (7, True)


@pytest.mark.slow
@pytest.mark.may_log("")
def test_an_earlier_recfs_refuses_the_catalogue_of_a_newer_one_and_takes_the_copy_that_was_kept(store: Path) -> None:
    private = store.parent / "store/.recfs"
    key = store.parent / "key.txt"
    assert run("restore-catalogue", "--config", store).exit_code == 7
    put(store, "video", b"bytes")
    assert run("backup", "now", "--config", store).exit_code == 0
    assert run("restore-catalogue", "--config", store, "--identity", key).exit_code == 0  # the file has a row now
    copy = private / "catalogue.db.before-upgrade-0010-20261129T134550Z"
    with closing(sqlite3.connect(private / "catalogue.db")) as db, closing(sqlite3.connect(copy)) as kept:
        db.backup(kept)
        with db:
            db.execute(
                "insert into _sqlite_migrations (migration_set, name, applied_at) values ('recfs', '9999_later', 'now')"
            )
    before = (private / "catalogue.db").read_bytes()
    for command in (["mount", store.parent / "mount"], ["status"], ["ls-files"], ["quota", "show"], ["quota", "check"]):
        (store.parent / "mount").mkdir(exist_ok=True)
        refused = run(command[0], *command[1:], "--config", store)
        assert refused.exit_code == 4, refused.output
        assert "was written by a newer recfs (step 9999_later); install that version or newer" in refused.stderr
    assert (private / "catalogue.db").read_bytes() == before
    done = run("restore-catalogue", copy, "--config", store)
    assert done.exit_code == 0, done.output
    listed = json.loads(run("ls-files", "-r", "--config", store, "--json").stdout)
    assert [each["state"] for each in listed if each["path"] == f"{REC}/video"] == ["committed"]
    assert "all counters are right" in run("quota", "check", "--config", store).stdout
