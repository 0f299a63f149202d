"""What a daemon leaves of its open files to the one that goes on with its mount: the kernel knows these by number.

Everything else is in the catalogue and on the disk. It travels as JSON between two versions of recfs, so it has a
version of its own, and nothing in it is code.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from recfs.errors import StoreError

VERSION = 1
"""Of the form. Another one is not understood."""

Row = TypeVar("Row")


@dataclass(slots=True)
class OpenBody:
    """The bytes of an open file (`BackingFile`), and what memory alone knows of the file."""

    ino: int
    fd: int
    """The descriptor; between processes, its place among those that were sent."""
    writable: bool
    in_place: bool
    backing: int
    seen: list[int]
    checked_bytes: int
    invalidation_pending: bool
    stopped: list[str] | None
    """The class of the error that stopped its writers, and its message."""
    untouched: list[Any] | None


@dataclass(slots=True)
class OpenFile:
    """A handle."""

    number: int
    body: int
    """Which of the bodies."""
    uid: int
    writes: bool
    direct: bool
    foreign: bool
    mode: str | None
    counted: bool
    """Whether an account counts it among its unchecked writers."""
    shown: list[Any] | None
    """The view it was opened as: inode number of its directory, name, own number."""


@dataclass(slots=True)
class Nameless:
    """An inode that lost its name, and that the kernel may ask for."""

    kind: str
    ino: int
    parent: int
    name: str
    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    kernel_refs: int
    xattrs: dict[str, str]
    size_bytes: int = 0
    state_name: str = ""
    staging: str | None = None
    home_ino: int | None = None
    remains: int | None = None
    """The number of what became of its bytes."""
    sha256: str | None = None
    md5: str | None = None
    target: str = ""
    orphan: bool = True
    """Whether the kernel knows it by a look-up, and not by an open file alone."""


@dataclass(slots=True)
class Inheritance:
    """All of it."""

    files: list[OpenFile] = field(default_factory=list)
    bodies: list[OpenBody] = field(default_factory=list)
    nameless: list[Nameless] = field(default_factory=list)
    folders: list[list[int]] = field(default_factory=list)
    """Open directories: handle, inode number."""
    next_file: int = 1
    next_folder: int = 1
    unsent: list[Any] = field(default_factory=list)
    """What the kernel may not have been told yet."""

    @property
    def writing(self) -> frozenset[int]:
        """Inode numbers of the files that are open for writing."""
        return frozenset(self.bodies[each.body].ino for each in self.files if each.writes)

    def as_json(self) -> dict[str, Any]:
        """For the other process."""
        return {"version": VERSION} | asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Inheritance:
        """Understand it. Raises StoreError."""
        if told.get("version") != VERSION:
            raise StoreError(f"open files of version {told.get('version')} are not understood, only {VERSION}")

        def rows(name: str, kind: type[Row]) -> list[Row]:
            return [kind(**row) for row in told[name]]

        try:
            return cls(
                rows("files", OpenFile), rows("bodies", OpenBody), rows("nameless", Nameless), told["folders"],
                told["next_file"], told["next_folder"], told["unsent"],
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise StoreError(f"open files of version {VERSION} are told in another way: {error}") from error


__all__ = ["VERSION", "Inheritance", "Nameless", "OpenBody", "OpenFile"]
