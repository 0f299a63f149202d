"""One upload on the mount: temp/<user>/<uuid>/ with its bytes, and attributes that say what it is and how far.

All here are blocking calls, for threads. There is no other book of uploads: whoever comes after a death of gateway or
daemon reads here how far it was. The directory has the attributes, for directories count towards no limit:

    user.upload.plan      what it is to become (`Plan`); written last, so what has one is complete
    user.upload.progress  which bytes have come (`noted`)
    user.upload.wanted    that it is to be committed
    user.upload.sealed    the checksum, written before the file is given its name
    user.upload.end       why it cannot go on

and the file of its bytes, `data`, has `user.upload`, the upload's id, which goes with it. A plan without `data` that
was sealed is an upload that was committed: nobody has to note that after the rename, so no death can come between.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from recfs.client.uploads import Upload, attribute, note_upload
from recfs.web.uploads.errors import NoUpload, TooMuch, UploadBusy, UploadGone
from recfs.web.uploads.noted import boot, forget_parts, note, noted
from recfs.web.uploads.plan import MAX_BYTES, Plan, UploadId, is_sha256
from recfs.web.uploads.received import Received

PLAN: Final = "user.upload.plan"
WANTED: Final = "user.upload.wanted"
SEALED: Final = "user.upload.sealed"
END: Final = "user.upload.end"
MARK: Final = "user.upload"
DATA: Final = "data"

Folders = Callable[..., int]
"""`folders("temp", "5", make=True)` opens a directory of the tree and gives a descriptor; no link is followed."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DATA: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Not to wait for the other side of a FIFO that somebody has put there."""
_MOST_BUFFERS: Final = 1024
"""IOV_MAX of Linux."""
_fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of an upload that is done."""

    plan: Plan
    size_bytes: int
    sha256: str | None
    """None where a death kept it from being noted, and the file is another one by now."""


@dataclass(frozen=True, slots=True)
class Found:
    """How far an upload is, as the mount says."""

    plan: Plan
    received: Received
    committed: Committed | None = None
    changed_ns: int = 0
    """Of the last change, by which temp/ is cleared."""
    wanted: bool = False
    """Whether it was to be committed, which a death may have ended."""


def create(folders: Folders, plan: Plan) -> Held:
    """Stage an upload, with room for all its bytes. When this returns it survives a power cut; else nothing is left.

    Raises OSError: EDQUOT, EFBIG and ENOSPC where it does not fit, FileNotFoundError where there is no such user.
    """
    os.close(folders("users", plan.id.user))
    jobs = folders("temp", plan.id.user, make=True)
    try:
        os.mkdir(plan.id.job, dir_fd=jobs)
        folder = os.open(plan.id.job, _FOLDER, dir_fd=jobs)
        data = -1
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = os.open(DATA, _DATA | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
            os.setxattr(data, MARK, str(plan.id).encode())  # before it has room: by this `leavings` finds it
            _reserve(data, plan.length or 0)
            at = datetime.fromtimestamp(plan.created_ns / 1e9, UTC)
            note_upload(data, Upload(plan.original_name or plan.path[-1], plan.mime_type, at))
            os.setxattr(folder, PLAN, plan.dump())
            os.fsync(folder)
        except BaseException:
            if data >= 0:
                os.unlink(DATA, dir_fd=folder)
                os.close(data)
            os.close(folder)
            os.rmdir(plan.id.job, dir_fd=jobs)
            raise
    finally:
        os.close(jobs)
    return Held(plan, folder, data, Received(), Received())


def _reserve(data: int, length: int) -> None:
    """Have a file be so long, and the disk keep room for it. Raises OSError."""
    if length == 0:
        return
    if _fallocate is not None:
        if _fallocate(data, 0, ctypes.c_int64(0), ctypes.c_int64(length)) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise OSError(code, os.strerror(code))
    os.ftruncate(data, length)  # which is charged whole as well


def folder_of(folders: Folders, id: UploadId) -> int:
    """Open an upload's directory; returns a descriptor. Raises NoUpload, OSError."""
    try:
        return folders("temp", id.user, id.job)
    except (FileNotFoundError, NotADirectoryError):
        raise NoUpload("there is no such upload") from None


