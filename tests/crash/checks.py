"""What is found after a life: on the mount, in the rows, on the disk, in the bucket."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path

from recfs.core.naming import is_temporary_name
from scripts.soak_lib.checks import wrong_in
from tests.component.consistency import assert_store
from tests.crash.model import LONG_AGO, Fact, Node, Stamp, Version, World
from tests.crash.promises import WHOLE, Seen
from tests.fuse.harness import Mount
from tests.fuse.s3 import S3

SETTLED_S = 30.0
"""What is wrong with home tree or bucket is a fault once it has been the same for so long, while nobody works …"""
LONGEST_S = 180.0
"""… or anything has been wrong for so long. How fast a machine works it off is nothing that is tested here."""


# --- the mount -------------------------------------------------------------------------------------------------------


def look(path: Path) -> Seen:
    """Everything that is found at a path and below."""
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode):
        return Seen("link", target=os.readlink(path))
    seen = Seen("dir" if stat.S_ISDIR(info.st_mode) else "file", stat.S_IMODE(info.st_mode), mtime_ns=info.st_mtime_ns)
    seen.xattrs = {name: os.getxattr(path, name).decode() for name in os.listxattr(path)}
    if seen.kind == "dir":
        seen.children = {name: look(path / name) for name in os.listdir(path)}
        return seen
    with contextlib.suppress(OSError):
        os.getxattr(path, "user.recfs.shown")
        seen.shown = True
    seen.state = os.getxattr(path, "user.recfs.state").decode()
    try:
        seen.content = path.read_bytes()
    except OSError as error:
        seen.trouble = repr(error)
    return seen


def limits(mount: Path, users: tuple[str, ...]) -> dict[str, str]:
    """Limits in effect, as `model` names them."""
    name = "user.recfs.quota.max_bytes"
    return {f"{user} max_bytes": os.getxattr(mount / "users" / user, name).decode() for user in users}


def as_world(found: dict[str, Seen], limits: dict[str, str], shared: dict[str, bytes]) -> World:
    """What is found now, as what the next life begins with."""
    world = World()
    for top, seen in found.items():
        world.tops[top] = _node(seen)
        if top.endswith("/thumbnails"):
            world.tops[top].shows = dict(shared)
            gone = shared.keys() - seen.children.keys()
            world.tops[top].hidden = {name: Fact([(LONG_AGO, True)]) for name in gone}
    world.limits = {what: Fact([(LONG_AGO, value)]) for what, value in limits.items()}
    return world


def _node(seen: Seen) -> Node:
    node = Node(seen.kind, LONG_AGO, Fact([(LONG_AGO, seen.mode)]), target=seen.target)
    node.xattrs = {name: Fact([(LONG_AGO, value)]) for name, value in seen.xattrs.items()}
    node.mtime_ns = Fact([(LONG_AGO, seen.mtime_ns)])
    node.children = {name: _node(child) for name, child in seen.children.items() if not child.shown}
    if seen.kind == "file":
        version = Version(seen.content)
        if seen.state in WHOLE:
            version.closes, version.closed = [LONG_AGO], LONG_AGO
        else:
            version.closes = [Stamp(0, None)]  # something may have been promised of it, in an earlier life
        node.versions = [version]
    return node


# --- the store -------------------------------------------------------------------------------------------------------


def soon(check: Callable[[], str | None]) -> str | None:
    """What is still wrong when nothing changes about it any more."""
    began = changed = time.monotonic()
    before = None
    while (wrong := check()) is not None:
        now = time.monotonic()
        if wrong != before:
            before, changed = wrong, now
        if now - changed > SETTLED_S or now - began > LONGEST_S:
            break
        time.sleep(0.1)
    return wrong


def store_faults(store: Mount, s3: S3 | None, *, retention: bool) -> tuple[list[str], int]:
    """What is wrong with a store in which nobody works; and how many files were compared with their checksums."""
    wrong, compared = wrong_in(store, killed=True)

    def rows_and_disk() -> str | None:
        lost = len(list((store.root / ".recfs/lost+found").iterdir()))
        trash = len(list((store.root / ".recfs/trash").iterdir()))
        try:
            assert_store(store.root / ".recfs/catalogue.db", store.root, lost=lost, trash=trash if retention else 0)
        except (AssertionError, OSError, KeyError) as error:
            return f"rows and disk: {error!r:.3000}"
        return None

    found = [soon(rows_and_disk)]
    if s3 is not None:
        found.append(soon(lambda: bucket_fault(store, s3)))
    return wrong + [each for each in found if each is not None], compared


def bucket_fault(store: Mount, s3: S3) -> str | None:
    """How the bucket differs from the rows."""
    with contextlib.closing(sqlite3.connect(f"file:{store.root}/.recfs/catalogue.db?mode=ro", uri=True)) as db:
        objects = dict(db.execute("select key, sha256 from object").fetchall())
        journal = db.execute("select kind, key, ino, error from journal").fetchall()
        names = dict(db.execute("select ino, name from node where ino in (select ino from journal)").fetchall())
    # What has a temporary name waits for a rename: a death came before it.
    unnamed = {ino for ino, name in names.items() if is_temporary_name(name)}
    due = [row for row in journal if row[0] != "delete" and not (row[0] == "upload" and row[2] in unnamed)]
    if due:
        return f"work on S3 is left: {due}"
    kept = {key for kind, key, _, _ in journal if kind == "delete"}  # for as long as the trash is
    there = s3.paths()
    if surplus := there - objects.keys() - kept:
        return f"objects of nobody: {sorted(surplus)}"
    if missing := objects.keys() - there:
        return f"objects that are gone: {sorted(missing)}"
    if unfinished := s3.unfinished():
        return f"uploads in parts that nobody finishes: {unfinished}"
    for key, sha256 in objects.items():
        if hashlib.sha256(s3.data(key)).digest() != sha256:
            return f"the object {key} is not what its row says"
    return None


def objects_of(store: Mount) -> set[str]:
    """The keys under which S3 should have something."""
    with contextlib.closing(sqlite3.connect(f"file:{store.root}/.recfs/catalogue.db?mode=ro", uri=True)) as db:
        return {key for (key,) in db.execute("select key from object")}


def retained(store: Mount) -> set[str]:
    """Keys of objects that live files have no more, and that stay for the retention of the trash: nothing purges them.

    So it is with a file that is renamed to where the rules want it local.
    """
    with contextlib.closing(sqlite3.connect(f"file:{store.root}/.recfs/catalogue.db?mode=ro", uri=True)) as db:
        later = "select key from journal where kind = 'delete' and next_try_ns - created_ns >= 3600000000000"
        return {key for (key,) in db.execute(f"{later} and ino in (select ino from node)")}


def lost_and_found(store: Mount, explained: list[Version]) -> list[str]:
    """What lies in lost+found for no reason that is known. It is emptied: only people do that."""
    wrong = []
    folder = store.root / ".recfs/lost+found"
    for path in sorted(folder.iterdir()):
        content = path.read_bytes() if path.is_file() else b""
        is_known = any(each.is_like(content) for each in explained)
        if not path.name.startswith("overwrite-") or not is_known:
            wrong.append(f"lost+found has {path.name}: {len(content)} bytes, {content[:6].hex()}")
        else:
            path.unlink()
    return wrong
