"""A catalogue of an earlier version is kept before it is brought up to date, and a newer one is refused."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from recfs.catalogue import copying, earlier, migrations
from recfs.catalogue.copying import CatalogueCopies
from recfs.catalogue.earlier import KEPT, kept
from recfs.catalogue.opening import open_catalogue
from recfs.errors import CatalogueCorrupt, StoreError, StoreFull
from tests.helpers.disks import disk

pytestmark = pytest.mark.all_steps

STORED = Path(__file__).with_name("catalogues")
VERSIONS = sorted(path.stem for path in STORED.glob("*.sql"))
EARLIER, NOW = VERSIONS[-2:]


def stored(path: Path, version: str = EARLIER) -> None:
    """Make the catalogue that a dump tells of."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript((STORED / f"{version}.sql").read_text())
        db.execute("pragma journal_mode = wal")


def step_of(path: Path) -> str:
    return CatalogueCopies().check(path, lambda: False).schema


def rows_of(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    return tmp_path / "catalogue.db"


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_it_is_kept_as_it_was(catalogue: Path, version: str) -> None:
    stored(catalogue, version)
    before = rows_of(catalogue)
    open_catalogue(catalogue, expect_new=False).close()
    (copy,) = kept(catalogue)
    assert copy.name.startswith(f"catalogue.db.before-upgrade-{version}-2")
    assert step_of(copy).startswith(version)
    assert step_of(catalogue) == migrations.NEWEST
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [each.name for each in catalogue.parent.iterdir() if "upgrade" in each.name] == [copy.name]
    assert rows_of(copy) == before


def test_what_only_the_log_has_is_kept_too(catalogue: Path) -> None:
    stored(catalogue)
    with closing(sqlite3.connect(catalogue)) as writer:
        writer.execute("pragma wal_autocheckpoint = 0")
        with writer:
            writer.execute("insert into meta values ('only', 'in the log')")
        assert Path(f"{catalogue}-wal").stat().st_size
        copy = earlier.keep_earlier(catalogue, "0009_trash")
    assert copy is not None
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("select value from meta where key = 'only'").fetchone() == ("in the log",)


def test_nothing_is_kept_of_one_that_is_new_or_up_to_date(catalogue: Path) -> None:
    open_catalogue(catalogue).close()
    open_catalogue(catalogue, expect_new=False).close()
    assert kept(catalogue) == []


def test_a_scratch_copy_is_not_kept(catalogue: Path) -> None:
    stored(catalogue)
    open_catalogue(catalogue, expect_new=False, keep=False).close()
    assert step_of(catalogue) == migrations.NEWEST
    assert kept(catalogue) == []


def test_one_that_was_not_made_to_its_end_is_brought_up_to_date_all_the_same(catalogue: Path) -> None:
    stored(catalogue)
    with closing(sqlite3.connect(catalogue)) as db, db:
        db.execute("delete from node")
    open_catalogue(catalogue).close()
    assert step_of(catalogue) == migrations.NEWEST
    assert kept(catalogue) == []


def test_the_newest_are_kept(catalogue: Path) -> None:
    def number_in(copy: Path) -> int:
        with closing(sqlite3.connect(f"file:{copy}?mode=ro&immutable=1", uri=True)) as db:
            return int(db.execute("select value from meta where key = 'number'").fetchone()[0])

    for number in range(KEPT + 2):
        for each in kept(catalogue):  # as if a day lay between them
            info = each.stat()
            os.utime(each, ns=(info.st_atime_ns, info.st_mtime_ns - 86_400 * 10**9))
        for end in ("", "-wal", "-shm"):
            Path(f"{catalogue}{end}").unlink(missing_ok=True)
        stored(catalogue)
        with closing(sqlite3.connect(catalogue)) as db, db:
            db.execute("insert into meta values ('number', ?)", (str(number),))
        open_catalogue(catalogue, expect_new=False).close()
    assert [number_in(each) for each in kept(catalogue)] == [4, 3, 2]


# --- deaths, and disks that refuse ---------------------------------------------------------------------------------


class Died(BaseException):
    """A death at that point."""


def once(call: Callable[..., Any], skip: int) -> Callable[..., Any]:
    """*call* dies after *skip* calls, before it has done anything."""
    left = [skip]

    def dying(*args: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == -1:
            raise Died
        return call(*args, **named)

    return dying


@pytest.mark.parametrize(
    ("where", "skip"),
    [("fsync", 0), ("fsync", 1), ("rename", 0), ("apply", 0), ("unlink", 0)],
    ids=lambda each: str(each),
)
def test_a_death_at_any_step_leaves_the_one_or_the_other(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch, where: str, skip: int
) -> None:
    stored(catalogue)
    before = rows_of(catalogue)
    with monkeypatch.context() as patched:
        if where == "apply":
            patched.setattr(migrations.steps, "apply", once(migrations.steps.apply, skip))
        else:
            patched.setattr(earlier.os, where, once(getattr(os, where), skip))
        with pytest.raises(Died):
            open_catalogue(catalogue, expect_new=False)
    assert rows_of(catalogue) == before
    open_catalogue(catalogue, expect_new=False).close()
    (copy,) = kept(catalogue)
    assert rows_of(copy) == before
    assert step_of(catalogue) == migrations.NEWEST


def test_an_update_that_fails_again_and_again_makes_one_copy(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(catalogue)
    before = rows_of(catalogue)

    def failing(*_args: Any) -> None:
        raise sqlite3.OperationalError("it does not work")

    with monkeypatch.context() as patched:
        patched.setattr(migrations.steps, "apply", failing)
        for _ in range(KEPT + 1):
            with pytest.raises(StoreError):
                open_catalogue(catalogue, expect_new=False)
    (copy,) = kept(catalogue)
    assert rows_of(catalogue) == rows_of(copy) == before


@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_refuses_the_copy_leaves_the_catalogue_as_it_was(
    catalogue: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    stored(catalogue)
    before = rows_of(catalogue)

    def refused(*_args: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(earlier.os, call, refused)
        with pytest.raises(StoreError, match="Nothing was changed") as raised:
            open_catalogue(catalogue, expect_new=False)
    assert isinstance(raised.value, StoreFull) == (code == errno.ENOSPC)
    assert rows_of(catalogue) == before
    assert [each.name for each in catalogue.parent.iterdir() if "upgrade" in each.name] == []


def test_without_room_for_the_copy_nothing_is_changed(tmp_path: Path) -> None:
    """On a small disk that another program fills."""
    small = tmp_path / "small"
    small.mkdir()
    with disk("tmpfs", small, 4 << 20) as why_not:
        assert why_not is None, why_not
        catalogue = small / "catalogue.db"
        stored(catalogue)
        with closing(sqlite3.connect(catalogue)) as db, db:
            db.execute("insert into meta values ('ballast', ?)", ("x" * (1 << 20),))
        with contextlib.closing(sqlite3.connect(catalogue)) as db:
            db.execute("pragma wal_checkpoint(truncate)")
        before = rows_of(catalogue)
        free = os.statvfs(small)
        (small / "others").write_bytes(bytes(free.f_bavail * free.f_frsize - (512 << 10)))
        with pytest.raises(StoreFull, match=r"no room for that: it takes 1\.\d MiB.*Nothing was changed"):
            open_catalogue(catalogue, expect_new=False)
        assert rows_of(catalogue) == before
        assert not [each.name for each in small.iterdir() if "upgrade" in each.name]
        (small / "others").unlink()
        open_catalogue(catalogue, expect_new=False).close()
        assert step_of(catalogue) == migrations.NEWEST
        assert len(kept(catalogue)) == 1


def test_a_copy_that_is_not_what_was_read_is_not_relied_on(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(catalogue)
    before = rows_of(catalogue)
    contents = copying._contents
    calls = []

    def differing(db: sqlite3.Connection) -> Any:
        calls.append(db)
        held = contents(db)
        return held if len(calls) < 2 else type(held)(held.store, held.generation + 1, held.schema, held.rows)

    with monkeypatch.context() as patched:
        patched.setattr(copying, "_contents", differing)
        with pytest.raises(StoreError, match="is not what was read"):
            open_catalogue(catalogue, expect_new=False)
    assert rows_of(catalogue) == before
    assert kept(catalogue) == []


# --- newer ---------------------------------------------------------------------------------------------------------


def test_a_newer_catalogue_is_refused_and_neither_changed_nor_copied(catalogue: Path) -> None:
    stored(catalogue, NOW)
    with closing(sqlite3.connect(catalogue)) as db, db:
        db.execute(
            "insert into _sqlite_migrations (migration_set, name, applied_at) values ('recfs', '9999_later', 'x')"
        )
    before = rows_of(catalogue)
    with pytest.raises(
        CatalogueCorrupt, match=r"written by a newer recfs .step 9999_later.; install that version or newer"
    ):
        open_catalogue(catalogue, expect_new=False)
    assert rows_of(catalogue) == before
    assert kept(catalogue) == []
