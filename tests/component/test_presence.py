"""stores/presence.py: what a root holds, where a disk may not have come up."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from recfs.errors import NotAStore, StoreError
from recfs.stores import presence
from recfs.stores.local import LocalStore

from .build import Filesystem


@pytest.mark.parametrize("there", ["nothing", "directory", "private", "empty catalogue"])
def test_a_directory_without_a_store(tmp_path: Path, there: str) -> None:
    root = tmp_path / "root"
    if there != "nothing":
        root.mkdir()
    if there in ("private", "empty catalogue"):
        (root / ".recfs").mkdir()
    if there == "empty catalogue":
        (root / ".recfs/catalogue.db").touch()
    before = sorted(tmp_path.rglob("*"))
    presence.require(root, existing=False)
    with pytest.raises(NotAStore, match=r"is its disk mounted\?"):
        presence.require(root, existing=True)
    assert sorted(tmp_path.rglob("*")) == before


async def test_half_of_a_store_is_refused_whatever_is_asked(fs: Filesystem) -> None:
    fs.checked_at_end = False
    await fs.stop()
    presence.require(fs.root, existing=True)
    shutil.rmtree(fs.root / "users")
    presence.require(fs.root, existing=True)
    for top in ("shared", "temp"):
        shutil.rmtree(fs.root / top)
    for existing in (False, True):
        with pytest.raises(StoreError, match="all its disks"):
            presence.require(fs.root, existing=existing)
    (fs.root / "users").mkdir()
    presence.require(fs.root, existing=True)


def test_a_root_that_cannot_be_looked_into(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is its disk mounted"):
        presence.require(tmp_path / "file", existing=False)


def test_a_new_root_is_its_daemons_own(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "new/root")
    store.open()
    store.close()
    assert stat.S_IMODE((tmp_path / "new/root").stat().st_mode) == 0o700


@pytest.mark.parametrize("closed", ["nothing", "root", "above"])
def test_a_root_that_users_can_enter_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
    modes = {"root": 0o755, "above": 0o755, "/": 0o755}
    if closed != "nothing":
        modes[closed] = 0o700

    def looked_at(path: Path) -> SimpleNamespace:
        return SimpleNamespace(st_uid=0, st_mode=stat.S_IFDIR | modes[path.name or "/"])

    monkeypatch.setattr(os.path, "realpath", lambda path: path)
    monkeypatch.setattr(Path, "stat", looked_at)
    assert presence.is_exposed(Path("/above/root")) is (closed == "nothing")


@pytest.mark.expect_log(r"users can enter it .*chmod 700")
def test_a_root_that_users_can_enter_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "is_exposed", lambda root: True)
    store = LocalStore(tmp_path / "root")
    store.open()
    store.close()
