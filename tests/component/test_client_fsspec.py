"""recfs:// for fsspec: fsspec's own generic tests over a plain directory, and what is recfs's own."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests import abstract

from recfs.client import InvalidName, NotAMount
from recfs.client.filesystem import RecfsFileSystem

from .client import REC, all_below


class Fixtures(abstract.AbstractFixtures):
    """What fsspec's tests are to run on."""

    @pytest.fixture
    def fs(self, scratch: Path) -> RecfsFileSystem:
        (scratch / "root" / REC).mkdir(parents=True)
        return RecfsFileSystem(root=scratch / "root")

    @pytest.fixture
    def fs_path(self) -> str:
        return str(REC)

    @pytest.fixture
    def fs_join(self) -> Any:
        return lambda *args: "/".join(args)

    @pytest.fixture
    def local_path(self, scratch: Path) -> str:
        (scratch / "local").mkdir()
        return str(scratch / "local")

    @pytest.fixture
    def local_fs(self) -> LocalFileSystem:
        return LocalFileSystem(auto_mkdir=True)


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, Fixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):
    pass


# --- recfs's own -------------------------------------------------------------------------------------------------

FILE = f"{REC}/assets/a.txt"


@pytest.fixture
def root(scratch: Path) -> Path:
    (scratch / "root").mkdir()
    return scratch / "root"


@pytest.fixture
def fs(root: Path) -> RecfsFileSystem:
    return RecfsFileSystem(root=root)


def test_it_is_found_by_its_protocol(root: Path) -> None:
    with fsspec.open(f"recfs://{FILE}", "w", root=str(root)) as file:
        file.write("found")
    assert (root / FILE).read_text() == "found"
    assert type(fsspec.filesystem("recfs", root=str(root))) is RecfsFileSystem
    assert fsspec.filesystem("recfs", root=root).unstrip_protocol(FILE) == f"recfs://{FILE}"


class Handles:
    """As pandas has them: what `OpenFile.open` gave is closed when the block is left, however that is."""

    def __init__(self, url: str, mode: str, **options: Any) -> None:
        self._opened = fsspec.open(url, mode, **options)
        self._file = self._opened.open()

    def __enter__(self) -> Any:
        return self._file

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._opened.close()


def half(opened: Any, data: str | bytes) -> None:
    """Write a part of a file, and fail."""
    with opened as file:
        file.write(data)
        file.flush()
        raise ZeroDivisionError


@pytest.mark.parametrize("way", [fsspec.open, Handles])
@pytest.mark.parametrize(("mode", "options"), [("w", {}), ("wb", {}), ("xb", {}), ("wb", {"compression": "gzip"})])
def test_a_block_that_raises_leaves_nothing_also_where_the_file_is_not_told(
    root: Path, way: Any, mode: str, options: dict[str, str]
) -> None:
    path = root / FILE
    before = b""
    if "w" in mode:
        before = b"before"
        path.parent.mkdir(parents=True)
        path.write_bytes(before)
    with pytest.raises(ZeroDivisionError):
        half(way(f"recfs://{FILE}", mode, root=str(root), **options), "half" if mode == "w" else b"half")
    assert [(root / each).read_bytes() for each in all_below(root)] == [before] * bool(before)
    path.unlink(missing_ok=True)
    with way(f"recfs://{FILE}", mode, root=str(root), **options) as file:
        file.write("all" if mode == "w" else b"all")
    with fsspec.open(f"recfs://{FILE}", "rb", root=str(root), **options) as file:
        assert file.read() == b"all"


def test_what_is_closed_while_another_error_is_handled_is_shown(root: Path) -> None:
    """The program knows of that error, and goes on: it is none of the file's."""

    class Reporting:
        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: object, error: object, trace: object) -> None:
            with fsspec.open(f"recfs://{REC}/report", "w", root=str(root)) as file:
                file.write(f"{error}")

    with pytest.raises(ValueError, match="why"), Reporting():
        raise ValueError("why")
    assert (root / REC / "report").read_text() == "why"
    file = fsspec.open(f"recfs://{FILE}", "wb", root=str(root)).open()
    try:
        file.write(b"all there is")
        next(iter(()))
    except StopIteration:
        file.close()
    assert (root / FILE).read_bytes() == b"all there is"


