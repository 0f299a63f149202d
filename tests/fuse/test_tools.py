"""Everyday programs on the mount: rsync, cp, tar, git, sqlite3, dd, fio, du, find, rm."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .clients import PYTHON, output, pattern, run, sha256, sha256_of, snapshot, state, xattr
from .harness import Mount

pytestmark = pytest.mark.modes("auto", "off")

OLD_NS = 1_600_000_000_123_456_789


@pytest.fixture
def tree(outside: Path) -> Path:
    """A native tree with all a copy has to keep: modes, times, links, holes, odd names, empty things."""
    top = outside / "tree"
    for directory in ("a/b/c", "empty", "with space", "assets"):
        (top / directory).mkdir(parents=True)
    for n, size in enumerate((0, 1, 4096, 70_000, 1_500_000)):
        (top / "a" / f"file{n}").write_bytes(pattern(size, seed=n))
    (top / "a" / "b" / "script.sh").write_text("#!/bin/sh\nexit 0\n")
    (top / "a" / "b" / "script.sh").chmod(0o755)
    (top / "a" / "b" / "c" / "secret").write_bytes(b"x")
    (top / "a" / "b" / "c" / "secret").chmod(0o600)
    (top / "with space" / "line\nbreak").write_bytes(b"odd")
    with open(os.fsencode(top) + b"/assets/\xff\xfe", "wb") as stream:
        stream.write(b"not utf-8")
    with (top / "sparse").open("wb") as stream:
        stream.seek(1_000_000)
        stream.write(b"end")
    (top / "link").symlink_to("a/file3")
    (top / "dangling").symlink_to("no/such/file")
    (top / "a").chmod(0o2750)
    for path in [top, *top.rglob("*")]:
        os.utime(path, ns=(OLD_NS, OLD_NS), follow_symlinks=False)
    return top


def assert_same_tree(original: Path, copy: Path) -> None:
    assert snapshot(copy) == snapshot(original)
    for path in original.rglob("*"):
        other = copy / path.relative_to(original)
        assert other.lstat().st_mtime_ns == path.lstat().st_mtime_ns, f"mtime of {path.relative_to(original)}"


@pytest.mark.parametrize("options", [[], ["--inplace"], ["--append"], ["-HAXS"]], ids=lambda o: "".join(o) or "-a")
@pytest.mark.needs("rsync")
def test_rsync_to_the_mount(mount: Mount, rec: Path, tree: Path, options: list[str]) -> None:
    command = ["rsync", "-a", *options, f"{tree}/", f"{rec}/copy/"]
    run(*command)
    assert_same_tree(tree, rec / "copy")
    assert output("rsync", "-aHni", "--checksum", f"{tree}/", f"{rec}/copy/") == "", "a second run has nothing to do"
    mount.drain()
    assert output("rsync", "-aHni", f"{tree}/", f"{rec}/copy/") == "", "the commit changed what rsync compares"


@pytest.mark.parametrize("options", [[], ["--inplace", "--no-whole-file"]], ids=["default", "inplace"])
@pytest.mark.needs("rsync")
def test_rsync_updates_what_changed(mount: Mount, rec: Path, tree: Path, options: list[str]) -> None:
    command = ["rsync", "-a", "--delete", *options, f"{tree}/", f"{rec}/copy/"]
    run(*command)
    with (tree / "a" / "file4").open("r+b") as stream:
        stream.seek(700_000)
        stream.write(b"a change in the middle")
    os.truncate(tree / "a" / "file3", 100)
    (tree / "a" / "file2").unlink()
    os.rename(tree / "empty", tree / "renamed")
    for path in [tree, *tree.rglob("*")]:  # rsync takes two times of directories within one second for equal
        os.utime(path, ns=(OLD_NS, OLD_NS + 5 * 10**9), follow_symlinks=False)
    run(*command)
    assert_same_tree(tree, rec / "copy")
    mount.drain()
    assert xattr(rec / "copy" / "a" / "file4", "sha256") == sha256_of(tree / "a" / "file4")
    assert mount.leftovers("staging") == mount.leftovers("trash") == []


@pytest.mark.needs("rsync")
def test_rsync_from_the_mount(rec: Path, tree: Path, outside: Path) -> None:
    run("rsync", "-a", f"{tree}/", f"{rec}/copy/")
    run("rsync", "-aX", f"{rec}/copy/", f"{outside}/back/")
    assert_same_tree(tree, outside / "back")
    assert [p for p in (outside / "back").rglob("*") if not p.is_symlink() and os.listxattr(p)] == []


def test_cp_keeps_everything(rec: Path, tree: Path, outside: Path) -> None:
    os.setxattr(tree / "a" / "file1", "user.title", b"kept")
    run("cp", "-a", tree, rec / "copy")
    assert_same_tree(tree, rec / "copy")
    assert os.getxattr(rec / "copy" / "a" / "file1", "user.title") == b"kept"
    run("cp", "-a", "--reflink=auto", "--sparse=always", rec / "copy", rec / "again")
    assert_same_tree(tree, rec / "again")
    run("cp", "-a", rec / "again", outside / "back")
    assert_same_tree(tree, outside / "back")
    assert os.listxattr(outside / "back" / "a" / "file1") == ["user.title"]


def test_tar_in_and_out(rec: Path, tree: Path, outside: Path) -> None:
    run("tar", "-C", tree, "-cf", outside / "in.tar", ".")
    (rec / "copy").mkdir()
    run("tar", "-C", rec / "copy", "-xpf", outside / "in.tar")
    for path in tree.rglob("*"):  # the archive has whole seconds
        os.utime(path, ns=(OLD_NS, OLD_NS // 10**9 * 10**9), follow_symlinks=False)
    assert_same_tree(tree, rec / "copy")
    run("tar", "-C", rec, "-cf", rec / "out.tar", "copy")
    run("tar", "-C", outside, "-xpf", rec / "out.tar")
    assert_same_tree(tree, outside / "copy")
    assert b"changed as we read it" not in run("tar", "-C", rec, "-cf", "/dev/null", "copy").stderr


@pytest.mark.needs("git")
def test_git(rec: Path) -> None:
    identity = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**identity, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*argv: str) -> str:
        return os.fsdecode(run("git", *argv, cwd=rec, env=environment).stdout)

    git("init", "-q", "-b", "main")
    for turn in range(5):
        for n in range(10):
            (rec / f"file{n}.txt").write_bytes(pattern(2000, seed=turn * 10 + n))
        git("add", "-A")
        git("commit", "-q", "-m", f"turn {turn}")
    git("checkout", "-q", "-b", "branch", "HEAD~2")
    (rec / "file0.txt").write_text("on the branch")
    git("commit", "-q", "-am", "branch")
    git("gc", "-q", "--aggressive", "--prune=now")
    assert git("fsck", "--full", "--strict").strip() == ""
    git("checkout", "-q", "main")
    assert git("status", "--porcelain") == ""
    assert (rec / "file3.txt").read_bytes() == pattern(2000, seed=43)
    git("clone", "-q", ".", "clone")
    assert git("-C", "clone", "fsck", "--full").strip() == ""


@pytest.mark.parametrize("journal", ["delete", "truncate", "wal"])
@pytest.mark.needs("sqlite3")
def test_sqlite(mount: Mount, rec: Path, journal: str) -> None:
    database = rec / "data.db"
    first = sqlite3.connect(database, timeout=20)
    assert first.execute(f"pragma journal_mode = {journal}").fetchone() == (journal,)
    with first:
        first.execute("create table item (id integer primary key, body blob)")
        first.executemany("insert into item values (?, ?)", [(n, pattern(500, seed=n)) for n in range(500)])
    second = sqlite3.connect(database, timeout=20)
    with second:
        second.execute("delete from item where id % 3 = 0")
    assert first.execute("select count(*) from item").fetchone() == (333,)
    first.execute("delete from item")
    first.rollback()
    assert output("sqlite3", database, "select count(*) from item; pragma integrity_check") == "333\nok\n"
    run("sqlite3", database, "begin; delete from item where id % 3 = 1; commit; vacuum;")
    assert first.execute("select count(*) from item").fetchone() == (166,)
    first.close()
    second.close()
    assert output("sqlite3", database, "pragma integrity_check") == "ok\n"
    mount.drain()
    assert state(database) == "committed"
    assert xattr(database, "sha256") == sha256_of(database)


@pytest.mark.timeout(90)
def test_sqlite_with_concurrent_processes(rec: Path) -> None:
    database = rec / "shared.db"
    with sqlite3.connect(database) as setup:
        setup.execute("pragma journal_mode = wal")
        setup.execute("create table hit (who integer, n integer)")
    setup.close()
    script = (
        "import sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n"
        "for n in range(50):\n"
        "    db.execute('begin immediate')\n"
        "    db.execute('insert into hit values (?, ?)', (int(sys.argv[2]), n))\n"
        "    db.execute('commit')\n"
    )
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: run(*PYTHON, script, database, str(n)), range(4)))
    check = sqlite3.connect(database)
    assert check.execute("select count(*), count(distinct who) from hit").fetchone() == (200, 4)
    assert check.execute("pragma integrity_check").fetchone() == ("ok",)
    check.close()


@pytest.mark.parametrize(
    "options",
    [
        ["bs=512"],
        ["bs=4k", "conv=fsync"],
        ["bs=1M", "conv=fdatasync"],
        ["bs=3M", "oflag=dsync"],
        ["bs=100001"],
    ],
    ids="+".join,
)
def test_dd(mount: Mount, rec: Path, outside: Path, options: list[str]) -> None:
    content = pattern(400_000 if options == ["bs=512"] else 6_000_007)
    (outside / "in").write_bytes(content)
    run("dd", f"if={outside / 'in'}", f"of={rec / 'out'}", "status=none", *options)
    assert xattr(rec / "out", "sha256") == sha256(content)
    run("dd", f"if={rec / 'out'}", f"of={outside / 'back'}", "status=none", "bs=64k")
    assert sha256_of(outside / "back") == sha256(content)


def test_dd_without_truncating(rec: Path, outside: Path) -> None:
    (rec / "out").write_bytes(bytes(10_000))
    (outside / "in").write_bytes(b"block")
    run("dd", f"if={outside / 'in'}", f"of={rec / 'out'}", "conv=notrunc", "bs=1", "seek=5000", "status=none")
    assert (rec / "out").read_bytes() == bytes(5000) + b"block" + bytes(4995)


@pytest.mark.parametrize("rw", ["write", "randwrite", "randrw"])
@pytest.mark.needs("fio")
def test_fio_verifies_what_it_wrote(rec: Path, rw: str) -> None:
    job = [
        "--name=verify",
        f"--directory={rec}",
        "--size=4M",
        "--bsrange=1k-64k",
        "--bs_unaligned",
        f"--rw={rw}",
    ]
    check = ["--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--end_fsync=1", "--ioengine=psync"]
    run("fio", *job, *check, "--numjobs=2", "--randseed=7", "--output-format=terse", cwd=rec)


def test_sixteen_parallel_writers(mount: Mount, rec: Path) -> None:
    script = (
        "import hashlib, os, sys\n"
        "seed = int(sys.argv[2])\n"
        "data = hashlib.shake_128(seed.to_bytes(8, 'big')).digest(2_000_000)\n"
        "with open(sys.argv[1], 'wb', buffering=0) as stream:\n"
        "    for at in range(0, len(data), 32_768):\n"
        "        stream.write(data[at:at + 32_768])\n"
    )
    writers = [subprocess.Popen([*PYTHON, script, str(rec / f"file{n}"), str(n)]) for n in range(16)]
    assert [w.wait(60) for w in writers] == [0] * 16
    for n in range(16):
        assert xattr(rec / f"file{n}", "sha256") == sha256(pattern(2_000_000, seed=n)), f"writer {n}"
    assert int(xattr(rec, "rbytes")) == 32_000_000
    mount.drain()
    assert mount.status()["states"].get("writing", 0) == 0


def test_du_counts_what_is_there(rec: Path) -> None:
    (rec / "sub").mkdir()
    (rec / "sub" / "one").write_bytes(bytes(1_000_000))
    (rec / "two").write_bytes(bytes(12_345))
    files = [rec / "sub" / "one", rec / "two"]
    apparent = sum(int(output("du", "--apparent-size", "-B1", f).split()[0]) for f in files)
    assert apparent == 1_012_345 == int(xattr(rec, "rbytes"))
    on_disk = int(output("du", "-s", "-B1", rec).split()[0])
    assert 1_012_345 <= on_disk < 1_012_345 + 5 * 4096, "blocks follow the logical size"


def test_ls_and_find(rec: Path, tree: Path) -> None:
    run("cp", "-a", tree, rec / "tree")
    for options in (["-lAn", "--time-style=full-iso"], ["-R", "-1"]):

        def listing(top: Path, options: list[str] = options) -> list[str]:
            lines = output("ls", *options, ".", cwd=top).splitlines()
            return [line for line in lines if not line.startswith(("total", "d"))]

        assert listing(rec / "tree") == listing(tree)
    for query in (
        ["-type", "f"],
        ["-type", "d"],
        ["-size", "+60k"],
        ["-perm", "600"],
        ["-newermt", "2030-01-01"],
    ):
        assert sorted(output("find", ".", *query, cwd=rec / "tree").split("\n")) == sorted(
            output("find", ".", *query, cwd=tree).split("\n")
        ), query


def test_rm_removes_a_tree(mount: Mount, rec: Path, tree: Path) -> None:
    run("cp", "-a", tree, rec / "tree")
    run("rm", "-rf", rec / "tree")
    assert os.listdir(rec) == []
    mount.drain()
    assert list(mount.home(rec).iterdir()) == []
    assert mount.leftovers("staging") == []


def test_mv_between_users_and_to_a_native_directory(mount: Mount, rec: Path, tree: Path, outside: Path) -> None:
    run("cp", "-a", tree, rec / "tree")
    inode = (rec / "tree" / "a" / "file3").stat().st_ino
    other = mount.path / "users" / f"{rec.parts[-3]}9" / "recordings" / "1"
    other.mkdir(parents=True)
    run("mv", rec / "tree", other / "moved")
    assert_same_tree(tree, other / "moved")
    assert (other / "moved" / "a" / "file3").stat().st_ino == inode, "a move inside the mount copies nothing"
    run("mv", other / "moved", outside / "out")
    assert_same_tree(tree, outside / "out")
    assert os.listdir(other) == []


def test_shell_redirections_and_pipes(rec: Path) -> None:
    script = (
        "set -e; printf 'one\\n' > f; printf 'two\\n' >> f; cat f f > g; sort -r g | uniq -c > h; wc -l < h;"
        " sed -i s/one/ONE/ f; cat f; tac g | head -1; cmp f f; split -b 3 g part.; cat part.* | cmp - g;"
        " : > f; wc -c < f"
    )
    assert output("sh", "-c", script, cwd=rec).split() == ["2", "ONE", "two", "two", "0"]
