"""What a rebuild makes of a file: which of its bytes count, and what is to become of the others.

A catalogue that is lost is made anew of what lies in the home tree and in the bucket. Where both have a file of one
name and their bytes differ, size and mtime tell whether the local ones were written later, or went bad where they lay.
"""

import enum
import functools
from typing import NamedTuple

from recfs.core.bounds import MAX_ID
from recfs.core.keys import key_for, path_for
from recfs.core.layout import Role, child_role, role_of
from recfs.core.ownership import Mark
from recfs.errors import InvalidPath, NameTooLong


class Checksums(enum.StrEnum):
    """Where the checksums of local files come from; the value is what the command is told."""

    VERIFY = "verify"
    """Every file is read."""
    TRUST = "trust"
    """From its object's metadata, or the old catalogue, where size and mtime are what they say; others are read."""
    LATER = "later"
    """As TRUST, but what would have to be read is sealed by the next daemon."""


class Content(NamedTuple):
    """What is known of some bytes."""

    size_bytes: int
    mtime_ns: int
    sha256: bytes | None
    """None: not known."""


class Verdict(enum.Enum):
    """How the local bytes of a name and its object stand to each other."""

    ALONE = "alone"
    """There is no object."""
    SAME = "same"
    NEWER = "newer"
    """Others: the local ones count, and the object is an earlier version of them."""
    DAMAGED = "damaged"
    """Others, though size and mtime are those that were uploaded: the object counts."""


def believes(local: Content, told: Content | None) -> bool:
    """Whether somebody's checksum may be taken for that of the local bytes without reading them."""
    if told is None or told.sha256 is None:
        return False
    return (local.size_bytes, local.mtime_ns) == (told.size_bytes, told.mtime_ns)


def judge(local: Content, far: Content | None) -> Verdict:
    """Compare local bytes, whose checksum is known, with the object of their name."""
    if far is None:
        return Verdict.ALONE
    if (local.size_bytes, local.sha256) == (far.size_bytes, far.sha256):
        return Verdict.SAME
    return Verdict.DAMAGED if (local.size_bytes, local.mtime_ns) == (far.size_bytes, far.mtime_ns) else Verdict.NEWER


def place_of(key: str) -> tuple[bytes, ...] | None:
    """Path of the file whose object lies under *key*; None for a key that no file of a mount has."""
    path = path_for(key)
    if not path or key_for(path) != key:
        return None
    above, _, name = path.rpartition(b"/")
    try:
        child_role(_role_of(above), name, is_dir=False)
    except (InvalidPath, NameTooLong):
        return None
    return tuple(path.split(b"/"))


@functools.lru_cache(maxsize=16)
def _role_of(folder: bytes) -> Role:
    """The role of a directory: keys come in their order, so that those of one directory follow each other."""
    return role_of(tuple(folder.split(b"/"))) if folder else Role.ROOT


def owner_in(text: str | None) -> tuple[int, int] | None:
    """The uid and gid of an object's metadata ("uid:gid"); None where it says nothing of the kind."""
    uid, _, gid = (text or "").partition(":")
    if not (uid.isascii() and uid.isdigit() and gid.isascii() and gid.isdigit()) or len(uid) > 10 or len(gid) > 10:
        return None
    owner = int(uid), int(gid)
    return owner if max(owner) <= MAX_ID else None


class Identity(NamedTuple):
    """Which store the new catalogue belongs to, as far as the bucket is concerned."""

    store: str | None
    """The id; None: a new one."""
    tokens: str
    """Of its daemons, as the fact says it."""
    claim_needed: bool
    """The prefix is marked as another store's."""


def identity_of(old: str | None, old_tokens: str, mark: Mark | None, root: str, host: str) -> Identity:
    """Tell it by what the old catalogue says, if that can be read, and by the mark in the bucket.

    A mark alone is believed if it names this machine and this root: else a store whose configuration names another's
    bucket would take that over.
    """
    if mark is None:
        return Identity(old, old_tokens, False)
    if old is not None:
        return Identity(old, old_tokens, mark.store != old)
    if (mark.root, mark.host) == (root, host):
        return Identity(mark.store, mark.token, False)
    return Identity(None, "", True)
