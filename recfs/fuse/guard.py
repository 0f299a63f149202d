"""The one table of error numbers, and the guard around every handler of the FUSE adapter.

ENOSYS is never answered: the kernel would not ask again.
"""

from __future__ import annotations

import errno
import functools
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import pyfuse3

from recfs import errors
from recfs.fuse import interpose
from recfs.fuse.observers.watched import Watched, tell
from recfs.fuse.standstill.gate import GATE
from recfs.ports import object_errors
from recfs.state import waits

log = logging.getLogger("recfs.fuse")

P = ParamSpec("P")
R = TypeVar("R")

ERRNO: dict[type[errors.RecfsError], int] = {
    errors.NotFound: errno.ENOENT,
    errors.Exists: errno.EEXIST,
    errors.NotEmpty: errno.ENOTEMPTY,
    errors.IsADirectory: errno.EISDIR,
    errors.NotADirectory: errno.ENOTDIR,
    errors.NameTooLong: errno.ENAMETOOLONG,
    errors.InvalidPath: errno.EINVAL,  # EPERM would be defensible; EINVAL says "this name", not "you"
    errors.InvalidArgument: errno.EINVAL,
    errors.NotPermitted: errno.EPERM,
    errors.AccessDenied: errno.EACCES,
    errors.ReadOnlyFile: errno.EROFS,  # not EACCES: no chmod would help
    errors.QuotaExceeded: errno.EDQUOT,
    errors.FileTooLarge: errno.EFBIG,
    errors.OutOfSpace: errno.ENOSPC,
    errors.NoAttribute: errno.ENODATA,
    errors.NotSupported: errno.EOPNOTSUPP,
    errors.TooBig: errno.E2BIG,
    errors.Stale: errno.ESTALE,
    errors.OtherDevice: errno.EXDEV,
    errors.Busy: errno.EBUSY,
    errors.Interrupted: errno.EINTR,
    errors.TryAgain: errno.EAGAIN,
    errors.TooManyFiles: errno.EMFILE,
    errors.IoFailure: errno.EIO,
    errors.RowRefused: errno.EIO,
    object_errors.ObjectArchived: errno.EACCES,
    object_errors.ObjectStoreError: errno.EIO,
}
_QUIET = (
    errors.NotFound,
    errors.Exists,
    errors.NoAttribute,
    errors.NotSupported,
    errors.NotEmpty,
    errors.NotPermitted,
    errors.OtherDevice,
    errors.Interrupted,
    errors.TooManyFiles,  # told by disk/shares.py
)
_DISK_ERRORS = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What the disk below may answer and programs are told; its EDQUOT as ENOSPC, for it is no limit of the user's here."""
_DISK_REFUSALS = {
    errno.EPERM: "on the disk below it may not be changed; `lsattr` shows whether it is immutable",
    errno.EACCES: "the daemon's user may not do this on the disk below; look at the owner and the modes there",
    errno.EROFS: "the disk below is read-only",
}
"""What the disk does not let recfs do is told as it is, with what helps."""


def errno_of(error: Exception) -> int:
    """The error number a caller gets for *error*."""
    for kind in type(error).__mro__:
        if kind in ERRNO:
            return ERRNO[kind]
    if isinstance(error, OSError) and (error.errno in _DISK_ERRORS or error.errno in _DISK_REFUSALS):
        return errno.ENOSPC if error.errno == errno.EDQUOT else error.errno or errno.EIO
    return errno.EIO


def _refusal(name: str, error: Exception) -> pyfuse3.FUSEError:
    """What the handler *name* answers because of *error*, which is logged as loudly as it deserves."""
    if isinstance(error, pyfuse3.FUSEError):
        return error
    number = errno_of(error)
    if isinstance(error, errors.RecfsError):
        level = logging.DEBUG if isinstance(error, _QUIET) else logging.INFO
        if number == errno.EIO:
            level = logging.ERROR
        if log.isEnabledFor(level):
            log.log(level, "%s: %s (%s)", name, error, errno.errorcode.get(number, number))
    elif number in _DISK_REFUSALS:
        log.error("%s: %s; %s", name, error, _DISK_REFUSALS[number])
    elif isinstance(error, OSError):
        log.error("%s: %s", name, error, exc_info=error if number == errno.EIO else None)
    else:
        log.error("%s: unexpected error, answered with EIO", name, exc_info=error)
        number = errno.EIO
    return pyfuse3.FUSEError(number)


def guarded(handler: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Turn whatever *handler* raises into a FUSEError; while it waits, it is known by the request's number."""
    name = handler.__name__
    number = interpose.reply.unique if interpose.reply is not None else lambda: 0
    known_as = waits.ticket.set

    @functools.wraps(handler)
    async def guard(*args: P.args, **kwargs: P.kwargs) -> R:
        known_as(number())
        GATE.in_hand += 1
        observers = args[0].watching.get(name) if args and isinstance(args[0], Watched) else None
        began_s = time.perf_counter() if observers is not None else 0.0
        try:
            result = await handler(*args, **kwargs)
        except Exception as error:
            refusal = _refusal(name, error)
            if observers is not None:
                tell(observers, name, args, refusal.errno, began_s)
            raise refusal from None
        else:
            if observers is not None:
                tell(observers, name, args, 0, began_s)
            return result
        finally:
            GATE.in_hand -= 1  # pyfuse3 sends the answer in the same step

    return guard


def guarded_apart(handler: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """The same for a handler that has a task of its own (fuse/extra_requests.py), which is known already."""
    name = handler.__name__

    @functools.wraps(handler)
    async def guard(*args: P.args, **kwargs: P.kwargs) -> R:
        observers = args[0].watching.get(name, ()) if args and isinstance(args[0], Watched) else ()
        began_s = time.perf_counter()
        try:
            result = await handler(*args, **kwargs)
        except Exception as error:
            refusal = _refusal(name, error)
            tell(observers, name, args, refusal.errno, began_s)
            raise refusal from None
        tell(observers, name, args, 0, began_s)
        return result

    return guard


__all__ = ["ERRNO", "errno_of", "guarded", "guarded_apart"]
