"""Whether an upload may begin: decided by the user's limits and by what stands in its place, before any byte.

What is decided here may be otherwise when it ends: the file system has the last word, when it is staged (`create`) and
when it gets its name (`commit`). Blocking calls, for threads.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from recfs.client.errors import UploadRefused
from recfs.client.uploads import ALLOWED_EXTENSIONS, attribute, check_upload
from recfs.web.uploads.errors import Changed, OverLimit
from recfs.web.uploads.plan import ANYTHING, NOTHING, Plan, UploadId
from recfs.web.uploads.staged import DATA, PLAN, Folders

_QUOTA = "user.recfs.quota."


def admit(folders: Folders, plan: Plan, *, allowed: frozenset[str] = ALLOWED_EXTENSIONS) -> None:
    """Raise what an upload would be refused for: OverLimit, UploadRefused, FileExistsError, Changed, OSError."""
    if not plan.fits():  # said before any byte, not when there is no room to note that some have come
        raise UploadRefused("what is told of this upload, with its path and name, is too long: tell less")
    if plan.is_source:
        check_upload(plan.path[0], plan.length, allowed=allowed)
    user = folders("users", plan.id.user)
    try:
        _check_limits(user, plan)
    finally:
        os.close(user)
    check_place(folders, plan)


def _check_limits(user: int, plan: Plan) -> None:
    length = plan.length or 0
    size = _limit(user, "max_file_size")
    if size is not None and length > size:
        raise OverLimit("max_file_size", f"a file has {size} bytes at most")
    room = _limit(user, "max_bytes")
    if room is not None and (used := _used(user, "used_bytes")) + length > room:
        raise OverLimit("max_bytes", f"of {room} bytes {used} are used; this takes {length}")
    files = _limit(user, "max_files")
    if files is not None and _used(user, "used_files") >= files:
        raise OverLimit("max_files", f"there are {files} files already, as many as are allowed")
    uploads = _limit(user, "max_monthly_uploads")
    if uploads is not None and plan.is_source and plan.replaces == NOTHING and _used(user, "month_uploads") >= uploads:
        raise over_monthly(uploads)


def over_monthly(limit: int | None = None) -> OverLimit:
    """What is said of an upload too many in this month."""
    told = "as many uploads as are allowed were made this month"
    return OverLimit("max_monthly_uploads", told if limit is None else f"{told}: {limit}")


def _limit(user: int, name: str) -> int | None:
    raw = attribute(user, _QUOTA + name)
    return int(raw) if raw is not None and raw.isdigit() else None


def _used(user: int, name: str) -> int:
    raw = attribute(user, _QUOTA + name)
    return int(raw) if raw is not None and raw.isdigit() else 0


def check_place(folders: Folders, plan: Plan) -> None:
    """Raise FileExistsError or Changed unless in the place of an upload stands what it may replace. Raises OSError."""
    try:
        folder = folders(*plan.target[:-1])
    except FileNotFoundError:
        if plan.replaces != NOTHING:
            raise Changed("there is no file to be replaced") from None
        return
    try:
        check_name(folder, plan)
    finally:
        os.close(folder)


def check_name(folder: int, plan: Plan) -> None:
    """`check_place`, of the open directory of the target."""
    name = plan.target[-1]
    try:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        if plan.replaces != NOTHING:
            raise Changed("there is no file to be replaced") from None
        return
    if plan.replaces == NOTHING:
        raise FileExistsError(17, "there is one already")
    if not stat.S_ISREG(info.st_mode):
        raise IsADirectoryError(21, "this is no file")
    if plan.replaces == ANYTHING:
        return
    if sha256_of(folder, name) != plan.replaces:
        raise Changed("the file that was to be replaced is another one by now")


def sha256_of(folder: int, name: str) -> str | None:
    """Give the checksum that the file system has of a file; None where it has none. Raises OSError."""
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    try:
        raw = attribute(file, "user.recfs.sha256")
    finally:
        os.close(file)
    return None if raw is None else raw.decode("ascii", "replace")


def unfinished(folders: Folders, user: str) -> list[UploadId]:
    """Give the uploads of a user whose bytes are staged, in no order. Raises OSError."""
    return [id for id, staged in _jobs(folders, user) if staged]


def ended(folders: Folders, user: str, before_ns: int) -> list[UploadId]:
    """Give the uploads of a user that ended, one way or the other, before a moment. Raises OSError."""
    found = []
    for id, staged in _jobs(folders, user):
        if staged:
            continue
        try:
            folder = folders("temp", user, id.job)
        except OSError:
            continue
        try:
            if attribute(folder, PLAN) is not None and os.fstat(folder).st_mtime_ns < before_ns:
                found.append(id)
        finally:
            os.close(folder)
    return found


def _jobs(folders: Folders, user: str) -> Iterator[tuple[UploadId, bool]]:
    """Directories in temp/ that may be uploads, each with whether there are bytes."""
    try:
        jobs = folders("temp", user)
    except FileNotFoundError:
        return
    try:
        for name in os.listdir(jobs):
            try:
                id = UploadId.parse(f"{user}.{name}")
            except ValueError:
                continue
            try:
                os.stat(f"{name}/{DATA}", dir_fd=jobs, follow_symlinks=False)
            except OSError:
                yield id, False
            else:
                yield id, True
    finally:
        os.close(jobs)


def users(folders: Folders) -> list[str]:
    """Give the users who have a directory in temp/. Raises OSError."""
    try:
        temp = folders("temp")
    except FileNotFoundError:
        return []
    try:
        return os.listdir(temp)
    finally:
        os.close(temp)


def closed_to_us(folders: Folders, users: Iterable[str]) -> list[str]:
    """Give those of temp/ and its users' directories in which this process may make nothing. Raises nothing."""
    closed = []
    for path in (("temp",), *(("temp", user) for user in users)):
        try:
            folder = folders(*path)
        except FileNotFoundError:
            continue
        except OSError:
            closed.append("/".join(path))
            continue
        try:
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True):
                closed.append("/".join(path))
        finally:
            os.close(folder)
    return closed


__all__ = [
    "admit",
    "check_name",
    "check_place",
    "closed_to_us",
    "ended",
    "over_monthly",
    "sha256_of",
    "unfinished",
    "users",
]