def test_which_mount_is_meant_may_be_said_by_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECFS_MOUNTPOINT", str(root))
    with pytest.raises(NotAMount, match="there is no recfs mount"):
        RecfsFileSystem()
    monkeypatch.setattr("recfs.client.places.store_root", lambda path: Path("/srv/recfs"))
    assert RecfsFileSystem().root == root
    monkeypatch.setenv("RECFS_MOUNTPOINT", "")
    monkeypatch.setattr("recfs.client.places._MOUNTINFO", root / "mountinfo")
    (root / "mountinfo").write_text("1 2 0:3 / / rw - ext4 /dev/sda rw\n")
    with pytest.raises(NotAMount, match="there is no recfs mount"):
        RecfsFileSystem()
    (root / "mountinfo").write_text("1 2 0:3 / /mnt/a\\040b rw - fuse.recfs recfs rw\n")
    assert RecfsFileSystem().root == Path("/mnt/a b")
    (root / "mountinfo").write_text("".join(f"1 2 0:3 / /mnt/{each} rw - fuse.recfs recfs rw\n" for each in "ab"))
    with pytest.raises(NotAMount, match="there are 2 recfs mounts"):
        RecfsFileSystem()


@pytest.mark.parametrize("mode", ["w", "wb", "x", "xb"])
def test_a_file_is_seen_when_it_is_whole_and_not_after_an_error(fs: RecfsFileSystem, root: Path, mode: str) -> None:
    told: Any = b"half" if "b" in mode else "half"
    with fs.open(FILE, mode) as file:
        file.write(told)
        file.flush()
        assert not fs.exists(FILE)
    assert fs.cat(FILE) == b"half"
    fs.rm(FILE)
    with pytest.raises(RuntimeError), fs.open(FILE, mode) as file:  # noqa: PT012 - what is written first is the point
        file.write(told)
        raise RuntimeError
    left = fs.open(FILE, mode)
    left.write(told)
    del left
    assert all_below(root) == []


def test_who_makes_a_file_that_must_be_new_replaces_none(fs: RecfsFileSystem, root: Path) -> None:
    fs.pipe_file(FILE, b"old")
    with pytest.raises(FileExistsError):
        fs.open(FILE, "xb")
    fs.rm(FILE)
    file = fs.open(FILE, "xb")
    fs.pipe_file(FILE, b"came first")
    with pytest.raises(FileExistsError):
        file.close()
    assert fs.cat(FILE) == b"came first"
    assert all_below(root) == [FILE]


def test_a_transaction_shows_all_or_nothing(fs: RecfsFileSystem, root: Path) -> None:
    with fs.transaction:
        for name in "ab":
            fs.pipe_file(f"{REC}/{name}", b"x")
            assert not fs.exists(f"{REC}/{name}")
    assert all_below(root) == [f"{REC}/a", f"{REC}/b"]
    with pytest.raises(RuntimeError), fs.transaction:  # noqa: PT012 - what is written first is the point
        fs.pipe_file(f"{REC}/c", b"x")
        raise RuntimeError
    assert all_below(root) == [f"{REC}/a", f"{REC}/b"]


@pytest.mark.parametrize("mode", ["wb", "wt", "xb"])
@pytest.mark.parametrize("compression", ["gzip", "infer", "bz2"])
def test_what_is_compressed_on_its_way_is_there_when_it_is_closed(
    fs: RecfsFileSystem, root: Path, mode: str, compression: str
) -> None:
    """A compressor that is given a file does not close it."""
    name, told = f"{REC}/a.csv.{'bz2' if compression == 'bz2' else 'gz'}", b"told" if "b" in mode else "told"
    with fs.open(name, mode, compression=compression) as file:
        file.write(told)
        assert not fs.exists(name)
    assert (bz2 if compression == "bz2" else gzip).decompress(fs.cat(name)) == b"told"
    fs.rm(name)
    file = fs.open(name, mode, compression=compression)
    file.write(told)
    file.close()
    file.close()
    assert all_below(root) == [name]
    fs.rm(name)
    with pytest.raises(RuntimeError), fs.open(name, mode, compression=compression) as file:  # noqa: PT012
        file.write(told)
        raise RuntimeError
    left = fs.open(name, mode, compression=compression)
    left.write(told)
    del left
    with pytest.raises(RuntimeError), fs.transaction:  # noqa: PT012
        with fs.open(name, mode, compression=compression) as file:
            file.write(told)
        raise RuntimeError
    assert all_below(root) == []
    with fs.transaction, fs.open(name, mode, compression=compression) as file:
        file.write(told)
    assert all_below(root) == [name]


