"""The end of an upload: its bytes are sealed, compared, and given their name, exactly once.

Blocking calls, for threads; they may take as long as a large file is hashed. Each step may be the last one of this
process or of the daemon: whoever comes next calls `commit` again, or finds by `look` that it is done.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import time
from contextlib import suppress
from typing import Final

from recfs.client.uploads import attribute
from recfs.client.writing import rename_new
from recfs.web.replacing import alone, standing
from recfs.web.uploads.admission import check_name, over_monthly
from recfs.web.uploads.errors import Incomplete, UploadBusy, UploadGone
from recfs.web.uploads.plan import NOTHING, Plan
from recfs.web.uploads.staged import DATA, SEALED, WANTED, Committed, Folders, Held, refuse, take_back

WRONG_DIGEST: Final = "the bytes that came are not those of the digest that was announced: they were removed"
_OTHERS_S: Final = 20.0
"""So long the bytes of a process that was killed may be held by the kernel."""
_PAUSE_S: Final = 0.05
_BLOCK_BYTES: Final = 1 << 20


def commit(folders: Folders, held: Held, ending: threading.Event) -> Committed:
    """Make a file of an upload that is whole; returns when it is there and survives a power cut.

    Raises UploadGone where its bytes are not those of its digest (they are removed then), FileExistsError and Changed
    where something else stands in its place, OverLimit of the month, Incomplete, UploadBusy, OSError: all these leave
    it as it was, and it may be tried again. *ending* has it wait no longer for what is being sealed.
    """
    plan = held.plan
    if plan.length is not None and plan.resumable and not held.received.whole(plan.length):
        raise Incomplete(held.received.missing(plan.length))
    os.setxattr(held.folder, WANTED, b"1")
    try:
        return _committed(folders, held, ending)
    except UploadBusy:
        raise  # it goes on by itself
    except Exception:
        # Whoever asked is told no, and has to ask again: nothing may come of it when they do not expect that any more.
        with suppress(OSError):  # of a mount that is gone, or of bytes that have their name after all
            os.stat(DATA, dir_fd=held.folder, follow_symlinks=False)
            take_back(held.folder)
        raise


def _committed(folders: Folders, held: Held, ending: threading.Event) -> Committed:
    plan = held.plan
    sha256, size = _sealed(held, ending)
    if plan.length is not None and size != plan.length:
        refuse(held, "its bytes were changed by somebody else")
        raise UploadGone("its bytes were changed by somebody else")
    if plan.sha256 is not None and plan.sha256 != sha256:
        refuse(held, WRONG_DIGEST)
        raise UploadGone(WRONG_DIGEST)
    told = json.dumps({"sha256": sha256, "size": size}, separators=(",", ":"))
    os.setxattr(held.folder, SEALED, told.encode("ascii"))
    into = folders(*plan.target[:-1], make=True)
    try:
        _place(held, plan, into)
        os.fsync(into)
    finally:
        os.close(into)
    return Committed(plan, size, sha256)


def _place(held: Held, plan: Plan, into: int) -> None:
    """Give the bytes their name."""
    try:
        if plan.replaces == NOTHING:
            rename_new(DATA, plan.target[-1], held.folder, into)
        else:
            _replace(held, plan, into)
    except OSError as error:
        # Bytes and files of the user stay as many as they were: it is the month's limit that counts renames.
        if error.errno == errno.EDQUOT and plan.is_source:
            raise over_monthly() from None
        raise


def _replace(held: Held, plan: Plan, into: int) -> None:
    """Replace what the plan names. Of several who name the same bytes one does, and the others get Changed."""
    name = plan.target[-1]
    while True:
        before = standing(into, name)
        check_name(into, plan)  # it may have to be waited for
        with alone(into, name):
            if before is not None and standing(into, name) == before:
                os.rename(DATA, name, src_dir_fd=held.folder, dst_dir_fd=into)
                return


def _sealed(held: Held, ending: threading.Event) -> tuple[str, int]:
    """Let the bytes be sealed; returns their checksum and how many they are. Raises OSError, UploadBusy."""
    held.let_go()
    give_up_s = time.monotonic() + _OTHERS_S
    taken_up = False
    while True:
        file = os.open(DATA, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=held.folder)
        try:
            size = os.fstat(file).st_size
            state = attribute(file, "user.recfs.state")
            if state is None:
                return _hashed(file), size  # a plain directory
            try:
                sha256 = attribute(file, "user.recfs.sha256")
            except BlockingIOError:  # it takes longer than a request may
                if ending.is_set():
                    raise UploadBusy("the gateway ends; whoever comes back has it committed") from None
                continue
            if sha256 is not None:
                return sha256.decode("ascii"), size
        finally:
            os.close(file)
        if state == b"corrupt":
            raise OSError(errno.EIO, "the bytes of this upload went bad")
        if state == b"incomplete" and not taken_up:  # its writer lost the daemon: whoever takes it up has it sealed
            taken_up = True
            os.close(os.open(DATA, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=held.folder))
        elif time.monotonic() > give_up_s or ending.is_set():
            raise UploadBusy("another process holds the bytes of this upload")
        else:
            time.sleep(_PAUSE_S)


def _hashed(file: int) -> str:
    """The checksum of a file in a plain directory, and its bytes on stable storage."""
    digest, at = hashlib.sha256(), 0
    while block := os.pread(file, _BLOCK_BYTES, at):
        digest.update(block)
        at += len(block)
    os.fsync(file)
    return digest.hexdigest()


__all__ = ["WRONG_DIGEST", "commit"]
