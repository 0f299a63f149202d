"""Tokens in their file: what it says, who may read it, and several who change it at once."""

from __future__ import annotations

import hmac
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from recfs.errors import ConfigError, Exists, InvalidArgument, NotAllowed, NotFound
from recfs.web.who import private, tokens
from recfs.web.who.private import PrivateFile
from recfs.web.who.tokens import Role, Tokens

ROOT = Path(__file__).parents[3]


@pytest.fixture
def book(scratch: Path) -> Tokens:
    return Tokens(scratch / "tokens.json")


def test_a_token_is_good_for_what_it_was_granted_and_is_kept_hashed(book: Tokens) -> None:
    grant, token = book.add(Role.USER, ["5", "7"], "the encoder")
    assert token is not None
    prefix, grant_id, secret = token.split("_", 2)
    assert (prefix, grant_id) == ("recfs", grant.id)
    assert len(secret) == 43, "256 bits in base64"
    found = book.of_token(token)
    assert found == grant
    assert (found.role, found.users, found.name) == (Role.USER, frozenset({"5", "7"}), "the encoder")
    assert secret not in book.path.read_text()
    assert book.path.stat().st_mode & 0o7777 == 0o600
    assert "sha256" not in grant.as_json(), "nobody is told the hash"


def test_no_other_text_is_a_token(book: Tokens) -> None:
    _, token = book.add(Role.ADMIN, [])
    other, second = book.add(Role.ADMIN, [])
    assert token is not None
    assert second is not None
    secret = token.split("_", 2)[2]
    wrong = [
        "", "recfs", "recfs__", token[:-1], token + "a", token.upper(), token.replace("recfs_", "recfs-"), f" {token}",
        f"{token}\n", f"{token}\0", f"recfs_{other.id}_{secret}", f"recfs_{'0' * 12}_{secret}",
        token.replace("r", "ｒ", 1), token[:-1] + "é", token[:-1] + "٣", "recfs_" + "a" * 100_000,
    ]  # fmt: skip
    assert [each for each in wrong if book.of_token(each) is not None] == []
    assert book.of_token(token) is not None