def test_who_reads_a_directory_finds_no_half_of_a_file(fs: RecfsFileSystem, root: Path) -> None:
    """fsspec's patterns take names with a leading dot, too."""
    fs.pipe_file(f"{REC}/whole.csv", b"1,2")
    files = [fs.open(f"{REC}/{name}", "wb") for name in ("half.csv", ".csv", "half", "two\nlines.csv")]
    for file in files:
        file.write(b"1")
        file.flush()
    assert len(all_below(root)) == 5
    assert fs.glob(f"{REC}/*.csv") == fs.find(REC) == fs.ls(REC, detail=False) == [f"{REC}/whole.csv"]
    assert [names for *_, names in fs.walk(REC)] == [["whole.csv"]]
    for file in files:
        file.discard()
    fs.open(f"{REC}/dead.csv", "wb").write(b"left by a writer that died")
    fs.rm(REC, recursive=True)
    assert all_below(root) == []


@pytest.mark.parametrize("path", ["", "/", "recfs://", ["users", "/"]])
def test_the_whole_tree_is_not_removed_by_an_empty_path(fs: RecfsFileSystem, root: Path, path: str) -> None:
    fs.pipe_file(FILE, b"x")
    with pytest.raises(InvalidName):
        fs.rm(path, recursive=True)
    assert all_below(root) == [FILE]


def test_files_are_changed_in_place_where_that_is_asked_for(fs: RecfsFileSystem) -> None:
    with fs.open(FILE, "ab") as file:
        file.write(b"one")
    with fs.open(FILE, "a") as file:
        file.write("two")
    with fs.open(FILE, "r+b") as file:
        file.write(b"O")
    assert fs.cat(FILE) == b"Onetwo"
    fs.touch(FILE, truncate=False)
    assert fs.size(FILE) == 6
    fs.touch(FILE)
    assert fs.size(FILE) == 0


