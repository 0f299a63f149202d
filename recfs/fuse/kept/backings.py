"""Files that the kernel was given to read and write by itself, by a daemon that died (state/ledger/table.py)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from recfs.fuse.device import backing_close

if TYPE_CHECKING:
    from collections.abc import Iterable


def close_backings(device: int, backing_ids: Iterable[int]) -> None:
    """Have the kernel let go of them, as far as it has them."""
    for backing_id in backing_ids:
        with contextlib.suppress(OSError):  # ENOENT: it has not
            backing_close(device, backing_id)


__all__ = ["close_backings"]
