"""What the daemon's process is set up with: the limits of the system, and how the interpreter shares its time."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import resource
import signal
import sys

from recfs.core.units import format_size
from recfs.disk.diskio import few_files

log = logging.getLogger("recfs.daemon")


def prepare() -> None:
    """Set it up; once, before anything else runs."""
    _raise_file_limit()
    _raise_size_limit()
    # The watchdog of a service manager ends a daemon that hangs by SIGABRT: where it stood is told on standard error.
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # which may be closed
        faulthandler.enable()
    # Hashing threads run little Python, but between two of their system calls they hold the GIL for up to this long
    # while a request waits. Ten times the default's frequency costs under 1 % and shortens that wait as much.
    sys.setswitchinterval(0.0005)
    # Looking through all objects for cycles stops everybody, with many inodes in memory for a tenth of a second. They
    # make none; what does (tracebacks, tasks) is mostly found among the young. So the old are looked at more rarely. Of
    # the young fewer are looked at at a time: 20,000 of them, as a large removal makes, took up to 28 ms.
    gc.set_threshold(1000, 2, 700)
    # A lease that is tried for a moment (disk/leases.py) may be broken by an open in just that moment.
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def has_controlling_terminal() -> bool:
    """Whether SIGHUP would say that the terminal of this process is gone (termios(3)): that is its end."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _raise_size_limit() -> None:
    """Everybody's files are written with the daemon's limit (RLIMIT_FSIZE); the kernel keeps writers to their own."""
    unlimited = resource.RLIM_INFINITY
    _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    except (ValueError, OSError):  # only root may raise the hard one (setrlimit(2))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        log.warning(
            "no file can become larger than %s (RLIMIT_FSIZE of %s bytes): start recfs without that limit (ulimit -f)",
            format_size(hard), hard,
        )  # fmt: skip


def _raise_file_limit() -> None:
    """One descriptor per open file: take what the system allows (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    few = few_files()
    if few is not None:
        log.warning("%s", few)


__all__ = ["has_controlling_terminal", "prepare"]
