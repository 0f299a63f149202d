"""DELETE: a file, a directory in a recording, or a recording, to the trash where there is one. Blocking calls."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from recfs.web.context import Context
from recfs.web.replacing import Identity, alone, identity

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def remove_file(
    context: Context, user: str, recording: str, names: tuple[str, ...], known: Identity | None = None
) -> bool:
    """Remove a file or a symbolic link; unless it is another one than *known*: False then.

    Raises OSError: IsADirectoryError for a directory.
    """
    above = context.tree.inside("users", user, "recordings", recording, *names[:-1])
    with above as folder, alone(folder, names[-1]):
        info = os.stat(names[-1], dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if known is not None and identity(info) != known:
            return False
        os.unlink(names[-1], dir_fd=folder)
    return True


def remove_recording(context: Context, user: str, recording: str) -> int:
    """Remove a recording with all that is in it; gives how many entries these were. No link is followed.

    Raises OSError for what cannot be removed: the rest may be gone then, and asking once more goes on.
    """
    with context.tree.inside("users", user, "recordings") as folder:
        count = _empty(folder, recording)
        os.rmdir(recording, dir_fd=folder)
    return count


def _empty(above: int, name: str) -> int:
    """Remove all in a directory, however deep: with one descriptor, and no call inside another.

    The way up is "..", which has to be what it was: where somebody moves directories meanwhile, it ends with ESTALE.
    """
    here, count = _entered(name, above), 0
    way: list[tuple[str, os.stat_result]] = []
    left = [os.listdir(here)]
    try:
        while True:
            while left[-1]:
                entry = left[-1].pop()
                try:
                    is_folder = stat.S_ISDIR(os.stat(entry, dir_fd=here, follow_symlinks=False).st_mode)
                    if not is_folder:
                        os.unlink(entry, dir_fd=here)
                        count += 1
                        continue
                    below = _entered(entry, here)
                except FileNotFoundError:
                    continue  # it went meanwhile
                way.append((entry, os.fstat(here)))
                os.close(here)
                here = below
                left.append(os.listdir(here))
            left.pop()
            if not way:
                return count
            entry, was = way.pop()
            up = os.open("..", _FOLDER, dir_fd=here)
            os.close(here)
            here = up
            if not os.path.samestat(os.fstat(here), was):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            os.rmdir(entry, dir_fd=here)
            count += 1
    finally:
        os.close(here)


def _entered(name: str, above: int) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
    except NotADirectoryError as error:  # a link
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error


__all__ = ["remove_file", "remove_recording"]
