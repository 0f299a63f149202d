"""The next daemon is another version of recfs, with another schema of the catalogue, while files are open."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from recfs.catalogue.earlier import kept as copies
from recfs.catalogue.migrations import NEWEST

from .clients import Peer, sha256_of, state, xattr
from .harness import BASE_CONFIG, REPOSITORY, Mount, mounted
from .test_kept import kept

__all__ = ["kept"]

pytestmark = [pytest.mark.modes("auto", "off"), pytest.mark.timeout(240)]

_STEP = '''

@steps(name="9999_later")
def later(db: Database) -> None:
    """Another schema."""
    db.execute("create table later (x integer primary key) strict")
    db.execute("insert into {table} values (1)")

'''


@pytest.fixture
def version(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """What starts a version of recfs with one step more, which writes to a table of that name."""

    def made(table: str) -> tuple[str, ...]:
        top = tmp_path / table
        shutil.copytree(REPOSITORY / "recfs", top / "recfs", ignore=shutil.ignore_patterns("__pycache__"))
        module = top / "recfs/catalogue/migrations.py"
        text = module.read_text().replace(f'NEWEST = "{NEWEST}"', 'NEWEST = "9999_later"')
        before, mark, after = text.partition("def split_statements")
        module.write_text(before.rstrip() + "\n" + _STEP.format(table=table) + "\n" + mark + after)
        return ("env", "-C", str(top))

    return made


def ended(store: Mount, how: str) -> None:
    """The daemon is gone, and its mount kept."""
    if how == "kill":
        store.kill(unmount=False)
        store.expect_log("the daemon before this one died")
    else:
        assert store.process is not None
        store.call("leave")
        assert store.process.wait(60) == 0
        store.forsake()
    assert mounted(store.path)


def step(store: Mount) -> str:
    """The last that its catalogue has gone through."""
    with closing(sqlite3.connect(store.root / ".recfs/catalogue.db")) as db:
        return str(db.execute("select max(name) from _sqlite_migrations where migration_set = 'recfs'").fetchone()[0])


@pytest.mark.parametrize("how", ["leave", "kill"])
def test_a_later_version_changes_the_schema_while_a_file_is_written(
    kept: Mount, version: Callable[[str], tuple[str, ...]], how: str
) -> None:
    rec = kept.recording()
    keeper, later = kept.started.keeper, version("later")
    with Peer() as peer:
        peer.open(rec / "file", os.O_RDWR | os.O_CREAT)
        peer("os.write(fd, b'before ')")
        ended(kept, how)
        kept.start(config=BASE_CONFIG, keeper=keeper, prefix=later)
        assert step(kept) == "9999_later"
        (copy,) = copies(kept.root / ".recfs/catalogue.db")
        assert NEWEST.partition("_")[0] in copy.name
        peer("os.write(fd, b'after'); os.close(fd)")
    kept.drain()
    assert (rec / "file").read_bytes() == b"before after"
    assert state(rec / "file") == "committed"
    assert xattr(rec / "file", "sha256") == sha256_of(rec / "file")


@pytest.mark.modeless
@pytest.mark.parametrize("how", ["leave", "kill"])
def test_a_later_version_that_fails_at_that_leaves_the_store_to_the_earlier_one(
    kept: Mount, version: Callable[[str], tuple[str, ...]], how: str
) -> None:
    """The mount is lost, what was written is not."""
    rec = kept.recording()
    (rec / "done").write_bytes(b"done")
    keeper, later = kept.started.keeper, version("nowhere")
    with Peer() as peer:
        peer.open(rec / "file", os.O_RDWR | os.O_CREAT)
        peer("os.write(fd, b'before')")
        ended(kept, how)
        process = kept.spawn(kept.started._replace(prefix=later), kept.base / "notify", debug=False)
        assert process.wait(60) == 4
        assert "could not be brought up to date" in kept.log()
        assert step(kept) == NEWEST
        assert not mounted(kept.path)
        with pytest.raises(OSError):
            peer("os.fsync(fd); os.stat(path)")
    kept.start(config=BASE_CONFIG, keeper=keeper)
    kept.drain()
    assert (rec / "done").read_bytes() == b"done"
    assert (rec / "file").read_bytes() == b"before"
