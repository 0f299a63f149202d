"""Unfinished overwrites: whether one had been closed, and where its bytes go if not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.disk.staging import Label

if TYPE_CHECKING:
    from recfs.fs.recovery.finds import Finds
    from recfs.stores.local import StagingFile


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
