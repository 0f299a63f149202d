"""What the catalogue keeps of each thing: rows, as they cross its port."""

from __future__ import annotations

from typing import NamedTuple

from recfs.core.access.owners import Owner
from recfs.core.bounds import MAX_INT
from recfs.core.life import Life
from recfs.core.model import Kind, State

HOST = 1
"""This machine, in the rows that tell what is true of one machine alone, and in leases. There is one, for now."""

ROOT_INO = 1
"""Inode number of the mount's root (FUSE_ROOT_ID)."""

HOLDING_INO = 0
"""Stands for `.recfs/limbo` where a home directory is named by inode number."""


class Pending:
    """Bits of `Placement.pending`: what the home tree does not show yet. 0 = published."""

    MAKE = 1
    """The directory or symlink is not there yet."""
    MOVE = 2
    """The bytes or the directory lie elsewhere (staging, or the old name)."""
    ATTRS = 4
    """Mode, owner or times differ from the row."""
    UNMARKED = 8
    """Of a file in state `writing`: its bytes may have been changed where they lie, whatever place and label say."""


class Promise:
    """Bits of `Placement.promised`: what those who wrote these bytes, uncommitted as they are, were told of them.

    Committed bytes are promised more than either.
    """

    FSYNCED = 1
    """fsync(2) returned: they survive a power cut."""
    CLOSED = 2
    """Their last writer closed them: they survive the daemon's death."""
    UNHASHED = 4
    """Of a file in state `sealing`: its bytes lay in the home tree when the catalogue was made anew, and are on stable
    storage. Nobody has read them yet, and they are hashed when there is time (`services/unhashed.py`)."""
    FOUND = UNHASHED | FSYNCED | CLOSED
    """What is promised of such bytes."""
    DAMAGED = 8
    """Of bytes that lost their name: they are not those of the recorded checksums, and the file was `corrupt`."""
    CUT_OFF = 16
    """Of bytes that lost their name: the file was `incomplete`."""
    NOT_WHOLE = DAMAGED | CUT_OFF
    """Of garbage only. A file that gets such bytes back is again what it was."""
    WITH_CONTENT = 32
    """Of a directory that lost its name together with the files in it. Their rows stay, below a directory that has
    none, until their bytes are gone: they say what in it is recfs's own (`disk/home/emptying.py`)."""
    TRACE = 64
    """Of what lost its name while it was being moved: the row says where it lay before, and counts only for a start
    that does not find it at its place."""


class Placement(NamedTuple):
    """What is true of an inode on this machine alone; as it is made, it says nothing."""

    staging: str | None = None
    """The bytes lie in staging under this id; None: in the home tree (or nowhere yet)."""
    home_ino: int | None = None
    """st_ino of the bytes or directory on disk; tells after a crash whether a rename happened."""
    pending: int = 0
    home_parent: int | None = None
    """With `home_name`: where the entry physically lies while that differs from (parent, name)."""
    home_name: bytes | None = None
    promised: int = 0
    """File that is not committed: bits of `Promise`."""


class NodeRow(NamedTuple):
    """One inode with its only name (recfs has no hard links), as the catalogue keeps it; last, its place here."""

    ino: int
    parent: int
    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size_bytes: int
    """File: logical size. Directory: `rbytes`, the recursive total of logical sizes."""
    rfiles: int
    """Directory: how many files and symlinks lie below it."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    state: State | None
    sha256: bytes | None
    md5: bytes | None
    target: bytes | None
    """Symlink: where it points."""
    activity_ns: int
    """Temp job directory: time of the last change anywhere inside the job (`Clock.steady_ns`)."""
    has_xattrs: int
    """1: rows in `xattr` exist for this inode."""
    has_object: int
    """1: a row in `object` exists for this inode."""
    placement: Placement


class LocalCopy(NamedTuple):
    """What this machine has of a file that S3 has, too; as it is made, it says nothing."""

    used_ns: int = 0
    """Last use of it (`Clock.steady_ns`): the least recently used go first."""
    local: int = 0
    """1: all the bytes are in the home tree, and count in the cache's budget."""
    pinned: int = 0
    """1: it is not evicted."""
    keep_until_ns: int = 0
    """It is not evicted before (a route's keep_local; `Clock.steady_ns`)."""
    held: int = 0
    """1: the object is the way back of an overwrite that is not committed yet."""


