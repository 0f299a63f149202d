"""`recfs import` of objects and by rules: what it prints and asks for, its exit codes, and how it is interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recfs.errors import InvalidArgument
from tests.system.fake_daemon import FakeDaemon, run

TOLD = {
    "files": 0, "bytes": 0, "already": 0, "kept": [], "kept_files": 0, "objects": 0, "read_bytes": 0, "dry_run": False,
    "at": "", "took_s": 2.0, "ended": False, "interrupted": False, "failed": None,
}  # fmt: skip
URL = "s3://media/studio/"


def told(**changes: Any) -> dict[str, Any]:
    """What a daemon answers."""
    return TOLD | changes


@pytest.fixture
def importing(root: Path) -> FakeDaemon:
    """A daemon that is not yet running."""
    made = FakeDaemon(root)
    answering(made, told(ended=True, files=2, bytes=2048))
    return made


def answering(daemon: FakeDaemon, *answers: dict[str, Any]) -> None:
    """Have it tell that, one after another."""
    left = list(answers)
    daemon.answers |= {"import_begin": {"run": 7}, "import_wait": lambda params: left.pop(0)}


def test_all_became_files(importing: FakeDaemon, root: Path) -> None:
    answering(importing, told(files=1), told(ended=True, files=2, bytes=3 << 20, already=5))
    with importing as daemon:
        result = run("import", URL, "--root", root)
    assert (result.exit_code, result.output) == (
        0,
        "2 objects imported, 3 MiB, 5 were files already in 2s\n",
    )
    assert daemon.asked[0] == ("import_begin", {"url": URL, "download": False, "dry_run": False})
    assert {name for name, _ in daemon.asked[1:]} == {"import_wait"}


def test_what_was_left_is_named_with_exit_code_1(importing: FakeDaemon, root: Path) -> None:
    kept = [{"path": f"users/5/a\n{number}", "reason": "no checksum"} for number in range(30)]
    answering(importing, told(ended=True, files=2, kept=kept, kept_files=1030, read_bytes=1024))
    with importing:
        result = run("import", URL, "--download", "--root", root)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0] == "users/5/a\\n0: left: no checksum"
    assert lines[20:] == [
        "and 1,010 more",
        "2 objects imported, 0 B, 1 KiB downloaded for their checksums, 1,030 left in 2s",
    ]


def test_a_run_that_failed_says_so(importing: FakeDaemon, root: Path) -> None:
    answering(importing, told(ended=True, failed="S3 is away"))
    with importing:
        result = run("import", URL, "--dry-run", "--root", root)
    assert result.exit_code == 1
    assert "0 objects would" not in result.output
    assert "ended early: S3 is away; run it again" in result.output


def test_json_has_what_the_daemon_says(importing: FakeDaemon, root: Path) -> None:
    with importing:
        result = run("import", URL, "--json", "--root", root)
    assert json.loads(result.output) == told(ended=True, files=2, bytes=2048)


def test_an_interrupt_ends_the_run(importing: FakeDaemon, root: Path) -> None:
    def interrupted(params: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    importing.answers |= {"import_stop": told(ended=True, interrupted=True, files=9)}
    with importing as daemon, pytest.MonkeyPatch.context() as patch:
        patch.setattr("recfs.cli.migration.bucket._Teller.heard", _raising_once())
        result = run("import", URL, "--root", root)
    assert result.exit_code == 130
    assert ("import_stop", {"run": 7}) in daemon.asked
    assert "interrupted; the next run goes on from there" in result.output


def _raising_once() -> Any:
    calls = 0

    def heard(self: Any, answer: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        self.last = answer
        if calls == 1:
            raise KeyboardInterrupt

    return heard


def test_a_refusal_is_said(importing: FakeDaemon, root: Path) -> None:
    importing.answers["import_begin"] = InvalidArgument("s3://other is not below s3://media/")
    with importing:
        result = run("import", "s3://other", "--root", root)
    assert result.exit_code != 0
    assert "is not below" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        (URL, "--replace"),
        (URL, "--user-map", "1=2"),
        (URL, "--files-only"),
        ("/tmp", "--download"),
        ("/tmp", "--dry-run"),
        ("/tmp", "--rules", "x", "--replace"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(args: tuple[str, ...], root: Path) -> None:
    assert run("import", *args, "--root", root).exit_code == 2


def test_rules_write_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    (tree / "in").mkdir(parents=True)
    (tree / "in/a.mp4").write_bytes(b"12345")
    (tree / "other").write_bytes(b"1")
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nfrom = "in/{name}"\nto = "users/1/recordings/1/{name}"\n')
    monkeypatch.chdir(tmp_path)
    result = run("import", "tree", "--rules", rules)
    assert result.exit_code == 1, "one file is unmatched"
    assert "need a person: 1 file" in result.output
    assert "recfs migrate run" in result.output
    text = (tmp_path / "import.plan").read_text()
    assert "copy\t5\tusers/1/recordings/1/a.mp4\tin/a.mp4\trule 1\n" in text
    assert "unmatched\t1\t-\tother\tno rule takes it\n" in text
    result = run("import", "tree", "--rules", rules, "--output", "tree/in/plan")
    assert result.exit_code == 2
    (tmp_path / "tree/other").unlink()
    result = run("import", "tree", "--rules", rules, "--json", "--output", "second.plan")
    assert (result.exit_code, json.loads(result.output)["clean"]) == (0, True)
