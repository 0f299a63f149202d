"""A store whose own files cannot be changed is refused in words: what is in the way, and what helps."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from recfs.catalogue.connection import holders
from recfs.catalogue.opening import open_catalogue
from recfs.cli.common.exits import ExitCode
from recfs.errors import StoreError
from recfs.stores import obstacles
from recfs.stores.local import LocalStore
from tests.helpers.disks import disk
from tests.helpers.machine import NOBODY, skip

from .build import REC, filesystem

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE_BYTES = 64 << 20
FILES = ("catalogue.db", "catalogue.db-wal", "catalogue.db-shm", "lock")
AREAS = (".", "staging", "trash", "limbo", "lost+found")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of its own: not every file system has immutable files."""
    at = tmp_path / "disk"
    at.mkdir()
    if os.geteuid():
        skip("needs root")
    with disk("ext4", at, SIZE_BYTES) as why_not:
        if why_not is not None:
            skip(f"needs root: {why_not}")
        yield at / "store"


async def crashed(place: Path) -> Path:
    """A store whose daemon has gone, with log and index; its own directory."""
    async with filesystem(place) as fs:
        await fs.write(f"{REC}/file", b"bytes")
        await fs.drain()
        kept = {name: (fs.root / ".recfs" / name).read_bytes() for name in FILES[:3]}
        await fs.crash()
    for name, content in kept.items():
        (place / ".recfs" / name).write_bytes(content)
    return place / ".recfs"


def refusal(root: Path) -> str:
    """What a start says."""
    with pytest.raises(StoreError) as caught:
        begin(root)
    return str(caught.value)


def begin(root: Path) -> None:
    """What a start does first."""
    store = LocalStore(root)
    try:
        store.open()
        open_catalogue(store.catalogue_path, expect_new=not store.has_files()).close()
    finally:
        store.close()


@contextmanager
def flagged(path: Path, flag: str) -> Iterator[None]:
    """Give a file an attribute (chattr(1)) for a while."""
    subprocess.run(["chattr", f"+{flag}", path], check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run(["chattr", f"-{flag}", path], check=True, timeout=30)


async def test_immutable_files_and_directories_are_named_with_the_command_that_helps(place: Path) -> None:
    private = await crashed(place)
    for name in (*FILES, *AREAS):
        with flagged(private / name, "i"):
            told = refusal(place)
        assert f"{private / name} is immutable (chattr +i)" in told
        assert told.endswith(f"chattr -i {private / name}")
    for name in FILES:
        with flagged(private / name, "a"):
            assert refusal(place).endswith(f"chattr -a {private / name}")
    async with filesystem(place) as fs:
        assert await fs.read(f"{REC}/file") == b"bytes"


INSTEAD: dict[str, Callable[[Path], None]] = {
    "a directory": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a symbolic link": lambda path: path.symlink_to("elsewhere"),
}


async def test_what_stands_in_the_place_of_a_file_is_named(place: Path) -> None:
    private = await crashed(place)
    for name in FILES:
        for what, put in INSTEAD.items():
            (private / name).rename(private / "away")
            put(private / name)
            told = refusal(place)
            assert f"{private / name} is {what}, where a file has to be. Move it away" in told
            (private / name).rmdir() if what == "a directory" else (private / name).unlink()
            (private / "away").rename(private / name)
    (private / "control.sock").unlink(missing_ok=True)
    (private / "control.sock").mkdir()
    assert "control.sock is a directory, where a socket has to be" in refusal(place)


async def test_a_disk_that_is_mounted_read_only_is_told(place: Path) -> None:
    await crashed(place)
    subprocess.run(["mount", "-o", "remount,ro", place.parent], check=True, timeout=30)
    told = refusal(place)
    subprocess.run(["mount", "-o", "remount,rw", place.parent], check=True, timeout=30)
    assert "mounted read-only" in told
    assert "remount,rw" in told


async def test_another_owner_is_told(place: Path) -> None:
    private = await crashed(place)
    for path in (place.parent, place, private, *private.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    script = (
        "import os; from pathlib import Path; from recfs.stores import obstacles;"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); obstacles.require_inside(Path())"
    )  # from within: what is above may be closed to them
    for name in FILES:
        os.chown(private / name, 0, 0)
        os.chmod(private / name, 0o600)
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=private, env={"PYTHONPATH": str(REPOSITORY)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert f"{name} may not be changed by user nobody: it belongs to root, mode 0600" in done.stderr
        assert f"chown nobody {name}" in done.stderr
        os.chown(private / name, NOBODY, NOBODY)


@pytest.mark.parametrize("how", ["begin immediate", "pragma locking_mode = exclusive"])
async def test_a_catalogue_that_another_program_has_locked_names_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    private = await crashed(place)
    script = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); db.execute(sys.argv[2]);"
        "db.in_transaction or db.execute('begin immediate'); db.execute('delete from view'); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, private / "catalogue.db", how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        monkeypatch.setattr(sqlite3, "connect", impatient(sqlite3.connect))
        assert f"(process {other.pid})" in holders(private / "catalogue.db")
        told = refusal(place)
        other.communicate(b"\n", timeout=30)
    assert "is locked by another program" in told
    assert f"(process {other.pid})" in told
    assert "backup" not in told
    open_catalogue(private / "catalogue.db", expect_new=False).close()


def impatient(connect: Callable[..., sqlite3.Connection]) -> Callable[..., sqlite3.Connection]:
    """sqlite3.connect that waits for nobody."""

    def connected(*args: object, **kwargs: object) -> sqlite3.Connection:
        return connect(*args, **(kwargs | {"timeout": 0}))  # type: ignore[arg-type]

    return connected


async def test_commands_without_a_daemon_say_it_too(place: Path) -> None:
    private = await crashed(place)
    commands = (["status"], ["quota", "check"], ["ls-files"], ["quota", "set", "5", "--max-files", "1"], ["drain"])
    with flagged(private / "catalogue.db", "i"):
        codes = {}
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", "recfs", *command, "--root", place],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            codes[" ".join(command)] = done.returncode
            assert done.returncode != ExitCode.BUG, (command, done.stderr)
            assert done.returncode == 0 or "chattr -i" in done.stderr or "no daemon" in done.stderr, done.stderr
    assert codes["quota set 5 --max-files 1"] == ExitCode.STORE


def test_a_file_that_is_not_there_is_no_obstacle(tmp_path: Path) -> None:
    assert obstacles.obstacle(tmp_path / "nothing", 0) is None
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    with closing(sqlite3.connect(tmp_path / "catalogue.db")):
        assert holders(tmp_path / "catalogue.db") == ""