class ObjectRow(NamedTuple):
    """What S3 holds of an inode: the version that was last confirmed, which may be older than the local bytes."""

    ino: int
    key: str
    """Where the object is; differs from the path between a rename and the move that follows it."""
    etag: str
    """Empty: an upload of another version had no answer, and may lie there instead."""
    size_bytes: int
    sha256: bytes
    md5: bytes
    mtime_ns: int
    storage_class: str
    uploaded_ns: int
    copy: LocalCopy

    def here(self, **changes: int) -> ObjectRow:
        """The same, with *changes* of what this machine has of it."""
        return self._replace(copy=self.copy._replace(**changes))


UPLOAD, DELETE, MOVE, ABORT = "upload", "delete", "move", "abort"
"""`JournalRow.kind` …"""
JOURNAL_KINDS = (UPLOAD, DELETE, MOVE, ABORT)
"""… is one of these."""


class JournalRow(NamedTuple):
    """One piece of work on S3 that has to survive any crash. Idempotent: done twice it is as if done once."""

    id: int
    """In order of creation; work on one key is done in this order."""
    kind: str
    """UPLOAD, DELETE, MOVE or ABORT."""
    ino: int
    """The inode an upload or move is for; of a deletion the one that had the object, or 0; 0 for the others."""
    key: str
    """delete and abort: the object. upload and move: where something of it may be; empty: nowhere yet."""
    upload_id: str
    """The multipart upload that was begun, or empty."""
    parts: str
    """What the upload has begun to send (JSON, `tier/queue/sent.py`); empty before."""
    size_bytes: int
    attempts: int
    next_try_ns: int
    """Not before (`Clock.steady_ns`, like `created_ns`); an hour ahead at most for failures, longer for deletes that
    wait for the trash's retention."""
    failed: int
    """0; unused."""
    error: str
    """What the last attempt met, or what the row waits for; empty: neither."""
    created_ns: int
    host: int = HOST
    """Whose work it is."""
    lease_until_ns: int = MAX_INT
    """Until then no other machine takes it (`Clock.steady_ns`); its own always does. `MAX_INT`: without an end."""

    @property
    def due_ns(self) -> int:
        """When this machine may work on it."""
        return self.next_try_ns if self.host == HOST else max(self.next_try_ns, self.lease_until_ns)

    def taken(self) -> JournalRow:
        """The same as this machine's work."""
        return self if self.host == HOST else self._replace(host=HOST, lease_until_ns=MAX_INT)


class UnansweredRow(NamedTuple):
    """A request that S3 gave no answer to, and may carry out yet."""

    key: str
    noted_ns: int
    """`Clock.steady_ns`."""
    sha256: bytes | None
    """Of the bytes that may come to lie there; empty: the object may be deleted; None: any of that."""


class SweepRow(NamedTuple):
    """One run of a sweep, as it is remembered."""

    id: int
    """In order of their beginning."""
    name: str
    """Of the sweep."""
    began_ns: int
    """`Clock.now_ns`."""
    steady_ns: int
    """When it ended, or of one under way began (`Clock.steady_ns`): the next one is due a period later."""
    took_ms: int
    outcome: str
    """One of `Outcome`'s words (`core/sweeping.py`)."""
    result: str
    """What it did, in a few words, or what kept it from doing it."""
    asked: int
    """1: somebody asked for it; 0: it was due."""
    times: int = 1
    """How many runs in a row it stands for: those that find nothing to do are counted, and the last one is told."""


class Content(NamedTuple):
    """A name in a directory, as far as that is needed to remove many of them."""

    ino: int
    name: bytes
    home_ino: int | None
    """As `Placement.home_ino`."""
    size_bytes: int
    is_plain: bool
    """Whether it is a committed file, at home under its name, with nothing pending and no object in S3."""


