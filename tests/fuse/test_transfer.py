"""Out of recfs and into it: exports, imports and moves between mounts."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recfs.migration.transfer.beneath import opened
from recfs.migration.transfer.bringing import Bringing
from recfs.migration.transfer.items import Outcome, Why
from recfs.migration.transfer.store import MountPlace
from recfs.migration.transfer.trees import TreeSource

from .clients import errno_as_user, need_root, pattern, recfs, run, snapshot, state, wait_until
from .harness import BASE_CONFIG, Mount, remove_tree
from .s3 import S3, evict, s3

__all__ = ["s3"]

pytestmark = [pytest.mark.modeless]

UID = 41005
RECFS = (sys.executable, "-m", "recfs")
ROUTES = """
[[route]]
pattern = "users/**/*.old"
to = "s3"
storage_class = "GLACIER"

[[route]]
pattern = "users/**"
to = "s3"
"""


@pytest.fixture
def other(workspace: Path, passthrough: str) -> Iterator[Mount]:
    """Another store that runs."""
    there = Mount(workspace / "another")
    try:
        yield there.start(config=BASE_CONFIG)
        there.check()
        there.drop_descriptors()
        there.assert_consistent()
        there.umount()
        there.check()
    finally:
        there.close()
        remove_tree(there.base)


def told(*argv: str | Path, code: int = 0) -> Any:
    """What a command printed with --json; it ended with *code*."""
    done = recfs("--json", *argv, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def reasons(outcome: dict[str, Any]) -> dict[str, str]:
    return {each["path"].rsplit("/", 1)[1]: each["why"] for each in outcome["problems"]}


def checked(to: Path) -> None:
    run("sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS", cwd=to)


def populated(store: Mount, user: int = 4) -> Path:
    """A user with a bit of everything."""
    folder = store.recording(user, 7)
    (folder / "transcription" / "empty").mkdir(parents=True)
    (folder / "source.mp4").write_bytes(pattern(3 << 20, seed=1))
    (folder / "transcription" / "master.json").write_text("{}")
    (folder / os.fsdecode("Перевод\n\\".encode() + b"\xff")).write_bytes(b"odd")
    (folder / "link").symlink_to("source.mp4")
    os.setxattr(folder / "source.mp4", "user.title", b"a title")
    (folder / "source.mp4").chmod(0o640)
    os.utime(folder / "source.mp4", ns=(1_500_000_000_123456789, 1_500_000_000_123456789))
    second = store.recording(user, 8)
    (second / "source.mp4").write_bytes(b"second")
    recfs("recording", "keep", folder, "--note", "for the archive")
    recfs("recording", "set-expiry", second, "2031-01-01")
    recfs("quota", "set", str(user), "--max-bytes", "1GB", "--max-monthly-uploads", "2", "--root", store.root)
    return folder


def test_files_in_s3_are_fetched_and_what_cannot_be_had_is_named(s3: S3, store: Mount, outside: Path) -> None:
    store.expect_log("is corrupt|restore")
    store.start(config=s3.config(more=ROUTES))
    rec = store.recording(4, 7)
    contents = {name: pattern(size, seed=size) for name, size in (("small", 1000), ("large", 9 << 20), ("here", 5))}
    for name, content in contents.items():
        (rec / name).write_bytes(content)
    (rec / "gone.old").write_bytes(b"archived")
    store.drain()
    evict(store, rec / "small", rec / "large", rec / "gone.old")
    with (rec / "written").open("wb") as writer:
        writer.write(b"half")
        writer.flush()
        outcome = told("export", "4", outside / "out", "--root", store.root, "--evict-again", code=1)
    assert reasons(outcome) == {"written": "writing", "gone.old": "away"}
    assert (outcome["files"], outcome["fetched"]) == (3, 2)
    copied = outside / "out/users/4/recordings/7"
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == contents
    checked(outside / "out")
    assert state(rec / "large") == state(rec / "small") == "evicted", "as before"
    assert state(rec / "here") == "stored"
    again = told("export", rec, outside / "out", code=1)
    assert reasons(again) == {"gone.old": "away"}, "archived objects are named, and what is written now is whole"
    assert (again["files"], again["equal"]) == (1, 3)
    evict(store, rec / "small")
    store.umount()
    alone = told("export", "4", outside / "alone", "--config", store.base / "recfs.conf", code=1)
    assert reasons(alone)["small"] == reasons(alone)["gone.old"] == "away"
    assert (outside / "alone/users/4/recordings/7/here").read_bytes() == contents["here"]
    checked(outside / "alone")
    store.remount()


def test_corrupt_and_cut_off_files_and_what_is_shown_of_shared_stay_out(store: Mount, outside: Path) -> None:
    store.expect_log(r"is corrupt|incomplete")
    store.start(config=f"{BASE_CONFIG}\n[watch]\nenabled = false\n")
    (store.path / "shared" / "thumbnails").mkdir()
    (store.path / "shared" / "thumbnails" / "template.png").write_bytes(b"png")
    rec = store.recording(4, 7)
    for name in ("right", "bad"):
        (rec / name).write_bytes(pattern(5000, seed=len(name)))
    store.drain()
    writer = (rec / "cut").open("wb", buffering=0)
    writer.write(b"half")
    store.kill()
    writer.close()
    with store.home(rec / "bad").open("r+b") as file:
        info = os.fstat(file.fileno())
        file.write(b"x")
        os.utime(file.fileno(), ns=(info.st_mtime_ns, info.st_mtime_ns))
    store.remount()
    assert state(rec / "bad") == "committed", "nobody has noticed yet"
    outcome = told("export", "4", outside / "out", "--root", store.root, code=1)
    assert reasons(outcome) == {"bad": "damaged", "cut": "damaged"}
    assert os.listdir(outside / "out/users/4/recordings/7") == ["right"]
    recfs("verify", rec, check=False)
    assert reasons(told("export", "4", outside / "out", "--root", store.root, code=1))["bad"] == "damaged"


def test_an_export_comes_into_another_store_with_all_that_was_said(store: Mount, other: Mount, outside: Path) -> None:
    store.start(config=BASE_CONFIG)
    rec = populated(store)
    for inside in (store.path / "users", store.root / "users", store.root / ".recfs" / "x", store.path):
        assert recfs("export", "4", inside, "--root", store.root, check=False).returncode == 7
    assert told("export", "4", outside / "out", "--root", store.root)["clean"]
    checked(outside / "out")
    assert told("import", outside / "out", "--root", other.root)["clean"]
    assert snapshot(other.path / "users/4") == snapshot(store.path / "users/4")
    there = other.path / rec.relative_to(store.path)
    assert os.getxattr(there / "source.mp4", "user.title") == b"a title"
    assert (there / "source.mp4").stat().st_mtime_ns == 1_500_000_000_123456789
    lives = [told("recording", "show", path) for path in (rec, there)]
    assert [(each["keep"], each["note"]) for each in lives] == [(True, "for the archive")] * 2
    assert told("recording", "show", there.parent / "8")["expires_at_ns"] == 1924992000 * 10**9
    assert other.quota("4")["own_limits"] == store.quota("4")["own_limits"]
    again = told("import", outside / "out", "--root", other.root)
    assert (again["clean"], again["files"], again["equal"]) == (True, 0, 5)

    stream = run(*RECFS, "export", "4", "-", "--root", store.root).stdout
    for _ in range(2):
        run(*RECFS, "import", "-", "--user-map", "4=17", "--root", other.root, stdin=stream)
    assert snapshot(other.path / "users/17") == snapshot(store.path / "users/4")
    assert told("recording", "show", other.path / "users/17/recordings/7")["note"] == "for the archive"

    store.umount()
    assert told("export", "4", outside / "alone", "--config", store.base / "recfs.conf")["clean"]
    assert snapshot(outside / "alone/users") == snapshot(outside / "out/users")
    here, alone = ((outside / name / "recfs-manifest.json").read_text() for name in ("out", "alone"))
    assert json.loads(here) | {"made_ns": 0} == json.loads(alone) | {"made_ns": 0}
    store.remount()


def test_a_limit_that_is_met_ends_an_import_and_the_next_goes_on(store: Mount, outside: Path) -> None:
    store.start(config=BASE_CONFIG)
    folder = outside / "tree/users/5/recordings/1"
    folder.mkdir(parents=True)
    for number in range(40):
        (folder / f"{number:02}").write_bytes(pattern(10_000, seed=number))
    recfs("quota", "set", "5", "--max-files", "35", "--root", store.root)
    stopped = told("import", outside / "tree", "--root", store.root, code=1)
    assert "quota" in stopped["stopped"].lower()
    left = os.listdir(store.path / "users/5/recordings/1")
    assert len(left) == stopped["files"] == 35, "what was written whole stays, the rest is taken away"
    recfs("quota", "set", "5", "--max-files", "unlimited", "--root", store.root)
    assert told("import", outside / "tree", "--root", store.root)["files"] == 5
    assert snapshot(store.path / "users/5") == snapshot(outside / "tree/users/5") | {
        "thumbnails": ("dir", snapshot(store.path / "users/5")["thumbnails"][1], "")
    }


@pytest.mark.needs("setpriv")
def test_a_file_that_comes_in_is_nobody_elses_before_it_is_proven(store: Mount) -> None:
    need_root()
    store.start(config=BASE_CONFIG)
    recfs("user", "add", "5", "--uid", str(UID), "--gid", str(UID), "--root", store.root)
    rec = store.path / "users/5/recordings/1"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, size in (("f1", 4 << 20), ("f2", 1000)):
            info = tarfile.TarInfo(f"users/5/recordings/1/{name}")
            info.size, info.mode = size, 0o640
            tar.addfile(info, io.BytesIO(pattern(size, seed=size)))
    half = 3 << 20
    process = subprocess.Popen([*RECFS, "import", "-", "--root", store.root], stdin=subprocess.PIPE)
    try:
        assert process.stdin is not None
        process.stdin.write(stream.getvalue()[:half])
        process.stdin.flush()
        part = rec / ".f1.recfs-part"
        wait_until(lambda: part.exists() and part.stat().st_size > 0, "the file is written")
        assert (part.stat().st_uid, part.stat().st_mode & 0o777) == (0, 0o600)
        for flags in ("os.O_RDWR", "os.O_RDONLY"):
            assert errno_as_user(UID, f"os.open({str(part)!r}, {flags})") == errno.EACCES
        assert errno_as_user(UID, f"os.chmod({str(part)!r}, 0o666)") == errno.EPERM
        process.stdin.write(stream.getvalue()[half:])
        process.stdin.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait(60)
    for name in ("f1", "f2"):
        there = (rec / name).stat()
        assert (there.st_uid, there.st_gid, there.st_mode & 0o777) == (UID, UID, 0o640)
    assert sorted(os.listdir(rec)) == ["f1", "f2"]


def test_a_file_that_is_held_open_is_told_and_the_others_come_in(store: Mount, outside: Path) -> None:
    store.start(config=BASE_CONFIG)
    folder = outside / "tree/users/5/recordings/1"
    folder.mkdir(parents=True)
    for number in range(10):
        (folder / f"f{number}").write_bytes(b"content")
    assert told("import", outside / "tree", "--root", store.root)["files"] == 10
    with (store.path / "users/5/recordings/1/f3").open("r+b"):
        place, top = MountPlace(held_s=0.2), Outcome()
        with opened(os.open(store.path, os.O_RDONLY)) as mount, opened(os.open(outside / "tree", os.O_RDONLY)) as tree:
            Bringing(mount, lambda *_, **__: None, top, place=place).bring(TreeSource(tree, {}))
    assert top.equal == 9
    assert [(each.path, each.why) for each in top.problems] == [(b"users/5/recordings/1/f3", Why.WRITING)]


def test_the_second_export_says_what_the_store_has_no_more(store: Mount, outside: Path) -> None:
    store.start(config=BASE_CONFIG)
    rec = store.recording(5, 1)
    for name in ("stays", "goes"):
        (rec / name).write_bytes(b"content")
    assert told("export", "5", outside / "out", "--root", store.root)["files"] == 2
    (rec / "goes").unlink()
    again = told("export", "5", outside / "out", "--root", store.root)
    assert (again["left"], again["deleted"]) == (["users/5/recordings/1/goes"], 0)
    said = recfs("export", "5", outside / "out", "--root", store.root).stdout.decode()
    assert "users/5/recordings/1/goes: left there, and no longer in the store" in said
    last = told("export", "5", outside / "out", "--delete", "--root", store.root)
    assert (last["left"], last["deleted"], last["equal"]) == ([], 1, 1)
    assert os.listdir(outside / "out/users/5/recordings/1") == ["stays"]
    assert recfs("export", "5", "-", "--delete", "--root", store.root, check=False).returncode == 2


def test_a_user_without_a_uid_is_moved_whole(store: Mount, other: Mount) -> None:
    store.start(config=BASE_CONFIG)
    (store.recording(4, 7) / "source.mp4").write_bytes(b"film")
    store.drain()
    outcome = told("user", "move", "4", "--to", other.path, "--root", store.root, "--delete")
    assert (outcome["clean"], outcome["removed"]) == (True, 1)
    assert (other.path / "users/4/recordings/7/source.mp4").read_bytes() == b"film"
    assert not (store.path / "users/4").exists()


def test_a_move_that_is_killed_anywhere_is_finished_by_the_next(store: Mount, other: Mount, outside: Path) -> None:
    store.start(config=BASE_CONFIG)
    rec = populated(store)
    recfs("user", "add", "4", "--uid", "10004", "--root", store.root)
    many = rec / "many"
    many.mkdir()
    for number in range(80):
        (many / f"{number:03}").write_bytes(pattern(3000, seed=number))
    store.drain()
    before, there = snapshot(store.path / "users/4"), other.path / rec.relative_to(store.path) / "many"
    command = ("user", "move", "4", "--to", other.path, "--root", store.root)

    def killed(happened: Any) -> None:
        process = subprocess.Popen([*RECFS, *command, "--delete"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_until(lambda: happened() or process.poll() is not None, "the move is in the middle")
        process.kill()
        process.communicate(timeout=60)

    killed(lambda: there.is_dir() and len(os.listdir(there)) > 20)
    assert snapshot(store.path / "users/4") == before, "nothing is removed before all is there"
    with (many / "000").open("r+b") as writer:
        outcome = told(*command, "--delete", code=1)
        assert "writing" in reasons(outcome).values()
        assert outcome["removed"] == 0
        writer.write(b"changed")
    store.drain()
    changed = told(*command, "--delete", code=1)
    assert reasons(changed) == {"000": "differs"}
    assert changed["removed"] == 0
    before = snapshot(store.path / "users/4")
    assert told(*command, "--replace")["replaced"] == 1
    assert snapshot(store.path / "users/4") == before == snapshot(other.path / "users/4")
    killed(lambda: len(os.listdir(many)) < 50)
    if (store.path / "users/4").exists():
        assert told(*command, "--delete")["clean"]
    assert not (store.path / "users/4").exists()
    assert told("user", "list", "--root", store.root) == []
    assert snapshot(other.path / "users/4") == before
    assert told(*command, "--delete")["clean"], "there is nothing left to do"
    assert (there / "000").stat().st_uid == (other.path / "users/4").stat().st_uid or os.geteuid() != 0
    assert told("recording", "show", there.parent)["keep"] is True
    assert [each["uid"] for each in told("user", "list", "--root", other.root)] == [10004]
    assert recfs(*command[:3], "--to", store.root, "--root", store.root, check=False).returncode == 7
