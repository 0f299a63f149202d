"""A whole migration of a made-up old tree into a mount: planned, run, killed twice, gone on with, verified, cleaned up.

What each file is to become is known from the tree's maker (scripts/old_tree_lib), and every one is accounted for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recfs.core.migration.plan import LEFT, MOVED, Action, Plan
from recfs.migration import plans
from scripts.old_tree_lib.accounts import plan_differences, store_differences
from scripts.old_tree_lib.stories import ODD
from scripts.old_tree_lib.tree import Wishes, make
from scripts.old_tree_lib.truth import Truth

from .clients import recfs, wait_until, xattr
from .harness import Mount, sizes_below

pytestmark = [
    pytest.mark.modes("auto"),
    pytest.mark.needs("ffmpeg", "rsync"),
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # files that were cut off are told as broken, wherever they come from
    pytest.mark.may_log("is broken"),
]

REPOSITORY = Path(__file__).parents[2]
SLOWLY_KIB_S = 150
"""Half a minute for the tree: a run is in the middle for as long as it takes to look and to kill it."""


@dataclass
class Migration:
    """The old tree, what is known of it, and the plan."""

    old: Path
    truth: Truth
    plan_file: Path
    store: Mount

    @property
    def plan(self) -> Plan:
        return plans.load(self.plan_file)

    def migrate(self, command: str, *options: str | Path, code: int = 1) -> dict[str, Any]:
        """Run a command on the plan and return its report; it is not clean as long as files need a person."""
        done = recfs("migrate", command, self.plan_file, "--root", self.store.root, "--json", *options, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def brought(self) -> int:
        """How many files are in the store's tree."""
        return sum(1 for top in ("users", "shared") for _ in sizes_below(self.store.root / top))

    def steps(self) -> dict[str, int]:
        """Files by how far a run has come with them."""
        uri = f"file:{plans.state_of(self.plan_file)}?mode=ro"
        connection = sqlite3.connect(uri, uri=True)
        try:
            return dict(connection.execute("SELECT step, count(*) FROM files GROUP BY step"))
        finally:
            connection.close()


@pytest.fixture
def migration(store: Mount) -> Migration:
    """A mounted store and a planned tree: all odd recordings, of three users."""
    old = store.base / "old" / "media"
    truth = make(old, store.base / "outside", Wishes(3, len(ODD) + 12, seed=3, large=1, large_mb=1, picture_width=16))
    store.start()
    plan = store.base / "media.plan"
    done = recfs("migrate", "plan", old, "--db", old / "data.db", "--output", plan, check=False)
    assert done.returncode == 1, done.stderr
    return Migration(old, truth, plan, store)


def descendants(pid: int) -> Iterator[int]:
    """A process and all that it started, by proc(5)."""
    yield pid
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        for task in Path("/proc", str(pid), "task").iterdir():
            for child in (task / "children").read_text().split():
                yield from descendants(int(child))


