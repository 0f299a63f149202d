"""What the service manager is told of the daemon (sd_notify(3)), where there is one."""

from __future__ import annotations

import os
import time
from typing import Final

import sdnotify

READY: Final = "READY=1"


def tell(state: str) -> None:
    """Tell it; without one nothing happens. Never waits, and raises nothing."""
    if "NOTIFY_SOCKET" in os.environ:
        sdnotify.SystemdNotifier().notify(state)


def tell_of_reload(state: str) -> None:
    """Tell that a reload begins ("RELOADING"), or is over ("READY").

    With the time, since systemd 253 (Type=notify-reload): it ignores what was said before the reload that it asked for.
    """
    if state == "RELOADING":
        tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
    else:
        tell(READY)


__all__ = ["READY", "tell", "tell_of_reload"]
