"""Users who are told apart by uid, on a real mount: one does to another's tree whatever a process can ask for."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from . import apart_ops
from .clients import as_user, errno_as_user, need_root, recfs
from .harness import BASE_CONFIG, Mount

pytestmark = [pytest.mark.modes("auto"), pytest.mark.needs("setpriv")]

ME, OTHER, SERVICE = 41005, 41006, 41990
"""Uids of users 5 and 6, and of a service."""
MEDIA = 41777
PYTHON = ["/usr/bin/env", "python3", "-S", "-E", "-c"]
SCRIPT = Path(apart_ops.__file__).read_text()
ELSEWHERE = {
    "link out": "EPERM", "link in": "EPERM", "mknod of a FIFO": "EPERM", "bind of a socket": "EPERM",
    "open TMPFILE": errno.errorcode[errno.EOPNOTSUPP],
}  # fmt: skip
"""What nobody can do, also in a tree of their own."""
TOP = {
    "ok": {
        "readdir of users", "stat of their directory", "usage of one's own", "chmod of one's recordings",
        "utimes of one's own", "shared: read", "shown: write",
    },
    "EPERM": {
        "chmod of theirs", "chown of theirs", "utimes of theirs", "chmod of one's own", "chmod of one's own temp",
        "fchmod of one's own", "shared: link", "chgrp of one's own", "limit of one's own", "the mount itself",
        "shared: chmod", "a file by handle",
    },
    "EROFS": {
        "shared: create where modes let one", "shared: mkdir where modes let one", "shared: write", "shared: truncate",
        "shared: unlink", "shared: rename", "shared: rename out", "shared: rename in", "shared: exchange",
        "shared: symlink", "shared: setxattr", "shared: utimes",
    },
    "ENOENT": {".recfs in the mount", ".recfs by .."},
}  # fmt: skip
"""What becomes of what lies above and beside the trees; EACCES of all the rest."""


@pytest.fixture
def apart(store: Mount) -> Mount:
    """Users 5 and 6, with a uid each."""
    need_root()
    store.start(config=f'{BASE_CONFIG}[trash]\nretention = "1h"\n')
    store.root.chmod(0o700)  # as of a root that recfs makes
    for user, uid in (("5", ME), ("6", OTHER)):
        recfs("user", "add", user, "--uid", str(uid), "--gid", str(uid), "--root", store.root)
    return store


def attempts(uid: int, *args: str | Path) -> Any:
    """Run the operations as a user."""
    done = as_user(uid, [*PYTHON, SCRIPT, *map(str, args)])
    return json.loads(done.stdout)


def furnish(uid: int, top: Path) -> None:
    """Give a user a directory for each operation, as open to everybody as can be."""
    names = attempts(uid, "names")
    code = (
        "import os; os.umask(0)\n"
        f"os.makedirs({str(top)!r}, 0o777)\n"
        f"for at in range({len(names)}):\n"
        f"    here = {str(top)!r} + f'/{{at}}'\n"
        "    os.mkdir(here, 0o777); os.mkdir(here + '/d', 0o777); os.symlink('f', here + '/l')\n"
        "    with open(here + '/f', 'w') as file: file.write('secret')\n"
        "    os.setxattr(here + '/f', 'user.kept', b'kept')\n"
    )
    as_user(uid, [*PYTHON, code])


def facts(top: Path) -> dict[str, tuple[object, ...]]:
    """All there is below, with bytes, owners, modes and attributes."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = Path(folder, name)
            info = path.lstat()
            data = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            kept = () if path.is_symlink() else tuple((key, os.getxattr(path, key)) for key in os.listxattr(path))
            found[str(path)] = (info.st_mode, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns, data, kept)
    return found


@pytest.mark.smoke
def test_nothing_that_a_process_can_ask_for_reaches_another_user_s_tree(apart: Mount) -> None:
    """Everything in it is open to everybody: what keeps others out is the mode of users/<id> and temp/<id> alone."""
    trees = [apart.path / "users/6/recordings/1", apart.path / "temp/6/9"]
    for tree in trees:
        furnish(OTHER, tree)
    mine = [apart.path / "users/5/recordings" / str(number) for number, _ in enumerate(trees)]
    for tree in mine:
        furnish(ME, tree)
    apart.drain()
    before, used = [facts(tree) for tree in trees], apart.quota("6")
    assert len(before[0]) > 200
    for tree, from_ in zip(trees, mine, strict=True):
        came = attempts(ME, "try", tree, from_)
        assert {name: result for name, result in came.items() if result != "EACCES"} == {}
        assert len(came) > 70
    apart.drain()
    assert [facts(tree) for tree in trees] == before
    assert apart.quota("6") == used
    # The same in one's own tree: so the operations are what they are called.
    own = [apart.path / "users/6/recordings/2", apart.path / "users/6/recordings/3"]
    for tree in own:
        furnish(OTHER, tree)
    came = attempts(OTHER, "try", *own)
    assert {name: result for name, result in came.items() if result != "ok"} == ELSEWHERE


