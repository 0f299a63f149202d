"""Unfinished overwrites: whether one had been closed, and where its bytes go if not."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from recfs.disk.staging import Label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recfs.fs.recovery.finds import Finds
    from recfs.state.nodes import Garbage
    from recfs.stores.local import LocalStore, StagingFile

MOST_COMPARED_BYTES: Final = 1 << 30
"""What is larger is kept: two copies of it are not read before the mount is there."""
_STEP_BYTES: Final = 1 << 20


def was_closed(staged: StagingFile, *, same_boot: bool) -> bool:
    """Whether the label says that these bytes were closed. After a reboot nobody vouches for what it says."""
    try:
        label = Label.decode(staged.label or b"")
    except ValueError:
        return False
    return same_boot and label.closed_bytes == staged.size_bytes


def when_labelled(staged: StagingFile, *, same_boot: bool) -> tuple[bool, int]:
    """An order of what was written to staging: closed files first, each by the time of its label."""
    try:
        written_ns = Label.decode(staged.label or b"").written_ns
    except ValueError:
        written_ns = 0
    return not was_closed(staged, same_boot=same_boot), written_ns


def keep_overwrite(found: Finds, staged: StagingFile, ino: int, path: str) -> None:
    """Put the bytes of an overwrite that nobody finished into lost+found."""
    if not staged.size_bytes:
        found.store.drop_staging([staged.id])
        return
    name = f"overwrite-{ino}-{staged.id}"
    found.store.rename(found.store.staging(staged.id), found.store.lost(name))
    found.report.lost.append(f"{path} (unfinished overwrite, in lost+found/{name})")


def was_not_emptied(store: LocalStore, staged: StagingFile, prior: Garbage) -> bool:
    """Whether an overwrite still has the bytes that it was to replace: those of the copy that was made of them.

    A file that the kernel has open is emptied where it lies, after the rows that name the copy. The next start finds
    both if the daemon died in between. What cannot be read is not known to be the same. Blocking.
    """
    if staged.size_bytes != prior.size_bytes or staged.size_bytes > MOST_COMPARED_BYTES or prior.staging is None:
        return False
    try:
        with _opened(store, staged.id) as one, _opened(store, prior.staging) as other:
            steps = range(0, staged.size_bytes, _STEP_BYTES)
            return all(os.pread(one, _STEP_BYTES, at) == os.pread(other, _STEP_BYTES, at) for at in steps)
    except OSError:
        return False


@contextlib.contextmanager
def _opened(store: LocalStore, staging_id: str) -> Iterator[int]:
    fd = store.open_file(store.staging(staging_id), os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)
