"""Inodes in memory.

A node is a cache of its catalogue row, except while it is dirty, open or pending: then memory knows more. Only the trio
thread touches nodes. A loaded node's parent is always loaded, so paths, owners and totals never need the catalogue.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from recfs.core.bounds import MAX_INT
from recfs.core.layout import Role
from recfs.core.model import Kind, State, check_transition
from recfs.ports.rows import GarbageRow, NodeRow, ObjectRow, Pending, Placement, Promise

if TYPE_CHECKING:
    from recfs.core.fallback import DirRule
    from recfs.core.life import Life
    from recfs.state.accounts import Account
    from recfs.state.backing_file import BackingFile, Untouched

BLOCK_BYTES = 512
"""Unit of st_blocks (stat(2))."""


class Node:
    """What files, directories and symlinks share."""

    __slots__ = (
        "atime_ns",
        "ctime_ns",
        "gid",
        "home_ino",
        "ino",
        "kernel_refs",
        "mode",
        "moved",
        "mtime_ns",
        "name",
        "parent",
        "pending",
        "publishing",
        "uid",
        "unlinked",
        "xattrs",
    )
    kind: Kind
    format: int

    def __init__(
        self, ino: int, parent: DirNode | None, name: bytes, mode: int, uid: int, gid: int, now_ns: int
    ) -> None:
        self.ino = ino
        self.parent: DirNode = parent if parent is not None else self  # type: ignore[assignment]
        self.name = name
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.atime_ns = self.mtime_ns = self.ctime_ns = now_ns
        self.kernel_refs = 0  # the kernel's lookup count, as far as this object saw it
        self.unlinked = False
        self.pending = 0
        self.publishing = 0
        """Pending bits the publisher is working off right now: the row keeps them until it is done."""
        self.home_ino: int | None = None
        self.moved: tuple[DirNode | None, bytes] | None = None
        """Physical (directory, name) while it differs from (parent, name); directory None = the holding area."""
        self.xattrs: dict[bytes, bytes] | None = {}
        """User attributes; None = there are some in the catalogue, not loaded."""

    @property
    def size(self) -> int:
        """st_size."""
        return 0

    def parts(self) -> list[bytes]:
        """Mount path as names from the root; the path it had, for an unlinked node."""
        names: list[bytes] = []
        node: Node = self
        while node.parent is not node:
            names.append(node.name)
            node = node.parent
        names.reverse()
        return names

    @property
    def path(self) -> str:
        """Mount path for people and logs."""
        return os.fsdecode(b"/".join(self.parts()))

    def row(self) -> NodeRow:
        """The row the catalogue should hold."""
        raise AssertionError("every kind of node makes its own row")

    def _place(self) -> tuple[int | None, bytes | None]:
        if self.moved is None:
            return None, None
        folder, name = self.moved
        return (folder.ino if folder else 0), name

    def _placement(self) -> Placement:
        return Placement(None, self.home_ino, self.pending | self.publishing, *self._place())


class FileNode(Node):
    """A regular file."""

    __slots__ = (
        "body", "bytes", "changes", "md5", "object", "priors", "promised", "remains", "reopened", "sha256", "staging",
        "state", "submitted_s", "unmarked", "untouched",
    )  # fmt: skip
    kind = Kind.FILE
    format = stat.S_IFREG

    def __init__(self, ino: int, parent: DirNode, name: bytes, mode: int, uid: int, gid: int, now_ns: int) -> None:
        super().__init__(ino, parent, name, mode, uid, gid, now_ns)
        self.bytes = 0
        self.state = State.WRITING
        self.sha256: bytes | None = None
        self.md5: bytes | None = None
        self.staging: str | None = None
        self.unmarked = False
        """Whether its bytes may have been changed where they lie, whatever place and label say (Pending.UNMARKED)."""
        self.promised = 0
        """What was promised of the bytes, while they are not committed: bits of `Promise`."""
        self.body: BackingFile | None = None
        self.object: ObjectRow | None = None
        """What S3 holds of it."""
        self.priors: tuple[int, ...] = ()
        """gids of the versions that this one is about to replace, oldest first: what is promised of each is more than
        what is of those after it, and of this one.
        """
        self.remains: Garbage | None = None
        """What became of the bytes when it lost its name."""
        self.changes = 0
        """How often its bytes became others, or may have, since it was loaded: a checksum comes back, this does not."""
        self.reopened = 0
        """How often it was taken up again lately; sets the settling delay."""
        self.submitted_s = 0.0
        """When it last entered `sealing` (monotonic clock)."""
        self.untouched: Untouched | None = None
        """What it was when it was opened, if it is being sealed and perhaps nobody wrote."""

    def enter(self, state: State) -> None:
        """Change the state. Raises ValueError for a step that the table has not (`core/model.py`)."""
        check_transition(self.state, state)
        self.state = state
        if state is State.WRITING:
            self.changes += 1

    def never_left(self, state: State) -> None:
        """Be in a state again since what had ended it never happened: no step of the table."""
        self.state = state

    @property
    def size(self) -> int:
        """Logical size in bytes: what the owner pays for."""
        return self.bytes

    @property
    def is_unhashed(self) -> bool:
        """Whether it lies at home, and is sealed when there is time, unless somebody wants its checksums before."""
        return self.state is State.SEALING and bool(self.promised & Promise.UNHASHED)

    def row(self) -> NodeRow:
        """The row the catalogue should hold."""
        home_parent, home_name = self._place()
        return NodeRow(
            self.ino, self.parent.ino, self.name, Kind.FILE, self.mode, self.uid, self.gid, self.bytes, 0,
            self.atime_ns, self.mtime_ns, self.ctime_ns, self.state, self.sha256, self.md5, None, 0,
            int(self.xattrs != {}), int(self.object is not None),
            Placement(
                self.staging, self.home_ino,
                self.pending | self.publishing | (Pending.UNMARKED if self.unmarked else 0),
                home_parent, home_name, self.promised,
            ),
        )  # fmt: skip


def is_gone(node: Node) -> bool:
    """Whether the node lost its name. A call, so that no answer from before an await is taken for granted."""
    return node.unlinked


def is_changeable(node: FileNode, body: BackingFile) -> bool:
    """Whether the bytes may be changed at once: in staging (or nameless, or where they are), and the row says so."""
    ready = node.staging is not None or node.unlinked or body.in_place
    return ready and node.state is State.WRITING and not body.unproven and not is_told_of(node)


def open_remains(node: FileNode) -> Garbage | None:
    """The entry of what was removed that has the very bytes that are open, of a file that lost its name meanwhile."""
    if not node.unlinked or node.remains is None or node.body is None:
        return None
    return node.remains if os.fstat(node.body.fd).st_nlink else None  # else it is a copy without a name


def is_told_of(node: FileNode) -> bool:
    """Whether a file lost its name, and the row of its bytes says what they are, or that they were closed."""
    entry = node.remains if node.unlinked else None
    if entry is None or (entry.sha256 is None and not entry.promised & ~Promise.FSYNCED):
        return False
    return open_remains(node) is entry


class LinkNode(Node):
    """A symbolic link."""

    __slots__ = ("target",)
    kind = Kind.SYMLINK
    format = stat.S_IFLNK

    def __init__(self, ino: int, parent: DirNode, name: bytes, target: bytes, uid: int, gid: int, now_ns: int) -> None:
        super().__init__(ino, parent, name, 0o777, uid, gid, now_ns)
        self.target = target

    @property
    def size(self) -> int:
        """Length of the target, as lstat(2) reports it."""
        return len(self.target)

    def row(self) -> NodeRow:
        """The row the catalogue should hold."""
        return NodeRow(
            self.ino, self.parent.ino, self.name, Kind.SYMLINK, self.mode, self.uid, self.gid, 0, 0,
            self.atime_ns, self.mtime_ns, self.ctime_ns, None, None, None, self.target, 0,
            int(self.xattrs != {}), 0, self._placement(),
        )  # fmt: skip


class DirNode(Node):
    """A directory: the names loaded so far, and what everything below adds up to."""

    __slots__ = (
        "account", "activity_ns", "children", "complete", "fallback", "job", "life", "rbytes", "recording", "rfiles",
        "role", "whiteouts",
    )  # fmt: skip
    kind = Kind.DIR
    format = stat.S_IFDIR

    def __init__(
        self,
        ino: int,
        parent: DirNode | None,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        now_ns: int,
        role: Role,
    ) -> None:
        super().__init__(ino, parent, name, mode, uid, gid, now_ns)
        self.role = role
        self.children: dict[bytes, Node] = {}
        self.complete = True
        """Whether `children` holds every name; a fresh directory's does."""
        self.rbytes = 0
        self.rfiles = 0
        self.account: Account | None = parent.account if parent else None
        self.job: DirNode | None = self if role is Role.JOB else (parent.job if parent else None)
        self.activity_ns = 0
        self.recording: DirNode | None = self if role is Role.RECORDING else (parent.recording if parent else None)
        """The recording it lies in, or is."""
        self.life: Life | None = None
        """Of a recording: what is kept of it; there always is something."""
        self.fallback: DirRule | None = None
        self.whiteouts: set[bytes] | None = None
        """Names hidden here; None = not loaded."""

    @property
    def user(self) -> str | None:
        """Whose account counts what lies here; None for shared files."""
        return self.account.user if self.account is not None else None

    def row(self) -> NodeRow:
        """The row the catalogue should hold."""
        return NodeRow(
            self.ino, self.parent.ino, self.name, Kind.DIR, self.mode, self.uid, self.gid,
            min(self.rbytes, MAX_INT), self.rfiles,
            self.atime_ns, self.mtime_ns, self.ctime_ns, None, None, None, None,
            self.activity_ns, int(self.xattrs != {}), 0, self._placement(),
        )  # fmt: skip


