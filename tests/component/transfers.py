"""Transfers between plain directories: a place that stands for a mount, and a daemon that remembers what it is told."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recfs.errors import NotFound
from recfs.migration.transfer.beneath import opened
from recfs.migration.transfer.bringing import Bringing
from recfs.migration.transfer.items import Item, Outcome, Problem, Source
from recfs.migration.transfer.placing import PlainPlace
from recfs.migration.transfer.tars import TarSource
from recfs.migration.transfer.trees import TreeSource, open_tree
from recfs.migration.transfer.walking import Walk, own_attributes


class Mounted(PlainPlace):
    """Keeps attributes, as a mount does."""

    keeps_attributes = True
    gives_owners = True


class Daemon:
    """What a store was told, by user and by recording."""

    def __init__(self) -> None:
        self.limits: dict[str, dict[str, Any]] = {}
        self.lives: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []

    def __call__(self, method: str, **params: Any) -> Any:
        self.asked.append(method)
        return getattr(self, method)(**params)

    def quota_show(self, user: str) -> list[dict[str, Any]]:
        if user not in self.limits:
            raise NotFound(f"user {user}")
        return [{"own_limits": self.limits[user]}]

    def quota_set(self, user: str, **limits: Any) -> None:
        self.limits.setdefault(user, {}).update(limits)

    def recording_show(self, path: str) -> dict[str, Any]:
        new = {"status": "active", "expires_at_ns": None, "keep": False, "note": ""}
        return self.lives.setdefault(path, new)

    def recording_set_expiry(self, path: str, date: str, note: str | None = None) -> dict[str, Any]:
        return self._say(path, note, expires_at_ns=int(date))

    def recording_keep(self, path: str, on: bool, note: str | None = None) -> dict[str, Any]:
        return self._say(path, note, keep=on)

    def recording_expire(self, path: str, note: str | None) -> dict[str, Any]:
        return self._say(path, note, status="expired")

    def _say(self, path: str, note: str | None, **said: Any) -> dict[str, Any]:
        here = self.recording_show(path)
        here.update(said)
        if note is not None:
            here["note"] = note
        return here


def brought(source: Source, to: Path, daemon: Daemon | None = None, **options: Any) -> Outcome:
    """What comes of bringing something into a directory."""
    (to / "users").mkdir(parents=True, exist_ok=True)
    (to / "shared").mkdir(exist_ok=True)
    outcome = Outcome()
    with opened(open_tree(to)) as top:
        Bringing(top, daemon or Daemon(), outcome, place=Mounted(), **options).bring(source)
    return outcome


def imported(
    tree: Path, to: Path, daemon: Daemon | None = None, *, user_map: Mapping[str, str] | None = None, **options: Any
) -> Outcome:
    """What comes of an import of a directory."""
    with opened(open_tree(tree)) as top:
        return brought(TreeSource(top, user_map or {}), to, daemon, user_map=user_map, **options)


def imported_stream(
    stream: bytes, to: Path, daemon: Daemon | None = None, *, user_map: Mapping[str, str] | None = None, **options: Any
) -> Outcome:
    """What comes of an import of a stream."""
    return brought(TarSource(io.BytesIO(stream), user_map or {}), to, daemon, user_map=user_map, **options)


class PlainSource:
    """A directory as it is, with the sha256 of each file, as a store has them."""

    has_sums = False

    def __init__(self, top: int, parts: tuple[bytes, ...], manifest: Any = None) -> None:
        self._top = top
        self._parts = parts
        self.manifest = manifest
        self.given = 0

    def items(self) -> Iterator[Item | Problem]:
        for each in Walk(self._top, self._judged).below(self._parts):
            self.given += 1
            yield each

    def _judged(self, item: Item, descriptor: int) -> Item | Problem | None:
        item.attributes = own_attributes(item, descriptor)
        if item.kind == "file":
            item.sha256 = hashlib.sha256(b"".join(item.chunks())).hexdigest()
        return item

    def sum_of(self, path: bytes) -> str | None:
        return None


@contextmanager
def plain_source(tree: Path, path: str = "users/4", manifest: Any = None) -> Iterator[PlainSource]:
    """Part of a directory."""
    with opened(open_tree(tree)) as top:
        yield PlainSource(top, tuple(os.fsencode(path).split(b"/")), manifest)


def recording(tree: Path, user: int = 4, number: int = 7) -> Path:
    """A recording with a few files in a tree."""
    folder = tree / "users" / str(user) / "recordings" / str(number)
    (folder / "transcription").mkdir(parents=True)
    (folder / "source.mp4").write_bytes(b"a recording" * 1000)
    (folder / "transcription" / "master.json").write_text("{}")
    return folder


def snapshot(tree: Path) -> dict[bytes, tuple[int, int, bytes]]:
    """Everything below a directory: modes, times (of files and links) and contents."""
    found = {}
    for path in sorted(tree.rglob("*")):
        info = path.lstat()
        content = b"" if path.is_dir() and not path.is_symlink() else (
            os.readlink(os.fsencode(path)) if path.is_symlink() else path.read_bytes()
        )  # fmt: skip
        found[os.fsencode(path.relative_to(tree))] = (info.st_mode, info.st_mtime_ns, content)
    return found


def stream_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar(1) stream of members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def member(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One member of a stream."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content
