"""Every error recfs raises on purpose. No errno here: `fuse/operations.py` owns the one errno table.

RecfsError
├── ConfigError             recfs.conf is wrong: names file, key and remedy
├── StoreError              the store (root directory) cannot be used
│   ├── NotAStore           there is no store at this path
│   ├── RootBusy            another daemon holds this root
│   ├── BackupDamaged       a backup of the catalogue is not what was written
│   └── CatalogueCorrupt    the catalogue file is damaged, or newer than this recfs
├── MountError              the mount point cannot be used
├── ControlError            the daemon answered with an error, or not at all
│   ├── DaemonNotRunning    nobody listens on the control socket
│   └── NotAllowed          this user may not ask the daemon, or read what recfs keeps
├── MediaUnavailable        no program can look into media here
└── FsError                 a file system operation is refused
    ├── NotFound  Exists  NotEmpty  IsADirectory  NotADirectory  NameTooLong
    ├── InvalidPath         the fixed levels of the tree do not allow this name here
    ├── InvalidArgument     the value makes no sense
    ├── NotPermitted        never allowed (hard link, device, FIFO, someone else's quota)
    ├── AccessDenied        not allowed for this caller
    ├── ReadOnlyFile        shared/ and what is seen of it is not written by this caller
    ├── QuotaExceeded       the owner's quota is used up
    ├── FileTooLarge        the owner's max_file_size
    ├── OutOfSpace          the disk is full, or its reserve is reached
    ├── NoAttribute         no such extended attribute
    ├── NotSupported        this kind of attribute or rename is not offered
    ├── TooBig              an attribute value or list beyond the kernel's limit
    ├── Stale               the inode is gone
    ├── Busy                in use by the system
    ├── Interrupted         the caller was killed, or got a signal, while it waited
    ├── TryAgain            what it waits for takes too long
    ├── TooManyFiles        one user keeps his share of the open files already
    ├── IoFailure           the disk said no
    └── RowRefused          the catalogue does not take this row
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

NO_S3 = 'this store has no S3 tier; add [s3] with bucket = "..." to recfs.conf, and mount again'
"""What whoever asks for it is told with NotSupported."""


class RecfsError(Exception):
    """Base of all; `str()` is a message for a person, with the object and the remedy."""


class ConfigError(RecfsError):
    """recfs.conf cannot be used as it is."""


class StoreError(RecfsError):
    """The store cannot be used as it is."""


class NotAStore(StoreError):
    """No store at this path."""


class RootBusy(StoreError):
    """Another daemon holds this root."""


class StoreFull(StoreError):
    """The disk has no room for what opening the catalogue takes; the catalogue itself is whole."""


class CatalogueCorrupt(StoreError):
    """The catalogue file is damaged or from a newer version; it was left untouched."""


class BackupDamaged(StoreError):
    """A backup of the catalogue is not what was written, or is not to be read; it is not used."""


class MountError(RecfsError):
    """The mount point cannot be used."""


class ControlError(RecfsError):
    """The daemon refused a command."""


class DaemonNotRunning(ControlError):
    """Nobody listens on the control socket."""


class NotAllowed(ControlError):
    """This user may not ask the daemon, or read what only its user and root may."""


class MediaUnavailable(RecfsError):
    """ffprobe or ffmpeg is not installed, or cannot be run confined; says which, and what to do."""


class CursorLost(RecfsError):
    """Events after a cursor are not kept, or it is of another history."""


class FsError(RecfsError):
    """A file system operation is refused."""


class NotFound(FsError):
    """No such name or inode."""


class Exists(FsError):
    """The name is taken."""


class NotEmpty(FsError):
    """The directory has entries."""


class IsADirectory(FsError):
    """A directory where a file is wanted."""


class NotADirectory(FsError):
    """A file where a directory is wanted."""


class NameTooLong(FsError):
    """A name beyond 255 bytes."""


class InvalidPath(FsError):
    """The fixed levels of the tree do not allow this name here."""


class InvalidArgument(FsError):
    """A value that makes no sense."""


class NotPermitted(FsError):
    """Never allowed here, whoever asks."""


class AccessDenied(FsError):
    """Not allowed for this caller."""


class ReadOnlyFile(FsError):
    """Shared files are written by the operator alone."""


class QuotaExceeded(FsError):
    """The owner's quota is used up."""


class FileTooLarge(FsError):
    """The file would pass the owner's max_file_size."""


class OutOfSpace(FsError):
    """The disk is full, or its reserve (min_free) is reached."""


class NoAttribute(FsError):
    """No such extended attribute."""


class NotSupported(FsError):
    """An attribute namespace or rename flag recfs does not offer."""


class TooBig(FsError):
    """An attribute name, value or list beyond the limits of xattr(7)."""


class Stale(FsError):
    """The inode is gone, or has other bytes than those that are meant."""


class OtherDevice(FsError):
    """It cannot be moved, only copied and removed: what rename(2) says across file systems, and mv(1) then does."""


class Busy(FsError):
    """In use by the system."""


class Interrupted(FsError):
    """The caller got a signal while its request waited; nothing was changed."""


class TryAgain(FsError):
    """What the request waits for takes longer than a request may; nothing was changed."""


class TooManyFiles(FsError):
    """The caller has as many files open as leaves enough to the others."""


class IoFailure(FsError):
    """The disk answered with an error."""


class RowRefused(FsError):
    """The catalogue does not take what is to be written; other rows it does."""


@contextlib.contextmanager
def first_error_alone() -> Iterator[None]:
    """The first RecfsError of a group that comes out of the block comes out as itself.

    Not `raise` within `except*`: before 3.11.4, as in Debian 12, Python wraps what is raised there into a group again
    (python/cpython issue 103590).
    """
    found: BaseExceptionGroup[RecfsError] | None = None
    try:
        yield
    except* RecfsError as group:
        found = group
    if found is not None:
        raise first_error(found) from found


def first_error(group: BaseExceptionGroup[RecfsError]) -> RecfsError:
    """The first of the errors that a group holds, at whatever depth."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, RecfsError)
    return error
