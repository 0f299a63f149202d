"""The commands that run a plan of a migration, as people meet them: refusals, exit codes, reports."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recfs.core.migration.steps import Brought, Seen, Step
from recfs.migration.run.state import opened
from tests.system.fake_daemon import run

if TYPE_CHECKING:
    from click.testing import Result

FILM = "users/4/recordings/7/source.mp4"


@dataclass
class Store:
    """A store without a daemon, an old tree with a file and a duplicate of it, and the plan of it."""

    base: Path

    def __post_init__(self) -> None:
        self.root, self.old, self.plan = self.base / "root", self.base / "media", self.base / "plan"
        self.old.mkdir()
        for name in ("a.mp4", "b.mp4"):
            (self.old / name).write_bytes(b"film")
        self.write()

    def write(self, *more: str) -> None:
        """The plan."""
        lines = ["# recfs migration plan 1", f"#: old = {self.old}", *more]
        lines += [f"copy\t4\t{FILM}\ta.mp4\tr", f"duplicate\t4\t{FILM}\tb.mp4\tr"]
        self.plan.write_text("\n".join(lines) + "\n")

    def call(self, *args: object, **options: Any) -> Result:
        """One command on it."""
        return run("migrate", args[0], self.plan, "--root", self.root, *args[1:], **options)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.mark.parametrize("command", ["run", "verify", "cleanup", "rollback"])
def test_without_a_mount_it_is_said_what_to_do(store: Store, command: str) -> None:
    found = store.call(command)
    assert found.exit_code == 5
    assert "--home" in found.output
    assert not list(store.base.glob("plan.state*"))


@pytest.mark.parametrize("command", ["run", "verify", "cleanup", "rollback", "report"])
def test_a_plan_that_is_none_is_refused(store: Store, command: str) -> None:
    store.plan.write_text("something else\n")
    args = () if command == "report" else ("--root", str(store.root))
    found = run("migrate", command, store.plan, *args)
    assert (found.exit_code, "line 1" in found.output) == (7, True)
    store.plan.unlink()
    assert run("migrate", command, store.plan, *args).exit_code == 7


def test_options_that_contradict_each_other_are_refused(store: Store) -> None:
    for options in (["--move"], ["--home", "--move", "--replace"], ["--home", "--mount", str(store.base)]):
        assert store.call("run", *options).exit_code == 2
    assert store.call("run", "--bwlimit", "fast").exit_code == 7
    for command in ("verify", "cleanup"):
        assert "mount the store" in store.call(command, "--home").output


def test_no_store_and_no_rsync_are_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    found = store.call("run", "--home")
    assert (found.exit_code, "no recfs store" in found.output) == (4, True)
    monkeypatch.setenv("PATH", "/nonexistent")
    found = store.call("run", "--home")
    assert (found.exit_code, "apt install rsync" in found.output) == (7, True)


def test_a_plan_without_its_old_tree_is_refused(store: Store) -> None:
    store.plan.write_text(store.plan.read_text().replace("#: old", "# old"))
    assert "#: old" in store.call("run", "--home").output


def test_a_report_tells_where_a_migration_stands_and_draws_it(store: Store) -> None:
    page = store.base / "page.html"
    found = run("--json", "migrate", "report", store.plan, "--html", page)
    told = json.loads(found.stdout)
    assert (found.exit_code, told["clean"], told["before"]) == (1, False, {"files": 2, "bytes": 8})
    said = run("migrate", "report", store.plan).stdout
    assert ("all is clean" in said, "still to be brought: 1 file, 4 B" in said) == (False, True)
    assert told["after"] == {"files": 0, "bytes": 0}
    assert page.read_text().startswith("<!DOCTYPE html>")
    with opened(store.plan) as state:
        row = state.row(b"a.mp4", os.fsencode(FILM))
        row.step, row.brought, row.seen = Step.COPIED, Brought.NEW, Seen(4, 1, 2, 3)
        row.problem = "it \x1b[31mblinks"
        state.put([row])
        found = run("migrate", "report", store.plan)  # while a run goes on
    assert found.exit_code == 1
    assert "a.mp4: it" in found.stdout
    assert "\x1b" not in found.stdout
    assert run("migrate", "report", store.plan, "--html", store.base).exit_code == 7
    with opened(store.plan) as state:
        row = state.row(b"a.mp4", os.fsencode(FILM))
        row.problem = ""
        state.put([row])
    found = run("migrate", "report", store.plan)
    assert (found.exit_code, "all is clean" in found.stdout) == (0, True)