def test_hashes_are_compared_in_a_time_that_tells_nothing_also_for_an_id_that_there_is_not(
    book: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant, token = book.add(Role.ADMIN, [])
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    secret = "x" * 43
    assert book.of_token(f"recfs_{grant.id}_{secret}") is None
    assert book.of_token(f"recfs_{'0' * 12}_{secret}") is None
    assert token is not None
    assert book.of_token(token) is not None
    assert [one for one, _ in compared] == [tokens.hash_of(secret)] * 2 + [grant.sha256]
    assert compared[0][1] == grant.sha256
    assert len(compared[1][1]) == 64


def test_a_revoked_token_is_dead_at_once_for_who_has_read_the_file_before(book: Tokens) -> None:
    gateway = Tokens(book.path)
    grant, token = book.add(Role.USER, ["5"])
    assert token is not None
    assert gateway.of_token(token) is not None
    book.revoke(grant.id)
    assert gateway.of_token(token) is None
    assert gateway.of_id(grant.id) is None
    told = gateway.book().by_id[grant.id]
    assert told.revoked_ns is not None, "who it was is still known"
    before = told.revoked_ns
    assert book.revoke(grant.id).revoked_ns == before, "once"
    with pytest.raises(NotFound):
        book.revoke("0" * 12)


def test_a_token_expires(scratch: Path) -> None:
    now = [10**18]
    book = Tokens(scratch / "t.json", lambda: now[0])
    _, token = book.add(Role.ADMIN, [], expires_ns=10**18 + 10)
    assert token is not None
    now[0] += 9
    assert book.of_token(token) is not None
    now[0] += 1
    assert book.of_token(token) is None
    with pytest.raises(InvalidArgument, match="has expired already"):
        book.add(Role.ADMIN, [], expires_ns=10**18)


@pytest.mark.parametrize(
    ("role", "users", "name", "why"),
    [
        (Role.USER, [], "", "name the users"),
        (Role.READONLY, [], "", "name the users"),
        (Role.ADMIN, ["5"], "", "leave them out"),
        (Role.USER, ["../5"], "", "an id is"),
        (Role.USER, ["05"], "", "an id is"),
        (Role.USER, ["5\udc80"], "", "an id is"),
        (Role.USER, ["5"], "a\nb", "can be shown"),
        (Role.USER, ["5"], "a" * 101, "at most 100"),
        (Role.USER, [str(each) for each in range(1001)], "", "at most 1,000"),
    ],
)
def test_what_cannot_be_granted(book: Tokens, role: Role, users: list[str], name: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        book.add(role, users, name)
    assert not book.path.exists()


def test_a_subject_has_one_grant_that_is_good_and_no_token(book: Tokens) -> None:
    grant, token = book.add(Role.USER, ["5"], subject="alice@example.org")
    assert token is None
    found = book.of_subject("alice@example.org")
    assert found is not None
    assert found.id == grant.id
    assert book.of_token(f"recfs_{grant.id}_{'x' * 43}") is None
    with pytest.raises(Exists):
        book.add(Role.ADMIN, [], subject="alice@example.org")
    book.revoke(grant.id)
    assert book.of_subject("alice@example.org") is None
    again, _ = book.add(Role.READONLY, ["6"], subject="alice@example.org")
    found = book.of_subject("alice@example.org")
    assert found is not None
    assert found.id == again.id
    with pytest.raises(InvalidArgument, match="not empty"):
        book.add(Role.ADMIN, [], subject=" ")


def test_a_file_that_is_not_there_lets_nobody_in_and_signs_nothing(book: Tokens) -> None:
    assert book.of_token(f"recfs_{'0' * 12}_{'x' * 43}") is None
    with pytest.raises(NotFound, match="recfs token add"):
        book.key()
    _, token = book.add(Role.ADMIN, [])
    assert token is not None
    key = book.key()
    assert len(key) == 32
    book.add(Role.ADMIN, [])
    assert book.key() == key, "links stay good when another token is made"
    book.path.unlink()
    assert book.of_token(token) is None, "what was known before does not hold any more"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_file_that_others_get_at_lets_nobody_in(book: Tokens, mode: int) -> None:
    _, token = book.add(Role.ADMIN, [])
    assert token is not None
    assert book.of_token(token) is not None
    book.path.chmod(mode)
    for asked in (book, Tokens(book.path)):
        with pytest.raises(ConfigError, match=f"mode {mode:04o}: others may read it; `chmod 0600"):
            asked.of_token(token)
    with pytest.raises(ConfigError):
        book.add(Role.ADMIN, [])
    book.path.chmod(0o600)
    assert book.of_token(token) is not None


def test_a_file_of_another_user_lets_nobody_in(book: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = book.add(Role.ADMIN, [])
    assert token is not None
    os.chown(book.path, 4242, -1)
    with pytest.raises(ConfigError, match="belongs to uid 4242"):
        book.of_token(token)
    os.chown(book.path, 0, -1)
    os.chown(book.path.parent, 4242, -1)
    try:
        monkeypatch.setattr(os, "geteuid", lambda: 77)
        with pytest.raises(ConfigError, match=r"could replace tokens\.json"):
            Tokens(book.path).of_token(token)
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
        assert Tokens(book.path).of_token(token) is not None, "root's file, in the gateway's own directory"
    finally:
        os.chown(book.path.parent, 0, -1)


def test_a_directory_that_others_write_to_lets_nobody_in(book: Tokens) -> None:
    _, token = book.add(Role.ADMIN, [])
    assert token is not None
    book.path.parent.chmod(0o770)
    with pytest.raises(ConfigError, match="can be written by others"):
        Tokens(book.path).of_token(token)


def test_what_is_no_plain_file_lets_nobody_in(book: Tokens, scratch: Path) -> None:
    _, token = book.add(Role.ADMIN, [])
    assert token is not None
    other = scratch / "elsewhere"
    book.path.rename(other)
    book.path.symlink_to(other)
    with pytest.raises(ConfigError, match="a link is not followed"):
        book.of_token(token)
    book.path.unlink()
    os.mkfifo(book.path, 0o600)
    with pytest.raises(ConfigError, match="no plain file"):
        book.of_token(token)
    book.path.unlink()
    book.path.mkdir()
    with pytest.raises(ConfigError, match="no plain file"):
        book.of_token(token)


@pytest.mark.parametrize(
    "damage",
    [
        "", "[]", "{", "null", '{"version": 2}', '{"version": 1, "tokens": []}',
        '{"version": 1, "key": "zz", "tokens": []}', '{"version": 1, "key": "", "tokens": [{}]}',
        '{"version": 1, "key": "", "tokens": {"a": 1}}', "[" * 100_000, "9" * 5000,
    ],
)  # fmt: skip
def test_a_damaged_file_lets_nobody_in_and_is_never_overwritten(book: Tokens, damage: str) -> None:
    _, token = book.add(Role.ADMIN, [])
    assert token is not None
    book.path.write_text(damage)
    with pytest.raises(ConfigError, match="is damaged"):
        book.of_token(token)
    with pytest.raises(ConfigError, match="is damaged"):
        book.add(Role.ADMIN, [])
    assert book.path.read_text() == damage


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("role", "root"), ("users", ["../6"]), ("users", []), ("created_ns", "now"), ("expires_ns", "never"),
        ("revoked_ns", "no"), ("sha256", None), ("sha256", "x" * 64), ("id", "x"), ("name", 5), ("subject", "both"),
    ],
)  # fmt: skip
def test_a_grant_that_nobody_here_has_written_spoils_the_file(book: Tokens, key: str, value: object) -> None:
    book.add(Role.USER, ["5"])
    told = json.loads(book.path.read_text())
    told["tokens"][0][key] = value
    book.path.write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="is damaged"):
        Tokens(book.path).book()