def killed_run(migration: Migration, files: int) -> None:
    """Begin a slow run, and kill it with its whole process group, and its rsyncs with theirs, once *files* came."""
    command: list[str | Path] = [sys.executable, "-m", "recfs", "migrate", "run", migration.plan_file]
    command += ["--root", migration.store.root]
    run = subprocess.Popen(
        [*command, "--bwlimit", str(SLOWLY_KIB_S), "--jobs", "2"],
        cwd=REPOSITORY, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_until(lambda: run.poll() is not None or migration.brought() >= files, f"{files} files came")
        assert run.poll() is None, run.stderr.read() if run.stderr is not None else ""
        groups = set()
        for pid in descendants(run.pid):
            with contextlib.suppress(ProcessLookupError):
                groups.add(os.getpgid(pid))
        assert os.getpgid(0) not in groups
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        if run.stderr is not None:
            run.stderr.close()
    for group in groups - {run.pid}:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:  # it ended by itself, for nobody listened to it
            continue


def test_every_file_is_accounted_for_after_deaths(migration: Migration) -> None:
    truth, plan, store = migration.truth, migration.plan, migration.store
    assert plan_differences(truth, plan) == []
    wanted = sum(1 for entry in plan.entries if entry.action in MOVED)
    before = dict(sizes_below(migration.old))

    killed_run(migration, wanted // 4)
    killed_run(migration, wanted // 2)
    assert migration.brought() < wanted
    assert migration.steps().get("begun", 0) > 0, "it was in the middle of something"
    assert migration.migrate("verify")["clean"] is False

    ran = migration.migrate("run")
    assert ran["problems"] == ran["stopped"] == []
    page = store.base / "report.html"
    verified = migration.migrate("verify", "--html", page)
    assert verified["problems"] == []
    assert verified["steps"].keys() == {"verified"}
    assert store_differences(truth, plan, store.path) == []
    assert dict(sizes_below(migration.old)) == before, "nothing of the old tree is changed"
    assert_reported(migration, verified, page.read_text())
    assert_charged(migration)
    for recording, expires in truth.expiries.items():
        assert xattr(store.path / recording, "expires_at") == expires
    for recording in truth.expired:
        assert not (store.path / recording).exists()

    migration.migrate("verify", "--update-db")
    assert_found_by_the_platform(migration)
    books = set(migration.old.glob("data.db*"))
    cleaned = migration.migrate("cleanup", "--yes")
    assert cleaned["deleted_files"] == wanted + verified["actions"]["duplicate"]["files"]
    stays = {file.source for file in truth.files if file.becomes in LEFT or file.becomes is Action.SKIP}
    left = {os.fsencode(path.relative_to(migration.old)) for path, _ in sizes_below(migration.old)}
    folders = {file.source for file in truth.files if file.kind == "link to a directory"}
    assert left == (stays - folders) | {os.fsencode(path.name) for path in books}
    assert all(os.path.islink(migration.old / os.fsdecode(folder)) for folder in folders)
    assert store_differences(truth, plan, store.path) == []
    store.remount()
    assert store_differences(truth, plan, store.path) == []
    assert_charged(migration)


def assert_found_by_the_platform(migration: Migration) -> None:
    """The database has the new path of every file of a recording, and it is there; the copy of it has the old ones."""
    wanted = {
        os.fsdecode(entry.target)
        for entry in migration.plan.entries
        if entry.action is Action.COPY and b"/recordings/" in entry.target and b"/transcription/" not in entry.target
    }
    columns = "local_video_path, processed_video_path, processed_audio_path, transcription_dir"
    told: dict[str, set[str]] = {}
    (copy,) = migration.old.glob("data.db.before-*")
    for database in (migration.old / "data.db", copy):
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        try:
            rows = connection.execute(f"SELECT {columns} FROM recordings").fetchall()
        finally:
            connection.close()
        paths = {path for row in rows for path in row if path is not None}
        told[database.name] = {path for path in paths if path.startswith("users/")}
    assert told[copy.name] == set()
    assert wanted <= told["data.db"]
    assert all((migration.store.path / path).exists() for path in told["data.db"])
    folders = {path for path in told["data.db"] if path.endswith("/transcription")}
    assert told["data.db"] == wanted | folders
    assert folders


def assert_reported(migration: Migration, report: dict[str, Any], page: str) -> None:
    """The report has the numbers of the plan, which are those of the truth, and the page the same."""
    planned = {
        str(action): {"files": files, "bytes": size} for action, (files, size) in migration.plan.counts().items()
    }
    assert report["actions"] == planned
    told = {str(action): (files, size) for action, (files, size) in migration.truth.counts().items()}
    books = (migration.old / "data.db").stat().st_size
    told["skip"] = (told["skip"][0] + 1, told["skip"][1] + books)
    assert {action: (each["files"], each["bytes"]) for action, each in planned.items()} == told
    moved_files, moved_bytes = (sum(told[action][index] for action in MOVED) for index in (0, 1))
    assert report["after"] == report["steps"]["verified"] == {"files": moved_files, "bytes": moved_bytes}
    assert report["duplicates_saved"] == planned["duplicate"]
    assert report["left_files"] == sum(told[action][0] for action in LEFT) == len(report["left"])
    assert report["before"]["files"] == sum(files for files, _ in told.values())
    rows = dict(re.findall(r'<tr><td>plan: (\w+)</td><td class="n">([\d,]+)</td>', page))
    assert {action: int(files.replace(",", "")) for action, files in rows.items()} == {
        action: files for action, (files, _) in told.items()
    }
    assert f'<tr><td>at its target</td><td class="n">{moved_files}</td>' in page


def assert_charged(migration: Migration) -> None:
    """Each user is charged with what was brought, to the byte, and the counters agree with the rows."""
    store = migration.store
    recfs("quota", "check", "--root", store.root)
    sizes = {file.source: file.size for file in migration.truth.files}
    charged: dict[str, tuple[int, int]] = {}
    for entry in migration.plan.entries:
        if entry.action in MOVED and entry.target.startswith(b"users/"):
            user = entry.target.split(b"/")[1].decode()
            size, files = charged.get(user, (0, 0))
            charged[user] = (size + sizes[entry.source], files + 1)
    assert len(charged) == 3
    for user, (size, files) in charged.items():
        found = store.quota(user)
        assert (found["used_bytes"], found["used_files"]) == (size, files)


def test_a_live_tree_brings_what_changed(migration: Migration) -> None:
    """What the platform goes on writing comes with the next run; a plan that names it is made anew."""
    migration.migrate("run")
    migration.migrate("verify")
    source = next(
        file for file in migration.truth.files if file.kind == "plain" and file.target.endswith(b"/master.json")
    )
    path = migration.old / os.fsdecode(source.source)
    path.write_bytes(path.read_bytes() + b"\n")
    told = migration.migrate("verify")
    assert [each["source"] for each in told["problems"]] == [os.fsdecode(source.source)]
    refused = migration.migrate("cleanup", "--yes")
    assert path.exists()
    assert refused["deleted_files"] > 0
    assert migration.migrate("run")["problems"] == []
    verified = migration.migrate("verify")
    assert verified["problems"] == []
    assert (migration.store.path / os.fsdecode(source.target)).read_bytes() == path.read_bytes()
    assert migration.migrate("cleanup", "--yes")["deleted_files"] == 1
    assert not path.exists()


def test_the_script_migrates_and_can_be_asked_first(migration: Migration) -> None:
    script: list[str | Path] = [REPOSITORY / "scripts/migrate_to_new_structure.py", migration.old]
    script += ["--db", migration.old / "data.db"]
    script += ["--root", migration.store.root, "--plan", migration.store.base / "other.plan"]
    asked = subprocess.run([*script, "--dry-run"], capture_output=True, text=True, check=False)
    assert asked.returncode == 1, asked.stderr
    assert migration.brought() == 0
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert (
        store_differences(migration.truth, plans.load(migration.store.base / "other.plan"), migration.store.path) == []
    )