def from_row(row: NodeRow, parent: DirNode | None, role: Role) -> Node:
    """Build the node a row describes. `moved` is left to the caller, who can find the directory it names."""
    node: Node
    here = row.placement
    if row.kind is Kind.DIR:
        directory = DirNode(row.ino, parent, row.name, row.mode, row.uid, row.gid, row.ctime_ns, role)
        directory.complete = False
        directory.rbytes, directory.rfiles = row.size_bytes, row.rfiles
        directory.activity_ns = row.activity_ns
        node = directory
    elif row.kind is Kind.SYMLINK:
        assert parent is not None
        node = LinkNode(row.ino, parent, row.name, row.target or b"", row.uid, row.gid, row.ctime_ns)
    else:
        assert parent is not None
        file = FileNode(row.ino, parent, row.name, row.mode, row.uid, row.gid, row.ctime_ns)
        file.bytes, file.sha256, file.md5 = row.size_bytes, row.sha256, row.md5
        file.state = row.state or State.INCOMPLETE
        file.staging, file.promised = here.staging, here.promised
        file.unmarked = bool(here.pending & Pending.UNMARKED)
        node = file
    node.atime_ns, node.mtime_ns, node.ctime_ns = row.atime_ns, row.mtime_ns, row.ctime_ns
    node.pending, node.home_ino = here.pending & ~Pending.UNMARKED, here.home_ino
    node.xattrs = None if row.has_xattrs else {}
    return node