def test_a_change_within_the_same_tick_and_of_the_same_size_is_seen(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scratch / "f.json"
    file: PrivateFile[dict[str, object]] = PrivateFile(path, dict)
    path.touch(mode=0o600)
    path.write_text('{"a": 1}')
    assert file.value() == {"a": 1}
    info = path.stat()
    with open(path, "r+") as opened:
        opened.write('{"a": 2}')
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    stamp = private._stamp(info)
    monkeypatch.setattr(private, "_stamp", lambda _: stamp)  # as on a file system whose clock stands still
    assert file.value() == {"a": 2}


def test_many_threads_and_processes_change_the_file_and_none_loses_what_another_did(scratch: Path) -> None:
    path = scratch / "tokens.json"
    gateway = Tokens(path)
    program = (
        "import sys; from pathlib import Path; from recfs.web.who.tokens import *\n"
        "book = Tokens(Path(sys.argv[1]))\n"
        "for each in range(10): book.add(Role.USER, ['5'], sys.argv[2])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(path), f"process {each}"], env=environment)
        for each in range(2)
    ]
    made: list[str] = []

    def add(name: str) -> None:
        for _ in range(10):
            _, token = Tokens(path).add(Role.USER, ["6"], name)
            assert token is not None
            assert gateway.of_token(token) is not None, "a gateway that runs knows it at once"
            made.append(token)

    threads = [threading.Thread(target=add, args=(f"thread {each}",)) for each in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in started] == [0, 0]
    names = sorted(each.name for each in gateway.book().by_id.values())
    assert names == sorted(["process 0", "process 1", "thread 0", "thread 1"] * 10)
    assert all(gateway.of_token(each) is not None for each in made)
    assert os.listdir(scratch) == ["tokens.json"]


def test_a_change_that_fails_leaves_the_file_as_it_was(book: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = book.add(Role.ADMIN, [])
    before = book.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recfs.client.writing.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        book.add(Role.ADMIN, [])
    assert book.path.read_bytes() == before
    assert os.listdir(book.path.parent) == ["tokens.json"]
    assert token is not None
    assert book.of_token(token) is not None


def test_root_gives_a_new_file_to_whom_the_directory_belongs(book: Tokens) -> None:
    os.chown(book.path.parent, 4242, 4243)
    try:
        grant, _ = book.add(Role.ADMIN, [])
        assert (book.path.stat().st_uid, book.path.stat().st_gid) == (4242, 4243)
        book.revoke(grant.id)
        assert (book.path.stat().st_uid, book.path.stat().st_gid, book.path.stat().st_mode & 0o777) == (
            4242,
            4243,
            0o600,
        )
    finally:
        os.chown(book.path.parent, 0, 0)


def test_a_directory_that_is_missing_or_closed_is_named(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="make it, mode 0700"):
        Tokens(scratch / "none" / "tokens.json").add(Role.ADMIN, [])
    real = os.open

    def closed(path: object, *rest: object, **more: object) -> int:
        if path == scratch:
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", closed)
        with pytest.raises(NotAllowed, match="as its owner or root"):
            Tokens(scratch / "tokens.json").add(Role.ADMIN, [])


def test_looking_whether_the_file_changed_is_one_stat(book: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = book.add(Role.ADMIN, [])
    assert token is not None
    old = book.path.stat().st_ctime_ns

    def opened(*_: object, **__: object) -> int:
        raise AssertionError("it was read again")

    with monkeypatch.context() as patch:
        patch.setattr("recfs.web.who.private.time.time_ns", lambda: old + 10**9)  # it has not just been written
        assert book.of_token(token) is not None
        patch.setattr(os, "open", opened)
        began = time.process_time()
        for _ in range(1000):
            assert book.of_token(token) is not None
        assert time.process_time() - began < 1.0