def look(folders: Folders, id: UploadId) -> Found:
    """Tell how far an upload is. Raises NoUpload, UploadGone, OSError."""
    folder = folder_of(folders, id)
    try:
        return look_in(folders, folder, id)
    finally:
        os.close(folder)


def look_in(folders: Folders, folder: int, id: UploadId) -> Found:
    """`look`, of an open directory."""
    raw = attribute(folder, PLAN)
    if raw is None:
        raise NoUpload("there is no such upload")
    try:
        plan = Plan.load(id, raw)
    except ValueError:  # somebody else's attribute
        raise NoUpload("there is no such upload") from None
    end = attribute(folder, END)
    if end is not None:
        raise UploadGone(end.decode("utf-8", "replace"))
    changed_ns = os.fstat(folder).st_mtime_ns
    try:
        info = os.stat(DATA, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return Found(plan, Received(), _committed(folders, folder, plan), changed_ns)
    if not stat.S_ISREG(info.st_mode):
        raise UploadGone("its bytes were replaced")
    received, _ = noted(folder, DATA)
    wanted = attribute(folder, WANTED) is not None
    return Found(plan, received, None, max(changed_ns, info.st_mtime_ns), wanted)


def _committed(folders: Folders, folder: int, plan: Plan) -> Committed:
    """What became of an upload whose bytes are not in temp/ any more. Raises UploadGone where nothing did."""
    raw = attribute(folder, SEALED)
    if raw is not None:
        try:
            told = json.loads(raw)
            size, sha256 = told["size"], told["sha256"]
            if type(size) is int and 0 <= size <= MAX_BYTES and is_sha256(sha256):
                return Committed(plan, size, sha256)
        except (ValueError, KeyError, TypeError):
            pass
    found = _there(folders, plan)
    if found is None:
        raise UploadGone("its bytes are gone")
    return Committed(plan, found, None)


def _there(folders: Folders, plan: Plan) -> int | None:
    """The size of the file that this upload became; None where its target is none, or another one."""
    try:
        folder = folders(*plan.target[:-1])
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        file = os.open(plan.target[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return None
    finally:
        os.close(folder)
    try:
        return os.fstat(file).st_size if attribute(file, MARK) == str(plan.id).encode() else None
    finally:
        os.close(file)


class Held:
    """An upload that this process has in hand: its directory, locked against other processes, and its open bytes.

    It belongs to whoever opened it, who calls `close`, and nobody has a call under way then: the number of a descriptor
    is soon another file's. One at a time calls `note`; `write` may be called by several, for other bytes each, and
    writes none on those that are noted: a request that is refused afterwards has changed nothing that had come.
    """

    def __init__(self, plan: Plan, folder: int, data: int, received: Received, synced: Received) -> None:
        self.plan = plan
        self.folder = folder
        self.data = data
        self.received = received
        self.users = 0
        self._synced = synced
        self._boot = boot()

    def write(self, blocks: Sequence[bytes], at: int) -> int:
        """Write blocks one behind the other at an offset, but for what is noted; returns how many bytes they have.

        Raises OSError, TooMuch.
        """
        size = sum(map(len, blocks))
        if self.plan.length is not None and at + size > self.plan.length:
            raise TooMuch(f"this upload has {self.plan.length} bytes")
        for first, end in self.received.missing(at + size, at):
            self._write(_part(blocks, first - at, end - at), first)
        return size

    def _write(self, views: list[memoryview], to: int) -> None:
        while views:
            done = os.pwritev(self.data, views[:_MOST_BUFFERS], to)
            to += done
            while views and done >= len(views[0]):
                done -= len(views.pop(0))
            if done:
                views[0] = views[0][done:]

    def note(self, first: int, end: int) -> None:
        """Note that bytes have come, and sync them. They are told of from now on, and survive a power cut after this.

        One sync does for both: what it was noted with is believed after a power cut only when the next one says that
        this one ended. Raises OSError, Scattered.
        """
        received = self.received.plus(first, end)
        note(self.folder, self.data, received, self._synced, self._boot)
        os.fsync(self.data)
        self.received = self._synced = received

    def let_go(self) -> None:
        """Close the bytes, so that they are sealed. The lock stays. Raises OSError."""
        if self.data >= 0:
            data, self.data = self.data, -1
            try:
                if self.plan.resumable:
                    forget_parts(data)
            finally:
                os.close(data)

    def close(self) -> None:
        """Let go of everything. Raises nothing: what could not be written was told by `note`."""
        for descriptor in (self.data, self.folder):
            if descriptor >= 0:
                try:
                    os.close(descriptor)
                except OSError:
                    pass  # of a mount that is gone
        self.data = self.folder = -1


def _part(blocks: Sequence[bytes], first: int, end: int) -> list[memoryview]:
    """The bytes from *first* to before *end* of blocks that are one behind the other."""
    views, at = [], 0
    for block in blocks:
        if view := memoryview(block)[max(first - at, 0) : max(end - at, 0)]:
            views.append(view)
        at += len(block)
    return views


def hold(folders: Folders, id: UploadId) -> tuple[Found, Held | None]:
    """Take an upload in hand; None instead of it where it is committed already.

    Raises NoUpload, UploadGone, UploadBusy while another process has it, OSError.
    """
    folder = folder_of(folders, id)
    data = -1
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UploadBusy("another process has this upload in hand") from None
        found = look_in(folders, folder, id)
        if found.committed is not None:
            os.close(folder)
            return found, None
        data = os.open(DATA, _DATA, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(data).st_mode) or attribute(data, MARK) != str(id).encode():
            raise UploadGone("its bytes were replaced")
        received, synced = noted(folder, DATA)
    except BaseException:
        if data >= 0:
            os.close(data)
        os.close(folder)
        raise
    return replace(found, received=received), Held(found.plan, folder, data, received, synced)


def remove(folders: Folders, held: Held) -> None:
    """Remove an upload that is not committed, its room with it. Raises OSError."""
    take_back(held.folder)  # bytes that are gone after a death right here were never committed
    held.let_go()
    _unlink_data(held.folder)
    forget(folders, held.plan.id)


def take_back(folder: int) -> None:
    """Have an upload that has no name be wanted no more: it is committed when somebody asks for it. Raises OSError."""
    for name in (WANTED, SEALED):
        try:
            os.removexattr(folder, name)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise


def refuse(held: Held, why: str) -> None:
    """End an upload for good, and remove its bytes: whoever asks is told why. Raises OSError."""
    os.setxattr(held.folder, END, why.encode())
    held.let_go()
    _unlink_data(held.folder)
    os.fsync(held.folder)


def _unlink_data(folder: int) -> None:
    try:
        os.unlink(DATA, dir_fd=folder)
    except FileNotFoundError:
        pass


def forget(folders: Folders, id: UploadId) -> None:
    """Remove what is left of an upload whose bytes are not in temp/ any more. Raises OSError."""
    try:
        jobs = folders("temp", id.user)
    except FileNotFoundError:
        return
    try:
        os.rmdir(id.job, dir_fd=jobs)
        os.fsync(jobs)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise  # what somebody else put there is left to temp's age
    finally:
        os.close(jobs)


__all__ = [
    "DATA",
    "MARK",
    "PLAN",
    "Committed",
    "Folders",
    "Found",
    "Held",
    "create",
    "folder_of",
    "forget",
    "hold",
    "look",
    "look_in",
    "refuse",
    "remove",
    "take_back",
]
