"""The farm: a directory of symbolic links named as the targets are, since rsync cannot rename files on the way.

A link leads to the source as it is open in this process (`/proc/PID/fd/N`, proc_pid_fd(5)), not to its path: what is
copied is the file that was looked at, whatever comes in its place meanwhile.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from recfs.errors import IoFailure
from recfs.migration.plans import state_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Farm:
    """The farms of a run, one for each rsync."""

    def __init__(self, plan: Path) -> None:
        """Begin, and take away what an earlier run has left. Raises IoFailure."""
        state = state_of(plan)
        self._top = os.fsencode(state.with_name(f"{state.name}.farm"))
        self._number = 0
        self.end()
        try:
            os.mkdir(self._top, 0o700)
        except OSError as error:
            raise IoFailure(f"{os.fsdecode(self._top)} cannot be made: {error.strerror}") from None

    def planted(self, links: Iterable[tuple[bytes, int]]) -> bytes:
        """Make a farm of targets and the descriptors of their sources; its path. Raises OSError."""
        self._number += 1
        top = b"%s/%d" % (self._top, self._number)
        os.mkdir(top)
        made: set[bytes] = set()
        for target, fd in links:
            folder = target.rpartition(b"/")[0]
            if folder not in made:
                os.makedirs(b"%s/%s" % (top, folder), exist_ok=True)
                made.add(folder)
            os.symlink(b"/proc/%d/fd/%d" % (os.getpid(), fd), b"%s/%s" % (top, target))
        return top

    def cleared(self, farm: bytes) -> None:
        """Take one away again."""
        shutil.rmtree(farm, ignore_errors=True)

    def end(self) -> None:
        """Take all away."""
        shutil.rmtree(self._top, ignore_errors=True)


__all__ = ["Farm"]
