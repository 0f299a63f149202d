"""What a plan is made of, as it lies on disks: old trees with everything in them, and databases in any condition."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from recfs.core.migration.claims import File
from recfs.core.migration.plan import Action
from recfs.core.migration.rows import COLUMNS, Value
from recfs.errors import ConfigError, InvalidArgument, IoFailure, NotADirectory, NotFound
from recfs.migration import database, dumps, walking
from recfs.migration.mapping import Names, names_in
from recfs.migration.walking import Walk, mounted_below, top_of

# --- trees ----------------------------------------------------------------------------------------------------------


def walked(top: Path, *, one_file_system: bool = False) -> tuple[dict[bytes, File], Walk]:
    walk = Walk(top_of(os.fsencode(top)), one_file_system)
    return {file.path: file for file in walk.files()}, walk


def test_every_name_is_found_whatever_it_is(tmp_path: Path) -> None:
    old = tmp_path / "old"
    deep = old / "/".join(["d" * 255] * 3)
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"12345")
    os.utime(deep / "f", ns=(1, 5))
    odd = [b"\xff\xfe", b"-a\n\t", "й".encode(), "и\u0306".encode(), b"a" * 255, b" ", b"\\"]
    for name in odd:
        (old / os.fsdecode(name)).write_bytes(b"x")
    os.link(old / os.fsdecode(odd[0]), old / "hard")
    (old / "empty" / "emptier").mkdir(parents=True)
    os.mkfifo(old / "pipe")
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(os.fspath(old / "socket"))
        files, walk = walked(old)
    assert {path for path, file in files.items() if file.left is None} == {
        *odd,
        b"hard",
        os.fsencode(deep / "f")[len(os.fsencode(old)) + 1 :],
    }
    found = files[os.fsencode(deep.relative_to(old)) + b"/f"]
    assert (found.size, found.mtime_ns, found.inode) == (5, 5, None)
    assert files[b"hard"].inode == files[odd[0]].inode is not None
    assert {path: (file.left, file.reason) for path, file in files.items() if file.left is not None} == {
        b"empty/emptier": (Action.SKIP, "an empty directory"),
        b"pipe": (Action.UNREADABLE, "a named pipe"),
        b"socket": (Action.UNREADABLE, "a socket"),
    }
    assert b"empty/emptier" in walk.folders
    assert (walk.mounts, walk.vanished) == ([], 0)


def test_symbolic_links_are_told_and_not_followed(tmp_path: Path) -> None:
    old = tmp_path / "old"
    (old / "a").mkdir(parents=True)
    (old / "a" / "file").write_bytes(b"x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"x")
    links = {
        "up": ("..", "a symbolic link out of the tree, to .."),
        "loop": ("a/../a", "a symbolic link within the tree, to a/../a"),
        "file": ("a/file", "a symbolic link within the tree, to a/file"),
        "out": (f"{tmp_path}/outside/secret", f"a symbolic link out of the tree, to {tmp_path}/outside/secret"),
        "nowhere": ("gone", "a symbolic link to gone: No such file or directory"),
        "itself": ("itself", "a symbolic link to itself: Too many levels of symbolic links"),
    }
    for name, (to, _) in links.items():
        os.symlink(to, old / name)
    files, _ = walked(old)
    assert {os.fsdecode(path): file.reason for path, file in files.items() if file.left} == {
        name: reason for name, (_, reason) in links.items()
    }
    assert set(files) == {b"a/file", *(os.fsencode(name) for name in links)}


def test_the_top_may_be_a_link_and_has_to_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").touch()
    os.symlink("real", tmp_path / "link")
    assert set(walked(tmp_path / "link")[0]) == {b"file"}
    with pytest.raises(NotADirectory, match="real/file is no directory"):
        walked(tmp_path / "real" / "file")
    with pytest.raises(NotFound, match="gone: there is no such directory"):
        walked(tmp_path / "gone")
    with pytest.raises(InvalidArgument, match="no old tree"):
        top_of(b"/")


def test_a_file_that_is_nearly_all_holes_is_for_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("long", 8 << 40), ("short", 32 << 20), ("begun", 1 << 30), ("elsewhere", 1 << 40)):
        with (tmp_path / name).open("wb") as file:
            file.write(b"x")
            file.truncate(size)
    half = tmp_path / "half"
    with half.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 40 << 20)
        file.truncate(120 << 20)
    files, _ = walked(tmp_path)
    told = {path for path, file in files.items() if file.left is Action.UNREADABLE}
    assert told == {b"long", b"begun", b"elsewhere"}
    assert files[b"long"].reason.startswith("it is 8 TiB long, of which 4 KiB were written")
    outside = walking.file_at(os.fsencode(tmp_path / "elsewhere"))
    assert outside is not None
    assert outside.left is Action.UNREADABLE
    # A file system that knows of no holes, and tells no blocks, has no such files.
    monkeypatch.setattr(os, "lseek", lambda _fd, at, how: at if how == os.SEEK_DATA else 8 << 40)
    assert walked(tmp_path)[0][b"long"].left is None


@pytest.mark.parametrize("where", [".", "users", "users/4/deeper"])
def test_a_store_is_no_old_tree(tmp_path: Path, where: str) -> None:
    (tmp_path / "store" / ".recfs").mkdir(parents=True)
    (tmp_path / "store" / where).mkdir(parents=True, exist_ok=True)
    os.symlink(tmp_path / "store" / where, tmp_path / "link")
    for path in (tmp_path / "store" / where, tmp_path / "link"):
        with pytest.raises(InvalidArgument, match=r"lies in the store at .*/store, and is no old tree"):
            top_of(os.fsencode(path))
    top_of(os.fsencode(tmp_path))


def test_a_mount_of_recfs_is_no_old_tree_and_not_entered_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"36 35 98:0 / /srv/media rw - ext4 /dev/sda rw\n"
        b"37 36 0:33 / /mnt/media rw,nosuid shared:9 - fuse.recfs /srv/store rw\n"
        b"38 36 0:33 /users/4 /srv/media/user_4 rw - fuse.recfs /srv/store rw\n"
    )
    assert walking.store_devices(os.fspath(table)) == {os.makedev(0, 33)}
    assert walking.store_devices(os.fspath(tmp_path / "gone")) == frozenset()
    (tmp_path / "old" / "user_4").mkdir(parents=True)
    (tmp_path / "old" / "user_4" / "mine").touch()
    device = (tmp_path / "old").stat().st_dev
    monkeypatch.setattr(walking, "store_devices", lambda: frozenset({device}))
    with pytest.raises(InvalidArgument, match="lies in a mount of recfs"):
        top_of(os.fsencode(tmp_path / "old"))
    walk = Walk(os.fsencode(tmp_path / "old"))
    (left,) = walk.files()
    assert (left.path, left.left) == (b"user_4", Action.UNREADABLE)
    assert left.reason.startswith("a mount of recfs")


def test_names_that_vanish_meanwhile_are_counted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    walk = Walk(os.fsencode(tmp_path))
    files = walk.files()
    first = next(files)
    other = "a" if first.path.startswith(b"b") else "b"
    shutil.rmtree(tmp_path / other)
    assert list(files) == []
    assert walk.vanished == 1


def test_a_directory_that_was_replaced_meanwhile_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    for name in ("a", "b"):
        (tmp_path / "old" / name).mkdir(parents=True)
        (tmp_path / "old" / name / "file").touch()
    walk = Walk(os.fsencode(tmp_path / "old"))
    files = walk.files()
    first = next(files)
    other = "a" if first.path.startswith(b"b") else "b"
    shutil.rmtree(tmp_path / "old" / other)
    os.symlink(tmp_path / "outside", tmp_path / "old" / other)
    (left,) = files
    assert (left.left, left.path) == (Action.UNREADABLE, other.encode())
    (tmp_path / "old" / other).unlink()
    walk = Walk(os.fsencode(tmp_path / "old"))
    (tmp_path / "old" / other).mkdir()
    (tmp_path / "old" / other / "file").touch()
    files = walk.files()
    first = next(files)
    other = "a" if first.path.startswith(b"b") else "b"
    (tmp_path / "old" / other).rename(tmp_path / "moved")
    (tmp_path / "outside").rename(tmp_path / "old" / other)
    (left,) = files
    assert left.reason == "another directory came into its place"


def test_what_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "file").touch()
    (tmp_path / "file").write_bytes(b"12")
    really = os.open

    def refused(path: bytes, flags: int) -> int:
        if path.endswith(b"closed"):
            raise PermissionError(13, "Permission denied")
        return really(path, flags)

    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr(os, "access", lambda *_args, **_how: False)
    files, _ = walked(tmp_path)
    assert {path: (file.size, file.left, file.reason) for path, file in files.items()} == {
        b"closed": (0, Action.UNREADABLE, "the directory cannot be read: Permission denied"),
        b"file": (2, Action.UNREADABLE, "this user may not read it"),
    }


def test_mount_points_are_read_from_the_table_of_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_bytes(
        b"36 35 98:0 / /srv/media rw - ext4 /dev/sda rw\n"
        b"37 36 0:33 / /srv/media/user_4/a\\040b\\011\\134 rw - tmpfs none rw\n"
        b"38 36 0:34 /sub /srv/media/user_5 rw shared:1 - ext4 /dev/sdb rw\n"
        b"39 36 0:35 / /srv/mediation/user_6 rw - ext4 /dev/sdc rw\n"
    )
    assert mounted_below(b"/srv/media", os.fspath(table)) == {b"user_4/a b\t\\", b"user_5"}
    assert mounted_below(b"/srv/media", os.fspath(tmp_path / "gone")) == frozenset()
    old = tmp_path / "old"
    for name in ("a", "b", "c"):
        (old / name).mkdir(parents=True)
        (old / name / "file").touch()
    monkeypatch.setattr(walking, "mounted_below", lambda _top: frozenset({b"b"}))  # of the same file system
    files, walk = walked(old)
    assert (set(files), walk.mounts) == ({b"a/file", b"b/file", b"c/file"}, [b"b"])
    assert list(files)[-1] == b"b/file"  # the last, for what it shows may lie in the tree as well
    assert walked(old, one_file_system=True)[0][b"b"].left is Action.SKIP


def test_what_is_mounted_below_is_entered_and_told_and_a_directory_is_walked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("disk", "again", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    disk = os.stat(tmp_path / "disk")

    class Entry:
        """A name in a directory, where two are mount points of one other disk."""

        def __init__(self, entry: os.DirEntry[str]) -> None:
            self._entry, self.name = entry, entry.name

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            found = self._entry.stat(follow_symlinks=follow_symlinks)
            return _as(found, dev=disk.st_dev + 1, ino=disk.st_ino) if self.name in ("disk", "again") else found

    class Names:
        def __init__(self, fd: int) -> None:
            self._names = scandir(fd)

        def __enter__(self) -> Iterator[Entry]:
            return map(Entry, sorted(self._names.__enter__(), key=lambda entry: entry.name, reverse=True))

        def __exit__(self, *_error: object) -> None:
            self._names.close()

    scandir, fstat = os.scandir, os.fstat
    monkeypatch.setattr(os, "scandir", lambda path: Names(path) if isinstance(path, int) else scandir(path))

    def mounted(fd: int) -> os.stat_result:
        found = fstat(fd)
        return _as(found, dev=disk.st_dev + 1, ino=disk.st_ino) if found.st_ino == disk.st_ino else found

    monkeypatch.setattr(os, "fstat", mounted)
    files, walk = walked(tmp_path)
    assert walk.mounts == [b"disk", b"again"]
    assert files[b"again"].reason == "the same directory as disk, mounted here once more"
    assert set(files) == {b"again", b"disk/file", b"plain/file"}
    files, walk = walked(tmp_path, one_file_system=True)
    assert {path: file.left for path, file in files.items()} == {
        b"again": Action.SKIP,
        b"disk": Action.SKIP,
        b"plain/file": None,
    }


def _as(found: os.stat_result, *, dev: int, ino: int) -> os.stat_result:
    fields = list(found)
    fields[stat.ST_DEV], fields[stat.ST_INO] = dev, ino
    return os.stat_result(fields)


# --- databases ------------------------------------------------------------------------------------------------------

ROW: dict[str, Value] = {
    **dict.fromkeys(COLUMNS),
    "id": 7,
    "user_id": 4,
    "local_video_path": "user_4/a.mp4",
}
_TABLE = f"create table recordings ({', '.join(COLUMNS)}, other text)"


def made(path: Path, *rows: Mapping[str, Value], table: str = _TABLE, mode: str = "delete") -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"pragma journal_mode = {mode}")
    db.execute(table)
    marks = ", ".join(f":{column}" for column in COLUMNS)
    if not rows:
        return db
    db.execute("begin")
    db.executemany(f"insert into recordings ({', '.join(COLUMNS)}) values ({marks})", rows)
    db.execute("commit")
    return db


def rows(path: Path, names: Names | None = None) -> list[Mapping[str, Value]]:
    return list(database.rows_in(path, names or Names()))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_at_rest_is_read_and_nothing_appears_beside_it(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "data.db"
    made(path, ROW, mode=mode).close()
    before = snapshot(tmp_path)
    assert rows(path) == [ROW]
    assert snapshot(tmp_path) == before
    assert set(before) == {"data.db"}


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_is_read_while_the_platform_writes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "data.db"
    with closing(made(path, ROW, mode=mode)) as platform:
        platform.execute("begin immediate")
        platform.execute("update recordings set status = 'HALF'")
        assert rows(path) == [ROW]  # as it was
        platform.execute("commit")
        assert [row["status"] for row in rows(path)] == ["HALF"]
        platform.execute("insert into recordings (id) values (8)")  # the platform goes on
    assert [row["id"] for row in rows(path)] == [7, 8]


def test_what_comes_to_life_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.db"
    made(path, ROW, mode="wal").close()
    really = database._rows
    tries: list[str] = []

    def changed(where: Path, how: str, *args: Any) -> list[tuple[Value, ...]]:
        found = really(where, how, *args)
        tries.append(how)
        if len(tries) < 3:
            with closing(sqlite3.connect(path)) as platform, platform:
                platform.execute("update recordings set status = coalesce(status, '') || 'X'")
        return found

    monkeypatch.setattr(database, "_rows", changed)
    assert [row["status"] for row in rows(path)] == ["XX"]
    tries.clear()
    monkeypatch.setattr(database, "_TRIES", 2)
    with pytest.raises(IoFailure, match="is changed all the time"):
        rows(path)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_a_platform_left_that_died_is_read_from_a_copy(tmp_path: Path, mode: str) -> None:
    live = tmp_path / "live"
    dead = tmp_path / "dead"
    live.mkdir()
    dead.mkdir()
    with closing(made(live / "data.db", ROW, mode=mode)) as platform:
        if mode == "delete":
            platform.execute("pragma cache_size = 1")
            platform.execute("begin")
            platform.execute("update recordings set status = 'HALF'")
            platform.executemany(
                "insert into recordings (id, other) values (?, ?)", ((n, "x" * 4000) for n in range(100, 400))
            )
        for file in live.iterdir():
            if not file.name.endswith("-shm"):
                shutil.copy(file, dead)
    before = snapshot(dead)
    assert len(before) == 2  # with its journal, or log
    assert rows(dead / "data.db") == [ROW]
    assert snapshot(dead) == before


def test_a_log_without_its_index_is_read_although_the_directory_takes_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.db"
    with closing(made(path, ROW, mode="wal")):
        whole: Callable[..., sqlite3.Connection] = sqlite3.connect

        def refused(where: str, **how: Any) -> sqlite3.Connection:
            if "mode=ro" in where:
                error = sqlite3.OperationalError("attempt to write a readonly database")
                error.sqlite_errorname = "SQLITE_READONLY_CANTINIT"
                raise error
            return whole(where, **how)

        monkeypatch.setattr(sqlite3, "connect", refused)
        assert rows(path) == [ROW]


def test_one_moment_is_read_however_long_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    with closing(made(path, ROW, ROW | {"id": 8}, ROW | {"id": 9}, mode="wal")) as platform:
        reading = database.rows_in(path, Names())
        next(reading)
        platform.execute("delete from recordings")
        assert [row["id"] for row in reading] == [8, 9]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("create table recording (id)", r"has no table 'recordings'; there are: recording\. "),
        (
            _TABLE.replace("expire_at", "expires"),
            r"has no column 'expire_at'; there are: id, user_id, .*, expires, other",
        ),
        (
            _TABLE.replace("local_video_path", "local_video_path integer"),
            "'local_video_path' .* is INTEGER, and paths are text",
        ),
        (_TABLE.replace("(id", "(id double"), "'id' .* is DOUBLE, and ids are integers or UUIDs"),
    ],
)
def test_another_schema_is_a_clear_error(tmp_path: Path, table: str, told: str) -> None:
    path = tmp_path / "data.db"
    made(path, table=table).close()
    with pytest.raises(InvalidArgument, match=told):
        rows(path)


def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    with pytest.raises(NotFound, match=r"data\.db: there is no such file"):
        rows(path)
    path.touch()
    with pytest.raises(InvalidArgument, match="no SQLite database: it is empty"):
        rows(path)
    path.write_bytes(b"PGDMP" + bytes(200))
    with pytest.raises(InvalidArgument, match="no SQLite database: it does not begin as one"):
        rows(path)
    with pytest.raises(IoFailure, match="Is a directory"):
        rows(tmp_path)


@pytest.mark.parametrize("name", ["data.db", "data.db-wal", "data.db-shm", "data.db-journal"])
def test_a_pipe_of_somebody_is_not_waited_for(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data.db"
    if name != path.name:
        made(path, ROW).close()
    os.mkfifo(tmp_path / name)
    with pytest.raises(InvalidArgument, match=f"{name} is no regular file"):
        rows(path)


def test_a_damaged_database_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    made(path, *(ROW | {"id": number, "display_name": "x" * 500} for number in range(200))).close()
    data = bytearray(path.read_bytes())
    data[3 * 4096 : 12 * 4096] = os.urandom(9 * 4096)
    path.write_bytes(data)
    with pytest.raises(InvalidArgument, match=r"data\.db is damaged .*recover"):
        rows(path)
    path.unlink()
    made(path, ROW).close()
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(InvalidArgument, match=r"data\.db is damaged .cut off: its last page has 3,996 bytes of 4,096"):
        rows(path)
    path.write_bytes(data[:100] + bytes(8000))
    with pytest.raises(InvalidArgument, match=r"data\.db is damaged"):
        rows(path)


def test_a_database_that_somebody_locks_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_S", 0.0)
    path = tmp_path / "data.db"
    with closing(made(path, ROW)) as platform:
        platform.execute("begin exclusive")
        with pytest.raises(IoFailure, match="was locked for 0 s"):
            rows(path)


def test_columns_may_have_other_names_and_text_need_not_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / 'a "b"?#%.db'
    with closing(sqlite3.connect(path)) as db, db:
        db.execute('create table "Media Items" ("Item ID" text, owner integer, "select" text)')
        db.execute('insert into "Media Items" values (?, 4, cast(? as text))', ("7", "\xff.mp4".encode("latin-1")))
    names = Names("media items", {"id": "item id", "user_id": "owner", "local_video_path": "select"})
    assert rows(path, names) == [{"id": "7", "user_id": 4, "local_video_path": "\udcff.mp4"}]


# --- dumps ----------------------------------------------------------------------------------------------------------

SHORT = Names("recordings", {"id": "id", "user_id": "user_id", "local_video_path": "local_video_path"})


def read(path: Path, data: bytes, encoding: str | None = None) -> list[Mapping[str, Value]]:
    path.write_bytes(data)
    return list(dumps.rows_in(path, SHORT, encoding))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1251"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_dump_is_read_as_it_was_written(tmp_path: Path, delimiter: str, encoding: str, end: str) -> None:
    lines = [
        ["other", "id", "local_video_path", "user_id"],
        ["x", "7", '"a,b;c\t|""d""\nПеревод.mp4"', "4"],
        ["", "8", "\\N", ""],
        ["\\."],
    ]
    data = "".join(delimiter.join(line) + end for line in lines).encode(encoding)
    assert read(tmp_path / "dump.csv", data, "cp1251" if encoding == "cp1251" else None) == [
        {"id": "7", "user_id": "4", "local_video_path": 'a,b;c\t|"d"\nПеревод.mp4'},
        {"id": "8", "user_id": None, "local_video_path": None},
    ]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "line 1: there are no names of columns"),
        (b"7,4,a.mp4\n", "line 1 has no column 'id'; there are: 7, 4, a.mp4"),
        (b"id,user_id,path\n", "line 1 has no column 'local_video_path'; there are: id, user_id, path"),
        (b"id,id,user_id,local_video_path\n", "line 1 has several columns 'id'"),
        (b"id,user_id,local_video_path\n7,4,a\n8,4\n", "line 3 has 2 fields, and line 1 has 3"),
        (b'id,user_id,local_video_path\n7,4,"a\n', "line 2: unexpected end of data"),
        ("id,user_id,local_video_path\n7,4,я\n".encode("cp1251"), "no utf-8 .*--encoding says"),
    ],
)
def test_what_is_no_dump_is_said_with_its_line(tmp_path: Path, data: bytes, told: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"dump\.csv: .*{told}"):
        read(tmp_path / "dump.csv", data)
    with pytest.raises(NotFound, match=r"gone\.csv: there is no such file"):
        list(dumps.rows_in(tmp_path / "gone.csv", SHORT))


def test_a_dump_that_is_a_pipe_or_has_a_line_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InvalidArgument, match=r"pipe\.csv is no regular file"):
        list(dumps.rows_in(tmp_path / "pipe.csv", SHORT))
    monkeypatch.setattr(dumps, "_FIELD_MAX", 1000)
    header = b"id,user_id,local_video_path\n"
    assert len(read(tmp_path / "dump.csv", header + b"7,4," + b"a" * 900 + b"\n")) == 1
    with pytest.raises(InvalidArgument, match="line 1: it has more than 1,000 characters"):
        read(tmp_path / "dump.csv", header + b"7,4," + b"\0" * 1000)


# --- names of columns -----------------------------------------------------------------------------------------------


def test_a_file_says_what_columns_are_called(tmp_path: Path) -> None:
    path = tmp_path / "columns.toml"
    path.write_text(
        'table = "items"\nexpired = ["Purged"]\n[columns]\nid = "item"\ndisplay_name = ""\nlocal_video_size = "bytes"\n'
    )
    found = names_in(path)
    assert (found.table, found.expired) == ("items", frozenset({"purged"}))
    assert found.columns == {name: name for name in COLUMNS if name != "display_name"} | {
        "id": "item",
        "local_video_size": "bytes",
    }
    path.write_text("")
    assert names_in(path) == Names()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tables = 1", "tables: there is no such key; there are table, expired, columns"),
        ("[columns]\nname = 'x'", r"columns\.name: there is no such key; there are id, user_id"),
        ("[columns]\nid = ''", r"columns\.id is needed"),
        ("[columns]\nid = 7", r"columns\.id is the name of a column"),
        ("table = 7", "table is a name"),
        ("columns = 7", "columns is a table"),
        ("expired = 'x'", "expired is a list"),
        ("table = \n", "line 1"),
        ("[columns]\n" + "".join(f"{name} = ''\n" for name in COLUMNS[4:8]), "none of the columns"),
    ],
)
def test_a_wrong_name_is_told_with_the_file(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "columns.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"columns\.toml: .*{told}"):
        names_in(path)
    with pytest.raises(ConfigError, match="it cannot be read"):
        names_in(tmp_path)