class Garbage:
    """What lost its name and still lies on disk: in staging, in a home directory, or (neither) in the trash."""

    __slots__ = (
        "beside", "deleted_ns", "gid", "gid_owner", "held_by", "home_ino", "ino", "kind", "md5", "mode", "mtime_ns",
        "path", "place", "promised", "sha256", "size_bytes", "staging", "uid",
    )  # fmt: skip

    def __init__(self, gid: int, ino: int, kind: Kind, path: bytes, deleted_ns: int) -> None:
        self.gid = gid
        self.ino = ino
        self.kind = kind
        self.path = path
        self.deleted_ns = deleted_ns
        self.size_bytes = 0
        self.sha256: bytes | None = None
        self.md5: bytes | None = None
        self.mode = self.uid = self.gid_owner = self.mtime_ns = 0
        self.staging: str | None = None
        self.place: tuple[DirNode | None, bytes] | None = None
        self.home_ino: int | None = None
        self.held_by: int | None = None
        self.promised = 0
        self.beside = False
        """Whether the trash keeps extended attributes beside the bytes."""

    @property
    def is_durable(self) -> bool:
        """Whether its bytes were promised to survive a power cut, too."""
        return self.sha256 is not None or bool(self.promised & Promise.FSYNCED)

    @property
    def with_content(self) -> bool:
        """Whether it is a directory that lost its name together with the files in it."""
        return bool(self.promised & Promise.WITH_CONTENT)

    @property
    def in_trash(self) -> bool:
        """Whether only its retention keeps it."""
        return self.staging is None and self.place is None and not self.with_content

    @property
    def is_to_be_emptied(self) -> bool:
        """Whether it is a directory that lies in the trash's place, and goes with all that is in it."""
        return self.with_content and self.place is None

    def row(self) -> GarbageRow:
        """The row the catalogue should hold."""
        folder, name = self.place if self.place is not None else (None, None)
        return GarbageRow(
            self.gid, self.ino, self.kind, self.path, self.size_bytes, self.sha256, self.md5, self.mode, self.uid,
            self.gid_owner, self.mtime_ns, self.staging,
            None if name is None else (folder.ino if folder else 0), name, self.home_ino, self.deleted_ns, self.held_by,
            self.promised,
        )  # fmt: skip

    @classmethod
    def from_row(cls, row: GarbageRow) -> Garbage:
        """Build the entry a row describes; `place` is left to the caller, who can find the directory."""
        entry = cls(row.gid, row.ino, row.kind, row.path, row.deleted_ns)
        entry.size_bytes, entry.sha256, entry.md5 = row.size_bytes, row.sha256, row.md5
        entry.mode, entry.uid, entry.gid_owner, entry.mtime_ns = row.mode, row.uid, row.gid_owner, row.mtime_ns
        entry.staging, entry.home_ino = row.staging, row.home_ino
        entry.held_by, entry.promised = row.held_by, row.promised
        return entry


__all__ = ["BLOCK_BYTES", "DirNode", "FileNode", "LinkNode", "Node", "Pending", "from_row"]
