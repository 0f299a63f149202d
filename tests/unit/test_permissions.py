"""Who may do what by mode bits: the same as the kernel says of a local file system."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from recfs.core.permissions import (
    READ,
    SEARCH,
    WRITE,
    Identity,
    allows,
    is_sticky_for,
    may_give,
    mode_given,
    owns,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other users")

ROOT, OWNER, MEMBER, FRIEND, OTHER = (
    Identity(0, 0),
    Identity(1001, 1001),
    Identity(1002, 2000),
    Identity(1003, 1003, frozenset({2000, 7})),
    Identity(1004, 1004),
)
WHO = (ROOT, OWNER, MEMBER, FRIEND, OTHER)
GROUP = 2000


class Seen(NamedTuple):
    """What has an owner and a mode."""

    mode: int
    uid: int
    gid: int


def seen(path: Path) -> Seen:
    """As it lies on the disk."""
    found = path.lstat()
    return Seen(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def as_user(who: Identity, *acts: Callable[[], object]) -> list[int]:
    """Let a process of that user do something; the error number of each, or 0."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups(sorted(who.groups))
            os.setresgid(who.gid, who.gid, who.gid)
            os.setresuid(who.uid, who.uid, who.uid)
            for act in acts:
                try:
                    act()
                except OSError as error:
                    os.write(writing, bytes([error.errno or 255]))
                else:
                    os.write(writing, b"\0")
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        answers = list(file.read())
    os.waitpid(child, 0)
    assert len(answers) == len(acts)
    return answers


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user gets to, unlike those below `tmp_path`."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o711)
        yield Path(made)


def denied(path: Path, wanted: int) -> Callable[[], None]:
    """access(2), by the effective user."""

    def ask() -> None:
        if not os.access(path, wanted, effective_ids=True):
            raise PermissionError(errno.EACCES, "")

    return ask


@pytest.mark.parametrize("is_dir", [False, True], ids=["file", "directory"])
def test_every_mode_for_everybody(place: Path, is_dir: bool) -> None:
    paths = []
    for mode in range(0o1000):
        path = place / f"{mode:o}"
        path.mkdir() if is_dir else path.touch()
        os.chown(path, OWNER.uid, GROUP)
        path.chmod(mode)
        paths.append(path)
    wants = list(range(1, 8))
    for who in WHO:
        told = as_user(who, *(denied(path, wanted) for path in paths for wanted in wants))
        ours = [allows(seen(path), who, wanted, is_dir=is_dir) for path in paths for wanted in wants]
        assert [not each for each in told] == ours


def test_who_may_change_the_mode_and_which_one_it_becomes(place: Path) -> None:
    for who, group in itertools.product(WHO, (GROUP, OTHER.gid)):
        path = place / f"{who.uid}-{group}"
        path.touch()
        os.chown(path, OWNER.uid, group)
        before = seen(path)
        [told] = as_user(who, partial(path.chmod, 0o2755))
        assert (told == 0) == owns(before, who)
        assert told in (0, errno.EPERM)
        if not told:
            assert seen(path).mode == mode_given(0o2755, before.gid, who)
        [told] = as_user(who, partial(os.utime, path, ns=(1, 2)))
        assert (told == 0) == owns(before, who)


def test_who_may_give_it_away(place: Path) -> None:
    for who, uid, gid in itertools.product(WHO, (None, OWNER.uid, OTHER.uid), (None, OWNER.gid, GROUP, 7)):
        path = place / f"{who.uid}-{uid}-{gid}"
        path.touch()
        os.chown(path, OWNER.uid, OWNER.gid)
        if (uid, gid) == (None, None):
            continue
        before = seen(path)
        to = (-1 if uid is None else uid, -1 if gid is None else gid)
        [told] = as_user(who, partial(os.chown, path, *to))
        assert (told == 0) == may_give(before, who, uid, gid), (who, uid, gid)


def test_whose_names_go_from_a_sticky_directory(place: Path) -> None:
    for who, folder_uid, uid, mode in itertools.product(
        WHO, (0, OWNER.uid), (OWNER.uid, OTHER.uid), (0o1777, 0o777, 0o1770)
    ):
        folder = place / f"{who.uid}-{folder_uid}-{uid}-{mode:o}"
        folder.mkdir()
        (folder / "file").touch()
        os.chown(folder / "file", uid, uid)
        os.chown(folder, folder_uid, GROUP)
        folder.chmod(mode)
        parent, entry = seen(folder), seen(folder / "file")
        [told] = as_user(who, (folder / "file").unlink)
        if not allows(parent, who, WRITE | SEARCH, is_dir=True):
            assert told == errno.EACCES
        else:
            assert told == (errno.EPERM if is_sticky_for(parent, entry, who) else 0)


def test_the_words_are_those_of_access() -> None:
    assert (READ, WRITE, SEARCH) == (os.R_OK, os.W_OK, os.X_OK)
