"""`recfs token`: what it prints and keeps, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from recfs.cli.common.exits import ExitCode
from recfs.web.who.tokens import Role, Tokens
from tests.system.fake_daemon import run


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    return folder


def token(own: Path, *arguments: str, code: int = 0) -> str:
    result = run("token", *arguments, "--directory", str(own))
    assert result.exit_code == code, result.output
    return result.stdout


def test_a_token_is_printed_once_by_itself_and_is_good(own: Path) -> None:
    result = run("token", "add", "--role", "user", "--user", "5", "--user", "7", "--directory", str(own))
    assert result.exit_code == 0
    printed = result.stdout.splitlines()
    assert len(printed) == 1, "fit for $(…)"
    assert "role user, of user 5, 7" in result.stderr
    grant = Tokens(own / "tokens.json").of_token(printed[0])
    assert grant is not None
    assert (grant.role, grant.users, grant.expires_ns) == (Role.USER, frozenset({"5", "7"}), None)
    assert printed[0].split("_", 2)[2] not in token(own, "list", "--all")
    assert stat.S_IMODE((own / "tokens.json").stat().st_mode) == 0o600


def test_tokens_are_listed_and_revoked(own: Path) -> None:
    made = json.loads(token(own, "add", "--role", "admin", "--name", "the\N{BELL SYMBOL} page", "--json"))
    person = json.loads(token(own, "add", "--role", "readonly", "--user", "5", "--subject", "alice", "--json"))
    brief = json.loads(token(own, "add", "--role", "readonly", "--user", "5", "--expires", "30d", "--json"))
    assert (made["token"].startswith("recfs_"), person["token"], person["subject"]) == (True, None, "alice")
    assert brief["expires_ns"] - brief["created_ns"] == pytest.approx(30 * 86_400e9, abs=60e9)
    listed = token(own, "list")
    assert all(each["id"] in listed for each in (made, person, brief))
    assert "alice" in listed
    assert "for ever" in listed
    assert "is revoked, with its sessions and links" in token(own, "revoke", made["id"])
    assert made["id"] not in token(own, "list")
    (revoked, *_) = json.loads(token(own, "list", "--all", "--json"))
    assert (revoked["id"], revoked["good"], "sha256" in revoked) == (made["id"], False, False)
    assert Tokens(own / "tokens.json").of_token(made["token"]) is None
    token(own, "revoke", "0" * 12, code=ExitCode.REFUSED)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["add"], ExitCode.USAGE),
        (["add", "--role", "root"], ExitCode.USAGE),
        (["add", "--role", "user"], ExitCode.REFUSED),
        (["add", "--role", "user", "--user", "../6"], ExitCode.USAGE),
        (["add", "--role", "admin", "--user", "5"], ExitCode.REFUSED),
        (["add", "--role", "admin", "--expires", "0s"], ExitCode.USAGE),
        (["add", "--role", "admin", "--name", "a\nb"], ExitCode.REFUSED),
        (["revoke"], ExitCode.USAGE),
        (["revoke", "../tokens"], ExitCode.REFUSED),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_kept(own: Path, arguments: list[str], code: ExitCode) -> None:
    token(own, *arguments, code=code)
    assert os.listdir(own) == []


@pytest.mark.parametrize(("number", "word"), [(errno.ENOSPC, "No space left"), (errno.EIO, "Input/output error")])
def test_what_the_disk_says_is_told(own: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    assert run("token", "add", "--role", "admin", "--directory", str(own)).exit_code == 0
    monkeypatch.setattr(os, "fsync", full)
    for arguments in (
        ("add", "--role", "admin"),
        ("revoke", str(next(iter(Tokens(own / "tokens.json").book().by_id)))),
    ):
        result = run("token", *arguments, "--directory", str(own))
        assert (result.exit_code, word in result.output) == (ExitCode.REFUSED, True), result.output


def test_a_file_that_others_may_read_is_named_with_the_remedy(own: Path) -> None:
    token(own, "add", "--role", "admin")
    (own / "tokens.json").chmod(0o644)
    for arguments in (["list"], ["add", "--role", "admin"], ["revoke", "0" * 12]):
        result = run("token", *arguments, "--directory", str(own))
        assert result.exit_code == ExitCode.CONFIG
        assert "chmod 0600" in result.stderr


def test_the_directory_is_that_of_the_configuration(tmp_path: Path, own: Path) -> None:
    config = tmp_path / "recfs.conf"
    config.write_text(f'root = "{tmp_path}/store"\n[serve]\ndirectory = "{own}"\n')
    result = run("token", "add", "--role", "admin", "--config", str(config))
    assert result.exit_code == 0, result.output
    assert Tokens(own / "tokens.json").of_token(result.stdout.strip()) is not None
