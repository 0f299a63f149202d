"""The one table of error numbers, and the guard around every handler of the FUSE adapter.

ENOSYS is never answered: the kernel would not ask again.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import pyfuse3

from recfs import errors, object_errors

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
    errors.IoFailure: errno.EIO,
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
)
_DISK_ERRORS = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.ENOMEM)


def errno_of(error: Exception) -> int:
    """The error number a caller gets for *error*."""
    for kind in type(error).__mro__:
        if kind in ERRNO:
            return ERRNO[kind]
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return errno.ENOSPC if error.errno == errno.EDQUOT else error.errno or errno.EIO
    return errno.EIO


def guarded(handler: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Turn whatever *handler* raises into a FUSEError, logged as loudly as it deserves."""
    name = handler.__name__

    @functools.wraps(handler)
    async def guard(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(*args, **kwargs)
        except errors.RecfsError as error:
            number = errno_of(error)
            level = logging.DEBUG if isinstance(error, _QUIET) else logging.INFO
            if number == errno.EIO:
                level = logging.ERROR
            if log.isEnabledFor(level):
                log.log(level, "%s: %s (%s)", name, error, errno.errorcode.get(number, number))
            raise pyfuse3.FUSEError(number) from None
        except pyfuse3.FUSEError:
            raise
        except OSError as error:
            number = errno_of(error)
            log.error("%s: %s", name, error, exc_info=number == errno.EIO)
            raise pyfuse3.FUSEError(number) from None
        except Exception:
            log.exception("%s: unexpected error, answered with EIO", name)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return guard


__all__ = ["ERRNO", "errno_of", "guarded"]