def test_writers_that_go_back_work(fs: RecfsFileSystem) -> None:
    with fs.open(FILE, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", "b")
    assert zipfile.ZipFile(io.BytesIO(fs.cat(FILE))).read("a") == b"b"


def test_renames_are_one_step_and_keep_the_file(fs: RecfsFileSystem, root: Path) -> None:
    fs.pipe_file(FILE, b"x")
    ino = (root / FILE).stat().st_ino
    fs.mv(FILE, f"{REC}/deeper/b.txt")
    assert (root / REC / "deeper/b.txt").stat().st_ino == ino
    fs.mv(f"{REC}/deeper", "users/5/recordings/143")
    assert (root / "users/5/recordings/143/b.txt").stat().st_ino == ino
    with pytest.raises(FileNotFoundError):
        fs.mv(FILE, f"{REC}/x")


@pytest.mark.parametrize(
    "path", ["../outside", f"{REC}/../../../../x", f"{REC}/a\0b", f"{REC}/./a", f"{REC}//a", "n" * 256]
)
def test_nothing_leaves_the_tree(fs: RecfsFileSystem, root: Path, path: str) -> None:
    (root.parent / "outside").write_bytes(b"secret")
    for call in (fs.cat_file, fs.info, fs.rm_file, fs.mkdir, lambda each: fs.pipe_file(each, b"x")):
        with pytest.raises(InvalidName):
            call(path)
    assert all_below(root.parent) == ["outside"]


def test_links_are_told_and_not_followed(fs: RecfsFileSystem, root: Path) -> None:
    (root / REC).mkdir(parents=True)
    (root / REC / "link").symlink_to("/etc/passwd")
    (root / REC / "folder").symlink_to("/etc")
    assert {each["name"]: (each["type"], each["islink"]) for each in fs.ls(str(REC))} == {
        f"{REC}/link": ("other", True), f"{REC}/folder": ("other", True),
    }  # fmt: skip
    with pytest.raises(OSError, match="symbolic links"):
        fs.cat_file(f"{REC}/link")
    with pytest.raises(FileNotFoundError):
        fs.info(f"{REC}/folder/passwd")
    with pytest.raises(NotADirectoryError):
        fs.cat_file(f"{REC}/folder/passwd")
    fs.rm(str(REC), recursive=True)
    assert os.path.exists("/etc/passwd")
    assert all_below(root) == []


def test_no_descriptor_is_left(fs: RecfsFileSystem, root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    fs.pipe_file(FILE, b"x")
    fs.cp_file(FILE, f"{REC}/b")
    fs.cat_file(FILE)
    fs.find("")
    fs.info("")
    for wrong in (str(REC), ""):
        with pytest.raises(IsADirectoryError):
            fs.open(wrong, "rb")
    with pytest.raises(OSError, match="directory"):
        fs.pipe_file(str(REC), b"x")
    fs.rm("users", recursive=True)
    assert len(os.listdir("/proc/self/fd")) == before
    assert fs.ls("") == []


class TestNames(Fixtures):
    """A name that is there is no pattern."""

    @pytest.mark.parametrize("name", ["*", "test?file.txt", "file[1].txt", "[a-z]*"])
    def test_only_what_is_named_is_removed_or_moved(self, fs: RecfsFileSystem, fs_path: str, name: str) -> None:
        others = [f"{fs_path}/{each}" for each in ("a", "test_file.txt", "file1.txt", "b", "test1file.txt")]
        for each in (*others, f"{fs_path}/{name}"):
            fs.pipe_file(each, b"x")
        fs.mv(f"{fs_path}/{name}", f"{fs_path}/moved")
        assert fs.cat_file(f"{fs_path}/moved") == b"x"
        assert sorted(fs.ls(fs_path, detail=False)) == sorted([*others, f"{fs_path}/moved"])
        fs.pipe_file(f"{fs_path}/{name}", b"x")
        fs.rm(f"{fs_path}/{name}")
        assert sorted(fs.ls(fs_path, detail=False)) == sorted([*others, f"{fs_path}/moved"])
        fs.pipe_file(f"{fs_path}/{name}/inside/file", b"x")
        fs.rm([f"{fs_path}/{name}", f"{fs_path}/moved"], recursive=True)
        assert sorted(fs.ls(fs_path, detail=False)) == sorted(others)

    def test_patterns_are_patterns_where_nothing_has_their_name(self, fs: RecfsFileSystem, fs_path: str) -> None:
        for each in ("a.txt", "b.txt", "c.json"):
            fs.pipe_file(f"{fs_path}/{each}", b"x")
        fs.rm(f"{fs_path}/*.txt")
        assert fs.ls(fs_path, detail=False) == [f"{fs_path}/c.json"]

    def test_parts_of_files_are_read_by_their_size(self, fs: RecfsFileSystem, fs_path: str) -> None:
        fs.pipe_file(f"{fs_path}/lines", b"one\ntwo\nthree")
        assert fs.cat_file(f"{fs_path}/lines", start=-5) == b"three"
        assert fs.cat_file(f"{fs_path}/lines", end=-6) == b"one\ntwo"
        assert fs.read_block(f"{fs_path}/lines", 1, 4, delimiter=b"\n") == b"two\n"
        assert fs.read_block(f"{fs_path}/lines", 4, None) == b"two\nthree"

    @pytest.mark.parametrize("mode", ["w+b", "a+b", "x+b", "rb+"])
    def test_a_mode_that_there_is_not_is_refused_in_a_sentence(
        self, fs: RecfsFileSystem, fs_path: str, mode: str
    ) -> None:
        with pytest.raises(ValueError, match="files are opened with rb, wb, xb, ab or"):
            fs.open(f"{fs_path}/x", mode)
        assert fs.ls(fs_path) == []
