"""Handlers of the kernel's requests that somebody may observe."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger("recfs.fuse")

Observer = Callable[[str, tuple[Any, ...], int, float], None]
"""Told of a request when it was carried out or refused, before its answer is sent: the handler's name, its arguments
(the first is the object that has the handler), the error number or 0, and how many seconds it took. Atomic.
"""


class Watched:
    """Base class of what has handlers that somebody may observe."""

    def __init__(self) -> None:
        self.watching: dict[str, tuple[Observer, ...]] = {}
        """Who is told, by the handler's name. A handler that is not here pays next to nothing."""

    def watch(self, name: str, observer: Observer) -> None:
        """Tell *observer* of this handler's requests from now on."""
        self.watching[name] = (*self.watching.get(name, ()), observer)

    def unwatch(self, observer: Observer) -> None:
        """Tell *observer* nothing any more. A request that is under way may still be told of."""
        for name, observers in list(self.watching.items()):
            left = tuple(each for each in observers if each != observer)
            if left:
                self.watching[name] = left
            else:
                del self.watching[name]


def tell(observers: tuple[Observer, ...], name: str, args: tuple[Any, ...], number: int, began_s: float) -> None:
    """Tell *observers* of a request that is over. Raises nothing."""
    took_s = time.perf_counter() - began_s
    for observer in observers:
        try:
            observer(name, args, number, took_s)
        except Exception:
            log.exception("%s: it could not be told", name)


__all__ = ["Observer", "Watched", "tell"]