def test_what_lies_beside_the_trees_is_out_of_reach(apart: Mount) -> None:
    shared = apart.path / "shared"
    (shared / "open").mkdir()
    (shared / "open/f").write_bytes(b"shared")
    (shared / "thumbnails").mkdir()
    (shared / "thumbnails/shown").write_bytes(b"shown")
    for path in (shared / "open", shared / "open/f", shared / "thumbnails/shown"):
        path.chmod(0o777)
    as_user(ME, ["touch", apart.path / "users/5/thumbnails/own"])
    as_user(OTHER, ["mkdir", apart.path / "users/6/recordings/1"])
    as_user(OTHER, ["touch", apart.path / "users/6/recordings/1/file"])
    before = facts(shared), facts(apart.path / "users/6")
    running = subprocess.Popen(
        ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "sh", "-c", "cd users/6/recordings/1;"
         " exec < file; echo ready; exec sleep 600"],
        stdout=subprocess.PIPE, cwd=apart.path,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        came = attempts(ME, "top", apart.path, "5", "6", apart.root, str(running.pid))
    finally:
        running.kill()
        running.wait()
        if running.stdout is not None:
            running.stdout.close()
    wanted = {name: result for result, names in TOP.items() for name in names}
    assert wanted.keys() <= came.keys()
    assert {name: result for name, result in came.items() if result != wanted.get(name, "EACCES")} == {}
    assert (facts(shared), facts(apart.path / "users/6")) == before
    assert (apart.path / "users/5/thumbnails/shown").read_bytes() == b"minen", "their own copy of what was shown"
    told = json.loads(recfs("--json", "user", "list", "--root", apart.root).stdout)
    assert [each["directories"]["users"]["state"] for each in told] == ["ok", "ok"]


def test_a_link_that_becomes_a_directory_and_back_leads_nowhere_else(apart: Mount) -> None:
    """A user exchanges a directory and a link to another's as fast as can be, while root and the user go through it.

    Root, who is let in everywhere, gets through in the mount; recfs itself, which follows what users do to the home
    tree, never does.
    """
    theirs, mine = apart.path / "users/6/recordings/1", apart.path / "users/5/recordings/1"
    as_user(OTHER, ["sh", "-c", f"mkdir {theirs} && echo secret > {theirs}/f && chmod -R a+rwX {theirs}"])
    as_user(ME, ["sh", "-c", f"mkdir {mine} && mkdir {mine}/x && ln -s {theirs} {mine}/y"])
    before = facts(apart.path / "users/6")
    race = f"""
import ctypes, os, threading
libc, done = ctypes.CDLL(None, use_errno=True), threading.Event()
x, y = b"{mine}/x", b"{mine}/y"
def flip():
    while not done.is_set():
        libc.renameat2(-100, x, -100, y, 2)
threads = [threading.Thread(target=flip) for _ in range(2)]
for each in threads: each.start()
for number in range(300):
    for name in (x, y):
        try:
            with open(name + b"/f%d" % number, "w") as file: file.write("x" * 100)
            os.rename(name + b"/f%d" % number, name + b"/g%d" % number)
        except OSError as error:
            assert error.errno in (2, 13, 20), error
        try:
            os.remove(name + b"/f")
        except OSError as error:
            assert error.errno in (2, 13, 20), error
done.set()
for each in threads: each.join()
"""
    as_user(ME, [*PYTHON, race])
    apart.drain()
    assert facts(apart.path / "users/6") == before
    assert sorted(path.name for path in (apart.root / "users/6/recordings/1").iterdir()) == ["f"]
    made = [path for path in (*(mine / "x").iterdir(), *(mine / "y").iterdir()) if path.name.startswith("g")]
    assert made, "no file was made through the name: the race was none"
    folder = mine / "x" if not (mine / "x").is_symlink() else mine / "y"
    assert facts(apart.home(folder)).keys() == {str(apart.home(folder) / path.name) for path in folder.iterdir()}