class GarbageRow(NamedTuple):
    """Bytes or a directory that lost their name, not yet gone from disk."""

    gid: int
    ino: int
    kind: Kind
    path: bytes
    """The mount path it had, for people."""
    size_bytes: int
    sha256: bytes | None
    md5: bytes | None
    mode: int
    uid: int
    gid_owner: int
    mtime_ns: int
    staging: str | None
    home_parent: int | None
    home_name: bytes | None
    """Where it lies: staging, or home_parent/home_name, or (both None) the trash under `gid`."""
    home_ino: int | None
    deleted_ns: int
    """`Clock.steady_ns`."""
    held_by: int | None
    """The inode whose next version is to be promised what these bytes were; until then they are the way back."""
    promised: int = 0
    """What was promised of bytes that were not committed: bits of `Promise`."""


class TrashRow(NamedTuple):
    """What the trash keeps beside bytes on the disk: of a directory, a link, an empty file, or what only S3 has, all
    there is; of a file whose bytes lie in the trash (`GarbageRow` of the same number) its extended attributes.
    """

    gid: int
    """Its number in the trash, in one sequence with `GarbageRow.gid`."""
    ino: int
    kind: Kind
    path: bytes
    """Which it had."""
    size_bytes: int
    sha256: bytes | None
    md5: bytes | None
    mode: int
    uid: int
    gid_owner: int
    mtime_ns: int
    deleted_ns: int
    """`Clock.steady_ns`."""
    has_bytes: int
    """1: they lie in the trash under the same number."""
    target: bytes | None = None
    """Symlink: where it pointed."""
    object_key: str | None = None
    """Where S3 has the bytes; None: nowhere."""
    object_etag: str = ""
    storage_class: str = ""
    uploaded_ns: int = 0
    xattrs: bytes = b""
    """The user's extended attributes (`disk/packing.py`)."""
    life: str = ""
    """Recording: what was kept of it besides its files (`core/life.py`)."""


class AccountRow(NamedTuple):
    """One user's counters, own limits (None = the default applies; quota.UNLIMITED lifts it), and uid."""

    user: str
    used_bytes: int
    used_files: int
    month: str
    month_uploads: int
    max_bytes: int | None
    max_files: int | None
    max_file_size: int | None
    max_monthly_uploads: int | None
    owner_uid: int | None = None
    """Whose users/<id> and temp/<id> are; this and both below None: the user is not told apart by uid."""
    owner_gid: int | None = None
    owner_mode: int | None = None

    @property
    def owner(self) -> Owner | None:
        """Whose a user's directories are."""
        if self.owner_uid is None or self.owner_gid is None or self.owner_mode is None:
            return None
        return Owner(self.owner_uid, self.owner_gid, self.owner_mode)


class MediaRow(NamedTuple):
    """What is known of a file's content, of the version with that checksum; a row about another one says nothing."""

    ino: int
    sha256: bytes
    checker: str
    """One of `Checker`'s words (`core/media/kinds.py`)."""
    verdict: str
    """One of `Verdict`'s words (`core/media/verdicts.py`)."""
    reason: str = ""
    """Why it is broken, or could not be looked into."""
    facts: str = ""
    """What is in it (`core/media/facts.py`, packed)."""
    attempts: int = 0
    """Looks into it that failed, one after another."""
    queued_ns: int = 0
    """When it was committed, or somebody asked for a look (wall clock, like both others) …"""
    began_ns: int = 0
    """… when the last look began …"""
    ended_ns: int = 0
    """… and when it ended."""


class RecordingRow(NamedTuple):
    """What is kept of a recording: by the inode number of its directory, and gone with that."""

    ino: int
    life: Life


class EventRow(NamedTuple):
    """What became of a file, as it is told to whoever asks for events."""

    id: int
    """In the order in which it happened; never given twice."""
    at_ns: int
    """`Clock.now_ns`."""
    kind: str
    """One of `EventKind`'s words (`core/observing/kinds.py`)."""
    ino: int
    """0: of no file in particular."""
    path: bytes
    """In the mount, as it was then (`kept_path`)."""
    was: bytes | None = None
    """renamed: the path before."""
    size_bytes: int | None = None
    sha256: bytes | None = None
    detail: str = ""
    """In words, for people."""