def test_root_and_services_make_what_users_can_use(apart: Mount) -> None:
    """What root makes in a user's tree is the user's; who has the group comes in where the mode says so."""
    recording = apart.path / "users/5/recordings/1"
    recording.mkdir()
    (recording / "made by root").write_bytes(b"root's")
    assert errno_as_user(ME, f"open({str(recording / 'made by root')!r}, 'r+').write('mine')") == 0
    assert errno_as_user(ME, f"os.rename({str(recording)!r}, {str(recording.with_name('2'))!r})") == 0
    inside = "open({!r}, 'w').close()".format(str(recording.with_name("2") / "service's"))
    as_service = ["setpriv", f"--reuid={SERVICE}", f"--regid={SERVICE}", f"--groups={MEDIA}", *PYTHON, inside]
    assert subprocess.run(as_service, capture_output=True, timeout=60, check=False).returncode != 0
    recfs("user", "add", "5", "--gid", str(MEDIA), "--mode", "2770", "--root", apart.root)
    fresh = apart.path / "users/5/recordings/3"
    as_service[-1] = f"import os; os.umask(2); os.mkdir({str(fresh)!r}); open({str(fresh / 'a')!r}, 'w').close()"
    subprocess.run(as_service, capture_output=True, timeout=60, check=True)
    info = (fresh / "a").stat()
    assert (info.st_uid, info.st_gid) == (SERVICE, MEDIA)
    apart.drain()
    assert apart.home(fresh / "a").stat().st_gid == MEDIA
    assert errno_as_user(OTHER, f"os.listdir({str(fresh)!r})") == errno.EACCES


def test_the_kernel_believes_a_new_mode_at_once(apart: Mount) -> None:
    """A user who is looking at a directory is out of it with the answer of the command."""
    folder = apart.path / "users/7/recordings/1"
    folder.mkdir(parents=True)
    assert errno_as_user(OTHER, f"os.listdir({str(folder)!r})") == 0
    recfs("user", "add", "7", "--uid", "41007", "--root", apart.root)
    assert errno_as_user(OTHER, f"os.listdir({str(folder)!r})") == errno.EACCES
    assert errno_as_user(41007, f"os.listdir({str(folder)!r})") == 0
    assert errno_as_user(41007, f"os.listdir({str(apart.path / 'temp/7')!r})") == 0
    recfs("user", "remove", "7", "--root", apart.root)
    assert errno_as_user(41007, f"os.listdir({str(apart.path / 'users/7')!r})") == errno.ENOENT


def test_a_removed_user_is_out_and_the_next_who_has_the_uid_does_not_get_in(apart: Mount) -> None:
    as_user(ME, ["mkdir", apart.path / "users/5/recordings/1"])
    as_user(ME, ["sh", "-c", f"echo secret > {apart.path}/users/5/recordings/1/f"])
    refused = recfs("user", "remove", "5", "--root", apart.root, check=False)
    assert (refused.returncode, b"1 file of 7 bytes" in refused.stderr) == (7, True)
    recfs("user", "remove", "5", "--keep-files", "--root", apart.root)
    recfs("user", "add", "8", "--uid", str(ME), "--root", apart.root)
    assert errno_as_user(ME, f"os.stat({str(apart.path / 'users/5/recordings/1/f')!r})") == errno.EACCES
    assert (apart.path / "users/5/recordings/1/f").read_bytes() == b"secret\n"
    recfs("user", "remove", "5", "--delete", "--root", apart.root)
    assert not (apart.path / "users/5").exists()
    apart.drain()
    assert not (apart.root / "users/5").exists()


def test_users_stay_apart_across_an_upgrade_and_a_remount(apart: Mount) -> None:
    as_user(OTHER, ["mkdir", apart.path / "users/6/recordings/1"])
    for again in (apart.upgrade, apart.remount):
        again()
        assert errno_as_user(ME, f"os.stat({str(apart.path / 'users/6/recordings')!r})") == errno.EACCES
        assert errno_as_user(OTHER, f"os.stat({str(apart.path / 'users/6/recordings/1')!r})") == 0
        made = apart.path / f"users/6/recordings/{again.__name__}"
        (apart.path / "users/6/recordings/1" / again.__name__).mkdir()
        assert (apart.path / "users/6/recordings/1" / again.__name__).stat().st_uid == OTHER
        assert not made.exists()


def test_without_a_daemon_users_are_added_as_well(apart: Mount) -> None:
    apart.umount()
    recfs("user", "add", "9", "--uid", "41009", "--gid", "41009", "--root", apart.root)
    told = json.loads(recfs("--json", "user", "list", "--root", apart.root).stdout)
    assert [(each["user"], each["uid"]) for each in told] == [("5", ME), ("6", OTHER), ("9", 41009)]
    info = (apart.root / "users/9").stat()
    assert (info.st_uid, info.st_mode & 0o7777) == (41009, 0o700)
    recfs("user", "remove", "6", "--root", apart.root)
    apart.start(config=BASE_CONFIG)
    assert errno_as_user(41009, f"os.mkdir({str(apart.path / 'users/9/recordings/1')!r})") == 0
    assert not (apart.path / "users/6").exists()
